"""The schema of the ledger's table, and the conversion of jobs to items and back. Pure.

One table, keyed by `pk`: `<profile>#job#<job id>` for jobs, `<profile>#part#<part id>` for the subjobs of
a split job, `<profile>#same#<sha256>#<revision>` for sources not worth encoding. IAM holds the writes of
a profile's workers to keys that begin with the profile's name (`dynamodb:LeadingKeys`). Two indexes:
`by_state` (the state, then the time of the last transition, with the profile and the source's key) and
`by_source` (the source's key). Nothing in them changes between transitions, so a heartbeat or a record
of progress is one write. A subjob lacks the indexed attributes, so it appears in no listing and no count.

A partition of an index takes 1,000 writes a second: as many jobs may move to one state
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hevcq.domain.job import SETTLED, JobRecord, JobState, is_subjob
from hevcq.ports.ledger import read_record, stored_fields

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

BY_STATE = "by_state"
BY_SOURCE = "by_source"
TTL = "expires_at"
LETTER = "letter"
"""Set on a dead job whose dead letter was sent."""
UNSENT = "unsent"
"""Set on a job that was registered but whose message has not been sent yet."""

# Retention: DynamoDB removes an item some time after TTL.
RECORD_KEPT_S = 180 * 86_400
"""Seconds that the record of an ended job is kept: half a year, messages live at most 14 days."""
PART_KEPT_S = 30 * 86_400
"""Seconds that a subjob's record is kept, longer than any message for it (at most 14 days)."""
REMEMBERED_KEPT_S = 2 * 365 * 86_400
"""Seconds that a source is known as not worth encoding."""

Item = Mapping[str, "AttributeValueTypeDef"]


INDEXES = {
    BY_STATE: (["state", "moved_at"], ["profile", "source_key"]),
    BY_SOURCE: (["source_key"], []),
}
"""Keys and projected attributes of each index, as Terraform makes them."""
NUMBERS = frozenset({"moved_at"})
"""Keys that hold numbers; all others are strings."""


def job_pk(job_id: str, profile: str) -> str:
    return f"{profile}#{'part' if is_subjob(job_id) else 'job'}#{job_id}"


def profile_in(pk: str) -> str:
    return pk.partition("#")[0]


def moved_at(job_id: str) -> str:
    """Return the name of the attribute with the time of the last transition.

    Subjobs use another name than jobs, which keeps them out of the index.
    """
    return "part_moved_at" if is_subjob(job_id) else "moved_at"


def source_key(job_id: str) -> str:
    """Return the name of the attribute with the source's key, by the same rule."""
    return "part_source_key" if is_subjob(job_id) else "source_key"


def moved_in(entry: Item) -> float:
    return float_of(entry, "moved_at") or 0.0


PAUSE_PK = "pause"
"""The key of the item with the pauses of the farm."""


def remembered_pk(source_sha256: str, profile: str, revision: str) -> str:
    return f"{profile}#same#{source_sha256}#{revision}"


def text(value: str) -> AttributeValueTypeDef:
    return {"S": value}


def number(value: float) -> AttributeValueTypeDef:
    return {"N": repr(value)}


def attributes_of(
    job_id: str, fields: Mapping[str, Any]
) -> dict[str, AttributeValueTypeDef | None]:
    """Return the attributes that hold these fields of a record, None for those that go.

    With the state go the end of the item's time, and what held until then.
    """
    names = {"updated_at": moved_at(job_id), "key": source_key(job_id)}
    found = {
        names.get(name, name): _attribute(value) for name, value in stored_fields(fields).items()
    }
    if "state" not in fields or "updated_at" not in fields:
        return found
    state, now = fields["state"], int(fields["updated_at"])
    if is_subjob(job_id):
        ends = {TTL: number(now + PART_KEPT_S)} if state in SETTLED else {}
        return {**found, **ends}
    found[TTL] = number(now + RECORD_KEPT_S) if state in SETTLED else None
    gone = {JobState.RUNNING: UNSENT, JobState.QUEUED: LETTER}.get(state)
    return {gone: None, **found} if gone else found


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
    found = attributes_of(job.job_id, {**dict(job), "pk": pk})
    if job.subjob is not None:
        found[TTL] = number(int(job.updated_at) + PART_KEPT_S)
    return {name: value for name, value in found.items() if value is not None}


def record_of(item: Item) -> JobRecord:
    held: dict[str, Any] = {name: next(iter(value.values())) for name, value in item.items()}
    name = held["job_id"]
    return read_record({**held, "key": held[source_key(name)], "updated_at": held[moved_at(name)]})


def string(item: Item, name: str) -> str:
    return item[name]["S"] if name in item else ""


def float_of(item: Item, name: str) -> float | None:
    return float(item[name]["N"]) if name in item else None
