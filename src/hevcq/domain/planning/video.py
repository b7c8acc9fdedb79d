"""Plan the encode of a video stream: a target that gates can check, or a named policy's refusal.

Pure functions over a profile and the facts of one video stream.
"""

from collections.abc import Iterator
from fractions import Fraction

from hevcq.domain import formats
from hevcq.domain.formats import (
    CONSTANT_RATE,
    SOFTWARE,
    VIDEO_FORMATS,
    Container,
    Pixels,
    VideoCodec,
    encoder_of,
)
from hevcq.domain.media.facts import WRITTEN_DOLBY, Colour, Stream, TrackMeasure, VideoFacts, ratio
from hevcq.domain.planning.encode_plan import Refuse, VideoTarget
from hevcq.domain.profile import Profile
from hevcq.domain.profile_sections import DeinterlaceRate, PixelFormatPolicy

SDR = Colour(range="tv", space="bt709", transfer="bt709", primaries="bt709")
"""The colour of a picture whose tones were mapped, or that was RGB."""
USUAL_RATES = tuple(
    Fraction(num, den)
    for num, den in ((24000, 1001), (24, 1), (25, 1), (30000, 1001), (30, 1), (50, 1), (60, 1))
)
"""Frame rates for a video whose own is unknown, in frames per second."""
FASTEST, FINEST_RATE = 120, 65_535
"""Largest frame rate that is believed, and its largest numerator: MPEG-4 Part 2 has 16 bits for it."""
EVEN_SHARE = 0.005
"""Difference of average and nominal rate that rounded times and a last frame explain."""
MAX_PIXELS = 8192 * 8192
SMALLEST = 16
"""Smallest side in pixels: libx265 refuses a picture below its smallest coding tree unit."""
HDR_TRANSFERS = frozenset({"smpte2084", "arib-std-b67"})
LOST_HDR10_PLUS = "HDR10+ dynamic metadata, which encoders drop without a word"
UNMARKED_IN_MOV = Refuse(
    policy="policies.dynamic_hdr",
    detail="The picture carries Dolby Vision metadata, which ffmpeg does not mark in a MOV; set "
    "container to mp4 to keep it, or policies.dynamic_hdr to drop to encode without it.",
)


def smaller_than_box(profile: Profile, facts: VideoFacts) -> str:
    """Return the displayed size of a picture that is smaller than the box in both directions, else ""."""
    if not profile.video.scales:
        return ""
    wide, high = shown_size(facts)
    box_wide, box_high = _box(profile, wide, high)
    if wide >= box_wide or high >= box_high:
        return ""
    return f"{round(wide)}x{round(high)}"


def target_of(profile: Profile, stream: Stream) -> VideoTarget | Refuse:
    """Return the target of one video stream, or the refusal of a named policy."""
    facts = stream.video
    if facts is None or stream.codec in {"", "unknown"}:
        return Refuse(
            policy="video",
            detail=f"Stream {stream.index} is a video in a codec that ffmpeg does not know.",
        )
    refused = _refused_as_is(profile, facts) or Refuse.of_all(
        _refused_by_policy(profile, facts, stream.codec)
    )
    if refused is not None:
        return refused
    chosen = _pixel_format(profile, facts)
    if isinstance(chosen, Refuse):
        return chosen
    kept = ":".join(map(str, (*_upright(facts), *facts.bars)))
    more = {
        "retimed": facts.retimed,
        "crop": kept if any(facts.bars) else "",
        "dolby_vision": facts.dolby_vision and _keeps_dolby(profile, facts),
    }
    return _target(profile, facts, chosen).model_copy(update=more)


