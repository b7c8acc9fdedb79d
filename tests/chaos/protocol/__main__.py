"""`python -m tests.chaos.protocol`: the whole search, or one scope of it by name.

It prints a line for each scope; --all adds the scope of two jobs and three expiries, which takes
some ten GiB of memory.
"""

from __future__ import annotations

import argparse
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
    parser.add_argument("scope", nargs="?", help="the beginning of a scope's name")
    parser.add_argument("--all", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        embedded = SqliteShared(Path(folder))
        chosen = [(scope, MemoryShared()) for scope in (*LONG, *((HUGE,) if asked.all else ()))]
        for scope, shared in [*chosen, (SQLITE, embedded)]:
            if asked.scope and not scope.name.startswith(asked.scope):
                continue
            began = time.monotonic()
            print(search(scope, shared), f"; {time.monotonic() - began:.0f} s", flush=True)
        embedded.close()


if __name__ == "__main__":
    main()
