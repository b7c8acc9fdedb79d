"""Open the AWS backend, whose resources must exist, or a bucket on an S3-compatible server."""

from __future__ import annotations

import os
import random
import re
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError

from hevcq.backends.aws.clients import DENIED, Clients, code_of, make_clients, translate_errors
from hevcq.backends.aws.dynamodb.ledger import DynamoLedger
from hevcq.backends.aws.s3.store import Buckets, S3Store
from hevcq.backends.aws.sqs.message_parser import Recipient
from hevcq.backends.aws.sqs.queue import SqsQueue
from hevcq.backends.aws.task_publisher import AwsTaskPublisher
from hevcq.backends.aws.videos.files import S3VideoFiles
from hevcq.domain.job import Source
from hevcq.domain.keys import LIBRARY_BUCKET
from hevcq.domain.profile import Profile
from hevcq.errors import (
    ConfigError,
    HevcqError,
    SourceChanged,
    StorageError,
    Unavailable,
    UsageError,
)
from hevcq.ports.backend import Backend
from hevcq.ports.store import Input, Store, StoredObject, Transferred
from hevcq.settings.model import AwsSettings, Settings
from hevcq.util.clock import Clock
from hevcq.util.file_io import fsync_file, fsync_folder
from hevcq.util.log import get_logger
from hevcq.util.retry import RetryPolicy, retry_control_call

MACHINE_FILE = "machine"
"""The file in the data folder with this machine's name, which is part of the keys of its uploads."""
MISSING_CODES: dict[str, tuple[type[HevcqError], str]] = {
    "404": (ConfigError, "there is none of that name"),
    "301": (ConfigError, "it is in another region"),
    "NotFound": (ConfigError, "there is none of that name"),
    "InvalidParameter": (ConfigError, "that is not the ARN of a topic"),
}
NO_QUEUE = frozenset({"QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"})
UNSEEN_QUEUE = "or you do not have access to it"
"""Part of SQS's message for a queue whose URL the caller may not look up
(https://github.com/spring-attic/spring-cloud-aws/pull/417)."""
STARTUP_RETRIES = RetryPolicy(attempts=5, base_s=1.0, cap_s=8.0)
"""For the checks of a starting worker: throttling or a reset connection passes within seconds."""
NO_RETRY = RetryPolicy(attempts=1, base_s=0.0, cap_s=0.0)


def buckets_of(aws: AwsSettings) -> Buckets:
    return Buckets(aws.input_bucket, aws.output_bucket or aws.input_bucket)


def open_aws(
    settings: Settings,
    profiles: Mapping[str, Profile],
    clock: Clock,
    clients: Clients | None = None,
    *,
    caller_retries: bool = False,
) -> Backend:
    """Open the backend on AWS, with one queue for each profile.

    Resources that the role may not inspect (another profile's queue, the topic) are checked at first
    use. A profile without a queue is left out and logged, and asking for its queue raises ConfigError.
    Passed `clients` are not closed with the backend. With `caller_retries` (see `make_clients`) the
    checks are repeated while AWS does not answer. Raises ConfigError if a credential, the region, a
    bucket, every queue, the topic or the table is missing, Unavailable if AWS does not answer.
    """
    aws = settings.aws
    if not aws.input_bucket:
        raise ConfigError(
            "No input bucket is set.", remedy="Set aws.input_bucket (HEVCQ_AWS__INPUT_BUCKET)."
        )
    used = clients if clients is not None else make_clients(aws, caller_retries=caller_retries)
    buckets = buckets_of(aws)
    queues = _queues(used, aws, profiles, clock)
    ledger = DynamoLedger(used.dynamodb, aws.table, clock, tuple(profiles))
    notes = settings.data_dir / "uploads"
    store = S3Store(used.s3, buckets, clock, notes, tag_done=aws.tag_done, control=used.control)

    def close() -> None:
        for queue in queues.values():
            queue.close()
        if clients is None:
            used.close()

    try:
        check = partial(_check, used, aws, buckets, queues, ledger)
        _check_with_retry(check, clock, STARTUP_RETRIES if caller_retries else NO_RETRY)
    except BaseException:
        if clients is None:
            used.close()
        raise
    return Backend(
        owner=f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}",
        queues=queues,
        ledger=ledger,
        store=store,
        task_publisher=AwsTaskPublisher(
            queues, ledger, lambda source: source.source_id in store.reused, clock
        ),
        close=close,
        announces_uploads=True,
        external_dlq=True,
        namespace=lambda: machine_name(settings.data_dir),
    )


def _check_with_retry(check: Callable[[], None], clock: Clock, policy: RetryPolicy) -> None:
    def report(error: Exception, attempt: int) -> None:
        get_logger().warning("aws_not_ready", reason=str(error), attempt=attempt)

    retry_control_call(
        check, clock, random.random, retryable=(Unavailable,), on_retry=report, policy=policy
    )