def _refused_as_is(profile: Profile, facts: VideoFacts) -> Refuse | None:
    size = f"{facts.width}x{facts.height}"
    smallest = VIDEO_FORMATS[profile.video.codec].smallest
    if facts.width < smallest or facts.height < smallest:
        return Refuse(policy="video", detail=f"The picture is {size}: too small to encode.")
    if facts.width * facts.height > MAX_PIXELS:
        return Refuse(policy="video", detail=f"The picture is {size}: too large to encode.")
    if facts.rotation % 90:
        return Refuse(
            policy="video",
            detail=f"The picture is to be shown turned by {facts.rotation} degrees; only quarter "
            "turns can be carried.",
        )
    if facts.becomes and not fits(facts):
        return Refuse(
            policy="video",
            detail=f"Pictures of {size} {facts.pixel_format} and of {facts.becomes} are in it, "
            "which one picture cannot be; cut the video where it changes.",
        )
    why = ""
    if facts.cropped:
        why = "Its file hides a part of it (Matroska's PixelCrop); take that off with mkvpropedit."
    elif facts.stereo_3d or facts.spherical:
        # Chunks of a video cannot hold the mark, and ffmpeg's support for it in MP4 is experimental.
        why = (
            "It is stereoscopic or of 360 degrees, and the encode would lose the mark that says so."
        )
    elif facts.turned_by_pictures:
        # ffmpeg 5.1 rotates the pictures that carry such a message and leaves the others unchanged.
        why = "Some pictures say that they are to be shown turned (H.264's display orientation), "
        why += "which cannot be carried; say it in the file's header instead."
    if why:
        return Refuse(policy="video", detail=why)
    return _refused_dolby(facts)


def fits(facts: VideoFacts) -> bool:
    """Return whether pictures of several sizes or aspects can be fitted into one: all else is alike."""
    alike = all(other.endswith(f" {facts.pixel_format}") for other in facts.becomes.split(", "))
    return alike and not facts.rotation and not facts.mirrored


def _refused_by_policy(profile: Profile, facts: VideoFacts, codec: str) -> Iterator[Refuse]:
    """Refuse features that no encoder here preserves, unless the policy is drop (or convert)."""
    policies = profile.policies
    lost = facts.dolby_vision and not _keeps_dolby(profile, facts)
    dynamic = [_lost_dolby(facts)] * lost + [LOST_HDR10_PLUS] * facts.hdr10_plus
    for what in dynamic if policies.dynamic_hdr == "keep" else ():
        yield Refuse(
            policy="policies.dynamic_hdr",
            detail=f"The picture carries {what}; set policies.dynamic_hdr to drop to encode without it.",
        )
    if codec == "h264" and facts.colour.transfer == "smpte2084" and policies.hdr == "keep":
        yield Refuse(
            policy="policies.hdr",
            detail="The picture is HDR10 in H.264, whose mastering display ffmpeg does not read; set "
            "policies.hdr to convert to map its tones to SDR.",
        )
    refusal = _refused_hdr(profile, facts)
    if refusal is not None:
        yield refusal
    if facts.interlaced and (facts.rotation or facts.mirrored):
        yield Refuse(
            policy="video",
            detail="The picture is interlaced and turned for display, so that its fields would be "
            "columns; take the rotation out of its header, or deinterlace it before.",
        )


def captions_become_text(profile: Profile, facts: VideoFacts) -> bool:
    """Return whether the captions inside this video are to be kept as text tracks."""
    converted = profile.policies.closed_captions == "convert"
    return facts.closed_captions and converted and not _carries_captions(profile)


def _carries_captions(profile: Profile) -> bool:
    """Return whether the encoder writes captions into its pictures: libx265 of ffmpeg 5.1 does not."""
    wanted = profile.policies.closed_captions == "convert"
    return wanted and profile.video.codec is VideoCodec.H264


def _pixel_format(profile: Profile, facts: VideoFacts) -> Pixels | Refuse:
    wanted, codec = profile.video.pixel_format, profile.video.codec
    if wanted is PixelFormatPolicy.KEEP:
        found = formats.kept(facts.pixel_format, codec)
    else:
        bits = 10 if wanted is PixelFormatPolicy.YUV420P10 else 8
        found = formats.plain(facts.pixel_format, bits)
    hdr = facts.colour.transfer in HDR_TRANSFERS
    if found is not None and not (hdr and formats.matrix(facts.pixel_format, found, codec)):
        return found
    why = "Its pixel format is unknown, as in a file that was cut off."
    if facts.pixel_format:
        taken = f"{encoder_of(codec)} takes without losing something"
        why = f"The pixel format {facts.pixel_format} cannot become what {taken}."
    return Refuse(policy="video.pixel_format", detail=why)


