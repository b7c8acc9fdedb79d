"""The farm as the search sees it: two videos, two workers, and what may still go wrong.

What a worker may do depends on itself and on its video alone. So each such move is worked out once
and kept in a table, by numbers of videos and of workers (`scenes` puts them together).
"""

from typing import Any, NamedTuple

from chaos.protocol.automaton import Automaton
from chaos.protocol.local import SETTLING
from chaos.protocol.shared import Shared
from chaos.protocol.trouble import FREE, KINDS, Spare, Troubles
from chaos.protocol.videos import BESIDE, FRESH, GONE, LONG_PAST_S, Holder, Record, Video

NAMES = ("w0", "w1")
MARGIN_S = 3.0
"""A tenth of the visibility time: the lease's own margin, and the most that clocks may differ."""
SLOW = frozenset({"claim", "renew", "extend"})
"""The calls whose answers leases are reckoned from: these may arrive late."""
SETTLED = frozenset({"done", "skipped", "dead"})


class Scope(NamedTuple):
    """What is searched. `skews` are the workers' clocks against true time, in seconds."""

    name: str
    jobs: int
    trouble: Spare
    tick_s: float = 14.0
    skews: tuple[float, float] = (0.0, 2.0)


class Reply(NamedTuple):
    """An answer on its way, and for how long it has been."""

    strand: int
    answer: Any
    age_s: float


class Worker(NamedTuple):
    """A worker with a delivery: where it stands, and what it was given."""

    node: int = -1
    receipt: int = 0
    fence: int = 0
    seen: int = 0
    reply: Reply | None = None


class Step(NamedTuple):
    """What a worker may do: what trouble it takes, what it leaves, and what is wrong about it."""

    kind: int
    worker: int
    video: int
    what: str
    fault: str = ""


IDLE = Worker()


class Table:
    """Values by number and numbers by value."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def number(self, value: Any) -> int:
        """Return the value's number."""
        found = self._numbers.get(value)
        if found is None:
            found = self._numbers[value] = len(self.values)
            self.values.append(value)
        return found


