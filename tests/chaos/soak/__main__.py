"""Soak one worker process; this one must have one thread only, for it forks the worker."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]


def main() -> int:
    from chaos.soak.run import Soak
    from chaos.soak.samples import report

    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak")
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--real", action="store_true", help="real encodes instead of a stub")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hevcq-soak-") as folder:
        samples = Soak(Path(folder), asked.minutes * 60, asked.real).run()
    told = report(samples)
    print(_table(told), file=sys.stderr)
    print(json.dumps(told), flush=True)
    return 0 if told["flat"] else 1


def _table(told: dict) -> str:
    rows = [f"{'figure':<14}{'first':>10}{'last':>10}{'grew':>10}{'bound':>10}"]
    for name, facts in told["figures"].items():
        word = "" if facts["flat"] else "  GREW"
        numbers = [facts[key] for key in ("before", "after", "grew", "bound")]
        rows.append(f"{name:<14}" + "".join(f"{number:>10}" for number in numbers) + word)
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
