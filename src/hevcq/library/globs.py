"""Globs over library paths: case-insensitive, `**` crosses folders, a bare name matches anywhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

Matcher = Callable[[str], bool]


def matcher(patterns: Iterable[str]) -> Matcher:
    """Return a function that tells whether a path relative to its root matches any pattern.

    `*` and `?` stay inside one folder, `**` crosses folders, `[…]` is a set of characters. A
    pattern without `/` is matched against the last component, at any depth; one with `/` against
    the whole relative path. No pattern matches nothing. Names may hold any bytes, newlines too.
    """
    compiled = [re.compile(_regex(pattern), re.IGNORECASE | re.DOTALL) for pattern in patterns]

    def matches(relative: str) -> bool:
        return any(pattern.fullmatch(relative) for pattern in compiled)

    return matches


def _regex(pattern: str) -> str:
    anchored = "/" in pattern.rstrip("/")
    pattern = pattern.strip("/")
    head = "" if anchored else "(?:.*/)?"
    return head + "".join(_pieces(pattern))


def _pieces(pattern: str) -> Iterable[str]:
    at = 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            at += 3
            yield "(?:.*/)?"
        elif pattern.startswith("**", at):
            at += 2
            yield ".*"
        elif pattern[at] == "[" and (end := pattern.find("]", at + 2)) > 0:
            yield _set(pattern[at + 1 : end])
            at = end + 1
        else:
            yield {"*": "[^/]*", "?": "[^/]"}.get(pattern[at], re.escape(pattern[at]))
            at += 1


def _set(body: str) -> str:
    negated = body[0] in "!^"
    inside = body[1:] if negated else body
    safe = inside.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace("^", "\\^")
    safe = safe.replace("&&", "&\\&").replace("||", "|\\|").replace("~~", "~\\~")
    return f"(?!/)[{'^' if negated else ''}{safe}]"
