"""What is carried into a rendition takes the room that was made for it, and nothing else is moved."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.planner import make_plan
from hevcq.errors import DiskFull, EncoderFailed
from hevcq.ffmpeg.command.build import ROOM
from hevcq.ffmpeg.run.carry import carry_into_matroska
from hevcq.ffmpeg.run.runner import create_output
from support.matroska import (
    CLUSTER,
    LANGUAGE,
    SEEK_HEAD,
    SEGMENT,
    SIMPLE,
    TAG,
    TAGS,
    TARGETS,
    TRACK,
    TRACKS,
    VOID,
    element,
    inside,
    read,
)
from support.media_facts import MKV, audio, media, profile, video


def asked(path: Path, language: str = "pt-BR") -> SimpleNamespace:
    """Return what carrying wants of a request: Matroska with a sound in Brazilian."""
    info = media(video(64, 48), audio(language_tag=language, language="por"), form=MKV)
    plan = make_plan(profile(container="mkv"), info)
    assert isinstance(plan, EncodePlan), plan
    return SimpleNamespace(output=path, info=info, plan=plan, location=str(path))


def tag(name: str, value: str) -> bytes:
    text = element(SIMPLE, element(0x45A3, name), element(0x4487, value))
    return element(TAG, element(TARGETS, b""), text)


SIZE = element(0xB0, 64) + element(0xBA, 48)
PICTURE = element(TRACK, element(0x73C5, 1), element(0x83, 1), element(0xE0, SIZE))
SOUND = element(TRACK, element(0x73C5, 2), element(0x83, 2), element(LANGUAGE, "por"))
HEAD = element(SEEK_HEAD, bytes(4) and element(VOID, bytes(90)))
LIST = element(TRACKS, PICTURE, SOUND)


def stored(path: Path, *tables: bytes, media_after: bytes = element(CLUSTER, b"media")) -> bytes:
    path.write_bytes(element(0x1A45DFA3, b"") + element(SEGMENT, *tables, media_after))
    return path.read_bytes()


@pytest.mark.parametrize("left", [[], ["TITLE"]])
def test_a_language_takes_the_room_of_a_tag(tmp_path, left) -> None:
    path = tmp_path / "a.mkv"
    tags = [tag(name, "My video") for name in left]
    before = stored(path, HEAD, LIST, element(TAGS, tag("X", ROOM + 200 * "r"), *tags))

    carry_into_matroska(asked(path))

    after = path.read_bytes()
    assert len(after) == len(before)
    assert after.index(b"media") == before.index(b"media")
    _, sound = inside(after, SEGMENT, TRACKS, TRACK)
    assert inside(sound, LANGUAGE) == [b"pt-BR"]
    assert inside(after, SEGMENT, TAGS, TAG, SIMPLE, 0x45A3) == [name.encode() for name in left]
    assert bool(inside(after, SEGMENT, TAGS)) == bool(left)


def test_room_is_filled_up_to_the_last_bytes_or_refused(tmp_path: Path) -> None:
    """A void element has two bytes at least, and another form from ten bytes on."""
    path, refused, voids = tmp_path / "a.mkv", [], []
    request = asked(path, language="pt-BR-x-of-the-South-and-others-beside-it")
    for room in range(30):
        stored(path, element(SEEK_HEAD, bytes(room)), LIST)
        try:
            carry_into_matroska(request)
        except EncoderFailed as error:
            refused.append(str(error))
            continue
        kinds = [kind for kind, _ in read(inside(path.read_bytes(), SEGMENT)[0])]
        assert kinds[-2:] == [VOID, CLUSTER]
        voids.append(len(inside(path.read_bytes(), SEGMENT, VOID)[0]))
    assert refused[-1] == f"{path} has no room for 1 bytes of metadata."
    assert voids == [*range(8), *range(1, 20)]


@pytest.mark.parametrize(("number", "full"), [(28, True), (122, True), (13, False)])
def test_an_output_for_which_there_is_no_room_is_a_full_disk(monkeypatch, number, full) -> None:
    def touch(_path, exist_ok):
        raise OSError(number, "No")

    monkeypatch.setattr(Path, "touch", touch)
    with pytest.raises(DiskFull, match="There is no room to create") if full else nullcontext():
        create_output(Path("a.mkv"))
