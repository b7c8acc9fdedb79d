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
"""The colour tags of a picture that was tone-mapped, or converted from RGB."""
USUAL_RATES = tuple(
    Fraction(num, den)
    for num, den in ((24000, 1001), (24, 1), (25, 1), (30000, 1001), (30, 1), (50, 1), (60, 1))
)
"""Usual frame rates, in frames per second, for a video whose stated rate is implausible."""
FASTEST, FINEST_RATE = 120, 65_535
"""Largest plausible frame rate, and the largest numerator of one: MPEG-4 Part 2 stores it in 16 bits."""
EVEN_SHARE = 0.005
"""Relative difference of average and nominal rate that rounding and the last frame explain."""
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
    """Return the displayed size of a picture that is smaller than the box on both sides, else ""."""
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
    refused = _refuse_as_is(profile, facts) or Refuse.combine(
        _refuse_by_policy(profile, facts, stream.codec)
    )
    if refused is not None:
        return refused
    chosen = _pixel_format(profile, facts)
    if isinstance(chosen, Refuse):
        return chosen
    kept = ":".join(map(str, (*_shown_samples(facts), *facts.bars)))
    more = {
        "retimed": facts.retimed,
        "crop": kept if any(facts.bars) else "",
        "dolby_vision": facts.dolby_vision and _keeps_dolby(profile, facts),
    }
    return _target(profile, facts, chosen).model_copy(update=more)


def _refuse_as_is(profile: Profile, facts: VideoFacts) -> Refuse | None:
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
    if facts.becomes and not can_fit_sizes(facts):
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
    return _refuse_dolby(facts)


def can_fit_sizes(facts: VideoFacts) -> bool:
    """Return whether pictures of several shapes can be fitted into one: they have one pixel format."""
    same = all(other.endswith(f" {facts.pixel_format}") for other in facts.becomes.split(", "))
    return same and not facts.rotation and not facts.mirrored


def _refuse_by_policy(profile: Profile, facts: VideoFacts, codec: str) -> Iterator[Refuse]:
    """Refuse features that no encoder here preserves, unless the policy is drop (or convert)."""
    policies = profile.policies
    lost = facts.dolby_vision and not _keeps_dolby(profile, facts)
    dynamic = [_dolby_loss(facts)] * lost + [LOST_HDR10_PLUS] * facts.hdr10_plus
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
    refusal = _refuse_hdr(profile, facts)
    if refusal is not None:
        yield refusal
    if facts.interlaced and (facts.rotation or facts.mirrored):
        yield Refuse(
            policy="video",
            detail="The picture is interlaced and turned for display, so that its fields would be "
            "columns; take the rotation out of its header, or deinterlace it before.",
        )


def captions_become_text(profile: Profile, facts: VideoFacts) -> bool:
    """Return whether the captions inside this video become text tracks."""
    is_kept = profile.policies.closed_captions == "convert"
    return facts.closed_captions and is_kept and not _carries_captions(profile)


def _carries_captions(profile: Profile) -> bool:
    """Return whether the encoder writes captions into its pictures: libx265 of ffmpeg 5.1 does not."""
    is_kept = profile.policies.closed_captions == "convert"
    return is_kept and profile.video.codec is VideoCodec.H264


def _pixel_format(profile: Profile, facts: VideoFacts) -> Pixels | Refuse:
    policy, codec = profile.video.pixel_format, profile.video.codec
    if policy is PixelFormatPolicy.KEEP:
        pixels = formats.lossless_pixels(facts.pixel_format, codec)
    else:
        bits = 10 if policy is PixelFormatPolicy.YUV420P10 else 8
        pixels = formats.pixels_420(facts.pixel_format, bits)
    is_hdr = facts.colour.transfer in HDR_TRANSFERS
    if pixels and not (is_hdr and formats.rgb_matrix(facts.pixel_format, pixels, codec)):
        return pixels
    why = "Its pixel format is unknown, as in a file that was cut off."
    if facts.pixel_format:
        why = (
            f"The pixel format {facts.pixel_format} cannot become what {encoder_of(codec)} takes "
            "without losing something."
        )
    return Refuse(policy="video.pixel_format", detail=why)


