"""Open the AWS backend, whose resources must all exist, or a bucket on a server that keeps conditions."""

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
"""The file in the data folder that keeps this machine's name in the keys of uploads."""
MISSING: dict[str, tuple[type[HevcqError], str]] = {
    "404": (ConfigError, "there is none of that name"),
    "301": (ConfigError, "it is in another region"),
    "NotFound": (ConfigError, "there is none of that name"),
    "InvalidParameter": (ConfigError, "that is not the ARN of a topic"),
}

NO_QUEUE = frozenset({"QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"})
UNSEEN = "or you do not have access to it"
"""Part of SQS's message for a queue whose URL the caller may not look up
(https://github.com/spring-attic/spring-cloud-aws/pull/417)."""


START = RetryPolicy(attempts=5, base_s=1.0, cap_s=8.0)
"""For the checks of a worker that starts: a throttled request or a reset connection passes in seconds."""
ONCE = RetryPolicy(attempts=1, base_s=0.0, cap_s=0.0)


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

    Resources that the role may not inspect (another profile's queue, the topic) are checked at
    first use. A profile whose queue is missing while others are there is left out and logged; asking
    for its queue raises ConfigError. `clients` are closed with the backend only if they were created
    here. With `caller_retries` (see `make_clients`) an AWS that does not answer is asked again. Raises
    ConfigError if a credential, the region, a bucket, every queue, the topic or the table is missing,
    Unavailable if AWS does not answer.
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
        _persist(check, clock, START if caller_retries else ONCE)
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


def _persist(check: Callable[[], None], clock: Clock, policy: RetryPolicy) -> None:
    def tell(error: Exception, attempt: int) -> None:
        get_logger().warning("aws_not_ready", reason=str(error), attempt=attempt)

    retry_control_call(
        check, clock, random.random, retryable=(Unavailable,), on_retry=tell, policy=policy
    )


def machine_name(data_dir: Path) -> str:
    """Return the name of this machine in the keys of its uploads, kept in `data_dir` from its first use.

    It belongs to the data folder, whose catalog says where the renditions go; a host name alone
    is neither unique nor kept by a container. Raises ConfigError if it cannot be kept.
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


class _Queues(dict[str, SqsQueue]):
    """The queues that are there, by profile; one that is missing raises ConfigError when asked for."""

    def __init__(self, found: Mapping[str, SqsQueue]) -> None:
        super().__init__(found)
        self._missing: dict[str, ConfigError] = {}

    def __missing__(self, profile: str) -> SqsQueue:
        if profile in self._missing:
            raise self._missing[profile]
        raise KeyError(profile)

    def check(self) -> None:
        """Leave out the profiles without a queue; raise ConfigError if none has one, Unavailable."""
        for name, queue in list(self.items()):
            try:
                with _allowed_to_fail():
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
) -> _Queues:
    known = frozenset(profiles)
    found = {
        name: SqsQueue(
            clients,
            aws.queue_prefix,
            profile,
            Recipient(
                profile=name, subscribed=profile.subscribe, known=known, bucket=aws.input_bucket
            ),
            clock,
        )
        for name, profile in profiles.items()
    }
    return _Queues(found)


def _check(
    clients: Clients,
    aws: AwsSettings,
    buckets: Buckets,
    queues: _Queues,
    ledger: DynamoLedger,
) -> None:
    for bucket in dict.fromkeys((buckets.input, buckets.output)):
        with _allowed_to_fail(), translate_errors(f"find the bucket {bucket}", MISSING):
            clients.s3.head_bucket(Bucket=bucket)
    queues.check()
    if aws.topic_arn:
        with _allowed_to_fail(), translate_errors(f"find the topic {aws.topic_arn}", MISSING):
            clients.sns.get_topic_attributes(TopicArn=aws.topic_arn)
    with _allowed_to_fail():
        ledger.check()


@contextmanager
def _allowed_to_fail() -> Iterator[None]:
    """Ignore a denial: the role of one profile's worker may inspect few other resources."""
    try:
        yield
    except ConfigError as error:
        if UNSEEN not in str(error.__cause__):
            raise
    except Unavailable as error:
        if code_of(error.__cause__) not in DENIED:
            raise


MARK = "hevcq-files"
"""The object that says whose renditions the bucket has; the probe writes it again, byte by byte."""
OTHER = {"IfMatch": '"00000000000000000000000000000000"'}
UNKNOWN = {"NotImplemented": (UsageError, "the server has no such condition")}


class CompatibleStore(S3Store):
    """A bucket on an S3-compatible server: its renditions and uploads, and the mark of its database.

    It links sources from the library that it is put `beside`; others are uploads in the bucket.
    """

    _library: Store

    def __init__(self, settings: Settings, clock: Clock, clients: Clients | None = None) -> None:
        s3 = settings.s3
        with translate_errors("start a session"):
            region = boto3.Session().region_name or "us-east-1"  # what servers expect by default
        where = AwsSettings(region=region, endpoint_url=s3.endpoint_url)
        self._clients = clients if clients is not None else make_clients(where)
        self.bucket, self.where = s3.bucket, f"the bucket {s3.bucket} of {s3.endpoint_url}"
        buckets, client = Buckets(s3.bucket, s3.bucket), self._clients.s3
        notes = settings.data_dir / "uploads"
        super().__init__(client, buckets, clock, notes, control=self._clients.control)
        self.video_files = S3VideoFiles(client, buckets)

    def close(self) -> None:
        self._clients.close()

    def beside(self, library: Store) -> Store:
        """Link sources from `library` from now on; return this store."""
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
        with fetch(source, scratch, moved=moved, stop=stop) as found:
            yield found

    @contextmanager
    def stream(
        self, source: Source, scratch: Path, *, moved: Transferred, stop: threading.Event
    ) -> Iterator[Input]:
        stream = self._library.stream if source.bucket == LIBRARY_BUCKET else super().stream
        with stream(source, scratch, moved=moved, stop=stop) as found:
            yield found

    def sources(self, prefix: str) -> Iterator[Source]:  # noqa: ARG002 - nobody puts any here
        return iter(())

    def list(self, prefix: str) -> Iterator[StoredObject]:
        return (found for found in super().list(prefix) if found.key != MARK)

    def read(self) -> str:
        """Return the mark, "" if there is none. Raises ConfigError if there is no such bucket."""
        with translate_errors(f"find {self.where}", MISSING):
            self._clients.s3.head_bucket(Bucket=self.bucket)
        if self.stat(MARK) is None:
            return ""
        with self.open(MARK) as file:
            return file.read().decode("utf-8", "replace")

    def write(self, mark: str) -> None:
        """Mark the bucket, unless another database was first: then its mark stays."""
        if self.read():  # asked first: the server may ignore the condition
            return
        with suppress(SourceChanged), translate_errors(f"mark {self.where}"):
            self._put(mark.encode(), IfNoneMatch="*")

    def prove(self) -> None:
        """Raise ConfigError if the server ignores a condition on which a rendition depends.

        Each request has to be refused; one that is not writes the bytes that are there already.
        """
        with self.open(MARK) as file:
            content = file.read()
        ignored = [
            name for name, call in self._conditions(content) if not self._refuses(name, call)
        ]
        if ignored:
            raise ConfigError(
                f"{self.where[0].upper()}{self.where[1:]} ignores {'; '.join(ignored)}: of two workers, one"
                " could overwrite what the other published.",
                remedy="Use a server that keeps these conditions, such as a current MinIO or Ceph, or share"
                " a folder (postgres.files_dir).",
            )
        if self.read().encode() != content:
            raise StorageError(f"{self.where} does not give back the bytes that were written.")

    def _conditions(self, content: bytes) -> Iterator[tuple[str, Callable[[], object]]]:
        read = partial(self._clients.s3.get_object, Bucket=self.bucket, Key=MARK)
        yield "If-Match when reading", partial(read, IfMatch=OTHER["IfMatch"])
        for name, condition in (("If-None-Match", {"IfNoneMatch": "*"}), ("If-Match", OTHER)):
            yield f"{name} when writing", partial(self._put, content, **condition)
            yield f"{name} when joining parts", partial(self._join, content, condition)

    def _refuses(self, name: str, call: Callable[[], object]) -> bool:
        try:
            with translate_errors(f"try {name} with {self.where}", UNKNOWN):
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

    def _join(self, content: bytes, condition: dict[str, Any]) -> None:
        s3: Any = self._clients.s3
        place = {"Bucket": self.bucket, "Key": MARK}
        begun = s3.create_multipart_upload(**place)["UploadId"]
        try:
            part = s3.upload_part(**place, UploadId=begun, PartNumber=1, Body=content)
            parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
            s3.complete_multipart_upload(
                **place, UploadId=begun, MultipartUpload=parts, **condition
            )
        finally:
            with suppress(ClientError):  # joined after all, or gone with the refusal
                s3.abort_multipart_upload(**place, UploadId=begun)