class Farm:
    """Knows what may happen to one worker with one video, and what must hold."""

    def __init__(self, scope: Scope, automaton: Automaton, shared: Shared) -> None:
        self.scope, self.shared = scope, shared
        self._automaton, self._nodes = automaton, automaton.nodes
        self.troubles = Troubles(scope.trouble)
        self.videos, self.workers = Table(), Table()
        assert self.workers.number(IDLE) == 0
        self.first_video = self.videos.number(FRESH)

    # --- one worker

    def _holder(self, number: int, worker: Worker) -> Holder:
        skew = self.scope.skews[number]
        return Holder(NAMES[number], skew, worker.receipt, worker.fence, worker.seen)

    def receives(self, number: int, video_number: int) -> Step | None:
        """Return what an idle worker gets, or None."""
        video = self.videos.values[video_number]
        if video.message is None or video.message.hidden_s > 0:
            return None
        # The queue is one service, so it is judged by its own clock.
        holder = Holder(NAMES[number], 0.0, 0, 0, 0)
        attempt, after = self.shared.carry(video, holder, ("receive",))
        worker = IDLE
        if attempt is not None:
            worker = Worker(self._automaton.start(attempt), attempt)
        fault = _counted("receive", video.record, after.record)
        return self._step(FREE, worker, after, f"{NAMES[number]} receives", fault)

    def works(self, number: int, worker_number: int, video_number: int) -> tuple[Step, ...]:
        """Return everything that a worker may do or that may happen to it."""
        worker = self.workers.values[worker_number]
        node, reply, found = self._nodes[worker.node], worker.reply, []
        if reply is not None:
            action = ("answer", reply.strand, _late(reply))
            given = worker._replace(reply=None)
            found.append(self._local(number, FREE, given, video_number, action, "is answered late"))
        for strand, request in node.calls:
            if reply is None or reply.strand != strand:
                found += self._calls(number, worker, video_number, strand, request)
        for strand in node.timers:
            found.append(self._local(number, FREE, worker, video_number, ("fire", strand), "wakes"))
        trouble = self.scope.trouble
        if trouble.stops and not node.stopped:
            kind = KINDS["stops"]
            found.append(
                self._local(number, kind, worker, video_number, ("stop",), "is told to stop")
            )
        if trouble.kills:
            gone = self.videos.values[self.killed(number, video_number)]
            found.append(self._step(KINDS["kills"], IDLE, gone, f"{NAMES[number]} is killed"))
        return tuple(found)

    def _step(self, kind: int, worker: Worker, video: Video, what: str, fault: str = "") -> Step:
        return Step(kind, self.workers.number(worker), self.videos.number(video), what, fault)

    def _local(
        self, number: int, kind: int, worker: Worker, video: int, action: tuple, what: str
    ) -> Step:
        after = self._automaton.step(worker.node, action)
        node = self._nodes[after]
        moved = IDLE if node.over else worker._replace(node=after)
        return Step(kind, self.workers.number(moved), video, f"{NAMES[number]} {what}", node.fault)

    def _calls(
        self, number: int, worker: Worker, before: int, strand: int, request: tuple
    ) -> list[Step]:
        said = " ".join(map(str, request))
        if request[0] == "encode":
            fine, broken = ("answer", strand, "ok"), ("answer", strand, "broken")
            found = [self._local(number, FREE, worker, before, fine, "has encoded")]
            if self.scope.trouble.broken:
                kind, what = KINDS["broken"], "fails to encode"
                found.append(self._local(number, kind, worker, before, broken, what))
            return found
        video = self.videos.values[before]
        answer, after = self.shared.carry(video, self._holder(number, worker), request)
        given = _given(worker, request, answer, video, after)
        done = f"{said} -> {answer}"
        left = self.videos.number(after)
        step = self._local(number, FREE, given, left, ("answer", strand, answer), done)
        fault = judged(video, after, worker, request, answer)
        found = [step._replace(fault=fault) if fault else step]
        silent = ("answer", strand, "silent")
        lost = ((before, "request"), (left, "reply")) if self.scope.trouble.silent else ()
        for video_number, which in lost:
            what = f"{said}: {which} lost"
            found.append(self._local(number, KINDS["silent"], worker, video_number, silent, what))
        if self.scope.trouble.slow and request[0] in SLOW and worker.reply is None:
            waits = given._replace(reply=Reply(strand, answer, 0.0))
            found.append(self._step(KINDS["slow"], waits, after, f"{done}, on its way"))
        return found

    # --- everybody

    def later(self, worker_number: int, video_number: int) -> tuple[int, int]:
        """Return the worker one tick later, and 1 if it has lost what it held by that."""
        if not worker_number:
            return 0, 0
        worker, video = self.workers.values[worker_number], self.videos.values[video_number]
        step = self.scope.tick_s
        after, reply = self._automaton.step(worker.node, ("tick", step)), worker.reply
        if reply is not None:
            reply = reply._replace(age_s=min(reply.age_s + step, 4 * step))
        lost = self._loses(worker, after, video)
        return self.workers.number(worker._replace(node=after, reply=reply)), int(lost)

    def _loses(self, worker: Worker, after: int, video: Video) -> bool:
        """Return whether this worker loses what it held, now that a tick has passed.

        One that has dropped its fence to write how the job ended, and whose request takes longer
        than the claim lasts, loses the claim without knowing it.
        """
        before, now, record = self._nodes[worker.node], self._nodes[after], video.record
        if not (before.alive and now.alive):
            return before.alive
        ours = record.state == "running" and record.fence == worker.fence and not before.holds
        return ours and record.lease_s > MARGIN_S >= record.lease_s - self.scope.tick_s

    def older(self, video_number: int) -> int:
        """Return the video one tick later."""
        return self.videos.number(aged(self.videos.values[video_number], self.scope.tick_s))

    def killed(self, number: int, video_number: int) -> int:
        """Return the video once this worker's process is gone."""
        video = self.videos.values[video_number]
        if video.record.owner != NAMES[number]:
            return video_number
        return self.videos.number(video._replace(record=video.record._replace(owner=GONE)))

    def shown(self, video_number: int) -> int | None:
        """Return the video with its message shown although it is held, as SQS may; else None."""
        video = self.videos.values[video_number]
        if video.message is None or not video.message.held or video.message.hidden_s <= 0:
            return None
        return self.videos.number(video._replace(message=video.message._replace(hidden_s=0.0)))

    # --- what must hold

    def fault(self, video_number: int, used: Spare) -> str:
        """Return what is wrong with a video after so much trouble, or nothing."""
        return unsound(self.videos.values[video_number], used)

    def holds(self, worker_number: int) -> bool:
        """Return whether this worker takes its job to be its own."""
        worker = self.workers.values[worker_number]
        return worker.node >= 0 and self._nodes[worker.node].holds

    def ended(self, video_number: int) -> str:
        """Return how a video has ended well, or nothing if it goes on."""
        video = self.videos.values[video_number]
        settled = video.record.state in SETTLED
        if video.message is not None or not (settled or video.letters):
            return ""
        if self.shared.lands_with_the_job and not settled:
            return ""
        end = video.record.failure_class or video.record.state
        if video.letters and video.record.state in {"done", "skipped"}:
            # Made before the end, by the queue alone: whoever moves it back finds the job settled.
            return f"{end} beside a letter" if video.letters == (BESIDE,) else ""
        return end


