"""Bad input, named: a clear sentence, the others go on, nothing is lost, the exit code says so."""

import json
import os
import shutil
from pathlib import Path

import pytest

from e2e.embedded.farm import Farm, Ran, bound_by_permissions, digest, first_event

pytestmark = pytest.mark.media


def reasons(ran: Ran, name: str) -> str:
    """Everything that was said about files of that name."""
    said = [e for e in ran.events if str(e.get("path", "")).endswith(name) and e.get("reason")]
    return " ".join(str(event["reason"]) for event in said)


NO_VIDEOS = {
    "empty.mp4": (b"", "empty"),
    "text.mp4": (b"this is not a video\n" * 100, "text"),
    "playlist.mp4": (b"#EXTM3U\n#EXTINF:5,\n/etc/passwd\n#EXT-X-ENDLIST\n", "not"),
    "noise.mp4": (bytes(range(7, 256)) * 80, "not"),
}


def test_what_is_no_whole_video_is_named_and_the_others_go_on(farm):
    farm.clip("good.mp4")
    farm.clip("song.mp4", extra=["-vn"])
    for name, (content, _) in NO_VIDEOS.items():
        (farm.media / name).write_bytes(content)
    for suffix in ("mp4", "mkv"):
        cut(farm, f"cut.{suffix}")
    farm.clip("secret.mp4").chmod(0)
    farm.prefix = bound_by_permissions()
    farm.clip("taken.mp4")
    (farm.media / "taken.hevc.mp4").write_text("a treasure")
    before = {path: digest(path) for path in farm.media.iterdir()}

    ran = farm.ingest()

    assert ran.code == 1, ran.out
    for name, (_, word) in NO_VIDEOS.items():
        assert word in reasons(ran, name)
    assert reasons(ran, "cut.mp4")
    assert reasons(ran, "cut.mkv")
    assert "give this user read permission" in reasons(ran, "secret.mp4")
    assert "already exists" in reasons(ran, "taken.mp4")
    queued = {Path(str(event["path"])).name for event in ran.named("job_queued")}
    assert not {"secret.mp4", "taken.mp4"} & queued
    planned = {Path(str(e["path"])).name: e["disposition"] for e in ran.named("file_planned")}
    assert planned["song.mp4"] == "skip"
    assert {path: digest(path) for path in before} == before
    made = {path for path in farm.media.iterdir() if path.is_file()} - set(before)
    assert made == {farm.media / "good.hevc.mp4"}
    assert farm.strays() == []


def cut(farm: Farm, name: str) -> Path:
    """Make a clip that ends in the middle."""
    video = farm.clip(name, seconds=3)
    os.truncate(video, video.stat().st_size * 6 // 10)
    return video


def test_a_transport_stream_that_ends_inside_a_picture_is_served_and_says_what_is_left_out(farm):
    recording = cut(farm, "cut.ts")
    before = digest(recording)

    ran = farm.ingest()

    assert ran.code == 0, ran.out
    assert list(farm.media.glob("cut.hevc.*"))
    assert digest(recording) == before
    (certificate,) = (farm.media / ".hevcq" / "certificates").rglob("*.json")
    notices = json.loads(certificate.read_text())["notices"]
    assert any("left out: the recording ends inside it" in each for each in notices), notices


def test_a_read_only_library_is_reported_before_anything_is_encoded(farm):
    farm.clip("a.mp4")
    farm.prefix = bound_by_permissions()
    farm.media.chmod(0o500)

    ran = farm.ingest()

    farm.media.chmod(0o700)
    assert ran.code == 1
    assert "is not writable" in reasons(ran, "a.mp4")
    assert "choose another folder with `hevcq ingest --output`" in reasons(ran, "a.mp4")
    assert ran.named("job_queued") == []


NAMES = [
    "line\nbreak.mp4",
    "-quote'\" .mp4",
    "%s%d [red]\x1b[31m.mp4",
    os.fsdecode(b"latin-\xe9\xff.mp4"),
    "n" * 251 + ".mp4",
    "video:0,scale=1:1;x\\.mp4",
]


def test_names_of_any_kind_are_encoded_and_placed_like_all_others(farm):
    made = farm.clip("plain.mp4")
    for name in NAMES:
        shutil.copyfile(made, farm.media / name)

    ran = farm.ingest()

    assert ran.code == 0, [event for event in ran.events if event.get("reason")]
    assert len(ran.named("placed")) == len(NAMES) + 1
    assert len(ran.out.splitlines()) == len(ran.events)
    assert len(list(farm.media.glob("*.hevc.mp4"))) == len(NAMES) + 1


def test_a_missing_ffmpeg_is_reported_at_once_with_the_way_out(farm):
    farm.clip("a.mp4")

    ran = farm.ingest(env={"HEVCQ_FFMPEG": "no-such-program"})

    assert ran.code == 4, ran.err
    assert "ffmpeg" in ran.err
    assert len(ran.err.splitlines()) == 1


def test_an_ffmpeg_that_breaks_in_mid_run_ends_with_what_is_done_and_what_is_not(farm):
    """Given an ffmpeg that loses its encoder after a file, then nobody has to guess the rest."""
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        farm.clip(name)
    program = farm.folder / "ffmpeg"
    mark = farm.folder / "encoded"
    broken = "echo \"Unknown encoder 'libx265'\" >&2; exit 1"
    program.write_text(  # its self-test is the first encode
        f'#!/bin/sh\ncase "$*" in *libx265*) [ -e {mark}-file ] && {{ {broken}; }}\n'
        f'[ -e {mark}-test ] && touch {mark}-file; touch {mark}-test;; esac\nexec ffmpeg "$@"\n'
    )
    program.chmod(0o755)

    environment = {"HEVCQ_FFMPEG": str(program), "HEVCQ_SANDBOX": "false"}
    ran = farm.run("ingest", farm.media, "--workers", "1", env=environment)

    assert ran.code == 4, ran.err
    assert "Unknown encoder" in ran.err.splitlines()[-1]
    ends = {line.split()[0]: line for line in ran.out.splitlines()}
    assert " done " in ends["a.mp4"]
    assert " not finished " in ends["b.mp4"]
    assert " not finished " in ends["c.mp4"]

    again = farm.ingest("--workers", "1", env=environment)
    assert again.code == 4
    assert [event["exit_code"] for event in again.named("summary")] == [4]


def test_too_little_space_pauses_with_a_sentence_and_loses_nothing(farm):
    farm.clip("a.mp4")
    disk = shutil.disk_usage(farm.folder)
    wanted = (disk.free + disk.total) // 2 >> 20  # more than is free, less than the disk has
    child = farm.start("ingest", farm.media, "--json", env={"HEVCQ_MIN_FREE_MIB": str(wanted)})
    event = first_event(child, lambda event: event["event"] == "paused")
    assert f"less than {wanted} MiB free" in event["reason"]
    child.terminate()
    assert farm.finish(child, timeout=30).code == 130

    again = farm.ingest()

    assert again.code == 0, again.out
    assert (farm.media / "a.hevc.mp4").is_file()