def _target(profile: Profile, facts: VideoFacts, chosen: Pixels) -> VideoTarget:
    codec = profile.video.codec
    (width, height), aspect = _upright(facts), _aspect(facts)
    scale = _scaled(profile, facts)
    if scale is not None:
        (width, height), aspect = scale, Fraction(1)
    right, bottom = width % 2 * chosen.even[0], height % 2 * chosen.even[1]
    captions = facts.closed_captions and _carries_captions(profile)
    tone_map = _maps_tones(profile, facts)
    static_hdr = VIDEO_FORMATS[codec].static_hdr and not tone_map
    marked = facts.mastering_display is not None or facts.light_level is not None
    matrix = formats.matrix(facts.pixel_format, chosen, codec)
    full = chosen.family == "gbr" or formats.full_range(facts.pixel_format, facts.colour.range)
    full = full and not (tone_map or matrix)
    limit_range = full and not VIDEO_FORMATS[codec].described
    full = full and not limit_range
    target = VideoTarget(
        encoder=encoder_of(codec),
        codec=codec.value,
        width=width + right,
        height=height + bottom,
        pixel_format=formats.reported(chosen, codec, full=full),
        bit_depth=chosen.bits,
        sample_aspect=f"{aspect.numerator}:{aspect.denominator}",
        rotation=0,
        fit=", ".join(facts.shapes[: None if facts.one_aspect else 1]) if facts.becomes else "",
        scale=scale is not None,
        pad_right=right,
        pad_bottom=bottom,
        captions=captions if facts.closed_captions else None,
        tone_map=facts.colour.transfer if tone_map else "",
        colour=_target_colour(profile, facts, chosen, full=full, scaled=scale is not None),
        matrix=matrix,
        limit_range=limit_range,
        rate=constant_rate(profile, facts),
        mastering_display=facts.mastering_display if static_hdr else None,
        light_level=facts.light_level if static_hdr else None,
        unmark_hdr=marked and not static_hdr and not tone_map,
        tag=VIDEO_FORMATS[codec].tag,
    )
    return target.model_copy(update=_fields(profile, facts, captions=captions))


def _target_colour(
    profile: Profile, facts: VideoFacts, chosen: Pixels, *, full: bool, scaled: bool
) -> Colour:
    codec = profile.video.codec
    if not VIDEO_FORMATS[codec].described:
        return Colour()
    if _maps_tones(profile, facts) or formats.matrix(facts.pixel_format, chosen, codec):
        return SDR
    sited = codec in {VideoCodec.HEVC, VideoCodec.H264} and chosen.family == "420"
    sited = sited and "420" in facts.pixel_format and not scaled and not facts.becomes
    return _colour(facts.colour, full=full, sited=sited)


def constant_rate(profile: Profile, facts: VideoFacts) -> str:
    """Return the frame rate for a container that has one for the whole video; "" for other containers.

    It is the source's nominal rate, or for one of no use (ffprobe's finest tick) the next usual one.
    """
    if profile.container not in CONSTANT_RATE:
        return ""
    nominal, average = _nominal(facts), ratio(facts.average_rate)
    found = nominal or average or USUAL_RATES[1]
    if found > FASTEST or found.numerator > FINEST_RATE:
        found = next((each for each in USUAL_RATES if each >= average), USUAL_RATES[-1])
    if inverts_telecine(profile, facts):
        return film_rate(facts)
    twice = profile.video.deinterlace is DeinterlaceRate.FIELD and facts.interlaced
    return str(found * 2 if twice else found)


def uneven(facts: VideoFacts) -> bool:
    """Return whether the header shows that frames are shown at uneven times."""
    nominal, average = _nominal(facts), ratio(facts.average_rate)
    return bool(nominal and average) and abs(average / nominal - 1) > EVEN_SHARE


def _nominal(facts: VideoFacts) -> Fraction:
    """Return the nominal frames per second, 0 if unknown; cameras' AVCHD states the rate of its fields."""
    nominal, average = ratio(facts.nominal_rate), ratio(facts.average_rate)
    if not (average and facts.marked_interlaced):
        return nominal
    return nominal / 2 if abs(nominal / average / 2 - 1) <= EVEN_SHARE else nominal


