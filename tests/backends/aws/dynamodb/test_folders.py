"""A folder's jobs by the index of folders: what a listing reads, and tables that lack the index."""

import pytest

from backends.aws.dynamodb.test_dynamodb import SOURCE
from hevcq.backends.aws.dynamodb.schema import item_of, job_pk
from hevcq.domain.job import Source, job_id, new_job
from hevcq.ports.ledger import JobFilter

pytestmark = pytest.mark.aws
SUMMER = JobFilter(key_prefixes=("TODO/all/summer/", "TODO/hevc/summer/"))


def of(folder: str, count: int) -> list[Source]:
    return [SOURCE.model_copy(update={"key": f"TODO/all/{folder}/{n}.mp4"}) for n in range(count)]


def put(farm, sources: list[Source]) -> None:
    """Write items as every release did: none has an attribute that is there for the index alone."""
    items = [
        item_of(new_job(source, "hevc", 1_000.0 + n), job_pk(job_id(source, "hevc"), "hevc"))
        for n, source in enumerate(sources)
    ]
    for start in range(0, len(items), 25):
        asked = [{"PutRequest": {"Item": item}} for item in items[start : start + 25]]
        farm.clients.dynamodb.batch_write_item(RequestItems={"hevcq": asked})


def listed(ledger, wanted: JobFilter = SUMMER) -> tuple[list[str], int]:
    """Return the keys of a listing, and how many entries and items it read."""
    read = []

    def kept(real, **asked):
        answer = real(**asked)
        read.extend(answer.get("Items", []) or answer["Responses"]["hevcq"])
        return answer

    def query(real, **asked):
        assert "FilterExpression" not in asked, "what a filter leaves out is read all the same"
        answer = real(**asked)
        read.extend(answer["Items"])
        return answer

    ledger._jobs.db.plan.update(query=[query] * 500, batch_get_item=[kept] * 500)
    keys = [record.source.key for record in ledger.jobs(wanted)]
    ledger._jobs.db.plan.clear()
    return keys, len(read)


def test_ten_jobs_of_a_thousand_are_found_by_reading_ten(farm, ledger):
    own = of("summer", 10)
    put(farm, of("winter", 990) + own)

    keys, read = listed(ledger)

    assert keys == [source.key for source in reversed(own)]
    assert read == 20, "an entry and an item of each"
