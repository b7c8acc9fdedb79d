"""The sparse file behind the local proxy."""

import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from hevcq.relay import SparseFile


def test_a_write_that_is_under_way_ends_before_its_file_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, write, sizes = SparseFile(tmp_path, 10), os.pwrite, list[int]()
    closing = threading.Thread(target=file.close)

    def closed_meanwhile(descriptor: int, content: bytes, at: int) -> int:
        closing.start()
        closing.join(0.2)
        sizes.append(
            os.fstat(descriptor).st_size
        )  # another file may have the number of a closed one
        return write(descriptor, content, at)

    monkeypatch.setattr(os, "pwrite", closed_meanwhile)
    with suppress(ValueError):
        file.read(0, 10, lambda start, end, put: put(start, bytes(end - start)))
    closing.join()

    assert sizes == [10]
