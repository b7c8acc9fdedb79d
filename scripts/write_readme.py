"""Fill the generated parts of README.md: what is between `<!-- NAME -->` and `<!-- /NAME -->`.

NAME is `help` (the root help) or `exits` (the exit codes). A README without a pair of marks keeps
its text. Run as `python scripts/write_readme.py`; `--check` writes nothing, exits 1 when stale.
"""

import os
import subprocess
import sys
from pathlib import Path

from hevcq.cli.exit_codes import table

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "README.md"


def filled(readme: str) -> str:
    """Return the README with its generated parts up to date."""
    parts = {
        "help": f"```text\n{help_text().rstrip()}\n```",
        "exits": table(),
    }
    for name, content in parts.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        head, opened, rest = readme.partition(start)
        _, closed, tail = rest.partition(end)
        if opened and closed:
            readme = f"{head}{start}{content}\n{end}{tail}"
    return readme


def help_text() -> str:
    """Return what `hevcq --help` prints on a terminal of 80 columns."""
    command = [sys.executable, "-m", "hevcq", "--help"]
    environment = {**os.environ, "COLUMNS": "80"}
    return subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def main() -> int:
    """Write the file, or check it."""
    readme = TARGET.read_text(encoding="utf-8")
    text = filled(readme)
    if "--check" in sys.argv[1:]:
        return 0 if readme == text else 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
