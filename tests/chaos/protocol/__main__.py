"""`python -m tests.chaos.protocol`: the whole search, or the scopes of one name.

It prints a line for each scope, with the time it took and the most memory so far. --all adds two
jobs and three expiries, and --said tells how far it is. --plain takes no two states for the same,
and needs several times as much of both.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import chaos.protocol
from chaos.protocol.scopes import HUGE, LONG, SQLITE
from chaos.protocol.search import search
from chaos.protocol.shared import MemoryShared, SqliteShared


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.protocol", description=chaos.protocol.__doc__
    )
    parser.add_argument("scope", nargs="?", default="", help="the beginning of a scope's name")
    parser.add_argument("--all", action="store_true", help="two jobs, three expiries as well")
    parser.add_argument("--plain", action="store_true", help="without the reductions")
    parser.add_argument("--said", action="store_true", help="a line for every step in depth")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        embedded = SqliteShared(Path(folder))
        chosen = [*LONG, *((HUGE,) if asked.all else ())]
        for scope, shared in [*((one, MemoryShared()) for one in chosen), (SQLITE, embedded)]:
            if not scope.name.startswith(asked.scope):
                continue
            began, cpu = time.monotonic(), time.process_time()
            said = report if asked.said else quiet
            found = search(scope, shared, reduced=not asked.plain, said=said)
            wall, cpu = time.monotonic() - began, time.process_time() - cpu
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"{found}; {wall:.0f} s, of CPU {cpu:.0f} s, {most:.0f} MiB", flush=True)
        embedded.close()


def report(line: str) -> None:
    print(line, flush=True)


def quiet(_line: str) -> None:
    """Nobody asked."""


if __name__ == "__main__":
    main()
