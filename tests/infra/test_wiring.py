"""Who points at whom in the plan: each message, letter and upload goes where it is looked for."""

import json
from typing import Any

import pytest

from hevcq.domain.keys import INBOX, WORK
from infra.terraform import ACCOUNT, deployed

pytestmark = pytest.mark.terraform
Resources = list[dict[str, Any]]
KNOWN = deployed()
PROFILES = sorted(KNOWN)
QUEUES = f"arn:aws:sqs:eu-central-1:{ACCOUNT}"


def of_profile(resources: Resources, kind: str, name: str, profile: str) -> dict[str, Any]:
    """Return the one resource of that kind and name in a module of that profile, or within."""
    within, ending = f'["{profile}"].', f".{kind}.{name}"
    (found,) = [
        r["values"] for r in resources if within in r["address"] and r["address"].endswith(ending)
    ]
    return found


def rules(resources: Resources, bucket: str) -> list[dict[str, Any]]:
    kind = "aws_s3_bucket_lifecycle_configuration"
    (found,) = [r["values"] for r in resources if r["address"].endswith(f'{kind}.this["{bucket}"]')]
    return found["rule"]


def narrowed(rule: dict[str, Any]) -> tuple[str, tuple[str, str] | None]:
    """Return the prefix and the tag that a rule is limited to."""
    limit = (rule["filter"] or [{}])[0]
    tags = limit.get("tag") or []
    tag = (tags[0]["key"], tags[0]["value"]) if tags else None
    return limit.get("prefix") or "", tag


@pytest.mark.parametrize("profile", PROFILES)
def test_a_queue_gives_up_to_its_own_dead_letters_and_they_take_from_it_alone(
    resources: Resources, profile: str
) -> None:
    redrive = of_profile(resources, "aws_sqs_queue_redrive_policy", "this", profile)
    allow = of_profile(resources, "aws_sqs_queue_redrive_allow_policy", "dead_letters", profile)

    assert json.loads(redrive["redrive_policy"]) == {
        "deadLetterTargetArn": f"{QUEUES}:hevcq-{profile}-dlq",
        "maxReceiveCount": KNOWN[profile].queue.max_receives,
    }
    assert json.loads(allow["redrive_allow_policy"]) == {
        "redrivePermission": "byQueue",
        "sourceQueueArns": [f"{QUEUES}:hevcq-{profile}"],
    }


@pytest.mark.parametrize("profile", PROFILES)
def test_what_the_topic_cannot_deliver_is_kept_for_that_profile(
    resources: Resources, profile: str
) -> None:
    found = of_profile(resources, "aws_sns_topic_subscription", "this", profile)

    assert found["endpoint"] == f"{QUEUES}:hevcq-{profile}"
    assert found["topic_arn"] == f"arn:aws:sns:eu-central-1:{ACCOUNT}:hevcq-uploads"
    assert json.loads(found["redrive_policy"] or "null") == {
        "deadLetterTargetArn": f"{QUEUES}:hevcq-{profile}-subscription-dlq"
    }


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_hears_of_every_upload_unless_it_subscribes_to_none(
    resources: Resources, profile: str
) -> None:
    found = of_profile(resources, "aws_sns_topic_subscription", "this", profile)

    if KNOWN[profile].subscribe:
        assert found["filter_policy"] in (None, "")
    else:
        (wanted,) = json.loads(found["filter_policy"])["Records"]["s3"]["object"]["key"]
        assert wanted == {"prefix": f"TODO/{profile}/"}


def test_nothing_of_the_input_bucket_expires_but_what_is_tagged_as_finished(
    resources: Resources,
) -> None:
    for rule in rules(resources, "input"):
        ends = [e for e in rule["expiration"] or [] if e.get("days") or e.get("date")]
        if ends or rule["noncurrent_version_expiration"]:
            assert narrowed(rule) == ("", ("hevcq", "done")), rule["id"]
        assert rule["status"] == "Enabled"


def test_no_rendition_expires_before_it_is_replaced(resources: Resources) -> None:
    for rule in rules(resources, "output"):
        if [e for e in rule["expiration"] or [] if e.get("days") or e.get("date")]:
            assert narrowed(rule) == (f"{WORK}/", None), rule["id"]


def test_a_worker_finds_what_the_farm_made(resources: Resources) -> None:
    for profile in PROFILES:
        task = of_profile(resources, "aws_ecs_task_definition", "this", profile)
        (worker,) = json.loads(task["container_definitions"])
        told = {item["name"]: item["value"] for item in worker["environment"]}
        assert told["HEVCQ_PROFILES"] == profile
        assert told["HEVCQ_AWS__INPUT_BUCKET"] == f"hevcq-in-{ACCOUNT}"
        assert told["HEVCQ_AWS__OUTPUT_BUCKET"] == f"hevcq-out-{ACCOUNT}"
        assert told["HEVCQ_AWS__QUEUE_PREFIX"] == "hevcq-"
        assert told["HEVCQ_AWS__TABLE"] == "hevcq"
        assert told["HEVCQ_METRICS_EMF"] == "true"
        log = worker["logConfiguration"]["options"]["awslogs-group"]
        group = of_profile(resources, "aws_cloudwatch_log_group", "this", profile)
        assert log == group["name"]


