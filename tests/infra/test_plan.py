"""What terraform would make, read from an offline plan: each fact that costs money, data or access."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from hevcq.backends.aws.clients import MESSAGE_RETENTION_S
from hevcq.backends.aws.dynamodb.schema import INDEXES, NUMBERS, TTL
from hevcq.domain.keys import INBOX, WORK
from hevcq.settings.model import AwsSettings, Settings
from infra.terraform import (
    ACCOUNT,
    INFRA,
    OTHERS,
    SCALED_TO,
    VARIABLES,
    Terraform,
    assert_schema,
    deployed,
    need_terraform,
    planned,
    run_command,
)

pytestmark = pytest.mark.terraform
Resources = list[dict[str, Any]]
KNOWN = deployed()
PROFILES = sorted(KNOWN)
QUEUES = f"arn:aws:sqs:eu-central-1:{ACCOUNT}"
LONGEST_S = 1_209_600
"""SQS keeps nothing longer: dead letters outlive the queue that they came from."""
WORKER = "aws_ecs_task_definition.this"
SERVICE = "aws_ecs_service.this"
TRACKING = "aws_appautoscaling_policy.backlog_per_task[0]"
STEP = "aws_appautoscaling_policy.from_zero[0]"
FOLLOWED = "target_tracking_scaling_policy_configuration/0"


def look(found: Any, path: str) -> Any:
    """Follow a path through mappings, lists and the JSON in texts; a list of {name, value} is a mapping."""
    for step in path.split("/") if path else ():
        if isinstance(found, list) and not step.isdecimal():
            found = {each["name"]: each["value"] for each in found}
        found = found[int(step)] if isinstance(found, list) else found.get(step)
        if isinstance(found, str) and found[:1] in {"{", "["}:
            found = json.loads(found)
    return found


EACH_PROFILE: list[tuple[str, str, Any]] = [
    # A task waits, is given up and is kept as the profile says.
    ("aws_sqs_queue.this", "visibility_timeout_seconds", lambda p: p.queue.visibility_s),
    ("aws_sqs_queue.this", "message_retention_seconds", MESSAGE_RETENTION_S),
    ("aws_sqs_queue.this", "receive_wait_time_seconds", 20),
    ("aws_sqs_queue.this", "sqs_managed_sse_enabled", True),
    ("aws_sqs_queue.dead_letters", "message_retention_seconds", LONGEST_S),
    ("aws_sqs_queue.subscription_dead_letters", "message_retention_seconds", LONGEST_S),
    (
        "aws_sqs_queue_redrive_policy.this",
        "redrive_policy",
        lambda p: {
            "deadLetterTargetArn": f"{QUEUES}:hevcq-{p.name}-dlq",
            "maxReceiveCount": p.queue.max_receives,
        },
    ),
    (
        "aws_sqs_queue_redrive_allow_policy.dead_letters",
        "redrive_allow_policy",
        {"redrivePermission": "byQueue", "sourceQueueArns": [f"{QUEUES}:hevcq-{{profile}}"]},
    ),
    # An upload reaches it, or is kept for it.
    ("aws_sns_topic_subscription.this", "endpoint", f"{QUEUES}:hevcq-{{profile}}"),
    (
        "aws_sns_topic_subscription.this",
        "topic_arn",
        f"arn:aws:sns:eu-central-1:{ACCOUNT}:hevcq-uploads",
    ),
    ("aws_sns_topic_subscription.this", "raw_message_delivery", True),
    (
        "aws_sns_topic_subscription.this",
        "redrive_policy",
        {"deadLetterTargetArn": f"{QUEUES}:hevcq-{{profile}}-subscription-dlq"},
    ),
    (
        "aws_sns_topic_subscription.this",
        "filter_policy",
        lambda p: (
            None
            if p.subscribe
            else {"Records": {"s3": {"object": {"key": [{"prefix": f"TODO/{p.name}/"}]}}}}
        ),
    ),
    # A task has its profile's size, its own scratch and log, and time to stop.
    (WORKER, "cpu", lambda p: str(p.fleet.cpu)),
    (WORKER, "memory", lambda p: str(p.fleet.memory_mib)),
    (WORKER, "runtime_platform/0/cpu_architecture", lambda p: p.fleet.architecture.upper()),
    (WORKER, "ephemeral_storage/0/size_in_gib", lambda p: p.fleet.scratch_gib),
    (
        WORKER,
        "container_definitions/0/mountPoints",
        [{"containerPath": "/scratch", "readOnly": False, "sourceVolume": "scratch"}],
    ),
    (WORKER, "container_definitions/0/environment/HEVCQ_DATA_DIR", "/scratch"),
    (WORKER, "container_definitions/0/environment/HEVCQ_STOP_GRACE_S", "60"),
    (WORKER, "container_definitions/0/stopTimeout", 120),
    (WORKER, "container_definitions/0/readonlyRootFilesystem", True),
    (WORKER, "container_definitions/0/user", "10001"),
    (
        WORKER,
        "container_definitions/0/logConfiguration/options/awslogs-group",
        "/hevcq-{profile}/worker",
    ),
    (WORKER, "container_definitions/0/environment/HEVCQ_PROFILES", "{profile}"),
    (WORKER, "container_definitions/0/environment/HEVCQ_AWS__PROFILES", ",".join(PROFILES)),
    ("aws_cloudwatch_log_group.this", "name", "/hevcq-{profile}/worker"),
    (
        "aws_iam_role_policy.execution",
        "policy/Statement/2/Resource",
        f"arn:aws:logs:eu-central-1:{ACCOUNT}:log-group:/hevcq-{{profile}}/worker:*",
    ),
    # A service is cheap, does not end a protected task, and scales by its own queue and itself.
    (SERVICE, "deployment_circuit_breaker/0", {"enable": True, "rollback": True}),
    (SERVICE, "network_configuration/0/assign_public_ip", True),
    ("aws_appautoscaling_target.this[0]", "min_capacity", lambda p: p.fleet.min_tasks),
    ("aws_appautoscaling_target.this[0]", "max_capacity", lambda p: p.fleet.max_tasks),
    ("aws_appautoscaling_target.this[0]", "resource_id", "service/hevcq/hevcq-{profile}"),
    (TRACKING, "scalable_dimension", "ecs:service:DesiredCount"),
    (STEP, "scalable_dimension", "ecs:service:DesiredCount"),
    # A task starts in 2 minutes, and its number comes 3 minutes late.
    (STEP, "step_scaling_policy_configuration/0/cooldown", 420),
    (TRACKING, f"{FOLLOWED}/scale_out_cooldown", 420),
    (
        TRACKING,
        f"{FOLLOWED}/target_value",
        lambda p: p.fleet.tasks_per_worker,
    ),
    (TRACKING, f"{FOLLOWED}/disable_scale_in", False),
]
"""What is where in the resources of a profile; `{profile}` is its name."""


BUCKET, KEPT = "aws_s3_bucket", "aws_s3_bucket_lifecycle_configuration"
FARM: list[tuple[str, str, Any]] = [
    *(
        (f'{kind}.this["{bucket}"]', path, value)
        for bucket in ("input", "output")
        for kind, path, value in (
            (BUCKET, "force_destroy", False),
            (f"{BUCKET}_public_access_block", "block_public_acls", True),
            (f"{BUCKET}_public_access_block", "block_public_policy", True),
            (f"{BUCKET}_public_access_block", "ignore_public_acls", True),
            (f"{BUCKET}_public_access_block", "restrict_public_buckets", True),
            (f"{BUCKET}_versioning", "versioning_configuration/0/status", "Enabled"),
            (f"{BUCKET}_ownership_controls", "rule/0/object_ownership", "BucketOwnerEnforced"),
            (
                f"{BUCKET}_server_side_encryption_configuration",
                "rule/0/apply_server_side_encryption_by_default/0/sse_algorithm",
                "AES256",
            ),
        )
    ),
    ("aws_s3_bucket_notification.uploads", "topic/0/events", ["s3:ObjectCreated:*"]),
    ("aws_s3_bucket_notification.uploads", "topic/0/filter_prefix", f"{INBOX}/"),
    ("aws_ecr_repository.worker", "image_tag_mutability", "IMMUTABLE"),
    ("aws_ecr_repository.worker", "force_delete", False),
    ("aws_dynamodb_table.this", "billing_mode", "PAY_PER_REQUEST"),
    ("aws_dynamodb_table.this", "point_in_time_recovery/0/enabled", True),
    ("aws_dynamodb_table.this", "deletion_protection_enabled", True),
    ("aws_dynamodb_table.this", "ttl/0/enabled", True),
    ("aws_dynamodb_table.this", "ttl/0/attribute_name", TTL),
    *(
        (f'aws_vpc_endpoint.gateway["{service}"]', "vpc_endpoint_type", "Gateway")
        for service in ("s3", "dynamodb")
    ),
]
"""What is where in the resources that a farm has once."""


def of(resources: Resources, kind: str) -> dict[str, dict[str, Any]]:
    return {r["address"]: r.get("values", {}) for r in resources if r["type"] == kind}


def one(resources: Resources, ending: str, within: str = "") -> dict[str, Any]:
    """Return the one resource whose address ends so, of a profile's modules if it is given."""
    (found,) = [
        r["values"]
        for r in resources
        if r["address"].endswith(f".{ending}") and (not within or f'["{within}"]' in r["address"])
    ]
    return found


