"""A worker that wakes up long after its lease publishes nothing once the job has gone on.

Found by the kill campaign: stopped just before it published, its lease over, it made its rendition
visible while the next holder of the job was still encoding, who then replaced it.
"""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from contracts.backends import source
from hevcq.domain.job import JobState, job_id
from hevcq.errors import StaleFence
from hevcq.ports.ledger import Granted
from hevcq.ports.queue import Selection
from hevcq.ports.store import Publication

LEASE_S = 60.0


def test_a_zombie_publishes_nothing_once_the_job_was_claimed_again(tmp_path: Path, opener, clock):
    backend = opener().backend
    name = job_id(source(), "hevc")
    early = backend.ledger.claim(source(), "hevc", owner="zombie", lease_s=LEASE_S)
    clock.advance(LEASE_S + 1)
    later = backend.ledger.claim(source(), "hevc", owner="alive", lease_s=LEASE_S)
    assert isinstance(early, Granted)
    assert isinstance(later, Granted)

    with pytest.raises(StaleFence):
        backend.store.publish(publication(tmp_path, name, early.fence, b"too late"))

    assert backend.store.stat("DONE/a") is None
    seen = backend.store.publish(publication(tmp_path, name, later.fence, b"in time"))
    assert backend.store.stat("DONE/a") == seen
    assert [seen.version] == [path.name for path in (tmp_path.rglob("objects/??/*/*"))]


def test_the_last_holder_may_publish_although_its_lease_is_over(tmp_path: Path, opener, clock):
    backend = opener().backend
    granted = backend.ledger.claim(source(), "hevc", owner="slow", lease_s=LEASE_S)
    assert isinstance(granted, Granted)
    clock.advance(LEASE_S + 1)

    name = job_id(source(), "hevc")
    backend.store.publish(publication(tmp_path, name, granted.fence, b"nobody else has it"))

    assert backend.store.stat("DONE/a") is not None


def publication(folder: Path, job: str, fence: int, content: bytes) -> Publication:
    file = folder / "encode"
    file.write_bytes(content)
    return Publication("DONE/a", file, hashlib.sha256(content).hexdigest(), job, fence)


def test_a_job_that_gets_done_takes_back_the_letter_that_the_queue_made_meanwhile(opener, clock):
    """Its message was received to the last while a worker still published: it needs nobody any more."""
    opened = opener()
    ledger, queue = opened.backend.ledger, opened.backend.queues["hevc"]
    slow, other = source("slow.mp4"), source("other.mp4")
    opened.backend.task_publisher.publish(slow, ["hevc"], announced=False)
    opened.backend.task_publisher.publish(other, ["hevc"], announced=False)
    claim = ledger.claim(slow, "hevc", owner="slow", lease_s=1e9)
    assert isinstance(claim, Granted)
    for _ in range(50):
        queue.receive(10, wait_s=0.0, stop=threading.Event())
        clock.advance(100_000.0)
    assert len(list(queue.dead_letters(Selection()))) == 2

    ledger.skip(job_id(slow, "hevc"), claim.fence, "not_smaller")

    (letter,) = queue.dead_letters(Selection())
    assert letter.task is not None
    assert letter.task.source == other, "nobody finished that one"
    assert ledger.get(job_id(slow, "hevc")).state is JobState.SKIPPED
