"""Playlists, segments and bit rates by hand-made values."""

import itertools
from dataclasses import replace
from fractions import Fraction

from ffmpeg.hls.reading import listed, ranges, variants
from hevcq.ffmpeg.containers.fragments import Fragment, FragmentedFile
from hevcq.ffmpeg.hls.playlists import Master, Rendition, Variant, master_playlist, media_playlist
from hevcq.ffmpeg.hls.segments import Rates, Segment, frame_rate, key_frames, rates, video_segments


def content(*times: float, end: float, scale: int = 1000) -> FragmentedFile:
    """Return a file with key frames at these seconds; each fragment has 100 bytes, 25 frames a second."""
    ticks = [round(time * scale) for time in (*times, end)]
    fragments = tuple(
        Fragment(
            start=700 + 100 * n, end=800 + 100 * n, decoded=at, shown=at,
            last_shown=after - scale // 25, shown_end=after, duration=after - at,
            samples=round((after - at) / scale * 25), first_at=720 + 100 * n,
            first_end=750 + 100 * n, sync=True, time_at=0
        )
        for n, (at, after) in enumerate(itertools.pairwise(ticks))
    )  # fmt: skip
    size = fragments[-1].end
    return FragmentedFile(size, 700, scale, "avc1.640028", 1280, 720, 0, fragments)


def starts(*times: float, end: float, step: float = 4) -> list[float]:
    found = video_segments(content(*times, end=end), step)
    return [segment.shown / 1000 for segment in found]


def test_segments_begin_at_the_first_key_frame_on_the_grid():
    assert starts(0, 2, 4, 6, 8, end=9) == [0, 4, 8]
    assert starts(0, 2, 3.3, 4, 4.2, 6, 8, end=9) == [0, 4, 8], "scene cuts begin no segment"
    assert starts(0, 4.3, 6, 8, end=9) == [0, 4.3, 8], (
        "without a frame at 4 s the next one begins it"
    )
    assert starts(0, 13, 14, end=20) == [0, 13], "a gap longer than a step"
    assert starts(0.5, 2.5, 4.5, 6.5, end=7) == [0.5, 4.5], "the grid begins with the picture"
    assert starts(0, 3.999, 8, end=9) == [0, 3.999, 8], "a time that was rounded down"
    assert starts(0, 4, 8, end=8.4) == [0, 4], "a rest is no segment: hls.js would never end"
    assert starts(0, end=0.4) == [0]


def segment(start: int, size: int, seconds: float, samples: int = 100) -> Segment:
    return Segment(start, start + size, Fraction(seconds), samples, 0)


def test_the_peak_is_over_runs_of_about_the_target_duration():
    whole = [segment(0, 1000, 4), segment(1000, 3000, 4), segment(4000, 1000, 4)]
    assert rates(whole) == Rates(peak=6000, average=3334)
    tail = [*whole, segment(5000, 5000, 1)]
    assert rates(tail).peak == 9600, "a short last segment counts together with the one before it"
    assert rates([segment(0, 100, 0.5)]) == Rates(1600, 1600)


def test_the_frame_rate_is_the_mean_or_the_largest_of_a_varying_one():
    ntsc = [Segment(0, 1, Fraction(4004, 1000), 96, 0)] * 3
    assert frame_rate(ntsc) == 23.976
    assert frame_rate([segment(0, 1, 2.958, 71)]) == 24.0, "in Matroska times are milliseconds"
    assert frame_rate([segment(0, 1, 4, 66)]) == 16.5
    assert frame_rate([segment(0, 1, 4, 100), segment(0, 1, 4, 40), segment(0, 1, 4, 7)]) == 25.0


def test_a_media_playlist_lists_ranges():
    made = content(0, 2, 4, 6, end=7)
    text = media_playlist("v720.mp4", 700, video_segments(made, 4))
    assert text == (
        "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:4\n#EXT-X-MEDIA-SEQUENCE:0\n"
        "#EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-INDEPENDENT-SEGMENTS\n"
        '#EXT-X-MAP:URI="v720.mp4",BYTERANGE="700@0"\n'
        "#EXTINF:4.000000,\n#EXT-X-BYTERANGE:200@700\nv720.mp4\n"
        "#EXTINF:3.000000,\n#EXT-X-BYTERANGE:200@900\nv720.mp4\n#EXT-X-ENDLIST\n"
    )
    keys = media_playlist("v720.mp4", 700, key_frames(made), keys=True)
    assert "\n#EXT-X-I-FRAMES-ONLY\n" in keys
    assert ranges(keys) == [(700, 750), (800, 850), (900, 950), (1000, 1050)]


def variant(**own: object) -> Variant:
    plain: dict[str, object] = {
        "playlist": "a1-2/v720.m3u8", "key_frames": "a1-2/v720-keys.m3u8", "codec": "avc1.640028",
        "width": 1280, "height": 720, "rate": 25.0, "range": "bt709", "rates": Rates(900, 500),
        "key_rates": Rates(90, 50), "groups": ["sound", "surround"],
    }  # fmt: skip
    return Variant(**{**plain, **own})


