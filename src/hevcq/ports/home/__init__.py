"""Ports of a household: pauses, events and their receivers, files on other servers, and the health of a library."""
