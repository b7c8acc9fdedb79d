"""Choose the encoder's pixel format for a decoder's, without loss of bit depth.

The keys are the names that ffprobe reports; which of the values an encoder accepts is in
`domain.formats`. Formats that are not listed are refused: alpha, 14 and 16 bits, and any future format.
"""

from __future__ import annotations

from dataclasses import dataclass

from hevcq.domain.formats.video import VIDEO_FORMATS, VideoCodec

_SUBSAMPLING = {"420": (True, True), "422": (True, False), "444": (False, False)}


@dataclass(frozen=True, slots=True)
class Pixels:
    """An encoder's pixel format: family (420, 422, 444, gray, gbr) and bits per sample."""

    family: str
    bits: int

    @property
    def name(self) -> str:
        """ffmpeg's name of the pixel format."""
        base = {"gray": "gray", "gbr": "gbrp"}.get(self.family, f"yuv{self.family}p")
        if self.bits == 8:
            return base
        return f"{base}{self.bits}le"

    @property
    def even(self) -> tuple[bool, bool]:
        """Whether width and height must be even."""
        return _SUBSAMPLING.get(self.family, (False, False))


def _formats() -> dict[str, Pixels]:
    same = {
        "420": ["yuv420p", "yuvj420p", "nv12", "nv21", "yuv410p"],
        "422": ["yuv422p", "yuvj422p", "yuyv422", "uyvy422", "yvyu422", "nv16", "yuv411p"],
        "444": ["yuv444p", "yuvj444p", "yuv440p", "yuvj440p", "nv24", "nv42"],
        "gbr": ["gbrp", "rgb24", "bgr24", "0rgb", "rgb0", "0bgr", "bgr0"],
        "gray": ["gray"],
    }
    found = {name: Pixels(family, 8) for family, names in same.items() for name in names}
    for end in ("le", "be"):
        for family, base in (("420", "yuv420p"), ("422", "yuv422p"), ("444", "yuv444p"),
                             ("gbr", "gbrp"), ("gray", "gray")):  # fmt: skip
            found |= {f"{base}{bits}{end}": Pixels(family, bits) for bits in (10, 12)}
            found[f"{base}9{end}"] = Pixels(family, 10)
        found[f"p010{end}"] = Pixels("420", 10)
        found[f"p210{end}"] = Pixels("422", 10)
        found[f"p410{end}"] = Pixels("444", 10)
        found |= {f"yuv440p{bits}{end}": Pixels("444", bits) for bits in (10, 12)}
    return found


FORMATS = _formats()


def kept(source: str, codec: VideoCodec) -> Pixels | None:
    """Return the encoder's pixel format that holds `source` without loss, or None."""
    found = FORMATS.get(source)
    if found is None or found.bits > VIDEO_FORMATS[codec].depths.get(found.family, 0):
        return None
    return found


def plain(source: str) -> Pixels | None:
    """Return 8-bit 4:2:0 if `source` is YUV that can be converted to it, else None."""
    found = FORMATS.get(source)
    return Pixels("420", 8) if found is not None and found.family.isdigit() else None


def same_samples(source: str, target: str) -> bool:
    """Return whether the target holds the samples of the source: no fewer bits, and no less chroma."""
    before, after = FORMATS.get(source), FORMATS.get(target)
    if before is None or after is None:
        return before is after
    return (before.family, True) == (after.family, before.bits <= after.bits)


def full_range(source: str, colour_range: str) -> bool:
    """Return whether samples use the full range, by the tag or by the deprecated `yuvj` names."""
    return source.startswith("yuvj") or colour_range in {"pc", "jpeg", "full"}


def reported(chosen: Pixels, codec: VideoCodec, *, full: bool) -> str:
    """Return ffprobe's name for an encode in this pixel format; full range may have a `yuvj` name.

    libavcodec's H.264 decoder reports yuvj for 4:2:0, 4:2:2 and 4:4:4, its HEVC decoder for 4:2:0.
    """
    if full and chosen.bits == 8 and chosen.family in VIDEO_FORMATS[codec].legacy_range:
        return chosen.name.replace("yuv", "yuvj")
    return chosen.name
