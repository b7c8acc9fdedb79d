"""The plan's own scaling formulas, played through in virtual time with late and missing metrics."""

import dataclasses
import math
from typing import Any

import pytest
from benchmarks.autoscaling import WORLDS, Alarm, Expression, Outcome, Rules, needed, rules_of, run

SEEDS = range(3)


@pytest.fixture(scope="session")
def rules(resources: list[dict[str, Any]]) -> Rules:
    return rules_of(resources, "hevc")


def outcomes(rules: Rules, world: str) -> list[Outcome]:
    return [run(rules, WORLDS[world], seed) for seed in SEEDS]


@pytest.mark.terraform
@pytest.mark.parametrize(
    "world",
    [
        "3 uploads",
        "12 uploads at once",
        "12, a fifth of points missing",
        "12, metrics always 3 min late",
    ],
)
def test_late_and_missing_metrics_start_no_more_tasks_than_are_needed(
    rules: Rules, world: str
) -> None:
    most = needed(rules, max(WORLDS[world].uploads.values()))
    spare = 1.5 if "missing" in world else 1
    for seen in outcomes(rules, world):
        assert most <= seen.most_tasks <= most * spare
        assert seen.first_task_s <= 9 * 60
        assert seen.needed_s <= 16 * 60
        assert seen.zero_s - seen.done_s <= 40 * 60
        assert seen.idle_usd < spare


@pytest.mark.terraform
def test_a_farm_at_zero_starts_although_no_count_of_tasks_is_reported(rules: Rules) -> None:
    for seen in outcomes(rules, "12, no zero told"):
        assert seen.first_task_s <= 9 * 60
        assert seen.needed_s <= 16 * 60


@pytest.mark.terraform
def test_a_queue_that_was_quiet_for_hours_starts_its_farm_within_half_an_hour(rules: Rules) -> None:
    for seen in outcomes(rules, "12 after 8 quiet hours"):
        assert seen.first_task_s <= 24 * 60
        assert seen.done_s < math.inf


@pytest.mark.terraform
def test_work_goes_on_while_spot_has_nothing_and_while_it_takes_tasks_away(rules: Rules) -> None:
    for seen in outcomes(rules, "24, no Spot for two hours"):
        assert seen.first_task_s <= 9 * 60
        assert seen.busy_h > 0
        assert seen.done_s < math.inf
    for seen in outcomes(rules, "24, Spot takes 0.5 tasks an hour"):
        assert seen.done_s <= 4 * 3600


def test_a_late_count_that_is_read_as_zero_is_seen_to_overshoot() -> None:
    """The simulation can fail: these are the formulas of before."""
    before = Rules(
        tracked=Expression("(waiting + inwork) / IF(FILL(running, 0) > 0, FILL(running, 0), 1)"),
        target=2,
        out_cooldown_s=60,
        in_cooldown_s=600,
        zero=Alarm(Expression("IF(FILL(running, 0) < 1 AND waiting > 0, waiting, 0)"), 0, 1, 1),
        zero_step=1,
        zero_cooldown_s=120,
        capacity=(0, 20),
        spot=1.0,
        on_demand_base=0,
    )

    assert max(seen.most_tasks for seen in outcomes(before, "3 uploads")) > 6


def test_an_all_spot_farm_waits_for_spot_and_one_with_a_first_task_on_demand_does_not() -> None:
    world = WORLDS["24, no Spot for two hours"]
    ours = Rules(
        tracked=Expression("(waiting + inwork) / IF(running > 0, running, 1)"),
        target=2,
        out_cooldown_s=360,
        in_cooldown_s=600,
        zero=Alarm(Expression("IF(waiting > 0 AND inwork < 1, waiting, 0)"), 0, 3, 2),
        zero_step=1,
        zero_cooldown_s=360,
        capacity=(0, 20),
        spot=0.8,
        on_demand_base=1,
    )

    assert run(ours, world, 1).first_task_s < 600
    assert run(dataclasses.replace(ours, spot=1.0, on_demand_base=0), world, 1).first_task_s > 6000


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
