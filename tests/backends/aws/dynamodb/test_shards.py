"""The index of states in shards, of which a count reads no day twice."""

import pytest

from backends.aws.dynamodb.test_dynamodb import REF, SOURCE
from hevcq.backends.aws.dynamodb.queries import DAY_S
from hevcq.backends.aws.dynamodb.schema import job_pk, shard_of, text
from hevcq.domain.job import JobState, job_id
from hevcq.domain.verdict import FailureClass
from hevcq.ports.ledger import Granted
from support.aws.breaking import Breaking, refusal

pytestmark = pytest.mark.aws
FINISHED = frozenset({JobState.DONE})


def sources(count: int, first: int = 0) -> list:
    return [SOURCE.model_copy(update={"version": f"v{n}"}) for n in range(first, first + count)]


def do(ledger, source) -> str:
    granted = ledger.claim(source, "hevc", owner="w", lease_s=60)
    assert isinstance(granted, Granted)
    ledger.complete(job_id(source, "hevc"), granted.fence, REF, cpu_s=1.0)
    return job_id(source, "hevc")


def read_entries(ledger) -> int:
    """Count and return how many index entries that read."""
    answers: list = []

    def kept(real, **asked):
        answers.append(real(**asked))
        return answers[-1]

    ledger._jobs.db.plan["query"] = [kept] * 100
    ledger._counts.counts()
    ledger._jobs.db.plan["query"] = []
    return sum(len(answer["Items"]) for answer in answers)


@pytest.fixture
def counted(farm):
    """The ledger over a client that a test can watch and break."""
    ledger = farm.backend.ledger
    ledger._jobs.db = ledger._queries._db = ledger._counts._db = Breaking(farm.clients.dynamodb)
    return ledger


def test_the_jobs_of_one_state_are_in_several_partitions() -> None:
    names = {shard_of(job_id(source, "hevc"), JobState.QUEUED) for source in sources(40)}

    assert names == {f"queued#{n}" for n in range(4)}


def test_a_count_reads_only_what_moved_since_the_last_whole_day(farm, counted) -> None:
    for source in sources(12):
        do(counted, source)
    farm.clock.advance(2 * DAY_S)
    assert read_entries(counted) == 12
    do(counted, sources(1, first=50)[0])

    assert read_entries(counted) == 1
    assert counted.counts() == {("hevc", JobState.DONE): 13}


def test_a_job_that_is_reopened_is_counted_where_it_is(farm, counted) -> None:
    done = [do(counted, source) for source in sources(3)]
    farm.clock.advance(3 * DAY_S)
    assert counted.counts() == {("hevc", JobState.DONE): 3}

    assert counted.reopen(done[0], who="me", why="test")
    assert counted.counts() == {("hevc", JobState.DONE): 2, ("hevc", JobState.QUEUED): 1}

    fence = counted.claim(sources(1)[0], "hevc", owner="w", lease_s=60).fence
    counted.bury(done[0], fence, "broken", FailureClass.DAMAGED)
    farm.clock.advance(DAY_S)
    for _ in range(2):
        assert counted.counts() == {("hevc", JobState.DONE): 2, ("hevc", JobState.DEAD): 1}


def test_a_role_that_may_not_write_counts_still_counts(farm, counted) -> None:
    do(counted, SOURCE)
    farm.clock.advance(2 * DAY_S)
    counted._jobs.db.plan["put_item"] = [refusal("AccessDeniedException")] * 9

    assert counted.counts() == {("hevc", JobState.DONE): 1}
    assert counted.counts() == {("hevc", JobState.DONE): 1}


def test_records_that_expired_are_no_longer_counted(farm, counted) -> None:
    do(counted, SOURCE)
    farm.clock.advance(2 * DAY_S)
    assert counted.counts() == {("hevc", JobState.DONE): 1}
    key = {"pk": text(job_pk(job_id(SOURCE, "hevc"), "hevc"))}
    farm.clients.dynamodb.delete_item(TableName="hevcq", Key=key)
    farm.clock.advance(180 * DAY_S)

    assert counted.counts() == {}
