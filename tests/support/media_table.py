"""What becomes of each sample clip, under each profile that comes with hevcq.

Words: `encoded` (and verified), `skip:<reason>`, `refused:<policy>`, `unreadable` (the probe says
why), `damaged` (planned, then found damaged by the pre-flight or by the encode itself).
"""

PROFILES = ("hevc", "720p", "1080p")
ENCODED = "encoded"
UNREADABLE = "unreadable"
DAMAGED = "damaged"
PLANNED = "encoded by make fidelity"
"""The suite only plans these: they are encoded as others are, or take long."""

_ALREADY = "skip:already_target"
_SMALL = "skip:smaller_than_box"
"""Streams already."""
_SOUND = "skip:no_video"

EXPECTED: dict[str, tuple[str, str, str]] = {
    "android-720p30-rot180.mp4": (PLANNED, PLANNED, PLANNED),
    "bbb-1080p24-15s.mp4": (PLANNED, PLANNED, PLANNED),
    "bbb-480p24-30s.mp4": (PLANNED, PLANNED, PLANNED),
    "bbb-720p25-5s.mp4": (PLANNED, PLANNED, PLANNED),
    "bbb-sar64_45-bpyramid.mp4": (ENCODED, PLANNED, PLANNED),  # shown at 1138x640
    "chapters-text-track.mp4": (ENCODED, PLANNED, PLANNED),
    "flir-portrait-vfr-bframes.mp4": (PLANNED, PLANNED, PLANNED),  # 1080x1440: as wide as the box
    "gopro-480p30-tmcd-gpmd.mp4": (PLANNED, PLANNED, PLANNED),
    "h264-high10-200x200.mp4": (ENCODED, PLANNED, PLANNED),
    "hevc-hdr10plus-phone-1080p.mp4": (_ALREADY, PLANNED, PLANNED),
    "iphone-320p-rot90-mebx.mov": (ENCODED, PLANNED, PLANNED),
    "iphone-hevc-dovi-editlist-mebx.mp4": (_ALREADY, PLANNED, PLANNED),
    "long-1080p30-6min-lowbitrate.mp4": (PLANNED, PLANNED, PLANNED),
    "made-audio-only.m4a": (_SOUND, _SOUND, _SOUND),
    "made-bitrot-480p24.mp4": (DAMAGED, _SMALL, _SMALL),
    "made-empty.mp4": (UNREADABLE, UNREADABLE, UNREADABLE),
    "made-h264-1080i25-tff.mp4": (PLANNED, PLANNED, PLANNED),
    "made-h264-10bit-hdr10-720p24.mkv": ("refused:policies.hdr", PLANNED, PLANNED),
    "made-h264-opengop-480p24.mkv": (PLANNED, PLANNED, PLANNED),
    "made-kitchen-sink.mkv": (ENCODED, PLANNED, PLANNED),
    "made-kitchen-sink.mp4": (ENCODED, PLANNED, PLANNED),
    "made-not-a-video.mp4": (UNREADABLE, UNREADABLE, UNREADABLE),
    "made-one-frame.mp4": (ENCODED, PLANNED, PLANNED),
    "made-pal-576p25-sar64_45.mkv": (PLANNED, PLANNED, PLANNED),
    "made-truncated60-moov-first.mp4": (DAMAGED, _SMALL, _SMALL),
    "made-truncated60-moov-last.mp4": (UNREADABLE, UNREADABLE, UNREADABLE),
    "made-truncated60.mkv": (DAMAGED, PLANNED, PLANNED),
    "made-vfr-gap-432p.mp4": (ENCODED, PLANNED, PLANNED),
    "nasa-2video-2audio-2sub.mp4": (ENCODED, PLANNED, PLANNED),
    "odd-321x241-yuv444.mp4": (ENCODED, PLANNED, PLANNED),
    "phone-720p-vfr-rot180.mp4": (PLANNED, PLANNED, _SMALL),
    "phone-720p30.mp4": (PLANNED, PLANNED, _SMALL),
    "sony-1080i50-avchd.mts": (ENCODED, PLANNED, PLANNED),
    "sub-ass.mkv": (ENCODED, PLANNED, PLANNED),
    "sub-pgs.mkv": (ENCODED, PLANNED, PLANNED),
    "sub-srt.mkv": (PLANNED, ENCODED, PLANNED),
    "traffic-432p12.mp4": (PLANNED, _SMALL, _SMALL),
}


def rows(*words: str) -> list[tuple[str, str]]:
    """Return (clip, profile) of every row whose expected outcome is one of `words`."""
    return [
        (clip, profile)
        for clip, outcomes in EXPECTED.items()
        for profile, outcome in zip(PROFILES, outcomes, strict=True)
        if outcome in words
    ]
