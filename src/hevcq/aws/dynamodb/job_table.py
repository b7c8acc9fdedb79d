"""The ledger's items: read, claimed, and written under a condition. Jobs and parts are alike here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from hevcq.aws.dynamodb.changes import Change, as_seen, moved
from hevcq.aws.dynamodb.queries import Listing
from hevcq.aws.dynamodb.schema import UNSENT, Item, job_pk, number, record_of, text
from hevcq.aws.errors import code_of, translated
from hevcq.domain.job import SETTLED, JobRecord, JobState
from hevcq.errors import StaleFence, Unavailable
from hevcq.ports.backend import Ledger
from hevcq.ports.ledger import AlreadySettled, AlreadySplit, Claim, Granted, Held
from hevcq.util.clock import Clock

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

CLAIM_TRIES = 10
"""Looks at one job before giving up: each failed one means that somebody else changed it."""


class LedgerItems(Ledger):
    """Job and part items in one table.

    Each write carries a token of its own. A write whose answer was lost is sent again by botocore
    and then refused, because it has happened: the token in the item tells that from a real
    refusal.
    """

    def __init__(
        self, client: DynamoDBClient, table: str, clock: Clock, tokens: Callable[[], str]
    ) -> None:
        self._db, self._table, self._clock, self._tokens = client, table, clock, tokens
        self._listing = Listing(client, table)

    def get(self, job_id: str) -> JobRecord | None:
        """Return the record, or None."""
        item = self._item(job_pk(job_id))
        return None if item is None else record_of(item)

    def _claimed(
        self, name: str, look: Callable[[], JobRecord | None], owner: str, lease_s: float
    ) -> Claim | None:
        for _ in range(CLAIM_TRIES):
            record = look()
            if record is None:
                return None
            if record.state in SETTLED:
                return AlreadySettled(record)
            if record.state is JobState.SPLIT:
                return AlreadySplit(record)
            now = self._clock.now()
            running = record.state is JobState.RUNNING
            live = running and record.lease_until > now
            if live and record.owner != owner:
                return Held(record.lease_until)
            crashes = record.crashes + (1 if running and not live else 0)
            taken = Change(
                when=as_seen(record),
                set={
                    **moved(name, JobState.RUNNING, now),
                    "fence": number(record.fence + 1),
                    "crashes": number(crashes),
                    "owner": text(owner),
                    "lease_until": number(now + lease_s),
                    "started_at": number(now),
                },
                remove=("progress", UNSENT),
            )
            if self._write(name, taken):
                return Granted(record.fence + 1, record.failures, crashes, record.doubts)
        raise Unavailable(f"The job {name} is being changed by too many others.")

    def _under(
        self,
        name: str,
        fence: int,
        sets: Mapping[str, AttributeValueTypeDef],
        remove: tuple[str, ...] = (),
        add: Mapping[str, AttributeValueTypeDef] | None = None,
        *,
        ends: bool = False,
    ) -> None:
        """Write under the fence; what `ends` a job may end a SPLIT one as well."""
        for state in (JobState.RUNNING, JobState.SPLIT) if ends else (JobState.RUNNING,):
            under = {"state": text(state.value), "fence": number(fence)}
            if self._write(name, Change(when=under, set=sets, remove=remove, add=add or {})):
                return
        raise StaleFence(f"The job {name} is not running under fence {fence}.")

    def _write(self, name: str, change: Change) -> bool:
        """Carry out a change; False if its condition does not hold."""
        token = text(self._tokens())
        signed = Change(change.when, {**change.set, "last_write": token}, change.remove, change.add)

        try:
            with translated(f"write the job {name}"):
                self._db.update_item(
                    TableName=self._table,
                    Key={"pk": text(job_pk(name))},
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                    **signed.arguments(),
                )
        except Unavailable as error:
            if code_of(error.__cause__) != "ConditionalCheckFailedException":
                raise
            there: Item = getattr(error.__cause__, "response", {}).get("Item", {})
            return there.get("last_write") == token
        return True

    def _item(self, pk: str) -> Item | None:
        with translated(f"read the ledger {self._table}"):
            answer = self._db.get_item(
                TableName=self._table, Key={"pk": text(pk)}, ConsistentRead=True
            )
        return answer.get("Item")
