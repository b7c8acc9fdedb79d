"""Run the campaign in this process, which must have one thread only: it forks its workers."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]


def main() -> int:
    asked = _asked()
    with tempfile.TemporaryDirectory(prefix="hevcq-kills-") as name:
        counts = _run(asked, Path(name))
        print(json.dumps(counts), flush=True)
        from chaos.kills.tally import ZERO

        bad = [zero for zero in ZERO if counts[zero]]
        if bad:
            print((Path(name) / "log").read_text()[-20_000:], file=sys.stderr)
    return 1 if bad else 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.kills")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--stops", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--backend", choices=("embedded", "aws"), default="embedded")
    parser.add_argument("--takeovers", type=int, default=10, help="measured at the end")
    return parser.parse_args()


def _run(asked: argparse.Namespace, folder: Path) -> dict[str, object]:
    from chaos.kills.campaign import Campaign
    from chaos.kills.films import PROFILES, VISIBILITY_S
    from chaos.kills.places import Emulator, Place
    from chaos.kills.tally import tally

    emulator = Emulator() if asked.backend == "aws" else None
    place = Place(folder, PROFILES, emulator=emulator)
    began = time.monotonic()
    try:
        campaign = Campaign(place, asked.kills, asked.stops, asked.seed)
        campaign.run()
        took = sorted(campaign.seconds_until_taken_over(asked.takeovers))
        counts = {"backend": asked.backend, "seed": asked.seed} | tally(campaign)
        if took:
            counts["taken_over_s_median"] = round(took[len(took) // 2], 3)
            counts["taken_over_s_most"] = round(took[-1], 3)
            counts["lease_s"] = VISIBILITY_S
        return counts | {"seconds": round(time.monotonic() - began, 1)}
    finally:
        place.close()


if __name__ == "__main__":
    sys.exit(main())
