"""State what each video codec, pixel format, container and hardware encoder can carry; compare languages.

The rows of codecs state what the encoders of ffmpeg 5.1 accept (`ffmpeg -h encoder=NAME`) and what
ffprobe reads back from their output; a test encodes each row.

The rows of hardware encoders follow the documents of ffmpeg 5.1 and the makers. None was run on
hardware: a trial encode decides on each machine whether a row works there (`ffmpeg.hardware`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class VideoCodec(StrEnum):
    HEVC = "hevc"
    H264 = "h264"
    VP9 = "vp9"
    AV1 = "av1"
    THEORA = "theora"
    MPEG4 = "mpeg4"


class Container(StrEnum):
    """The rendition's container; `source` keeps MP4, MOV and Matroska and makes the rest Matroska.

    `hls` is a set of files: a ladder of fragmented MP4 with its playlists.
    """

    SOURCE = "source"
    MP4 = "mp4"
    MKV = "mkv"
    WEBM = "webm"
    OGG = "ogg"
    AVI = "avi"
    HLS = "hls"


@dataclass(frozen=True, slots=True)
class VideoFormat:
    """What an encoder accepts and its codec stores.

    `depths` are the most bits per sample by family of pixel formats. `quality` are the ends of the
    scale of `video.crf`, the better one first; `judged` is the worst value that should keep sharp
    detail. `described` says whether the codec stores colour tags and range, `static_hdr` whether it
    stores an HDR10 mastering display that ffmpeg can read. `presets` are the smallest and the largest
    numeric preset; None if presets have names or do not exist.
    """

    encoder: str
    tag: str
    depths: Mapping[str, int]
    quality: tuple[float, float]
    judged: float
    smallest: int = 16
    described: bool = True
    static_hdr: bool = True
    presets: tuple[int, int] | None = None
    usual_preset: int = 0
    legacy_range: frozenset[str] = field(default=frozenset())
    """Families whose decoder reports 8-bit full range by a `yuvj` name."""


_EVERY = {"420": 12, "422": 12, "444": 12, "gray": 12, "gbr": 12}

VIDEO_FORMATS: Mapping[VideoCodec, VideoFormat] = {
    # Apple's players accept HEVC only as hvc1
    # (https://developer.apple.com/documentation/http-live-streaming/hls-authoring-specification-for-apple-devices).
    VideoCodec.HEVC: VideoFormat(
        "libx265", "hvc1", _EVERY, (0, 51), 32, legacy_range=frozenset({"420"})
    ),
    VideoCodec.H264: VideoFormat(
        "libx264",
        "avc1",
        {"420": 10, "422": 10, "444": 10, "gray": 10},
        (0, 51),
        32,
        # libx264 writes it, but ffmpeg 5.1 does not read it.
        static_hdr=False,
        legacy_range=frozenset({"420", "422", "444"}),
    ),
    VideoCodec.VP9: VideoFormat(
        "libvpx-vp9",
        "vp09",
        {"420": 12, "422": 12, "444": 12},
        (0, 63),
        40,
        static_hdr=False,
        presets=(0, 8),
        usual_preset=4,
    ),
    # SVT-AV1 refuses a picture smaller than 64x64.
    VideoCodec.AV1: VideoFormat(
        "libsvtav1", "av01", {"420": 10}, (0, 63), 42, 64, presets=(0, 13), usual_preset=8
    ),
    VideoCodec.THEORA: VideoFormat(
        "libtheora",
        "",
        {"420": 8, "422": 8, "444": 8},
        (10, 0),
        5,
        described=False,
        static_hdr=False,
    ),
    VideoCodec.MPEG4: VideoFormat(
        "mpeg4", "mp4v", {"420": 8}, (1, 31), 8, described=False, static_hdr=False
    ),
}

VIDEO_HELD: Mapping[Container, frozenset[VideoCodec]] = {
    Container.SOURCE: frozenset({VideoCodec.HEVC, VideoCodec.H264, VideoCodec.AV1, VideoCodec.VP9}),
    Container.MP4: frozenset({VideoCodec.HEVC, VideoCodec.H264, VideoCodec.AV1, VideoCodec.VP9}),
    Container.MKV: frozenset(VideoCodec) - {VideoCodec.THEORA},
    Container.WEBM: frozenset({VideoCodec.VP9, VideoCodec.AV1}),
    Container.OGG: frozenset({VideoCodec.THEORA}),
    Container.AVI: frozenset({VideoCodec.MPEG4}),
    Container.HLS: frozenset({VideoCodec.H264}),
}
"""The codecs that a recipe may choose for a container."""

CONSTANT_RATE = frozenset({Container.OGG, Container.AVI})
"""Containers that count frames instead of storing timestamps, so the whole video has one rate."""


def encoder_of(codec: VideoCodec) -> str:
    return VIDEO_FORMATS[codec].encoder


def encoder_preset(codec: VideoCodec, preset: str) -> str:
    """Return the encoder's name or number for a preset."""
    row = VIDEO_FORMATS[codec]
    return str(row.usual_preset) if row.presets and preset == "medium" else preset


PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower",
           "veryslow", "placebo")  # fmt: skip
"""Presets of libx264 and libx265 (https://x265.readthedocs.io/en/master/presets.html)."""


def preset_problem(codec: VideoCodec, preset: str) -> str:
    ends = VIDEO_FORMATS[codec].presets
    if preset == "medium":
        return ""
    if ends is None:
        names = PRESETS if codec in {VideoCodec.HEVC, VideoCodec.H264} else ("medium",)
        return (
            "" if preset in names else f"{codec} has the presets {', '.join(names)}, not {preset}"
        )
    if preset.isdigit() and ends[0] <= int(preset) <= ends[1]:
        return ""
    return f"{codec} has the presets {ends[0]} to {ends[1]}, not {preset}"


def depth_problem(codec: VideoCodec, pixel_format: str) -> str:
    """Return why hevcq does not encode this codec in this pixel format, or ""."""
    # 10-bit H.264 plays almost nowhere, and no hardware decodes it.
    deep = codec is not VideoCodec.H264 and VIDEO_FORMATS[codec].depths.get("420", 0) >= 10
    return "" if deep or pixel_format != "yuv420p10" else f"{codec} is not made in {pixel_format}"


def quality_problem(codec: VideoCodec, crf: float) -> str:
    better, worse = VIDEO_FORMATS[codec].quality
    if min(better, worse) <= crf <= max(better, worse):
        return ""
    return f"{codec} has qualities from {better:g} (best) to {worse:g}, not {crf:g}"


def keeps_detail(codec: VideoCodec, crf: float) -> bool:
    """Return whether an encode at this CRF should keep sharp detail (gate G8)."""
    row = VIDEO_FORMATS[codec]
    better, worse = row.quality
    return crf <= row.judged if better < worse else crf >= row.judged


_SUBSAMPLING = {"420": (True, True), "422": (True, False), "444": (False, False)}


@dataclass(frozen=True, slots=True)
class Pixels:
    """An encoder's pixel format: family (420, 422, 444, gray, gbr) and bits per sample."""

    family: str
    bits: int

    @property
    def name(self) -> str:
        base = {"gray": "gray", "gbr": "gbrp"}.get(self.family, f"yuv{self.family}p")
        if self.bits == 8:
            return base
        return f"{base}{self.bits}le"

    @property
    def even(self) -> tuple[bool, bool]:
        return _SUBSAMPLING.get(self.family, (False, False))


def _formats() -> dict[str, Pixels]:
    same = {
        "420": ["yuv420p", "yuvj420p", "nv12", "nv21", "yuv410p"],
        "422": ["yuv422p", "yuvj422p", "yuyv422", "uyvy422", "yvyu422", "nv16", "yuv411p"],
        "444": ["yuv444p", "yuvj444p", "yuv440p", "yuvj440p", "nv24", "nv42"],
        "gbr": ["gbrp", "rgb24", "bgr24", "0rgb", "rgb0", "0bgr", "bgr0"],
        "gray": ["gray"],
    }
    formats = {name: Pixels(family, 8) for family, names in same.items() for name in names}
    for end in ("le", "be"):
        for family, base in (("420", "yuv420p"), ("422", "yuv422p"), ("444", "yuv444p"),
                             ("gbr", "gbrp"), ("gray", "gray")):  # fmt: skip
            formats |= {f"{base}{bits}{end}": Pixels(family, bits) for bits in (10, 12)}
            formats[f"{base}9{end}"] = Pixels(family, 10)
        formats[f"p010{end}"] = Pixels("420", 10)
        formats[f"p210{end}"] = Pixels("422", 10)
        formats[f"p410{end}"] = Pixels("444", 10)
        formats |= {f"yuv440p{bits}{end}": Pixels("444", bits) for bits in (10, 12)}
    return formats


