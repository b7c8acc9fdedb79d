"""Kinds of mistakes planted into the plan: each is seen by a test of the plan."""

import copy
import inspect
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from infra import test_alarms, test_plan, test_policies, test_wiring

pytestmark = pytest.mark.terraform
Values = dict[str, Any]
READERS = (test_wiring, test_alarms, test_plan, test_policies)


def other(text: str) -> str:
    """Return an ARN or a name with another profile in it."""
    return text.replace("hevcq-hevc", "hevcq-720p")


def rule(values: Values, name: str) -> Values:
    return next(each for each in values["rule"] if each["id"] == name)


def edited(text: str, change: Callable[[Any], None]) -> str:
    document = json.loads(text)
    change(document)
    return json.dumps(document)


HEVC_QUEUE = 'profile_queue["hevc"].'
INPUT_RULES = 'aws_s3_bucket_lifecycle_configuration.this["input"]'
OUTPUT_RULES = 'aws_s3_bucket_lifecycle_configuration.this["output"]'
SERVICE = 'worker_service["hevc"].aws_ecs_service.this'
TASK = 'worker_service["hevc"].aws_ecs_task_definition.this'
ALARM = "aws_cloudwatch_metric_alarm"
SUBSCRIPTION = f"{HEVC_QUEUE}aws_sns_topic_subscription.this"


def put(**values: Any) -> Callable[[Values], None]:
    """Return an edit that sets attributes."""
    return lambda found: found.update(values)


def swapped(name: str) -> Callable[[Values], None]:
    """Return an edit that names another profile in one attribute."""
    return lambda found: found.update({name: other(found[name])})


def told(name: str, value: str) -> Callable[[Values], None]:
    """Return an edit that tells a worker another value."""

    def change(document: Any) -> None:
        next(e for e in document[0]["environment"] if e["name"] == name).update(value=value)

    return contained(change)


def contained(change: Callable[[Any], None]) -> Callable[[Values], None]:
    """Return an edit of a task's containers."""
    return lambda v: v.update(container_definitions=edited(v["container_definitions"], change))


def counting(expression: str) -> Callable[[Values], None]:
    """Return an edit of what an alarm reckons."""
    return lambda v: next(q for q in v["metric_query"] if q["expression"]).update(
        expression=expression
    )


def elsewhere(**dimensions: str) -> Callable[[Values], None]:
    return lambda found: found["dimensions"].update(dimensions)


