"""Measuring counts what is really there, and the pre-flight believes it over any header."""

import subprocess
import threading
from pathlib import Path
from zlib import crc32

import pytest

from ffmpeg.verify.conftest import ffmpeg
from hevcq.domain.media.facts import (
    Chapter,
    Measurement,
    MediaInfo,
    Stream,
    StreamKind,
    TrackMeasure,
)
from hevcq.domain.profile import Profile
from hevcq.domain.profile_sections import Gates, Preflight, VideoRecipe
from hevcq.errors import SourceDamaged, SourceGone, SourceUnreadable, Unavailable
from hevcq.ffmpeg.inputs import FfmpegTools
from hevcq.ffmpeg.inspect.damage import missing_end, time_problem
from hevcq.ffmpeg.inspect.measure import (
    PacketReader,
    measure,
    probe_and_measure,
    read_packets,
    track_measure,
)
from hevcq.ffmpeg.inspect.preflight import preflight
from hevcq.ffmpeg.probe.probe import probe
from hevcq.util.clock import SystemClock
from support.clips import make_clip, media_clip
from support.ffprobe_lines import counted
from support.media_facts import audio, media, video
from support.rendition import TOOLS


def profile(check: Preflight = Preflight.DEMUX) -> Profile:
    return Profile(
        name="p",
        description="d",
        video=VideoRecipe(codec="hevc", crf=24),
        gates=Gates(preflight=check),
    )


def check(path: Path, how: Preflight = Preflight.DEMUX) -> Measurement:
    stop = threading.Event()
    return preflight(TOOLS, str(path), probe(TOOLS, str(path), stop), profile(how), stop)


def fed(text: str, *kinds: frozenset[int]) -> PacketReader:
    counter = PacketReader(*kinds)
    for line in text.splitlines():
        counter.line(line)
    return counter


@pytest.mark.parametrize(
    "name",
    ["bbb-720p25-5s.mp4", "made-h264-1080i25-tff.mp4", "iphone-hevc-dovi-editlist-mebx.mp4",
     "hevc-hdr10plus-phone-1080p.mp4", "made-kitchen-sink.mkv", "nasa-2video-2audio-2sub.mp4"],
)  # fmt: skip
def test_one_look_at_a_short_video_sees_what_several_see(name):
    clip, stop = str(media_clip(name)), threading.Event()
    info, measured = probe_and_measure(TOOLS, clip, stop)
    assert info == probe(TOOLS, clip, stop)
    assert measured is not None
    with_care = measure(TOOLS, clip, info, stop)
    assert measured == with_care.model_copy(update={"seconds": measured.seconds})


def test_a_change_on_the_way_is_seen_at_the_first_look(tmp_path):
    first, other, both = (tmp_path / name for name in ("first.mp4", "other.mp4", "both.mp4"))
    for path, colours in ((first, "bt709"), (other, "smpte170m")):
        make_clip(tmp_path, name=path.name, extra=["-colorspace", colours])
    listing = tmp_path / "list"
    listing.write_text(f"file {first}\nfile {other}\n")
    ffmpeg("-f", "concat", "-safe", "0", "-i", listing, "-c", "copy", both)
    info, measured = probe_and_measure(TOOLS, str(both), threading.Event())
    assert measured is not None
    assert info.streams[0].video is not None
    assert info.streams[0].video.recoloured


@pytest.mark.parametrize("limit", ["AT_ONCE_BYTES", "AT_ONCE_TEXT"])
def test_a_large_video_is_not_measured_at_the_first_look(tmp_path, monkeypatch, limit):
    clip = str(make_clip(tmp_path))
    monkeypatch.setattr(f"hevcq.ffmpeg.probe.probe.{limit}", 1000)
    assert probe_and_measure(TOOLS, clip, threading.Event()) == (
        probe(TOOLS, clip, threading.Event()),
        None,
    )


def test_every_packet_is_counted(tmp_path):
    found = check(make_clip(tmp_path, seconds=2, rate=25))
    picture, audio = found.tracks

    assert (picture.packets, picture.kind, picture.monotonic_dts) == (50, StreamKind.VIDEO, True)
    shown = (picture.first_pts_s, picture.last_pts_s, picture.end_s)
    assert shown == (0, pytest.approx(1.96), pytest.approx(2))
    assert audio.kind is StreamKind.AUDIO
    assert audio.end_s == pytest.approx(2, abs=0.03)
    assert found.errors == ()


