"""Every alarm of the metrics page is in the plan, on the right numbers, and tells the right people."""

import json
import re
from itertools import product
from typing import Any

import pytest
from moto.events.models import EventPattern

from hevcq.worker.monitoring.metrics import METRICS, NAMESPACE
from infra.terraform import ACCOUNT, ALARM_TOPIC, ROOT, deployed

pytestmark = pytest.mark.terraform
Resources = list[dict[str, Any]]
Alarms = dict[str, dict[str, Any]]
KNOWN = deployed()
PROFILES = sorted(KNOWN)
QUEUES = {
    "dlq-not-empty": ("ApproximateNumberOfMessagesVisible", "-dlq"),
    "subscription-dlq-not-empty": ("ApproximateNumberOfMessagesVisible", "-subscription-dlq"),
    "oldest-task": ("ApproximateAgeOfOldestMessage", ""),
    "tasks-expire": ("ApproximateAgeOfOldestMessage", ""),
}


@pytest.fixture
def alarms(resources: Resources) -> Alarms:
    found = [r["values"] for r in resources if r["type"] == "aws_cloudwatch_metric_alarm"]
    return {values["alarm_name"]: values for values in found}


def page() -> str:
    return (ROOT / "docs" / "farm" / "metrics.md").read_text(encoding="utf-8")


def documented() -> dict[str, str]:
    """Return what the page says whom an alarm pages, by its name."""
    _, _, table = page().partition("## The alarms that matter")
    return dict(re.findall(r"^\| `([a-z-]+)` \| [^|]+ \| ([^|]+) \|", table, re.MULTILINE))


