"""One way to hash: in blocks, and stoppable between them."""

from __future__ import annotations

import hashlib
import io
import os

import pytest

from hevcq.util.hashing import READ_BYTES, sha256_bytes, sha256_file, sha256_stream


def test_a_file_is_hashed_in_blocks_and_checked_at_each(tmp_path):
    content = os.urandom(2 * READ_BYTES + 5)
    path = tmp_path / "video"
    path.write_bytes(content)
    checks = []

    assert sha256_file(path, lambda: checks.append(1)) == hashlib.sha256(content).hexdigest()
    assert len(checks) == 3


def test_a_stream_that_hands_out_little_at_a_time_is_hashed_whole():
    class Trickle(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 3))

    content = b"0123456789"

    assert sha256_stream(Trickle(content), lambda: None) == (sha256_bytes(content), 10)


def test_nothing_has_the_digest_of_nothing():
    empty = hashlib.sha256().hexdigest()

    assert sha256_bytes(b"") == empty
    assert sha256_stream(io.BytesIO(), lambda: None) == (empty, 0)


def test_what_the_check_raises_ends_the_reading(tmp_path):
    path = tmp_path / "video"
    path.write_bytes(b"x")

    def stop():
        raise InterruptedError

    with pytest.raises(InterruptedError):
        sha256_file(path, stop)
    with pytest.raises(FileNotFoundError):
        sha256_file(tmp_path / "none", lambda: None)
