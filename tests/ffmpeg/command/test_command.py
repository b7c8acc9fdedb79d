"""The whole command, word for word: a diff in a flag is a diff in a test."""

from pathlib import Path

import pytest

from hevcq.domain.media.facts import Colour, MediaInfo
from hevcq.domain.profile import Profile
from hevcq.ffmpeg.command.build import cover_commands, encode_command
from hevcq.ffmpeg.command.thumbnails import thumbnail_outputs
from support.media_facts import MKV, attachment, audio, cover, media, profile, subtitle, video
from support.rendition import TOOLS, request_for

START = [
    "ffmpeg", "-nostdin", "-hide_banner", "-nostats", "-loglevel", "repeat+level+error",
    "-xerror", "-y", "-progress", "pipe:1", "-stats_period", "0.5",
]  # fmt: skip


def command(info: MediaInfo, recipe: Profile, **own) -> list[str]:
    return encode_command(TOOLS, request_for(recipe, info, **own))


def after(words: list[str], option: str) -> str:
    assert words.count(option) == 1, f"{option} in {words}"
    return words[words.index(option) + 1]


def test_a_phone_clip_to_hevc():
    recipe = profile()
    info = media(video(language="eng"), audio(dispositions=("default",), language="deu"))

    assert command(info, recipe) == [
        *START,
        "-format_whitelist", "mov,mp4,m4a,3gp,3g2,mj2",
        "-protocol_whitelist", "file", "-i", "file:/in/video.mp4",
        "-map", "0:0", "-map", "0:1", "-map_metadata", "0", "-map_chapters", "0",
        "-c:0", "libx265", "-preset:0", "medium", "-crf:0", "24", "-pix_fmt:0", "yuv420p",
        "-fps_mode:0", "passthrough", "-enc_time_base:0", "1/1000",
        "-x265-params:0", "log-level=error:hash=1", "-tag:0", "hvc1", "-disposition:0", "default",
        "-metadata:s:0", "language=eng",
        "-c:1", "copy", "-disposition:1", "default", "-metadata:s:1", "language=deu",
        "-metadata", "major_brand=", "-metadata", f"encoding_tool=hevcq hevc/{recipe.revision}",
        "-max_muxing_queue_size", "16384", "-movflags", "+faststart", "-f", "mp4",
        "file:/out/video.part",
    ]  # fmt: skip


def test_a_kitchen_sink_stays_whole_in_matroska():
    recipe = profile(video={"encoder_params": {"aq-mode": 3}})
    info = media(
        video(tags={"BPS-eng": "9000", "_STATISTICS_TAGS": "BPS", "HANDLER_NAME": "x"}),
        audio(
            "opus",
            dispositions=("comment", "not_known_yet"),
            language="fra",
            title="Talk",
            tags={"title": "Talk"},
        ),
        subtitle("subrip", dispositions=("default", "forced")),
        attachment(),
        cover(tags={"filename": "cover.jpg"}),
        form=MKV,
        chapters=2,
        tags={"title": "Video", "MAJOR_BRAND": "isom"},
    )
    asked = request_for(recipe, info, location="/in/video.mkv")

    ((first, made),) = cover_commands(TOOLS, asked, Path("/scratch"))
    words = encode_command(TOOLS, asked, [made])

    assert made == Path("/scratch/video.part.cover4")
    assert first == [
        "ffmpeg", "-nostdin", "-hide_banner", "-nostats", "-loglevel", "repeat+level+error", "-y",
        "-format_whitelist", "matroska,webm", "-protocol_whitelist", "file",
        "-i", "file:/in/video.mkv", "-map", "0:4", "-c", "copy", "-frames:v", "1",
        "-f", "image2pipe", "file:/scratch/video.part.cover4",
    ]  # fmt: skip
    assert words == [
        *START,
        "-format_whitelist", "matroska,webm",
        "-protocol_whitelist", "file", "-i", "file:/in/video.mkv",
        "-map", "0:0", "-map", "0:1", "-map", "0:2", "-map", "0:3",
        "-map_metadata", "0", "-map_chapters", "0",
        "-c:0", "libx265", "-preset:0", "medium", "-crf:0", "24", "-pix_fmt:0", "yuv420p",
        "-fps_mode:0", "passthrough", "-enc_time_base:0", "1/1000",
        "-x265-params:0", "log-level=error:aq-mode=3", "-disposition:0", "default",
        "-metadata:s:0", "BPS-eng=", "-metadata:s:0", "_STATISTICS_TAGS=",
        "-c:1", "copy", "-disposition:1", "comment", "-metadata:s:1", "language=fra",
        "-c:2", "copy", "-disposition:2", "default+forced",
        "-c:3", "copy", "-disposition:3", "0",
        "-attach", "file:/scratch/video.part.cover4",
        "-metadata:s:4", "filename=cover.jpg", "-metadata:s:4", "mimetype=image/jpeg",
        "-metadata", "MAJOR_BRAND=", "-metadata", f"hevcq=hevc/{recipe.revision}",
        "-max_muxing_queue_size", "16384", "-f", "matroska", "file:/out/video.part",
    ]  # fmt: skip