@pytest.mark.parametrize("profile", PROFILES)
def test_a_task_has_the_size_and_the_number_that_its_profile_says(
    resources: Resources, profile: str
) -> None:
    fleet = KNOWN[profile].fleet
    task = of_profile(resources, "aws_ecs_task_definition", "this", profile)
    target = of_profile(resources, "aws_appautoscaling_target", "this[0]", profile)

    assert (task["cpu"], task["memory"]) == (str(fleet.cpu), str(fleet.memory_mib))
    assert task["runtime_platform"][0]["cpu_architecture"] == fleet.architecture.upper()
    assert task["ephemeral_storage"][0]["size_in_gib"] == fleet.scratch_gib
    assert (target["min_capacity"], target["max_capacity"]) == (fleet.min_tasks, fleet.max_tasks)
    assert target["resource_id"] == f"service/hevcq/hevcq-{profile}"


def test_a_tag_in_the_registry_never_changes(resources: Resources) -> None:
    (found,) = [r["values"] for r in resources if r["type"] == "aws_ecr_repository"]

    assert found["image_tag_mutability"] == "IMMUTABLE"


def test_nothing_is_deleted_with_its_content_unless_that_was_said(resources: Resources) -> None:
    for resource in resources:
        if resource["type"] == "aws_s3_bucket":
            assert resource["values"]["force_destroy"] is False
        if resource["type"] == "aws_ecr_repository":
            assert resource["values"]["force_delete"] is False


def test_a_worker_reaches_nothing_but_tls_and_is_reached_by_nobody(resources: Resources) -> None:
    rules_ = [r for r in resources if r["type"].startswith("aws_vpc_security_group_")]

    assert {r["type"] for r in rules_} == {"aws_vpc_security_group_egress_rule"}
    assert {(r["values"]["from_port"], r["values"]["to_port"]) for r in rules_} == {(443, 443)}


def test_uploads_are_announced_where_people_put_them(resources: Resources) -> None:
    (found,) = [r["values"] for r in resources if r["type"] == "aws_s3_bucket_notification"]
    (topic,) = found["topic"]

    assert topic["events"] == ["s3:ObjectCreated:*"]
    assert topic["filter_prefix"] == f"{INBOX}/"


@pytest.mark.parametrize("profile", PROFILES)
def test_scaling_reads_its_own_queue_and_service(resources: Resources, profile: str) -> None:
    policy = of_profile(resources, "aws_appautoscaling_policy", "backlog_per_task[0]", profile)
    tracking = policy["target_tracking_scaling_policy_configuration"][0]
    metrics = tracking["customized_metric_specification"][0]["metrics"]
    read = {}
    for each in metrics:
        if each["metric_stat"]:
            (stat,) = each["metric_stat"]
            (metric,) = stat["metric"]
            sides = {side["name"]: side["value"] for side in metric["dimensions"]}
            read[each["id"]] = (metric["namespace"], metric["metric_name"], sides, stat["stat"])

    queue = {"QueueName": f"hevcq-{profile}"}
    service = {"ClusterName": "hevcq", "ServiceName": f"hevcq-{profile}"}
    visible, hidden = (f"ApproximateNumberOfMessages{end}" for end in ("Visible", "NotVisible"))
    assert read == {
        "waiting": ("AWS/SQS", visible, queue, "Sum"),
        "inwork": ("AWS/SQS", hidden, queue, "Sum"),
        "running": ("ECS/ContainerInsights", "RunningTaskCount", service, "Average"),
    }
    fleet = KNOWN[profile].fleet
    assert tracking["target_value"] == fleet.acceptable_latency_s // fleet.mean_job_s
    assert not tracking["disable_scale_in"]
    for name in ("backlog_per_task[0]", "from_zero[0]"):
        scaled = of_profile(resources, "aws_appautoscaling_policy", name, profile)
        assert scaled["resource_id"] == f"service/hevcq/hevcq-{profile}"
        assert scaled["scalable_dimension"] == "ecs:service:DesiredCount"


def test_the_count_of_tasks_is_published_at_all(resources: Resources) -> None:
    (cluster,) = [r["values"] for r in resources if r["type"] == "aws_ecs_cluster"]

    assert cluster["setting"] == [{"name": "containerInsights", "value": "enabled"}]


@pytest.mark.parametrize("profile", PROFILES)
def test_the_policies_of_a_profiles_queues_are_about_those_queues(
    resources: Resources, profile: str
) -> None:
    for name, ending in (("this", ""), ("subscription", "-subscription-dlq")):
        found = of_profile(resources, "aws_sqs_queue_policy", name, profile)
        named = {s["Resource"] for s in json.loads(found["policy"])["Statement"]}
        assert named == {f"{QUEUES}:hevcq-{profile}{ending}"}


