"""Write docs/openapi.json from the code of the API.

Run as `python scripts/write_openapi.py`; `--check` writes nothing and exits 1 when stale.
"""

import json
import sys
from pathlib import Path

from hevcq.web.api.openapi import document

TARGET = Path(__file__).resolve().parent.parent / "docs" / "openapi.json"


def rendered() -> str:
    """Return the text of the file."""
    return json.dumps(document(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        sys.exit(TARGET.read_text(encoding="utf-8") != rendered())
    TARGET.write_text(rendered(), encoding="utf-8")
