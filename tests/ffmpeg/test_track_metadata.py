"""What a file says of one track arrives with that track, or is named before the encode."""

from pathlib import Path

import pytest

from hevcq.ffmpeg.verify.streams import stream_problems
from support.clips import make_clip
from support.rendition import add_boxes, box, clap, elng, planned, rendition

pytestmark = pytest.mark.media
VIDEO, SOUND = (b"moov", (b"trak", 0)), (b"moov", (b"trak", 1))
ENTRY = (b"mdia", b"minf", b"stbl", b"stsd", b"avc1")
LENS = box(b"LENS", b"a lens of this camera")
UUID = box(b"uuid", bytes(range(16)) + b"of an editor")
TABLE = box(
    b"meta", box(b"hdlr", bytes(8) + b"mdta" + bytes(13)) + box(b"xml ", b"\0" * 4 + b"<x/>")
)


def two_tracks(folder: Path, name: str = "a.mp4", **options) -> Path:
    labels = ("-metadata:s:1", "language=por", "-metadata:s:1", "handler_name=Sound desk")
    more = options.pop("extra", ())
    return make_clip(folder, name=name, size="64x64", seconds=1, extra=[*labels, *more], **options)


def marked(clip: Path) -> Path:
    return add_boxes(
        clip,
        ((*VIDEO, b"mdia"), elng("de-CH")),
        ((*VIDEO, b"udta"), LENS + box(b"name", b"Kamera \xc3\x9c")),
        (VIDEO, UUID + TABLE),
        ((*SOUND, b"mdia"), elng("pt-BR")),
        ((*SOUND, b"udta"), box(b"name", b"Director")),
        ((b"moov",), UUID),
    )


@pytest.mark.parametrize("name", [pytest.param("a.mp4", marks=pytest.mark.slow), "a.mov"])
def test_names_languages_and_boxes_of_tracks_are_carried(tmp_path, name):
    clip = marked(two_tracks(tmp_path, name))

    info, plan = planned(clip)
    output, made = rendition(clip)

    picture, sound = made.streams[:2]
    assert (picture.title, sound.title) == ("Kamera Ü", "Director")
    assert (picture.language_tag, sound.language_tag) == ("de-CH", "pt-BR")
    assert (sound.language, sound.tags["handler_name"]) == ("por", "Sound desk")
    assert {item.place for item in info.metadata} == {"track 0", "track 0 itself", "index"}
    assert {(i.place, i.digest) for i in info.metadata} <= {
        (i.place, i.digest) for i in made.metadata
    }
    assert plan.losses == ()
    data = output.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    assert b"makes room" not in data


@pytest.mark.parametrize(
    ("field", "problem"), [("language_tag", "language tag"), ("title", "title")]
)
def test_what_a_track_lost_fails_the_stream_ledger(tmp_path, field, problem):
    clip = marked(two_tracks(tmp_path, audio=False, extra=()))
    info, plan = planned(clip)
    worse = info.streams[0].model_copy(update={field: ""})

    problems = stream_problems(plan, info, info.model_copy(update={"streams": (worse,)}))

    assert any(problem in found for found in problems)


DESCRIPTION = "of the track 0 sample description"


@pytest.mark.parametrize(
    ("path", "added", "lost"),
    [
        ((*VIDEO, *ENTRY), clap(48, 60, across=4), (f"clean aperture (clap) {DESCRIPTION}",)),
        ((b"moov", b"udta", b"meta"), box(b"ID32", bytes(4) + b"\x15\xc7ID3"), ("ID3 tags (ID32) of the movie table",)),
    ],
)  # fmt: skip
def test_what_changes_how_a_picture_is_shown_and_has_no_place_is_named(tmp_path, path, added, lost):
    clip = add_boxes(two_tracks(tmp_path, audio=False), (path, added))

    assert planned(clip)[1].losses == lost
