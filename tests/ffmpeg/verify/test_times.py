"""G5 in its details: what may differ between source and output, and what may not."""

import pytest

from hevcq.domain.media.facts import (
    AudioFacts,
    Measurement,
    MediaInfo,
    Stream,
    StreamKind,
    TrackMeasure,
    VideoFacts,
)
from hevcq.domain.planning.encode_plan import Action, EncodePlan, StreamPlan, VideoTarget
from hevcq.ffmpeg.verify.timing import TimingInputs, time_problems

TARGET = VideoTarget(
    encoder="libx265", codec="hevc", width=64, height=64, pixel_format="yuv420p", bit_depth=8,
    sample_aspect="1:1", rotation=0,
)  # fmt: skip


def clip(index=0, **video):
    facts = VideoFacts(width=64, height=64, pixel_format="yuv420p", bit_depth=8, **video)
    return Stream(index=index, kind=StreamKind.VIDEO, codec="h264", video=facts)


def sound(index=1):
    facts = AudioFacts(channels=2, sample_rate=48_000)
    return Stream(index=index, kind=StreamKind.AUDIO, codec="aac", audio=facts)


def counted(index, kind, packets, *, first=0.0, last=9.96, end=10.0, **more):
    return TrackMeasure(
        index=index,
        kind=kind,
        packets=packets,
        first_pts_s=first,
        last_pts_s=last,
        end_s=end,
        **more,
    )


def compare(source, made, *, streams=None, second=Action.COPY, form="mov,mp4", **target):
    """Return the problems of two measurements; `target` changes what the picture is to become."""
    streams = streams or (clip(), sound())
    kept = [
        StreamPlan(
            source_index=0, kind=StreamKind.VIDEO, action=Action.ENCODE, position=0,
            video=TARGET.model_copy(update=target),
        )
    ]  # fmt: skip
    if len(streams) > 1:
        kept.append(
            StreamPlan(source_index=1, kind=streams[1].kind, action=second, position=1, codec="aac")
        )
    plan = EncodePlan(
        profile="p", revision="r", muxer="matroska", extension="mkv", streams=tuple(kept)
    )
    info = MediaInfo(format_name=form, streams=streams)
    return time_problems(
        TimingInputs(plan, info, Measurement(tracks=source), info, Measurement(tracks=made), 0)
    )


V = counted(0, StreamKind.VIDEO, 250)
A = counted(1, StreamKind.AUDIO, 470, bytes=1000, digest="0123abcd")
FULL_RATE = {"deinterlace": True, "field_rate": True}


@pytest.mark.parametrize(
    ("frames", "field_order", "target", "good"),
    [
        (249, "", {}, False),
        (251, "", {}, False),
        (125, "", {}, False),
        (125, "tt", {}, True),
        (124, "tt", {}, False),
        (500, "bb", FULL_RATE, True),
        (248, "bb", FULL_RATE, False),
        (499, "bb", FULL_RATE, False),
        (502, "bb", FULL_RATE, False),
        (125, "", {"every": 2}, True),
    ],
)
def test_each_frame_becomes_as_many_as_are_planned(frames, field_order, target, good):
    """Two fields stored apart may become one frame, and at full rate each field becomes one."""
    made, picture = counted(0, StreamKind.VIDEO, frames), clip(field_order=field_order)

    problems = compare((V,), (made,), streams=(picture,), **target)

    assert good or f"it has {frames} frames, the source 250" in problems[0]
    assert (problems == []) is good


def test_every_second_of_an_odd_number_of_frames_is_one_more_than_half():
    source, made = (counted(0, StreamKind.VIDEO, n, last=5.0, end=5.02) for n in (251, 126))
    assert compare((source,), (made,), streams=(clip(),), every=2) == []


@pytest.mark.parametrize(
    ("frames", "good"), [(74, True), (76, True), (81, True), (82, True), (84, False), (73, False)]
)
def test_at_an_even_rate_the_last_picture_may_be_held_for_a_mean_frame(frames, good):
    """A cut of a phone's video: how long its last picture stays is not stored."""
    rate = 24000 / 1001
    source = counted(0, StreamKind.VIDEO, 13, last=3.123, end=3.125)
    made = counted(0, StreamKind.VIDEO, frames, last=(frames - 1) / rate, end=frames / rate)

    assert (compare((source,), (made,), streams=(clip(),), rate="24000/1001") == []) is good


def shown_at(*times: int) -> TrackMeasure:
    """Return a picture with frames at these milliseconds."""
    last = times[-1] / 1000
    return counted(0, StreamKind.VIDEO, len(times), last=last, end=last + 0.04, times=times)


FIELDS = (0, 20, 40, 60, 80, 100, 120, 140)


