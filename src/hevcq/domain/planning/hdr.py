"""Decide what becomes of HDR and of Dolby Vision metadata, and refuse what would be lost or untrue."""

from hevcq.domain.formats import SOFTWARE, VIDEO_FORMATS, Container, VideoCodec
from hevcq.domain.media.facts import WRITTEN_DOLBY, VideoFacts
from hevcq.domain.planning.encode_plan import Refuse
from hevcq.domain.profile import Profile
from hevcq.domain.profile_sections import PixelFormatPolicy

HDR_TRANSFERS = frozenset({"smpte2084", "arib-std-b67"})
LOST_HDR10_PLUS = "HDR10+ dynamic metadata, which encoders drop without a word"
UNMARKED_IN_MOV = Refuse(
    policy="policies.dynamic_hdr",
    detail="The picture carries Dolby Vision metadata, which ffmpeg does not mark in a MOV; set "
    "container to mp4 to keep it, or policies.dynamic_hdr to drop to encode without it.",
)


def keeps_dolby(profile: Profile, facts: VideoFacts, *, scaled: bool) -> bool:
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
    turned = facts.rotation or facts.mirrored or scaled
    placed = facts.dolby_base != "hlg" and (turned or facts.mastering_display is None)
    return facts.dolby_writable and wanted and not altered and not placed


def refused_dolby(facts: VideoFacts) -> Refuse | None:
    """Refuse Dolby Vision whose pictures are wrong without its metadata, whatever the policy."""
    if not facts.dolby_vision or facts.dolby_base:
        return None
    return Refuse(
        policy="policies.dynamic_hdr",
        detail=f"The picture carries {_dolby(facts)} without a base layer that shows true colours by "
        "itself, so its metadata cannot be left out.",
    )


def lost_dolby(facts: VideoFacts) -> str:
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


def refused_hdr(profile: Profile, facts: VideoFacts) -> Refuse | None:
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


def maps_tones(profile: Profile, facts: VideoFacts) -> bool:
    """Return whether an HDR picture becomes SDR."""
    return facts.colour.transfer in HDR_TRANSFERS and profile.policies.hdr == "convert"
