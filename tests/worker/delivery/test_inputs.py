"""Digests of inputs: a lost lease ends the hashing, and what cannot be read is named."""

from unittest.mock import Mock

import pytest

from hevcq.errors import LeaseLost, SourceGone, SourceUnreadable, Unavailable
from hevcq.worker.scratch import sha256_file


def test_a_lost_lease_ends_the_hashing(tmp_path):
    path = tmp_path / "video"
    path.write_bytes(b"x")

    with pytest.raises(LeaseLost):
        sha256_file(path, Mock(side_effect=LeaseLost))


def test_what_cannot_be_hashed_is_named(tmp_path):
    with pytest.raises(SourceGone):
        sha256_file(tmp_path / "none", lambda: None)
    with pytest.raises(Unavailable):
        sha256_file(tmp_path / "none", lambda: None, missing=Unavailable)
    with pytest.raises(SourceUnreadable):
        sha256_file(tmp_path, lambda: None)
    with pytest.raises(Unavailable):
        sha256_file(tmp_path / ("n" * 300), lambda: None)