PIXEL_FORMATS = _formats()
"""The encoder's pixel format for each of a decoder's, by the name that ffprobe reports.

Formats that are not listed are refused: alpha, 14 and 16 bits, and any future format."""


def lossless_pixels(source: str, codec: VideoCodec) -> Pixels | None:
    """Return the encoder's pixel format that holds `source` without loss, or None."""
    pixels = PIXEL_FORMATS.get(source)
    if pixels is None or pixels.bits > VIDEO_FORMATS[codec].depths.get(pixels.family, 0):
        return None
    return pixels


def pixels_420(source: str, bits: int = 8) -> Pixels | None:
    """Return 4:2:0 with so many bits if `source` can be converted to it, else None."""
    pixels = PIXEL_FORMATS.get(source)
    return Pixels("420", bits) if pixels is not None and pixels.family != "gray" else None


def rgb_matrix(source: str, chosen: Pixels, codec: VideoCodec) -> str:
    """Return the matrix to convert RGB to luma and chroma, which players assume without a tag; "" if not RGB."""
    if chosen.family == "gbr" or PIXEL_FORMATS[source].family != "gbr":
        return ""
    return "bt709" if VIDEO_FORMATS[codec].described else "bt601"


def keeps_samples(source: str, target: str) -> bool:
    """Return whether `target` has the family of `source` and no fewer bits, so that no sample is lost."""
    before, after = PIXEL_FORMATS.get(source), PIXEL_FORMATS.get(target)
    if before is None or after is None:
        return before is after
    return (before.family, True) == (after.family, before.bits <= after.bits)


def is_full_range(source: str, colour_range: str) -> bool:
    return source.startswith("yuvj") or colour_range in {"pc", "jpeg", "full"}


def reported_pixel_format(chosen: Pixels, codec: VideoCodec, *, full: bool) -> str:
    """Return the name that ffprobe reports for an encode in this pixel format.

    For 8-bit full range libavcodec's H.264 decoder reports a `yuvj` name for 4:2:0, 4:2:2 and 4:4:4,
    its HEVC decoder for 4:2:0.
    """
    if full and chosen.bits == 8 and chosen.family in VIDEO_FORMATS[codec].legacy_range:
        return chosen.name.replace("yuv", "yuvj")
    return chosen.name


SOFTWARE, AUTO = "software", "auto"
BETTER_BY = 4
"""Subtracted from a recipe's `crf` for a hardware encoder, which needs more bits for the same quality
(Optimisarr's EncoderQualityPolicy.cs subtracts the same)."""


@dataclass(frozen=True, slots=True)
class Family:
    """The encoders of one hardware interface, and ffmpeg's options for them.

    `device` are global options, `upload` the last filter, `pixel_formats` the format by bits per
    sample ("" if the filter sets it), `nodes` the device files, `quality` the option names and
    values in which `{}` is the quality number, `session_full` fragments of its message when no
    session is left.
    """

    device: tuple[str, ...]
    upload: Mapping[int, str]
    pixel_formats: Mapping[int, str]
    nodes: tuple[str, ...]
    quality: tuple[tuple[str, str], ...]
    session_full: tuple[str, ...] = ()

    def device_options(self, node: str) -> tuple[str, ...]:
        """Return the `device` options for this render node; "" is the first."""
        return tuple(word.replace(NODE, node or NODE) for word in self.device)


NODE = "/dev/dri/renderD128"
"""The first render node, as Linux numbers them."""

