"""Paths as text for people."""

from __future__ import annotations


def show_path(path: object) -> str:
    """Return a path as printable text on one line: odd bytes and control characters escaped."""
    text = str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