@pytest.mark.parametrize(
    ("before", "after", "changes", "problems"),
    [
        ((0, 40, 80), (0, 40, 80), {}, []),
        ((0, 40, 80), (0, 45, 80), {}, ["frame 1 (at 0:00:00.0) is shown 0.0050 s too late"]),
        (FIELDS, (0, 40, 80, 120), {}, []),
        (FIELDS, (0, 40, 85, 120), {}, ["frame 2 (at 0:00:00.1) is shown 0.0150 s too early"]),
        (FIELDS, (0, 40, 80, 160), {}, ["frame 3 (at 0:00:00.1) is shown 0.0200 s too late"]),
        ((0, 40, 80), (0, 20, 40, 60, 80, 100), {"field_rate": True}, []),
        (FIELDS, FIELDS, {"field_rate": True}, []),
        ((0, 45, 80), (0, 40, 80), {"rate": "25/1"}, []),
    ],
    ids=["same", "late", "fields", "a field late", "beyond", "full rate", "fields kept", "even"],
)
def test_each_frame_is_shown_when_the_sources_is(before, after, changes, problems):
    picture = clip(field_order="tt")
    found = compare((shown_at(*before),), (shown_at(*after),), streams=(picture,), **changes)

    assert [each.partition(": ")[2] for each in found] == problems


def test_a_shift_of_everything_is_no_problem():
    def moved(track):
        return track.model_copy(
            update={n: getattr(track, n) + 1.04 for n in ("first_pts_s", "last_pts_s", "end_s")}
        )

    assert compare((moved(V), moved(A)), (V, A)) == []
    assert "starts at" in compare((moved(V), A), (V, A))[0]


def stored(late_s: float) -> dict[str, float]:
    return {"first_stored_s": late_s, "last_stored_s": 9.96 + late_s}


HIDDEN = {"packets": 468, "discarded": 2}
PCM = {"packets": 50, "content": "a:9"}
OTHER, CONVERTED = {"digest": "0123abce"}, {"second": Action.CONVERT}
SOUNDS = {
    "hidden packets are left out": (HIDDEN, {"packets": 468}, {}, ""),
    "one hidden packet is shown": (HIDDEN, {"packets": 469}, {}, ""),
    "all hidden packets are shown": (HIDDEN, {"packets": 470}, {}, ""),
    "a shown packet is lost": (HIDDEN, {"packets": 467}, {}, "467 data packets, the source 468"),
    "a packet too many": (HIDDEN, {"packets": 471}, {}, "471 data packets, the source 468"),
    "other bytes": ({}, OTHER, {}, "its bytes are not those of the source"),
    "unknown bytes": ({}, {"digest": ""}, {}, "its bytes could not be compared"),
    "ADTS headers are left out": ({}, OTHER, {"form": "mpegts"}, ""),
    "PCM in other packets": (PCM, PCM | {"packets": 48}, {}, ""),
    "PCM in other packets of AVI": (PCM, PCM | {"packets": 48}, {"form": "avi"}, ""),
    "other PCM": (PCM, PCM | {"content": "b:9"}, {}, "its content is not that of the source"),
    "hidden PCM": (
        PCM | {"discarded": 1},
        PCM | {"packets": 48, "content": "b:9"},
        {},
        "48 data packets, the source 50",
    ),
    "a little late": (stored(0), stored(0.01), {}, ""),
    "late": (stored(0), stored(0.05), {}, "s too late for the picture"),
    "early": (stored(0), stored(-0.05), {}, "s too early for the picture"),
    "encoded with padding": ({}, {"packets": 480, "end_s": 10.1}, CONVERTED, ""),
    "encoded in part": ({}, {"packets": 480, "end_s": 9.5}, CONVERTED, "ends at 0:00:09.500"),
    "empty": ({}, {"packets": 0}, {}, "audio track 1 is empty"),
    "of unknown end": ({}, {"end_s": None}, {}, "the time at which it ends is unknown"),
    "decoded backwards": ({}, {"monotonic_dts": False}, {}, "go backwards"),
}


@pytest.mark.parametrize(("before", "after", "options", "problem"), SOUNDS.values(), ids=SOUNDS)
def test_a_sound_keeps_its_packets_its_bytes_and_its_place(before, after, options, problem):
    source, made = A.model_copy(update=before), A.model_copy(update=after)

    problems = compare((V, source), (V, made), **options)

    assert len(problems) == bool(problem)
    assert problem in "".join(problems)


def test_a_missing_track_and_a_picture_without_times_are_problems():
    assert "audio track 1 is empty" in compare((V, A), (V,))[0]
    unknown = V.model_copy(update={"first_pts_s": None})
    assert compare((V, A), (unknown, A)) == ["the video has no times that could be compared"]
