"""The backends that every contract suite runs over.

To add one: write a World, register how it is opened in OPENERS, and add a param to BACKENDS (with
a marker where it needs one). Where a backend cannot do something that only a test needs, leave the
capability out of `can`; the tests that need it then skip with a reason. There is no `if` on a name.
"""

import os
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import pytest

from hevcq.backends.aws.clients import Clients, make_clients
from hevcq.backends.sql.factory import SqlBackend
from hevcq.domain.job import Source, Task, new_job
from hevcq.domain.keys import LIBRARY_BUCKET
from hevcq.domain.profile import Profile, QueueNumbers, VideoCodec
from hevcq.domain.profile_sections import VideoRecipe
from hevcq.domain.videos import Video as UploadedVideo
from hevcq.errors import Unavailable
from hevcq.ports.backend import Backend
from hevcq.ports.ledger import Ledger
from hevcq.ports.queue import Queue
from hevcq.ports.store import Input, Store
from hevcq.ports.videos import Accounts, VideoFiles, VideoRecords
from hevcq.settings.model import AwsSettings, Settings
from support.clips import ManualClock

VISIBILITY_S = 60
MAX_RECEIVES = 3
NUMBERS = QueueNumbers(visibility_s=VISIBILITY_S, max_receives=MAX_RECEIVES, max_failures=2)
PROFILES = {
    name: Profile(
        name=name,
        description="for contracts",
        video=VideoRecipe(codec=VideoCodec.HEVC, crf=28.0),
        queue=NUMBERS,
    )
    for name in ("hevc", "720p")
}

SIGNALS = "signals"
"""A waiting receive hears a send of the same process, on a clock that a test moves."""
BULK = "bulk"
"""Many jobs can be registered at once, so that a test with 20,000 of them is quick."""
LATE = "late"
"""Whether a receipt past its deadline was taken over is known; where a service cannot say (SQS),
such a receipt is stale."""
LINKS = "links"
"""Sources stay where they are in the library: they are linked, not copied."""
KEY_ORDER = "key order"
"""A listing has keys in the order of their bytes."""
ODD_NAMES = "odd names"
"""A key may have a backslash, and more than 255 bytes between two slashes."""
ALL_KEYS = frozenset({KEY_ORDER, ODD_NAMES})


@dataclass
class World:
    """One opened backend, and what a test may do to it from outside."""

    clock: ManualClock
    backend: Backend
    videos: VideoRecords | None = None
    files: VideoFiles | None = None
    accounts: Accounts | None = None
    upload: Callable[[UploadedVideo, bytes], None] = lambda video, content: None
    """Send bytes to where the page told a client to send them; they replace what came before."""
    can: frozenset[str] = ALL_KEYS
    put_body: Callable[[str, str], None] = lambda queue, body: None
    register_many: Callable[[Iterable[tuple[Source, str]]], object] = lambda pairs: None
    close: Callable[[], None] = lambda: None
    folder: Path = field(default_factory=Path)

    @property
    def queue(self) -> Queue:
        return self.backend.queues["hevc"]

    @property
    def ledger(self) -> Ledger:
        return self.backend.ledger

    def advance(self, seconds: float) -> None:
        """Let time pass, for the backend and whatever serves it."""
        self.clock.advance(seconds)

    def replace_source(self, source: Source, path: Path, content: bytes) -> None:
        """Put other bytes where the source was, as a person may at any time."""
        path.write_bytes(content)

    def remove_source(self, source: Source, path: Path) -> None:
        """Delete the source, as a person may at any time."""
        path.unlink()

    def read(self, given: Input) -> bytes:
        """Read what ffmpeg would."""
        return Path(given.location).read_bytes()

    def needs(self, capability: str) -> None:
        if capability not in self.can:
            pytest.skip(f"this backend does not offer {capability!r}")


def open_memory(folder: Path) -> World:
    from support.fakes.backend import memory_backend

    clock = ManualClock()
    backend = memory_backend(clock, PROFILES)
    return World(
        clock=clock,
        backend=backend,
        can=ALL_KEYS | {SIGNALS, LATE},
        put_body=lambda queue, body: backend.queues[queue].send_body(body),
        close=backend.close,
        folder=folder,
    )