def numbers(alarm: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the metrics that an alarm reads."""
    queries = [query["metric"][0] for query in alarm["metric_query"] or [] if query["metric"]]
    return queries or [{key: alarm[key] for key in ("namespace", "metric_name", "dimensions")}]


def worth(expression: str, waiting: int, inwork: int, running: int | None) -> object:
    """Return the value of a metric-math expression; None is a point that is missing."""
    words = {
        "IF": lambda holds, yes, no: yes if holds else no,
        "FILL": lambda value, filler: filler if value is None else value,
    }
    counts = {"waiting": waiting, "inwork": inwork, "running": running}
    return eval(expression.replace(" AND ", " and "), words | counts)


def test_the_page_and_the_plan_name_the_same_alarms(alarms):
    names = {f"hevcq-{profile}-{name}" for profile in PROFILES for name in documented()}

    assert len(documented()) >= 8
    assert names | {f"hevcq-{profile}-from-zero" for profile in PROFILES} == set(alarms)


def test_an_alarm_notifies_the_topic_unless_the_page_names_nobody(alarms):
    for name, whom in documented().items():
        for profile in PROFILES:
            told = alarms[f"hevcq-{profile}-{name}"]["alarm_actions"] or []
            assert told == ([] if whom.startswith("nobody") else [ALARM_TOPIC]), name


@pytest.mark.parametrize("name", QUEUES)
def test_an_alarm_on_a_queue_looks_at_its_own_profiles_queue(alarms, name):
    metric, ending = QUEUES[name]
    for profile in PROFILES:
        alarm = alarms[f"hevcq-{profile}-{name}"]
        assert alarm["namespace"] == "AWS/SQS"
        assert alarm["metric_name"] == metric
        assert alarm["dimensions"] == {"QueueName": f"hevcq-{profile}{ending}"}
        assert alarm["comparison_operator"] == "GreaterThanThreshold"
        assert alarm["statistic"] == "Maximum"


def test_alarms_on_the_workers_own_metrics_read_labels_that_workers_send(alarms):
    sent = {metric.name: (metric.labels, *metric.rollups) for metric in METRICS.values()}
    seen = set()
    for name, alarm in alarms.items():
        for read in numbers(alarm):
            if read["namespace"] == NAMESPACE:
                labels = {frozenset(each) for each in sent[read["metric_name"]]}
                assert frozenset(read["dimensions"]) in labels, name
                assert name.startswith(f"hevcq-{read['dimensions']['Profile']}-")
                seen.add(read["metric_name"])

    assert seen == {"JobsEnded", "LeasesLost", "EncodeSpeed", "VerifyOverheadPercent"}


def test_the_dashboard_shows_metrics_that_workers_send(resources):
    (body,) = [
        json.loads(r["values"]["dashboard_body"])
        for r in resources
        if r["type"] == "aws_cloudwatch_dashboard"
    ]
    sent = {(m.name, labels) for m in METRICS.values() for labels in (m.labels, *m.rollups)}
    shown = [
        (name, tuple(labels[::2]))
        for widget in body["widgets"]
        for space, name, *labels, _look in widget["properties"]["metrics"]
        if space == NAMESPACE
    ]

    assert len(shown) == 4 * len(PROFILES)
    assert set(shown) <= sent


def test_the_classes_that_point_at_the_encoder_are_all_counted(alarms):
    alarm = alarms["hevcq-hevc-encoder-breaks"]
    read = {(m["dimensions"]["End"], m["dimensions"]["Class"]) for m in numbers(alarm)}
    (total,) = [query["expression"] for query in alarm["metric_query"] if query["expression"]]

    wanted = {(end, why) for end in ("buried", "retry") for why in ("encoder", "verification")}
    assert read == wanted
    assert set(total.split(" + ")) == {f"FILL({end}_{why}, 0)" for end, why in wanted}


def test_a_standstill_is_seen_where_tasks_wait_and_nobody_runs(alarms):
    for profile in PROFILES:
        queue = {"QueueName": f"hevcq-{profile}"}
        for name in ("no-progress", "from-zero"):
            read = numbers(alarms[f"hevcq-{profile}-{name}"])
            assert {metric["metric_name"]: metric["dimensions"] for metric in read} == {
                "ApproximateNumberOfMessagesVisible": queue,
                "ApproximateNumberOfMessagesNotVisible": queue,
                "RunningTaskCount": {"ClusterName": "hevcq", "ServiceName": f"hevcq-{profile}"},
            }


def test_a_late_count_of_tasks_is_none_only_while_nothing_is_in_work(alarms):
    for profile, name in product(PROFILES, ("no-progress", "from-zero")):
        queries = alarms[f"hevcq-{profile}-{name}"]["metric_query"]
        (expression,) = [query["expression"] for query in queries if query["expression"]]
        told = [(3, 0, 0), (3, 0, None), (3, 2, None), (3, 0, 1), (0, 0, 0)]
        assert [worth(expression, *each) for each in told] == [3, 3, 0, 0, 0]


def test_a_budget_tells_before_and_when_it_is_spent(resources):
    (budget,) = [r["values"] for r in resources if r["type"] == "aws_budgets_budget"]

    told = {(n["notification_type"], n["threshold"]) for n in budget["notification"]}
    assert told == {("ACTUAL", 80), ("ACTUAL", 100), ("FORECASTED", 100)}
    assert all(n["subscriber_email_addresses"] == ["a@example.org"] for n in budget["notification"])
    assert (budget["limit_amount"], budget["time_unit"]) == ("100", "MONTHLY")


ARN = f"arn:aws:ecs:eu-central-1:{ACCOUNT}"
SERVICE, TASK, CLUSTER = (
    f"{ARN}:{kind}" for kind in ("service/hevcq/hevcq-hevc", "task/hevcq/1", "cluster/hevcq")
)
STOPPED = {"clusterArn": CLUSTER, "lastStatus": "STOPPED"}


@pytest.mark.parametrize(
    ("rule", "kind", "of", "detail"),
    [
        ("release-failed", "Deployment", SERVICE, {"eventName": "SERVICE_DEPLOYMENT_FAILED"}),
        ("start-failed", "Task", TASK, {**STOPPED, "stopCode": "TaskFailedToStart"}),
        (
            "out-of-memory",
            "Task",
            TASK,
            # A list on AWS, of which any may match; moto looks into no list.
            {**STOPPED, "containers": {"reason": "OutOfMemoryError: container killed"}},
        ),
        (None, "Deployment", SERVICE, {"eventName": "SERVICE_DEPLOYMENT_COMPLETED"}),
        (
            None,
            "Deployment",
            f"{ARN}:service/other/web",
            {"eventName": "SERVICE_DEPLOYMENT_FAILED"},
        ),
        (None, "Task", TASK, {**STOPPED, "stopCode": "ServiceSchedulerInitiated"}),
        (None, "Task", TASK, {**STOPPED, "clusterArn": "other", "stopCode": "TaskFailedToStart"}),
    ],
)
def test_a_failed_release_or_start_is_told(resources, rule, kind, of, detail):
    event = {
        "source": "aws.ecs",
        "detail-type": f"ECS {kind} State Change",
        "resources": [of],
        "detail": detail,
    }
    rules = {
        each["values"]["name"].removeprefix("hevcq-"): each["values"]["event_pattern"]
        for each in resources
        if each["type"] == "aws_cloudwatch_event_rule"
    }
    told = [r for r, pattern in rules.items() if EventPattern.load(pattern).matches_event(event)]

    assert told == ([rule] if rule else [])
    targets = [
        each["values"] for each in resources if each["type"] == "aws_cloudwatch_event_target"
    ]
    assert [each["arn"] for each in targets] == [ALARM_TOPIC] * len(rules)


NUMBERS = {
    "dlq-not-empty": ("GreaterThanThreshold", 0, "Maximum", 300, 1),
    "subscription-dlq-not-empty": ("GreaterThanThreshold", 0, "Maximum", 300, 1),
    "oldest-task": ("GreaterThanThreshold", 14_400, "Maximum", 300, 3),
    "tasks-expire": ("GreaterThanThreshold", 648_000, "Maximum", 300, 3),
    "no-progress": ("GreaterThanThreshold", 0, "Maximum", 60, 30),
    "from-zero": ("GreaterThanThreshold", 0, "Maximum", 60, 3),
    "failing": ("GreaterThanThreshold", 0, "Sum", 900, 1),
    "encoder-breaks": ("GreaterThanThreshold", 0, "Sum", 900, 1),
    "leases-lost": ("GreaterThanThreshold", 3, "Sum", 3600, 1),
    "slow-encodes": ("LessThanLowerThreshold", None, "p50", 3600, 3),
    "gates-expensive": ("GreaterThanThreshold", 60, "Average", 86_400, 1),
}
"""How each compares, with what, of which statistic over how many seconds, how often in a row."""


@pytest.mark.parametrize("name", NUMBERS)
def test_an_alarm_is_raised_at_the_number_that_the_page_says(alarms, name):
    for profile in PROFILES:
        alarm = alarms[f"hevcq-{profile}-{name}"]
        for query in [q["metric"][0] for q in alarm["metric_query"] or [] if q["metric"]] or [
            {"stat": alarm["statistic"], "period": alarm["period"]}
        ]:
            found = (alarm["comparison_operator"], alarm["threshold"], query["stat"])
            assert (*found, query["period"], alarm["evaluation_periods"]) == NUMBERS[name]
        assert alarm["treat_missing_data"] == "notBreaching"
        assert alarm["actions_enabled"] is True
        told = [q["id"] for q in alarm["metric_query"] or [] if q["expression"]]
        judged = [q["id"] for q in alarm["metric_query"] or [] if q["return_data"]]
        assert set(told) <= set(judged)
        assert alarm["threshold_metric_id"] in (None, "usual")
