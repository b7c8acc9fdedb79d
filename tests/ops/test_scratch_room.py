"""The scratch folder's size is looked at before a worker takes anything."""

from __future__ import annotations

import shutil
from collections import namedtuple

import pytest

from hevcq.errors import WorkerUnfit
from hevcq.worker.handler import ProfileQueue
from hevcq.worker.pool import Numbers, WorkerPool
from hevcq.worker.signals import StopSignals
from hevcq.worker.slot import SlotOutcome
from support.fakes.farm import Farm

Usage = namedtuple("Usage", "total used free")
GIB = 1 << 30


def disk(monkeypatch: pytest.MonkeyPatch, *, total: int, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(total, total - free, free))


def pool_of(farm: Farm, slots: int = 2) -> WorkerPool:
    return WorkerPool(farm.context, [ProfileQueue(farm.profile, farm.queue)], Numbers(slots=slots))


def test_a_disk_on_which_no_work_could_ever_begin_takes_the_worker_out(tmp_path, monkeypatch):
    farm = Farm(tmp_path)
    farm.with_context(min_free_bytes=GIB)
    source = farm.submit()
    disk(monkeypatch, total=GIB // 2, free=GIB // 2)
    pool = pool_of(farm)

    assert pool.run(StopSignals()) is SlotOutcome.UNFIT
    assert isinstance(pool.error, WorkerUnfit)
    assert "has 512 MiB, and 1024 MiB must stay free (min_free_mib)" in str(pool.error)
    assert farm.record(source).fence == 0


def test_a_disk_that_is_only_full_now_does_not(tmp_path, monkeypatch):
    farm = Farm(tmp_path)
    farm.with_context(min_free_bytes=GIB)
    disk(monkeypatch, total=100 * GIB, free=GIB // 2)

    said = farm.context.describe_scratch_space(2)

    assert said.endswith("room for sources of up to 0 MiB in each of 2 slots.")


def test_what_there_is_room_for_is_said_in_one_sentence(tmp_path, monkeypatch):
    farm = Farm(tmp_path)
    farm.with_context(min_free_bytes=GIB)
    disk(monkeypatch, total=100 * GIB, free=9 * GIB)

    monkeypatch.setattr(farm.store, "free_bytes", lambda: 9 * GIB)
    linked = farm.context.describe_scratch_space(2)
    monkeypatch.setattr(farm.store, "free_bytes", lambda: None)
    copied = farm.context.describe_scratch_space(2)

    assert linked == (
        "The scratch folder has 9216 MiB free: "
        "room for sources of up to 4096 MiB in each of 2 slots."
    )
    assert "up to 2048 MiB" in copied
