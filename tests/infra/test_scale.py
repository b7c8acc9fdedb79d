"""Days of uploads in virtual time: the ledger's real claims against the limits of its index."""

from typing import Any

import pytest
from benchmarks.scale import Day, simulate
from benchmarks.scaling import Expression, Rules, rules_of

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
@pytest.mark.parametrize(("uploads", "needed"), [(3, 2), (12, 6), (200, 20)])
def test_late_and_missing_metrics_start_no_more_tasks_than_are_needed(
    rules: Rules, uploads: int, needed: int
) -> None:
    for seed in range(3):
        seen = simulate(rules, Day(uploads, 0.01, 20), seed=seed)

        assert seen.most_tasks == needed
        assert min(seen.waits) <= 9 * 60


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


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("a + b", [5.0, None, None, 9.0]),
        ("FILL(b, 0) - a", [1.0, -2.0, None, 1.0]),
        ("FILL(b, REPEAT) * 2", [6.0, 6.0, 16.0, 10.0]),
        ("IF(a > 2 AND b > 4, a, 0)", [0.0, None, None, 4.0]),
        ("a / (a - a)", [None, None, None, None]),
    ],
)
def test_metric_math_keeps_missing_points_missing(
    expression: str, wanted: list[float | None]
) -> None:
    metrics = {"a": [2.0, 2.0, None, 4.0], "b": [3.0, None, 8.0, 5.0]}

    assert Expression(expression).over(metrics) == wanted
