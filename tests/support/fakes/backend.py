"""The memory ports as one backend, and a proxy that fails any port's calls on command."""

from collections.abc import Callable, Mapping
from typing import Any

from hevcq.domain.profile import Container, Profile, VideoCodec
from hevcq.domain.profile_sections import VideoRecipe
from hevcq.errors import Unavailable
from hevcq.ports.backend import Backend
from hevcq.util.clock import Clock
from support.fakes.ledger import MemoryLedger
from support.fakes.queue import MemoryQueue
from support.fakes.store import MemoryStore
from support.fakes.task_publisher import MemoryTaskPublisher

HEVC = Profile(
    name="hevc", description="H.265 for tests", video=VideoRecipe(codec=VideoCodec.HEVC, crf=28.0)
)
HLS = Profile(
    name="hls",
    description="A set of files for tests",
    container=Container.HLS,
    video=VideoRecipe(codec=VideoCodec.H264, crf=22.0),
)


def memory_backend(clock: Clock, profiles: Mapping[str, Profile] | None = None) -> Backend:
    """Return a backend of memory fakes; its parts are MemoryQueue, MemoryLedger and so on."""
    wanted = profiles if profiles is not None else {HEVC.name: HEVC}
    queues = {name: MemoryQueue(name, clock, each.queue) for name, each in wanted.items()}
    ledger = MemoryLedger(clock)
    publisher = MemoryTaskPublisher(queues, ledger)
    return Backend("here", queues, ledger, MemoryStore(clock), publisher, lambda: None)


class Outage:
    """A hook of `Faulty` that gets no answer from the first `times` calls of one method."""

    def __init__(self, call: str, times: int) -> None:
        self.call, self.left = call, times

    def __call__(self, name: str) -> None:
        if name == self.call and self.left:
            self.left -= 1
            raise Unavailable(f"{name} got no answer.")


class Faulty:
    """Stands before a port: calls `before(name)` and `after(name)` around every method call.

    A hook that raises in `before` is a request that never arrived; one that raises in `after` is
    a reply that was lost: the call took effect and its caller cannot know.
    """

    def __init__(
        self,
        inner: Any,
        *,
        before: Callable[[str], None] = lambda _name: None,
        after: Callable[[str], None] = lambda _name: None,
    ) -> None:
        self._inner, self._before, self._after = inner, before, after

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not callable(value):
            return value

        def call(*args: Any, **named: Any) -> Any:
            self._before(name)
            result = value(*args, **named)
            self._after(name)
            return result

        return call