def test_the_digest_is_of_every_packet_in_order_wherever_its_line_breaks():
    one = fed(counted("0,0,0,1,1,K_,CRC32:aa\n0,1,1,1,1,__,CRC32:bb\n"))
    broken = fed(counted("0,0,0,1,1,KD\n,CRC32:aa\n0,1,1,1,1,__,CRC32:bb\n"))
    other = fed(counted("0,0,0,1,1,K_,CRC32:bb\n0,1,1,1,1,__,CRC32:aa\n"))
    # Since ffmpeg 6 what it says of side data ends the packet's own line.
    side = "|side_datum/skip_samples:side_data_type=Skip Samples|\n"
    later = fed(
        counted("0,0,0,1,1,KD_,CRC32:aa").rstrip()
        + side
        + counted("0,1,1,1,1,___,CRC32:bb")
        + "|\n"
    )

    assert one.tracks[0].digest == broken.tracks[0].digest == later.tracks[0].digest != 0
    assert one.tracks[0].digest != other.tracks[0].digest


def test_an_empty_packet_of_theora_is_no_picture():
    """As Ogg has them for a picture that is shown again, which ffprobe prints since version 8."""
    lines = counted("0,0,0,1,9,K__\n0,1,1,1,0,___\n1,1,1,1,0,K__\n0,2,2,1,9,___\n")
    plain, repeating = fed(lines), fed(lines, frozenset(), frozenset({0}))

    assert len(plain.tracks[0].pts) == 3
    assert list(repeating.tracks[0].pts) == [0, 2]
    assert len(repeating.tracks[1].pts) == 1


def lines_of(data: bytes, sizes: list[int]) -> str:
    """Return ffprobe's lines of stream 0 for `data` cut into packets of these sizes."""
    made, at = "", 0
    for number, size in enumerate(sizes):
        digest = crc32(data[at : at + size])
        made += f"0,{number},{number},1,{size},K_,CRC32:{digest:08x}\n"
        at += size
    return counted(made)


def test_the_content_of_pcm_is_of_its_samples_wherever_its_packets_are_cut():
    data = bytes(range(100))
    for samples in (data, data[:50] + b"x" + data[51:], data[1:], data[:-1]):
        for sizes in ([60, 40], [1, 99], [33, 33, 34]):
            sizes[-1] -= 100 - len(samples)
            track = fed(lines_of(samples, sizes), frozenset({0})).tracks[0]
            assert (track.content, sum(track.sizes)) == (crc32(samples), len(samples))
    assert fed(lines_of(data, [100])).tracks[0].content == 0


@pytest.mark.parametrize(
    ("claim", "end", "start", "form", "short"),
    [
        (10.0, 9.6, 0.0, "mov,mp4", False), (10.0, 9.4, 0.0, "mov,mp4", True),
        (600.0, 597.5, 0.0, "mov,mp4", False), (600.0, 596.0, 0.0, "mov,mp4", True),
        # An MP4 track's duration counts from its start, a Matroska tag names its end.
        (5.0, 15.0, 10.0, "mov,mp4", False), (15.0, 15.0, 10.0, "matroska,webm", False),
        # A transport stream claims nothing: its duration is an estimate.
        (10.0, 5.0, 0.0, "mpegts", False),
    ],
)  # fmt: skip
def test_a_track_may_end_a_little_before_its_claim(claim, end, start, form, short):
    stream = Stream(index=0, kind=StreamKind.AUDIO, codec="aac", duration_s=claim)
    track = TrackMeasure(index=0, kind=StreamKind.AUDIO, packets=9, first_pts_s=start, end_s=end)
    info = MediaInfo(format_name=form, streams=(stream,))
    assert bool(missing_end(info, Measurement(tracks=(track,)))) is short

    missing = missing_end(info, Measurement(tracks=()))
    assert missing == ("" if form == "mpegts" else "audio stream 0 has no packets")


