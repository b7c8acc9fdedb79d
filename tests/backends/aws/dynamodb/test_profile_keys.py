"""Keys by profile: a worker writes only below its own."""

import pytest

from backends.aws.dynamodb.test_dynamodb import JOB, REF, SOURCE
from hevcq.domain.job import JobState, Phase, Progress, Split, job_id, subjob_id
from hevcq.domain.verdict import FailureClass
from hevcq.ports.ledger import Granted

pytestmark = pytest.mark.aws
SPLIT = Split(name="digest-2", chunks=2, frames=20, seconds=1.0, plan_sha256="0" * 64)


def written(ledger) -> set[str]:
    """Return the keys of all writes."""
    keys = set()
    for name, asked in ledger.db.calls:
        if name in {"put_item", "update_item", "delete_item"}:
            keys.add((asked.get("Item") or asked["Key"])["pk"]["S"])
    return keys


def live(ledger) -> None:
    """Take the job through failure, split, chunks, burial and the notes beside them."""

    def claim(owner: str = "w") -> int:
        found = ledger.claim(SOURCE, "hevc", owner=owner, lease_s=60)
        assert isinstance(found, Granted)
        return found.fence

    fence = claim()
    ledger.renew(JOB, fence, lease_s=60)
    ledger.progress(JOB, fence, Progress(phase=Phase.ENCODE, percent=1))
    ledger.fail(JOB, fence, "why", FailureClass.ENCODER)
    fence = claim()
    ledger.split(JOB, fence, SPLIT, [10, 10])
    ledger.mark_enqueued(JOB, SPLIT.name)
    part = subjob_id(JOB, SPLIT.name, 0)
    found = ledger.claim_subjob(part, owner="w", lease_s=60)
    assert isinstance(found, Granted)
    ledger.complete(part, found.fence, REF, cpu_s=1.0)
    assert [p.state for p in ledger.subjobs(JOB)].count(JobState.DONE) == 1
    ledger.bury(JOB, fence, "broken", FailureClass.DAMAGED)
    ledger.note_letter(JOB)
    assert ledger.has_letter(JOB)
    ledger.remember("ab" * 32, "hevc", "r1", "no smaller")
    assert ledger.recall("ab" * 32, "hevc", "r1").reason == "no smaller"


def test_every_write_of_a_workers_life_is_below_its_profile(ledger):
    live(ledger)

    assert len(written(ledger)) > 4
    assert {key for key in written(ledger) if not key.startswith("hevc#")} == set()


def test_a_job_is_found_by_its_id_alone(ledger):
    ledger.register(SOURCE, ["720p", "hevc"])
    ledger._profile_by_job.clear()

    for profile in ("720p", "hevc"):
        name = job_id(SOURCE, profile)
        assert ledger.get(name).profile == profile
        assert ledger.cancel(name, "why")
    assert ledger.get("0" * 32) is None
