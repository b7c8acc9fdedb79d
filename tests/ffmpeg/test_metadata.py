"""What a person's file says of itself is in the rendition, or is named before the encode."""

import struct
from pathlib import Path

import pytest

from ffmpeg.verify.conftest import ffmpeg
from hevcq.domain.media.facts import StreamKind
from hevcq.ffmpeg.verify.streams import stream_problems
from support.clips import make_clip
from support.rendition import add_boxes, box, planned, rendition

pytestmark = pytest.mark.media
XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + b"<x:xmpmeta>4 stars</x:xmpmeta>" * 9


def with_boxes(clip: Path, *, user_data: bytes = b"", entries: bytes = b"", after: bytes = b""):
    """Add boxes to the user data, to the iTunes list and behind the index of a clip."""
    user, listed = (b"moov", b"udta"), (b"moov", b"udta", b"meta", b"ilst")
    added = ((listed, entries), (user, user_data), ((), after))
    return add_boxes(clip, *((path, new) for path, new in added if new))


def clip_of(folder: Path, name: str = "a.mp4", extra: tuple[str, ...] = ()) -> Path:
    return make_clip(folder, name=name, size="64x64", seconds=1, extra=["-an", *extra])


HIGHLIGHTS = struct.pack(">III", 2, 200, 400)
"""Their number and milliseconds, which ffmpeg 9 also reads as chapters."""
TRAILER = (
    (block := struct.pack(">HHI", 0, 0x10A, 14) + b"Image_UTC_Data1700000000000")
    + (directory := b"SEFH" + struct.pack("<IIHHII", 106, 1, 0, 0xA01, len(block), len(block)))
    + struct.pack("<I4s", len(directory), b"SEFT")
)
"""What Samsung's phones write behind the boxes."""
CAMERA = box(b"smta", b"\0\0\0\0Samsung's own") + box(b"HMMT", HIGHLIGHTS)
STORE = box(b"cnID", box(b"data", struct.pack(">III", 21, 0, 12345)))
TITLE = box(b"titl", b"\0\0\0\0\x15\xc73GPP's title\0")
SORT = box(b"sonm", box(b"data", struct.pack(">II", 1, 0) + b"Holiday, the"))


def test_boxes_of_cameras_and_editors_are_carried_as_they_are(tmp_path):
    clip = clip_of(tmp_path, extra=("-metadata", "title=The holiday"))
    with_boxes(
        clip, user_data=CAMERA + TITLE, entries=STORE + SORT, after=box(b"uuid", XMP) + TRAILER
    )
    info, plan = planned(clip)

    output, made = rendition(clip)

    assert {item.name.partition(" ")[0] for item in info.metadata} >= {
        "XMP", "cnID", "GoPro's", "Samsung's", "title",
    }  # fmt: skip
    assert output.read_bytes().endswith(TRAILER)
    assert plan.losses == ()
    assert {item.digest for item in info.metadata} <= {item.digest for item in made.metadata}
    assert made.tags["title"] == "The holiday"
    assert made.tags["sort_name"] == "Holiday, the"
    data = output.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # players still find the index first
    assert b"makes room" not in data


C2PA = (
    bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
    + b"\0\0\0\0manifest\0"
    + bytes(8)
    + b"jumb" * 9
)


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_credentials_of_the_originals_bytes_are_left_out_with_a_notice(tmp_path, container):
    clip = with_boxes(clip_of(tmp_path), after=box(b"uuid", C2PA) + box(b"uuid", XMP))
    _, plan = planned(clip, container=container)

    output, _ = rendition(clip, container=container)

    assert [each for each in plan.notices if "Content Credentials (C2PA) are left out" in each]
    assert "Content Credentials" not in "".join(plan.losses)
    assert C2PA[:16] not in output.read_bytes()


def test_tags_without_a_place_in_mp4_become_free_form_entries(tmp_path):
    clip = clip_of(tmp_path, "a.mkv", ("-metadata", "title=T", "-metadata", "director=Fünf / 5"))

    _, made = rendition(clip, container="mp4")

    assert made.tags["title"] == "T"
    assert {k.lower(): v for k, v in made.tags.items()}["director"] == "Fünf / 5"


@pytest.mark.parametrize("container", ["mkv", "mp4"])
def test_the_station_of_a_broadcast_is_kept(tmp_path, container):
    station = ("-metadata", "service_name=Das Erste", "-metadata", "service_provider=ARD")
    clip = clip_of(tmp_path, "a.ts", station)

    _, made = rendition(clip, container=container)

    found = {name.lower(): value for name, value in made.tags.items()}
    assert (found["service_name"], found["service_provider"]) == ("Das Erste", "ARD")


def test_a_loss_is_named_by_the_plan_and_forbids_replacing(tmp_path):
    clip = with_boxes(clip_of(tmp_path), user_data=CAMERA)

    _, plan = planned(clip, container="mkv")
    dropped = planned(clip, container="mkv", policies={"metadata": "drop"})[1]

    assert len(plan.losses) == 2
    assert "Samsung's camera data (smta) of the movie" in plan.notices[-1]
    assert (dropped.losses, dropped.notices) == ((), plan.notices)


def test_a_rendition_has_the_tracks_that_the_plan_kept_in_their_order(tmp_path):
    clip, source = clip_of(tmp_path, "silent.mp4"), tmp_path / "a.mp4"
    ffmpeg(
        "-i", clip, "-f", "lavfi", "-i", "anoisesrc=d=1:c=pink,volume=0.3", "-map", "0:0",
        *3 * ("-map", "1:a"), "-c:a", "aac", "-c:v", "copy", "-metadata:s:a:0", "language=eng",
        "-metadata:s:a:1", "language=fra", "-metadata:s:a:2", "language=deu", source,
    )  # fmt: skip
    listed = {"audio": {"languages": ["deu"]}}
    info, plan = planned(source, **listed)

    made = rendition(source, **listed)[1]
    sounds = [made.of_kind(StreamKind.AUDIO), *info.of_kind(StreamKind.AUDIO)[1:2]]

    assert [stream.language for stream in sounds[0]] == ["eng", "deu"]
    assert stream_problems(plan, info, made) == []
    for spoilt in ([1, 0], [0], [0, 1, 2], [2, 1]):
        tracks = ([*sounds[0], *sounds[1:]][n] for n in spoilt)
        other = made.model_copy(update={"streams": (made.streams[0], *tracks)})
        assert stream_problems(plan, info, other), spoilt
    assert plan.losses == ("sound in fra (stream 2)",)


def test_a_rendition_that_lacks_what_was_promised_fails_the_stream_ledger(tmp_path):
    tags = ("-metadata", "title=T", "-metadata", "genre=Jazz")
    clip = with_boxes(clip_of(tmp_path, extra=tags), user_data=CAMERA)
    info, plan = planned(clip)
    _, made = rendition(clip)

    assert stream_problems(plan, info, made) == []
    for lost in ("title", "genre", "HMMT"):
        update = {
            "tags": {key: value for key, value in made.tags.items() if key != lost},
            "metadata": tuple(item for item in made.metadata if lost not in item.name),
        }
        worse = made.model_copy(update=update)
        assert any(lost in problem for problem in stream_problems(plan, info, worse))
