"""How long joined machines take for a long video, and what goes over their lines, against the bounds.

Run as root: `python benchmarks/house_bench.py [KIND [MACHINES [CHUNK_S [KILLS]]]]`, KIND being mp4 or mkv.
A farm and its joined machines live in network namespaces, each machine behind a line of 20 MB/s. Their
ffmpeg encodes tiny pictures no faster than SPEED, so that the farm's part is measured and not the cores
of this machine. With KILLS, machines are killed in the middle of a chunk, and start again.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measured import report

HEVCQ = str(Path(sys.executable).parent / "hevcq")
LINE = "160mbit"
SPEED, VIDEO_S = 2.5, 640
"""How fast a machine encodes, in seconds of video a second; and how long the video is."""
PROFILE = """\
name: long
description: the benchmark's
container: source
video: {{codec: hevc, preset: ultrafast, crf: 24, pixel_format: keep}}
audio: {{policy: copy}}
chunking: {{mode: always, target_s: {chunk_s}}}
"""
STAND_IN = """\
#!/bin/sh
# Encode a chunk like ffmpeg, but no faster than asked, and say that it began.
for last; do :; done
case $last in */made.*) ;; *) exec {ffmpeg} "$@";; esac
for word; do
  shift
  case $word in settb=*) word="$word,realtime=speed={speed}:limit=60";; esac
  set -- "$@" "$word"
done
echo began >> {log}
exec {ffmpeg} "$@"
"""
# Filler makes it as large as a video of larger pictures.
VIDEO = (
    f"ffmpeg -v error -f lavfi -i testsrc2=size=160x96:rate=24:duration={VIDEO_S}"
    f" -f lavfi -i sine=frequency=440:duration={VIDEO_S} -c:v libx264 -preset ultrafast -g 48"
    " -b:v 2500k -maxrate 2500k -bufsize 2500k -x264-params nal-hrd=cbr:force-cfr=1 -c:a aac"
).split()


def run(*words: str) -> str:
    """Run a command; return what it prints."""
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


class House:
    """A farm at 10.77.0.1 and its machines, in namespaces that end with it."""

    def __init__(self, folder: Path, machines: int, ending: ExitStack) -> None:
        self.folder, self.ending = folder, ending
        self.names = [f"hevcq{os.getpid()}-{number}" for number in range(machines + 1)]
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        for number, name in enumerate(self.names):
            self._connect(number, name)

    def _connect(self, number: int, name: str) -> None:
        """Make a namespace; a machine's is joined to the farm's bridge by its line."""
        home, line = self.names[0], f"line{number}"
        run("ip", "netns", "add", name)
        self.ending.callback(run, "ip", "netns", "del", name)
        run("ip", "-n", name, "link", "set", "lo", "up")
        if number == 0:
            run("ip", "-n", name, "link", "add", "house", "type", "bridge")
        else:
            ends = ["type", "veth", "peer", "name", line, "netns", home]
            run("ip", "-n", name, "link", "add", "house", *ends)
            run("ip", "-n", home, "link", "set", line, "master", "house", "up")
            for there, end in ((name, "house"), (home, line)):
                limit = ["rate", LINE, "burst", "256kb", "latency", "50ms"]
                run("tc", "-n", there, "qdisc", "add", "dev", end, "root", "tbf", *limit)
        run("ip", "-n", name, "addr", "add", f"10.77.0.{number + 1}/24", "dev", "house")
        run("ip", "-n", name, "link", "set", "house", "up")

    def hevcq(self, number: int, *words: str) -> list[str]:
        """Return a command on one of them; its settings are in the environment."""
        own = {"HOME": self.folder, "PATH": os.environ["PATH"], "HEVCQ_MIN_FREE_MIB": 1}
        own |= {"HEVCQ_DATA_DIR": self.folder / self.names[number], "HEVCQ_WORKERS": 1}
        if number == 0:
            own |= {"HEVCQ_WEB__HOST": "10.77.0.1", "HEVCQ_LOG_LEVEL": "info"}
            own |= {"HEVCQ_LOG_STYLE": "json", "HEVCQ_PROFILES_DIR": self.folder / "profiles"}
        else:
            own |= {"HEVCQ_FFMPEG": self.folder / "bin/ffmpeg", "HEVCQ_SANDBOX": "false"}
        settings = [f"{name}={value}" for name, value in own.items()]
        there = ["ip", "netns", "exec", self.names[number], "env", "-i", *settings]
        return [*there, HEVCQ, *words]

    def start(self, number: int, *words: str) -> None:
        name = self.names[number]
        with (self.folder / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                self.hevcq(number, *words), stdout=log, stderr=log, start_new_session=True
            )
        if number not in self.running:
            self.ending.callback(self.kill, number, signal.SIGTERM)
        self.running[number] = child

    def kill(self, number: int, by: signal.Signals) -> None:
        """End one of them, with its encodes."""
        with suppress(ProcessLookupError):
            os.killpg(self.running[number].pid, by)
        self.running[number].wait(60)

    def log(self, number: int) -> str:
        """Return what one of them said."""
        return (self.folder / f"{self.names[number]}.log").read_text()

    def said(self) -> list[dict[str, Any]]:
        """Return the farm's log."""
        return [json.loads(line) for line in self.log(0).splitlines() if line.startswith("{")]

    def carried(self) -> int:
        """Return the bytes that went over all lines both ways, as the farm's ends counted them."""
        found = json.loads(run("ip", "-n", self.names[0], "-s", "-j", "link"))
        ends = [each["stats64"] for each in found if each["ifname"].startswith("line")]
        return sum(each["rx"]["bytes"] + each["tx"]["bytes"] for each in ends)

    def times(self, event: str, part: str) -> list[float]:
        """Return when the farm logged this event of parts whose name begins so."""
        found = [each for each in self.said() if each["event"] == event]
        at = [each["timestamp"] for each in found if each.get("part", "").startswith(part)]
        return [datetime.fromisoformat(each).timestamp() for each in at]

    def begun(self) -> int:
        """Return how many encodes of chunks machines began."""
        log = self.folder / "encodes"
        return len(log.read_text().splitlines()) if log.exists() else 0