@pytest.mark.parametrize(("ends", "short"), [(12.0, False), (9.0, True)])
def test_chapters_may_run_past_the_end_of_a_cut_video(ends, short):
    track = TrackMeasure(index=0, kind=StreamKind.AUDIO, packets=9, first_pts_s=0.0, end_s=4.0)
    chapters = (Chapter(start_s=0.0, end_s=ends),)
    info = MediaInfo(format_name="mov,mp4", streams=(), duration_s=12.0, chapters=chapters)
    assert bool(missing_end(info, Measurement(tracks=(track,)))) is short


def test_times_of_fragments_that_overlap_go_backwards_and_are_damage():
    """Packets behind an overlap are flagged discard, and ffmpeg copies their times all the same."""
    counter = PacketReader()
    for dts, flags in ((0, "K_"), (1024, "K_"), (512, "KD")):
        counter.line(f"stream_index=0|pts={dts}|dts={dts}|duration=1024|size=9|flags={flags}")
    assert not track_measure(0, counter.tracks[0], media(audio())).monotonic_dts

    track = TrackMeasure(index=0, kind=StreamKind.AUDIO, packets=2, monotonic_dts=False)
    info, found = MediaInfo(format_name="mov,mp4", streams=()), Measurement(tracks=(track,))
    assert time_problem(info, found) == "the times of audio stream 0 go backwards"
    assert time_problem(info.model_copy(update={"format_name": "mpegts"}), found) == ""
    twice = TrackMeasure(index=0, kind=StreamKind.VIDEO, packets=3, times=(0, 512, 512))
    problem = time_problem(info, Measurement(tracks=(twice,)))
    assert problem == "two pictures of video stream 0 have one time"


def test_rotten_bytes_inside_packets_are_seen_by_decoding_only(tmp_path):
    clip = media_clip("made-bitrot-480p24.mp4")
    with pytest.raises(SourceDamaged, match=r"channel element"):
        check(clip, Preflight.DEMUX)
    silent = tmp_path / "silent-bitrot.mp4"
    command = ["ffmpeg", "-v", "quiet", "-i", clip, "-map", "0:v", "-c", "copy", silent]
    subprocess.run(command, check=True, timeout=60)
    check(silent, Preflight.DEMUX)
    assert check(clip, Preflight.OFF).tracks
    with pytest.raises(SourceDamaged, match=r"silent-bitrot.*more errors"):
        check(silent, Preflight.DECODE)


LINE = "packet,0,0,1,100,K__"


def passed_over(folder: Path, script: str) -> tuple[list[str], tuple[str, ...]]:
    """Read a video's packets with a program in ffprobe's place; return its lines and complaints."""
    program, video = folder / "ffprobe", folder / "video.mkv"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    video.touch()
    packets_seen: list[str] = []
    tools = FfmpegTools("ffmpeg", str(program), SystemClock(), sandboxed=False)
    stop, seen = threading.Event(), packets_seen.append
    errors = read_packets(tools, str(video), [], seen, stop, packets_seen=lambda: packets_seen)
    return packets_seen, errors


def test_a_pass_that_reads_nothing_more_gives_up(tmp_path, monkeypatch):
    monkeypatch.setattr("hevcq.ffmpeg.inspect.measure.SILENCE_S", 0.1)
    with pytest.raises(Unavailable, match=r"video\.mkv sent no data"):
        passed_over(tmp_path, "exec sleep 60")


@pytest.mark.parametrize(
    ("script", "complaints"),
    [
        (f"echo {LINE}", ()),
        (f"echo {LINE}; exit 3", ("ffprobe ended with exit code 3",)),
        (f"echo {LINE}; echo odd >&2; exit 3", ("odd",)),
        (f"echo {LINE}; echo odd >&2", ("odd",)),
        (f"printf %s {LINE}; exit 4", ("ffprobe ended with exit code 4",)),
    ],
)
def test_an_end_that_is_not_well_is_a_complaint_whatever_came_before(tmp_path, script, complaints):
    assert passed_over(tmp_path, script) == ([LINE], complaints)


