"""A farm on a real emulator process, and hevcq's own processes working on it by HTTP."""

import itertools
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from e2e.embedded.farm import HEVCQ, Farm, until
from hevcq.backends.aws.clients import Clients
from hevcq.backends.aws.factory import open_aws
from hevcq.domain.job import JobRecord, JobState
from hevcq.domain.profile import Profile
from hevcq.ports.backend import Backend
from hevcq.ports.ledger import JobFilter
from hevcq.settings.model import AwsSettings, Settings
from hevcq.settings.profile_files import load_profiles
from hevcq.util.clock import SystemClock
from support import forkserver
from support.aws.emulator import KEYS, REGION, Emulator, create_resources

# The real names with small boxes, because what fits into the box already is skipped.
PROFILES = {
    "hevc": "codec: hevc, crf: 34",
    "720p": "codec: h264, crf: 30, max_width: 128, max_height: 96",
}
PROFILE = """
name: {name}
description: for tests
subscribe: true
container: {container}
video: {{{video}, preset: {preset}}}
gates: {{minimum_saving: null}}
bounds: {{threads: 0{bounds}}}
queue:
  visibility_s: {visibility_s}
  backoff_base_s: 1
  max_receives: {max_receives}
  max_failures: {max_failures}
"""
_numbers = itertools.count(1)


@dataclass
class Fleet(Farm):
    """Buckets, queues, topic and table of one test's own; `worker` starts a real worker process."""

    emulator: Emulator | None = None
    profiles: tuple[str, ...] = tuple(PROFILES)
    logs: dict[int, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("media", "profiles"):
            (self.folder / name).mkdir(parents=True)
        for name in self.profiles:
            self.recipe(name)
        number = next(_numbers)
        wanted = AwsSettings(
            region=REGION,
            endpoint_url=self.emulator.endpoint,
            input_bucket=f"uploads-{number}",
            output_bucket=f"out-{number}",
            table=f"t{number}",
        )
        self.aws = create_resources(self.clients, wanted, self.known)

    def recipe(self, name: str, **facts: object) -> None:
        """Write or change a profile: preset, container, bounds (as YAML), numbers of the queue."""
        known = {
            "video": PROFILES.get(name, PROFILES["hevc"]),
            "container": "source" if name == "hevc" else "mp4",
            "preset": "ultrafast",
            "bounds": "",
            "visibility_s": 6,
            "max_receives": 10,
            "max_failures": 3,
        }
        text = PROFILE.format(name=name, **{**known, **facts})
        (self.folder / "profiles" / f"{name}.yaml").write_text(text)

    @property
    def clients(self) -> Clients:
        return self.emulator.clients

    @property
    def known(self) -> Mapping[str, Profile]:
        return load_profiles(self.folder / "profiles")

    @cached_property
    def backend(self) -> Backend:
        """A look at the farm from the test itself."""
        settings = Settings(backend="aws", aws=self.aws)
        return open_aws(settings, self.known, SystemClock(), self.clients)

    @property
    def environment(self) -> dict[str, str]:
        own = {
            f"HEVCQ_AWS__{name.upper()}": json.dumps(value)
            if isinstance(value, tuple)
            else str(value)
            for name, value in self.aws.model_dump().items()
        }
        return {**own, **KEYS, "HEVCQ_BACKEND": "aws"}

    def start(self, *words: object, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        return super().start(*words, env={**self.environment, **(env or {})})

    def worker(self, *profiles: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Start a worker process; its log goes to a file, see `log`."""
        path = self.folder / f"worker-{len(self.logs)}.log"
        settings = {
            "HEVCQ_PROFILES_DIR": str(self.folder / "profiles"),
            "HEVCQ_MIN_FREE_MIB": "1",
            "HEVCQ_STOP_GRACE_S": "0",
            "HEVCQ_LOG_STYLE": "json",
        }
        with path.open("w") as log:
            child = forkserver.start(
                [str(HEVCQ), "--data-dir", str(self.data), "worker", *profiles, "--workers", "1"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                text=True,
                env={**os.environ, **self.environment, **settings, **(env or {})},
                cwd=self.folder,
            )
        self._running.append(child)
        self.logs[child.pid] = path
        return child

    def workers(self, *profiles: str) -> list[subprocess.Popen[str]]:
        """Start one worker for each of these profiles; none: for every profile."""
        return [self.worker(name) for name in profiles or self.profiles]

    def log(self) -> str:
        """Return what every worker has logged."""
        return "\n".join(path.read_text() for path in self.logs.values())

    def put(self, key: str, content: bytes) -> None:
        """Upload as any program does."""
        self.clients.s3.put_object(Bucket=self.aws.input_bucket, Key=key, Body=content)

    def jobs(self, **wanted: object) -> list[JobRecord]:
        return list(self.backend.ledger.jobs(JobFilter(**wanted)))

    def until_done(self, count: int, *, state: JobState = JobState.DONE) -> list[JobRecord]:
        """Wait until as many jobs are in that end state."""

        def enough() -> bool:
            return len(self.jobs(states=frozenset({state}))) >= count

        try:
            until(enough, timeout=90)
        except AssertionError as error:
            raise AssertionError(f"{self.jobs()}\n{self.log()}") from error
        return self.jobs(states=frozenset({state}))

    def until_quiet(self, *profiles: str) -> None:
        """Wait until these queues (none: all) have no message: a job is settled after its end."""

        def quiet() -> bool:
            names = profiles or self.profiles
            depths = [self.backend.queues[name].depth() for name in names]
            return all(d.ready + d.in_flight + d.delayed == 0 for d in depths)

        until(quiet, timeout=60)

    def renditions(self) -> list[str]:
        found = self.backend.store.list("DONE/")
        return sorted(each.key for each in found if not each.key.endswith(".json"))

    def open_uploads(self) -> list[str]:
        found = []
        for bucket in (self.aws.input_bucket, self.aws.output_bucket):
            answer = self.clients.s3.list_multipart_uploads(Bucket=bucket)
            found += [upload["Key"] for upload in answer.get("Uploads", [])]
        return found

    def left_behind(self) -> list[str]:
        """Everything that should be nowhere once the work is done."""
        scratch = self.data / "scratch"
        files = [p.name for p in scratch.rglob("*") if p.is_file() and p.suffix not in {".lock"}]
        work = [each.key for each in self.backend.store.list("work/")]
        return [*work, *self.open_uploads(), *files]

    def strays(self) -> list[str]:
        """Everything of hevcq's in the media folder; the scratch is that of running workers."""
        return [path.name for path in self.media.rglob(".hevcq-*")]

    def close(self) -> None:
        super().close()
        self.__dict__.pop("backend", None)
