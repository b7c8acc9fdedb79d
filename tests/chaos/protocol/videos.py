"""One job as a plain value, and the real records that it is made into."""

from typing import NamedTuple

from chaos.protocol.values import BASE, DIGESTS, FENCES, SOURCE, TASK
from hevcq.domain.job import JobRecord, JobState, RenditionRef
from hevcq.domain.verdict import FailureClass

KEY, JOB, LONG_PAST_S = "DONE/hevc/a.mp4", TASK.job_id, -40.0
GONE = "gone"
"""The owner whose process was killed: its name is never used again."""


class Message(NamedTuple):
    """`hidden_s` until it is visible; `held` whether its last receipt is good.

    `beside` whether it was received for the last time while somebody held its job.
    """

    hidden_s: float
    attempts: int
    held: bool
    beside: bool = False


class Record(NamedTuple):
    """What of a JobRecord decides anything; `made` is the fence of its rendition.

    Of its doubts only decides whether there was one (`suspected_worker_fault`).
    """

    state: str
    fence: int
    failures: int
    crashes: int
    owner: str
    lease_s: float
    failure_class: str
    made: int
    suspected_worker_fault: bool = False


class Video(NamedTuple):
    """One job: its only message, its record, the fence under which the visible rendition was made
    (0: none), and the classes of its dead letters."""

    message: Message | None
    record: Record
    visible: int
    letters: tuple[str, ...]


BESIDE = "given up beside a holder"
"""The class of a letter that the queue made of a message whose job was held when it was last seen."""


def classes_of(video: Video) -> set[str]:
    """Return the classes that a video's letters have in the queue."""
    return {"receives" if one == BESIDE else one for one in video.letters}


def spent_beside(before: Video, attempts: int, most: int, record: Record) -> bool:
    """Return whether a message was received as often as it may be, lastly while its job was held."""
    if before.message is not None and before.message.attempts == attempts:
        return before.message.beside
    return attempts >= most and record.state == "running"


def letters_of(before: Video, found: set[str], record: Record) -> tuple[str, ...]:
    """Return what a video keeps of its letters, which have these classes after a call."""
    spent = before.message is not None and before.message.beside
    new = "receives" not in before.letters and (spent or record.state == "running")
    beside = new or BESIDE in before.letters
    return tuple(sorted(BESIDE if beside and one == "receives" else one for one in found))


FRESH = Video(Message(0.0, 0, False), Record("queued", 0, 0, 0, "", 0.0, "", 0), 0, ())


class Holder(NamedTuple):
    """Who calls: its name, its clock's skew, the receipt's number, the fence, what `stat` showed."""

    name: str
    skew: float
    receipt: int
    fence: int
    seen: int


class Bytes:
    """A file to publish."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read_bytes(self) -> bytes:
        return self._content

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Nothing is left behind in memory."""


def rendition_of(fence: int) -> RenditionRef:
    """Return the reference to what was published under this fence."""
    return RenditionRef(key=KEY, size=1, sha256=DIGESTS[fence], certificate_key="proof")


def known(record: JobRecord) -> Record:
    """Return what of a record decides anything."""
    lease = max(LONG_PAST_S, round(record.lease_until - BASE, 3))
    return Record(
        state=record.state.value,
        fence=record.fence,
        failures=record.failures,
        crashes=record.crashes,
        owner=record.owner,
        lease_s=lease if record.state is JobState.RUNNING else 0.0,
        failure_class=record.failure_class.value if record.failure_class else "",
        made=FENCES[record.rendition.sha256] if record.rendition else 0,
        suspected_worker_fault=record.suspected_worker_faults > 0,
    )


def full(record: Record) -> JobRecord:
    """Return a whole record of it."""
    return JobRecord(
        job_id=JOB,
        source=SOURCE,
        profile="hevc",
        state=JobState(record.state),
        fence=record.fence,
        failures=record.failures,
        crashes=record.crashes,
        suspected_worker_faults=int(record.suspected_worker_fault),
        owner=record.owner,
        lease_until=BASE + record.lease_s if record.state == "running" else 0.0,
        reason="so",
        failure_class=FailureClass(record.failure_class) if record.failure_class else None,
        rendition=rendition_of(record.made) if record.made else None,
        created_at=BASE,
        updated_at=BASE,
    )
