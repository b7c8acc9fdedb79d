"""Parse the body of an SQS message into tasks, or into the reason why it contains none.

Any text yields a ParsedMessage, never an exception. The parser understands hevcq's own tasks,
S3 event notifications (https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html),
either of them inside an SNS envelope, and dead letters that SQS moved back to the queue.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from pydantic import ValidationError

from hevcq.backends.aws.sqs import dead_letters
from hevcq.domain.job import MAX_BODY_BYTES, Source, Task
from hevcq.domain.keys import INBOX, is_routed_to
from hevcq.errors import BadMessage

EVENT_MAJOR = "2"
"""AWS asks readers to require an equal major version and to ignore unknown fields."""
MAX_LAYERS = 4
"""Dead letters and SNS envelopes around one message: deeper nesting is forged."""
MAX_RECORDS = 1_000
OTHER_PROFILE = "not for this profile"


@dataclass(frozen=True, slots=True)
class Recipient:
    """The profile that a message is parsed for.

    `known` names all profiles. Sources may come from `bucket` only; "" allows any bucket.
    """

    profile: str
    subscribed: bool
    known: frozenset[str]
    bucket: str = ""


@dataclass(frozen=True, slots=True)
class ParsedMessage:
    """The tasks of a message for one profile. The fields have the meaning that they have in `Delivery`."""

    tasks: tuple[Task, ...] = ()
    ignored: str = ""
    problem: str = ""


def parse(body: str, recipient: Recipient) -> ParsedMessage:
    """Parse `body` for the profile of `recipient`.

    If one of several records is unreadable, the whole body is a problem and becomes a dead letter,
    because a message is settled as a whole.
    """
    try:
        return _parse(body, recipient, MAX_LAYERS)
    except BadMessage as error:
        return ParsedMessage(problem=str(error))


def _parse(body: str, recipient: Recipient, layers: int) -> ParsedMessage:
    if len(body.encode("utf-8", "surrogatepass")) > MAX_BODY_BYTES:
        raise BadMessage(f"The message is over {MAX_BODY_BYTES} bytes.")
    if layers == 0:
        raise BadMessage("The message is wrapped too many times.")
    message = _json_object(body)
    if dead_letters.MARKER in message:
        inner = dead_letters.decode(body)
        if inner is None:
            raise BadMessage("The message is marked as a dead letter, but is not a whole one.")
        return _parse(inner.body, recipient, layers - 1)
    if "hevcq" in message:
        return _task(Task.parse(body), recipient)
    if "Records" in message:
        return _records(message["Records"], recipient)
    if message.get("Event") == "s3:TestEvent":
        return ParsedMessage(ignored="s3:TestEvent")
    return _from_sns(message, recipient, layers)


def _from_sns(message: Mapping[str, Any], recipient: Recipient, layers: int) -> ParsedMessage:
    kind, body = str(message.get("Type")), message.get("Message")
    if kind in {"SubscriptionConfirmation", "UnsubscribeConfirmation"}:
        return ParsedMessage(ignored=f"sns {kind}")
    if kind == "Notification" and isinstance(body, str):
        return _parse(body, recipient, layers - 1)
    raise BadMessage("The message is neither a hevcq task, an S3 event nor an SNS notification.")


def _json_object(body: str) -> Mapping[str, Any]:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadMessage("The message is not JSON.") from error
    if not isinstance(message, dict):
        raise BadMessage("The message is not a JSON object.")
    return message


def _task(task: Task, recipient: Recipient) -> ParsedMessage:
    _check_bucket(task.source.bucket, recipient)
    if task.profile == recipient.profile:
        return ParsedMessage(tasks=(task,))
    if task.profile in recipient.known:
        return ParsedMessage(ignored=f"{OTHER_PROFILE}: a task of {task.profile}")
    raise BadMessage(f"The task is for the profile {task.profile!r}, which does not exist.")


def _check_bucket(bucket: str, recipient: Recipient) -> None:
    if recipient.bucket and bucket != recipient.bucket:
        raise BadMessage(f"The message names the bucket {bucket[:63]!r}, not {recipient.bucket!r}.")


def _records(records: object, recipient: Recipient) -> ParsedMessage:
    if not isinstance(records, list) or not 0 < len(records) <= MAX_RECORDS:
        raise BadMessage(f"An event must have 1 to {MAX_RECORDS} records.")
    tasks: dict[str, Task] = {}
    ignored: list[str] = []
    for record in records:
        result = _record(record, recipient)
        if isinstance(result, Task):
            tasks.setdefault(result.job_id, result)
        elif result not in ignored:
            ignored.append(result)
    return ParsedMessage(
        tasks=tuple(tasks.values()), ignored="" if tasks else "; ".join(ignored)[:500]
    )


def _record(record: object, recipient: Recipient) -> Task | str:
    """Return the task of one record, or the reason why it is ignored."""
    if not isinstance(record, dict) or record.get("eventSource") != "aws:s3":
        raise BadMessage("The event has a record that is not from S3.")
    version, name = record.get("eventVersion"), record.get("eventName")
    if not isinstance(version, str) or not isinstance(name, str):
        raise BadMessage("The event has a record without name and version.")
    if version.partition(".")[0] != EVENT_MAJOR:
        raise BadMessage(f"The event has version {version[:20]!r}; hevcq reads {EVENT_MAJOR}.x.")
    name = name.removeprefix("s3:")
    if name.partition(":")[0] != "ObjectCreated":
        return f"event {name[:80]}"
    bucket, s3_object = _bucket_and_object(record)
    _check_bucket(bucket, recipient)
    return _task_of_upload(bucket, s3_object, recipient)


def _bucket_and_object(record: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    where = record.get("s3")
    bucket = where.get("bucket") if isinstance(where, dict) else None
    name = bucket.get("name") if isinstance(bucket, dict) else None
    s3_object = where.get("object") if isinstance(where, dict) else None
    if not isinstance(name, str) or not isinstance(s3_object, dict):
        raise BadMessage("The event has a record without bucket and object.")
    return name, s3_object


def _task_of_upload(bucket: str, s3_object: Mapping[str, Any], recipient: Recipient) -> Task | str:
    key = _key(s3_object.get("key"))
    if key.endswith("/"):
        return "folder marker"
    if not key.startswith(f"{INBOX}/"):
        return f"outside {INBOX}/"
    if not is_routed_to(
        key, recipient.profile, subscribed=recipient.subscribed, known=recipient.known
    ):
        return OTHER_PROFILE
    size = s3_object.get("size")
    if isinstance(size, bool) or not isinstance(size, int):
        raise BadMessage("The event has an object without a size.")
    try:
        source = Source(bucket=bucket, key=key, version=_version(s3_object), size=size)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise BadMessage(f"The event has an object that cannot be used: {first['msg']}.") from error
    return Task(source=source, profile=recipient.profile)


def _key(raw: object) -> str:
    """Decode the key of an event, which is form-encoded: "+" is a space, and "/" may be encoded."""
    if not isinstance(raw, str):
        raise BadMessage("The event has an object without a key.")
    try:
        key = unquote_plus(raw, errors="strict")
        key.encode("utf-8")
    except UnicodeError as error:
        raise BadMessage(f"The event has a key that is not UTF-8: {raw[:80]!a}.") from error
    return key


def _version(s3_object: Mapping[str, Any]) -> str:
    """Return the version id, or else the ETag.

    In a bucket without versioning every object has the version id "null".
    """
    for value in (s3_object.get("versionId"), s3_object.get("eTag")):
        if isinstance(value, str) and value.strip('"') and value != "null":
            return value.strip('"')
    raise BadMessage("The event has an object without version id and ETag.")
