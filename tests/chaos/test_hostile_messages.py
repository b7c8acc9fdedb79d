"""Forged events and messages: whatever arrives becomes tasks for this farm, or a named reason."""

import contextlib
import json
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hevcq.backends.aws.sqs import dead_letters
from hevcq.backends.aws.sqs.message_parser import Recipient, parse
from hevcq.domain.job import Source, Task, TaskKind
from hevcq.domain.keys import check_key, rendition_key
from hevcq.errors import BadMessage

ROUTE = Recipient(profile="hevc", subscribed=True, known=frozenset({"hevc", "720p"}), bucket="in")
TASK = Task(source=Source(bucket="in", key="TODO/a.mp4", version="v", size=7), profile="hevc")


def event(key: object, **thing: object) -> str:
    described = {"key": key, "size": 7, "eTag": "e" * 32, **thing}
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": "in"}, "object": described},
    }
    return json.dumps({"Records": [record]})


LITERAL = [
    "TODO/%252e%252e/x.mp4", "TODO/..%5c..%5cx.mp4", "TODO/%ef%bc%8e%ef%bc%8e/x.mp4", "TODO/...",
    "TODO/a%0a-y%20-i.mp4", "TODO/$(touch%20x).mp4", "TODO/%e2%80%ae4pm.exe", "TODO/~/x.mp4",
]  # fmt: skip


@pytest.mark.parametrize("key", LITERAL)
def test_a_key_that_only_looks_like_a_way_out_stays_a_name_below_the_outbox(key):
    (task,) = parse(event(key), ROUTE).tasks
    made = rendition_key(task.source.key, "hevc", "mp4")
    assert check_key(made).startswith("DONE/hevc/")
    assert not {"", ".", ".."} & set(made.split("/"))


LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40)
    | st.sampled_from(["encode", "chunk", "hevc", "..", "TODO/a.mp4", "1e999", "\ud800", "\0"])
)  # fmt: skip
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.text(string.ascii_letters, max_size=8), inner, max_size=3), max_leaves=8)  # fmt: skip
NAMES = st.sampled_from(
    ["hevcq", "kind", "source", "profile", "chunk", "group", "Records", "extra"]
)


@settings(max_examples=300, deadline=None)
@given(changes=st.dictionaries(NAMES, TREES, max_size=4))
def test_a_task_with_forged_fields_is_a_task_of_this_farm_or_refused(changes):
    body = json.dumps({**json.loads(TASK.body()), **changes})
    with contextlib.suppress(BadMessage):
        task = Task.parse(body)
        assert check_key(task.source.key) == task.source.key
        assert task.kind in TaskKind
    found = parse(body, ROUTE)
    assert all(task.profile == "hevc" and task.source.bucket == "in" for task in found.tasks)
    assert found.tasks or found.ignored or 0 < len(found.problem) < 1_000


@pytest.mark.parametrize("size", [2**63, 10**40, 10**4000, -1], ids=["2^63", "e40", "e4000", "-1"])
def test_a_size_that_no_file_has_is_a_problem_with_its_reason(size):
    # Neither SQLite nor DynamoDB holds such a number: the job could be written down nowhere.
    assert "size" in parse(TASK.body().replace('"size":7', f'"size":{size}'), ROUTE).problem
    assert parse(event("TODO/a.mp4", size=size), ROUTE).problem


FORGED = [
    {"buried_at": float("nan")}, {"buried_at": float("inf")}, {"buried_at": -1e300},
    {"attempts": 10**4000}, {"failure_class": "none"}, {"form": "zlib"}, {"body": 7},
]  # fmt: skip


@pytest.mark.parametrize("changes", FORGED, ids=lambda changes: next(iter(changes)))
def test_a_forged_letter_is_listed_as_the_text_that_it_is(changes):
    # A time before all times, or none at all, ended the listing of every dead letter.
    whole = {
        "hevcq_dead_letter": 1, "reason": "r", "attempts": 1, "failure_class": "message",
        "buried_at": 1.0, "body": TASK.body(),
    }  # fmt: skip
    assert dead_letters.decode(json.dumps(whole)) is not None
    assert dead_letters.decode(json.dumps({**whole, **changes})) is None
    assert parse(json.dumps({**whole, **changes}), ROUTE).problem
