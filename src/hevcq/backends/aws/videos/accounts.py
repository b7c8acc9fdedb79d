"""Who may use the page, in the table of videos: one item a user, token or session signed out of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hevcq.backends.aws.dynamodb.schema import TTL, Item, number, string, text
from hevcq.backends.aws.errors import translate_errors
from hevcq.backends.aws.videos.schema import BY_STATUS
from hevcq.ports.videos import AccountKind, Accounts

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

LISTED = frozenset({AccountKind.USER, AccountKind.PROGRAM})
"""Kinds that are listed; the index holds no sessions, of which there are many."""


class DynamoAccounts(Accounts):
    """Items `web#<kind>#<key>`, in the index `by_status` under `web#<kind>`; time to live removes them."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._db, self._table = client, table
        self.where = f"the table {table}"

    def all(self, kind: AccountKind) -> Mapping[str, Mapping[str, Any]]:
        """Find the keys in the index, then read each row, which decides."""
        found: dict[str, Mapping[str, Any]] = {}
        pages = self._db.get_paginator("query").paginate(
            TableName=self._table,
            IndexName=BY_STATUS,
            KeyConditionExpression="#status = :kind",
            ExpressionAttributeNames={"#status": "status"},
            ExpressionAttributeValues={":kind": text(_kind(kind))},
        )
        with translate_errors(f"list the {kind}"):
            keys = [string(item, "video_id") for page in pages for item in page["Items"]]
        for key in keys:
            row = self.get(kind, key)
            if row is not None:
                found[key] = row
        return found

    def get(self, kind: AccountKind, key: str) -> Mapping[str, Any] | None:
        """Read the item consistently."""
        with translate_errors("look up who is asking"):
            answer = self._db.get_item(
                TableName=self._table, Key=_key(kind, key), ConsistentRead=True
            )
        return _row(answer["Item"]) if "Item" in answer else None

    def put(
        self,
        kind: AccountKind,
        key: str,
        row: Mapping[str, Any],
        *,
        expires_at: float | None = None,
    ) -> bool:
        """Put the item, and see whether there was one."""
        item: dict[str, Any] = {**_key(kind, key), "row": text(json.dumps(dict(row)))}
        if kind in LISTED:
            item |= {"status": text(_kind(kind)), "video_id": text(key)}
        if expires_at is not None:
            item[TTL] = number(int(expires_at) + 1)
        with translate_errors(f"change the {kind}"):
            answer = self._db.put_item(TableName=self._table, Item=item, ReturnValues="ALL_OLD")
        return not answer.get("Attributes")

    def remove(self, kind: AccountKind, key: str) -> bool:
        """Delete the item, and see whether there was one."""
        with translate_errors(f"change the {kind}"):
            answer = self._db.delete_item(
                TableName=self._table, Key=_key(kind, key), ReturnValues="ALL_OLD"
            )
        return bool(answer.get("Attributes"))


def _kind(kind: AccountKind) -> str:
    return f"web#{kind.value}"


def _key(kind: AccountKind, key: str) -> dict[str, Any]:
    return {"pk": text(f"{_kind(kind)}#{key}")}


def _row(item: Item) -> Mapping[str, Any]:
    found = json.loads(string(item, "row"))
    assert isinstance(found, dict)
    return found
