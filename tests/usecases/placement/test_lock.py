"""The lock of placements, and the name that a data folder keeps."""

from pathlib import Path

import pytest

from hevcq.errors import Unavailable
from hevcq.usecases.placement.lock import IDENTITY, data_folder_id, placement_lock


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"../../etc\n"])
def test_an_identity_that_cannot_be_one_is_made_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / IDENTITY).write_bytes(content)
    assert data_folder_id(tmp_path).isalnum()


def test_a_data_folder_that_is_a_file_is_reported_with_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.touch()
    lock = placement_lock(file)
    with pytest.raises(Unavailable, match="Cannot write to the data folder") as said:
        lock.__enter__()
    assert "--data-dir" in said.value.remedy
