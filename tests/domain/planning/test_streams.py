"""What becomes of everything beside the picture: no stream is lost without a named policy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hevcq.domain.media.facts import (
    AudioFacts,
    Gaps,
    Measurement,
    MediaInfo,
    Stream,
    StreamKind,
    TrackMeasure,
)
from hevcq.domain.planning.encode_plan import (
    Action,
    EncodePlan,
    Refuse,
    StreamPlan,
    revise_plan,
)
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Profile
from hevcq.errors import MediaRefused
from support.media_facts import (
    MKV,
    SHIPPED,
    attachment,
    audio,
    cover,
    data,
    media,
    profile,
    subtitle,
    video,
)


def second(found: MediaInfo, recipe: Profile) -> StreamPlan:
    made = make_plan(recipe, found)
    assert isinstance(made, EncodePlan), made
    return made.streams[1]


def refused(found: MediaInfo, recipe: Profile) -> str:
    made = make_plan(recipe, found)
    assert isinstance(made, Refuse), made
    return made.policy


@pytest.mark.parametrize(
    ("name", "codec", "form", "action"),
    [
        ("hevc", "aac", None, Action.COPY),
        ("hevc", "opus", None, Action.COPY),
        ("hevc", "pcm_s16le", None, Action.CONVERT),
        ("hevc", "vorbis", None, Action.CONVERT),
        ("hevc", "pcm_s16le", MKV, Action.COPY),
        ("hevc", "amr_nb", MKV, Action.CONVERT),
        ("720p", "aac", None, Action.COPY),
        ("720p", "mp3", None, Action.COPY),
        ("720p", "ac3", None, Action.CONVERT),
        ("720p", "mp2", None, Action.CONVERT),
    ],
)
def test_audio_is_copied_where_the_container_holds_it_and_every_browser_must_play_it(
    name, codec, form, action
):
    streams = (video(), audio(codec, channels=6))
    found = media(*streams) if form is None else media(*streams, form=form)

    made = second(found, profile(name))

    assert made.action is action
    if action is Action.CONVERT:
        assert (made.encoder, made.codec, made.bit_rate) == ("aac", "aac", 6 * 64_000)
        assert codec in made.notice


@pytest.mark.parametrize(
    ("layout", "channels", "held"),
    [("5.1(side)", 6, 6), ("4.1", 5, 6), ("6.1(back)", 7, 8), ("hexagonal", 6, 8), ("4.0", 4, 6),
     ("downmix", 2, 2), ("", 1, 1), ("", 7, 8), ("6 channels (FL+FR+BL+BR+FLC+FRC)", 6, 6)],
)  # fmt: skip
def test_sound_is_encoded_in_a_layout_that_every_encoder_holds(layout, channels, held):
    """At the rate of the channels that it has: those that are added are silent."""
    recipe = profile(audio={"policy": "encode", "codec": "libopus"})

    made = second(media(video(), audio("dts", channels, layout)), recipe)

    assert (made.channels, made.bit_rate) == (held, channels * 64_000)
    assert ("laid out as" in made.notice) is (held > channels)


def sounds(*marks: str) -> list[Stream]:
    """Return sounds by their languages; a star marks the default one, an `o` behind it the original."""
    flags = {"*": ("default",), "o": ("original",)}
    return [audio(language=m.rstrip("*o"), dispositions=flags.get(m[3:], ())) for m in marks]


@pytest.mark.parametrize(
    ("marks", "listed", "kept"),
    [
        (["eng", "fra", "deu"], ["fr"], [1, 2]),  # and the first
        (["eng", "fra*", "deu"], ["ger"], [2, 3]),  # and the default
        (["eng*", "fra", "jpno"], ["fre"], [2, 3]),  # and the original
        (["eng", "", "und", "mul", "qaa"], ["en"], [1, 2, 3, 4, 5]),
        (["deu", "eng,fra", "ita"], ["fra"], [1, 2]),
        (["eng", "nob", "nno", "swe"], [False], [1, 2, 3]),  # YAML's `no`
        (["fra"], ["en"], [1]),
        (["eng", "fra"], [], [1, 2]),
    ],
)
def test_sound_is_kept_in_the_listed_languages_the_original_and_without_a_mark(marks, listed, kept):
    found = media(video(), *sounds(*marks), form=MKV)

    plan = make_plan(profile(audio={"languages": listed}), found)

    assert isinstance(plan, EncodePlan)
    assert [s.source_index for s in plan.kept] == [0, *kept]
    assert len(plan.losses) == len(marks) - len(kept)
    for lost in {*range(1, len(marks) + 1)} - {*kept}:
        assert any(n.startswith(f"Stream {lost} is left out: sound in") for n in plan.notices)


@pytest.mark.parametrize(("tracks", "lost"), [("keep", 2), ("drop", 0)])
@pytest.mark.parametrize("name", ["hevc", "hls"])
def test_subtitles_follow_their_own_list_and_the_original_sound(name, tracks, lost):
    """What is left out by its language needs no place in the container, so nothing is refused for it."""
    texts = [subtitle("subrip", language=each) for each in ("eng", "fra", "und")]
    pictures = subtitle("hdmv_pgs_subtitle", language="deu")
    found = media(video(), *sounds("eng", "ita"), *texts, pictures)
    recipe = profile(name, subtitles={"languages": ["es"]}, policies={"tracks": tracks})

    plan = make_plan(recipe, found)

    assert isinstance(plan, EncodePlan), plan
    assert [s.source_index for s in plan.kept] == [0, 1, 2, 3, 5]
    if name == "hevc":
        assert plan.losses == ("subtitles in fra (stream 4)", "subtitles in deu (stream 6)")[:lost]


def test_a_sound_that_is_left_out_anyway_is_not_the_original():
    silent = audio("ac3", language="eng").model_copy(
        update={"audio": AudioFacts(channels=0, sample_rate=0)}
    )
    recipe = profile(audio={"languages": ["eng"]})

    plan = make_plan(recipe, media(video(), silent, *sounds("fra", "deu")))

    assert isinstance(plan, EncodePlan), plan
    assert [s.source_index for s in plan.kept] == [0, 2]


@pytest.mark.parametrize(
    ("loudness", "peak", "gain", "said"),
    [
        (None, None, None, "is to have -16 LUFS"),
        (-23.0, -9.0, 7.0, "7.0 dB louder, from -23.0 LUFS."),
        (-10.0, 0.4, -6.0, "6.0 dB quieter, from -10.0 LUFS."),
        (-23.0, -6.0, 5.0, "its peaks allow no more than -18.0 LUFS."),
        (-17.0, -0.5, 0.0, "stays at -17.0 LUFS; its peaks allow no more than -17.0 LUFS."),
        (-16.4, -3.0, 0.0, ""),
        (-70.0, -120.0, 0.0, ""),
    ],
)
@pytest.mark.parametrize("codec", ["aac", "vorbis"])
def test_a_sound_gets_one_gain_as_its_peaks_allow_and_else_stays(codec, loudness, peak, gain, said):
    found = media(video(), audio(codec, channels=6), audio(codec))
    heard = () if loudness is None else ((1, loudness, peak),)
    found = Measurement(tracks=(), loudness=heard).add_to(found)

    made = second(found, profile(audio={"loudness": -16}))

    copied = codec == "aac" and gain == 0.0
    assert made.action is (Action.COPY if copied else Action.CONVERT)
    assert made.gain_db == (gain or 0.0)
    assert said in made.notice


@pytest.mark.parametrize("word", ["english", "xx", "e", "12", True])
def test_a_word_that_is_no_language_is_refused(word):
    with pytest.raises(ValidationError, match="no language of ISO 639"):
        profile(audio={"languages": [word]})


@pytest.mark.parametrize(
    ("layout", "channels", "refuses"),
    [("", 3, True), ("2.1", 3, True), ("6.1", 7, True), ("3.0", 3, False), ("", 4, False)],
)
def test_sound_whose_channels_nobody_named_is_refused_where_one_would_become_the_bass(
    layout, channels, refuses
):
    source = media(video(), audio("pcm_s16le", channels, layout))

    assert isinstance(make_plan(profile(), source), Refuse) is refuses


def test_an_audio_encoder_that_the_container_cannot_hold_is_refused():
    found = media(video(), audio("vorbis"), tags={"major_brand": "qt  "})

    assert refused(found, profile(audio={"codec": "libopus"})) == "audio.codec"


@pytest.mark.parametrize(
    ("codec", "form", "container", "action", "becomes"),
    [
        ("mov_text", None, "source", Action.COPY, "mov_text"),
        ("mov_text", None, "mkv", Action.CONVERT, "subrip"),
        ("subrip", MKV, "source", Action.COPY, "subrip"),
        ("ass", MKV, "source", Action.COPY, "ass"),
        ("hdmv_pgs_subtitle", MKV, "source", Action.COPY, "hdmv_pgs_subtitle"),
        ("subrip", MKV, "mp4", Action.CONVERT, "mov_text"),
        ("webvtt", MKV, "mp4", Action.CONVERT, "mov_text"),
    ],
)
def test_subtitles_by_container(codec, form, container, action, becomes):
    streams = (video(), subtitle(codec))
    found = media(*streams) if form is None else media(*streams, form=form)

    made = second(found, profile(container=container))

    assert (made.action, made.codec) == (action, becomes)
    assert bool(made.notice) == (action is Action.CONVERT)


@pytest.mark.parametrize("codec", ["hdmv_pgs_subtitle", "made_up"])
def test_picture_subtitles_into_mp4_follow_their_policy(codec):
    found = media(video(), subtitle(codec), form=MKV)

    assert refused(found, profile(container="mp4")) == "policies.picture_subtitles"
    recipe = profile(container="mp4", policies={"picture_subtitles": "drop"})
    assert second(found, recipe).action is Action.DROP


SENT = {"start_s": 1.4, "duration_s": 9.0}
SILENT = AudioFacts(channels=0, sample_rate=0)
BROADCAST = [
    (subtitle("dvb_teletext", language="deu,deu,fra", **SENT), "teletext (deu, fra), which only"),
    (subtitle("dvb_teletext", start_s=1.3, duration_s=9.4), "announced, and of which nothing"),
    (audio("mp3").model_copy(update={"audio": SILENT}), "announced, and of which nothing"),
    (data("", language="deu"), "data or sound (deu) that ffmpeg cannot read"),
]
"""Streams of a broadcast that no rendition holds, each with what is said of it."""


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize(("stream", "said"), BROADCAST, ids=["sent", "empty", "silent", "private"])
def test_what_only_a_broadcast_holds_is_left_out_by_every_profile(name, stream, said):
    found = media(video(), stream, form="mpegts", start_s=1.3, duration_s=9.4)

    plan = make_plan(profile(name), found)

    assert isinstance(plan, EncodePlan), plan
    assert plan.streams[1].action is Action.DROP
    assert said in plan.streams[1].notice
    lost = [loss for loss in plan.losses if loss.startswith(("teletext of", "stream 1 (deu)"))]
    assert len(lost) == (stream.language != "" and name != "hls")


@pytest.mark.parametrize(("stream", "losses"), [(BROADCAST[1][0], 1), (BROADCAST[2][0], None)])
def test_what_is_sent_late_in_a_broadcast_is_not_called_empty(stream, losses):
    found = media(video(), stream, form="mpegts", start_s=1.3, duration_s=9.4)
    recipe = profile()
    seen = Measurement(tracks=(TrackMeasure(index=1, kind=stream.kind, packets=9),))
    decided = found, make_plan(recipe, found)

    if losses is None:
        with pytest.raises(MediaRefused, match="begins so late"):
            revise_plan(make_plan, recipe, decided, seen)
        return
    _, plan = revise_plan(make_plan, recipe, decided, seen)
    assert (len(plan.losses), "nothing" in plan.notices[0]) == (losses, False)


@pytest.mark.parametrize(
    ("kind", "certain", "policy", "losses"),
    [
        (StreamKind.VIDEO, True, "keep", ("2 pictures (at 0:00:05.1), missing in the original",)),
        (StreamKind.AUDIO, True, "keep", ("2 packets of sound (at 0:00:05.1), missing in the original",)),
        (StreamKind.VIDEO, False, "keep", ()),
        (StreamKind.VIDEO, True, "drop", ()),
    ],
)  # fmt: skip
def test_what_is_missing_in_the_original_is_said_and_refused_as_a_replacement_if_certain(
    kind, certain, policy, losses
):
    found, recipe = media(video(), audio()), profile(policies={"metadata": policy})
    gaps = Gaps(count=2, at_s=5.1, certain=certain)
    track = TrackMeasure(index=int(kind is StreamKind.AUDIO), kind=kind, packets=9, gaps=gaps)

    _, plan = revise_plan(
        make_plan, recipe, (found, make_plan(recipe, found)), Measurement(tracks=(track,))
    )

    assert plan.losses == losses
    assert "The original lacks 2 p" in plan.notices[-1]


@pytest.mark.parametrize("policy", ["keep", "drop"])
def test_a_stream_that_begins_after_what_was_probed_is_a_loss(policy):
    found = media(video(), form="mpegts")
    recipe = profile(policies={"metadata": policy})
    seen = Measurement(tracks=(TrackMeasure(index=1, kind=StreamKind.DATA, packets=9),))
    decided = found, make_plan(recipe, found)

    _, plan = revise_plan(make_plan, recipe, decided, seen)
    assert plan.notices == ("Stream 1, which begins later in the recording, is left out.",)
    assert bool(plan.losses) is (policy == "keep")


def test_text_that_the_container_has_no_place_for_is_refused():
    found = media(video(), subtitle("ass"), form=MKV)

    assert refused(found, profile("avi", policies={"subtitles": "convert"})) == "policies.subtitles"


def test_attachments_stay_in_matroska_and_follow_their_policy_elsewhere():
    found = media(video(), attachment(), form=MKV)

    assert second(found, profile()).action is Action.COPY
    assert refused(found, profile(container="mp4")) == "policies.attachments"
    dropped = second(found, profile("1080p"))
    assert dropped.action is Action.DROP
    assert "font.ttf" in dropped.notice


@pytest.mark.parametrize(
    ("tag", "container", "lost"),
    [
        ("gpmd", "source", ""),
        ("gpmd", "mkv", "GoPro's place and motion (gpmd)"),
        ("tmcd", "source", "time code"),
        ("mebx", "source", "iPhone"),
        ("fdsc", "source", "GoPro"),
        ("priv", "source", "a data track (priv)"),
    ],
)
def test_a_data_track_that_is_lost_is_named_by_what_it_holds(tag, container, lost):
    made = second(media(video(), data(tag)), profile(container=container))

    assert made.action is (Action.DROP if lost else Action.COPY)
    assert lost in (made.notice or "")


def test_titles_of_chapters_are_no_data_track_that_is_lost():
    found = media(video(), data("text", language="eng"), chapters=2)

    assert "written anew" in second(found, profile()).notice


def test_covers_are_kept_where_the_container_holds_them():
    found = media(video(), cover())

    assert second(found, profile()).action is Action.COPY
    assert second(found, profile(container="mkv")).action is Action.COPY
    assert second(found, profile(policies={"cover_art": "drop"})).action is Action.DROP
    mov = media(video(), cover(), tags={"major_brand": "qt  "})
    assert refused(mov, profile()) == "policies.cover_art"


def test_further_video_follows_its_policy_and_the_rules_of_pictures():
    found = media(video(), video(320, 180))

    kept = second(found, profile())
    assert (kept.action, kept.video.width) == (Action.ENCODE, 320)
    assert second(found, profile("1080p")).action is Action.DROP
    turned = media(video(), video(rotation=45))
    assert refused(turned, profile()) == "video"
    assert second(media(video(), video(codec="av1")), profile()).action is Action.COPY


def test_the_output_has_source_order_with_files_and_covers_last():
    found = media(
        audio(), attachment(), cover(), video(), subtitle("subrip"), data("tmcd"), form=MKV
    )

    made = make_plan(profile(), found)

    assert [s.source_index for s in made.kept] == [0, 3, 4, 1, 2]
    assert made.main_video.source_index == 3
    assert made.chapters == 0


_ANY = st.sampled_from(
    [
        video(), video(640, 480, codec="mpeg4"), video(dolby_vision=True, dolby_base="hlg"), audio(), audio("vorbis"),
        audio("pcm_s24be", 8), subtitle("ass"), subtitle("mov_text"), subtitle("hdmv_pgs_subtitle"),
        cover(), cover("webp"), attachment(), data("tmcd"), data("mebx"), data("gpmd"), data("text"),
    ]
)  # fmt: skip


@given(
    st.lists(_ANY, min_size=1, max_size=8),
    st.sampled_from(["hevc", "720p", "1080p"]),
    st.sampled_from([MKV, "mov,mp4,m4a,3gp,3g2,mj2", "mpegts", "avi"]),
)
def test_every_stream_is_accounted_for_and_every_loss_is_reported(streams, name, form):
    found = media(*streams, form=form)

    made = make_plan(profile(name), found)

    if isinstance(made, EncodePlan):
        assert [s.source_index for s in made.streams] == list(range(len(streams)))
        positions = [s.position for s in made.kept]
        assert positions == list(range(len(positions)))
        for stream in made.streams:
            assert (stream.position is None) == (stream.action is Action.DROP)
            if stream.action in {Action.DROP, Action.CONVERT}:
                assert stream.notice in made.notices
        assert made.video == made.main_video.video
    else:
        assert made.detail.endswith(".")


def test_a_video_track_without_a_picture_is_left_out():
    made = make_plan(profile(), media(video(), video(640, 480, pixel_format="")))

    assert isinstance(made, EncodePlan)
    assert made.notices == ("Stream 1 is left out: a video track without a picture.",)


def test_what_ffmpeg_cannot_read_is_refused_and_never_left_out_in_silence():
    assert refused(media(video(), data("wvtt")), profile()) == "policies.subtitles"
    assert refused(media(video(), audio("unknown")), profile()) == "audio"
