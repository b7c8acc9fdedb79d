"""What a worker costs that has nothing to do: CPU of `hevcq worker` / wall, in per cent of a core.

Run as `python benchmarks/idle_bench.py [SECONDS]`. The worker serves every profile's queue, with
an empty data folder, and is only counted once it is idle.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measured import report

HEVCQ = str(Path(sys.executable).parent / "hevcq")
SETTLED_S = 3.0
"""From the first word of a worker to the end of its start."""


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process so far (Linux: fields 14 and 15 of /proc/PID/stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Measure, print, write, judge."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    with tempfile.TemporaryDirectory() as folder:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("HEVCQ_")}
        child = subprocess.Popen(
            [HEVCQ, "--data-dir", folder, "worker", "--workers", "2"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**kept, "HEVCQ_MIN_FREE_MIB": "1"},
        )
        assert child.stderr is not None
        child.stderr.readline()
        time.sleep(SETTLED_S)
        before, began = cpu_s(child.pid), time.monotonic()
        time.sleep(seconds)
        share = 100 * (cpu_s(child.pid) - before) / (time.monotonic() - began)
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=30)
        if child.returncode not in {0, 130}:
            raise SystemExit(f"The idle worker ended with exit code {child.returncode}.")
    figure = "idle worker, 2 slots, 3 queues: CPU, share of a core"
    return report("idle", [{"figure": figure, "value": share, "limit": 0.2, "unit": "%"}])


if __name__ == "__main__":
    sys.exit(main())
