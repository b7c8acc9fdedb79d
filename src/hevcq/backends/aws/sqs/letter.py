"""The body of a dead letter: the original message and why it was buried, as one JSON text.

Pure. What SQS's own redrive policy or SNS put into a dead-letter queue is not of this form: it is
the original body itself.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Literal

from pydantic import Field

from hevcq.domain.job import MAX_BODY_BYTES
from hevcq.domain.model import Frozen
from hevcq.domain.verdict import Bury, FailureClass
from hevcq.ports.queue import Delivery

MARK = "hevcq_dead_letter"
ROOM_BYTES = MAX_BODY_BYTES - 8_192
"""What the body may take: attributes and the rest of the letter share the 256 KiB."""
MAX_TAIL_BYTES = 16_384
MAX_REASON = 4_096
MAX_ATTEMPTS = 2**31 - 1
PACKED_CAP = 4 * MAX_BODY_BYTES
"""A packed body is never unpacked past this, so that a forged letter is no bomb."""


class Letter(Frozen):
    """A dead letter as it travels. `body_bytes` is the size of the original body in UTF-8.

    `form` says how `body` carries it: as it is, as base64 of zlib, or only its beginning.
    """

    hevcq_dead_letter: Literal[1] = 1
    queue: str
    message_id: str
    reason: str
    failure_class: FailureClass
    attempts: int = Field(ge=0, le=MAX_ATTEMPTS)
    tail: tuple[str, ...] = ()
    buried_at: float = Field(ge=0, allow_inf_nan=False)
    form: Literal["text", "zlib", "head"] = "text"
    body_bytes: int = Field(ge=0)
    body: str

    def original(self) -> str:
        """Return the original body (its beginning, if it was too large for any queue of ours)."""
        if self.form != "zlib":
            return self.body
        packed = base64.b64decode(self.body, validate=True)
        return zlib.decompressobj().decompress(packed, PACKED_CAP).decode("utf-8")


def write(delivery: Delivery, why: Bury, now: float) -> str:
    """Return the letter of a delivery as a message body of at most 256 KiB."""
    inner = original_of(delivery.body)
    form, body = _fit(inner)
    letter = Letter(
        queue=delivery.queue,
        message_id=delivery.message_id,
        reason=_clean(why.reason)[:MAX_REASON],
        failure_class=why.failure_class,
        attempts=delivery.attempt,
        tail=_end_of(why.tail),
        buried_at=now,
        form=form,
        body_bytes=len(inner.encode("utf-8", "replace")),
        body=body,
    )
    return letter.model_dump_json()


def read(text: str) -> Letter | None:
    """Return the letter in a message body, or None if the text is not one."""
    if not is_marked(text):
        return None
    try:
        letter = Letter.model_validate_json(text)
        letter.original()
    except (ValueError, zlib.error):
        # Not valid, not base64 (or not even ASCII), not packed, or not UTF-8.
        return None
    return letter


def is_marked(text: str) -> bool:
    """Return whether a text says of itself that it is a letter; it need not be a whole one."""
    return text.startswith('{"' + MARK)


def original_of(body: str) -> str:
    """Return what a letter carries, or the body itself if it is not a letter."""
    letter = read(body)
    return body if letter is None else letter.original()


def _fit(body: str) -> tuple[Literal["text", "zlib", "head"], str]:
    clean = _clean(body)
    room = ROOM_BYTES - MAX_TAIL_BYTES - 2 * MAX_REASON
    if _quoted_bytes(clean) <= room:
        return "text", clean
    packed = base64.b64encode(zlib.compress(clean.encode(), 9)).decode("ascii")
    if len(packed) <= room and len(clean.encode()) <= PACKED_CAP:
        return "zlib", packed
    head = clean[: room // 6]
    return "head", head


def _quoted_bytes(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode("utf-8"))


def _end_of(tail: tuple[str, ...]) -> tuple[str, ...]:
    kept: list[str] = []
    room = MAX_TAIL_BYTES
    for line in reversed(tail):
        clean = _clean(line)[-2_000:]
        room -= _quoted_bytes(clean) + 1
        if room < 0:
            break
        kept.append(clean)
    return tuple(reversed(kept))


def _clean(text: str) -> str:
    """Replace what a queue refuses: lone surrogates, and control characters outside JSON's own.

    SQS takes the characters of XML 1.0 only
    (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html).
    """
    valid = text.encode("utf-8", "replace").decode("utf-8")
    return valid.replace("\ufffe", "\ufffd").replace("\uffff", "\ufffd")
