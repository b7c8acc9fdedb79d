"""Run the campaign in this process, which must have one thread only: it forks its workers."""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chaos.kills.places import Place

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]


def main() -> int:
    asked = _asked()
    with tempfile.TemporaryDirectory(prefix="hevcq-kills-") as name:
        campaign = _replaced if asked.replace else _real if asked.real else _stub
        counts, none_of = campaign(asked, Path(name))
        print(json.dumps(counts), flush=True)
        bad = [zero for zero in none_of if counts[zero]]
        if bad and not asked.replace:
            print((Path(name) / "log").read_text()[-20_000:], file=sys.stderr)
    return 1 if bad else 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.kills")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--stops", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--backend", choices=("embedded", "postgres", "aws"), default="embedded")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="end the kills after so many"
    )
    parser.add_argument("--crashes", type=int, default=0, help="of the PostgreSQL server")
    parser.add_argument("--real", action="store_true", help="real ffmpeg, killed and frozen itself")
    parser.add_argument("--replace", action="store_true", help="real commands on three machines")
    parser.add_argument("--sets", action="store_true", help="sets of files only, and their points")
    return parser.parse_args()


Counts = dict[str, Any]


def _stub(asked: argparse.Namespace, folder: Path) -> tuple[Counts, Sequence[str]]:
    from chaos.kills.campaign import Campaign
    from chaos.kills.tally import tally, zeros
    from chaos.kills.videos import PROFILES

    began = time.monotonic()
    with _place(asked, folder, PROFILES) as place:
        most_s = asked.minutes * 60
        campaign = Campaign(
            place,
            asked.kills,
            asked.stops,
            asked.seed,
            most_s,
            sets_only=asked.sets,
            crashes=asked.crashes,
        )
        campaign.run()
        counts = {"backend": asked.backend, "seed": asked.seed} | tally(campaign)
    return counts | {"seconds": round(time.monotonic() - began, 1)}, zeros(place)


def _real(asked: argparse.Namespace, folder: Path) -> tuple[Counts, Sequence[str]]:
    from chaos.kills.real import PROFILES, ZERO, RealKills

    began = time.monotonic()
    with _place(asked, folder, PROFILES) as place:
        counts = RealKills(place, asked.kills, asked.seed).run()
    head = {"backend": asked.backend, "seed": asked.seed}
    return head | counts | {"seconds": round(time.monotonic() - began, 1)}, ZERO


def _replaced(asked: argparse.Namespace, folder: Path) -> tuple[Counts, Sequence[str]]:
    from chaos.kills.replaced import ZERO, ReplaceKills
    from support.postgres import own_server

    began = time.monotonic()
    with own_server() as server:
        counts = ReplaceKills(folder, server, asked.kills, asked.crashes, asked.seed).run()
    return {"seed": asked.seed, **counts, "seconds": round(time.monotonic() - began, 1)}, ZERO


@contextmanager
def _place(asked: argparse.Namespace, folder: Path, profiles: Mapping) -> Iterator[Place]:
    from chaos.kills.places import Place
    from support.aws.emulator import Emulator
    from support.postgres import own_server

    with ExitStack() as stack:
        on_server = asked.backend == "postgres"
        server = stack.enter_context(own_server()) if on_server else None
        emulator = Emulator() if asked.backend == "aws" else None
        place = Place(folder, profiles, emulator=emulator, server=server)
        stack.callback(place.close)
        yield place


if __name__ == "__main__":
    sys.exit(main())
