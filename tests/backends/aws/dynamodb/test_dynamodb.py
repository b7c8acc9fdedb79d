"""What DynamoDB alone can do to a ledger: lost replies, lagging indexes, costs, pages, races."""

import pytest

from hevcq.backends.aws.dynamodb.schema import JOB_RETENTION_S, TTL, job_pk, text
from hevcq.domain.job import JobState, RenditionRef, Source, Split, job_id
from hevcq.domain.verdict import FailureClass
from hevcq.errors import StaleFence, Unavailable
from hevcq.ports.ledger import Granted, JobFilter
from support.aws.breaking import refusal
from support.processes import Killed

pytestmark = pytest.mark.aws
SOURCE = Source(bucket="uploads", key="TODO/all/a.mp4", version="v", size=1)
JOB = job_id(SOURCE, "hevc")
REF = RenditionRef(key="DONE/hevc/a.mp4", size=1, sha256="0" * 64, certificate_key="c")


@pytest.fixture
def farm(farm):
    farm.clock.auto = False
    return farm


def claim(ledger, owner: str = "w", lease_s: float = 60):
    return ledger.claim(SOURCE, "hevc", owner=owner, lease_s=lease_s)


def item(farm) -> dict:
    key = {"pk": text(job_pk(JOB, "hevc"))}
    return farm.clients.dynamodb.get_item(TableName="hevcq", Key=key)["Item"]


def sent_again(real, **asked):
    """Do what botocore does when the answer is lost: send the same request again."""
    real(**asked)
    return real(**asked)


def test_a_write_whose_answer_was_lost_counts_as_made_once(ledger):
    ledger.db.plan["update_item"] = [sent_again] * 3

    assert claim(ledger) == Granted(fence=1, failures=0, crashes=0)
    assert claim(ledger, "other").state is JobState.RUNNING
    ledger.fail(JOB, 1, "why", FailureClass.ENCODER)
    assert ledger.get(JOB).failures == 1
    fence = claim(ledger).fence
    ledger.db.plan["update_item"] = [sent_again]
    ledger.complete(JOB, fence, REF, cpu_s=2.5)
    record = ledger.get(JOB)
    assert (record.state, record.rendition, record.cpu_s) == (JobState.DONE, REF, 2.5)


@pytest.mark.parametrize("write", ["put_item", "update_item"])
def test_a_claim_that_is_overtaken_looks_again_and_is_refused(farm, ledger, write):

    def overtaken(real, **asked):
        assert claim(ledger, "quicker") == Granted(1, 0, 0)
        return real(**asked)

    ledger.db.plan[write] = [overtaken]

    assert claim(ledger).lease_until == farm.clock.now() + 60


def test_a_renewal_that_comes_between_keeps_the_job(farm, ledger):
    claim(ledger, "first", lease_s=10)
    farm.clock.advance(11)

    def renewed(real, **asked):
        ledger.renew(JOB, 1, lease_s=60)
        return real(**asked)

    ledger.db.plan["update_item"] = [renewed]

    assert claim(ledger, "second").state is JobState.RUNNING


def test_an_ended_record_expires_and_a_reopened_one_does_not(farm, ledger):
    claim(ledger)
    assert TTL not in item(farm)
    ledger.bury(JOB, 1, "why", FailureClass.DAMAGED)
    assert float(item(farm)[TTL]["N"]) == int(farm.clock.now()) + JOB_RETENTION_S

    assert ledger.reopen(JOB, who="me", why="fixed") is True

    assert TTL not in item(farm)
    assert ledger.get(JOB).reason == "reopened by me: fixed"


def test_a_listing_goes_through_pages_of_the_index_and_of_the_items(farm, ledger):
    sources = [SOURCE.model_copy(update={"key": f"TODO/all/{n:03}.mp4"}) for n in range(130)]
    for source in sources:
        ledger.register(source, ["hevc"])
        farm.clock.advance(1)

    def few(real, **asked):
        return real(**asked, Limit=40)

    ledger.db.plan["query"] = [few] * 50
    listed = [record.source.key for record in ledger.jobs(JobFilter())]

    assert listed == [source.key for source in reversed(sources)]
    assert ledger.db.count("batch_get_item") == 2
    assert ledger.counts() == {("hevc", JobState.QUEUED): 130}


def test_items_that_dynamodb_puts_off_are_asked_for_again(ledger):
    for number_ in range(3):
        ledger.register(SOURCE.model_copy(update={"version": str(number_)}), ["hevc"])

    def half(real, *, RequestItems):
        keys = RequestItems["hevcq"]["Keys"]
        answer = real(RequestItems={"hevcq": {"Keys": keys[:1], "ConsistentRead": True}})
        answer["UnprocessedKeys"] = {"hevcq": {"Keys": keys[1:], "ConsistentRead": True}}
        return answer

    ledger.db.plan["batch_get_item"] = [half]

    assert len(list(ledger.jobs(JobFilter()))) == 3