def machine_name(data_dir: Path) -> str:
    """Return this machine's name in the keys of its uploads; the first call stores it in `data_dir`.

    It belongs to the data folder, whose catalog knows where the renditions belong. A host name is not
    unique, and a container does not keep it. Raises ConfigError if the name cannot be stored.
    """
    path = data_dir / MACHINE_FILE
    host = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().lower()).strip("-")[:40]
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            temp = path.with_name(f".{path.name}-{os.getpid()}-{threading.get_ident()}")
            temp.write_text(f"{host or 'machine'}-{uuid.uuid4().hex[:8]}\n", encoding="ascii")
            fsync_file(temp)
            with suppress(FileExistsError):  # another process was first
                os.link(temp, path)
            temp.unlink()
            fsync_folder(data_dir)
        name = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The name of this machine cannot be kept in {path}: {error}.",
            remedy="Correct the rights of its folder, or choose another data_dir.",
        ) from error
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", name):
        raise ConfigError(
            f"{path} does not hold a machine's name.",
            remedy="Write there the name that its uploads have in their keys (machine/<name>/).",
        )
    return name


class _QueuesByProfile(dict[str, SqsQueue]):
    """The existing queues by profile; asking for a missing one raises ConfigError."""

    def __init__(self, queues: Mapping[str, SqsQueue]) -> None:
        super().__init__(queues)
        self._missing: dict[str, ConfigError] = {}

    def __missing__(self, profile: str) -> SqsQueue:
        if profile in self._missing:
            raise self._missing[profile]
        raise KeyError(profile)

    def check(self) -> None:
        """Leave out profiles without a queue. Raises ConfigError if no profile has one, Unavailable."""
        for name, queue in list(self.items()):
            try:
                with _ignore_denial():
                    queue.check()
            except ConfigError as error:
                if code_of(error.__cause__) not in NO_QUEUE:
                    raise
                remedy = f"Run `terraform apply`, or take {name} out of aws.profiles."
                self._missing[name] = ConfigError(error.message, remedy=remedy)
                del self[name]
        if self._missing and not self:
            raise next(iter(self._missing.values()))
        for name, missing in self._missing.items():
            get_logger().warning("queue_missing", profile=name, reason=str(missing))


def _queues(
    clients: Clients, aws: AwsSettings, profiles: Mapping[str, Profile], clock: Clock
) -> _QueuesByProfile:
    known, queues = frozenset(profiles), {}
    for name, profile in profiles.items():
        recipient = Recipient(name, profile.subscribe, known, aws.input_bucket)
        queues[name] = SqsQueue(clients, aws.queue_prefix, profile, recipient, clock)
    return _QueuesByProfile(queues)


def _check(
    clients: Clients,
    aws: AwsSettings,
    buckets: Buckets,
    queues: _QueuesByProfile,
    ledger: DynamoLedger,
) -> None:
    for bucket in dict.fromkeys((buckets.input, buckets.output)):
        with _ignore_denial(), translate_errors(f"find the bucket {bucket}", MISSING_CODES):
            clients.s3.head_bucket(Bucket=bucket)
    queues.check()
    if aws.topic_arn:
        with _ignore_denial(), translate_errors(f"find the topic {aws.topic_arn}", MISSING_CODES):
            clients.sns.get_topic_attributes(TopicArn=aws.topic_arn)
    with _ignore_denial():
        ledger.check()


@contextmanager
def _ignore_denial() -> Iterator[None]:
    """Ignore a denial: a worker's role may inspect few resources besides its own."""
    try:
        yield
    except ConfigError as error:
        if UNSEEN_QUEUE not in str(error.__cause__):
            raise
    except Unavailable as error:
        if code_of(error.__cause__) not in DENIED:
            raise


MARK = "hevcq-files"
"""The object with the mark of the bucket's database. `require_conditions` rewrites its same bytes."""
WRONG_ETAG = {"IfMatch": '"00000000000000000000000000000000"'}
UNSUPPORTED = {"NotImplemented": (UsageError, "the server has no such condition")}


