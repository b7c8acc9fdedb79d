"""Where a campaign takes place: a data folder, a PostgreSQL server, or an emulator of AWS."""

import os
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hevcq.backends.aws.clients import Clients
from hevcq.backends.aws.factory import open_aws
from hevcq.backends.sql.factory import open_sql
from hevcq.domain.job import Source
from hevcq.domain.profile import Profile
from hevcq.ports.backend import Backend
from hevcq.settings.model import AwsSettings, Settings
from hevcq.util.clock import SystemClock
from support.aws.emulator import KEYS, REGION, Emulator, create_resources
from support.postgres import Server


@dataclass
class Place:
    """One way of running. Everything that opens it does so in a process of its own (`apart`).

    The clients are made before any fork and first used after it, so that a worker starts in
    milliseconds and no connection is shared.
    """

    folder: Path
    profiles: Mapping[str, Profile]
    emulator: Emulator | None = None
    server: Server | None = None
    clients: Clients | None = None
    aws: AwsSettings = field(default_factory=AwsSettings)

    def __post_init__(self) -> None:
        self.videos.mkdir(parents=True, exist_ok=True)
        if self.emulator is None:
            return
        os.environ.update(KEYS)
        self.clients = self.emulator.clients
        self.aws = AwsSettings(
            region=REGION,
            endpoint_url=self.emulator.endpoint,
            input_bucket="uploads",
            output_bucket="out",
            table="kills",
        )
        apart(lambda: self._made(self.clients))
        topic = f"arn:aws:sns:{REGION}:123456789012:{self.aws.queue_prefix}uploads"
        self.aws = self.aws.model_copy(update={"topic_arn": topic})

    def _made(self, clients: Clients) -> None:
        create_resources(clients, self.aws, self.profiles)
        # Every version is kept, so that a rendition that was replaced is seen.
        clients.s3.put_bucket_versioning(
            Bucket=self.aws.output_bucket, VersioningConfiguration={"Status": "Enabled"}
        )

    @property
    def on_aws(self) -> bool:
        return self.emulator is not None

    @property
    def videos(self) -> Path:
        return self.folder / "videos"

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    def open(self) -> Backend:
        """Open the ports, in a process that was made for this."""
        if not self.on_aws:
            settings = Settings(data_dir=self.folder / "data")
            if self.server is not None:
                at = {"backend": "postgres", "postgres": {"dsn": self.server.dsn}}
                settings = Settings.model_validate({"data_dir": settings.data_dir, **at})
            return open_sql(settings, self.profiles, SystemClock()).backend
        settings = Settings(backend="aws", data_dir=self.folder / "data", aws=self.aws)
        return open_aws(settings, self.profiles, SystemClock(), self.clients)

    def submit(self, backend: Backend, path: Path, profile: str) -> Source:
        """Bring a video in as a person does; on AWS its upload announces itself."""
        source = backend.store.accept(
            path, f"TODO/{profile}/{path.name}", moved=lambda _: None, stop=threading.Event()
        )
        if not backend.announces_uploads:
            backend.task_publisher.publish(source, [profile], announced=False)
        return source

    def close(self) -> None:
        if self.emulator is not None:
            self.emulator.close()


def apart(action: Callable[[], None]) -> None:
    """Run something in a fork: no database and no connection may be shared with the workers."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        except BaseException:  # noqa: BLE001 - the fork must not go on as its parent
            traceback.print_exc()
        finally:
            os._exit(code)
    if os.waitpid(pid, 0)[1] != 0:
        raise RuntimeError("A helper process failed.")
