"""The clips whose quality is measured: pieces of real ones, and made ones of the classes that those lack.

Made ones are mostly real pictures with what their class is about (grain, fades, pans), encoded as such
videos are usually met; where the real clips are missing, those made of them are missing too.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from support.clips import MEDIA, ffmpeg

SECONDS = 8
"""Of most clips; some real ones are shorter."""
SMALL = "scale=-2:'min(360,ih)':flags=lanczos"
"""Fewer pictures of more kinds say more about a search than large ones."""
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


def filtered(
    name: str,
    kind: str,
    needs: str,
    graph: str,
    *options: object,
    begin: float = 0.0,
    seconds: float = SECONDS,
) -> QualityClip:
    """Return a piece of a real clip of at most 360 lines through a filter, encoded anew."""

    def make(origin: Path, to: Path) -> None:
        picture = ("-ss", begin, "-t", seconds, "-i", origin, "-map", "0:v:0", "-an")
        ffmpeg(*picture, "-vf", f"{SMALL},{graph}", "-fps_mode", "passthrough", *options, to)

    return QualityClip(name, kind, needs, make)


def cut(
    name: str, kind: str, needs: str, begin: float = 0.0, seconds: float = SECONDS
) -> QualityClip:
    """Return a piece of a real clip as it is, but for its size."""
    return filtered(name, kind, needs, "null", *x264(12), begin=begin, seconds=seconds)


def generated(name: str, kind: str, graph: str, *options: object) -> QualityClip:
    """Return a clip that ffmpeg generates."""
    picture = ("-f", "lavfi", "-i", graph, "-t", SECONDS)
    return QualityClip(name, kind, "", lambda _, to: ffmpeg(*picture, *options, to))


def mixed(name: str, seed: int, seconds: float, *options: object) -> QualityClip:
    """Return a film of many shots of the real clips, some with grain, dark or soft: no two parts are alike."""

    def make(origin: Path, to: Path) -> None:
        drawing = random.Random(seed)
        weights = [drawing.gammavariate(0.35, 1) + 1e-4 for _ in SHOTS]
        inputs, graphs, length = list[object](), list[str](), 0.0
        while length < seconds:
            ((clip, most),) = drawing.choices(list(SHOTS.items()), weights)
            shot = min(most - 0.2, max(0.8, drawing.lognormvariate(0, 0.6) * 5))
            begin, look = drawing.uniform(0, most - shot - 0.1), drawing.choice(LOOKS)
            graphs += [f"[{len(graphs)}:v:0]{FILLED},{look},setpts=PTS-STARTPTS[v{len(graphs)}]"]
            inputs += ["-ss", begin, "-t", shot, "-i", origin.with_name(clip)]
            length += shot
        shots = "".join(f"[v{number}]" for number in range(len(graphs)))
        graph = ";".join([*graphs, f"{shots}concat=n={len(graphs)}:v=1[film]"])
        ffmpeg(*inputs, "-filter_complex", graph, "-map", "[film]", "-r", 25, *options, to)

    return QualityClip(name, "mixed", BBB_480, make)


def x264(crf: int, *more: object) -> tuple[object, ...]:
    """Return the options of an ordinary H.264 video."""
    return (*X264, "-crf", crf, *more)


BBB_480, BBB_1080 = "bbb-480p24-30s.mp4", "bbb-1080p24-15s.mp4"
GOPRO, TRAFFIC = "gopro-480p30-tmcd-gpmd.mp4", "traffic-432p12.mp4"
PHONE, ANDROID = "phone-720p30.mp4", "android-720p30-rot180.mp4"
SHOTS = {
    BBB_480: 30, BBB_1080: 15.7, "bbb-720p25-5s.mp4": 5.3, ANDROID: 4.9, PHONE: 3.6, GOPRO: 12,
    "iphone-320p-rot90-mebx.mov": 4, "flir-portrait-vfr-bframes.mp4": 11.3,
    "nasa-2video-2audio-2sub.mp4": 16.5, TRAFFIC: 30,
}  # fmt: skip
"""The real clips of which shots are taken, with their seconds."""
FILLED = (
    "scale=384:216:force_original_aspect_ratio=increase,crop=384:216,setsar=1,fps=25,format=yuv420p"
)
LOOKS = ("null",) * 7 + (
    "noise=alls=10:allf=t",
    "eq=brightness=-0.25:contrast=0.6",
    "gblur=sigma=2",
)
_SCROLL = f"drawtext=textfile={TEXT}:fontsize=14:fontcolor=black:x=40:y=40-{{}}*t"
_POINTER = "drawbox=x=200+120*t:y=150+60*t:w=12:h=18:c=blue:t=fill"
MPEG2 = ("-c:v", "mpeg2video", "-pix_fmt", "yuv420p", "-g", 12, "-bf", 2)

CLIPS: tuple[QualityClip, ...] = (
    # As people have them.
    cut("bbb-opening.mp4", "animation", BBB_480),
    cut("bbb-middle.mp4", "animation", BBB_480, 10.42),
    cut("bbb-later.mp4", "animation", "bbb-720p25-5s.mp4"),
    cut("android.mp4", "phone", ANDROID),
    cut("phone.mp4", "phone", PHONE),
    cut("iphone.mov", "phone", "iphone-320p-rot90-mebx.mov"),
    cut("gopro.mp4", "action camera", GOPRO, 3),
    cut("gopro-later.mp4", "action camera", GOPRO, 8),
    cut("traffic.mp4", "people", TRAFFIC, 4.81),
    cut("traffic-later.mp4", "people", TRAFFIC, 19.21),
    cut("nasa.mp4", "low bit rate", "nasa-2video-2audio-2sub.mp4", 8.09),
    # Grain, as of a disc and as of a noisy camera in the dark.
    filtered("grain-12.mkv", "grain", BBB_480, "noise=alls=12:allf=t", *X264, "-b:v", "7M",
             begin=4),
    filtered("grain-20.mkv", "grain", TRAFFIC, "noise=alls=20:allf=t", *X264, "-b:v", "6M",
             begin=8),
    filtered("dark-noisy.mkv", "dark", GOPRO,
             "eq=brightness=-0.25:contrast=0.5,noise=alls=6:allf=t", *X264, "-b:v", "4M", begin=6),
    filtered("dark.mkv", "dark", "bbb-720p25-5s.mp4", "eq=brightness=-0.3:contrast=0.5",
             *x264(18)),
    filtered("fade.mkv", "dark", BBB_480,
             "fade=in:st=0:d=1.5,fade=out:st=6:d=1.5,eq=brightness=-0.1", *x264(18), begin=18),
    # Drawn, still, of a screen.
    filtered("cartoon.mp4", "cartoon", BBB_480, "edgedetect=mode=colormix:high=0.1:low=0.05",
             *x264(19), begin=20),
    filtered("cartoon-flat.mp4", "cartoon", "bbb-720p25-5s.mp4",
             "gblur=sigma=3,lutyuv=y=floor(val/24)*24+12:u=floor(val/12)*12+6:v=floor(val/12)*12+6",
             *x264(19)),
    generated("screen-scroll.mp4", "screen",
              f"color=c=white:s=640x360:r=30,{_SCROLL.format(90)}", *x264(20)),
    generated("screen-still.mp4", "screen",
              f"color=c=0xf0f0f0:s=640x360:r=30,{_SCROLL.format(0)},{_POINTER}", *x264(20)),
    filtered("slides.mp4", "static", TRAFFIC, "select=not(mod(n\\,12)),fps=12", *x264(18),
             begin=2),
    # Fast, and rich.
    filtered("pan.mp4", "sports", BBB_1080,
             "crop=480:270:x=(iw-ow)*(0.5+0.5*sin(2.5*t)):y=(ih-oh)/2", *x264(20), begin=6),
    filtered("shaken.mp4", "sports", ANDROID,
             "crop=480:270:x=(iw-ow)/2+75*sin(9*t):y=(ih-oh)/2+40*sin(13*t)", *x264(20)),
    filtered("mezzanine-prores.mov", "mezzanine", BBB_480, "format=yuv422p10le", "-c:v",
             "prores_ks", "-profile:v", 2, begin=16),
    filtered("camera-mjpeg.mov", "mezzanine", GOPRO, "format=yuvj420p", "-c:v",
             "mjpeg", "-q:v", 3, begin=2),
    # Older codecs.
    filtered("dvd.mkv", "disc", BBB_1080, "setsar=4/3", *MPEG2, "-b:v", "3M",
             begin=5),
    filtered("divx.avi", "old download", GOPRO, "null", "-c:v", "mpeg4", "-vtag", "DX50",
             "-b:v", "900k", begin=4),
    filtered("download.mp4", "low bit rate", TRAFFIC, "null", *X264, "-b:v", "250k",
             begin=12),
    # Longer ones, whose scenes differ.
    cut("bbb-whole.mp4", "film", BBB_480, seconds=30),
    cut("traffic-whole.mp4", "film", TRAFFIC, seconds=30),
    filtered("cuts.mkv", "film", BBB_480, "select=lt(mod(t\\,3)\\,1),setpts=N/24/TB",
             *x264(19), seconds=30),
    filtered("cuts-quick.mkv", "film", BBB_1080,
             "select=lt(mod(t\\,1)\\,0.5),setpts=N/24/TB", *x264(19), seconds=15),
    mixed("mixed-crf.mp4", 1, 90, *x264(20)),
    mixed("mixed-steady.mkv", 2, 75, *X264, "-b:v", "400k", "-maxrate", "600k", "-bufsize", "900k"),
    mixed("mixed-disc.mkv", 3, 120, *MPEG2, "-b:v", "1M"),
    mixed("mixed-divx.mkv", 4, 60, "-c:v", "mpeg4", "-b:v", "500k"),
    generated("zoom.mp4", "animation", "mandelbrot=s=640x360:rate=25:maxiter=300", *x264(18)),
    generated("noise.mp4", "grain",
              "gradients=s=640x360:r=25:speed=0.02,noise=alls=16:allf=t", *X264, "-b:v", "4M"),
)  # fmt: skip
