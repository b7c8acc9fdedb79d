"""What Matroska says beside ffmpeg's tags arrives in Matroska, and in MP4 where that has a place."""

from pathlib import Path

import pytest

from support.clips import make_clip
from support.matroska import (
    ATOM,
    CHAPTERS,
    EDITION,
    LANGUAGE,
    SEGMENT,
    SIMPLE,
    TAG,
    TAGS,
    TARGETS,
    element,
    inside,
    with_tables,
)
from support.rendition import planned, rendition

pytestmark = pytest.mark.media
HALF = 500_000_000
"""Half a second, in Matroska's nanoseconds."""


def clip_of(folder: Path) -> Path:
    labels = ["-metadata", "director=D", "-metadata:s:1", "language=por"]
    labels += ["-metadata:s:1", "title=Talk"]
    return make_clip(folder, name="a.mkv", size="64x48", seconds=1, extra=labels)


def atom(uid: int, start: int, end: int, *titles: tuple[str, str], more: bytes = b"") -> bytes:
    shown_as = [element(0x80, element(0x85, text), element(0x437C, code)) for text, code in titles]
    times = element(0x91, start) + element(0x92, end)
    return element(ATOM, element(0x73C4, uid), times, *shown_as, more)


BIG = 0xFEDC_BA98_7654_3210
EDITIONS = element(
    CHAPTERS,
    element(
        EDITION,
        element(0x45BC, 77) + element(0x45DB, 1),
        atom(BIG, 0, HALF, ("One", "eng"), ("Eins", "ger")),
        atom(BIG + 1, HALF, 2 * HALF, ("Two", "eng"), more=element(0x98, 1)),
    ),
    element(
        EDITION,
        element(0x45BC, 78) + element(0x45DD, 1),
        atom(5, HALF, 2 * HALF, ("Later first", "eng")),
        atom(6, 0, HALF, ("Then", "eng")),
    ),
)


def tag(targets: bytes, *simple: bytes) -> bytes:
    return element(TAG, element(TARGETS, targets), *simple)


def simple(name: str, value: str, *parts: bytes) -> bytes:
    return element(SIMPLE, element(0x45A3, name), element(0x4487, value), *parts)


LINKS = element(0x73A4, bytes(range(16))) + element(0x3EB923, bytes(range(16, 32)))
"""The file's id, and that of the file that is played after it."""
COLLECTION = tag(element(0x68CA, 70) + element(0x63CA, "COLLECTION"), simple("TITLE", "The saga"))
ACTOR = simple("ACTOR", "A. Person", simple("CHARACTER", "The Hero"))


def test_languages_stay_and_what_collectors_add_is_named(tmp_path):
    clip = clip_of(tmp_path)
    tags = element(
        TAGS,
        COLLECTION,
        tag(b"", simple("DIRECTOR", "D"), simple("ENCODER", "of before")),
        tag(b"", ACTOR),
        tag(element(0x63C9, 78), simple("TITLE", "Director's cut")),
        tag(element(0x63C4, 7), simple("MOOD", "calm")),
    )
    languages = {0: element(LANGUAGE, "de-CH"), 1: element(LANGUAGE, "pt-BR")}
    with_tables(clip, EDITIONS, tags, tracks=languages, info=LINKS, without=(TAGS, CHAPTERS))

    info, plan = planned(clip)
    output, made = rendition(clip)

    data = output.read_bytes()
    assert sorted(plan.losses) == [
        "editions, order or nesting of the chapters",
        "links to other files of the segment",
        "structured tags (ACTOR) of the file",
        "structured tags (MOOD) of the file",
        "structured tags (TITLE) of the file",
    ]
    assert [s.language for s in made.streams] == ["de-CH", "pt-BR"]
    assert b"of before" not in data
    assert [c.title for c in made.chapters] == [c.title for c in info.chapters]
    names = [n for each in inside(data, SEGMENT, TAGS, TAG) for n in inside(each, SIMPLE, 0x45A3)]
    assert {b"HEVCQ", b"DIRECTOR"} <= set(names)


def test_a_language_becomes_mp4s_own(tmp_path):
    clip = with_tables(clip_of(tmp_path), tracks={1: element(LANGUAGE, "pt-BR")})

    _, made = rendition(clip, container="mp4")

    sound = made.streams[1]
    assert (sound.language_tag, sound.language, sound.title) == ("pt-BR", "por", "Talk")


def test_a_track_that_is_not_to_be_played_is_named(tmp_path):
    clip = with_tables(clip_of(tmp_path), tracks={0: element(0xB9, 0)})

    assert planned(clip)[1].losses == (
        "the mark of a track that is not to be played of the tracks",
    )
