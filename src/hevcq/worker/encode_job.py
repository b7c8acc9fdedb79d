"""Encode one job: from its source to a published rendition, or an error that says why not."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from hevcq.domain.certificate import kept_original
from hevcq.domain.job import Phase, RenditionRef
from hevcq.domain.keys import MASTER, rendition_key, set_version
from hevcq.domain.media.facts import Measurement, MediaInfo, StreamKind
from hevcq.domain.planning.encode_plan import (
    EncodePlan,
    Refuse,
    Skip,
    SkipReason,
    plan_measured,
)
from hevcq.domain.profile_sections import ChunkMode
from hevcq.domain.verdict import Done, Release, Skipped, Verdict
from hevcq.errors import MediaRefused
from hevcq.ports.encoder import (
    EncodeRequest,
    SetReport,
    SetRequest,
    VerifyRequest,
)
from hevcq.ports.ledger import Granted
from hevcq.worker.delivery.claim import ClaimedTask
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.delivery.job import Job, SplitRequest, SplitVideo, local_path
from hevcq.worker.publish import Made, adopt, publish
from hevcq.worker.scratch import sha256_file


@dataclass(frozen=True, slots=True)
class _Subject:
    """A fetched source and its encode plan."""

    path: Path
    location: str
    folder: Path
    info: MediaInfo
    plan: EncodePlan
    sha256: str
    is_trimmed: bool = False
    """Whether `location` is a trimmed copy, which no other worker has: it is not split."""

    @property
    def output(self) -> Path:
        """Where to encode: a file, or a folder for a set."""
        return self.folder / f"rendition.{self.plan.extension}"


class EncodeJob(Job):
    """One attempt at a whole video."""

    is_split = False
    """Whether the video was split; the ledger then has the job's state already."""

    def __init__(
        self, context: WorkerContext, claimed: ClaimedTask, granted: Granted, split: SplitVideo
    ) -> None:
        super().__init__(context, claimed, granted)
        self._split = split

    def record(self, verdict: Verdict) -> Verdict:
        """Write the verdict to the ledger unless the job was split; see the base class."""
        return verdict if self.is_split else super().record(verdict)

    def _run(self) -> Done | Skipped | Release:
        """Work until the rendition is published, the video is split, or there is nothing to do."""
        self._report.phase(Phase.FETCH)
        with self._context.scratch.job(self._task.job_id) as folder:
            self._require_room()
            decided = self._fetched(folder)
            if not isinstance(decided, Made):
                return decided
            rendition = publish(self._context, self.claimed, decided, self._report)
        # Publish, then complete: a kill between the two leaves a rendition that the next attempt
        # adopts. The other order could leave a DONE job without a rendition.
        return self._complete(rendition, decided.report.cpu_s)

    def _fetched(self, folder: Path) -> Made | Done | Skipped | Release:
        """Do everything that needs the source; it is released before the rendition is published."""
        with ExitStack() as stack:
            found = stack.enter_context(
                self._store.fetch(
                    self._source,
                    folder,
                    moved=self._report.moved(Phase.FETCH, self._source.size),
                    stop=self._lease.stop,
                )
            )
            return self._decide(local_path(found), found.location, folder)

    def _decide(self, path: Path, location: str, folder: Path) -> Made | Done | Skipped | Release:
        self._report.phase(Phase.PROBE)
        info = self._context.encoder.probe(location, stop=self._lease.stop)
        plan = self._context.plan(self._profile, info)
        if isinstance(plan, Skip):
            return Skipped(reason=f"{plan.reason.value}: {plan.detail}")
        if isinstance(plan, Refuse):
            raise MediaRefused(f"{plan.detail} ({plan.policy})")
        sha256 = sha256_file(path, self._lease.check)
        known = self._context.retry_control_call(
            lambda: self._skips.recall(sha256, self._profile.name, self._profile.revision)
        )
        if known is not None:
            return Skipped(reason=f"{SkipReason.REMEMBERED.value}: {known.reason}")
        self._lease.check()
        subject = _Subject(path, location, folder, info, plan, sha256)
        return self._fulfil(self._trimmed(subject))

    def _trimmed(self, subject: _Subject) -> _Subject:
        """Return the subject with a recording's whole pictures only; the digest stays the source's."""
        encoder, stop = self._context.encoder, self._lease.stop
        trimmed = encoder.trim_recording(
            subject.location, subject.info, self._profile.policies, subject.folder, stop=stop
        )
        if trimmed is None:
            return subject
        location = str(trimmed.path)
        info = encoder.probe(location, stop=stop)
        plan = self._context.plan(self._profile, info)
        if not isinstance(plan, EncodePlan):
            raise MediaRefused(f"{plan.detail} (the recording's whole pictures alone)")
        # What ffmpeg's copy has lost already forbids a replacement as much as what the encode loses.
        losses = tuple(dict.fromkeys((*subject.plan.losses, *plan.losses)))
        noted = plan.noting(*trimmed.notices).model_copy(update={"losses": losses})
        return replace(subject, location=location, info=info, plan=noted, is_trimmed=True)

    def _fulfil(self, subject: _Subject) -> Made | Done | Skipped | Release:
        key = rendition_key(self._source.key, self._profile.name, subject.plan.extension)
        earlier = adopt(
            self._context,
            self._lease,
            self._task,
            self._profile,
            key=key,
            source_sha256=subject.sha256,
        )
        if earlier is not None:
            return self._complete(earlier.rendition, earlier.cpu_s)
        self._report.phase(Phase.PREFLIGHT)
        measured = self._context.encoder.preflight(
            subject.location, subject.info, self._profile, stop=self._lease.stop
        )
        decided = subject.info, subject.plan
        info, plan = plan_measured(self._context.plan, self._profile, decided, measured)
        subject = replace(subject, info=info, plan=plan)
        too_large = self._sampled(subject, measured)
        if too_large is not None:
            return too_large
        split = self._split_where_it_pays(subject, measured)
        if split is not None:
            return split
        with self._context.encoding(self.claimed.worker, self._lease.check):
            return self._make(subject, measured, key)

    def _sampled(self, subject: _Subject, measured: Measurement) -> Skipped | None:
        """Encode some seconds of a long video first; return None unless the whole is bound to be too large.

        Raises VerificationFailed if even a few seconds become a wrong picture.
        """
        if (_duration(measured, subject.info) or 0.0) < self._context.encoder.sampled_from_s:
            return None
        request = replace(self._request(subject, measured), output=subject.folder / "sample.mkv")
        with self._context.encoding(self.claimed.worker, self._lease.check):
            gates = self._context.encoder.try_samples(request, measured, stop=self._lease.stop)
        self._lease.check()
        reason = kept_original(gates)
        if reason is None:
            return None
        return self._remember_skip(subject.sha256, self._profile, reason)

    def _request(self, subject: _Subject, measured: Measurement) -> EncodeRequest:
        return EncodeRequest(
            profile=self._profile,
            plan=subject.plan,
            info=subject.info,
            location=subject.location,
            output=subject.output,
            duration_s=_duration(measured, subject.info),
            source_size=self._source.size,
            max_seconds=self._lease.left_s,
            threads=self._profile.bounds.threads or self._context.threads,
        )

    def _complete(self, rendition: RenditionRef, cpu_s: float) -> Done:
        self.transitions.complete(rendition, cpu_s=cpu_s)
        self.rendition = rendition
        return Done()

    def _split_where_it_pays(
        self, subject: _Subject, measured: Measurement
    ) -> Done | Release | None:
        """Split the video into chunks for many workers; return None if it is to be encoded here.

        Its length decides first: an index of key frames costs a pass over all packets.
        """
        duration_s = _duration(measured, subject.info)
        if subject.is_trimmed or not self._may_pay(duration_s):
            return None
        request = SplitRequest(
            location=subject.location,
            info=subject.info,
            plan=subject.plan,
            measured=measured,
            source_sha256=subject.sha256,
            duration_s=duration_s,
        )
        verdict = self._split(self._context, self, request)
        if verdict is not None:
            self.is_split = True
            self._notice(subject.plan.notices)
        return verdict

    def _may_pay(self, duration_s: float | None) -> bool:
        chunking = self._profile.chunking
        if chunking.mode is ChunkMode.AUTO:
            several = self._context.slots_per_job(self._profile) > 1
            return several and (duration_s or 0.0) >= chunking.least_video_s
        return chunking.mode is ChunkMode.ALWAYS

    def _make(self, subject: _Subject, measured: Measurement, key: str) -> Made | Skipped:
        made = self._encode(subject, measured)
        output, report = subject.output, made.report
        request = VerifyRequest(
            profile=self._profile,
            plan=subject.plan,
            location=subject.location,
            info=subject.info,
            measured=measured,
            source_size=self._source.size,
            output=output,
            report=report,
            max_seconds=self._lease.left_s,
        )
        gates, verify_s = self._verify(request, subject.info.duration_s, made.files)
        reason = kept_original(gates)
        if reason is not None:
            return self._remember_skip(subject.sha256, self._profile, reason)
        return Made(
            key=key,
            file=output / MASTER if made.files else output,
            source_sha256=subject.sha256,
            plan=subject.plan.noting(*made.notices),
            report=report,
            gates=gates,
            verify_s=verify_s,
            members=tuple(file for file in made.files if file.name != MASTER),
        )

    def _encode(self, subject: _Subject, measured: Measurement) -> SetReport:
        encoder, stop = self._context.encoder, self._lease.stop
        self._require_room()
        self._notice(subject.plan.notices)
        self._report.phase(Phase.ENCODE)
        request = self._request(subject, measured)
        on_progress = self._report.encoding(Phase.ENCODE, request.duration_s)
        if subject.plan.ladder is None:
            made = SetReport((), encoder.encode(request, on_progress=on_progress, stop=stop))
        else:
            version = set_version(self._task.job_id, self.claimed.fence.number)
            wanted = SetRequest(request, measured, version)
            made = encoder.encode_set(wanted, on_progress=on_progress, stop=stop)
            self._notice(made.notices)
        self._context.breaker.succeeded()
        self._lease.check()
        return made

    def _require_room(self) -> None:
        """Raise DiskFull unless another file of the source's size fits on the disk.

        Called before the fetch, which may copy the source, and again before the encode, whose
        output is normally no larger than its source.
        """
        self._require_free_space(self._source.size, self._source.key)


def _duration(measured: Measurement, info: MediaInfo) -> float | None:
    """Return the measured length in seconds; the header's claim only if none was measured."""
    ends = [
        track.end_s - (track.first_pts_s or 0.0)
        for track in measured.tracks
        if track.kind is StreamKind.VIDEO and track.end_s is not None
    ]
    return max(ends, default=info.duration_s)