MISTAKES: dict[str, tuple[str, Callable[[Values], None]]] = {
    "finished uploads expire without their tag": (
        INPUT_RULES,
        lambda v: rule(v, "expire-finished-inputs").update(filter=[]),
    ),
    "uploads expire by another tag": (
        INPUT_RULES,
        lambda v: rule(v, "expire-finished-inputs")["filter"][0]["tag"][0].update(value="keep"),
    ),
    "overwritten uploads expire": (
        INPUT_RULES,
        lambda v: rule(v, "abort-unfinished-uploads").update(
            noncurrent_version_expiration=[{"noncurrent_days": 30}]
        ),
    ),
    "renditions expire": (
        OUTPUT_RULES,
        lambda v: rule(v, "expire-work")["filter"][0].update(prefix=""),
    ),
    "work expires while it is waited for": (
        OUTPUT_RULES,
        lambda v: rule(v, "expire-work")["expiration"][0].update(days=10),
    ),
    "a subscription without its dead letters": (SUBSCRIPTION, put(redrive_policy=None)),
    "a subscription with another's dead letters": (SUBSCRIPTION, swapped("redrive_policy")),
    "a subscription of another queue": (SUBSCRIPTION, swapped("endpoint")),
    "a subscription with a filter": (SUBSCRIPTION, put(filter_policy='{"Records":[]}')),
    "an enveloped subscription": (SUBSCRIPTION, put(raw_message_delivery=False)),
    "dead letters of another queue": (
        f"{HEVC_QUEUE}aws_sqs_queue_redrive_policy.this",
        swapped("redrive_policy"),
    ),
    "dead letters that take from another queue": (
        f"{HEVC_QUEUE}aws_sqs_queue_redrive_allow_policy.dead_letters",
        swapped("redrive_allow_policy"),
    ),
    "dead letters that take from every queue": (
        f"{HEVC_QUEUE}aws_sqs_queue_redrive_allow_policy.dead_letters",
        put(redrive_allow_policy='{"redrivePermission":"allowAll"}'),
    ),
    "an alarm on the wrong queue's dead letters": (
        f'{HEVC_QUEUE}{ALARM}.dead_letters["dlq"]',
        elsewhere(QueueName="hevcq-hevc"),
    ),
    "an alarm on another profile's queue": (
        f"{HEVC_QUEUE}{ALARM}.oldest",
        elsewhere(QueueName="hevcq-720p"),
    ),
    "an alarm on another number": (
        f"{HEVC_QUEUE}{ALARM}.expiring",
        put(metric_name="NumberOfMessagesSent"),
    ),
    "an alarm that tells nobody": (f"{HEVC_QUEUE}{ALARM}.oldest", put(alarm_actions=[])),
    "an alarm on labels that no worker sends": (
        f'worker_service["hevc"].{ALARM}.reported["leases-lost"]',
        elsewhere(Queue="hevcq-hevc"),
    ),
    "a standstill of another service": (
        f'worker_service["hevc"].{ALARM}.waiting_and_nobody_runs["no-progress"]',
        lambda v: next(
            q["metric"][0]["dimensions"].update(ServiceName="hevcq-720p")
            for q in v["metric_query"]
            if q["id"] == "running"
        ),
    ),
    "dead letters that expire first": (
        f"{HEVC_QUEUE}aws_sqs_queue.dead_letters",
        put(message_retention_seconds=864_000),
    ),
    "a queue that hides tasks for too short": (
        f"{HEVC_QUEUE}aws_sqs_queue.this",
        put(visibility_timeout_seconds=30),
    ),
    "a bucket without versions": (
        'aws_s3_bucket_versioning.this["input"]',
        lambda v: v["versioning_configuration"][0].update(status="Suspended"),
    ),
    "a bucket that may become public": (
        'aws_s3_bucket_public_access_block.this["output"]',
        put(block_public_policy=False),
    ),
    "a bucket that is destroyed with its content": (
        'aws_s3_bucket.this["input"]',
        put(force_destroy=True),
    ),
    "renditions that are announced": (
        "aws_s3_bucket_notification.uploads",
        lambda v: v["topic"][0].update(filter_prefix=""),
    ),
    "some uploads that are not announced": (
        "aws_s3_bucket_notification.uploads",
        lambda v: v["topic"][0].update(events=["s3:ObjectCreated:Put"]),
    ),
    "a table that may be deleted": (
        "aws_dynamodb_table.this",
        put(deletion_protection_enabled=False),
    ),
    "a table that forgets nothing": (
        "aws_dynamodb_table.this",
        lambda v: v["ttl"][0].update(attribute_name="updated_at"),
    ),
    "tags that change": ("aws_ecr_repository.worker", put(image_tag_mutability="MUTABLE")),
    "a service all on Spot": (
        SERVICE,
        lambda v: [s.update(base=0) for s in v["capacity_provider_strategy"]],
    ),
    "a service that is balanced over zones": (
        SERVICE,
        put(availability_zone_rebalancing="ENABLED"),
    ),
    "a worker that is stopped at once": (
        TASK,
        lambda v: v.update(
            container_definitions=edited(
                v["container_definitions"], lambda d: d[0].update(stopTimeout=2)
            )
        ),
    ),
    "a worker of another profile": (
        TASK,
        lambda v: v.update(
            container_definitions=v["container_definitions"].replace('"hevc"', '"720p"')
        ),
    ),
    "a worker of another size": (TASK, put(memory="16384")),
    "a fleet of another size": (
        'worker_service["hevc"].aws_appautoscaling_target.this[0]',
        put(max_capacity=200),
    ),
    "scaling that does not count what is in work": (
        'worker_service["hevc"].aws_appautoscaling_policy.backlog_per_task[0]',
        lambda v: next(
            m.update(expression="waiting / running")
            for m in v["target_tracking_scaling_policy_configuration"][0][
                "customized_metric_specification"
            ][0]["metrics"]
            if m["return_data"]
        ),
    ),
    "a queue that anybody may send to": (
        f"{HEVC_QUEUE}aws_sqs_queue_policy.this",
        lambda v: v.update(
            policy=edited(
                v["policy"],
                lambda d: [s.pop("Condition") for s in d["Statement"] if s["Effect"] == "Allow"],
            )
        ),
    ),
    "a worker that deletes renditions": (
        'worker_service["hevc"].aws_iam_role_policy.task',
        lambda v: v.update(policy=v["policy"].replace("s3:PutObject", "s3:DeleteObject")),
    ),
    "scaling on another profile's queue": (
        'worker_service["hevc"].aws_appautoscaling_policy.backlog_per_task[0]',
        lambda v: [
            m["metric_stat"][0]["metric"][0]["dimensions"][0].update(value="hevcq-720p")
            for m in v["target_tracking_scaling_policy_configuration"][0][
                "customized_metric_specification"
            ][0]["metrics"]
            if m["metric_stat"]
        ],
    ),
    "an alarm that is raised too late": (f"{HEVC_QUEUE}{ALARM}.oldest", put(threshold=1_440_000)),
    "an alarm that is raised by silence": (
        f"{HEVC_QUEUE}{ALARM}.oldest",
        put(treat_missing_data="breaching"),
    ),
    "a policy of another queue": (f"{HEVC_QUEUE}aws_sqs_queue_policy.this", swapped("policy")),
    "an operator without a profile": ("aws_iam_policy.operator", swapped("policy")),
    "a cluster that counts no tasks": (
        "aws_ecs_cluster.this",
        lambda v: v["setting"][0].update(value="disabled"),
    ),
    "workers without a way out": (
        SERVICE,
        lambda v: v["network_configuration"][0].update(assign_public_ip=False),
    ),
    "a service that another share of Spot replaces": (SERVICE, put(force_new_deployment=False)),
    "a queue that keeps uploads back": (f"{HEVC_QUEUE}aws_sqs_queue.this", put(delay_seconds=900)),
    "work that never expires": (
        OUTPUT_RULES,
        lambda v: rule(v, "expire-work").update(status="Disabled"),
    ),
    "overwritten renditions that stay for ever": (
        OUTPUT_RULES,
        lambda v: rule(v, "abort-unfinished-uploads").update(noncurrent_version_expiration=[]),
    ),
    "overwritten renditions that are gone the next day": (
        OUTPUT_RULES,
        lambda v: rule(v, "abort-unfinished-uploads")["noncurrent_version_expiration"][0].update(
            noncurrent_days=1
        ),
    ),
    "a task without its scratch": (TASK, contained(lambda d: d[0].update(mountPoints=[]))),
    "many workers in a task": (TASK, told("HEVCQ_WORKERS", "8")),
    "a grace that outlasts the task": (TASK, told("HEVCQ_STOP_GRACE_S", "600")),
    "tasks asked for again before they count": (
        'worker_service["hevc"].aws_appautoscaling_policy.backlog_per_task[0]',
        lambda v: v["target_tracking_scaling_policy_configuration"][0].update(scale_out_cooldown=0),
    ),
    "a task more whenever a count is late": (
        f'worker_service["hevc"].{ALARM}.waiting_and_nobody_runs["from-zero"]',
        counting("IF(FILL(running, 0) < 1 AND waiting > 0, waiting, 0)"),
    ),
    "no first task where a count is missing": (
        f'worker_service["hevc"].{ALARM}.waiting_and_nobody_runs["from-zero"]',
        counting("IF(running < 1 AND waiting > 0 AND inwork < 1, waiting, 0)"),
    ),
    "open ports": (
        'worker_service["hevc"].aws_vpc_security_group_egress_rule.tls',
        put(from_port=0),
    ),
}