FAMILIES: Mapping[str, Family] = {
    # https://docs.nvidia.com/video-technologies/video-codec-sdk/12.1/ffmpeg-with-nvidia-gpu/
    "nvenc": Family(
        device=(),
        upload={},
        pixel_formats={8: "yuv420p", 10: "p010le"},
        nodes=("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"),
        quality=(("-rc", "vbr"), ("-cq", "{}"), ("-b", "0"), ("-preset", "p5"), ("-tune", "hq"),
                 ("-spatial-aq", "1")),
        session_full=("OpenEncodeSessionEx failed: out of memory",
                      "OpenEncodeSessionEx failed: incompatible client key"),
    ),
    # https://trac.ffmpeg.org/wiki/Hardware/QuickSync: global_quality alone is ICQ.
    "qsv": Family(
        device=("-init_hw_device", f"qsv=hw,child_device={NODE}", "-filter_hw_device", "hw"),
        upload={8: "format=nv12,hwupload=extra_hw_frames=64",
                10: "format=p010le,hwupload=extra_hw_frames=64"},
        pixel_formats={8: "", 10: ""},
        nodes=("/dev/dri",),
        quality=(("-global_quality", "{}"), ("-preset", "slower")),
    ),
    # https://trac.ffmpeg.org/wiki/Hardware/VAAPI
    "vaapi": Family(
        device=("-vaapi_device", NODE),
        upload={8: "format=nv12,hwupload", 10: "format=p010le,hwupload"},
        pixel_formats={8: "", 10: ""},
        nodes=("/dev/dri",),
        # av1_vaapi has no -qp.
        quality=(("-rc_mode", "CQP"), ("-global_quality", "{}")),
    ),
}  # fmt: skip
_CODECS = {"hevc": VideoCodec.HEVC, "h264": VideoCodec.H264, "av1": VideoCodec.AV1}
_DEEP = frozenset({VideoCodec.HEVC, VideoCodec.AV1})
"""Codecs that hardware encodes with 10 bits; no hardware does H.264 so."""
HARDWARE: Mapping[str, tuple[Family, VideoCodec]] = {
    f"{word}_{family}": (row, codec)
    for family, row in FAMILIES.items()
    for word, codec in _CODECS.items()
}
"""Every encoder by ffmpeg's name, in the order in which `auto` tries them."""

AV1_LARGEST: Mapping[str, int] = {"av1_qsv": 51, "av1_vaapi": 255}
"""Largest quality number of AV1 encoders whose scale does not end at 63 like libsvtav1's: ICQ's, or the
index of AV1's quantizers (`ffmpeg -h encoder=`, vaapi_encode_av1.c)."""


def hardware_candidates(wanted: tuple[str, ...], codec: VideoCodec) -> tuple[str, ...]:
    if AUTO in wanted:
        return tuple(name for name, (_, made) in HARDWARE.items() if made is codec)
    return tuple(name for name in wanted if name in HARDWARE)


def encoder_problem(wanted: tuple[str, ...], codec: VideoCodec) -> str:
    for name in wanted:
        if name in {SOFTWARE, AUTO}:
            if len(wanted) > 1:
                return f"video.encoder: {name} stands alone"
        elif name not in HARDWARE:
            return f"video.encoder: {name} is none of {SOFTWARE}, {AUTO}, {', '.join(HARDWARE)}"
        elif HARDWARE[name][1] is not codec:
            return f"video.encoder: {name} makes {HARDWARE[name][1]}, not {codec}"
    return "" if wanted else f"video.encoder names none; say {SOFTWARE}"


def why_unsuited(codec: VideoCodec, pixel_format: str, bits: int) -> str:
    """Return why hardware does not encode this pixel format, or ""; it takes 4:2:0 of 8 or 10 bits."""
    if pixel_format not in {"yuv420p", "yuvj420p", "yuv420p10le"}:
        return f"{pixel_format} is not 4:2:0 of 8 or 10 bits"
    if bits > 8 and codec not in _DEEP:
        return f"no hardware makes {codec} of {bits} bits"
    return ""


def quality_options(name: str, crf: float) -> list[tuple[str, str]]:
    family, _ = HARDWARE[name]
    number = max(1, round((crf - BETTER_BY) * AV1_LARGEST.get(name, 63) / 63))
    return [(key, value.format(number)) for key, value in family.quality]