def open_embedded(folder: Path) -> World:
    from hevcq.backends.sql.factory import open_sql

    clock = ManualClock()
    return sql_world(folder, clock, open_sql(Settings(data_dir=folder / "data"), PROFILES, clock))


def open_postgres(folder: Path) -> World:
    """Open the server with the clock of the test: its own cannot be moved."""
    from hevcq.backends.sql.factory import open_backend
    from hevcq.util.clock import SystemClock
    from support.postgres import database

    clock, shared = ManualClock(), database(SystemClock())
    opened = open_backend(folder / "data", folder / "data", PROFILES, clock, shared)
    world = sql_world(folder, clock, opened)
    world.can -= {BULK}  # 20,000 jobs in one transaction, whose count is one row
    return world


def open_bucket(folder: Path) -> World:
    """Open the server's database beside a bucket on moto; videos of libraries are linked."""
    from support.aws.moto_server import clients, endpoint, reset

    reset()
    clients().s3.create_bucket(
        Bucket="farm", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    return _beside(folder, endpoint(), "farm", clients())


def open_s3_server(folder: Path) -> World:
    """The same with a new bucket on the server of S3_SERVER, by the keys that the environment had."""
    with mock.patch.dict(os.environ, S3_KEYS):
        clients = make_clients(AwsSettings(region="us-east-1", endpoint_url=S3_SERVER))
    name = f"hevcq-test-{secrets.token_hex(8)}"
    clients.s3.create_bucket(Bucket=name)
    world = _beside(folder, S3_SERVER, name, clients)
    if S3_SERVER not in LACKING:
        LACKING[S3_SERVER] = _lacking(world.backend.store)
    world.can -= LACKING[S3_SERVER]
    close = world.close

    def remove() -> None:
        close()
        for page in clients.s3.get_paginator("list_object_versions").paginate(Bucket=name):
            for each in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
                gone = {"Key": each["Key"], "VersionId": each["VersionId"]}
                clients.s3.delete_object(Bucket=name, **gone)
        clients.s3.delete_bucket(Bucket=name)

    world.close = remove
    return world


LACKING: dict[str, frozenset[str]] = {}


def _lacking(store: Store) -> frozenset[str]:
    """Try what S3 promises of keys and a server that keeps them as files may not; hevcq does without."""
    lacking, odd = set[str](), ["back\\slash", "x" * 256]
    try:
        for key in ("é", "a", *odd):
            store.put(key, b"", metadata={})
    except Unavailable:
        lacking.add(ODD_NAMES)
    found = [each.key for each in store.list("")]
    if not {"é", "a", *odd} <= set(found):
        lacking.add(ODD_NAMES)
    if found != sorted(found, key=str.encode):
        lacking.add(KEY_ORDER)
    for key in found:
        store.delete(key)
    return frozenset(lacking)


_proven: set[str] = set()


def _beside(folder: Path, address: str, name: str, clients: Clients) -> World:
    from hevcq.backends.aws.factory import CompatibleStore
    from hevcq.backends.sql.factory import open_backend
    from hevcq.util.clock import SystemClock
    from support.postgres import database

    clients.s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    s3 = {"endpoint_url": address, "bucket": name}
    settings = Settings(backend="postgres", data_dir=folder / "data", s3=s3)
    clock, shared = ManualClock(), database(SystemClock())
    bucket = CompatibleStore(settings, clock, clients)
    bucket.write_mark("of this farm")
    if address not in _proven:
        bucket.require_conditions()
        _proven.add(address)
    data = settings.data_dir
    opened = open_backend(data, data, PROFILES, clock, shared).with_store(bucket.beside)
    world = sql_world(folder, clock, opened)

    def upload(video: UploadedVideo, content: bytes) -> None:
        import httpx2

        # Servers other than moto enforce the length that is signed.
        assert httpx2.put(bucket.video_files.part_url(video, 1), content=content).is_success

    world.files, world.upload = bucket.video_files, upload
    world.can -= {BULK}
    return world


def sql_world(folder: Path, clock: ManualClock, opened: SqlBackend) -> World:
    from hevcq.backends.sql.ledger import insert_job
    from hevcq.backends.sql.queue import send
    from hevcq.backends.sql.video_records import FolderVideoFiles, SqlAccounts

    files = FolderVideoFiles(folder / "data" / "videos", opened.backend.store)

    def upload(video: UploadedVideo, content: bytes) -> None:
        with files.receive(video) as receiver:
            receiver.cut(0)
            receiver.append(content)
            receiver.sync()

    def put_body(queue: str, body: str) -> None:
        opened.database.write(lambda c: send(c, queue, [(body, "", False)], now=clock.now()))

    def register_many(wanted: Iterable[tuple[Source, str]]) -> None:
        listed = list(wanted)
        opened.database.write(
            lambda c: [insert_job(c, new_job(source, name, clock.now())) for source, name in listed]
        )

    return World(
        clock=clock,
        backend=opened.backend,
        videos=opened.videos,
        files=files,
        accounts=SqlAccounts(opened.database),
        upload=upload,
        can=ALL_KEYS | {SIGNALS, BULK, LATE, LINKS},
        put_body=put_body,
        register_many=register_many,
        close=opened.close,
        folder=folder,
    )


@dataclass
class CloudWorld(World):
    """A farm on a moto server; a source there is an object, not the file it came from."""

    replace: Callable[[Source, bytes], None] = lambda source, content: None
    remove: Callable[[Source], None] = lambda source: None

    def replace_source(self, source: Source, path: Path, content: bytes) -> None:
        self.replace(source, content)

    def remove_source(self, source: Source, path: Path) -> None:
        self.remove(source)


def open_aws(folder: Path) -> World:
    from hevcq.backends.aws.factory import buckets_of
    from hevcq.backends.aws.videos.files import S3VideoFiles
    from hevcq.backends.aws.videos.records import DynamoAccounts, DynamoVideoRecords
    from support.aws.moto_server import make_farm

    farm = make_farm(PROFILES, input_bucket=LIBRARY_BUCKET)
    s3, aws = farm.clients.s3, farm.settings.aws
    files = S3VideoFiles(s3, buckets_of(aws))

    def upload(video: UploadedVideo, content: bytes) -> None:
        import httpx2

        httpx2.put(files.part_url(video, 1), content=content).raise_for_status()

    return CloudWorld(
        clock=farm.clock,
        backend=farm.backend,
        videos=DynamoVideoRecords(farm.clients.dynamodb, aws.videos),
        files=files,
        accounts=DynamoAccounts(farm.clients.dynamodb, aws.videos),
        upload=upload,
        put_body=farm.put_body,
        close=farm.backend.close,
        folder=folder,
        replace=lambda source, content: s3.put_object(
            Bucket=source.bucket, Key=source.key, Body=content
        ),
        remove=lambda source: s3.delete_object(Bucket=source.bucket, Key=source.key),
    )


OPENERS: dict[str, Callable[[Path], World]] = {
    "memory": open_memory,
    "embedded": open_embedded,
    "postgres": open_postgres,
    "aws": open_aws,
    "bucket": open_bucket,
    "s3-server": open_s3_server,
}
BACKENDS = [
    pytest.param("memory"),
    pytest.param("embedded"),
    pytest.param("postgres"),
    pytest.param("aws", marks=pytest.mark.aws),
]
S3_SERVER = os.environ.get("S3_SERVER", "")
"""The address of an S3-compatible server to try, as `make s3-check` gives it."""
S3_KEYS = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
NO_SERVER = pytest.mark.skipif(not S3_SERVER, reason="make s3-check tries a server")
STORES = [
    *BACKENDS,
    pytest.param("bucket", marks=pytest.mark.aws),
    pytest.param("s3-server", marks=[pytest.mark.aws, pytest.mark.slow, NO_SERVER]),
]
"""Where the queue and the ledger are those of PostgreSQL, which have their suites already."""


def source(name: object = 1, *, version: str = "v1", size: int = 1000) -> Source:
    return Source(bucket=LIBRARY_BUCKET, key=f"TODO/all/{name}.mp4", version=version, size=size)


def task(name: object = 1, *, profile: str = "hevc", group: str = "") -> Task:
    return Task(source=source(name), profile=profile, group=group)
