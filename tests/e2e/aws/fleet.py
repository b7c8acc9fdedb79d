"""A farm on a real emulator process, and hevcq's own processes working on it by HTTP."""

import itertools
import json
import subprocess
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from e2e.embedded.farm import Farm, until
from hevcq.backends.aws.clients import Clients
from hevcq.backends.aws.factory import open_aws
from hevcq.domain.job import JobRecord, JobState
from hevcq.ports.backend import Backend
from hevcq.ports.ledger import JobFilter
from hevcq.settings.model import AwsSettings, Settings
from hevcq.settings.profile_files import load_profiles
from hevcq.util.clock import SystemClock
from support.aws.emulator import KEYS, REGION, Emulator, create_resources
from support.aws.values import open_parts

# The real names with small boxes, because what fits into the box already is skipped.
PROFILES = {
    "hevc": "container: source\nvideo: {codec: hevc, crf: 34, preset: ultrafast}",
    "720p": "container: mp4\n"
    "video: {codec: h264, crf: 30, max_width: 128, max_height: 96, preset: ultrafast}",
}
PROFILE = """
name: {name}
description: for tests
subscribe: true
{recipe}
gates: {{minimum_saving: null}}
bounds: {{threads: 0}}
queue: {{visibility_s: 6, backoff_base_s: 1, max_receives: 10, max_failures: 3}}
"""
_numbers = itertools.count(1)


@dataclass
class Fleet(Farm):
    """Buckets, queues, topic and table of one test's own; `worker` starts a real worker process."""

    emulator: Emulator | None = None
    logs: dict[int, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("media", "profiles"):
            (self.folder / name).mkdir(parents=True)
        for name, recipe in PROFILES.items():
            text = PROFILE.format(name=name, recipe=recipe)
            (self.folder / "profiles" / f"{name}.yaml").write_text(text)
        number = next(_numbers)
        wanted = AwsSettings(
            region=REGION,
            endpoint_url=self.emulator.endpoint,
            input_bucket=f"uploads-{number}",
            output_bucket=f"out-{number}",
            table=f"t{number}",
        )
        self.known = load_profiles(self.folder / "profiles")
        self.aws = create_resources(self.clients, wanted, self.known)

    @property
    def clients(self) -> Clients:
        return self.emulator.clients

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

    def start(self, *words: object, env: dict[str, str] | None = None, **how: Any):
        return super().start(*words, env={**self.environment, **(env or {})}, **how)

    def worker(self, profile: str) -> subprocess.Popen[str]:
        """Start a worker process; its log goes to a file, see `log`."""
        path = self.folder / f"worker-{len(self.logs)}.log"
        with path.open("w") as log:
            child = self.start("worker", profile, "--workers", "1", stderr=log)
        self.logs[child.pid] = path
        return child

    def workers(self) -> None:
        """Start one worker for each profile."""
        for name in PROFILES:
            self.worker(name)

    def log(self) -> str:
        """Return what every worker has logged."""
        return "\n".join(path.read_text() for path in self.logs.values())

    def put(self, key: str, content: bytes) -> None:
        """Upload as any program does."""
        self.clients.s3.put_object(Bucket=self.aws.input_bucket, Key=key, Body=content)

    def until_done(self, count: int, *, state: JobState = JobState.DONE) -> list[JobRecord]:
        """Wait until as many jobs are in that end state."""

        def ended() -> list[JobRecord]:
            return list(self.backend.ledger.jobs(JobFilter(states=frozenset({state}))))

        try:
            until(lambda: len(ended()) >= count, timeout=90)
        except AssertionError as error:
            jobs = list(self.backend.ledger.jobs(JobFilter()))
            raise AssertionError(f"{jobs}\n{self.log()}") from error
        return ended()

    def until_quiet(self) -> None:
        """Wait until no queue has a message: a job is settled after its end."""

        def is_quiet() -> bool:
            depths = [queue.depth() for queue in self.backend.queues.values()]
            return all(d.ready + d.in_flight + d.delayed == 0 for d in depths)

        until(is_quiet, timeout=60)

    def renditions(self) -> list[str]:
        found = self.backend.store.list("DONE/")
        return sorted(each.key for each in found if not each.key.endswith(".json"))

    def left_behind(self) -> list[str]:
        """Everything that should be nowhere once the work is done."""
        scratch = self.data / "scratch"
        files = [p.name for p in scratch.rglob("*") if p.is_file() and p.suffix not in {".lock"}]
        work = [each.key for each in self.backend.store.list("work/")]
        return [*work, *open_parts(self, self.aws.input_bucket, self.aws.output_bucket), *files]

    def strays(self) -> list[str]:
        """Everything of hevcq's in the media folder; the scratch is that of running workers."""
        return [path.name for path in self.media.rglob(".hevcq-*")]
