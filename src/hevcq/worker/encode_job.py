"""Encode one job from its source to a published rendition, after a trial encode; or split it if that pays.

The order of a split, and what a kill after each step leaves:

| step | a kill after it leaves |
|---|---|
| the plan's object is put | an unused object: the next attempt splits under its own fence |
| the job is SPLIT, its subjobs exist | a SPLIT job not announced: the task returns, and sends |
| the chunks' tasks are sent | the same; a chunk's second task finds its subjob held or done |
| the split is announced | the job's task returns, and is acknowledged |
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hevcq.domain.chunking import ChunkPlan, SplitPlan, costliest_first, plan_chunks
from hevcq.domain.job import JobRecord, JobState, Phase, RenditionRef, Split, Task, TaskKind
from hevcq.domain.keys import SETS, WORK, parse_work_key, work_folder, work_key
from hevcq.domain.media.facts import Measurement, MediaInfo, StreamKind
from hevcq.domain.planning.encode_plan import (
    EncodePlan,
    Refuse,
    Skip,
    SkipReason,
    Work,
    revise_plan,
    too_large_sentence,
)
from hevcq.domain.profile_sections import ChunkMode
from hevcq.domain.quality import SCALES, better_crf, not_searched
from hevcq.domain.verdict import Done, Release, Skipped, Verdict
from hevcq.errors import HevcqError, MediaRefused, StorageError, TransientError
from hevcq.ports.encoder import EncodeReport
from hevcq.util.log import get_logger
from hevcq.worker.admission import sha256_file
from hevcq.worker.delivery.claim import ClaimedTask, WorkerContext
from hevcq.worker.delivery.job import Job, VerifiedEncode
from hevcq.worker.publish import adopt, publish

PLAN = "plan.json"
ANNOUNCE_RETRY_S = 5.0
"""Seconds before the chunks of a split are sent again, if the queue did not answer."""


def split_video(
    context: WorkerContext, job: Job, work: Work, location: str
) -> Done | Release | None:
    """Split a job's video into chunks for many workers; return None if it cannot be cut.

    Release means that the job is split but its chunks are not queued yet. Raises StaleFence if
    this attempt no longer owns the job, and Unavailable or StorageError if store or ledger does not
    answer.
    """
    chunks = _plan_split(context, job.claimed, work, location)
    if chunks is None:
        return None
    claimed, task = job.claimed, job.claimed.task
    name = f"{chunks.digest}-{claimed.fence.number}"
    plan = SplitPlan.model_validate({**dict(work), "chunks": chunks})
    content = plan.model_dump_json().encode()
    split = Split(
        name=name,
        chunks=len(chunks.chunks),
        frames=chunks.frames,
        seconds=sum(chunks.seconds(chunk) for chunk in chunks.chunks),
        plan_sha256=hashlib.sha256(content).hexdigest(),
    )
    key = work_key(work_folder(task.job_id, work.recipe.name), name, PLAN)
    claimed.lease.check()
    context.retry_control_call(
        lambda: context.backend.store.put(key, content, metadata={"job": task.job_id})
    )
    claimed.lease.check()
    job.transitions.split(split, [chunk.frames for chunk in chunks.chunks])
    log = get_logger(job=task.job_id, split=name)
    log.info("video_split", chunks=split.chunks, frames=split.frames)
    try:
        enqueue_chunks(context, task, split, costliest_first(chunks))
    except (TransientError, StorageError) as error:
        # The job is already split, so this must not count as a failure.
        log.warning("split_not_announced", reason=str(error))
        return Release(reason=str(error), delay_s=ANNOUNCE_RETRY_S)
    return Done()


def _plan_split(
    context: WorkerContext, claimed: ClaimedTask, work: Work, location: str
) -> ChunkPlan | None:
    """Return the plan of the video's chunks, or None if it is to be encoded whole."""
    ledger, job_id = context.backend.ledger, claimed.task.job_id
    job = context.retry_control_call(lambda: ledger.get(job_id))
    if job is not None and job.do_not_split_reason:
        # The worker that abandoned the split may have been killed before its sweep.
        sweep(context, job)
        return None
    stop, ladder = claimed.lease.stop, work.plan.ladder
    index = context.encoder.keyframes(location, work.info, stop=stop, ladder=ladder)
    slots = context.slots_per_job(work.recipe)
    plan = plan_chunks(work.recipe, work.info, work.plan, index, workers_hint=slots)
    if isinstance(plan, str):
        get_logger(job=job_id).info("video_whole", why=plan)
        return None
    return plan