def _target(profile: Profile, facts: VideoFacts, chosen: Pixels) -> VideoTarget:
    codec = profile.video.codec
    (width, height), aspect = _shown_samples(facts), _shown_aspect(facts)
    scale = _scaled_size(profile, facts)
    if scale is not None:
        (width, height), aspect = scale, Fraction(1)
    right, bottom = width % 2 * chosen.even[0], height % 2 * chosen.even[1]
    captions = facts.closed_captions and _carries_captions(profile)
    tone_map = _maps_tones(profile, facts)
    static_hdr = VIDEO_FORMATS[codec].static_hdr and not tone_map
    marked = facts.mastering_display is not None or facts.light_level is not None
    matrix = formats.rgb_matrix(facts.pixel_format, chosen, codec)
    full = chosen.family == "gbr" or formats.is_full_range(facts.pixel_format, facts.colour.range)
    full = full and not (tone_map or matrix)
    limit_range = full and not VIDEO_FORMATS[codec].described
    full = full and not limit_range
    target = VideoTarget(
        encoder=encoder_of(codec),
        codec=codec.value,
        width=width + right,
        height=height + bottom,
        pixel_format=formats.reported_pixel_format(chosen, codec, full=full),
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
    return target.model_copy(update=_field_handling(profile, facts, captions=captions))


def _target_colour(
    profile: Profile, facts: VideoFacts, chosen: Pixels, *, full: bool, scaled: bool
) -> Colour:
    codec = profile.video.codec
    if not VIDEO_FORMATS[codec].described:
        return Colour()
    if _maps_tones(profile, facts) or formats.rgb_matrix(facts.pixel_format, chosen, codec):
        return SDR
    sited = codec in {VideoCodec.HEVC, VideoCodec.H264} and chosen.family == "420"
    sited = sited and "420" in facts.pixel_format and not scaled and not facts.becomes
    return _known_colour(facts.colour, full=full, sited=sited)


def constant_rate(profile: Profile, facts: VideoFacts) -> str:
    """Return the frame rate for a container that stores one for the whole video; "" for other containers.

    It is the source's nominal rate. If that is implausible (such as ffprobe's finest tick), it is the
    next higher usual rate.
    """
    if profile.container not in CONSTANT_RATE:
        return ""
    nominal, average = _nominal(facts), ratio(facts.average_rate)
    rate = nominal or average or USUAL_RATES[1]
    if rate > FASTEST or rate.numerator > FINEST_RATE:
        rate = next((each for each in USUAL_RATES if each >= average), USUAL_RATES[-1])
    if inverts_telecine(profile, facts):
        return film_rate(facts)
    doubles = profile.video.deinterlace is DeinterlaceRate.FIELD and facts.interlaced
    return str(rate * 2 if doubles else rate)


def is_uneven(facts: VideoFacts) -> bool:
    """Return whether the header's average and nominal rates differ, so that frames come at uneven times."""
    nominal, average = _nominal(facts), ratio(facts.average_rate)
    return bool(nominal and average) and abs(average / nominal - 1) > EVEN_SHARE


def _nominal(facts: VideoFacts) -> Fraction:
    """Return the nominal frames per second, 0 if unknown. Camcorders' AVCHD states the field rate instead."""
    nominal, average = ratio(facts.nominal_rate), ratio(facts.average_rate)
    if not (average and facts.marked_interlaced):
        return nominal
    return nominal / 2 if abs(nominal / average / 2 - 1) <= EVEN_SHARE else nominal


def evening_notice(profile: Profile, stream: Stream, track: TrackMeasure) -> str:
    """Return the notice on uneven times that the header does not show, or "".

    A header states one rate even if frames are missing.
    """
    facts, times = stream.video, track.times
    if facts is None or is_uneven(facts) or facts.marked_interlaced or facts.interlaced:
        return ""
    rate = constant_rate(profile, facts)
    if not rate or len(times) < 2:
        return ""
    expected = round((times[-1] - times[0]) * stream.tick * Fraction(rate)) + 1
    if abs(expected - len(times)) <= max(1, EVEN_SHARE * expected):
        return ""
    return f"Stream {stream.index}: {evening_clause(rate)}."


def evening_clause(rate: str) -> str:
    """Return the clause that frames at uneven times are put at one rate."""
    return (
        f"shown at uneven times; put at {float(Fraction(rate)):.6g} frames per second, "
        "with frames repeated or left out"
    )


def _field_handling(profile: Profile, facts: VideoFacts, *, captions: bool) -> dict[str, object]:
    """Return the target's values for a video that is interlaced or marked so."""
    if not facts.interlaced:
        return {"unmark_fields": facts.marked_interlaced}
    if inverts_telecine(profile, facts):
        order = facts.top_field_first if facts.seen_order else None
        return {"telecine": film_rate(facts), "top_field_first": order}
    every_field = profile.video.deinterlace is DeinterlaceRate.FIELD
    return {
        "deinterlace": True,
        # A frame of each field would repeat each caption.
        "field_rate": every_field and not captions,
        "top_field_first": facts.top_field_first if facts.seen_order else None,
    }


def inverts_telecine(profile: Profile, facts: VideoFacts) -> bool:
    """Return whether to invert a telecine.

    Kept captions are spread over all frames, rotated fields are columns, and fields in 4:2:0 need a
    height divisible by four, so such videos are excluded.
    """
    captions = facts.closed_captions and _carries_captions(profile)
    is_upright = not facts.rotation and not facts.mirrored
    can_invert = profile.container is not Container.HLS and facts.height % 4 == 0
    can_invert = can_invert and is_upright and not captions and not facts.becomes
    requested = profile.video.invert_telecine and facts.telecined and facts.interlaced
    return requested and can_invert and bool(film_rate(facts))


def film_rate(facts: VideoFacts) -> str:
    """Return the film's frames per second before the telecine; "" if the video has another rate."""
    average = ratio(facts.average_rate)
    telecined = Fraction(30000, 1001), Fraction(30)  # of 24000/1001 and of 24
    nearest = min(telecined, key=lambda each: abs(average - each))
    return str(nearest * 4 / 5) if abs(average / nearest - 1) <= EVEN_SHARE else ""


def _scaled_size(profile: Profile, facts: VideoFacts) -> tuple[int, int] | None:
    """Return the size after scaling to square pixels, or None if the picture is not scaled.

    AVI stores no sample aspect, and WebM stores the displayed size in whole pixels.
    """
    wide, high = shown_size(facts)
    factor = Fraction(1)
    if profile.video.scales:
        box_wide, box_high = _box(profile, wide, high)
        factor = min(factor, box_wide / wide, box_high / high)
    inexact = profile.container is Container.WEBM and wide.denominator > 1
    square = profile.video.scales or inexact or profile.container is Container.AVI
    odd = profile.video.scales and any(side % 2 for side in _shown_samples(facts))
    if not square or (factor == 1 and not odd and _shown_aspect(facts) == 1):
        return None
    return _round_to_even(wide * factor), _round_to_even(high * factor)


def _box(profile: Profile, wide: Fraction, high: Fraction) -> tuple[int, int]:
    """Return the box in pixels, rotated by 90 degrees for a portrait picture."""
    box = profile.video.max_width or 0, profile.video.max_height or 0
    return (box[1], box[0]) if high > wide else box


def shown_size(facts: VideoFacts) -> tuple[Fraction, Fraction]:
    """Return the exact display size in square pixels, after rotation."""
    width, height = _shown_samples(facts)
    return width * _shown_aspect(facts), Fraction(height)


def _shown_samples(facts: VideoFacts) -> tuple[int, int]:
    """Return the size in samples after rotation, without black bars."""
    rotated = facts.rotation % 180 == 90
    size = (facts.height, facts.width) if rotated else (facts.width, facts.height)
    return size[0] - 2 * facts.bars[0], size[1] - 2 * facts.bars[1]


def _shown_aspect(facts: VideoFacts) -> Fraction:
    """Return the sample aspect ratio of the rotated picture."""
    aspect = ratio(facts.sample_aspect) or Fraction(1)
    return 1 / aspect if facts.rotation % 180 == 90 else aspect


def _round_to_even(size: Fraction) -> int:
    """Round a side in pixels to the nearest even number, at least SMALLEST."""
    return max(SMALLEST, round(size / 2) * 2)


def _known_colour(colour: Colour, *, full: bool, sited: bool) -> Colour:
    """Return the known colour tags; with the chroma location only if `sited`."""
    unknown = {"unknown", "unspecified", "reserved"}
    tags = {name: "" if word in unknown else word for name, word in colour.model_dump().items()}
    tags["range"] = "pc" if full else tags["range"]
    return Colour(**tags if sited else tags | {"chroma_location": ""})


def _keeps_dolby(profile: Profile, facts: VideoFacts) -> bool:
    """Return whether the encode keeps Dolby Vision metadata that stays true for each picture.

    The metadata of films (8.1) states the position of black bars, which rotation or scaling would make
    wrong; phones (8.4) record without bars. libx265 takes 8.1 only with a mastering display. In AV1
    the profiles become 10.1 and 10.4.
    """
    video, policies = profile.video, profile.policies
    can_write = (
        policies.dynamic_hdr == "keep"
        and policies.hdr == "keep"
        and video.codec in {VideoCodec.HEVC, VideoCodec.AV1}
        and video.encoder == (SOFTWARE,)
        and profile.container in {Container.SOURCE, Container.MP4, Container.MKV}
    )
    changed = facts.becomes, facts.retimed, facts.interlaced, *facts.bars
    odd = facts.width % 2, facts.height % 2, "420p10" not in facts.pixel_format
    altered = any((*changed, *odd))
    rotated = facts.rotation or facts.mirrored or _scaled_size(profile, facts) is not None
    is_invalid = facts.dolby_base != "hlg" and (rotated or facts.mastering_display is None)
    return facts.dolby_writable and can_write and not altered and not is_invalid


def _refuse_dolby(facts: VideoFacts) -> Refuse | None:
    """Refuse Dolby Vision without a usable base layer, whatever the policy."""
    if not facts.dolby_vision or facts.dolby_base:
        return None
    return Refuse(
        policy="policies.dynamic_hdr",
        detail=f"The picture carries {_dolby_name(facts)} without a base layer that shows true colours by "
        "itself, so its metadata cannot be left out.",
    )


def _dolby_loss(facts: VideoFacts) -> str:
    """Return the clause on which Dolby Vision the encode does not keep, and why."""
    why = "no encoder here writes"
    if facts.dolby_writable:
        why = "this profile does not keep"
    elif facts.dolby_profile in WRITTEN_DOLBY:
        why = "only ffmpeg 7.1 and later can write"
    return f"{_dolby_name(facts)}, which {why}"


def _dolby_name(facts: VideoFacts) -> str:
    profile = f" (profile {facts.dolby_profile})" if facts.dolby_profile else ""
    return f"Dolby Vision{profile}"


def _refuse_hdr(profile: Profile, facts: VideoFacts) -> Refuse | None:
    """Refuse an HDR picture that the profile cannot keep intact."""
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
