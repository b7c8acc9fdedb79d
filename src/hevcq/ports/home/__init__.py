"""Ports of a household: files on other servers, and the health of a library."""
