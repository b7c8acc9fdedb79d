"""Write src/hevcq/cli/help.txt: what `hevcq --help` prints, stored so that it prints at once.

Run as `python scripts/write_help.py`; `--check` writes nothing and exits 1 when it is stale.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path

from hevcq.cli.app import run

TARGET = Path(__file__).resolve().parent.parent / "src" / "hevcq" / "cli" / "help.txt"


def help_text() -> str:
    """Return the root help as the program makes it on a terminal of 80 columns."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "80"
    try:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            code = run(["--help"])
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    if code != 0:
        raise SystemExit(f"hevcq --help failed: {out.getvalue()}")
    return out.getvalue()


def main() -> int:
    """Write the file, or check it."""
    text = help_text()
    if "--check" in sys.argv[1:]:
        return 0 if TARGET.read_text(encoding="utf-8") == text else 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
