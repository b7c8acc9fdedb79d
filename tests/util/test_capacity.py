"""How many encodes a machine carries."""

from pathlib import Path

import pytest

from hevcq.util.capacity import (
    capacity,
    disk_shortage,
    max_source_bytes,
    usable_cores,
    usable_memory,
)

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
def test_cores_and_memory_bound_the_slots(cores, memory, slots, threads):
    found = capacity(cores=cores, memory=memory)

    assert (found.slots, found.threads) == (slots, threads)


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder


def test_a_containers_quota_bounds_the_cores(tmp_path):
    assert usable_cores(write(tmp_path, "cpu.max", "50000 100000\n")) == 0.5


@pytest.mark.parametrize("text", ["max 100000\n", "", "x y", "1 0", "900000000 100000"])
def test_no_quota_means_every_core_of_the_affinity(tmp_path, text):
    assert usable_cores(write(tmp_path, "cpu.max", text)) == usable_cores(tmp_path / "none")


def test_a_containers_limit_bounds_the_memory(tmp_path):
    assert usable_memory(write(tmp_path, "memory.max", f"{GIB}\n")) == GIB
    whole = usable_memory(tmp_path / "none")
    assert usable_memory(write(tmp_path, "memory.max", "max\n")) == whole
    assert whole > GIB // 4


@pytest.mark.parametrize("limited", ["", "system.slice", "system.slice/hevcq.service"])
def test_every_group_above_a_service_bounds_it(tmp_path, limited):
    """Without a container the limits lie in the groups that systemd makes, not in the root."""
    membership = write(tmp_path, "self", "0::/system.slice/hevcq.service\n") / "self"
    (tmp_path / "system.slice" / "hevcq.service").mkdir(parents=True)
    write(tmp_path / limited, "cpu.max", "25000 100000\n")
    write(tmp_path / limited, "memory.max", f"{GIB // 2}\n")

    assert usable_cores(tmp_path, membership) == 0.25
    assert usable_memory(tmp_path, membership) == GIB // 2


@pytest.mark.parametrize("text", ["", "0::/", "0::/../outside", "4:memory:/x", "no words"])
def test_an_unknown_control_group_keeps_the_limits_of_the_root(tmp_path, text):
    inside = tmp_path / "cgroup"
    (tmp_path / "outside").mkdir()
    inside.mkdir()
    write(tmp_path / "outside", "memory.max", "1\n")
    write(inside, "memory.max", f"{GIB // 2}\n")

    assert usable_memory(inside, write(tmp_path, "self", text) / "self") == GIB // 2


@pytest.mark.parametrize(
    ("free", "slots", "copied", "room"),
    [(9 * GIB, 2, False, 4 * GIB), (9 * GIB, 2, True, 2 * GIB), (GIB // 2, 1, False, 0)],
)
def test_scratch_is_shared_by_the_slots_and_by_sources_that_are_copied(free, slots, copied, room):
    assert max_source_bytes(free, keep=GIB, slots=slots, copied=copied) == room


def test_a_disk_with_less_than_must_stay_free_is_named():
    free = {"store": 5 * GIB, "scratch folder /s": GIB}

    assert disk_shortage(free, GIB) == ""
    said = disk_shortage(free, GIB + 1)
    assert said == "Low disk space: the scratch folder /s has less than 1024 MiB free."
