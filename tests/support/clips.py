"""What every test may use: a clock that a test moves, real sample clips, and generated ones."""

import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hevcq.util.clock import Clock
from support.once import made_once

MEDIA = Path(__file__).resolve().parents[3] / "shared" / "media"
SPURIOUS_S = 1.0
PATIENCE_S = 30.0
"""Real seconds after which a wait that nobody ends is reported instead of hanging the suite."""
SLICE_S = 0.002


class ManualClock(Clock):
    """A clock that only moves when told to.

    `wait` blocks (in tiny real slices) until its event is set or another thread advanced virtual
    time past its end. With `auto=True` a wait advances virtual time by its timeout and returns at
    once: for tests of one thread. `waiting` is how many threads wait just now.
    """

    def __init__(self, start: float = 1_700_000_000.0, *, auto: bool = False) -> None:
        self.auto = auto
        self._lock = threading.Lock()
        self._wall = start
        self._monotonic = 1_000.0
        self.waiting = 0
        self._boot = 1

    def boot(self) -> str:
        return str(self._boot)

    def restart(self, off_s: float = 0.0) -> None:
        """Start the machine anew after `off_s` seconds: its uptime begins at 0."""
        with self._lock:
            self._boot += 1
            self._wall += off_s
            self._monotonic = 0.0

    def now(self) -> float:
        with self._lock:
            return self._wall

    def monotonic(self) -> float:
        with self._lock:
            return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move both times forward; waits whose end has passed return."""
        assert seconds >= 0, "time does not go back; use jump_wall"
        with self._lock:
            self._wall += seconds
            self._monotonic += seconds

    def jump_wall(self, seconds: float) -> None:
        """Step wall time alone, as an NTP correction does."""
        with self._lock:
            self._wall += seconds

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        if event.is_set():
            return True
        if self.auto:
            self.advance(max(0.0, timeout_s))
            return event.is_set()
        return self._until(timeout_s, lambda: event.wait(SLICE_S))

    def wait_on(self, condition: threading.Condition, timeout_s: float) -> bool:
        if self.auto:
            self.advance(max(0.0, timeout_s))
            return condition.wait(0)
        # Condition.wait misses a notify that comes just as a slice ends, so this wakes, as any
        # condition may, without a cause now and then, and the caller looks again.
        woken = time.monotonic() + SPURIOUS_S
        return self._until(timeout_s, lambda: condition.wait(SLICE_S) or time.monotonic() > woken)

    def until_waiting(self) -> None:
        """Return once a thread waits on this clock."""
        end = time.monotonic() + PATIENCE_S
        pause = threading.Event()
        while not self.waiting:
            assert time.monotonic() < end, "no thread waits"
            pause.wait(SLICE_S)

    def _until(self, timeout_s: float, happened) -> bool:
        end, patience = self.monotonic() + timeout_s, time.monotonic() + PATIENCE_S
        with self._lock:
            self.waiting += 1
        try:
            while self.monotonic() < end:
                if happened():
                    return True
                assert time.monotonic() < patience, "nobody moved the ManualClock"
            return False
        finally:
            with self._lock:
                self.waiting -= 1


def media_clip(name: str) -> Path:
    """Return a real sample clip, or skip the test saying that the samples are not here."""
    path = MEDIA / name
    if not path.is_file():
        pytest.skip(f"the sample clip {name} is not beside this checkout (../shared/media)")
    return path


def make_clip(folder: Path, **options: object) -> Path:
    """Generate a tiny clip in `folder` and return its path.

    Options: `name` ("clip.mp4"; its suffix picks the container), `seconds` (1), `size`
    ("160x120"), `rate` (25), `audio` (True), `codec` ("libx264"), `pixel_format` ("yuv420p"),
    `crf` (10, so that a re-encode can be smaller), `extra` (more output arguments). Equal clips
    are encoded once a run of the suite and copied.
    """
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    name = str(options.pop("name", "clip.mp4"))
    key = (*sorted((k, repr(v)) for k, v in options.items()), ("suffix", Path(name).suffix))
    made = made_once(key, lambda path: _encode(path, options), Path(name).suffix)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / name
    shutil.copyfile(made, target)
    return target


def ffmpeg(*arguments: object) -> None:
    """Run ffmpeg over whatever is there; its messages are in the error that it raises."""
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, timeout=240, capture_output=True)


def codec_of(location: Path | str) -> str:
    """Return the codec of a file's picture, by ffprobe."""
    asked = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries"]
    command = [*asked, "stream=codec_name", "-of", "csv=p=0", str(location)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _encode(target: Path, options: dict[str, object]) -> None:
    seconds, rate = options.get("seconds", 1), options.get("rate", 25)
    source = f"testsrc2=size={options.get('size', '160x120')}:rate={rate}:duration={seconds}"
    command = ["-f", "lavfi", "-i", source]
    if options.get("audio", True):
        command += ["-f", "lavfi", "-i", f"sine=frequency=440:duration={seconds}", "-c:a", "aac"]
    codec = str(options.get("codec", "libx264"))
    command += ["-c:v", codec, "-pix_fmt", str(options.get("pixel_format", "yuv420p"))]
    if codec in {"libx264", "libx265"}:
        command += ["-preset", "ultrafast", "-crf", str(options.get("crf", 10))]
    ffmpeg(*command, *options.get("extra", ()), target)


class WorkedClock(ManualClock):
    """A clock on which a worker works while others wait."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(auto=True)
        self._work = work

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        self._work()
        return super().wait(event, timeout_s)