def enqueue_chunks(
    context: WorkerContext, task: Task, split: Split, order: Sequence[int] = ()
) -> None:
    """Send the tasks of a split's queued chunks, or of its join if all chunks are done; may be repeated.

    `order` lists chunk numbers; by default they go in the order of the video. All tasks of a video
    share its fair-share group, so that short jobs get through between them.
    """
    ledger = context.backend.ledger
    parts = context.retry_control_call(lambda: ledger.subjobs(task.job_id))
    queued = [p.subjob.chunk for p in parts if p.subjob and p.state is JobState.QUEUED]
    chunks = [chunk for chunk in order or range(split.chunks) if chunk in queued]
    tasks = [subjob_task(task, split.name, chunk) for chunk in chunks]
    done = sum(p.state is JobState.DONE for p in parts)
    if parts and done == len(parts) - 1 and None in queued:
        tasks = [subjob_task(task, split.name, None)]
    if tasks:
        context.retry_control_call(lambda: context.backend.queues[task.profile].send(tasks))
    context.retry_control_call(lambda: ledger.mark_enqueued(task.job_id, split.name))


def subjob_task(task: Task, split: str, chunk: int | None) -> Task:
    return Task(
        kind=TaskKind.JOIN if chunk is None else TaskKind.CHUNK,
        source=task.source,
        profile=task.profile,
        chunk=chunk,
        group=task.source.source_id,
        split=split,
        asked=task.asked,
    )


def sweep(context: WorkerContext, ended: JobRecord, *, forget: bool = True) -> None:
    """Remove the objects and subjob records of an ended split job; leave failures to a later sweep.

    The job is read after the objects are listed: it may have been queued and split again since it
    ended, and the new split's objects are then known to be in use.

    `forget` must be False for a dead job, which keeps the records: if a kill prevented the burial of
    a subjob's delivery, its record makes the next delivery bury it.
    """
    store, ledger = context.backend.store, context.backend.ledger
    try:
        objects = list(store.list(ended.work_folder))
        job = ledger.get(ended.job_id) if objects else None
        for stored in objects:
            if not _is_in_use(job, parse_work_key(stored.key)[1]):
                store.delete(stored.key)
        if forget:
            ledger.forget_subjobs(ended.job_id)
    except HevcqError as error:
        get_logger(job=ended.job_id).info("work_not_swept", reason=str(error))


def sweep_leftovers(context: WorkerContext) -> None:
    """Remove the objects that a kill left of ended jobs and abandoned splits.

    Called at the start of a worker whose store does not expire objects itself.
    """
    store, ledger = context.backend.store, context.backend.ledger
    jobs: dict[str, JobRecord | None] = {}
    try:
        for stored in list(store.list(f"{WORK}/")):
            job_id, split = parse_work_key(stored.key)
            if split == SETS:  # `worker.publish` reads these
                continue
            if job_id not in jobs:
                jobs[job_id] = ledger.get(job_id)
            if not _is_in_use(jobs[job_id], split):
                store.delete(stored.key)
        for job_id, job in jobs.items():
            if job is not None and job.state in {JobState.DONE, JobState.SKIPPED}:
                ledger.forget_subjobs(job_id)
    except HevcqError as error:
        get_logger().info("leftovers_not_swept", reason=str(error))


