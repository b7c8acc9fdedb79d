"""The lock of placements, and the name that a data folder keeps."""

from pathlib import Path

import pytest

from hevcq.usecases.context import IDENTITY, data_folder_id


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"../../etc\n"])
def test_an_identity_that_cannot_be_one_is_made_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / IDENTITY).write_bytes(content)
    assert data_folder_id(tmp_path).isalnum()