def test_a_relay_is_opened_as_the_local_service_it_is_and_broken_by_what_breaks_it():
    words = command(media(video()), profile(), location="relay+http://127.0.0.1:4000/a.mp4?word")

    assert after(words, "-i") == "http://127.0.0.1:4000/a.mp4", "everybody can read arguments"
    assert after(words, "-protocol_whitelist") == "http,tcp"
    assert int(after(words, "-rw_timeout")) > 0
    assert after(words, "-format_whitelist") == "mov,mp4,m4a,3gp,3g2,mj2"


@pytest.mark.parametrize(
    ("stream", "recipe", "filters"),
    [
        (video(field_order="tt"), profile("1080p"), "bwdif=mode=send_field:parity=auto:deint=all"),
        (
            video(field_order="bb", seen_order="tt"),
            profile("1080p", video={"deinterlace": "frame"}),
            "bwdif=mode=send_frame:parity=tff:deint=all",
        ),
        (video(field_order="tt", progressive_pictures=True), profile(), "setfield=prog"),
        (
            video(1280, 720, pixel_format="yuv420p10le", colour=Colour(transfer="smpte2084")),
            profile("720p", policies={"hdr": "convert"}),
            (
                "zscale=tin=smpte2084:min=bt2020nc:pin=bt2020:rin=tv:t=linear:npl=100,format=gbrpf32le,"
                "zscale=p=bt709,tonemap=tonemap=hable:desat=0,zscale=t=bt709:m=bt709:r=tv,format=yuv420p,"
                "sidedata=delete:type=MASTERING_DISPLAY_METADATA,sidedata=delete:type=CONTENT_LIGHT_LEVEL"
            ),
        ),
        (video(321, 241), profile(), "pad=322:242:0:0,fillborders=right=1:bottom=1:mode=smear"),
        (
            video(1440, 1080, sample_aspect="4:3", field_order="bb"),
            profile("720p"),
            "bwdif=mode=send_field:parity=auto:deint=all,scale=1280:720:flags=bicubic,setsar=1/1",
        ),
    ],
)
def test_filters(stream, recipe, filters):
    words = command(media(stream), recipe)

    if "send_field" in filters:
        assert f"[source0]{filters}[picture0]" in after(words, "-filter_complex")
    else:
        assert after(words, "-filter:0") == filters


def test_a_crop_that_this_ffmpeg_would_apply_is_left_to_players():
    applied = command(media(video(crop_is_applied=True)), profile())

    assert applied.index("-apply_cropping") < applied.index("-i")
    assert after(applied, "-apply_cropping") == "codec"
    assert "-apply_cropping" not in command(media(video()), profile())


@pytest.mark.parametrize(
    ("name", "policy", "word"),
    [("720p", "convert", "1"), ("720p", "drop", "0"), ("hevc", "drop", "0")],
)
def test_captions_are_asked_for_or_not_in_so_many_words(name, policy, word):
    """From 6.0 on libx265 can write them, and does so until 7 unless it is told not to."""
    recipe = profile(name, policies={"closed_captions": policy})

    assert after(command(media(video(closed_captions=True)), recipe), "-a53cc:0") == word
    assert "-a53cc:0" not in command(media(video()), recipe)


def test_a_frame_of_each_field_and_its_thumbnails_come_from_one_graph():
    info = media(video(field_order="tt"), audio(language="deu"))
    asked = request_for(profile(), info)

    words = [*encode_command(TOOLS, asked), *thumbnail_outputs(asked)]

    assert after(words, "-filter_complex").startswith("[0:0]split=2")
    mapped = [words[at + 1] for at, word in enumerate(words) if word == "-map"]
    assert mapped == ["[picture0]", "0:1", "[thumbnails0]"]
    assert "-filter:0" not in words
    assert after(words, "-map_metadata:s:1") == "0:s:1", "ffmpeg copies no stream's tags by itself"


@pytest.mark.parametrize(
    ("tags", "covers", "flags"),
    [
        ({"title": "x"}, False, "+faststart"),
        ({"com.apple.quicktime.make": "Apple"}, False, "+faststart+use_metadata_tags"),
        ({"com.apple.quicktime.make": "Apple"}, True, "+faststart"),
        ({"firmware": "HD5", "creation_time": "x"}, False, "+faststart+use_metadata_tags"),
        ({"firmware": "HD5", "location": "+1+1/"}, False, "+faststart"),
        ({"major_brand": "qt  "}, False, "+faststart+use_metadata_tags"),
    ],
)
def test_tags_go_where_the_most_of_them_survive(tags, covers, flags):
    streams = (video(), cover()) if covers else (video(),)
    recipe = profile()

    words = command(media(*streams, tags=tags), recipe)

    assert after(words, "-movflags") == flags
    mark = f"hevcq=hevc/{recipe.revision}"
    tool = f"encoding_tool=hevcq hevc/{recipe.revision}"
    assert (mark in words) == flags.endswith("tags")
    assert (tool in words) != flags.endswith("tags")
