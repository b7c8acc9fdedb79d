"""Text that a terminal, a log line and a JSON document can carry, made from untrusted names."""

from __future__ import annotations


def encodable(text: str) -> str:
    r"""Return `text` as valid Unicode; a byte that is not UTF-8 becomes `\xNN`.

    A file name may hold such bytes, as lone surrogates, which JSON and UTF-8 streams refuse.
    """
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte, from JSON or a web page
        raw = text.encode("utf-8", "backslashreplace")
    return raw.decode("utf-8", "backslashreplace")


def printable(value: object) -> str:
    """Return `value` as printable text on one line; control characters and odd bytes are escaped.

    File names are untrusted: one must neither break a line nor steer the terminal.
    """
    text = encodable(str(value))
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
