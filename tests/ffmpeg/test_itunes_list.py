"""iTunes' tags of an MP4 arrive as they are: every value, each entry once, and none beside them."""

import struct
from pathlib import Path

import pytest

from hevcq.ffmpeg.containers.mp4 import metadata
from hevcq.ffmpeg.verify.streams import stream_problems
from support.clips import make_clip
from support.rendition import add_boxes, box, planned, probed, rendition

TEXT, NUMBER = 1, 21


def entry(kind: bytes, *values: bytes, form: int = TEXT) -> bytes:
    return box(kind, b"".join(box(b"data", struct.pack(">II", form, 0) + v) for v in values))


def free_form(name: bytes, value: bytes) -> bytes:
    mean = box(b"mean", bytes(4) + b"com.apple.iTunes")
    data = box(b"data", struct.pack(">II", TEXT, 0) + value)
    return box(b"----", mean + box(b"name", bytes(4) + name) + data)


ARTISTS = entry(b"\xa9ART", b"Alice", b"Bob")
ENTRIES = (
    entry(b"\xa9nam", b"Die Reise"),
    ARTISTS,
    entry(b"disk", bytes(3) + b"\x01\0\x02", form=0),
    entry(b"hdvd", b"\x01", form=NUMBER),
    entry(b"tvsn", b"\0\0\0\x02", form=NUMBER),
    entry(b"purd", b"2005-01-01"),
    entry(b"sonm", b"Reise, Die"),
    free_form(b"MYTAG", b"hello"),
    free_form(b"MYTAG", b"again"),
)


def tagged(folder: Path, *entries: bytes) -> Path:
    """Make an MP4 with only these entries in its list, and the mark of the program that wrote it."""
    clip = make_clip(folder, name="a.mp4", size="64x64", seconds=1, audio=False)
    clip.write_bytes(clip.read_bytes().replace(b"udta", b"free"))
    handler = box(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
    listed = box(b"ilst", b"".join(entries) + entry(b"\xa9too", b"OldTool"))
    return add_boxes(clip, ((b"moov",), box(b"udta", box(b"meta", bytes(4) + handler + listed))))


def listed(clip: Path) -> list[bytes]:
    with clip.open("rb") as file:
        return [f.box for f in metadata(file, clip.stat().st_size) if f.item.place == "movie list"]


@pytest.mark.parametrize("entries", [ENTRIES, ENTRIES[-1:]], ids=["many", "free form alone"])
def test_a_list_arrives_entry_by_entry(tmp_path, entries):
    clip = tagged(tmp_path, *entries)

    output, made = rendition(clip)

    assert listed(output) == list(entries)
    assert made.tags["encoder"].startswith("hevcq ")
    assert planned(clip)[1].losses == ()


def test_a_second_value_that_matroska_gets_no_word_of_is_a_loss(tmp_path):
    _, plan = planned(tagged(tmp_path, *ENTRIES), container="mkv")

    assert plan.losses == ("©ART of the movie list", "---- of the movie list")


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        ((entry(b"\xa9ART", b"Alice"), *ENTRIES[2:]), "it lacks ©ART of the movie list"),
        ((ARTISTS, *ENTRIES[3:]), "it lacks disk of the movie list"),
        ((*ENTRIES[1:], ENTRIES[-1]), "it has ---- of the movie list, which the source has not"),
        ((*ENTRIES[1:], free_form(b"hd_video", b"1")), "it has ---- of the movie list"),
    ],
    ids=["lost value", "lost number", "twice", "added"],
)
def test_the_gate_finds_each_lost_and_each_added_entry(tmp_path, made, problem):
    info, plan = planned(tagged(tmp_path, *ENTRIES[1:]))
    (tmp_path / "b").mkdir()
    output = probed(tagged(tmp_path / "b", *made))
    worse = info.model_copy(update={"metadata": output.metadata})

    assert any(problem in found for found in stream_problems(plan, info, worse))
