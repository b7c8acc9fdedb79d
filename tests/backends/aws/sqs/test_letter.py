"""A dead letter's body keeps the message and the reason, and never outgrows a queue."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hevcq.backends.aws.sqs import letter, message_parser
from hevcq.backends.aws.sqs.message_parser import Recipient
from hevcq.domain.job import MAX_BODY_BYTES
from hevcq.domain.verdict import Bury, FailureClass
from hevcq.ports.queue import Delivery

WHY = Bury(reason="it is broken", failure_class=FailureClass.DAMAGED, tail=("one", "two"))


def delivery(body: str) -> Delivery:
    return Delivery("hevc", "r", "m-1", body, 4, 0.0, 0.0)


def test_a_letter_carries_body_reason_class_attempts_and_tail() -> None:
    found = letter.read(letter.write(delivery("body é \n"), WHY, 12.5))

    assert found is not None
    assert (found.original(), found.reason, found.failure_class) == (
        "body é \n",
        "it is broken",
        FailureClass.DAMAGED,
    )
    assert (found.attempts, found.tail, found.buried_at) == (4, ("one", "two"), 12.5)
    assert (found.message_id, found.queue) == ("m-1", "hevc")


def test_a_letter_buried_again_is_not_wrapped_twice() -> None:
    once = letter.write(delivery("body"), WHY, 1.0)

    assert letter.original_of(letter.write(delivery(once), WHY, 2.0)) == "body"


def test_a_large_event_is_packed_and_comes_back_whole() -> None:
    body = json.dumps({"Records": [{"n": n, "text": '"\\' * 20} for n in range(2_500)]})
    assert len(body) > letter.ROOM_BYTES

    text = letter.write(delivery(body), WHY, 1.0)

    assert len(text.encode()) < MAX_BODY_BYTES
    assert letter.original_of(text) == body


def test_an_oversize_body_that_does_not_shrink_keeps_its_beginning_and_its_size() -> None:
    dice = random.Random(7)
    body = "".join(chr(dice.randrange(33, 5_000)) for _ in range(400_000))

    found = letter.read(letter.write(delivery(body), WHY, 1.0))

    assert found is not None
    assert (found.form, body.startswith(found.original())) == ("head", True)
    assert found.body_bytes == len(body.encode())


def test_the_last_lines_of_a_long_tail_are_kept() -> None:
    why = Bury(
        reason="r" * 9_000, failure_class=FailureClass.ENCODER, tail=("x" * 9_000,) * 50 + ("last",)
    )
    text = letter.write(delivery("b"), why, 1.0)
    found = letter.read(text)

    assert found is not None
    assert found.tail[-1] == "last"
    assert len(text.encode()) < letter.ROOM_BYTES


@pytest.mark.parametrize("form", ["zlib", "other"])
def test_a_forged_letter_is_not_one(form: str) -> None:
    text = letter.write(delivery("body"), WHY, 1.0).replace('"form":"text"', f'"form":"{form}"')

    assert letter.read(text) is None
    assert letter.original_of(text) == text


@pytest.mark.parametrize("body", ["é", "no base64", "aGk=", "", "a"])
def test_a_letter_whose_packed_body_is_none_ends_nobody_who_reads_it(body: str) -> None:
    forged = json.loads(letter.write(delivery("body"), WHY, 1.0)) | {"form": "zlib", "body": body}
    text = json.dumps(forged, separators=(",", ":"))

    recipient = Recipient(profile="hevc", subscribed=True, known=frozenset({"hevc"}))

    assert message_parser.read(text, recipient).problem


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.characters(codec=None)), st.lists(st.text(max_size=3_000), max_size=9))
def test_any_body_and_tail_fit_a_message(body: str, tail: list[str]) -> None:
    why = Bury(reason=body, failure_class=FailureClass.MESSAGE, tail=tuple(tail))
    text = letter.write(delivery(body), why, 1.0)

    assert len(text.encode("utf-8")) < MAX_BODY_BYTES
    assert letter.read(text) is not None
