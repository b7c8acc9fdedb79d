"""The crafted renditions and damaged sources that pass the gates wrongly: none should."""

import re
import struct
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.fidelity.ordinary import SHARED_FOLDER
from benchmarks.fidelity.trial import ENCODER, MAX_S, Figure, recipe, run_trial
from hevcq.domain.certificate import Outcome
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.planner import make_plan
from hevcq.errors import HevcqError
from hevcq.ports.encoder import EncodeRequest, VerifyRequest
from tests.support.avi import open_dml

SIZE, RATE, SECONDS = (320, 180), 25, 4
MADE = (
    f"testsrc2=size=640x360:rate={RATE}:duration={SECONDS},hue=s=0.4,eq=contrast=0.7,"
    "rotate=a=n/60:ow=320:oh=180,noise=alls=3"
)
"""A picture that moves as a whole, in muted colours, with fine detail."""
REAL = "bbb-480p24-30s.mp4"
_COPY = ("-map", "0", "-c", "copy")
_X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error")
_TIMES = ("-fps_mode", "passthrough", "-enc_time_base", "1:120000")


def _shown(frame: Callable[[int], int]) -> str:
    """Return the filter that shows another frame of the source, and keeps all times."""
    return "shuffleframes=" + " ".join(str(frame(number)) for number in range(RATE * SECONDS))


PICTURES = {
    "a black tail": "drawbox=c=black:t=fill:enable=gt(n\\,80)",
    "grey": "hue=s=0",
    "hue turned by 12 degrees": "hue=h=12",
    "matrix 601 taken for 709": "colormatrix=bt601:bt709",
    "7 % darker": "lutyuv=y=val-17",
    "half resolution": f"scale={SIZE[0] // 2}:{SIZE[1] // 2},scale={SIZE[0]}:{SIZE[1]}",
    "one frame dropped, another doubled": _shown(lambda n: n + (10 <= n < 70)),
    "neighbour doubled": _shown(lambda n: n - (n == 40)),
    "one black frame": "drawbox=c=black:t=fill:enable=eq(n\\,50)",
    "five black frames": "drawbox=c=black:t=fill:enable=between(n\\,50\\,54)",
}
"""Wrong pictures by the filter that makes them."""
LATE = {"sound 80 ms late": "0.08", "sound 30 ms late": "0.03"}
JITTER = "setts=pts=PTS+mod(N\\,2)*15/1000/TB:dts=DTS"


def ffmpeg(*arguments: object) -> None:
    """Run ffmpeg to make or spoil a file."""
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, timeout=MAX_S)


def make_source(folder: Path, real: Path | None) -> Path:
    """Make one source with two sounds, a font and a time of recording."""
    font = folder / "font.ttf"
    font.write_bytes(bytes(range(256)) * 16)
    target = folder / ("real.mkv" if real else "made.mkv")
    size = f"scale={SIZE[0]}:{SIZE[1]},setpts=N/{RATE}/TB"
    picture = ["-ss", 5, "-i", real] if real else ["-f", "lavfi", "-i", MADE]
    ffmpeg(
        *picture, "-f", "lavfi", "-i", f"sine=frequency=440:duration={SECONDS}",
        "-map", "0:v:0", "-map", "1:a", "-attach", font, "-metadata:s:t", "mimetype=font/ttf",
        "-metadata", "creation_time=2019-05-04T10:11:12Z", "-t", SECONDS,
        "-vf", size if real else "null", "-r", RATE, "-c:v", "libx264", "-preset", "veryfast",
        "-crf", 12, "-pix_fmt", "yuv420p", "-c:a", "aac", target,
    )  # fmt: skip
    return target


def spoilers(good: Path) -> dict[str, Callable[[Path], None]]:
    """Return each damage to a rendition by its name; called with where to write the spoilt copy."""

    def picture(graph: str) -> Callable[[Path], None]:
        return lambda to: ffmpeg("-i", good, *_COPY, *_X265, "-filter:v", graph, *_TIMES, to)

    def late(seconds: str) -> Callable[[Path], None]:
        other = ("-map", "0:v", "-map", "1:a", "-map", "0:t", "-c", "copy")
        return lambda to: ffmpeg("-i", good, "-itsoffset", seconds, "-i", good, *other, to)

    def zeroed(to: Path) -> None:
        content = bytearray(good.read_bytes())
        begin = content.find(bytes(range(256)) * 4)
        content[begin : begin + 1000] = bytes(1000)
        to.write_bytes(content)

    return {
        **{name: picture(graph) for name, graph in PICTURES.items()},
        **{name: late(seconds) for name, seconds in LATE.items()},
        "every second frame 15 ms off": lambda to: ffmpeg("-i", good, *_COPY, "-bsf:v", JITTER, to),
        "creation time lost": lambda to: ffmpeg(
            "-i", good, *_COPY, "-metadata", "creation_time=", to
        ),
        "a font with 1,000 bytes zeroed": zeroed,
    }


