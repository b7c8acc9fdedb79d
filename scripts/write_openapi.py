"""Write docs/openapi.json from the code of the API."""

from __future__ import annotations

import json
from pathlib import Path

from hevcq.web.api.openapi import document

TARGET = Path(__file__).resolve().parent.parent / "docs" / "openapi.json"


def rendered() -> str:
    """Return the text of the file."""
    return json.dumps(document(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    TARGET.write_text(rendered(), encoding="utf-8")
