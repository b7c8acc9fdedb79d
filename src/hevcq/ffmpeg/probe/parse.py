"""Turn ffprobe's JSON into MediaInfo: pure functions that tolerate missing and odd values."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hevcq.domain.media.facts import (
    SERVICE_TAGS,
    WRITTEN_DOLBY,
    AudioFacts,
    Chapter,
    Colour,
    LightLevel,
    MasteringDisplay,
    MediaInfo,
    Stream,
    StreamKind,
    VideoFacts,
)
from hevcq.ffmpeg.inputs import CROP_SIDE_DATA, float_or_none, int_or_none

Json = Mapping[str, Any]

_KINDS = {
    "video": StreamKind.VIDEO,
    "audio": StreamKind.AUDIO,
    "subtitle": StreamKind.SUBTITLE,
    "attachment": StreamKind.ATTACHMENT,
}
_DEPTH = re.compile(r"(?:p|gray|p0|x2rgb|x2bgr)(9|10|12|14|16)(?:le|be)$")
_CLOCK_TIME = re.compile(r"^(\d+):(\d\d):(\d\d(?:\.\d+)?)$")
_FRAME_RATE = re.compile(r"^\d+/\d+$")

_UNKNOWN_TICKS = 0xFFFF_FFFF
"""An MP4's mark of a track whose length was unknown when it was written (ISO/IEC 14496-12, 8.4.2.3)."""


def media_info(probed: Json) -> MediaInfo:
    """Return the typed facts of the output of `ffprobe -of json`.

    Its key `frames` has the first frames, `midstream_frames` key frames spread over the video.
    """
    form = _mapping(probed.get("format"))
    frames = [_mapping(frame) for frame in _items(probed, "frames")]
    later = _items(probed, "midstream_frames")
    return MediaInfo(
        format_name=str(form.get("format_name", "")),
        duration_s=_length(form, *_items(probed, "streams")),
        start_s=float_or_none(form.get("start_time")),
        size=int_or_none(form.get("size")) or 0,
        bit_rate=int_or_none(form.get("bit_rate")),
        streams=tuple(_stream(stream, frames, later) for stream in _items(probed, "streams")),
        chapters=tuple(_chapter(chapter) for chapter in _items(probed, "chapters")),
        tags=_service_tags(_items(probed, "programs")) | _tags(form),
    )


def _service_tags(programs: Sequence[Json]) -> dict[str, str]:
    """Return the station's name and provider if a transport stream has one programme."""
    tags = _tags(programs[0]) if len(programs) == 1 else {}
    return {name: value for name, value in tags.items() if name in SERVICE_TAGS}


def _stream(raw: Json, frames: Iterable[Json], later: Iterable[Json]) -> Stream:
    index = int_or_none(raw.get("index")) or 0
    tags = _tags(raw)
    dispositions = _mapping(raw.get("disposition"))
    kind = _KINDS.get(str(raw.get("codec_type", "")), StreamKind.DATA)
    if kind is StreamKind.VIDEO and dispositions.get("attached_pic"):
        kind = StreamKind.PICTURE
    language = _tag(tags, "language")
    own, own_later = (
        [frame for frame in group if int_or_none(frame.get("stream_index")) == index]
        for group in (frames, later)
    )
    return Stream(
        index=index,
        kind=kind,
        codec=str(raw.get("codec_name", "unknown")),
        codec_tag=_fourcc(raw),
        profile=str(raw.get("profile", "")),
        time_base=_rate(raw.get("time_base"), "1/1000"),
        start_s=float_or_none(raw.get("start_time")),
        duration_s=_length(raw, raw) or _clock_time(tags),
        frames=int_or_none(raw.get("nb_frames")),
        bit_rate=int_or_none(raw.get("bit_rate")),
        language="" if language == "und" else language,
        title=_tag(tags, "title"),
        tags=tags,
        dispositions=tuple(sorted(name for name, is_set in dispositions.items() if is_set)),
        video=_video(raw, own, own_later)
        if kind in {StreamKind.VIDEO, StreamKind.PICTURE}
        else None,
        audio=_audio(raw) if kind is StreamKind.AUDIO else None,
        # ffmpeg stores an attached file as the stream's extradata.
        digest=str(raw.get("extradata_hash", "")) if kind is StreamKind.ATTACHMENT else "",
    )