@pytest.mark.parametrize("profile", PROFILES)
def test_what_a_profile_has_is_its_own_and_as_its_file_says(resources, profile):
    def wanted(value: Any) -> Any:
        if callable(value):
            return value(KNOWN[profile])
        if isinstance(value, str):
            return value.replace("{profile}", profile)
        if isinstance(value, dict | list):
            return json.loads(json.dumps(value).replace("{profile}", profile))
        return value

    wrong = {
        f"{resource}: {path}": found
        for resource, path, value in EACH_PROFILE
        if (found := look(one(resources, resource, profile), path)) != wanted(value)
    }

    assert wrong == {}


def test_what_a_farm_has_once_is_closed_kept_and_paid_by_use(resources):
    wrong = {
        f"{resource}: {path}": found
        for resource, path, value in FARM
        if (found := look(one(resources, resource), path)) != value
    }

    assert wrong == {}
    assert not of(resources, "aws_nat_gateway")


def test_the_configuration_is_formatted():
    need_terraform()
    done = run_command("terraform", "fmt", "-check", "-recursive", str(INFRA))

    assert done.returncode == 0, done.stdout


def rules(resources: Resources, bucket: str) -> dict[str, dict[str, Any]]:
    """Return what each rule of a bucket is limited to, and what it ends after how many days."""
    found = {}
    for rule in one(resources, f'{KEPT}.this["{bucket}"]')["rule"]:
        assert rule["status"] == "Enabled"
        limit = (rule["filter"] or [{}])[0]
        found[rule["id"]] = {
            "prefix": limit.get("prefix") or "",
            "tags": [(tag["key"], tag["value"]) for tag in limit.get("tag") or []],
            "days": [e["days"] for e in rule["expiration"] or [] if e.get("days")],
            "former": [e["noncurrent_days"] for e in rule["noncurrent_version_expiration"] or []],
            "parts": [
                e["days_after_initiation"] for e in rule["abort_incomplete_multipart_upload"] or []
            ],
        }
    return found


