"""What must hold after every single effect, and what must hold once a world is quiet."""

from collections import Counter
from typing import Any

from hevcq.domain.certificate import Certificate
from hevcq.domain.job import ALLOWED, SETTLED, JobState, job_id
from hevcq.domain.verdict import FailureClass
from hevcq.errors import HevcqError
from hevcq.ports.ledger import Granted

CALLED = {
    "complete": JobState.DONE,
    "skip": JobState.SKIPPED,
    "bury": JobState.DEAD,
    "fail": JobState.QUEUED,
    "interrupt": JobState.QUEUED,
    "renew": JobState.RUNNING,
    "progress": JobState.RUNNING,
    "certify": JobState.RUNNING,
}
QUIET = frozenset({"renew", "progress"})
"""What moves nothing where all is right; most of all calls."""


class Broken(BaseException):
    """An invariant does not hold. No Exception, for the production code must not catch it."""


def require(holds: object, what: str) -> None:
    if not holds:
        raise Broken(what)


class Checks:
    """The invariants of one world."""

    def __init__(self, world) -> None:
        self._world = world
        self._settled: dict[str, str] = {}
        self._verbs: dict[tuple[str, str], str] = {}
        self._holders: dict[str, Any] = {}
        self._visible: dict[str, tuple[str, int, str]] = {}
        self.reopened: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()

    # --- the ledger

    def moved(self, machine, ledger, name: str, call, args, named) -> Any:
        """Carry a ledger call out and hold its transition against the state machine."""
        job = args[0] if isinstance(args[0], str) else job_id(args[0], args[1])
        before = ledger.get(job)
        try:
            result = call(*args, **named)
        except HevcqError:
            require(_same(before, ledger.get(job)), f"{name} was refused and yet changed {job}")
            raise
        after = ledger.get(job)
        if name in QUIET and _stands(args[1], before, after):
            return result
        if name == "claim":
            self._claimed(machine, before, after, result)
        elif name in CALLED:
            self._called(name, args[1], before, after)
        self._counts(machine, name, before, after)
        self._explained(after)
        return result

    def _called(self, name: str, fence: int, before, after) -> None:
        """Hold a call against what it stands for: most of all effects, so no text is made in vain."""
        running = before.state is JobState.RUNNING and fence == before.fence
        if running and after.state is CALLED[name]:
            return
        if name == "progress" and after == before:
            return  # A report that comes too soon after another is not written, whoever sends it.
        raise Broken(
            f"{name} under fence {fence} took {before.job_id} from {before.state} under "
            f"{before.fence} to {after.state}"
        )

    def _claimed(self, machine, before, after, result) -> None:
        if not isinstance(result, Granted):
            require(_same(before, after), "a claim that was not granted changed the job")
            return
        require(result.fence == after.fence, "the granted fence is not the recorded one")
        fence = 0 if before is None else before.fence
        require(after.fence == fence + 1, f"fence {fence} became {after.fence}")
        crashed = before is not None and after.crashes > before.crashes
        holder = self._holders.get(after.job_id)
        if crashed and holder is not None and not holder.process.dead:
            excused = holder.suffered or self._world.wall_moved
            require(excused, f"a crash of {after.job_id} was counted, and nobody died or suffered")
        self._holders[after.job_id] = machine

    def _counts(self, machine, name: str, before, after) -> None:
        if before is None:
            return
        if after.state is not before.state and after.state not in ALLOWED[before.state]:
            raise Broken(f"{before.state} became {after.state}")
        more = after.fence - before.fence
        if more and not (name == "claim" and more == 1):
            raise Broken(f"{name} moved the fence by {more}")
        if name == "reopen" and before.state in SETTLED:
            self._begins_anew(after)
            return
        counted = after.failures - before.failures
        if counted != (name == "fail"):
            raise Broken(f"{name} counted {counted} failures")
        if name in {"fail", "bury"}:
            self._blamed(machine, name, after)
        if after.crashes != before.crashes and name != "claim":
            raise Broken(f"{name} counted a crash")
        if after.suspected_worker_faults - before.suspected_worker_faults not in {
            0,
            int(name == "interrupt"),
        }:
            raise Broken(
                f"{name} made {before.suspected_worker_faults} doubts {after.suspected_worker_faults}"
            )

    def _begins_anew(self, after) -> None:
        """Only an end that nobody judged may be taken back by a worker: the queue's, not ours."""
        counts = (after.failures, after.crashes, after.suspected_worker_faults)
        require(after.state is JobState.QUEUED and not any(counts), f"reopened with {counts}")

    def _blamed(self, machine, name: str, after) -> None:
        """A counted failure and a burial need a failure that really happened."""
        job, kind = self._world.by_id.get(after.job_id), after.failure_class
        require(kind is not None, f"{name} without a class")
        if job is None or kind is FailureClass.CRASHED:
            return
        allowed = set(job.blamed) | self._world.natural(job)
        if kind is FailureClass.NETWORK:
            hurt = machine.suffered or "network" in allowed
            require(hurt, "nobody failed to answer")
            return
        require(kind.value in allowed, f"{name} as {kind.value}: only {sorted(allowed)} happened")

    def _explained(self, after) -> None:
        if after.state in {JobState.DEAD, JobState.SKIPPED}:
            require(after.reason, f"{after.state} without a reason")
        if after.state is JobState.DEAD:
            require(after.failure_class is not None, "dead without a class")
        if after.state is JobState.DONE:
            self._proven(after)

    def _proven(self, record) -> None:
        """A job is DONE only once its rendition can be seen, whole and with its certificate."""
        require(record.rendition is not None, "done without a rendition")
        seen = self._world.store.stat(record.rendition.key)
        require(seen is not None, "done, and nothing is visible")
        require(seen.sha256 == record.rendition.sha256, "done with other bytes than are visible")
        proof = record.rendition.certificate_key
        require(self._world.store.stat(proof), "done without a certificate")
        with self._world.store.open(proof) as stream:
            known = record.certified(Certificate.read(stream).digest)
        require(known, "done with a certificate that the ledger does not know")

    # --- the queue

    def sent(self, tasks) -> None:
        """A message in the place of one whose receives run out may be a second one of its job."""

    def received(self, machine, delivery) -> None:
        """Two consumers never hold one delivery."""
        require(_name(delivery) not in self._settled, "a settled receipt was handed out again")

    def extend_called(self, machine, delivery) -> None:
        require(
            (machine.name, _name(delivery)) not in self._verbs,
            "a heartbeat was sent after its delivery was being settled",
        )

    def settle_called(self, machine, verb: str, delivery) -> None:
        key = (machine.name, _name(delivery))
        before = self._verbs.setdefault(key, verb)
        require(before == verb, f"{delivery.receipt} was to be settled by {before} and by {verb}")
        beat = machine.beats.get(_name(delivery))
        require(
            beat is None or not beat.alive, "a delivery was settled before its heartbeat was joined"
        )

    def settled(self, queue, verb: str, delivery) -> None:
        """An effective settling happens once a receipt, and an ack only when all is settled."""
        name = _name(delivery)
        require(name not in self._settled, f"{name} was settled twice with effect")
        self._settled[name] = verb
        if verb != "ack":
            return
        for task in delivery.tasks:
            record = self._world.ledger.get(task.job_id)
            ended = record is not None and record.state in {JobState.DONE, JobState.SKIPPED}
            ok = (
                ended
                or self._world.side.has_message(queue, task.job_id)
                or self.excused(record, task)
            )
            require(ok, f"the last message of {task.job_id} was acknowledged: the job is lost")

    def excused(self, record, task) -> bool:
        """Whether a job that is neither done nor skipped needs no message: a dead one with its letter."""
        dead = record is not None and record.state is JobState.DEAD
        return dead and self._world.has_letter(task.job_id)

    # --- the store

    def publish_called(self, machine, publication) -> None:
        """Nothing is published without a live lease, the current fence and a certificate."""
        record = self._world.ledger.get(publication.job_id)
        require(record is not None, "a publication of an unknown job")
        require(publication.fence <= record.fence, "a fence that was never granted")
        name = publication.metadata.get("certificate", "")
        require(self._world.store.stat(name), "a publication before its certificate")
        certificate = Certificate.parse(self._world.store.content(name))
        require(certificate.rendition_sha256 == publication.sha256, "another rendition's proof")
        if self._world.wall_moved:
            return
        require(
            record.state is JobState.RUNNING and record.fence == publication.fence,
            f"a publication under fence {publication.fence}: the ledger says "
            f"{record.state} under {record.fence}",
        )

    def published(self, publication, seen) -> None:
        key, job, fence = publication.key, publication.job_id, publication.fence
        before = self._visible.get(key)
        if before is not None and seen.sha256 != before[2]:
            require(before[0] != job or fence > before[1], "an older fence replaced a newer one")
        if seen.sha256 == publication.sha256:
            newest = max(fence, before[1]) if before and before[0] == job else fence
            self._visible[key] = (job, newest, seen.sha256)

    # --- the end

    def quiet(self) -> None:
        """Every job ended, is explained, and queue, ledger and store agree."""
        world = self._world
        letters = world.letters()
        for job in world.jobs.values():
            record = world.ledger.get(job.job_id)
            require(record is not None, f"the job {job.number} is unknown")
            self._ended(job, record, letters.get(job.job_id, []))

    def _ended(self, job, record, letters) -> None:
        if record.state not in SETTLED:
            given_up = [le for le in letters if le.failure_class is FailureClass.RECEIVES]
            require(given_up, f"job {job.number} is {record.state} and has no message: lost")
            require(not self._world.embedded, f"given up, and the ledger says {record.state}")
            self.ends["receives"] += 1
            return
        self.ends[record.state.value] += 1
        visible = self._world.renditions(job)
        require(len(visible) <= 1, f"{len(visible)} renditions of job {job.number}")
        if record.state is JobState.DONE:
            self._proven(record)
            require(visible == [record.rendition.key], "the visible rendition is another")
        elif visible:
            self.ends["ended_with_earlier_rendition"] += 1
        if record.state is JobState.DEAD:
            require(letters, f"job {job.number} is dead and has no dead letter")
            require(all(le.reason for le in letters), "a dead letter without a reason")
            self.ends[f"dead_{record.failure_class.value}"] += 1
        self._right_end(job, record)

    def _right_end(self, job, record) -> None:
        right = self._world.right_ends(job)
        require(record.state in right, f"a {job.nature} source ended {record.state}")


def _stands(fence: int, before, after) -> bool:
    """Whether a running job is still that, under the caller's fence, and nothing was counted."""
    return (
        after.state is before.state is JobState.RUNNING
        and after.fence == before.fence == fence
        and after.failures == before.failures
        and after.crashes == before.crashes
        and after.suspected_worker_faults == before.suspected_worker_faults
    )


def _name(delivery) -> str:
    return f"{delivery.queue}/{delivery.receipt}"


def _same(before, after) -> bool:
    """Whether nothing a transition writes has changed; a claim may register an unknown job."""
    if before is None:
        return after is None or after.state is JobState.QUEUED
    return before.model_dump(exclude={"progress"}) == after.model_dump(exclude={"progress"})
