"""Take this machine out of service: for one profile by a self-test, for all by its circuit breaker.

ffmpeg must pass a self-test of a profile before the profile's first job. If it fails, the jobs wait in
their queue, where otherwise one after another would fail. It is tested again once ffmpeg or the recipe
changed, and every RETEST_AFTER_S seconds. A machine on which different jobs fail in a row takes no more
work at all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from hevcq.domain.profile import Profile
from hevcq.domain.schedule import Closed, RunningWork
from hevcq.domain.verdict import FailureClass
from hevcq.errors import HevcqError, Stopped, WorkerUnfit
from hevcq.ports.encoder import Encoder
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger

RETEST_CHECK_S = 5.0
"""Seconds between checks whether ffmpeg or a recipe of a failed profile changed."""
RETEST_AFTER_S = 120.0
"""Seconds after which a failed profile is tested again unchanged: a library of ffmpeg may be repaired."""
STOPPED = Closed("The self-test of ffmpeg was stopped.", RunningWork.BORDER)


TestedPair = tuple[str, str]
"""A revision of a profile and a build of ffmpeg, the subjects of a self-test."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """A failed self-test at `at` (monotonic seconds); `tested` None lets the next check repeat it."""

    problem: str
    tested: TestedPair | None
    at: float


class SelfTests:
    """Run and remember each profile's self-test. Safe to use from any thread.

    `folder` makes an empty folder for a test. `profiles` returns the profiles in force, by name.
    `report` gets all problems by profile whenever they change.
    """

    def __init__(
        self,
        encoder: Encoder,
        folder: Callable[[str], AbstractContextManager[Path]],
        clock: Clock,
        profiles: Callable[[], Mapping[str, Profile]],
        report: Callable[[Mapping[str, str]], None],
    ) -> None:
        self._encoder, self._folder, self._clock = encoder, folder, clock
        self._profiles, self._report = profiles, report
        self._failures: dict[str, _Failure] = {}
        self._testing, self._no_stop = threading.Lock(), threading.Event()

    def why_closed(self, profile: str) -> Closed | None:
        """Return why new work of this profile waits, or None; running work goes on to its end."""
        failure = self._failures.get(profile)
        return Closed(failure.problem, RunningWork.BORDER) if failure is not None else None

    def require(self, profile: Profile, stop: threading.Event) -> Closed | None:
        """Test a profile before its job begins; return why the job must wait, or None."""
        with self._testing:
            if profile.name not in self._failures and not self._test(profile, stop):
                return STOPPED
        return self.why_closed(profile.name)

    def retest_failed(self) -> None:
        """Test failed profiles again if ffmpeg or the recipe changed, or RETEST_AFTER_S is over."""
        profiles = self._profiles()
        for name, failure in list(self._failures.items()):
            profile, age_s = profiles.get(name), self._clock.monotonic() - failure.at
            if profile is not None and (
                age_s >= RETEST_AFTER_S or self._pair(profile) != failure.tested
            ):
                with self._testing:
                    self._test(profile, self._no_stop)

    def _test(self, profile: Profile, stop: threading.Event) -> bool:
        """Test a profile and note the result; return False if `stop` ended the test."""
        log, problem = get_logger(profile=profile.name), ""
        tested: TestedPair | None = self._pair(profile)
        try:
            with self._folder("self-test") as folder:
                self._encoder.self_test(profile, folder, stop=stop)
        except Stopped:
            return False
        except WorkerUnfit as error:
            problem = str(error)
        except HevcqError as error:  # such as a full disk, which may pass at any moment
            problem, tested = str(error), None
        except Exception as error:
            log.exception("self_test_broke")
            problem = f"The self-test of the profile {profile.name} broke: {error!r}."
        before = self._failures.get(profile.name)
        if problem:
            self._failures[profile.name] = _Failure(problem, tested, self._clock.monotonic())
        else:
            self._failures.pop(profile.name, None)
        if problem != (before.problem if before is not None else ""):
            log.warning("self_test", reason=problem or "It passes now.")
            self._report({name: failure.problem for name, failure in self._failures.items()})
        return True

    def _pair(self, profile: Profile) -> TestedPair:
        try:
            return profile.revision, self._encoder.build()
        except HevcqError as error:
            return profile.revision, str(error)


OUT_OF_SERVICE_AFTER_JOBS = 5
"""Different jobs that must fail in a row before the worker is taken out of service. Only failures that
do not point at the source count: five such videos in a row mean a broken encoder, not broken videos. If
the encoder fails its self-test after the first of them, the worker stops at once. If it passes, each
failure is suspected to be the worker's and returns uncounted while its message has receives to spare.
Neither way costs a job an attempt."""
SUSPECT = frozenset({FailureClass.ENCODER, FailureClass.STALLED, FailureClass.INTERNAL})
"""The failure classes that may be this machine's fault."""


class CircuitBreaker:
    """Take this machine out of service when different jobs fail in a row; all its slots share it."""

    def __init__(self, max_failing_jobs: int = OUT_OF_SERVICE_AFTER_JOBS) -> None:
        self._max_failing_jobs = max_failing_jobs
        self._failing: set[str] = set()
        self._lock = threading.Lock()

    def record_success(self) -> None:
        with self._lock:
            self._failing.clear()

    def may_be_worker_fault(self, job_id: str, failure_class: FailureClass, *, first: bool) -> bool:
        """Return whether this job's failure may be the worker's fault; call before `record_failure`.

        It may be if no failure of the job was suspected before (`first`), so that another worker
        tries too: a worker that has just become unfit has no other failure to show. Later it may be
        if another job failed here too and none succeeded in between. The caller must limit how often
        it acts on this, so that a video that always breaks the encoder still ends.
        """
        with self._lock:
            others = bool(self._failing - {job_id})
        return failure_class in SUSPECT and (first or others)

    def record_failure(self, job_id: str, failure_class: FailureClass) -> bool:
        """Record a failure; return whether this machine must go out of service.

        Repeated failures of one job count once: they are that job's problem.
        """
        if failure_class not in SUSPECT:
            return False
        with self._lock:
            self._failing.add(job_id)
            return len(self._failing) >= self._max_failing_jobs
