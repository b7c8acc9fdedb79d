"""Which files of a library are videos, and when that changes."""