def wait_for(condition: Callable[[], object], seconds: float = 900.0) -> None:
    """Look at a condition until it is true."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise SystemExit("It did not end in time.")
        time.sleep(0.1)


def prepare(folder: Path, kind: str, chunk_s: float) -> Path:
    """Make the profile, the programs of the joined machines, and the video; return the video."""
    for name in ("bin", "library", "profiles"):
        (folder / name).mkdir()
    (folder / "profiles/long.yaml").write_text(PROFILE.format(chunk_s=chunk_s))
    stand_in, source = folder / "bin/ffmpeg", folder / f"library/long.{kind}"
    real = shutil.which("ffmpeg")
    stand_in.write_text(STAND_IN.format(speed=SPEED, log=folder / "encodes", ffmpeg=real))
    stand_in.chmod(0o755)
    (folder / "bin/ffprobe").symlink_to(str(shutil.which("ffprobe")))
    run(*VIDEO, str(source))
    return source


def measure(house: House, source: Path, machines: int, kills: int) -> list[dict[str, object]]:
    """Let the machines join and encode the video; return the figures."""
    house.start(0, "serve")
    wait_for(lambda: "10.77.0.1" in house.log(0))
    for number in range(1, machines + 1):
        line = run(*house.hevcq(0, "workers", "invite")).split()[-1]
        house.start(number, "worker", "--join", line)
    wait_for(lambda: len(house.times("machine_joined", "")) == machines)
    before = house.carried()
    run(*house.hevcq(0, "ingest", str(source.parent), "--profile", "long", "--no-wait"))
    for kill in range(1, kills + 1):
        wait_for(partial(lambda least: house.begun() > least, machines * kill))
        house.kill(kill, signal.SIGKILL)
        house.start(kill, "worker")
    wait_for(lambda: house.times("job_started", "Join"))
    lines = house.carried() - before
    began, ended = min(house.times("job_started", "Chunk")), max(house.times("part_done", ""))
    wait_for(lambda: any(each["event"] == "job_done" for each in house.said()))
    chunks = len(house.times("part_done", ""))
    run(*house.hevcq(0, "ingest", str(source.parent), "--profile", "long", "--collect-only"))
    made = next(each for each in source.parent.iterdir() if ".long." in each.name)
    bound_s = VIDEO_S / SPEED / machines
    return [
        {"figure": f"{chunks} chunks: makespan / bound ({bound_s:.0f} s)", "limit": 1.15}
        | {"value": (ended - began) / bound_s},
        {"figure": "bytes over the lines / (source + rendition)", "limit": 1.1}
        | {"value": lines / (source.stat().st_size + made.stat().st_size)},
        {"figure": f"encodes of chunks lost by {kills} kills", "limit": float(kills)}
        | {"value": float(house.begun() - chunks)},
    ]


def main() -> int:
    """Measure, print, write, judge."""
    given = sys.argv[1:]
    kind, machines, chunk_s, kills = [*given, *("mp4", "4", "60", "0")[len(given) :]]
    if os.geteuid() or not all(map(shutil.which, ("ip", "tc", "ffmpeg"))):
        print("skipped: it needs root, and ip and tc (iproute2), for namespaces and lines")
        return 0
    with ExitStack() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory()))
        source = prepare(folder, kind, float(chunk_s))
        house = House(folder, int(machines), ending)
        return report("house", measure(house, source, int(machines), int(kills)))


if __name__ == "__main__":
    sys.exit(main())