def readers(resources: list[Values]) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield every test that needs nothing but the plan's resources, by name."""
    for module in READERS:
        for name, test in inspect.getmembers(module, inspect.isfunction):
            wanted = [*inspect.signature(test).parameters]
            if not name.startswith("test_") or not {*wanted} <= {
                "resources",
                "alarms",
                "profile",
                "name",
            }:
                continue
            if not {"resources", "alarms"} & {*wanted}:
                continue
            given = {"resources": resources, "alarms": alarms_of(resources)}
            for choice in choices(test):
                known = {each: (given | choice)[each] for each in wanted}
                yield name, lambda test=test, known=known: test(**known)


def choices(test: Callable[..., None]) -> list[dict[str, Any]]:
    """Return what a test is parametrized with."""
    marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    return [{marks[0].args[0]: value} for value in marks[0].args[1]] if marks else [{}]


def alarms_of(resources: list[Values]) -> dict[str, Values]:
    found = [r["values"] for r in resources if r["type"] == ALARM]
    return {values["alarm_name"]: values for values in found}


def objections(resources: list[Values]) -> Iterator[str]:
    """Yield the name of each test that objects."""
    for name, test in readers(resources):
        try:
            test()
        except (AssertionError, KeyError, ValueError, IndexError, TypeError):
            yield name


def test_the_plan_as_it_is_is_objected_to_by_none(resources: list[Values]) -> None:
    assert len({name for name, _ in readers(resources)}) >= 40
    assert list(objections(resources)) == []


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_seen(resources: list[Values], mistake: str) -> None:
    where, change = MISTAKES[mistake]
    (at,) = [n for n, r in enumerate(resources) if r["address"].endswith(where)]
    planted = [*resources]
    planted[at] = copy.deepcopy(resources[at])

    change(planted[at]["values"])

    assert planted != resources
    assert next(objections(planted), None)
