"""The story of a world of split videos: what else arrives there, and what else goes wrong."""

from collections.abc import Callable

from chaos.sim.driver import Driver
from chaos.sim.parts import WEIGHTS
from chaos.sim.videos import QUIRKS, Quirk, VideoJob
from hevcq.domain.job import JobState
from hevcq.domain.keys import parse_work_key
from hevcq.usecases.operations import reprocess
from hevcq.worker.encode_job import PLAN

HARM = {"calm": 0.0, "light": 0.5, "rough": 1.0, "storm": 2.0}


class VideoDriver(Driver):
    """Submits videos of many lengths, cancels some, and takes kept parts away."""

    def _story(self) -> list[tuple[float, Callable[[], None]]]:
        # A video is several tasks, so that half as many sources are as much work.
        plain = super()._story()
        submits = [entry for entry in plain if entry[1].__name__ == "submit"]
        story = [entry for entry in plain if entry not in submits[::2]]
        span = max((at for at, _action in story), default=100.0)
        harm = HARM[self.world.chaos.level]
        for action, often in (
            (self._cancel, 1.0),
            (self._reprocess, 1.0),
            (self._redrive, 0.5 + harm),
            (self._lose, 2.0 * harm),
        ):
            times = int(often * self.random.random() * 2 + 0.5)
            story += [(self.random.random() * span, action) for _ in range(times)]
        return story

    def _submit(self, profile: str, seconds: float) -> None:
        world, number = self.world, len(self.world.jobs)
        nature = self.random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        quirk = self.random.choices(list(QUIRKS), list(QUIRKS.values()))[0]
        job = VideoJob(
            number,
            nature,
            seconds,
            profile,
            fails_left=1 + self._upto(2),
            length=1 + self._upto(16) if world.videos else 1,
            quirk=quirk if world.videos else Quirk.NONE,
            quirk_left=1 + self._upto(2) if self.random.random() < 0.5 else 1000,
            place=self._upto(6),
        )
        self._enter(job, f"{nature.value} {quirk.value}")
        world.checks.submitted(job)
        world.ring(profile)

    def _being(self, *states: JobState) -> VideoJob | None:
        """Return some job in one of these states."""
        ledger = self.world.ledger
        jobs = self.world.jobs.values()
        found = [j for j in jobs if (r := ledger.get(j.job_id)) is not None and r.state in states]
        return found[self._upto(len(found))] if found else None

    def _cancel(self) -> None:
        job = self._being(JobState.SPLIT) or self._some_job()
        if job is None:
            return
        for done in reprocess.cancel(self.world.side, [job.job_id], "sim"):
            self.sched.note(f"cancel {job.number} {done.result.value}")
            job.cancelled = job.cancelled or done.result is reprocess.JobResult.CANCELLED

    def _reprocess(self) -> None:
        job = self._being(JobState.DONE, JobState.SKIPPED, JobState.DEAD)
        if job is None:
            return
        order = reprocess.ReprocessRequest(names=[job.job_id], who="sim")
        for done in reprocess.reprocess(self.world.side, order):
            self.sched.note(f"reprocess {job.number} {done.result.value}")
        self.world.ring(job.profile)

    def _lose(self) -> None:
        """Somebody removes or changes what is kept for a split video."""
        objects = self.world.store._objects
        kept = sorted(key for key in objects if key.startswith("work/"))
        if not kept:
            return
        key = kept[self._upto(len(kept))]
        if key.endswith(PLAN) and self.random.random() < 0.7:
            return
        job = self.world.by_id[parse_work_key(key)[0]]
        job.lost = True
        if self.random.random() < 0.5:
            self.sched.note(f"removed {key}")
            del objects[key]
        else:
            self.sched.note(f"changed {key}")
            made, _content, owner, fence = objects[key]
            objects[key] = (made, b"rotten", owner, fence)