def test_items_that_are_put_off_for_ever_are_an_error_not_missing(ledger):
    ledger.register(SOURCE, ["hevc"])

    def never(_real, *, RequestItems):
        return {"Responses": {}, "UnprocessedKeys": RequestItems}

    ledger.db.plan["batch_get_item"] = [never] * 99

    with pytest.raises(Unavailable):
        list(ledger.jobs(JobFilter()))


def test_a_job_that_moves_while_states_are_asked_one_by_one_is_listed_once(ledger):
    ledger.register(SOURCE, ["hevc"])
    queries = []

    def moves(real, **asked):
        queries.append(real(**asked))
        if queries[-1]["Items"] and ledger.get(JOB).state is JobState.QUEUED:
            claim(ledger)
        return queries[-1]

    ledger.db.plan["query"] = [moves] * 50

    (record,) = ledger.jobs(JobFilter())

    assert record.state is JobState.RUNNING
    assert sum(len(answer["Items"]) for answer in queries) == 2, "the index showed it twice"


def test_a_job_of_a_folder_that_moves_before_it_is_read_is_listed_as_it_is_now(ledger):
    ledger.register(SOURCE, ["hevc"])

    def moves(real, **asked):
        claim(ledger)
        return real(**asked)

    ledger.db.plan["batch_get_item"] = [moves]

    (record,) = ledger.jobs(JobFilter(key_prefixes=(SOURCE.key[:-1],)))

    assert record.state is JobState.RUNNING


def test_a_throttle_is_unavailable_and_not_a_stale_fence(ledger):
    claim(ledger)
    ledger.db.plan["update_item"] = [refusal("ProvisionedThroughputExceededException")]

    with pytest.raises(Unavailable):
        ledger.renew(JOB, 1, lease_s=60)

    with pytest.raises(StaleFence):
        ledger.renew(JOB, 2, lease_s=60)


def test_a_job_that_everybody_changes_is_unavailable_in_the_end(ledger):
    ledger.register(SOURCE, ["hevc"])
    ledger.db.plan["update_item"] = [refusal("ConditionalCheckFailedException", Item={})] * 20

    with pytest.raises(Unavailable, match="changed by too many others"):
        claim(ledger)
    with pytest.raises(Unavailable, match="changed by too many others"):
        ledger.bury_unclaimed(JOB, "why", FailureClass.RECEIVES)
    ledger.db.plan["update_item"] = [refusal("ConditionalCheckFailedException", Item={})] * 20
    with pytest.raises(Unavailable, match="changed by too many others"):
        ledger.cancel(JOB, "why")


FRAMES = [50, 50, 20]


def split_named(name: str) -> Split:
    return Split(name=name, chunks=3, frames=120, seconds=4.8, plan_sha256="0" * 64)


@pytest.mark.parametrize("number", range(4))
def test_a_kill_between_two_parts_leaves_a_running_job_that_nobody_calls_split(ledger, number):
    fence = claim(ledger).fence
    ledger.db.plan["put_item"] = [None] * number + [Killed()]

    with pytest.raises(Killed):
        ledger.split(JOB, fence, split_named("s-1"), FRAMES)

    assert ledger.get(JOB).state is JobState.RUNNING
    assert ledger.subjobs(JOB) == []
    ledger.split(JOB, fence, split_named("s-2"), FRAMES)
    assert {part.subjob.split for part in ledger.subjobs(JOB)} == {"s-2"}


def test_a_split_that_took_the_place_of_another_meanwhile_is_not_marked_as_sent(ledger):
    fence = claim(ledger).fence
    ledger.split(JOB, fence, split_named("s-1"), FRAMES)

    def split_anew(real, **asked):
        ledger.abandon_split(JOB, fence, "why")
        ledger.split(JOB, claim(ledger).fence, split_named("s-2"), FRAMES)
        return real(**asked)

    ledger.db.plan["update_item"] = [split_anew]
    ledger.mark_enqueued(JOB, "s-1")

    assert ledger.get(JOB).split == split_named("s-2")


def test_no_decision_is_made_on_a_read_that_may_be_old(ledger):
    fence = claim(ledger).fence
    ledger.get(JOB)
    list(ledger.jobs(JobFilter()))
    ledger.fail(JOB, fence, "it failed", FailureClass.ENCODER)
    ledger.counts()

    reads = [(name, asked) for name, asked in ledger.db.calls if "get_item" in name]
    assert {name for name, _ in reads} >= {"get_item", "batch_get_item"}
    for name, asked in reads:
        tables = asked["RequestItems"].values() if name == "batch_get_item" else [asked]
        assert all(table.get("ConsistentRead") is True for table in tables), name


def test_a_job_that_was_sent_anew_has_moved_unless_it_moved_meanwhile(farm, ledger):
    claim(ledger)
    seen = ledger.get(JOB)
    farm.clock.advance(100)

    ledger.mark_resent(seen)

    moved = ledger.get(JOB)
    assert moved == seen.model_copy(update={"updated_at": seen.updated_at + 100})
    ledger.complete(JOB, 1, REF, cpu_s=1.0)
    ledger.mark_resent(moved)
    assert ledger.get(JOB).state is JobState.DONE
