"""A dead letter, for the tests of what sends them back."""

import threading

from hevcq.domain.verdict import Bury, FailureClass
from hevcq.ports.backend import Backend

WHY = Bury(reason="broke", failure_class=FailureClass.ENCODER)


def bury(backend: Backend, key: str) -> str:
    """Upload, claim and bury a source of "hevc" in ledger and queue; return its job id."""
    source = backend.store.add_source(key, key.encode())
    (job,) = backend.task_publisher.publish(source, ["hevc"], announced=False)
    fence = backend.ledger.claim(source, "hevc", owner="w", lease_s=60).fence
    backend.ledger.bury(job.job_id, fence, "broke", FailureClass.ENCODER)
    (delivery,) = backend.queues["hevc"].receive(1, wait_s=0, stop=threading.Event())
    backend.queues["hevc"].bury(delivery, WHY)
    return job.job_id
