"""Values and verbs that the contract suites of the queue share."""

import threading

from contracts.backends import World
from hevcq.domain.verdict import Bury, FailureClass
from hevcq.ports.queue import Delivery

DAMAGED = Bury(reason="it is damaged", failure_class=FailureClass.DAMAGED, tail=("line 1", "é 2"))


def take(world: World, limit: int = 10, *, queue: str = "hevc") -> list[Delivery]:
    return world.backend.queues[queue].receive(limit, wait_s=0, stop=threading.Event())


def one(world: World) -> Delivery:
    (delivery,) = take(world)
    return delivery