def evened(profile: Profile, stream: Stream, track: TrackMeasure) -> str:
    """Return what becomes of times that only measuring shows to be uneven: a notice, or "" for nothing.

    A header says one rate also where frames are missing between others.
    """
    facts = stream.video
    found = constant_rate(profile, facts) if facts is not None else ""
    times = track.times
    if (
        facts is None
        or not found
        or uneven(facts)
        or facts.marked_interlaced
        or facts.interlaced
        or len(times) < 2
    ):
        return ""
    wanted = round((times[-1] - times[0]) * stream.tick * Fraction(found)) + 1
    if abs(wanted - len(times)) <= max(1, EVEN_SHARE * wanted):
        return ""
    return f"Stream {stream.index}: {uneven_words(found)}."


def uneven_words(found: str) -> str:
    """Return what becomes of uneven times, as a clause."""
    return (
        f"shown at uneven times; put at {float(Fraction(found)):.6g} frames per second, "
        "with frames repeated or left out"
    )


def _fields(profile: Profile, facts: VideoFacts, *, captions: bool) -> dict[str, object]:
    """Return what becomes of the fields of a video that is marked as interlaced."""
    if not facts.interlaced:
        return {"unmark_fields": facts.marked_interlaced}
    if inverts_telecine(profile, facts):
        order = facts.top_field_first if facts.seen_order else None
        return {"telecine": film_rate(facts), "top_field_first": order}
    every_field = profile.video.deinterlace is DeinterlaceRate.FIELD
    return {
        "deinterlace": True,
        # A frame of each field would say each caption twice.
        "field_rate": every_field and not captions,
        "top_field_first": facts.top_field_first if facts.seen_order else None,
    }


def inverts_telecine(profile: Profile, facts: VideoFacts) -> bool:
    """Return whether a telecine is to be inverted.

    Kept captions are spread over all frames, turned fields are columns, and 4:2:0 needs lines in fours.
    """
    captions = facts.closed_captions and _carries_captions(profile)
    able = profile.container is not Container.HLS and facts.height % 4 == 0
    upright = not facts.rotation and not facts.mirrored
    able = able and upright and not captions and not facts.becomes
    wanted = profile.video.invert_telecine and facts.telecined and facts.interlaced
    return wanted and able and bool(film_rate(facts))


def film_rate(facts: VideoFacts) -> str:
    """Return the frames per second that were telecined; "" if the video's rate is none of a telecine's."""
    average = ratio(facts.average_rate)
    telecined = Fraction(30000, 1001), Fraction(30)  # of 24000/1001 and of 24
    nearest = min(telecined, key=lambda each: abs(average - each))
    return str(nearest * 4 / 5) if abs(average / nearest - 1) <= EVEN_SHARE else ""


def _scaled(profile: Profile, facts: VideoFacts) -> tuple[int, int] | None:
    """Return the size after scaling, to square pixels, or None if the picture stays as it is.

    AVI has no sample aspect, and WebM holds the size shown in whole pixels.
    """
    wide, high = shown_size(facts)
    factor = Fraction(1)
    if profile.video.scales:
        box_wide, box_high = _box(profile, wide, high)
        factor = min(factor, box_wide / wide, box_high / high)
    inexact = profile.container is Container.WEBM and wide.denominator > 1
    square = profile.video.scales or inexact or profile.container is Container.AVI
    odd = profile.video.scales and any(side % 2 for side in _upright(facts))
    if not square or (factor == 1 and not odd and _aspect(facts) == 1):
        return None
    return _even(wide * factor), _even(high * factor)


def _box(profile: Profile, wide: Fraction, high: Fraction) -> tuple[int, int]:
    """Return the box in pixels, rotated by 90 degrees for a portrait picture."""
    box = profile.video.max_width or 0, profile.video.max_height or 0
    return (box[1], box[0]) if high > wide else box


def shown_size(facts: VideoFacts) -> tuple[Fraction, Fraction]:
    """Return the exact display size in square pixels, after rotation."""
    width, height = _upright(facts)
    return width * _aspect(facts), Fraction(height)


def _upright(facts: VideoFacts) -> tuple[int, int]:
    """Return the size of the picture as it is shown, without its bars."""
    turned = facts.rotation % 180 == 90
    size = (facts.height, facts.width) if turned else (facts.width, facts.height)
    return size[0] - 2 * facts.bars[0], size[1] - 2 * facts.bars[1]


