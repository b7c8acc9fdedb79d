"""Implement the pause port as one DynamoDB item, with an attribute for each paused profile.

A worker reads it before it receives, at most every READ_EVERY_S seconds: half a million read units
a month for one worker, some 13 cents. No worker's role may write it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from hevcq.backends.aws.dynamodb.job_table import JobTable
from hevcq.backends.aws.dynamodb.schema import PAUSE_PK, Item, string, text
from hevcq.backends.aws.errors import translate_errors
from hevcq.domain.pause import Pause
from hevcq.ports.ledger import Pauses
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

READ_EVERY_S = 5.0
PREFIX = "of:"
"""Begins the name of the attribute of a profile; that of all profiles is the prefix alone."""


class DynamoPauses(Pauses):
    """The pauses of one farm."""

    pauses_read_every_s = READ_EVERY_S
    _jobs: JobTable
    _clock: Clock

    def pauses(self) -> tuple[Pause, ...]:
        """Read the item by a consistent read."""
        return self._held(self._jobs.item(PAUSE_PK))

    def pause(self, pause: Pause) -> None:
        """Set the attribute of the profile."""
        self._update(
            "SET #name = :pause",
            {"#name": f"{PREFIX}{pause.profile}"},
            {":pause": text(pause.model_dump_json())},
        )

    def resume(self, profile: str | None) -> tuple[Pause, ...]:
        """Remove the attribute of the profile, or of all that there are."""
        found = self._jobs.item(PAUSE_PK) or {}
        wanted = [PREFIX + profile] if profile is not None else sorted(found)
        names = {f"#n{i}": name for i, name in enumerate(n for n in wanted if n.startswith(PREFIX))}
        if not names:
            return ()
        before = self._update(f"REMOVE {', '.join(names)}", names)
        return tuple(p for p in self._held(before) if profile in (None, p.profile))

    def _update(
        self,
        expression: str,
        names: dict[str, str],
        values: dict[str, AttributeValueTypeDef] | None = None,
    ) -> Item | None:
        asked: dict[str, Any] = {"ExpressionAttributeValues": values} if values else {}
        with translate_errors("set a pause"):
            answer = self._jobs.db.update_item(
                TableName=self._jobs.name,
                Key={"pk": text(PAUSE_PK)},
                UpdateExpression=expression,
                ExpressionAttributeNames=names,
                ReturnValues="ALL_OLD",
                **asked,
            )
        return answer.get("Attributes")

    def _held(self, item: Item | None) -> tuple[Pause, ...]:
        now, found = self._clock.now(), []
        for name in sorted(item or {}):
            if not name.startswith(PREFIX):
                continue
            try:
                pause = Pause.model_validate_json(string(item or {}, name))
            except ValidationError as error:
                get_logger().warning("pause_unreadable", name=name, reason=str(error))
                continue
            if pause.until is None or now < pause.until:
                found.append(pause)
        return tuple(found)
