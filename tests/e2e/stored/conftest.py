"""A folder that the release 322190e left behind, unpacked anew for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.stored.stored_folder import StoredFolder


@pytest.fixture
def stored(tmp_path: Path) -> StoredFolder:
    return StoredFolder(tmp_path / "stored")
