"""Model the messages between a farm and a joined machine: orders, progress and results.

A joined machine has no access to the farm's database or files. It receives an order, reads its source and
returns one file, which the farm checks by every gate.
"""

import re
from typing import Annotated

from pydantic import Field

from hevcq.domain.chunking import ChunkPlan
from hevcq.domain.media.facts import Measurement, MediaInfo
from hevcq.domain.model import Amount, Count, Frozen, MachineLoad
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.profile import Profile

SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")
MAX_LINES = 10_000
"""Most arguments, messages or notices that the farm accepts of one encode."""
Ticks = Annotated[int, Field(gt=-1 << 62, lt=1 << 62)]
"""A picture's timestamp as a machine reports it, within what a database can hold."""


class OrderedWork(Frozen):
    """What to encode: a request of ports.encoder without its paths.

    `source_tag` identifies the served version of the source. `chunk` is the number of one of `chunks`;
    both are None for a whole video.
    """

    plan: EncodePlan
    info: MediaInfo
    measured: Measurement
    duration_s: float | None
    source_size: int = Field(ge=0, description="bytes")
    source_tag: str
    suffix: str = Field(default="", pattern=rf"^({SUFFIX.pattern})?$")
    max_seconds: float
    chunks: ChunkPlan | None = None
    chunk: int | None = None

    @property
    def share(self) -> float:
        """The share of the source's frames to encode."""
        if self.chunks is None or self.chunk is None:
            return 1.0
        return self.chunks.chunks[self.chunk].frames / self.chunks.frames


class Order(Frozen):
    """Work for a joined machine; without `work`, a test whether it can encode the profile."""

    order_id: str = Field(pattern=r"^[0-9a-f]{16}$")
    profile: Profile
    work: OrderedWork | None = None


class MachineFacts(MachineLoad):
    """What a joined machine reports about itself.

    `build` is a digest of all that its ffmpeg reports; `start` differs from one start to the next.
    """

    version: str = Field(max_length=64)
    ffmpeg: str = Field(max_length=500)
    build: str = Field(max_length=64)
    start: str = Field(max_length=64)
    slots: int = Field(ge=1, le=64)
    cores: Amount = 0.0


class OrderProgress(MachineLoad):
    """Progress of an order with the fields of ports.encoder.EncodeProgress, and the machine's load."""

    fraction: float = Field(ge=0, le=1)
    out_time_s: Amount
    frame: Count
    speed: Amount | None
    size: Count


class MadeReport(Frozen):
    """The EncodeReport of ports.encoder for an encode or a chunk, without paths."""

    arguments: tuple[str, ...] = Field(max_length=MAX_LINES)
    seconds: Amount
    cpu_s: Amount
    stderr: tuple[str, ...] = Field(max_length=MAX_LINES)
    frames: Count
    notices: tuple[str, ...] = Field(default=(), max_length=MAX_LINES)
    first_pts: Ticks = 0
    last_pts: Ticks = 0


class OrderEnd(Frozen):
    """The end of an order: the result, or why there is none; `stopped` if the machine was stopped."""

    report: MadeReport | None = None
    size: int = Field(default=0, ge=0, description="bytes")
    sha256: str = Field(default="", max_length=64)
    reason: str = Field(default="", max_length=4000)
    stopped: bool = False


class Greeting(MachineFacts):
    """What a machine sends with its invitation: its facts and the name it requests."""

    name: str = Field(min_length=1, max_length=255)


class Joined(Frozen):
    """The answer to an invitation, which is valid once."""

    name: str
    token: str


class OrderHeld(Frozen):
    """Whether an order is suspended because its job is."""

    held: bool
