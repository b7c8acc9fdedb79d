"""Ports of a household that runs by itself: pauses, messages, history."""