@pytest.mark.parametrize("profile", PROFILES)
def test_a_task_may_write_its_own_log(resources: Resources, profile: str) -> None:
    found = of_profile(resources, "aws_iam_role_policy", "execution", profile)
    group = of_profile(resources, "aws_cloudwatch_log_group", "this", profile)["name"]

    logs = [s for s in json.loads(found["policy"])["Statement"] if s["Sid"] == "Logs"]
    assert [s["Resource"] for s in logs] == [
        f"arn:aws:logs:eu-central-1:{ACCOUNT}:log-group:{group}:*"
    ]


def test_an_operator_reaches_every_profiles_queues(resources: Resources) -> None:
    (found,) = [r["values"] for r in resources if r["address"].endswith("aws_iam_policy.operator")]
    statements = json.loads(found["policy"])["Statement"]
    reached = {arn for s in statements for arn in [s["Resource"]] if isinstance(arn, str)}
    reached |= {arn for s in statements if isinstance(s["Resource"], list) for arn in s["Resource"]}

    for profile in PROFILES:
        for ending in ("", "-dlq", "-subscription-dlq"):
            assert f"{QUEUES}:hevcq-{profile}{ending}" in reached


def test_workers_reach_the_internet_they_pull_images_from(resources: Resources) -> None:
    (table,) = [r["values"] for r in resources if r["type"] == "aws_route_table"]
    services = [r["values"] for r in resources if r["type"] == "aws_ecs_service"]

    assert [route["cidr_block"] for route in table["route"]] == ["0.0.0.0/0"]
    assert all(s["network_configuration"][0]["assign_public_ip"] for s in services)


def test_the_bucket_that_announces_is_the_one_for_uploads(resources: Resources) -> None:
    (found,) = [r["values"] for r in resources if r["type"] == "aws_s3_bucket_notification"]

    assert found["bucket"] in (f"hevcq-in-{ACCOUNT}", None)


def test_what_lies_in_the_buckets_is_encrypted_and_the_accounts_own(resources: Resources) -> None:
    for resource in resources:
        if resource["type"] == "aws_s3_bucket_server_side_encryption_configuration":
            (rule,) = resource["values"]["rule"]
            (default,) = rule["apply_server_side_encryption_by_default"]
            assert default["sse_algorithm"] == "AES256"
        if resource["type"] == "aws_s3_bucket_ownership_controls":
            (rule,) = resource["values"]["rule"]
            assert rule["object_ownership"] == "BucketOwnerEnforced"


def test_a_service_may_lose_every_old_task_only_when_it_is_idle(resources: Resources) -> None:
    """Protected tasks stay beside the new ones; a floor above zero would need more than twice the tasks."""
    for resource in resources:
        if resource["type"] == "aws_ecs_service":
            assert resource["values"]["deployment_minimum_healthy_percent"] == 0
            assert resource["values"]["force_new_deployment"] is True


def test_nothing_waits_that_need_not(resources: Resources) -> None:
    for profile in PROFILES:
        queue = of_profile(resources, "aws_sqs_queue", "this", profile)
        assert not queue["delay_seconds"]


def test_every_lifecycle_rule_is_on_and_an_overwritten_rendition_stays_a_month(
    resources: Resources,
) -> None:
    assert {r["status"] for b in ("input", "output") for r in rules(resources, b)} == {"Enabled"}
    kept = {
        narrowed(rule)[0]: each["noncurrent_days"]
        for rule in rules(resources, "output")
        for each in rule["noncurrent_version_expiration"]
    }
    assert kept == {"": 30, f"{WORK}/": 1}


@pytest.mark.parametrize("profile", PROFILES)
def test_a_task_is_one_worker_with_its_scratch_and_time_to_stop(
    resources: Resources, profile: str
) -> None:
    task = of_profile(resources, "aws_ecs_task_definition", "this", profile)
    (worker,) = json.loads(task["container_definitions"])
    told = {item["name"]: item["value"] for item in worker["environment"]}

    assert [each["name"] for each in task["volume"]] == ["scratch"]
    assert worker["mountPoints"] == [
        {"sourceVolume": "scratch", "containerPath": told["HEVCQ_DATA_DIR"], "readOnly": False}
    ]
    assert told["HEVCQ_WORKERS"] == "1"
    assert float(told["HEVCQ_STOP_GRACE_S"]) < worker["stopTimeout"]
    assert worker["healthCheck"]["retries"] >= 3


@pytest.mark.parametrize("profile", PROFILES)
def test_tasks_just_asked_for_are_counted_before_more_are(
    resources: Resources, profile: str
) -> None:
    """A task starts in 2 minutes, and its number comes 3 minutes late."""
    following = of_profile(resources, "aws_appautoscaling_policy", "backlog_per_task[0]", profile)
    first = of_profile(resources, "aws_appautoscaling_policy", "from_zero[0]", profile)

    tracking = following["target_tracking_scaling_policy_configuration"][0]
    assert tracking["scale_out_cooldown"] >= 300
    assert first["step_scaling_policy_configuration"][0]["cooldown"] >= 300