def _aspect(facts: VideoFacts) -> Fraction:
    """Return the sample aspect ratio of the rotated picture."""
    aspect = ratio(facts.sample_aspect) or Fraction(1)
    return 1 / aspect if facts.rotation % 180 == 90 else aspect


def _even(size: Fraction) -> int:
    """Round a side in pixels to the nearest even number, at least SMALLEST."""
    return max(SMALLEST, round(size / 2) * 2)


def _colour(colour: Colour, *, full: bool, sited: bool) -> Colour:
    """Return the colour tags that are known; the chroma location where it is `sited`."""
    unknown = {"unknown", "unspecified", "reserved"}
    tags = {name: "" if word in unknown else word for name, word in colour.model_dump().items()}
    tags["range"] = "pc" if full else tags["range"]
    return Colour(**tags if sited else tags | {"chroma_location": ""})


def _keeps_dolby(profile: Profile, facts: VideoFacts) -> bool:
    """Return whether the encode keeps Dolby Vision metadata, true for each picture.

    That of films (8.1) says where between black bars the picture is, which turning or scaling would make
    wrong; phones (8.4) record without bars. libx265 takes 8.1 only with a mastering display. In AV1
    they become 10.1 and 10.4.
    """
    video, policies = profile.video, profile.policies
    wanted = (
        policies.dynamic_hdr == "keep"
        and policies.hdr == "keep"
        and video.codec in {VideoCodec.HEVC, VideoCodec.AV1}
        and video.encoder == (SOFTWARE,)
        and profile.container in {Container.SOURCE, Container.MP4, Container.MKV}
    )
    changed = facts.becomes, facts.retimed, facts.interlaced, *facts.bars
    odd = facts.width % 2, facts.height % 2, "420p10" not in facts.pixel_format
    altered = any((*changed, *odd))
    turned = facts.rotation or facts.mirrored or _scaled(profile, facts) is not None
    placed = facts.dolby_base != "hlg" and (turned or facts.mastering_display is None)
    return facts.dolby_writable and wanted and not altered and not placed


def _refused_dolby(facts: VideoFacts) -> Refuse | None:
    """Refuse Dolby Vision whose pictures are wrong without its metadata, whatever the policy."""
    if not facts.dolby_vision or facts.dolby_base:
        return None
    return Refuse(
        policy="policies.dynamic_hdr",
        detail=f"The picture carries {_dolby(facts)} without a base layer that shows true colours by "
        "itself, so its metadata cannot be left out.",
    )


def _lost_dolby(facts: VideoFacts) -> str:
    """Return Dolby Vision with its profile, and why the encode does not keep it."""
    why = "no encoder here writes"
    if facts.dolby_writable:
        why = "this profile does not keep"
    elif facts.dolby_profile in WRITTEN_DOLBY:
        why = "only ffmpeg 7.1 and later can write"
    return f"{_dolby(facts)}, which {why}"


def _dolby(facts: VideoFacts) -> str:
    profile = f" (profile {facts.dolby_profile})" if facts.dolby_profile else ""
    return f"Dolby Vision{profile}"


def _refused_hdr(profile: Profile, facts: VideoFacts) -> Refuse | None:
    """Refuse an HDR picture that the profile could not keep whole."""
    if facts.colour.transfer not in HDR_TRANSFERS or profile.policies.hdr == "convert":
        return None
    row = VIDEO_FORMATS[profile.video.codec]
    static = facts.mastering_display is not None or facts.light_level is not None
    if static and not row.static_hdr:
        return Refuse(
            policy="policies.hdr",
            detail=f"The picture is HDR10, whose mastering display {row.encoder} would not keep; set "
            "policies.hdr to convert to map its tones.",
        )
    if profile.video.pixel_format is PixelFormatPolicy.YUV420P:
        return Refuse(
            policy="video.pixel_format",
            detail="The picture is HDR, which 8 bits would show in bands; set "
            "video.pixel_format to keep.",
        )
    return None


def _maps_tones(profile: Profile, facts: VideoFacts) -> bool:
    """Return whether an HDR picture becomes SDR."""
    return facts.colour.transfer in HDR_TRANSFERS and profile.policies.hdr == "convert"
