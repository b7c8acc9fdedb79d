"""Days of uploads in virtual time: the ledger's real claims against the limits of its index."""

from typing import Any

import pytest
from benchmarks.autoscaling import Rules, rules_of
from benchmarks.scale import Day, simulate

BURST = Day(600, 600 / 1157 / 3600, 600, job_s=15.0, warm=True)


@pytest.fixture(scope="session")
def rules(resources: list[dict[str, Any]]) -> Rules:
    return rules_of(resources, "hevc")


@pytest.mark.terraform
def test_every_upload_of_a_day_is_encoded_once_by_the_fleet_that_the_rules_start(
    rules: Rules,
) -> None:
    seen = simulate(rules, Day(400, 2, 200))

    assert (seen.done, len(seen.waits)) == (400, 400)
    assert seen.wait_h(0.99) < 2
    assert 20 < seen.most_tasks <= 200
    assert seen.throttles == 0


@pytest.mark.terraform
def test_shards_take_the_writes_that_one_partition_a_state_cannot(
    rules: Rules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.scale.PARTITION_WRITES", 250)

    one, four = (simulate(rules, BURST, shards=n) for n in (1, 4))

    assert one.done == four.done == BURST.uploads
    assert one.throttles > 0
    assert four.throttles == 0
    assert four.hours <= one.hours


@pytest.mark.terraform
@pytest.mark.slow
def test_a_hundred_thousand_uploads_at_a_million_a_day(rules: Rules) -> None:
    seen = simulate(rules, Day(100_000, 2.4, 25_000))

    assert seen.done == 100_000
    assert seen.throttles == 0
    assert seen.wait_h(0.99) < 4
