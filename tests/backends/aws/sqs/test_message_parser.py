"""Bodies of every kind become tasks, or a named reason; never an exception."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hevcq.backends.aws.sqs import dead_letters
from hevcq.backends.aws.sqs.message_parser import MAX_LAYERS, ParsedMessage, Recipient, parse
from hevcq.domain.job import MAX_BODY_BYTES, Source, Task, TaskKind
from hevcq.domain.keys import check_key
from hevcq.domain.verdict import Bury, FailureClass
from hevcq.ports.queue import Delivery

KNOWN = frozenset({"hevc", "720p", "1080p"})
HEVC = Recipient(profile="hevc", subscribed=True, known=KNOWN, bucket="in")
SMALL = Recipient(profile="720p", subscribed=False, known=KNOWN, bucket="in")
SOURCE = Source(bucket="in", key="TODO/a b+c.mp4", version="v1", size=7)


def event(key: str = "TODO/a+b%2Bc.mp4", **thing: object) -> dict:
    described = {"key": key, "size": 7, "eTag": "e" * 32, "versionId": "v1", **thing}
    return {
        "eventVersion": "2.6",
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "s3": {
            "bucket": {"name": "in"},
            "object": {name: value for name, value in described.items() if value is not None},
        },
    }


def body_of(*records: dict) -> str:
    return json.dumps({"Records": list(records)})


def in_sns(text: str) -> str:
    return json.dumps({"Type": "Notification", "TopicArn": "arn:t", "Message": text})


def in_letter(text: str) -> str:
    delivery = Delivery("hevc", "r", "m", text, 3, 0.0, 0.0)
    return dead_letters.encode(
        delivery, Bury(reason="bad", failure_class=FailureClass.MESSAGE), 1.0
    )


@pytest.mark.parametrize("wrap", [str, in_sns, in_letter, lambda t: in_letter(in_sns(t))])
def test_an_upload_is_read_raw_in_an_envelope_and_from_a_letter_moved_back(wrap):
    assert parse(wrap(body_of(event())), HEVC).tasks == (Task(source=SOURCE, profile="hevc"),)


@pytest.mark.parametrize("wrap", [str, in_sns])
def test_a_task_of_ours_is_taken_and_one_of_another_profile_is_named(wrap):
    task = Task(source=SOURCE, profile="720p", chunk=None)

    assert parse(wrap(task.body()), SMALL) == ParsedMessage(tasks=(task,))
    assert parse(wrap(task.body()), HEVC).ignored == "not for this profile: a task of 720p"


def test_a_task_of_a_profile_nobody_knows_is_a_problem_not_lost():
    task = Task(source=SOURCE, profile="gone")

    assert "'gone', which does not exist" in parse(task.body(), HEVC).problem


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"in"}', "s3:TestEvent"),
        (in_sns('{"Event":"s3:TestEvent"}'), "s3:TestEvent"),
        ('{"Type":"SubscriptionConfirmation","Token":"t"}', "sns SubscriptionConfirmation"),
        (
            body_of({**event(), "eventName": "ObjectRemoved:DeleteMarkerCreated"}),
            "event ObjectRemoved:DeleteMarkerCreated",
        ),
        (
            body_of({**event(), "eventName": "s3:LifecycleExpiration:Delete"}),
            "event LifecycleExpiration:Delete",
        ),
        (body_of(event("TODO/hevc/", size=0)), "folder marker"),
        (body_of(event("DONE/hevc/a.mp4")), "outside TODO/"),
        (body_of(event("DONE/hevc/a.mp4"), event("DONE/hevc/b.mp4")), "outside TODO/"),
        (body_of(event("TODO/720p/a.mp4")), "not for this profile"),
    ],
)
def test_what_is_for_nobody_is_ignored_by_name(text, name):
    assert parse(text, HEVC) == ParsedMessage(ignored=name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not json", "not JSON"),
        ("[1]", "not a JSON object"),
        ("[" * 100_000, "not JSON"),
        ('{"hello": "world"}', "neither a hevcq task"),
        ('{"Records": []}', "1 to 1000 records"),
        ('{"Records": {"a": 1}}', "1 to 1000 records"),
        (body_of({**event(), "eventSource": "aws:sns"}), "not from S3"),
        (body_of({**event(), "eventVersion": "3.0"}), "version '3.0'"),
        (body_of({**event(), "eventName": None}), "without name and version"),
        (body_of({**event(), "s3": {}}), "without bucket and object"),
        (body_of(event(key=None)), "without a key"),
        (body_of(event("TODO/%FF.mp4")), "not UTF-8"),
        (body_of(event("TODO/../etc/passwd")), "'..' component"),
        (body_of(event("TODO//etc/passwd")), "'..' component"),
        (body_of(event(size=None)), "without a size"),
        (body_of(event(size=-1)), "greater than or equal to 0"),
        (
            body_of(event(size=2**63)),
            "less than or equal to",
        ),  # neither SQLite nor DynamoDB holds such a number
        (body_of(event(size=10**4000)), ""),
        (body_of(event(size=True)), "without a size"),
        (body_of(event(versionId=None, eTag=None)), "without version id and ETag"),
        ('{"hevcq": 1}', "not a hevcq task: source"),
        ('{"hevcq": 2}', "not a hevcq task: hevcq"),
        ('{"hevcq_dead_letter": 1}', "not a whole one"),
        ("x" * (MAX_BODY_BYTES + 1), "over 262144 bytes"),
    ],
)
def test_what_cannot_be_read_is_a_problem_with_its_reason(text, words):
    found = parse(text, HEVC)

    assert (found.tasks, words in found.problem) == ((), True), found


def test_events_of_another_bucket_are_refused():
    elsewhere = event()
    elsewhere["s3"]["bucket"]["name"] = "theirs"

    assert "'theirs', not 'in'" in parse(body_of(elsewhere), HEVC).problem
    forged = Task(source=SOURCE.model_copy(update={"bucket": "theirs"}), profile="hevc")
    assert "'theirs', not 'in'" in parse(forged.body(), HEVC).problem


def test_several_records_give_their_tasks_once_each():
    other = event("TODO/hevc/z.mp4", versionId="v2")
    found = parse(body_of(event(), other, event(), event("TODO/720p/no.mp4")), HEVC)

    assert [task.source.key for task in found.tasks] == ["TODO/a b+c.mp4", "TODO/hevc/z.mp4"]
    assert found.ignored == ""


def test_one_bad_record_of_several_makes_the_whole_body_a_problem():
    found = parse(body_of(event(), event("TODO/..")), HEVC)

    assert found.tasks == ()
    assert found.problem


@pytest.mark.parametrize("version", [None, "null", ""])
def test_without_a_version_id_the_etag_is_the_version(version):
    thing = event(versionId=version, sequencer=None)

    assert parse(body_of(thing), HEVC).tasks[0].source.version == "e" * 32


def test_endless_wrapping_ends():
    text = body_of(event())
    for _ in range(MAX_LAYERS):
        text = in_sns(text)

    assert "wrapped too many times" in parse(text, HEVC).problem


def test_a_profile_without_subscription_takes_only_what_names_it():
    assert parse(body_of(event()), SMALL).ignored == "not for this profile"
    assert len(parse(body_of(event("TODO/720p/a.mp4")), SMALL).tasks) == 1


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text(alphabet=st.characters(codec=None)))
def test_any_text_gives_a_reading_and_never_an_exception(text):
    assert parse(text, HEVC).problem


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["key", "size", "eTag", "versionId", "sequencer"]), LEAVES),
    st.dictionaries(st.sampled_from(["eventName", "eventVersion", "eventSource", "s3"]), LEAVES),
)
def test_any_mangled_record_gives_a_reading_and_never_an_exception(thing, record):
    found = parse(body_of({**event(**thing), **record}), HEVC)

    assert bool(found.problem) != bool(found.tasks or found.ignored)


TREES = st.recursive(
    LEAVES | st.sampled_from(["chunk", "hevc", "..", "TODO/a.mp4", "1e999", "\ud800", "\0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
NAMES = st.sampled_from(["hevcq", "kind", "source", "profile", "chunk", "group", "Records"])


@settings(max_examples=300, deadline=None)
@given(changes=st.dictionaries(NAMES, TREES, max_size=4))
def test_a_task_with_forged_fields_is_a_task_of_this_farm_or_refused(changes):
    body = json.dumps({**json.loads(Task(source=SOURCE, profile="hevc").body()), **changes})

    found = parse(body, HEVC)

    assert all(task.profile == "hevc" and task.source.bucket == "in" for task in found.tasks)
    assert all(check_key(task.source.key) and task.kind in TaskKind for task in found.tasks)
    assert found.tasks or found.ignored or 0 < len(found.problem) < 1_000


FORGED = [
    {"buried_at": float("nan")}, {"buried_at": -1e300}, {"attempts": 10**4000},
    {"failure_class": "none"}, {"form": "zlib"}, {"body": 7},
]  # fmt: skip


@pytest.mark.parametrize("changes", FORGED, ids=lambda changes: next(iter(changes)))
def test_a_forged_letter_is_listed_as_the_text_that_it_is(changes):
    # A time before all times, or none at all, ended the listing of every dead letter.
    whole = json.loads(in_letter("body"))
    assert dead_letters.decode(json.dumps(whole)) is not None
    assert dead_letters.decode(json.dumps({**whole, **changes})) is None
    assert parse(json.dumps({**whole, **changes}), HEVC).problem


WHY = Bury(reason="it is broken", failure_class=FailureClass.DAMAGED, tail=("one", "two"))


def delivery(body: str) -> Delivery:
    return Delivery("hevc", "r", "m-1", body, 4, 0.0, 0.0)


def test_a_letter_carries_body_reason_class_attempts_and_tail():
    found = dead_letters.decode(dead_letters.encode(delivery("body é \n"), WHY, 12.5))

    assert (found.body, found.reason, found.failure_class) == (
        "body é \n",
        "it is broken",
        FailureClass.DAMAGED,
    )
    assert (found.attempts, found.tail, found.buried_at) == (4, ("one", "two"), 12.5)


def test_a_letter_buried_again_is_not_wrapped_twice():
    once = dead_letters.encode(delivery("body"), WHY, 1.0)

    assert dead_letters.decode(dead_letters.encode(delivery(once), WHY, 2.0)).body == "body"


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.characters(codec=None)), st.lists(st.text(max_size=3_000), max_size=9))
def test_any_body_and_tail_fit_a_message(body, tail):
    why = Bury(reason=body, failure_class=FailureClass.MESSAGE, tail=tuple(tail))
    text = dead_letters.encode(delivery(body), why, 1.0)

    assert len(text.encode("utf-8")) < MAX_BODY_BYTES
    assert dead_letters.decode(text) is not None
