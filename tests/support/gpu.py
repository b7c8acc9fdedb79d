"""A stand-in for an ffmpeg with graphics hardware: it maps hevc_nvenc to x265, and fails as drivers do.

Its mode is the text of the file `<program>.mode`: `trial:` or `job:` and one of MODES; jobs are told
from trials by the trial's size of picture. What it prints was recorded, or is quoted from issues.
"""

import sys
from pathlib import Path

DROPPED = ("-rc", "-cq", "-b", "-preset", "-tune", "-spatial-aq")
MODES: dict[str, tuple[str, ...]] = {
    "no device": ("[hevc_nvenc @ 0x55d0] [error] Cannot load libcuda.so.1",),
    "driver mismatch": (
        "[hevc_nvenc @ 0x55d0] [error] Driver does not support the required nvenc API version.",
        "[hevc_nvenc @ 0x55d0] [error] The minimum required Nvidia driver for nvenc is 530.41.03",
    ),
    "sessions": (
        "[hevc_nvenc @ 0x55d0] [error] OpenEncodeSessionEx failed: out of memory (10): (no details)",
        "[hevc_nvenc @ 0x55d0] [error] No capable devices found",
    ),
    "vanish": ("[hevc_nvenc @ 0x55d0] [error] EncodePicture failed!: generic error (20)",),
}

PROGRAM = """#!{python}
import os, pathlib, signal, sys
MODES, DROPPED = {modes!r}, {dropped!r}
args, mode = sys.argv[1:], pathlib.Path(sys.argv[0] + ".mode").read_text().strip()
hardware = "hevc_nvenc" in args
where, _, kind = mode.partition(":")
mine = hardware and where == ("trial" if "320x240" in " ".join(args) else "job")
if not mine:
    kind = ""
if kind in MODES:
    print("\\n".join(MODES[kind]), file=sys.stderr)
    sys.exit(1)
if kind == "hang":
    signal.pause()
if hardware:
    made, place = [], 0
    while place < len(args):
        word = args[place]
        if word.partition(":")[0] in DROPPED:
            place += 2
            continue
        if word == "hevc_nvenc":
            made += ["libx265", "-preset", "ultrafast", "-crf", "20", "-x265-params", "log-level=error"]
            if kind == "garbage":
                made += ["-filter:v", "negate"]
            if kind == "short":
                made += ["-frames:v", "5"]
        else:
            made.append("yuv420p10le" if word == "p010le" else word)
        place += 1
    args = made
os.execvp("ffmpeg", ["ffmpeg", *args])
"""


def gpu_ffmpeg(folder: Path, mode: str = "") -> str:
    """Write the program; return its path. Change its mode by `set_mode`."""
    path = folder / "ffmpeg-gpu"
    path.write_text(PROGRAM.format(python=sys.executable, modes=MODES, dropped=DROPPED))
    path.chmod(0o755)
    set_mode(str(path), mode)
    return str(path)


def set_mode(program: str, mode: str) -> None:
    """Let the program fail in another way from now on; "" for not at all."""
    Path(f"{program}.mode").write_text(mode)
