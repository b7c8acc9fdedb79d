"""The ledger's changes: one conditional update of one item, as DynamoDB wants it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hevcq.aws.dynamodb.schema import moved_at, number, text
from hevcq.domain.job import JobRecord, JobState
from hevcq.domain.verdict import FailureClass

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef


@dataclass(frozen=True, slots=True)
class Change:
    """Set, remove and add attributes where those in `when` have exactly these values.

    Every name goes through a placeholder, because `state`, `size` and `owner` are reserved words.
    """

    when: Mapping[str, AttributeValueTypeDef]
    set: Mapping[str, AttributeValueTypeDef] = field(default_factory=dict)
    remove: tuple[str, ...] = ()
    add: Mapping[str, AttributeValueTypeDef] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of UpdateItem, besides table and key."""
        parts = [
            _clause("SET", [f"#{n} = :{n}" for n in self.set]),
            _clause("REMOVE", [f"#{n}" for n in self.remove]),
            _clause("ADD", [f"#{n} :{n}" for n in self.add]),
        ]
        names = {*self.when, *self.set, *self.remove, *self.add}
        values = {f":{n}": v for n, v in {**self.set, **self.add}.items()}
        return {
            "UpdateExpression": " ".join(part for part in parts if part),
            "ConditionExpression": " AND ".join(f"#{n} = :if_{n}" for n in self.when),
            "ExpressionAttributeNames": {f"#{n}": n for n in sorted(names)},
            "ExpressionAttributeValues": values | {f":if_{n}": v for n, v in self.when.items()},
        }


def _clause(word: str, parts: list[str]) -> str:
    return f"{word} {', '.join(parts)}" if parts else ""


LEASE = ("owner", "progress")
"""What a job loses with its lease."""
WHY = ("reason", "failure_class")


def absent(facts: Mapping[str, AttributeValueTypeDef], *names: str) -> tuple[str, ...]:
    """Return those of `names` that `facts` do not set: they are removed."""
    return tuple(name for name in names if name not in facts)


def moved(job_id: str, state: JobState, now: float) -> dict[str, AttributeValueTypeDef]:
    """Return what every transition of a job, or of a part of one, sets."""
    return {"state": text(state.value), moved_at(job_id): number(now)}


def blame(reason: str, failure_class: FailureClass) -> dict[str, AttributeValueTypeDef]:
    """Return reason and class."""
    return {"reason": text(reason), "failure_class": text(failure_class.value)}


def as_seen(record: JobRecord) -> dict[str, AttributeValueTypeDef]:
    """Return the condition that nobody moved, claimed or renewed the job since it was read."""
    return {
        "state": text(record.state.value),
        "fence": number(record.fence),
        "lease_until": number(record.lease_until),
    }