class CompatibleStore(S3Store):
    """A bucket on an S3-compatible server, with renditions, uploads, and the mark of its database.

    Sources are files of the library store passed to `beside`, or uploads in the bucket.
    """

    _library: Store

    def __init__(self, settings: Settings, clock: Clock, clients: Clients | None = None) -> None:
        s3 = settings.s3
        with translate_errors("start a session"):
            region = boto3.Session().region_name or "us-east-1"  # the default of such servers
        aws = AwsSettings(region=region, endpoint_url=s3.endpoint_url)
        self._clients = clients if clients is not None else make_clients(aws)
        self.bucket, self.where = s3.bucket, f"the bucket {s3.bucket} of {s3.endpoint_url}"
        buckets, client = Buckets(s3.bucket, s3.bucket), self._clients.s3
        notes = settings.data_dir / "uploads"
        super().__init__(client, buckets, clock, notes, control=self._clients.control)
        self.video_files = S3VideoFiles(client, buckets)

    def close(self) -> None:
        self._clients.close()

    def beside(self, library: Store) -> Store:
        """Take sources from the store `library` from now on; return this store."""
        self._library = library
        return self

    def accept(self, path: Path, key: str, *, moved: Transferred, stop: threading.Event) -> Source:
        return self._library.accept(path, key, moved=moved, stop=stop)

    def follow(self, source: Source, path: Path) -> None:
        self._library.follow(source, path)

    def check(self, source: Source) -> None:
        linked = source.bucket == LIBRARY_BUCKET
        (self._library.check if linked else super().check)(source)

    @contextmanager
    def fetch(
        self, source: Source, scratch: Path, *, moved: Transferred, stop: threading.Event
    ) -> Iterator[Input]:
        fetch = self._library.fetch if source.bucket == LIBRARY_BUCKET else super().fetch
        with fetch(source, scratch, moved=moved, stop=stop) as opened:
            yield opened

    @contextmanager
    def stream(
        self, source: Source, scratch: Path, *, moved: Transferred, stop: threading.Event
    ) -> Iterator[Input]:
        stream = self._library.stream if source.bucket == LIBRARY_BUCKET else super().stream
        with stream(source, scratch, moved=moved, stop=stop) as opened:
            yield opened

    def sources(self, prefix: str) -> Iterator[Source]:  # noqa: ARG002 - nobody puts any here
        return iter(())

    def list(self, prefix: str) -> Iterator[StoredObject]:
        return (stored for stored in super().list(prefix) if stored.key != MARK)

    def read_mark(self) -> str:
        """Return the mark, or "". Raises ConfigError if the bucket does not exist."""
        with translate_errors(f"find {self.where}", MISSING_CODES):
            self._clients.s3.head_bucket(Bucket=self.bucket)
        if self.stat(MARK) is None:
            return ""
        with self.open(MARK) as file:
            return file.read().decode("utf-8", "replace")

    def write_mark(self, mark: str) -> None:
        """Mark the bucket unless it carries the mark of another database."""
        if self.read_mark():  # asked first: the server may ignore the condition
            return
        with suppress(SourceChanged), translate_errors(f"mark {self.where}"):
            self._put(mark.encode(), IfNoneMatch="*")

    def require_conditions(self) -> None:
        """Raise ConfigError if the server ignores a condition that protects renditions.

        The server must refuse each request; if it does not, the request writes the same bytes again.
        """
        with self.open(MARK) as file:
            content = file.read()
        requests = self._conditional_requests(content)
        ignored = [name for name, call in requests if not self._is_refused(name, call)]
        if ignored:
            raise ConfigError(
                f"{self.where[0].upper()}{self.where[1:]} ignores {'; '.join(ignored)}: of two workers, one"
                " could overwrite what the other published.",
                remedy="Use a server that keeps these conditions, such as a current MinIO or Ceph, or share"
                " a folder (postgres.files_dir).",
            )
        if self.read_mark().encode() != content:
            raise StorageError(f"{self.where} does not give back the bytes that were written.")

    def _conditional_requests(self, content: bytes) -> Iterator[tuple[str, Callable[[], object]]]:
        read = partial(self._clients.s3.get_object, Bucket=self.bucket, Key=MARK)
        yield "If-Match when reading", partial(read, IfMatch=WRONG_ETAG["IfMatch"])
        for name, condition in (("If-None-Match", {"IfNoneMatch": "*"}), ("If-Match", WRONG_ETAG)):
            yield f"{name} when writing", partial(self._put, content, **condition)
            yield f"{name} when joining parts", partial(self._complete_parts, content, condition)

    def _is_refused(self, name: str, call: Callable[[], object]) -> bool:
        try:
            with translate_errors(f"try {name} with {self.where}", UNSUPPORTED):
                call()
        except SourceChanged:
            return True
        except UsageError:
            pass
        return False

    def _put(self, content: bytes, **condition: Any) -> None:
        self._clients.s3.put_object(
            Bucket=self.bucket, Key=MARK, Body=content, ChecksumAlgorithm="SHA256", **condition
        )

    def _complete_parts(self, content: bytes, condition: dict[str, Any]) -> None:
        s3: Any = self._clients.s3
        place = {"Bucket": self.bucket, "Key": MARK}
        place["UploadId"] = s3.create_multipart_upload(**place)["UploadId"]
        try:
            part = s3.upload_part(**place, PartNumber=1, Body=content)
            parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
            s3.complete_multipart_upload(**place, MultipartUpload=parts, **condition)
        finally:
            with suppress(ClientError):  # it was completed, or removed with the refusal
                s3.abort_multipart_upload(**place)
