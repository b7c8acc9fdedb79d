"""`python -m tests.chaos.sim`: a campaign, or one seed again.

--seed N             replay one world and print the end of its trace (--all prints all of it)
--lives N            run worlds until so many jobs have ended (default 100000)
--seconds S          or until so much time has passed (default 600)
--processes N        how many at once (default 2)
--first N            the first seed
--videos              every world has split videos or receivers
"""

import argparse

import chaos.sim
from chaos.sim.campaign import campaign, embedded_side, live
from chaos.sim.report import table


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
