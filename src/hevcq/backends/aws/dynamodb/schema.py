"""The schema of the ledger's DynamoDB table: keys, indexes, how long records are kept, and conversion.

One table, keyed by `pk`: `<profile>#job#<job id>` for jobs, `<profile>#part#<part id>` for the subjobs of
a split job, `<profile>#same#<sha256>#<revision>` for sources not worth encoding. IAM restricts a
profile's workers to writing keys that begin with the profile's name (`dynamodb:LeadingKeys`). Two
indexes: `by_state` (the state, then the time of the last transition, with profile and source key) and
`by_source` (the source key). Their attributes change in transitions only, so a heartbeat or a record of
progress is one write. A subjob lacks the indexed attributes, so it appears in no listing and no count.

A partition of an index takes 1,000 writes a second, so as many jobs may move to one state
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hevcq.domain.job import SETTLED, JobRecord, JobState, is_subjob
from hevcq.ports.ledger import read_record, stored_fields

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

TTL = "expires_at"
"""The attribute that holds the end of an item's retention; DynamoDB deletes the item some time after it."""
JOB_RETENTION_S = 180 * 86_400
"""Seconds that the record of an ended job is kept; messages live at most 14 days."""
SUBJOB_RETENTION_S = 30 * 86_400
"""Seconds that a subjob's record is kept; messages live at most 14 days."""
DECISION_RETENTION_S = 2 * 365 * 86_400
"""Seconds that a source is remembered as not worth encoding."""

BY_STATE = "by_state"
BY_SOURCE = "by_source"
LETTER = "letter"
"""Set on a dead job whose dead letter was sent."""
UNSENT = "unsent"
"""Set on a job that was registered but whose message has not been sent yet."""
Item = Mapping[str, "AttributeValueTypeDef"]
INDEXES = {
    BY_STATE: (["state", "moved_at"], ["profile", "source_key"]),
    BY_SOURCE: (["source_key"], []),
}
"""Keys and projected attributes of each index, as Terraform makes them."""
NUMBERS = frozenset({"moved_at"})
"""Keys that hold numbers; all others are strings."""
PAUSE_PK = "pause"
"""The key of the item with the pauses of the farm."""


def job_pk(job_id: str, profile: str) -> str:
    return f"{profile}#{'part' if is_subjob(job_id) else 'job'}#{job_id}"


def profile_of(pk: str) -> str:
    return pk.partition("#")[0]


def moved_at_name(job_id: str) -> str:
    """Return the name of the attribute with the time of the last transition.

    Subjobs have another name than jobs, which keeps them out of the index.
    """
    return "part_moved_at" if is_subjob(job_id) else "moved_at"


def source_key_name(job_id: str) -> str:
    """Return the name of the attribute with the source key, which differs for subjobs too."""
    return "part_source_key" if is_subjob(job_id) else "source_key"


def read_moved_at(entry: Item) -> float:
    return read_number(entry, "moved_at") or 0.0


def remembered_pk(source_sha256: str, profile: str, revision: str) -> str:
    return f"{profile}#same#{source_sha256}#{revision}"


def text(value: str) -> AttributeValueTypeDef:
    return {"S": value}


def number(value: float) -> AttributeValueTypeDef:
    return {"N": repr(value)}


def attributes_of(
    job_id: str, fields: Mapping[str, Any]
) -> dict[str, AttributeValueTypeDef | None]:
    """Return the attributes for these fields of a record; None means that an attribute is removed.

    A change of the state also sets or removes TTL, and removes UNSENT or LETTER.
    """
    names = {"updated_at": moved_at_name(job_id), "key": source_key_name(job_id)}
    attributes = {
        names.get(name, name): _attribute(value) for name, value in stored_fields(fields).items()
    }
    if "state" not in fields or "updated_at" not in fields:
        return attributes
    state, now = fields["state"], int(fields["updated_at"])
    if is_subjob(job_id):
        expiry = {TTL: number(now + SUBJOB_RETENTION_S)} if state in SETTLED else {}
        return {**attributes, **expiry}
    attributes[TTL] = number(now + JOB_RETENTION_S) if state in SETTLED else None
    outdated = {JobState.RUNNING: UNSENT, JobState.QUEUED: LETTER}.get(state)
    return {outdated: None, **attributes} if outdated else attributes


def _attribute(value: Any) -> AttributeValueTypeDef | None:
    match value:
        case None | "":
            return None
        case bool():
            return {"BOOL": value}
        case int() | float():
            return number(value)
    return text(str(value))


def item_of(job: JobRecord, pk: str) -> dict[str, Any]:
    """Return the item of a new job or subjob under the key `pk`."""
    attributes = attributes_of(job.job_id, {**dict(job), "pk": pk})
    if job.subjob is not None:
        attributes[TTL] = number(int(job.updated_at) + SUBJOB_RETENTION_S)
    return {name: value for name, value in attributes.items() if value is not None}


def record_of(item: Item) -> JobRecord:
    fields: dict[str, Any] = {name: next(iter(value.values())) for name, value in item.items()}
    key, moved_at = (fields[name(fields["job_id"])] for name in (source_key_name, moved_at_name))
    return read_record({**fields, "key": key, "updated_at": moved_at})


def read_text(item: Item, name: str) -> str:
    return item[name]["S"] if name in item else ""


def read_number(item: Item, name: str) -> float | None:
    return float(item[name]["N"]) if name in item else None
