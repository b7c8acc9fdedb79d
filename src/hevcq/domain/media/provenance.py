"""Mark renditions with their profile and revision, so that hevcq recognises its own files.

Matroska and MOV hold a tag named `hevcq`. Plain MP4 keeps only the tags that iTunes defines, so
its mark is the "encoding tool", which ffprobe reports as `encoder`. AVI's is `encoded_by`, and Ogg's
tags are those of its streams.
"""

from __future__ import annotations

from hevcq.domain.media.facts import MediaInfo

KEY = "hevcq"
_TOOL_KEYS = frozenset({"encoder", "encoding_tool", "encoded_by"})


def mark(profile: str, revision: str) -> str:
    """Return the value of the `hevcq` tag."""
    return f"{profile}/{revision}"


def tool_mark(profile: str, revision: str) -> str:
    """Return the value of the "encoding tool" tag of an MP4."""
    return f"{KEY} {mark(profile, revision)}"


def found_mark(info: MediaInfo) -> str | None:
    """Return `profile/revision` if the file is a rendition made by hevcq, else None."""
    for tags in (info.tags, *(stream.tags for stream in info.streams)):
        for name, value in tags.items():
            if name.lower() == KEY:
                return value
            if name.lower() in _TOOL_KEYS and value.startswith(f"{KEY} "):
                return value.removeprefix(f"{KEY} ")
    return None