def _video(raw: Json, frames: list[Json], later: list[Json]) -> VideoFacts:
    side = {str(data.get("side_data_type", "")): data for data in _items(raw, "side_data_list")}
    for frame in reversed([*frames, *later]):
        for data in _items(frame, "side_data_list"):
            side.setdefault(str(data.get("side_data_type", "")), data)
    rotation, mirrored = _orientation(side.get("Display Matrix"))
    turns = _orientation(side.get("3x3 displaymatrix", side.get("Display Matrix")))
    pixel_format = _pixel_format(raw)
    facts = VideoFacts(
        width=int_or_none(raw.get("width")) or 0,
        height=int_or_none(raw.get("height")) or 0,
        pixel_format=pixel_format,
        bit_depth=_depth(pixel_format, raw),
        sample_aspect=_aspect(raw.get("sample_aspect_ratio")),
        field_order=_field_order(raw, frames, later),
        rotation=rotation,
        mirrored=mirrored,
        turned_by_pictures=turns != (rotation, mirrored),
        average_rate=_rate(raw.get("avg_frame_rate"), "0/0"),
        nominal_rate=_rate(raw.get("r_frame_rate"), "0/0"),
        colour=_colours(raw, frames),
        recoloured=_has_changing_colours([*frames, *later]),
        mastering_display=_mastering(side.get("Mastering display metadata")),
        light_level=_light(side.get("Content light level metadata")),
        dolby_vision=any("dovi" in name.lower() or "dolby" in name.lower() for name in side)
        or _fourcc(raw) in {"dvh1", "dvhe", "dvav", "dva1", "dav1"},
        dolby_profile=_dolby_profile(side.get("DOVI configuration record") or {}),
        dolby_base=_dolby_base(side.get("DOVI configuration record")),
        dolby_writable=_is_dolby_writable(raw, side.get("DOVI configuration record") or {}),
        hdr10_plus=any("HDR10+" in name or "2094-40" in name for name in side),
        closed_captions=bool(int_or_none(raw.get("closed_captions")))
        or any("Closed Captions" in name for name in side),
        stereo_3d=_is_stereo(side.get("Stereo 3D")),
        spherical="Spherical Mapping" in side,
        crop_is_applied=CROP_SIDE_DATA in side,
    )
    return facts.model_copy(update=_changing_shape(_count_shapes(frames, later)))


def _dolby_base(record: Json | None) -> str:
    """Return the kind of base layer that other players see (bl_signal_compatibility_id of Dolby Vision)."""
    compatible = (
        int_or_none(record.get("dv_bl_signal_compatibility_id")) if record is not None else None
    )
    return {1: "hdr10", 2: "sdr", 4: "hlg", 6: "hdr10"}.get(compatible or 0, "")


def _dolby_profile(record: Json) -> str:
    values = (record.get(f"dv_{name}") for name in ("profile", "bl_signal_compatibility_id"))
    return ".".join(str(number) for number in map(int_or_none, values) if number)


def _is_dolby_writable(raw: Json, record: Json) -> bool:
    """Whether it is HEVC with a Dolby Vision profile that encoders can write (WRITTEN_DOLBY)."""
    return raw.get("codec_name") == "hevc" and _dolby_profile(record) in WRITTEN_DOLBY


def _audio(raw: Json) -> AudioFacts:
    return AudioFacts(
        channels=int_or_none(raw.get("channels")) or 0,
        layout=str(raw.get("channel_layout", "")),
        sample_rate=int_or_none(raw.get("sample_rate")) or 0,
    )


def _chapter(raw: Json) -> Chapter:
    return Chapter(
        start_s=float_or_none(raw.get("start_time")) or 0.0,
        end_s=float_or_none(raw.get("end_time")) or 0.0,
        title=_tag(_tags(raw), "title"),
    )


def _pixel_format(raw: Json) -> str:
    """Return the pixel format, with the alpha channel that WebM stores separately.

    ffmpeg's own VP8 and VP9 decoders ignore that channel; only a tag names it
    (https://www.webmproject.org/docs/container/, AlphaMode).
    """
    name = str(raw.get("pix_fmt", ""))
    has_alpha = int_or_none(_tag(_tags(raw), "alpha_mode")) == 1
    return name.replace("yuv", "yuva") if has_alpha and "yuva" not in name else name


def _orientation(matrix: Json | None) -> tuple[int, bool]:
    """Return the display rotation in degrees clockwise, and whether the picture is mirrored.

    ffprobe's `rotation` is anticlockwise (libavutil/display.h, av_display_rotation_get).
    """
    if matrix is None:
        return 0, False
    turn = float_or_none(matrix.get("rotation"))
    rotation = round(-turn) % 360 if turn is not None else 0
    numbers = [
        int(n) for n in re.findall(r"(?<![\d:])-?\d+(?!\d*:)", str(matrix.get("displaymatrix")))
    ]
    mirrored = len(numbers) == 9 and numbers[0] * numbers[4] - numbers[1] * numbers[3] < 0
    return rotation, mirrored


def _has_changing_colours(frames: list[Json]) -> bool:
    names = ("color_range", "color_space", "color_transfer", "color_primaries")
    return len({tuple(str(frame.get(name)) for name in names) for frame in frames}) > 1


def _count_shapes(frames: list[Json], later: list[Json]) -> Counter[tuple[int, int, str, str]]:
    """Count each size, sample aspect and pixel format, in the order of the video.

    Of the first pictures each shape counts once.
    """
    first, others = (
        [
            (
                int_or_none(frame.get("width")) or 0,
                int_or_none(frame.get("height")) or 0,
                _aspect(frame.get("sample_aspect_ratio")),
                str(frame.get("pix_fmt")),
            )
            for frame in group
            if frame.get("width")
        ]
        for group in (frames, later)
    )
    return Counter([*dict.fromkeys(first), *others])


