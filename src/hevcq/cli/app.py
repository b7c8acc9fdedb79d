"""The command line's root."""

from __future__ import annotations


def run() -> int:
    """Run the command line; return the exit code."""
    return 0