_LOCAL = re.compile("^q[a-t][a-z]$")
_MACRO = {"nb": "no", "nn": "no", "cmn": "zh", "yue": "zh"}
"""Languages that count as their macrolanguage, because files use either code."""
_CODES = """
aar:aa abk:ab afr:af aka:ak alb:sq amh:am ara:ar arg:an arm:hy asm:as ava:av ave:ae aym:ay
aze:az bak:ba bam:bm baq:eu bel:be ben:bn bis:bi bod:bo bos:bs bre:br bul:bg bur:my cat:ca
ces:cs cha:ch che:ce chi:zh chu:cu chv:cv cor:kw cos:co cre:cr cym:cy cze:cs dan:da deu:de
div:dv dut:nl dzo:dz ell:el eng:en epo:eo est:et eus:eu ewe:ee fao:fo fas:fa fij:fj fin:fi
fra:fr fre:fr fry:fy ful:ff geo:ka ger:de gla:gd gle:ga glg:gl glv:gv gre:el grn:gn guj:gu
hat:ht hau:ha heb:he her:hz hin:hi hmo:ho hrv:hr hun:hu hye:hy ibo:ig ice:is ido:io iii:ii
iku:iu ile:ie ina:ia ind:id ipk:ik isl:is ita:it jav:jv jpn:ja kal:kl kan:kn kas:ks kat:ka
kau:kr kaz:kk khm:km kik:ki kin:rw kir:ky kom:kv kon:kg kor:ko kua:kj kur:ku lao:lo lat:la
lav:lv lim:li lin:ln lit:lt ltz:lb lub:lu lug:lg mac:mk mah:mh mal:ml mao:mi mar:mr may:ms
mkd:mk mlg:mg mlt:mt mon:mn mri:mi msa:ms mya:my nau:na nav:nv nbl:nr nde:nd ndo:ng nep:ne
nld:nl nno:nn nob:nb nor:no nya:ny oci:oc oji:oj ori:or orm:om oss:os pan:pa per:fa pli:pi
pol:pl por:pt pus:ps que:qu roh:rm ron:ro rum:ro run:rn rus:ru sag:sg san:sa sin:si slk:sk
slo:sk slv:sl sme:se smo:sm sna:sn snd:sd som:so sot:st spa:es sqi:sq srd:sc srp:sr ssw:ss
sun:su swa:sw swe:sv tah:ty tam:ta tat:tt tel:te tgk:tg tgl:tl tha:th tib:bo tir:ti ton:to
tsn:tn tso:ts tuk:tk tur:tr twi:tw uig:ug ukr:uk urd:ur uzb:uz ven:ve vie:vi vol:vo wel:cy
wln:wa wol:wo xho:xh yid:yi yor:yo zha:za zho:zh zul:zu
"""
TWO_LETTERS = dict(pair.split(":") for pair in _CODES.split())
"""ISO 639-1 code by ISO 639-2 code, since RFC 5646 requires the shortest; languages without one keep theirs."""


def bcp47(language: str) -> str:
    """Return a language's BCP 47 tag, with two letters if it has them; "" if the language is undetermined."""
    code = language.strip().lower()
    if code in {"", "und", "mis", "mul", "zxx"} or not code.replace("-", "").isalnum():
        return ""
    return TWO_LETTERS.get(code, language.strip())


def language_code(word: object) -> str:
    """Return a language's shortest code. Raises ValueError if `word` is no language."""
    code = (
        "no" if word is False else str(word).strip().lower()
    )  # YAML reads `no` (Norwegian) as false
    short = TWO_LETTERS.get(code, code)
    if short not in TWO_LETTERS.values() and not re.fullmatch("[a-z]{3}", short):
        raise ValueError(f"{word} is no language of ISO 639, such as en or eng")
    return short


def comparable_languages(languages: str) -> frozenset[str]:
    """Return a track's languages in comparable form, from ffprobe's comma-separated codes.

    Undetermined languages and codes for local use (qaa to qtz) do not count: broadcasts mark the
    original sound as qaa.
    """
    codes = {bcp47(name.strip().partition("-")[0]) for name in languages.split(",")}
    named = (_MACRO.get(code, code) for code in codes if not _LOCAL.match(code))
    return frozenset(named) - {""}


def in_brackets(languages: str) -> str:
    """Return a stream's languages, from ffprobe's comma-separated codes, in brackets after a space, or ""."""
    names = dict.fromkeys(name for name in languages.split(",") if name not in {"", "und"})
    return f" ({', '.join(names)})" if names else ""
