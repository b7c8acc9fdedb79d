"""A shimmed moto server as a process of its own: `python tests/support/aws/serve.py`.

Prints its address as one line, then serves on 127.0.0.1 until its standard input is closed, so
that it cannot outlive whoever started it (`emulator.py` beside it).
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from support.aws import shims

    server, address = shims.serve()
    print(address, flush=True)
    sys.stdin.read()
    server.stop()
