"""What the search, the workers and the shared side speak of: one video a job, one message a video."""

import hashlib
from functools import cached_property

from hevcq.domain.job import Source, Task
from hevcq.domain.profile import Profile, QueueNumbers, Video, VideoCodec
from hevcq.util.clock import Clock

BASE = 1_000_000.0
"""What every clock says: time does not move, deadlines come nearer (see `aged`)."""
VISIBILITY_S, HEARTBEAT_S, MAX_RECEIVES, MAX_FAILURES = 30, 10, 6, 2


class ProtocolProfile(Profile):
    """A profile whose revision is computed once: every attempt asks for it."""

    @cached_property
    def revision(self) -> str:
        return "0123456789ab"


PROFILE = ProtocolProfile(
    name="hevc",
    description="protocol",
    video=Video(codec=VideoCodec.HEVC, crf=28.0),
    queue=QueueNumbers(
        visibility_s=VISIBILITY_S,
        heartbeat_s=HEARTBEAT_S,
        max_receives=MAX_RECEIVES,
        max_failures=MAX_FAILURES,
        max_crashes=3,
        backoff_base_s=5.0,
        backoff_cap_s=10.0,
    ),
)
CONTENT = b"clip"
SOURCE = Source(bucket="uploads", key="TODO/all/a.mp4", version="v1", size=len(CONTENT))
TASK = Task(source=SOURCE, profile="hevc")
BODY = TASK.body()


class StillClock(Clock):
    """A clock that stands, `skew` seconds off the true time."""

    def __init__(self, skew: float = 0.0) -> None:
        self.skew = skew

    def now(self) -> float:
        return BASE + self.skew

    def monotonic(self) -> float:
        return BASE

    def wait(self, event, timeout_s: float) -> bool:
        raise AssertionError("nobody waits on the shared side")

    wait_on = wait


def content_of(fence: int) -> bytes:
    """Return the rendition's bytes as the attempt under this fence makes them."""
    return b"rendition %d" % fence


DIGESTS = {fence: hashlib.sha256(content_of(fence)).hexdigest() for fence in range(40)}
FENCES = {digest: fence for fence, digest in DIGESTS.items()}