@pytest.mark.parametrize(
    ("script", "error"),
    [("echo", SourceUnreadable), ("echo Invalid data found", SourceUnreadable),
     # A tag may say so too: only the video that is not there is gone.
     ("echo No such file or directory", SourceUnreadable),
     ("rm HERE/video.mkv; echo No such file or directory", SourceGone)],
)  # fmt: skip
def test_a_pass_that_fails_before_the_first_packet_refuses_the_video(tmp_path, script, error):
    with pytest.raises(error):
        passed_over(tmp_path, f"{script.replace('HERE', str(tmp_path))} >&2; exit 1")


def test_the_last_picture_is_the_one_shown_last_whatever_is_stored_behind_it():
    lines = counted("0,0,-3,1,9,K_\n0,-1,-2,1,9,_D\n0,4,-1,1,9,__\n0,2,0,1,9,__\n0,1,1,1,9,__\n")
    found = track_measure(0, fed(lines).tracks[0], media(video(time_base="1/1")))

    assert (found.first_pts_s, found.last_pts_s, found.end_s) == (0, 4, 5)
    assert (found.first_stored_s, found.last_stored_s) == (-1, 4)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        # Milliseconds of 30 pictures a second; Matroska rounds.
        ([round(n * 1000 / 30) for n in range(300)], None),
        ([round(n * 1000 / 30) for n in range(300) if n not in (150, 151)], (2, 5.067, True)),
        # A camera of no exact time, which may leave one out.
        ([n * 33 + n % 5 for n in range(300) if n != 150], (1, 4.984, False)),
        # Two clips joined, the sound of the first a little longer than its picture.
        ([round(n * 1000 / 30) + 20 * (n >= 150) for n in range(300)], (1, 5.02, False)),
        # A phone's uneven rate, a desktop's, and what a cut leaves out at either end.
        ([n * 33 + (n % 7) * 9 for n in range(300)], None),
        ([0, 33, 66, 9000], None),
        ([n * 33 for n in range(300) if n not in (1, 297)], None),
    ],
)
def test_what_is_missing_from_an_even_rate_is_found(times, expected):
    stream = video(time_base="1/1000")
    lines = counted("".join(f"0,{time},{time},33,9,K_\n" for time in times))
    found = track_measure(0, fed(lines).tracks[0], media(stream, form="matroska,webm")).gaps
    made = found and (found.count, found.at_s, found.certain)
    assert made == (expected and (expected[0], pytest.approx(expected[1]), expected[2]))


def test_sound_of_even_packets_is_held_to_them_and_pictures_of_an_avi_are_not():
    lines = counted("".join(f"0,{n},{n},1,9,K_\n" for n in range(150) if n != 50))
    for stream, form, missing in (
        (audio("aac", time_base="1/50"), "avi", True),
        (audio("opus", time_base="1/50"), "avi", False),
        (video(time_base="1/25"), "avi", False),
    ):
        gaps = track_measure(0, fed(lines).tracks[0], media(stream, form=form)).gaps
        assert (gaps is not None) is missing


@pytest.mark.parametrize(
    ("packets", "form", "known"),
    [
        ("13/12 -/13 14/14 15/15 -/16 17/17 18/18 -/19 20/20 21/21", "mpeg", True),
        ("13/12 16/13 14/14 15/15 -/16 17/17 18/18 22/19 20/20 21/21", "mpeg", True),
        # Where one is missing, also hidden at the end, and before the first one that has a time.
        ("13/12 -/13 14/14 15/15 -/16 18/18 19/19 -/20 21/21 22/22", "mpeg", False),
        ("-/12 16/13 14/14 15/15 -/16 17/17 18/18 -/19 20/20 21/21", "mpeg", False),
        # Fields that are repeated make it uneven, and AVI has decoding times only.
        ("26/24 -/26 29/29 31/31 -/34 36/36 39/39 -/41 44/44 46/46", "mpeg", False),
        ("-/12 -/13 -/14 -/15 -/16 -/17 -/18 -/19 -/20 -/21", "avi", False),
    ],
)
def test_frames_without_times_of_a_program_stream_are_known_by_an_even_rate(packets, form, known):
    found = [packet.split("/") for packet in packets.split()]
    lines = "".join(f"0,{pts.replace('-', 'N/A')},{dts},1,9,__\n" for pts, dts in found)
    track = track_measure(
        0, fed(counted(lines)).tracks[0], media(video(time_base="1/25"), form=form)
    )
    assert track.times == (tuple(range(13, 23)) if known else ())
