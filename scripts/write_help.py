"""Write src/hevcq/cli/help.txt: what `hevcq --help` prints, stored so that it prints at once.

Run as `python scripts/write_help.py`; `--check` writes nothing and exits 1 when it is stale.
"""

from __future__ import annotations

import sys
from pathlib import Path

from typer.testing import CliRunner

from hevcq.cli.app import app

TARGET = Path(__file__).resolve().parent.parent / "src" / "hevcq" / "cli" / "help.txt"


def help_text() -> str:
    """Return the root help as the program makes it on a terminal of 80 columns."""
    result = CliRunner().invoke(app, ["--help"], prog_name="hevcq", env={"COLUMNS": "80"})
    if result.exit_code != 0:
        raise SystemExit(f"hevcq --help failed: {result.output}")
    return result.stdout


def main() -> int:
    """Write the file, or check it."""
    text = help_text()
    if "--check" in sys.argv[1:]:
        return 0 if TARGET.read_text(encoding="utf-8") == text else 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
