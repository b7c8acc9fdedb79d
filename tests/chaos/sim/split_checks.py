"""What must hold of split videos and of receivers, after every effect and at the end."""

from collections import Counter, defaultdict
from types import SimpleNamespace
from typing import Any

from chaos.sim.checks import CALLED, Checks, _name, _same, require
from hevcq.backends.sql.queue import job_id_of
from hevcq.domain.job import ALLOWED, JobRecord, JobState, TaskKind, is_subjob, subjob_id
from hevcq.domain.keys import parse_work_key
from hevcq.domain.verdict import FailureClass
from hevcq.errors import HevcqError
from hevcq.ports.backend import Backend
from hevcq.ports.queue import Delivery
from hevcq.worker.encode_job import PLAN, sweep_leftovers
from hevcq.worker.slot import SlotOutcome

PATIENCE_S = 2.0
"""How long a message may be in a process before somebody works on it; calls take up to a second."""
READY = "SELECT body FROM message WHERE queue = ? AND state = 0"
AHEAD = 3
"""So many messages of one video may go before a job that was there first: what the round that is
served has of it, what the next has, and one that was on its way."""


class QueueChecks(Checks):
    """The invariants of the queues of one world of split videos."""

    def __init__(self, world) -> None:
        super().__init__(world)
        self._complete: set[str] = set()
        self._waiting: dict[str, dict[str, Counter[str]]] = defaultdict(dict)
        self._since: dict[str, float] = {}
        self.numbers: Counter[str] = Counter()

    def sent(self, tasks) -> None:
        """No join is sent before every chunk of its split was done at one time."""
        for task in tasks:
            if task.kind is not TaskKind.JOIN:
                self.numbers["chunks_sent"] += 1
                continue
            self.numbers["joins_sent"] += 1
            require(task.split in self._complete, "a join was sent before the set was complete")

    def submitted(self, job) -> None:
        """Note that a job waits from now on."""
        self._waiting[job.profile][job.job_id] = Counter()
        self._since[job.job_id] = self._world.sched.now

    def received(self, machine, delivery: Delivery) -> None:
        super().received(machine, delivery)
        machine.taken[_name(delivery)] = self._world.sched.now
        waiting = self._waiting[delivery.queue]
        for task in delivery.tasks:
            if task.kind is TaskKind.ENCODE:
                waiting.pop(task.job_id, None)
            elif self._world.embedded and delivery.attempt == 1:
                # Its reply may have taken long: what was sent meanwhile was not passed.
                taken = delivery.deadline - self._world.visibility_s
                older = {job: n for job, n in waiting.items() if self._since[job] < taken}
                self._passed(older, delivery.queue, task.job_id)

    def _passed(self, waiting: dict[str, Counter[str]], queue: str, video: str) -> None:
        """Count what goes before a job that could be received, and never was."""
        rows = self._world.side._database.rows(READY, (queue,)) if waiting else ()
        ready = {job_id_of(body) for (body,) in rows}
        for job_id, passed in waiting.items():
            if job_id in ready:
                passed[video] += 1
                require(passed[video] <= AHEAD, "a video pushed ahead of a job")

    def begun(self, machine, delivery: Delivery) -> None:
        """A message is worked on as soon as it is in the process."""
        waited = self._world.sched.now - machine.taken[_name(delivery)]
        require(machine.suffered or waited <= PATIENCE_S, f"a message was kept for {waited:.0f} s")

    def excused(self, record, task) -> bool:
        """A job with a dead letter, or a cancelled one, needs no message."""
        dead = record is not None and record.state is JobState.DEAD
        cancelled = dead and record.failure_class is FailureClass.CANCELLED
        # SQS gives a message up without telling the ledger; its letter is the job's word then.
        return cancelled or self._world.has_letter(task.job_id)


