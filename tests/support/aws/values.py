"""Values and verbs that the tests of the queue on AWS share."""

import threading
from pathlib import Path

from hevcq.domain.job import Source, Task
from hevcq.domain.verdict import Bury, FailureClass
from hevcq.ports.queue import DeadLetter, Delivery, Queue
from hevcq.ports.store import Store

DAMAGED = Bury(reason="it is damaged é", failure_class=FailureClass.DAMAGED, tail=("last line",))


def task(number: int = 0, *, group: str = "") -> Task:
    source = Source(bucket="uploads", key=f"TODO/all/{number}.mp4", version="v", size=1)
    return Task(source=source, profile="hevc", group=group)


def take(queue: Queue, limit: int = 10) -> list[Delivery]:
    return queue.receive(limit, wait_s=0, stop=threading.Event())


def one(queue: Queue) -> Delivery:
    (delivery,) = take(queue)
    return delivery


def letters(queue: Queue) -> list[DeadLetter]:
    return list(queue.dead_letters())


def accept(store: Store, path: Path, key: str = "TODO/all/a.mp4", **more) -> Source:
    """Upload a file; `more` takes the place of a stop that never comes and of nobody told."""
    return store.accept(path, key, **{"moved": lambda _n: None, "stop": threading.Event(), **more})


class NoCatalog:
    """Knows no file of this machine."""

    def placement(self, _job_id: str) -> None:
        return None


def put(farm, key: str) -> None:
    """Upload a clip as a person does, whose event is announced."""
    farm.clients.s3.put_object(Bucket="uploads", Key=key, Body=b"clip of " + key.encode())


def open_parts(farm, *buckets: str) -> list[str]:
    found = []
    for bucket in buckets or ("uploads", "out"):
        answer = farm.clients.s3.list_multipart_uploads(Bucket=bucket)
        found += [upload["Key"] for upload in answer.get("Uploads", [])]
    return found


def bury_many(queue: Queue, count: int) -> None:
    queue.send([task(number) for number in range(count)])
    while found := take(queue):
        for delivery in found:
            queue.bury(delivery, DAMAGED)