def test_a_master_playlist_names_codecs_rates_groups_and_languages():
    sounds = [
        Rendition("a1-2/sound1.m3u8", 'Say <"hi"\n', "ger", default=True, channels=2,
                  codec="mp4a.40.2", rates=Rates(100, 90)),
        Rendition("a1-2/sound2.m3u8", "", "und", channels=1, codec="mp4a.40.2", rates=Rates(130, 80)),
    ]  # fmt: skip
    texts = [Rendition(f"a1-2/text{n}.m3u8", "", "en", forced=n == 2) for n in (1, 2)]
    data = [("com.apple.hls.title", "VALUE", "Ein Titel")]
    hdr = variant(codec="hvc1.2.4.L120.B0", range="smpte2084", rate=23.976)
    text = master_playlist(
        Master([variant(), hdr], {"sound": sounds}, texts, data, audio_only_group="sound")
    )
    assert text.splitlines()[3:10] == [
        '#EXT-X-SESSION-DATA:DATA-ID="com.apple.hls.title",VALUE="Ein Titel"',
        (
            '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="sound",NAME="Say ‹\'hi\' ",LANGUAGE="de",DEFAULT=YES,'
            'AUTOSELECT=YES,CHANNELS="2",URI="a1-2/sound1.m3u8"'
        ),
        (
            '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="sound",NAME="Sound 2",DEFAULT=NO,AUTOSELECT=YES,'
            'CHANNELS="1",URI="a1-2/sound2.m3u8"'
        ),
        (
            '#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="text",NAME="en",LANGUAGE="en",DEFAULT=NO,'
            'AUTOSELECT=YES,FORCED=NO,URI="a1-2/text1.m3u8"'
        ),
        (
            '#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="text",NAME="en (2)",LANGUAGE="en",DEFAULT=NO,'
            'AUTOSELECT=YES,FORCED=YES,URI="a1-2/text2.m3u8"'
        ),
        (
            '#EXT-X-STREAM-INF:BANDWIDTH=1030,AVERAGE-BANDWIDTH=590,CODECS="avc1.640028,mp4a.40.2",'
            'RESOLUTION=1280x720,FRAME-RATE=25.000,VIDEO-RANGE=SDR,AUDIO="sound",SUBTITLES="text",'
            "CLOSED-CAPTIONS=NONE"
        ),
        "a1-2/v720.m3u8",
    ]
    assert variants(text)[1].attributes["VIDEO-RANGE"] == "PQ"
    assert variants(text)[1].attributes["FRAME-RATE"] == "23.976"
    assert listed(text, "I-FRAME-STREAM-INF")[0].attributes["CODECS"] == "avc1.640028"
    assert "\n#EXT-X-INDEPENDENT-SEGMENTS\n" in text
    assert text.splitlines()[12:14] == [
        (
            '#EXT-X-STREAM-INF:BANDWIDTH=130,AVERAGE-BANDWIDTH=90,CODECS="mp4a.40.2",AUDIO="sound",'
            'SUBTITLES="text",CLOSED-CAPTIONS=NONE'
        ),
        "a1-2/sound1.m3u8",
    ]


def test_every_variant_is_listed_with_each_of_its_groups_of_sounds_stereo_first():
    stereo = Rendition("sound1.m3u8", "", "en", default=True, channels=2, codec="mp4a.40.2",
                       rates=Rates(100, 90))  # fmt: skip
    talk = replace(stereo, playlist="sound2.m3u8", title="Talk", default=False)
    full = replace(
        stereo, playlist="surround1.m3u8", channels=6, codec="ec-3", rates=Rates(400, 400)
    )
    low = [replace(each, playlist="low1.m3u8", channels=1) for each in (stereo, talk)]
    groups = {"sound": [stereo, talk], "surround": [full, talk], "low": low}
    small = variant(playlist="v360.m3u8", key_frames="v360-keys.m3u8")
    least = variant(playlist="v144.m3u8", key_frames="v144-keys.m3u8", groups=["low"])
    text = master_playlist(Master([variant(), small, least], groups, []))
    offered = variants(text)
    said = [(v.uri, v.attributes["AUDIO"], v.attributes["BANDWIDTH"]) for v in offered]
    assert said == [
        ("a1-2/v720.m3u8", "sound", "1000"),
        ("v360.m3u8", "sound", "1000"),
        ("a1-2/v720.m3u8", "surround", "1300"),
        ("v360.m3u8", "surround", "1300"),
        ("v144.m3u8", "low", "1000"),
    ]
    assert offered[2].attributes["CODECS"] == "avc1.640028,ec-3,mp4a.40.2"
    assert [k.uri for k in listed(text, "I-FRAME-STREAM-INF")] == [
        "a1-2/v720-keys.m3u8", "v360-keys.m3u8", "v144-keys.m3u8",
    ]  # fmt: skip
    names = [(r.attributes["NAME"], r.attributes["DEFAULT"], r.uri) for r in listed(text, "MEDIA")]
    assert names == [
        ("en", "YES", "sound1.m3u8"), ("Talk", "NO", "sound2.m3u8"),
        ("en", "YES", "surround1.m3u8"), ("Talk", "NO", "sound2.m3u8"),
        ("en", "YES", "low1.m3u8"), ("Talk", "NO", "low1.m3u8"),
    ]  # fmt: skip


def test_a_segment_lasts_until_the_next_one_is_shown_whatever_its_decoding_times_add_up_to() -> (
    None
):
    even = content(0, 4, 8, end=9)
    uneven = replace(
        even, fragments=tuple(replace(f, duration=f.duration - 300) for f in even.fragments)
    )

    assert [float(s.seconds) for s in video_segments(uneven, 4)] == [4, 4, 1]
    assert [float(s.seconds) for s in key_frames(uneven)] == [4, 4, 1]