def test_no_upload_ends_but_a_finished_one_and_no_rendition_but_a_replaced_one(resources, changed):
    uploads, made = (list(rules(resources, b).values()) for b in ("input", "output"))
    # Only who asks for it has a rule by which a tag ends an upload.
    assert not [rule for rule in uploads if rule["days"] or rule["former"]]
    uploads = list(rules(planned(changed), "input").values())
    (finished,) = [rule for rule in uploads if rule["days"] or rule["former"]]
    (work,) = [rule for rule in made if rule["days"]]
    waits_s = 2 * MESSAGE_RETENTION_S  # a chunk's task, and the join's

    assert (finished["prefix"], finished["tags"]) == ("", [("hevcq", "done")])
    assert finished["former"] == [30]
    assert (work["prefix"], work["tags"], work["former"]) == (f"{WORK}/", [], [1])
    assert work["days"][0] * 86_400 > waits_s
    assert {rule["prefix"]: rule["former"] for rule in made if rule["former"]} == {
        "": [30],
        f"{WORK}/": [1],
    }
    # A slow line has a week, a killed worker's parts two days.
    assert [rule["parts"] for rule in uploads if rule["parts"]] == [[7]]
    assert [rule["parts"] for rule in made if rule["parts"]] == [[2]]


def test_workers_are_configured_by_names_the_settings_know(resources):
    known = {"HEVCQ_PROFILES"} | {f"HEVCQ_{name.upper()}" for name in Settings.model_fields}
    known |= {f"HEVCQ_AWS__{name.upper()}" for name in AwsSettings.model_fields}

    for values in of(resources, "aws_ecs_task_definition").values():
        (worker,) = json.loads(values["container_definitions"])
        assert {item["name"] for item in worker["environment"]} <= known


@pytest.mark.parametrize("profile", PROFILES)
def test_scaling_reads_its_own_queue_and_service(resources, profile):
    followed = one(resources, TRACKING, profile)
    metrics = look(followed, f"{FOLLOWED}/customized_metric_specification/0/metrics")
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
    (expression,) = [m["expression"] for m in metrics if m["return_data"]]
    assert "inwork" in expression
    assert "FILL(running, 0)" not in expression


def test_an_apply_leaves_the_number_of_tasks_to_scaling(changed):
    assert one(planned(changed), SERVICE, "hevc")["desired_count"] == SCALED_TO


@pytest.mark.parametrize("profile", PROFILES)
def test_the_policies_of_a_profiles_queues_are_about_those_queues(resources, profile):
    for name, ending in (("this", ""), ("subscription", "-subscription-dlq")):
        found = look(one(resources, f"aws_sqs_queue_policy.{name}", profile), "policy/Statement")
        assert {s["Resource"] for s in found} == {f"{QUEUES}:hevcq-{profile}{ending}"}


