"""Read playlists as a player does, without hevcq's own words for them."""

import re
from typing import NamedTuple

_ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"]*"|[^",]*)(?:,|$)')


class Listed(NamedTuple):
    """A line of a master playlist: its attributes without quotes, and its URI."""

    attributes: dict[str, str]
    uri: str

    def number(self, name: str) -> float:
        return float(self.attributes[name])


def listed(text: str, kind: str) -> list[Listed]:
    """Return the lines of a kind (`MEDIA`), in order; a variant's URI is on the line behind it."""
    lines = text.splitlines()
    found = []
    for number, line in enumerate(lines):
        if line.startswith(f"#EXT-X-{kind}:"):
            words = {name: value.strip('"') for name, value in _ATTRIBUTE.findall(line)}
            found.append(Listed(words, words.get("URI") or lines[number + 1]))
    return found


def variants(text: str) -> list[Listed]:
    return listed(text, "STREAM-INF")


def ranges(text: str) -> list[tuple[int, int]]:
    """Return the byte ranges [start, end) of a media playlist."""
    found = re.findall(r"#EXT-X-BYTERANGE:(\d+)@(\d+)", text)
    return [(int(start), int(start) + int(size)) for size, start in found]