def _changing_shape(shapes: Counter[tuple[int, int, str, str]]) -> dict[str, Any]:
    """Return the facts of a picture whose shape changes: its largest shape, if equal the most frequent one."""
    if len(shapes) < 2:
        return {}
    largest = max(shapes, key=lambda shape: (shape[0] * shape[1], shapes[shape]))
    others = [f"{w}x{h} {aspect} {pixels}" for w, h, aspect, pixels in shapes
              if (w, h, aspect, pixels) != largest]  # fmt: skip
    width, height, aspect, _ = largest
    return {
        "width": width,
        "height": height,
        "sample_aspect": aspect,
        "becomes": ", ".join(others),
    }


def _field_order(raw: Json, frames: list[Json], later: list[Json]) -> str:
    """Return the header's field order; if it has none, the frames' field order.

    At least half of the first frames must be interlaced, or one of the midstream key frames. Of "tb" and "bt"
    the field that is shown first is the first letter in Matroska, the last in MOV, and either in files of
    ffmpeg; so the frames decide.
    """
    order = str(raw.get("field_order", "unknown"))
    fields = [frame for frame in frames if frame.get("interlaced_frame")]
    if order not in {"unknown", "progressive", *(("tb", "bt") if fields else ())}:
        return order
    if not fields or len(fields) * 2 < len(frames):
        fields = [frame for frame in later if frame.get("interlaced_frame")]
    if not fields:
        return "progressive"
    return "tt" if fields[0].get("top_field_first") else "bb"


def _depth(pixel_format: str, raw: Json) -> int:
    depth = _DEPTH.search(pixel_format)
    if depth:
        return int(depth[1])
    if re.search(r"(?:rgb|bgr)48|(?:rgba|bgra)64", pixel_format):
        return 16
    return 8 if pixel_format else int_or_none(raw.get("bits_per_raw_sample")) or 8


def _mastering(data: Json | None) -> MasteringDisplay | None:
    names = MasteringDisplay.model_fields
    if data is None:
        return None
    values = {n: data.get(n.replace("white_", "white_point_")) for n in names}
    if any(value is None for value in values.values()):
        return None
    return MasteringDisplay(**{name: str(value) for name, value in values.items()})


def _light(data: Json | None) -> LightLevel | None:
    if data is None or "max_content" not in data:
        return None
    return LightLevel(
        max_content=int_or_none(data.get("max_content")) or 0,
        max_average=int_or_none(data.get("max_average")) or 0,
    )


def _is_stereo(data: Json | None) -> bool:
    """Whether the picture holds two views, as metadata inside the stream without a type also says."""
    return data is not None and str(data.get("type", "unknown")).lower() != "2d"


def _fourcc(raw: Json) -> str:
    tag = str(raw.get("codec_tag_string", ""))
    return "" if "[" in tag else tag


def _colours(raw: Json, frames: list[Json]) -> Colour:
    """Return the colours that the first picture states, and from the track those that it does not."""
    picture = frames[0] if frames else {}

    def stated(name: str) -> str:
        values = (str(each.get(name, "")) for each in (picture, raw))
        return next((v for v in values if v not in {"", "unknown", "unspecified", "reserved"}), "")

    return Colour(
        range=stated("color_range"),
        space=stated("color_space"),
        transfer=stated("color_transfer"),
        primaries=stated("color_primaries"),
        chroma_location=stated("chroma_location"),
    )


def _aspect(value: object) -> str:
    text = str(value or "")
    if not re.fullmatch(r"\d+:\d+", text):
        return "1:1"
    num, _, den = text.partition(":")
    return text if int(num) and int(den) else "1:1"


def _rate(value: object, otherwise: str) -> str:
    text = str(value or "")
    return text if _FRAME_RATE.match(text) else otherwise


def _clock_time(tags: Mapping[str, str]) -> float | None:
    """Return Matroska's DURATION tag (h:mm:ss.fraction) in seconds; its tracks have no other duration."""
    match = _CLOCK_TIME.match(_tag(tags, "duration"))
    if match is None:
        return None
    hours, minutes, seconds = match.groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def _tag(tags: Mapping[str, str], name: str) -> str:
    return next((value for key, value in tags.items() if key.lower() == name), "")


def _tags(raw: Json) -> dict[str, str]:
    return {str(key): _undoubled(str(value)) for key, value in _mapping(raw.get("tags")).items()}


def _undoubled(value: str) -> str:
    """Return the first half of a doubled value "a;a", as ffmpeg reports the creation time of its own MOVs."""
    half, again = value[: len(value) // 2], value[len(value) // 2 + 1 :]
    return half if half and value == f"{half};{again}" and half == again else value


def _mapping(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _items(raw: Json, name: str) -> list[Json]:
    items = raw.get(name)
    return [_mapping(item) for item in items] if isinstance(items, list) else []


def _length(raw: Json, *streams: Json) -> float | None:
    """Return a duration in seconds; None if a stream's is marked as unknown."""
    unknown = any(int_or_none(stream.get("duration_ts")) == _UNKNOWN_TICKS for stream in streams)
    return None if unknown else float_or_none(raw.get("duration"))
