"""Run the campaign in this process, which must have one thread only: it forks its workers."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]


def main() -> int:
    from chaos.kills.campaign import Campaign, line

    parser = argparse.ArgumentParser(prog="python -m tests.chaos.kills")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--stops", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hevcq-kills-") as folder:
        counts = Campaign(Path(folder), asked.kills, asked.stops, asked.seed).run()
        print(line(counts), flush=True)
        zero = (
            "lost",
            "wrong",
            "double_published",
            "partial_visible",
            "stray_children",
            "temp_files",
        )
        bad = any(counts[name] for name in zero)
        if bad:
            print((Path(folder) / "log").read_text()[-6000:], file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
