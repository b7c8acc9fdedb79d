"""The front door: the console script's entry."""

from __future__ import annotations


def main() -> int:
    """Run the command line; return the exit code."""
    from hevcq.cli.app import run

    return run()
