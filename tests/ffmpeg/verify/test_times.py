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


def compare(source, made, *, streams=None, second=Action.COPY, form="mov,mp4", frames=0):
    streams = streams or (clip(), sound())
    kept = [
        StreamPlan(
            source_index=0, kind=StreamKind.VIDEO, action=Action.ENCODE, position=0, video=TARGET
        )
    ]
    if len(streams) > 1:
        kept.append(
            StreamPlan(source_index=1, kind=streams[1].kind, action=second, position=1, codec="aac")
        )
    plan = EncodePlan(
        profile="p",
        revision="r",
        muxer="matroska",
        extension="mkv",
        streams=tuple(kept),
    )
    info = MediaInfo(format_name=form, streams=streams)
    return time_problems(
        TimingInputs(plan, info, Measurement(tracks=source), info, Measurement(tracks=made), frames)
    )


V = counted(0, StreamKind.VIDEO, 250)


A = counted(1, StreamKind.AUDIO, 470, bytes=1000, digest="0123abcd")


def test_equal_tracks_have_no_problem():
    assert compare((V, A), (V, A), frames=250) == []


@pytest.mark.parametrize("packets", [249, 251, 125])
def test_one_frame_more_or_less_is_a_problem(packets):
    assert "the source 250" in compare((V, A), (counted(0, StreamKind.VIDEO, packets), A))[0]


def test_two_fields_may_become_one_frame_but_only_of_an_interlaced_source():
    half = counted(0, StreamKind.VIDEO, 125)
    assert compare((V,), (half,), streams=(clip(field_order="tt"),)) == []
    assert compare((V,), (half,), streams=(clip(),)) != []
    assert (
        compare((V,), (counted(0, StreamKind.VIDEO, 124),), streams=(clip(field_order="tt"),)) != []
    )


@pytest.mark.parametrize(
    ("frames", "good"), [(500, True), (248, False), (499, False), (502, False)]
)
def test_each_field_becomes_a_frame_at_full_rate(monkeypatch, frames, good):
    full_rate = TARGET.model_copy(update={"deinterlace": True, "field_rate": True})
    monkeypatch.setitem(globals(), "TARGET", full_rate)
    made = counted(0, StreamKind.VIDEO, frames)

    assert (compare((V,), (made,), streams=(clip(field_order="bb"),)) == []) is good


def test_every_second_of_an_odd_number_of_frames_is_one_more_than_half(monkeypatch):
    monkeypatch.setitem(globals(), "TARGET", TARGET.model_copy(update={"every": 2}))
    source, made = (counted(0, StreamKind.VIDEO, n, last=5.0, end=5.02) for n in (251, 126))
    assert compare((source,), (made,), streams=(clip(),)) == []


@pytest.mark.parametrize(
    ("frames", "good"), [(74, True), (76, True), (81, True), (82, True), (84, False), (73, False)]
)
def test_at_an_even_rate_the_last_picture_may_be_held_for_a_mean_frame(monkeypatch, frames, good):
    """A cut of a phone's video: how long its last picture stays is not stored."""
    rate = 24000 / 1001
    monkeypatch.setitem(globals(), "TARGET", TARGET.model_copy(update={"rate": "24000/1001"}))
    source = counted(0, StreamKind.VIDEO, 13, last=3.123, end=3.125)
    made = counted(0, StreamKind.VIDEO, frames, last=(frames - 1) / rate, end=frames / rate)

    assert (compare((source,), (made,), streams=(clip(),)) == []) is good


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
def test_each_frame_is_shown_when_the_sources_is(monkeypatch, before, after, changes, problems):
    monkeypatch.setitem(globals(), "TARGET", TARGET.model_copy(update=changes))
    found = compare((shown_at(*before),), (shown_at(*after),), streams=(clip(field_order="tt"),))

    assert [each.partition(": ")[2] for each in found] == problems


def test_a_shift_of_everything_is_no_problem():
    def moved(track):
        return track.model_copy(
            update={n: getattr(track, n) + 1.04 for n in ("first_pts_s", "last_pts_s", "end_s")}
        )

    assert compare((moved(V), moved(A)), (V, A)) == []
    assert "starts at" in compare((moved(V), A), (V, A))[0]


def test_discarded_packets_may_stay_or_go_but_no_other():
    source = A.model_copy(update={"packets": 468, "discarded": 2})
    for packets in (468, 469, 470):
        assert compare((V, source), (V, A.model_copy(update={"packets": packets}))) == []
    for packets in (467, 471):
        made = A.model_copy(update={"packets": packets})
        assert f"{packets} data packets, the source 468" in compare((V, source), (V, made))[0]


def test_other_bytes_in_as_many_packets_are_other_packets():
    made = A.model_copy(update={"digest": "0123abce"})
    assert "its bytes are not those of the source" in compare((V, A), (V, made))[0]
    unknown = A.model_copy(update={"digest": ""})
    assert "its bytes could not be compared" in compare((V, A), (V, unknown))[0]
    # In a transport stream each AAC packet has a header, which other containers leave out.
    assert compare((V, A), (V, made), form="mpegts") == []


@pytest.mark.parametrize("form", ["mov,mp4", "avi"])
def test_pcm_is_compared_by_its_samples_whatever_its_packets(form):
    def pcm(packets, content, **more):
        return counted(1, StreamKind.AUDIO, packets, content=content, **more)

    assert compare((V, pcm(50, "a:9")), (V, pcm(48, "a:9")), form=form) == []
    other = compare((V, pcm(50, "a:9")), (V, pcm(50, "b:9")), form=form)
    assert other == ["audio track 1: it was copied, but its content is not that of the source"]
    hidden = pcm(48, "b:9", discarded=0)
    assert compare((V, pcm(50, "a:9", discarded=1)), (V, hidden), form=form) == [
        "audio track 1: it was copied, but has 48 data packets, the source 50"
    ]


@pytest.mark.parametrize(("late_s", "said"), [(0.01, False), (0.05, True), (-0.05, True)])
def test_a_copied_sound_that_is_moved_against_the_picture_is_a_problem(late_s, said):
    stored = {"first_stored_s": 0.0, "last_stored_s": 9.96}
    moved = {name: time + late_s for name, time in stored.items()}
    before, after = (A.model_copy(update=times) for times in (stored, moved))

    assert bool(compare((V, before), (V, after))) is said


def test_an_encoded_sound_is_held_to_its_end():
    made = A.model_copy(update={"packets": 480, "end_s": 10.1})
    assert compare((V, A), (V, made), second=Action.CONVERT) == []
    early = A.model_copy(update={"packets": 480, "end_s": 9.5})
    assert "ends at 0:00:09.500" in compare((V, A), (V, early), second=Action.CONVERT)[0]


def test_an_empty_or_missing_track_is_a_problem():
    assert "audio track 1 is empty" in compare((V, A), (V,))[0]
    assert "audio track 1 is empty" in compare((V, A), (V, A.model_copy(update={"packets": 0})))[0]


def test_times_that_nobody_knows_are_a_problem():
    made = A.model_copy(update={"end_s": None})
    assert "the time at which it ends is unknown" in compare((V, A), (V, made))[0]
    unknown = V.model_copy(update={"first_pts_s": None})
    assert compare((V, A), (unknown, A)) == ["the video has no times that could be compared"]


def test_decoding_times_that_go_back_are_a_problem():
    made = A.model_copy(update={"monotonic_dts": False})
    assert "go backwards" in compare((V, A), (V, made))[0]