def _is_in_use(job: JobRecord | None, split: str) -> bool:
    if job is None:
        return False
    if job.state is JobState.SPLIT:
        return job.split is not None and job.split.name == split
    # The plan of a job that is being split is in the store before the ledger has the split.
    return job.state is JobState.RUNNING and split.endswith(f"-{job.fence}")


TRIAL_MIN_VIDEO_S = 600.0
"""Length from which a video gets a trial encode: samples of it are encoded before the whole."""
TRIAL_MIN_SAMPLES, TRIAL_MAX_SAMPLES, TRIAL_SAMPLE_EVERY_S = 3, 5, 200.0
"""Samples of a trial encode: one for each so many seconds of video, within these bounds."""
TRIAL_THRESHOLD = 0.1
"""Share of the source by which a trial encode must miss the minimum saving, to keep the original."""
SEARCH_THRESHOLD = 0.2
"""The same for the forecast of a quality search: twice its error."""


class EncodeJob(Job):
    is_split = False
    """Whether the video was split; the ledger then has the job's state already."""

    def record(self, verdict: Verdict) -> Verdict:
        """Write the verdict to the ledger unless the job was split; see the base class."""
        return verdict if self.is_split else super().record(verdict)

    def _run(self) -> Done | Skipped | Release:
        """Publish the rendition, split the video, or skip it."""
        self._report.phase(Phase.FETCH)
        with self._context.scratch.job(self._task.job_id) as folder:
            self._require_room()
            with self._fetched(folder) as (path, location):
                outcome = self._plan_and_encode(path, location, folder)
            if not isinstance(outcome, VerifiedEncode):
                return outcome
            rendition = publish(self._context, self.claimed, outcome, self._report)
        # Publish, then complete: a kill between the two leaves a rendition that the next attempt
        # adopts. The other order could leave a DONE job without a rendition.
        aim = outcome.plan.aim
        return self._complete(rendition, outcome.report.cpu_s + (aim.cpu_s if aim else 0.0))

    def _plan_and_encode(
        self, path: Path, location: str, folder: Path
    ) -> VerifiedEncode | Done | Skipped | Release:
        self._report.phase(Phase.PROBE)
        info, first_look = self._context.encoder.look(location, stop=self._lease.stop)
        plan = self._context.plan(self._profile, info)
        if isinstance(plan, Skip):
            return Skipped(reason=f"{plan.reason.value}: {plan.detail}")
        if isinstance(plan, Refuse):
            raise MediaRefused(f"{plan.detail} ({plan.policy})")
        sha256 = sha256_file(path, self._lease.check)
        earlier_skip = self._context.retry_control_call(
            lambda: self._ledger.recall(sha256, self._profile.name, self._profile.revision)
        )
        if earlier_skip is not None:
            return Skipped(reason=f"{SkipReason.REMEMBERED.value}: {earlier_skip.reason}")
        self._lease.check()
        work = Work.model_construct(  # each part was checked when it was made
            recipe=self._profile,
            source_sha256=sha256,
            info=info,
            plan=plan,
            duration_s=info.duration_s,
        )
        work, input_location = self._trim_recording(work, location, folder)
        # No other worker has a trimmed copy, so it is not split; and `look` did not see it.
        is_whole = input_location == location
        first_look = first_look if is_whole else None
        return self._encode_measured(work, input_location, folder, first_look, may_split=is_whole)

    def _trim_recording(self, work: Work, location: str, folder: Path) -> tuple[Work, str]:
        """Cut a recording's incomplete pictures off; return the work on the rest, and its location.

        The digest stays the source's.
        """
        encoder, stop = self._context.encoder, self._lease.stop
        trimmed = encoder.trim_recording(location, work.info, folder, stop=stop)
        if trimmed is None:
            return work, location
        info = encoder.probe(str(trimmed.path), stop=stop)
        plan = self._context.plan(self._profile, info)
        if not isinstance(plan, EncodePlan):
            raise MediaRefused(f"{plan.detail} (the recording's whole pictures alone)")
        # What ffmpeg's copy lost forbids a replacement as much as what the encode loses.
        losses = tuple(dict.fromkeys((*work.plan.losses, *plan.losses)))
        plan = plan.with_notices(*trimmed.notices).model_copy(update={"losses": losses})
        return work.model_copy(update={"info": info, "plan": plan}), str(trimmed.path)

    def _encode_measured(
        self,
        work: Work,
        location: str,
        folder: Path,
        first_look: Measurement | None,
        *,
        may_split: bool,
    ) -> VerifiedEncode | Done | Skipped | Release:
        """Adopt an earlier rendition, or measure the source and skip, split or encode it."""
        earlier = adopt(self._context, self._lease, self._task, work, self._key(work))
        if earlier is not None:
            return self._complete(*earlier)
        self._report.phase(Phase.PREFLIGHT)
        measured = self._context.encoder.preflight(
            location, work.info, self._profile, stop=self._lease.stop, looked=first_look
        )
        planned = work.info, work.plan
        info, plan = revise_plan(self._context.plan, self._profile, planned, measured)
        facts = {"info": info, "plan": plan, "measured": measured}
        work = work.model_copy(update={**facts, "duration_s": _duration(measured, info)})
        work = self._search_quality(work, location, folder)
        if self._profile.subtitles.beside:
            request = self._request(work, location, folder / "text")
            sidecars = self._context.encoder.read_sidecars(request, stop=self._lease.stop)
            plan = work.plan.model_copy(update={"sidecars": sidecars})
            work = work.model_copy(update={"plan": plan})
        outcome: Done | Skipped | Release | None
        outcome = self._skip_after_search(work) or self._trial_encode(work, location, folder)
        if outcome is None and may_split and self._may_split_pay(work.duration_s):
            outcome = split_video(self._context, self, work, location)
            if outcome is not None:
                self.is_split = True
                self._emit_notices(plan.notices)
        return outcome or self._encode_and_verify(work, location, folder)

    def _encode_and_verify(
        self, work: Work, location: str, folder: Path
    ) -> VerifiedEncode | Skipped:
        """Encode the whole video; once more with a better CRF if it misses the quality that was searched."""
        output = folder / f"rendition.{work.plan.extension}"
        encode = self._verify(work, location, output, self._encode(work, location, output))
        aim = encode.plan.aim if isinstance(encode, VerifiedEncode) else None
        scale = SCALES[self._profile.video.codec]
        if isinstance(encode, Skipped) or aim is None or not aim.missed or aim.crf <= scale.best:
            return encode
        encode.file.unlink()
        # Frames outside the samples were worse, so the next CRF is better by more than was missing.
        spent = {"cpu_s": aim.cpu_s + encode.report.cpu_s, "verified": None}
        next_aim = aim.model_copy(update={"crf": better_crf(aim, scale), **spent})
        work = work.model_copy(update={"plan": work.plan.with_aim(next_aim)})
        output = folder / f"better.{work.plan.extension}"
        return self._verify(work, location, output, self._encode(work, location, output))

    def _search_quality(self, work: Work, location: str, folder: Path) -> Work:
        """Return the work with the CRF that reaches the profile's quality, or a notice why none was searched."""
        if work.recipe.video.quality is None:
            return work
        self._report.phase(Phase.SEARCH)
        request = replace(
            self._request(work, location, folder / "sample.mkv"),
            on_share=lambda share: self._report.percent(Phase.SEARCH, 100 * share),
        )
        aim = self._context.encoder.find_quality(request, stop=self._lease.stop)
        self._lease.check()
        if isinstance(aim, str):
            notice = not_searched(work.recipe.video.crf, aim)
            return work.model_copy(update={"plan": work.plan.with_notices(notice)})
        return work.model_copy(update={"plan": work.plan.with_aim(aim)})

    def _skip_after_search(self, work: Work) -> Skipped | None:
        """Skip the video if the search's samples put its quality out of reach or make it far too large."""
        aim, saving = work.plan.aim, work.recipe.gates.minimum_saving
        if aim is None or saving is None:
            return None
        share = (aim.size or 0) / max(1, self._source.size)
        if share > 1 - saving + SEARCH_THRESHOLD:
            quality = f", for VMAF {aim.target:g}"
            return self._remember_skip(
                work, too_large_sentence(share, saving, about="about ", quality=quality)
            )
        if not aim.is_unreachable(SCALES[work.recipe.video.codec]):
            return None  # a better CRF than the few that were tried may reach it
        tried = f"Original kept: VMAF {aim.target:g} is out of reach; CRF {aim.crf:g}, the lowest that was"
        return self._remember_skip(work, f"{tried} tried, gives {aim.sampled:.1f} in samples.")

    def _trial_encode(self, work: Work, location: str, folder: Path) -> Skipped | None:
        """Encode samples of a long video; skip it if they forecast a rendition beyond TRIAL_THRESHOLD.

        The first sample alone is half a percent of ten minutes, and enough for a video that shrinks.
        Where a quality was searched, its samples have shown the size.
        """
        length_s, saving = work.duration_s or 0.0, work.recipe.gates.minimum_saving
        if length_s < TRIAL_MIN_VIDEO_S or saving is None or work.plan.aim is not None:
            return None
        request = self._request(work, location, folder / "sample.mkv")
        samples = max(TRIAL_MIN_SAMPLES, int(length_s / TRIAL_SAMPLE_EVERY_S))
        share = 0.0
        for count in (1, min(TRIAL_MAX_SAMPLES, samples)):
            whole = self._context.encoder.estimate(request, count, stop=self._lease.stop)
            self._lease.check()
            share = whole.size / max(1, self._source.size) if whole else 0.0
            if whole is None or share * (1 - whole.error) <= 1 - saving + TRIAL_THRESHOLD:
                return None
        return self._remember_skip(work, too_large_sentence(share, saving, about="about "))

    def _complete(self, rendition: RenditionRef, cpu_s: float) -> Done:
        self.transitions.complete(rendition, cpu_s=cpu_s)
        self.rendition = rendition
        return Done()

    def _may_split_pay(self, duration_s: float | None) -> bool:
        """Return whether a split may pay: an index of key frames costs a pass over all packets."""
        chunking = self._profile.chunking
        if chunking.mode is ChunkMode.AUTO:
            several = self._context.slots_per_job(self._profile) > 1
            return several and (duration_s or 0.0) >= chunking.least_video_s
        return chunking.mode is ChunkMode.ALWAYS

    def _encode(self, work: Work, location: str, output: Path) -> EncodeReport:
        encoder, stop = self._context.encoder, self._lease.stop
        self._require_room()
        self._emit_notices(work.plan.notices)
        self._report.phase(Phase.ENCODE)
        request = self._request(work, location, output)
        on_progress = self._report.encoding(Phase.ENCODE, work.duration_s)
        report = encoder.encode(request, on_progress=on_progress, stop=stop)
        self._context.breaker.record_success()
        self._lease.check()
        return report

    def _require_room(self) -> None:
        """Raise DiskFull unless one more file of the source's size fits on the disk.

        Called before the fetch, which may copy the source, and again before the encode, whose
        output is normally no larger than its source.
        """
        self._context.require_free_space(self._source.size, self._source.key)


def _duration(measured: Measurement, info: MediaInfo) -> float | None:
    """Return the measured length in seconds; the header's claim only if none was measured."""
    ends = [
        track.end_s - (track.first_pts_s or 0.0)
        for track in measured.tracks
        if track.kind is StreamKind.VIDEO and track.end_s is not None
    ]
    return max(ends, default=info.duration_s)
