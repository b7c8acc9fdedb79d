"""`python -m tests.chaos.sim`: a campaign, or one seed again.

--seed N             replay one world and print the end of its trace (--all prints all of it)
--lives N            run worlds until so many jobs have ended (default 100000)
--seconds S          or until so much time has passed (default 600)
--processes N        how many at once (default 2)
--first N            the first seed
--videos              every world has split videos or receivers
"""

import argparse
from types import SimpleNamespace

import chaos.sim
from chaos.points import WAYS, points
from chaos.sim.campaign import campaign, embedded_side, live


def table(found: SimpleNamespace) -> str:
    """Return the figures, one a line."""
    stats, wall = found.stats, found.wall_s
    hours = stats.seconds / 3600
    known = set(points(*WAYS))
    missed = sorted(known - set(stats.points))
    unkilled = sorted(known - set(stats.killed_at))
    rows = [
        ("worlds", f"{stats.worlds:,}"),
        ("job lives", f"{stats.lives:,}"),
        ("scheduler steps", f"{stats.steps:,}"),
        ("wall seconds", f"{wall:.1f} with {found.processes} processes"),
        ("job lives a minute", f"{stats.lives / wall * 60:,.0f}"),
        ("simulated hours", f"{hours:,.0f}"),
        ("simulated hours per wall hour", f"{hours / wall * 3600:,.0f}"),
        ("ends", _counted(stats.ends)),
        ("faults", _counted(stats.faults)),
        ("calls by port", _counted(_by_port(stats.calls))),
        ("pool outcomes", _counted(stats.outcomes)),
        ("crash points passed", f"{len(stats.points)}; of {len(known)} never: {missed}"),
        ("crash points killed at", f"{len(stats.killed_at)}; of {len(known)} never: {unkilled}"),
    ]
    return "\n".join(f"{name:32} {value}" for name, value in rows)


def _counted(counter) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in counter.most_common())


def _by_port(calls) -> object:
    ports = type(calls)()
    for name, number in calls.items():
        ports[name.split(".")[0]] += number
    return ports


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.sim", description=chaos.sim.__doc__
    )
    parser.add_argument("--seed", type=int)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--lives", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--videos", action="store_true")
    asked = parser.parse_args()
    if asked.seed is None:
        found = campaign(
            first=asked.first,
            lives=asked.lives,
            seconds=asked.seconds,
            processes=asked.processes,
            videos=asked.videos,
        )
        print(table(found))
        return
    with embedded_side() as side:
        world = live(asked.seed, side, verbose=asked.all, videos=asked.videos)
    print("\n".join(world.sched.tail))
    print(f"trace hash {world.sched.trace_hash}, {world.sched.steps} steps")


if __name__ == "__main__":
    main()
