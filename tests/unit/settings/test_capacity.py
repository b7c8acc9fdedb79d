"""How many encodes a machine carries."""

from __future__ import annotations

from pathlib import Path

import pytest

from hevcq.capacity import capacity, usable_cores, usable_memory

GIB = 1 << 30


@pytest.mark.parametrize(
    ("cores", "memory", "slots", "threads"),
    [
        (1, 64 * GIB, 1, 1),
        (2, 64 * GIB, 2, 1),
        (4, 64 * GIB, 2, 2),
        (16, 64 * GIB, 8, 2),
        (16, 5 * GIB, 2, 8),
        (16, GIB, 1, 16),
        (0.5, 64 * GIB, 1, 1),
        (3.5, 64 * GIB, 2, 1),
    ],
)
def test_cores_and_memory_bound_the_slots(cores: float, memory: int, slots: int, threads: int):
    found = capacity(cores=cores, memory=memory)

    assert (found.slots, found.threads) == (slots, threads)


def test_what_a_person_wants_is_not_second_guessed():
    found = capacity(5, cores=2, memory=GIB)

    assert (found.slots, found.threads) == (5, 1)


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder


def test_a_containers_quota_bounds_the_cores(tmp_path: Path):
    assert usable_cores(write(tmp_path, "cpu.max", "50000 100000\n")) == 0.5


@pytest.mark.parametrize("text", ["max 100000\n", "", "x y", "1 0", "900000000 100000"])
def test_no_quota_means_every_core_of_the_affinity(tmp_path: Path, text: str):
    assert usable_cores(write(tmp_path, "cpu.max", text)) == usable_cores(tmp_path / "none")


def test_a_containers_limit_bounds_the_memory(tmp_path: Path):
    assert usable_memory(write(tmp_path, "memory.max", f"{GIB}\n")) == GIB
    whole = usable_memory(tmp_path / "none")
    assert usable_memory(write(tmp_path, "memory.max", "max\n")) == whole
    assert whole > GIB // 4