def _late(reply: Reply) -> Any:
    """Return the answer as it is understood by who gets it late."""
    if isinstance(reply.answer, float):
        return reply.age_s
    if isinstance(reply.answer, tuple) and reply.answer[0] == "held":
        return ("held", reply.answer[1] - reply.age_s)
    return reply.answer


def _given(worker: Worker, request: tuple, answer: Any, video: Video, after: Video) -> Worker:
    if request[0] == "claim" and answer[0] == "granted":
        return worker._replace(fence=after.record.fence)
    if request[0] == "stat":
        # Nobody adopts but what was another's: what else was seen is not asked for again.
        return worker._replace(seen=video.visible if answer == "other" else 0)
    return worker


def aged(video: Video, seconds: float) -> Video:
    """Return the video some seconds later."""
    message, record = video.message, video.record
    if message is not None and message.hidden_s > 0:
        message = message._replace(hidden_s=max(0.0, round(message.hidden_s - seconds, 3)))
    if record.state == "running":
        lease = max(LONG_PAST_S, round(record.lease_s - seconds, 3))
        record = record._replace(lease_s=lease)
    return video._replace(message=message, record=record)


def judged(before: Video, after: Video, worker: Worker, request: tuple, answer: Any) -> str:
    """Return what is wrong about what one call did, or nothing."""
    name, was, now = request[0], before.record, after.record
    grown = 1 if name == "claim" and answer[0] == "granted" else 0
    if now.fence != was.fence + grown:
        return f"{name} moved the fence from {was.fence} to {now.fence}"
    if was.state in SETTLED and now != was:
        return f"{name} changed a job that had ended {was.state}"
    wrong = _counted(name, was, now)
    if wrong:
        return wrong
    mine = now == was or was.fence == worker.fence
    if name in {"complete", "fail", "bury", "interrupt", "renew", "skip"} and not mine:
        return f"{name} under fence {worker.fence} moved a job under fence {was.fence}"
    held = before.message
    good = held is not None and held.held and held.attempts == worker.receipt
    if name in SETTLING and answer is True and not good:
        return f"{name} settled by a stale receipt"
    if name == "extend" and answer != "lost" and not good:
        return "a stale receipt was extended"
    if name == "ack" and answer is True and now.state not in {"done", "skipped"}:
        return f"the last message of a job that is {now.state} was acknowledged: it is lost"
    if after.visible != before.visible:
        return _published(before, worker, request)
    return ""


def _counted(name: str, was: Record, now: Record) -> str:
    """Return what is wrong about how a call counts: only a claim finds a crash."""
    if now.failures - was.failures not in {0, int(name == "fail")}:
        return f"{name} counted {was.failures} failures, and now {now.failures}"
    if now.crashes - was.crashes not in {0, int(name == "claim")}:
        return f"{name} counted {was.crashes} crashes, and now {now.crashes}"
    return ""


def _published(before: Video, worker: Worker, request: tuple) -> str:
    record, late = before.record, request[-1] == "late"
    if worker.fence < before.visible:
        return f"fence {worker.fence} replaced what fence {before.visible} had published"
    if not late and (record.state != "running" or record.fence != worker.fence):
        return f"published under fence {worker.fence}: the job is {record.state} {record.fence}"
    return ""


def unsound(video: Video, used: Spare) -> str:
    """Return what is wrong with a video, given what trouble there was."""
    record = video.record
    if (
        record.state in {"queued", "running", "dead"}
        and video.message is None
        and not video.letters
    ):
        return f"it is {record.state} and has neither message nor dead letter: it is lost"
    # Known: of two attempts that hung in their publication, the later may still replace the
    # earlier one's rendition after a third has adopted it. It is verified and has its own proof.
    if record.state == "done" and not 0 < record.made <= video.visible:
        return f"it is done by fence {record.made}, and fence {video.visible} is visible"
    if record.failures > used.broken + used.silent:
        return f"{record.failures} failures are counted, and {used.broken} happened"
    vanished = used.kills + used.expiries + used.silent + used.shown_again
    if record.crashes > vanished:
        return f"{record.crashes} crashes are counted, and nobody vanished so often"
    if record.state == "dead" and not record.failure_class:
        return "it is dead without a class"
    return ""