class SplitChecks(QueueChecks):
    """The invariants of one world of split videos."""

    def __init__(self, world) -> None:
        super().__init__(world)
        self._marked: dict[str, str] = {}
        self._died_of: dict[str, set[FailureClass | None]] = defaultdict(set)
        self._splits: dict[str, list[Any]] = defaultdict(list)

    # --- the ledger

    def moved(self, machine, ledger, name: str, call, args, named) -> Any:
        """Hold the calls that only parts and split jobs meet; the others as ever."""
        if name == "subjobs":
            return call(*args, **named)
        if name in {"mark_enqueued", "forget_subjobs", "split", "reopen", "bury_unclaimed"}:
            return getattr(self, f"_{name}")(ledger, call, args, named)
        job = args[0] if isinstance(args[0], str) else ""
        before = ledger.get(job) if job else None
        if name == "claim_subjob":
            return self._claim_subjob(machine, ledger, call, args, named)
        if name == "progress" and before is not None and before.state is JobState.DEAD:
            return self._ignored(ledger, before, call, args, named)
        if name == "abandon_split" or (before is not None and before.state is JobState.SPLIT):
            return self._split_moved(machine, ledger, name, call, args, named)
        result = super().moved(machine, ledger, name, call, args, named)
        if name == "complete" and is_subjob(job):
            self._part_done(ledger, ledger.get(job))
        return result

    def _ignored(self, ledger, before, call, args, named) -> None:
        """Progress may be dropped unseen; a job that was cancelled stays as it is."""
        try:
            call(*args, **named)
        finally:
            require(_same(before, ledger.get(args[0])), "progress changed a dead job")

    def _mark_enqueued(self, ledger, call, args, named) -> Any:
        before = ledger.get(args[0])
        call(*args, **named)
        after = ledger.get(args[0])
        if before.split is not None and before.split.name == args[1]:
            before = before.model_copy(update={"split": after.split})
        require(_alike(before, after), "announcing changed more than that")

    def _forget_subjobs(self, ledger, call, args, named) -> Any:
        before = len(ledger.subjobs(args[0]))
        call(*args, **named)
        require(len(ledger.subjobs(args[0])) == before, "the parts of a split job were forgotten")

    def _split(self, ledger, call, args, named) -> Any:
        job, fence, split, frames = args
        before = ledger.get(job)
        try:
            call(*args, **named)
        except HevcqError:
            require(_same(before, ledger.get(job)), f"a split was refused and yet changed {job}")
            raise
        after, parts = ledger.get(job), ledger.subjobs(job)
        require((before.state, before.fence) == (JobState.RUNNING, fence), "a split of another")
        require(after.state is JobState.SPLIT and after.fence == fence, "a split that is none")
        require(len(parts) == split.chunks + 1, f"{len(parts)} parts for {split.chunks} chunks")
        require({p.state for p in parts} == {JobState.QUEUED}, "a part was begun before its split")
        require(sum(frames) == split.frames, "the chunks do not hold the video's frames")
        self._splits[job].append(split)
        self.numbers["splits"] += 1

    def _reopen(self, ledger, call, args, named) -> Any:
        before = ledger.get(args[0])
        result = call(*args, **named)
        after = ledger.get(args[0])
        if not result:
            require(before is None or _same(before, after), "nothing was reopened, and it changed")
            return result
        require(after.state in ALLOWED[before.state], f"{before.state} was reopened")
        require(after.fence == before.fence, "reopening moved the fence")
        self._marked.pop(args[0], None)
        self.numbers["parts_again" if is_subjob(args[0]) else "reopened"] += 1
        return result

    def _bury_unclaimed(self, ledger, call, args, named) -> Any:
        before = ledger.get(args[0])
        result = call(*args, **named)
        if result:
            require(before.state is not JobState.SPLIT, "a split job was buried by the bye")
        return result

    def _claim_subjob(self, machine, ledger, call, args, named) -> Any:
        if ledger.get(args[0]) is None:
            result = call(*args, **named)
            require(result is None, "a part that nobody knows was granted")
            return result
        return super().moved(machine, ledger, "claim", call, args, named)

    def _split_moved(self, machine, ledger, name: str, call, args, named) -> Any:
        """Hold a call on a job that is SPLIT: only its parts end it, under its very fence."""
        before = ledger.get(args[0])
        try:
            result = call(*args, **named)
        except HevcqError:
            require(_same(before, ledger.get(args[0])), f"{name} was refused and yet changed it")
            raise
        after = ledger.get(args[0])
        if name in {"claim", "certify"}:
            require(_same(before, after), f"the {name} of a split job moved it")
            require(name == "claim" or args[1] == before.fence, "certified under another fence")
            return result
        goal = JobState.QUEUED if name == "abandon_split" else CALLED[name]
        require(name in {"abandon_split", "complete", "skip", "bury"}, f"{name} moved a split job")
        require(
            after.state is goal and before.state is JobState.SPLIT, f"{name} left {after.state}"
        )
        require(args[1] == before.fence, f"{name} under fence {args[1]} of {before.fence}")
        require(after.fence == before.fence, f"{name} moved the fence")
        complete = before.split.name in self._complete
        require(complete or name not in {"complete", "skip"}, f"{name} before the set was complete")
        require(
            after.do_not_split_reason or name != "abandon_split",
            "a split was given up without a reason",
        )
        self.numbers[f"end_{name}"] += 1
        # A part may have died elsewhere of what this machine never met: judged when that was.
        if name == "bury" and after.failure_class not in self._died_of[before.split.name]:
            self._blamed(machine, name, after)
        self._explained(after)
        return result

    def _part_done(self, ledger, part: JobRecord) -> None:
        """Note a chunk as done: once, unless it was reopened, and as what can be seen."""
        about = part.subjob
        require(part.job_id not in self._marked, f"the part {part.job_id} was marked twice")
        self._marked[part.job_id] = part.rendition.sha256
        require(about.chunk is not None, "a join ends its job, and not itself")
        job = ledger.get(about.job_id)
        current = job is not None and job.state is JobState.SPLIT and job.split.name == about.split
        if not current:
            return
        chunks = ledger.subjobs(about.job_id)[:-1]
        if all(chunk.state is JobState.DONE for chunk in chunks):
            self._complete.add(about.split)

    def _blamed(self, machine, name: str, after) -> None:
        about = after.subjob
        if about is not None:
            job = self._world.ledger.get(about.job_id)
            if job.state is not JobState.SPLIT or job.split.name != about.split:
                return  # What it went by is gone with its job: it may fail in any way.
            kind = after.failure_class
            if name == "bury":
                self._died_of[about.split].add(kind)
            after = SimpleNamespace(job_id=about.job_id, failure_class=kind)
        super()._blamed(machine, name, after)

    def _proven(self, record) -> None:
        if record.subjob is None:
            super()._proven(record)

    # --- the store

    def publish_called(self, machine, publication) -> None:
        """A part is published under its own fence, a rendition under its job's, with a live lease."""
        unit, world = publication.job_id, self._world
        record = world.ledger.get(unit)
        if is_subjob(unit):
            self._part_called(record, publication)
        elif record is not None and record.state is JobState.SPLIT:
            require(publication.fence == record.fence, "a joined video under another fence")
            self._certified(publication)
            unit = subjob_id(unit, record.split.name, None)
            join = world.ledger.get(unit)
            require(join.state is JobState.RUNNING, "a joined video, and nobody joins")
        elif not world.by_id[unit].cancelled:
            super().publish_called(machine, publication)
        self._leased(machine)

    def _leased(self, machine) -> None:
        """A slot publishes only while the lease of its delivery lives."""
        lease = machine.leases.get(self._world.sched.current.name)
        require(lease is not None and not lease.lost, "a publication without a live lease")

    def _part_called(self, record, publication) -> None:
        world = self._world
        if record is None:
            return
        require(publication.fence <= record.fence, "a fence that was never granted")
        mine = record.state is JobState.RUNNING and record.fence == publication.fence
        require(mine or world.wall_moved, f"a part under a fence that is over: {record.state}")

    def _certified(self, publication) -> None:
        name = publication.metadata.get("certificate", "")
        require(self._world.store.stat(name), "a publication before its certificate")

    def published(self, publication, seen) -> None:
        super().published(publication, seen)
        if not is_subjob(publication.job_id):
            self._whole_video(publication.job_id, self._world.store.content(publication.key))

    def _whole_video(self, job_id: str, content: bytes) -> None:
        """A rendition holds every chunk of one plan, once and in order; or it was made whole."""
        kind, number, rest = content.split(b"|", 2)
        require(int(number) == self._world.by_id[job_id].number, "another video's rendition")
        if kind == b"rendition":
            self.numbers["made_whole"] += 1
            return
        parts = [part.split(b"|") for part in rest.split(b";")]
        require(all(part[0] == b"part" and len(part) == 6 for part in parts), "a part is rotten")
        require({part[1] for part in parts} == {number}, "a part of another video")
        splits = {part[2].decode() for part in parts}
        require(len(splits) == 1, f"parts of {len(splits)} splits in one video")
        made = [split for split in self._splits[job_id] if split.name in splits]
        require(made, "a split that nobody made")
        require([int(p[3]) for p in parts] == [*range(made[0].chunks)], "not every chunk in order")
        require(sum(int(p[4]) for p in parts) == made[0].frames, "not every frame")
        self.numbers["joined"] += 1

    def deleted(self, machine, key: str, call) -> bool:
        """Nothing that a split job goes by is removed, but for a part that is made again."""
        _work, job_id, split, name = key.split("/", 3)
        record = self._world.ledger.get(job_id)
        is_split = record is not None and record.state is JobState.SPLIT
        is_wanted = is_split and record.split.name == split and name == PLAN
        require(not is_wanted, "the plan of a split job was removed")
        return call(key)

    # --- the end of a process

    def process_ended(self, machine, pool) -> None:
        """A process that ends by itself keeps no message that nobody worked on."""
        worked = set(machine.beats) | {key[1] for key in self._verbs if key[0] == machine.name}
        kept = sorted(set(machine.taken) - worked)
        require(not kept, f"a stopped process keeps {len(kept)} messages")
        if machine.outcome is SlotOutcome.BROKEN:
            # One that stops by itself is looked at as rarely as one that works (`waits`).
            told = machine.signals.asked.is_set()
            require(machine.suffered or not told, "a slot hangs, and nothing was slow")

    # --- the end

    def _ended(self, job, record, letters) -> None:
        if record.state is JobState.DEAD and record.failure_class is FailureClass.CANCELLED:
            require(job.cancelled, "nobody cancelled it")
            self.ends["cancelled"] += 1
            return
        super()._ended(job, record, letters)
        if record.state is JobState.DONE:
            self._whole_video(job.job_id, self._world.store.content(record.rendition.key))

    def quiet(self) -> None:
        """As for plain jobs; and nothing is left of a job that ended, once leftovers are swept."""
        super().quiet()
        world = self._world
        ended = {
            job.job_id: job
            for job in world.jobs.values()
            if world.ledger.get(job.job_id).state in {JobState.DONE, JobState.SKIPPED}
        }
        left = self._left(ended)
        calm = world.chaos.level == "calm"
        require(not (calm and left), f"nothing went wrong, and this is left: {left[:3]}")
        self.numbers["left_for_the_sweep"] += len(left)
        sweep_leftovers(
            SimpleNamespace(backend=Backend("", {}, world.ledger, world.store, None, lambda: None))
        )
        settled = [j.job_id for j in world.jobs.values() if world.ledger.get(j.job_id).finished_at]
        left = self._left(settled)
        require(not left, f"this is left after the sweep: {left[:3]}")
        for job_id in ended:
            for split in self._splits[job_id]:
                part = world.ledger.get(subjob_id(job_id, split.name, 0))
                require(not calm or part is None, "the records of parts are left")

    def _left(self, jobs) -> list[str]:
        known = set(jobs)
        return [o.key for o in self._world.store.list("work/") if parse_work_key(o.key)[0] in known]


def _alike(before, after) -> bool:
    skip = {"updated_at", "progress"}
    return before.model_dump(exclude=skip) == after.model_dump(exclude=skip)
