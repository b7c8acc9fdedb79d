"""The schema of the ledger's table, and the conversion of jobs to items and back. Pure.

One table, keyed by `pk`: `<profile>#job#<job id>` for jobs, `<profile>#part#<part id>` for the subjobs of
a split job, `<profile>#same#<sha256>#<revision>` for sources not worth encoding. IAM holds the writes of
a profile's workers to keys that begin with the profile's name (`dynamodb:LeadingKeys`). Three indexes:
`by_shard` (state and shard, then the time of the last transition, with the profile and the source's key),
`by_source` (the source's key) and `by_folder` (the bucket, then the source's key). Nothing in them
changes between transitions, so a heartbeat or a record of progress is one write. A subjob lacks the
indexed attributes, so it appears in no listing and no count.

A partition of an index takes 1,000 writes a second, and one whose entries come in the order of time
is not split under load
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html). So
each state has SHARDS partitions.

`by_folder` has no shards: it is written once a job, not at transitions, and its entries come in the
order of paths, not of time, so DynamoDB may split it under load.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hevcq.domain.job import (
    JobRecord,
    JobState,
    Progress,
    RenditionRef,
    Source,
    Split,
    SubjobOf,
    is_subjob,
)
from hevcq.domain.verdict import FailureClass

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

BY_SHARD = "by_shard"
SHARDS = 4
"""Partitions of each state. More cost each listing more queries; fewer are never possible again."""
BY_SOURCE = "by_source"
BY_FOLDER = "by_folder"
TTL = "expires_at"
LETTER = "letter"
"""Set on a dead job whose dead letter was sent."""
UNSENT = "unsent"
"""Set on a job that was registered but whose message has not been sent yet."""
RECORD_KEPT_S = 180 * 86_400
"""Seconds that the record of an ended job is kept: half a year, messages live at most 14 days."""
PART_KEPT_S = 30 * 86_400
"""Seconds that a subjob's record is kept, longer than any message for it (at most 14 days)."""
REMEMBERED_KEPT_S = 2 * 365 * 86_400

Item = Mapping[str, "AttributeValueTypeDef"]


INDEXES = {
    BY_SHARD: (["shard", "moved_at"], ["profile", "source_key"]),
    BY_SOURCE: (["source_key"], []),
    BY_FOLDER: (["bucket", "source_key"], []),
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


def shard_of(job_id: str, state: JobState) -> str:
    return f"{state.value}#{zlib.crc32(job_id.encode()) % SHARDS}"


def shards_of(state: JobState) -> list[str]:
    return [f"{state.value}#{number}" for number in range(SHARDS)]


def state_in(entry: Item) -> str:
    return string(entry, "shard").partition("#")[0]


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


def new_item(source: Source, profile: str, job_id: str, now: float) -> dict[str, Any]:
    """Return the item of a newly queued job; `now` is Unix seconds."""
    return {
        "pk": text(job_pk(job_id, profile)),
        "job_id": text(job_id),
        "bucket": text(source.bucket),
        "source_key": text(source.key),
        "version": text(source.version),
        "size": number(source.size),
        "profile": text(profile),
        "state": text(JobState.QUEUED.value),
        "fence": number(0),
        "failures": number(0),
        "crashes": number(0),
        "lease_until": number(0.0),
        "created_at": number(now),
        "moved_at": number(now),
        "shard": text(shard_of(job_id, JobState.QUEUED)),
    }


def part_item(
    job: JobRecord, subjob_id: str, pk: str, part: SubjobOf, now: float
) -> dict[str, Any]:
    """Return the item of a newly queued subjob under the key `pk`; `now` is Unix seconds."""
    item = new_item(job.source, job.profile, subjob_id, now)
    item["pk"] = text(pk)
    item["part_source_key"] = item.pop("source_key")
    item[moved_at(subjob_id)] = item.pop("moved_at")
    del item["shard"]
    item["part"] = text(part.model_dump_json())
    item[TTL] = number(int(now) + PART_KEPT_S)
    return item


def record_of(item: Item) -> JobRecord:
    failure_class = string(item, "failure_class")
    progress, rendition = string(item, "progress"), string(item, "rendition")
    split, part = string(item, "split"), string(item, "part")
    return JobRecord(
        job_id=string(item, "job_id"),
        source=Source(
            bucket=string(item, "bucket"),
            key=string(item, "source_key") or string(item, "part_source_key"),
            version=string(item, "version"),
            size=int(float_of(item, "size") or 0),
        ),
        profile=string(item, "profile"),
        state=JobState(string(item, "state")),
        fence=int(float_of(item, "fence") or 0),
        failures=int(float_of(item, "failures") or 0),
        crashes=int(float_of(item, "crashes") or 0),
        suspected_worker_faults=int(float_of(item, "doubts") or 0),
        owner=string(item, "owner"),
        lease_until=float_of(item, "lease_until") or 0.0,
        progress=Progress.model_validate_json(progress) if progress else None,
        reason=string(item, "reason"),
        failure_class=FailureClass(failure_class) if failure_class else None,
        rendition=RenditionRef.model_validate_json(rendition) if rendition else None,
        created_at=float_of(item, "created_at") or 0.0,
        updated_at=moved_in(item) or float_of(item, "part_moved_at") or 0.0,
        started_at=float_of(item, "started_at"),
        finished_at=float_of(item, "finished_at"),
        cpu_s=float_of(item, "cpu_s"),
        split=Split.model_validate_json(split) if split else None,
        subjob=SubjobOf.model_validate_json(part) if part else None,
        do_not_split_reason=string(item, "whole"),
        certificate_sha256=string(item, "certificate_sha256"),
    )


def string(item: Item, name: str) -> str:
    return item[name]["S"] if name in item else ""


def float_of(item: Item, name: str) -> float | None:
    return float(item[name]["N"]) if name in item else None
