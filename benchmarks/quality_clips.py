"""The clips whose quality is measured: real ones, and made ones of the classes that those lack.

Real clips are cut at a key frame without encoding, so that their bytes are what a person has. Made
ones are real pictures with what their class is about (grain, fades, pans), encoded as such videos are
usually met; where the real clips are missing, those made of them are missing too.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.fidelity.spliced import ffmpeg
from benchmarks.measured import MEDIA

SECONDS = 4
X264 = ("-c:v", "libx264", "-preset", "medium", "-pix_fmt", "yuv420p", "-an")
TEXT = Path(__file__).resolve().parents[1] / "README.md"
"""What scrolls over the screen."""


@dataclass(frozen=True, slots=True)
class QualityClip:
    """A clip: its name, its class, the real clip that it needs, and what makes it of that."""

    name: str
    kind: str
    needs: str
    make: Callable[[Path, Path], None]
    is_sdr: bool = True
    """Whether VMAF is made for its pictures as they are: neither HDR nor fields."""

    def source(self, folder: Path) -> Path | None:
        """Make the clip in `folder` unless it is there; return None where its real clip is missing."""
        made = folder / self.name
        origin = MEDIA / self.needs
        if not made.is_file():
            if self.needs and not origin.is_file():
                return None
            partial = made.with_name(f"partial-{made.name}")
            self.make(origin, partial)
            partial.replace(made)
        return made


def cut(
    name: str,
    kind: str,
    needs: str,
    begin: float = 0.0,
    *,
    is_sdr: bool = True,
    coded: tuple[object, ...] = ("-c", "copy"),
) -> QualityClip:
    """Return a piece of a real clip, by default its packets copied."""

    def make(origin: Path, to: Path) -> None:
        ffmpeg("-ss", begin, "-i", origin, "-t", SECONDS, "-map", "0:v:0", *coded, to)

    return QualityClip(name, kind, needs, make, is_sdr)


def filtered(
    name: str, kind: str, needs: str, graph: str, *options: object, begin: float = 0.0
) -> QualityClip:
    """Return a piece of a real clip through a filter, encoded anew."""

    def make(origin: Path, to: Path) -> None:
        picture = ("-ss", begin, "-t", SECONDS, "-i", origin, "-map", "0:v:0", "-an")
        ffmpeg(*picture, "-vf", graph, "-fps_mode", "passthrough", *options, to)

    return QualityClip(name, kind, needs, make)


def generated(name: str, kind: str, graph: str, *options: object) -> QualityClip:
    """Return a clip that ffmpeg generates."""
    picture = ("-f", "lavfi", "-i", graph, "-t", SECONDS)
    return QualityClip(name, kind, "", lambda _, to: ffmpeg(*picture, *options, to))


def x264(crf: int, *more: object) -> tuple[object, ...]:
    """Return the options of an ordinary H.264 video."""
    return (*X264, "-crf", crf, *more)


BBB_480, BBB_1080 = "bbb-480p24-30s.mp4", "bbb-1080p24-15s.mp4"
GOPRO, TRAFFIC = "gopro-480p30-tmcd-gpmd.mp4", "traffic-432p12.mp4"
PHONE, ANDROID, FLIR = (
    "phone-720p30.mp4",
    "android-720p30-rot180.mp4",
    "flir-portrait-vfr-bframes.mp4",
)
_SCROLL = f"drawtext=textfile={TEXT}:fontsize=22:fontcolor=black:x=40:y=40-{{}}*t"
_POINTER = "drawbox=x=200+120*t:y=150+60*t:w=12:h=18:c=blue:t=fill"
MPEG2 = ("-c:v", "mpeg2video", "-pix_fmt", "yuv420p", "-g", 12, "-bf", 2)

CLIPS: tuple[QualityClip, ...] = (
    # As people have them.
    cut("bbb-opening-480p.mp4", "animation", BBB_480),
    cut("bbb-middle-480p.mp4", "animation", BBB_480, 10.42),
    cut("bbb-end-480p.mp4", "animation", BBB_480, 23.05),
    cut("bbb-720p.mp4", "animation", "bbb-720p25-5s.mp4"),
    cut("bbb-1080p.mp4", "animation", BBB_1080, 10.42),
    cut("android-720p.mp4", "phone", ANDROID),
    cut("phone-720p.mp4", "phone", PHONE),
    cut("phone-vfr-720p.mp4", "phone", "phone-720p-vfr-rot180.mp4"),
    cut("iphone-320p.mov", "phone", "iphone-320p-rot90-mebx.mov"),
    cut("portrait-1440p.mp4", "phone", FLIR, 5.3),
    cut("gopro-480p.mp4", "action camera", GOPRO, 3),
    cut("gopro-later-480p.mp4", "action camera", GOPRO, 8),
    cut("traffic-432p.mp4", "people", TRAFFIC, 4.81),
    cut("traffic-later-432p.mp4", "people", TRAFFIC, 19.21),
    cut("gap-432p.mp4", "people", "made-vfr-gap-432p.mp4"),
    cut("nasa-180p.mp4", "low bit rate", "nasa-2video-2audio-2sub.mp4", 8.09),
    cut("still-1080p.mp4", "static", "long-1080p30-6min-lowbitrate.mp4", 58.34),
    # Grain, as of a disc and as of a noisy camera in the dark.
    filtered("grain-8-480p.mkv", "grain", BBB_480, "noise=alls=8:allf=t", *X264, "-b:v", "6M",
             begin=14),
    filtered("grain-12-480p.mkv", "grain", BBB_480, "noise=alls=12:allf=t", *X264, "-b:v", "7M",
             begin=4),
    filtered("grain-20-480p.mkv", "grain", TRAFFIC, "noise=alls=20:allf=t", *X264, "-b:v", "6M",
             begin=8),
    filtered("grain-1080p.mkv", "grain", BBB_1080, "noise=alls=10:allf=t", *X264, "-b:v", "25M",
             begin=4),
    filtered("grain-grey-480p.mkv", "grain", GOPRO, "hue=s=0,noise=c0s=12:c0f=t", *X264, "-b:v",
             "6M"),
    filtered("dark-noisy-480p.mkv", "dark", GOPRO,
             "eq=brightness=-0.25:contrast=0.5,noise=alls=6:allf=t", *X264, "-b:v", "4M", begin=6),
    filtered("dark-720p.mkv", "dark", "bbb-720p25-5s.mp4", "eq=brightness=-0.3:contrast=0.5",
             *x264(18)),
    filtered("fade-480p.mkv", "dark", BBB_480,
             "fade=in:st=0:d=1.5,fade=out:st=2.5:d=1.5,eq=brightness=-0.1", *x264(18), begin=18),
    # Drawn, still, of a screen.
    filtered("cartoon-480p.mp4", "cartoon", BBB_480, "edgedetect=mode=colormix:high=0.1:low=0.05",
             *x264(19), begin=20),
    filtered("cartoon-flat-720p.mp4", "cartoon", "bbb-720p25-5s.mp4",
             "gblur=sigma=3,lutyuv=y=floor(val/24)*24+12:u=floor(val/12)*12+6:v=floor(val/12)*12+6",
             *x264(19)),
    generated("screen-scroll-720p.mp4", "screen",
              f"color=c=white:s=1280x720:r=30,{_SCROLL.format(90)}", *x264(20)),
    generated("screen-still-720p.mp4", "screen",
              f"color=c=0xf0f0f0:s=1280x720:r=30,{_SCROLL.format(0)},{_POINTER}", *x264(20)),
    filtered("slides-432p.mp4", "static", TRAFFIC, "select=not(mod(n\\,12)),fps=12", *x264(18),
             begin=2),
    # Fast, and rich.
    filtered("pan-480p.mp4", "sports", BBB_1080,
             "crop=854:480:x=(iw-ow)*(0.5+0.5*sin(2.5*t)):y=(ih-oh)/2", *x264(20), begin=6),
    filtered("shaken-480p.mp4", "sports", ANDROID,
             "crop=854:480:x=(iw-ow)/2+150*sin(9*t):y=(ih-oh)/2+90*sin(13*t)", *x264(20)),
    filtered("mezzanine-prores-480p.mov", "mezzanine", BBB_480, "format=yuv422p10le", "-c:v",
             "prores_ks", "-profile:v", 2, begin=16),
    filtered("mezzanine-intra-720p.mkv", "mezzanine", PHONE, "null", *X264, "-b:v", "50M", "-g", 1),
    filtered("camera-mjpeg-480p.mov", "mezzanine", GOPRO, "scale=640:480,format=yuvj420p", "-c:v",
             "mjpeg", "-q:v", 3, begin=2),
    # Older codecs.
    filtered("dvd-576p.mpg", "disc", BBB_1080, "scale=720:576,setsar=64/45", *MPEG2, "-b:v", "5M",
             begin=5),
    filtered("divx-480p.avi", "old download", GOPRO, "scale=640:480", "-c:v", "mpeg4", "-vtag", "DX50",
             "-b:v", "1200k", begin=4),
    filtered("download-360p.mp4", "low bit rate", TRAFFIC, "scale=640:360", *X264, "-b:v", "250k",
             begin=12),
    filtered("webcam-360p.mkv", "people", ANDROID, "scale=640:360,noise=alls=3:allf=t", *X264, "-b:v",
             "900k"),
    # Not for VMAF, which is neither made for HDR nor for fields.
    cut("hdr10-720p.mkv", "HDR", "made-h264-10bit-hdr10-720p24.mkv", is_sdr=False,
        coded=("-c:v", "libx265", "-crf", "8", "-x265-params", "log-level=error")),
    cut("interlaced-1080i.mp4", "fields", "made-h264-1080i25-tff.mp4", is_sdr=False),
)  # fmt: skip