def judged(source: Path, folder: Path) -> tuple[VerifyRequest, str]:
    """Encode a source, and return what the gates are asked and what they say of the clean rendition."""
    stop, profile = threading.Event(), recipe("hevc")
    info = ENCODER.probe(str(source), stop=stop)
    plan = make_plan(profile, info)
    if not isinstance(plan, EncodePlan):
        raise TypeError(f"{source.name} is not encoded: {plan.detail}")
    measured = ENCODER.preflight(str(source), info, profile, stop=stop)
    size = source.stat().st_size
    request = EncodeRequest(
        profile=profile, plan=plan, info=info, location=str(source),
        output=folder / f"{source.stem}-good.{plan.extension}", duration_s=info.duration_s,
        source_size=size, max_seconds=MAX_S,
        measured=measured,
    )  # fmt: skip
    report = ENCODER.encode(request, on_progress=lambda _: None, stop=stop)
    asked = request.to_verify(report)
    return asked, verdict(asked)


def verdict(request: VerifyRequest) -> str:
    """Return why a rendition is refused, or "" if it passes."""
    try:
        gates = ENCODER.verify(request, on_progress=lambda _: None, stop=threading.Event())
    except HevcqError as error:
        return error.message
    last = gates[-1]
    return "" if last.outcome in {Outcome.PASSED, Outcome.OFF} else last.detail or last.outcome


def damaged_sources(folder: Path) -> dict[str, Path]:
    """Make sources of old containers that lost one frame or packet, and decode without a word."""
    makes = {
        "DIV3 AVI": ("div3.avi", "-c:v", "msmpeg4", "-tag:v", "DIV3", "-c:a", "mp2"),
        "MJPEG AVI": ("mjpeg.avi", "-c:v", "mjpeg", "-q:v", 4, "-pix_fmt", "yuvj420p", "-c:a", "mp2"),
        "WMV": ("video.wmv", "-c:v", "wmv2", "-b:v", "800k", "-c:a", "wmav2"),
    }  # fmt: skip
    made = {}
    for name, (file, *options) in makes.items():
        path = folder / file
        sound = ("-f", "lavfi", "-i", f"sine=duration={SECONDS}")
        ffmpeg("-f", "lavfi", "-i", MADE, *sound, *options, path)
        content = bytearray(path.read_bytes())
        begin, length = (_wmv_packet if file.endswith("wmv") else _avi_frame)(bytes(content), 20)
        content[begin : begin + length] = bytes(length)
        path.write_bytes(content)
        made[name] = path
    return made | {"Matroska": _matroska_hole(folder), "OpenDML AVI": _open_dml_hole(folder)}


def _matroska_hole(folder: Path) -> Path:
    """Overwrite a cluster that the Cues name by an empty element, which demuxers pass over."""
    path = folder / "hole.mkv"
    ffmpeg("-f", "lavfi", "-i", MADE, "-c:v", "libx264", "-preset", "ultrafast", "-g", 12,
           "-cluster_time_limit", 400, path)  # fmt: skip
    content = bytearray(path.read_bytes())
    begin, end = [found.start() for found in re.finditer(rb"\x1f\x43\xb6\x75", content)][3:5]
    content[begin:end] = b"\xec\x01" + (end - begin - 9).to_bytes(7, "big") + bytes(end - begin - 9)
    path.write_bytes(content)
    return path


def _open_dml_hole(folder: Path) -> Path:
    """Let a frame of the second part of an AVI be junk, which its own index still names."""
    plain, path = folder / "plain.avi", folder / "parts.avi"
    ffmpeg("-f", "lavfi", "-i", MADE, "-c:v", "mjpeg", "-q:v", 4, "-pix_fmt", "yuvj420p", plain)
    content = bytearray(open_dml(plain, path, 60).read_bytes())
    begin = content.index(b"00dc", content.index(b"AVIX") + 40_000)
    content[begin : begin + 4] = b"JUNK"
    path.write_bytes(content)
    return path


def _avi_frame(content: bytes, number: int) -> tuple[int, int]:
    at = content.find(b"movi")
    for _ in range(number + 1):
        at = content.find(b"00dc", at + 4)
    return at, 8 + int.from_bytes(content[at + 4 : at + 8], "little")


def _wmv_packet(content: bytes, number: int) -> tuple[int, int]:
    facts = content.find(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))
    data = content.find(bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c"))
    (size,) = struct.unpack_from("<I", content, facts + 92)
    return data + 50 + number * size, size


def figure(folder: Path, words: tuple[str, ...] = ()) -> Figure:
    """Let the gates judge each damage; print those that pass, and clean renditions that do not."""
    accepted = refused_clean = total = 0
    real = SHARED_FOLDER / REAL
    for source in [make_source(folder, None)] + [make_source(folder, real)] * real.is_file():
        asked, clean = judged(source, folder)
        if clean:
            refused_clean += 1
            print(f"{source.name}: a clean rendition is refused: {clean}")
        for name, spoil in spoilers(asked.output).items():
            if words and not any(word in name for word in words):
                continue
            target = folder / f"spoilt{asked.output.suffix}"
            target.unlink(missing_ok=True)
            spoil(target)
            total += 1
            if not verdict(replace(asked, output=target)):
                accepted += 1
                print(f"{source.name}: {name} passed")
    for name, path in damaged_sources(folder).items():
        if not words:
            total += 1
            trial = run_trial(path, recipe("hevc"), folder)
            if not trial.outcome.startswith("error:"):
                accepted += 1
                print(f"{name} without a frame: {trial.outcome}")
    met = accepted == 0 and refused_clean == 0
    return Figure("damages accepted", f"{accepted} of {total}", "0", met)
