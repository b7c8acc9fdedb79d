"""Swaps without a wait for the disk: a killed process loses nothing of what its kernel was given.

What a power cut takes is shown elsewhere, on a disk that is modelled: tests/chaos/powercut.
"""

import os

import pytest


@pytest.fixture(autouse=True)
def _no_wait_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", os.fstat)