def test_an_operator_reaches_every_profiles_queues(resources):
    statements = look(one(resources, "aws_iam_policy.operator"), "policy/Statement")
    reached = json.dumps([s["Resource"] for s in statements])

    for profile in PROFILES:
        for ending in ("", "-dlq", "-subscription-dlq"):
            assert f'"{QUEUES}:hevcq-{profile}{ending}"' in reached


def test_a_worker_reaches_nothing_but_tls_and_is_reached_by_nobody(resources):
    found = [r for r in resources if r["type"].startswith("aws_vpc_security_group_")]

    assert {r["type"] for r in found} == {"aws_vpc_security_group_egress_rule"}
    assert {(r["values"]["from_port"], r["values"]["to_port"]) for r in found} == {(443, 443)}


def test_uploads_are_announced_and_renditions_live_elsewhere(resources):
    announced = one(resources, "aws_s3_bucket_notification.uploads")["bucket"]
    buckets = {values["bucket"] for values in of(resources, "aws_s3_bucket").values()}

    assert announced in (f"hevcq-in-{ACCOUNT}", None)
    assert buckets == {f"hevcq-in-{ACCOUNT}", f"hevcq-out-{ACCOUNT}"}


def test_the_table_has_the_keys_and_indexes_that_the_ledger_asks_for(resources):
    table = one(resources, "aws_dynamodb_table.this")

    assert table["hash_key"] == "pk"
    assert_schema(table, INDEXES, NUMBERS)
    for index in table["global_secondary_index"]:
        whole = "INCLUDE" if INDEXES[index["name"]][1] else "KEYS_ONLY"
        assert index["projection_type"] == whole


def test_a_restored_table_is_used_under_its_name_and_queues_keep_theirs(changed):
    found = planned(changed)
    table = one(found, "module.ledger.aws_dynamodb_table.this")["name"]
    environment = look(one(found, WORKER, "hevc"), "container_definitions/0/environment")

    assert (table, look(environment, "HEVCQ_AWS__TABLE")) == ("hevcq.2", "hevcq.2")
    queue = one(found, "aws_sqs_queue.this", "hevc")["name"]
    assert queue == f"{AwsSettings(table=table).queue_prefix}hevc" == "hevcq-hevc"
    assert AwsSettings(table=table).videos == AwsSettings(table="hevcq").videos
    assert "table/hevcq.2" in json.dumps(one(found, "aws_iam_role_policy.task", "hevc"))


def test_a_task_that_fargate_does_not_offer_and_an_unknown_profile_are_refused(
    terraform_of_bad_sizes,
):
    said = terraform_of_bad_sizes.refused(*VARIABLES, 'profiles=["hevc","720p","hevx"]')

    assert "Profile hevc: Fargate has no task of fleet.cpu 4096 with fleet.memory_mib 7168." in said
    assert "With that CPU it offers 8192, 9216," in said
    assert "Profile 720p: Fargate has no task of fleet.cpu 3000" in said
    assert "It offers CPU units of 256, 512," in said
    assert "The variable profiles names what has no file" in said


@pytest.fixture
def terraform_of_bad_sizes(folder: Path) -> Terraform:
    other = Terraform(folder)
    for name, size in (("hevc", "memory_mib: 7168"), ("720p", "cpu: 3000")):
        profile = folder / "workers" / f"{name}.yaml"
        profile.write_text(profile.read_text() + f"fleet: {{{size}}}\n")
    return other


@pytest.mark.parametrize(
    ("image", "taken"),
    [
        ("1.dkr.ecr.eu-central-1.amazonaws.com/hevcq-worker:4f1c2d3", True),
        ("registry.example:5000/hevcq-worker@sha256:" + "0a" * 32, True),
        ("hevcq-worker:latest", False),
        (None, False),
    ],
)
def test_a_release_names_its_image_by_tag_or_digest(folder, image, taken):
    need_terraform()
    shutil.copy(INFRA / "variables.tf", folder)
    given = [] if image is None else [f"-var=image={image}"]

    done = run_command(
        "terraform",
        "plan",
        "-input=false",
        "-no-color",
        *given,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "CHECKPOINT_DISABLE": "1"},
    )

    assert (done.returncode == 0) is taken, done.stdout + done.stderr
    assert taken or "image" in done.stderr


def test_the_variable_profiles_names_those_that_get_a_queue(changed):
    queues = of(planned(changed), "aws_sqs_queue")

    made = {name for name in {*KNOWN, "webm"} if any(f'["{name}"]' in q for q in queues)}
    assert made == set(OTHERS)
