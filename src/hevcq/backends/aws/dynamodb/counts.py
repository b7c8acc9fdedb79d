"""Count jobs by state without reading the whole index.

Jobs that are open are few and are counted as they are. Jobs that ended pile up for half a year; how
many ended on each day is kept in one item for each state, so that a count reads only the entries since
then. Nothing is written by workers: whoever counts writes the days that are over. A job that is
reopened moves the item's time back to its day, which is then counted again.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from hevcq.backends.aws.dynamodb.queries import JobQueries
from hevcq.backends.aws.dynamodb.schema import (
    RECORD_KEPT_S,
    count_pk,
    float_of,
    moved_in,
    number,
    string,
    text,
)
from hevcq.backends.aws.errors import translate_errors
from hevcq.domain.job import SETTLED, JobRecord, JobState
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

DAY_S = 86_400
SETTLES_S = 7_200
"""Seconds after its end until a day is complete: indexes lag, and clocks of workers differ."""

Days = dict[int, Counter[str]]
"""Jobs by profile for each day, by its number since the Unix epoch."""


class JobCounts:
    """The numbers of jobs by profile and state; exact but for entries that the index still lacks."""

    def __init__(
        self, client: DynamoDBClient, table: str, queries: JobQueries, clock: Clock
    ) -> None:
        self._db, self._table, self._queries, self._clock = client, table, queries, clock

    def counts(self) -> dict[tuple[str, JobState], int]:
        """Count the jobs by profile and state. Raises ConfigError, Unavailable."""
        found: Counter[tuple[str, JobState]] = Counter()
        for state in JobState:
            if state in SETTLED:
                for profiles in self._ended(state).values():
                    found.update({(name, state): count for name, count in profiles.items()})
                continue
            for entry in self._queries.in_state(state):
                found[string(entry, "profile"), state] += 1
        return {each: count for each, count in found.items() if count}

    def _ended(self, state: JobState) -> Days:
        upto, known = self._stored(state)
        now = self._clock.now()
        oldest = int((now - RECORD_KEPT_S) // DAY_S)
        days: Days = {d: c for d, c in known.items() if oldest <= d < upto // DAY_S}
        after = upto - 1e-3 if upto else None
        for entry in self._queries.in_state(state, after):
            day = int(moved_in(entry) // DAY_S)
            days.setdefault(day, Counter())[string(entry, "profile")] += 1
        complete = float((now - SETTLES_S) // DAY_S * DAY_S)
        if complete > upto:
            self._store(state, upto, complete, days)
        return days

    def _stored(self, state: JobState) -> tuple[float, Days]:
        with translate_errors(f"read the ledger {self._table}"):
            item = self._db.get_item(
                TableName=self._table, Key={"pk": text(count_pk(state))}, ConsistentRead=True
            ).get("Item", {})
        days: dict[str, dict[str, int]] = json.loads(string(item, "days") or "{}")
        return float_of(item, "upto") or 0.0, {int(d): Counter(c) for d, c in days.items()}

    def _store(self, state: JobState, before: float, upto: float, days: Days) -> None:
        kept = {d: dict(c) for d, c in days.items() if d < upto // DAY_S}
        self._try(
            "put_item",
            Item={
                "pk": text(count_pk(state)),
                "upto": number(upto),
                "days": text(json.dumps(kept)),
            },
            ConditionExpression="attribute_not_exists(pk) OR upto = :before",
            ExpressionAttributeValues={":before": number(before)},
        )

    def recount(self, job: JobRecord) -> None:
        """Count the day on which this job ended again: it was reopened. Never raises a HevcqError."""
        day = number(float(job.updated_at // DAY_S * DAY_S))
        self._try(
            "update_item",
            Key={"pk": text(count_pk(job.state))},
            UpdateExpression="SET upto = :day",
            ConditionExpression="upto > :day",
            ExpressionAttributeValues={":day": day},
        )

    def _try(self, call: str, **asked: Any) -> None:
        """Write what only saves the next count work; a role may lack the right, or be too late."""
        try:
            getattr(self._db, call)(TableName=self._table, **asked)
        except ClientError as error:
            get_logger().debug("count_not_kept", reason=str(error))
