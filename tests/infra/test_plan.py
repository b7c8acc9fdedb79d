"""What terraform would make, read from an offline plan: the promises of AWS's semantics as facts."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hevcq.backends.aws.dynamodb.schema import TTL, table_definition
from hevcq.settings.model import AwsSettings, Settings
from infra.terraform import (
    INFRA,
    OTHERS,
    VARIABLES,
    Terraform,
    deployed,
    need_terraform,
    planned,
)

pytestmark = pytest.mark.terraform
Resources = list[dict[str, Any]]
KNOWN = deployed()
PROFILES = sorted(KNOWN)
HEVC_SERVICE = 'module.farm.module.worker_service["hevc"].aws_ecs_service.this'


def of(resources: Resources, kind: str) -> dict[str, dict[str, Any]]:
    return {r["address"]: r.get("values", {}) for r in resources if r["type"] == kind}


def named(resources: Resources, kind: str, name: str) -> dict[str, Any]:
    found = [values for values in of(resources, kind).values() if values.get("name") == name]
    assert len(found) == 1, f"{kind} {name}: {len(found)} found"
    return found[0]


def test_the_configuration_is_formatted() -> None:
    need_terraform()
    done = subprocess.run(
        ["terraform", "fmt", "-check", "-recursive", str(INFRA)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("profile", PROFILES)
def test_queue_numbers_come_from_the_profile_file(resources: Resources, profile: str) -> None:
    numbers = KNOWN[profile].queue

    queue = named(resources, "aws_sqs_queue", f"hevcq-{profile}")
    letters = named(resources, "aws_sqs_queue", f"hevcq-{profile}-dlq")

    assert queue["visibility_timeout_seconds"] == numbers.visibility_s
    assert queue["message_retention_seconds"] == numbers.retention_s
    assert letters["message_retention_seconds"] == 1_209_600
    assert queue["receive_wait_time_seconds"] == 20
    assert queue["sqs_managed_sse_enabled"] is True


def test_a_dead_letter_outlives_the_queue_it_came_from(resources: Resources) -> None:
    for profile in PROFILES:
        queue = named(resources, "aws_sqs_queue", f"hevcq-{profile}")
        for suffix in ("dlq", "subscription-dlq"):
            letters = named(resources, "aws_sqs_queue", f"hevcq-{profile}-{suffix}")
            assert letters["message_retention_seconds"] == 1_209_600
            assert letters["message_retention_seconds"] > queue["message_retention_seconds"]


def test_each_queue_has_its_redrive_policies_as_separate_resources(resources: Resources) -> None:
    count = len(PROFILES)

    assert len(of(resources, "aws_sqs_queue_redrive_policy")) == count
    assert len(of(resources, "aws_sqs_queue_redrive_allow_policy")) == count


def test_every_subscription_is_raw_and_has_its_own_dead_letters(resources: Resources) -> None:
    subscriptions = of(resources, "aws_sns_topic_subscription")

    assert len(subscriptions) == len(PROFILES)
    for values in subscriptions.values():
        assert values["raw_message_delivery"] is True
        assert values["protocol"] == "sqs"


def test_both_buckets_are_closed_versioned_and_encrypted(resources: Resources) -> None:
    for block in of(resources, "aws_s3_bucket_public_access_block").values():
        assert all(
            block[key] for key in block if key.startswith(("block_", "ignore_", "restrict_"))
        )
    versioning = of(resources, "aws_s3_bucket_versioning").values()
    assert [v["versioning_configuration"][0]["status"] for v in versioning] == ["Enabled"] * 2
    assert len(of(resources, "aws_s3_bucket_server_side_encryption_configuration")) == 2
    assert len(of(resources, "aws_s3_bucket_policy")) == 2


def test_unfinished_uploads_and_leftovers_expire(resources: Resources) -> None:
    configurations = of(resources, "aws_s3_bucket_lifecycle_configuration")
    rules = [rule for values in configurations.values() for rule in values["rule"]]

    assert len([rule for rule in rules if rule["abort_incomplete_multipart_upload"]]) == 2
    prefixes = [rule["filter"][0]["prefix"] for rule in rules if rule["filter"]]
    assert "work/" in prefixes


def test_an_upload_expires_only_where_it_is_tagged_as_finished(resources: Resources) -> None:
    configurations = of(resources, "aws_s3_bucket_lifecycle_configuration")
    (rules,) = (v["rule"] for address, v in configurations.items() if '"input"' in address)

    def deletes_versions(rule: dict) -> bool:
        days = [each["days"] for each in rule["expiration"]]
        return any(days) or bool(rule["noncurrent_version_expiration"])

    (only,) = [rule for rule in rules if deletes_versions(rule)]
    assert only["filter"][0]["tag"] == [{"key": "hevcq", "value": "done"}]
    assert only["noncurrent_version_expiration"][0]["noncurrent_days"] == 30


def test_what_a_split_video_keeps_outlives_the_tasks_that_ask_for_it(resources: Resources) -> None:
    configurations = of(resources, "aws_s3_bucket_lifecycle_configuration")
    rules = [rule for values in configurations.values() for rule in values["rule"]]
    (work,) = [rule for rule in rules if rule["id"] == "expire-work"]
    numbers = [profile.queue for profile in KNOWN.values()]
    waits_s = 2 * max(each.retention_s for each in numbers)  # a chunk's task, and then the join's

    assert work["expiration"][0]["days"] * 86_400 > waits_s
    assert work["noncurrent_version_expiration"][0]["noncurrent_days"] == 1


def test_an_upload_over_a_slow_line_has_a_week(resources: Resources) -> None:
    found = of(resources, "aws_s3_bucket_lifecycle_configuration")
    days = {
        address: rule["abort_incomplete_multipart_upload"][0]["days_after_initiation"]
        for address, values in found.items()
        for rule in values["rule"]
        if rule["abort_incomplete_multipart_upload"]
    }

    assert {each for address, each in days.items() if '"input"' in address} == {7}
    assert {each for address, each in days.items() if '"output"' in address} == {2}


def test_one_rule_announces_uploads_and_renditions_live_elsewhere(resources: Resources) -> None:
    (notification,) = of(resources, "aws_s3_bucket_notification").values()
    buckets = {values["bucket"] for values in of(resources, "aws_s3_bucket").values()}

    assert [topic["filter_prefix"] for topic in notification["topic"]] == ["TODO/"]
    assert len(buckets) == 2


def test_a_worker_is_stopped_gently_and_cannot_write_its_root(resources: Resources) -> None:
    definitions = of(resources, "aws_ecs_task_definition")
    assert len(definitions) == len(PROFILES)
    for values in definitions.values():
        (worker,) = json.loads(values["container_definitions"])
        assert worker["stopTimeout"] == 120
        assert worker["readonlyRootFilesystem"] is True
        assert worker["user"] not in {"", "0", "root"}
        assert worker["linuxParameters"] == {"initProcessEnabled": True}
        assert worker["healthCheck"]["command"] == ["CMD", "hevcq-health"]


def test_workers_are_configured_by_names_the_settings_know(resources: Resources) -> None:
    known = {"HEVCQ_PROFILES"} | {f"HEVCQ_{name.upper()}" for name in Settings.model_fields}
    known |= {f"HEVCQ_AWS__{name.upper()}" for name in AwsSettings.model_fields}

    for values in of(resources, "aws_ecs_task_definition").values():
        (worker,) = json.loads(values["container_definitions"])
        assert {item["name"] for item in worker["environment"]} <= known
        told = {item["name"]: item["value"] for item in worker["environment"]}
        assert told["HEVCQ_AWS__PROFILES"].split(",") == PROFILES


def test_services_use_spot_do_not_rebalance_and_roll_back(resources: Resources) -> None:
    for values in of(resources, "aws_ecs_service").values():
        providers = {s["capacity_provider"] for s in values["capacity_provider_strategy"]}
        assert providers == {"FARGATE", "FARGATE_SPOT"}
        assert values["availability_zone_rebalancing"] == "DISABLED"
        assert values["deployment_circuit_breaker"][0] == {"enable": True, "rollback": True}
        assert values["deployment_maximum_percent"] == 200
        assert values["wait_for_steady_state"] is False


def test_the_first_task_is_on_demand_and_four_fifths_of_the_rest_on_spot(
    resources: Resources,
) -> None:
    for values in of(resources, "aws_ecs_service").values():
        found = {s["capacity_provider"]: s for s in values["capacity_provider_strategy"]}
        assert (found["FARGATE"]["base"], found["FARGATE"]["weight"]) == (1, 20)
        assert (found["FARGATE_SPOT"]["base"], found["FARGATE_SPOT"]["weight"]) == (0, 80)


def test_another_share_of_spot_leaves_the_service_and_its_tasks_in_place(
    changed: dict[str, Any],
) -> None:
    (service,) = [c["change"] for c in changed["resource_changes"] if c["address"] == HEVC_SERVICE]
    weights = {
        s["capacity_provider"]: (s["base"], s["weight"])
        for s in service["after"]["capacity_provider_strategy"]
    }
    assert weights == {"FARGATE": (0, 0), "FARGATE_SPOT": (0, 100)}
    assert service["actions"] == ["update"]


def test_a_task_that_fargate_does_not_offer_and_an_unknown_profile_are_refused(
    terraform_of_bad_sizes: Terraform,
) -> None:
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
        ("registry.example:5000/hevcq-worker", False),
        ("hevcq-worker:latest", False),
        ("hevcq-worker@sha256:0a", False),
        ("", False),
        (None, False),
    ],
)
def test_a_release_names_its_image_by_tag_or_digest(
    folder: Path, image: str | None, taken: bool
) -> None:
    need_terraform()
    shutil.copy(INFRA / "variables.tf", folder)
    given = [] if image is None else [f"-var=image={image}"]

    done = subprocess.run(
        ["terraform", "plan", "-input=false", "-no-color", *given],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "CHECKPOINT_DISABLE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode == 0) is taken, done.stdout + done.stderr
    assert taken or "image" in done.stderr


def test_scaling_counts_work_in_flight_and_leaves_zero_by_a_step(resources: Resources) -> None:
    policies = of(resources, "aws_appautoscaling_policy").values()
    tracking = [p for p in policies if p["policy_type"] == "TargetTrackingScaling"]
    steps = [p for p in policies if p["policy_type"] == "StepScaling"]

    assert len(tracking) == len(steps) == len(PROFILES)
    for policy in tracking:
        specification = policy["target_tracking_scaling_policy_configuration"][0]
        metrics = specification["customized_metric_specification"][0]["metrics"]
        expression = next(m["expression"] for m in metrics if m["return_data"])
        assert "inwork" in expression
        assert "FILL(running, 0)" not in expression
    for policy in steps:
        assert (
            policy["step_scaling_policy_configuration"][0]["adjustment_type"] == "ChangeInCapacity"
        )


def test_the_ledger_is_on_demand_recoverable_and_forgets(resources: Resources) -> None:
    (table,) = of(resources, "aws_dynamodb_table").values()

    assert table["billing_mode"] == "PAY_PER_REQUEST"
    assert table["point_in_time_recovery"][0]["enabled"] is True
    assert table["ttl"][0]["enabled"] is True
    assert table["deletion_protection_enabled"] is True


def test_logs_do_not_stay_for_ever(resources: Resources) -> None:
    assert all(v["retention_in_days"] for v in of(resources, "aws_cloudwatch_log_group").values())


def test_a_farm_without_nat_reaches_s3_and_dynamodb_by_gateway(resources: Resources) -> None:
    endpoints = of(resources, "aws_vpc_endpoint").values()

    assert {e["vpc_endpoint_type"] for e in endpoints} == {"Gateway"}
    assert {e["service_name"].rsplit(".", 1)[1] for e in endpoints} == {"s3", "dynamodb"}
    assert not of(resources, "aws_nat_gateway")


def test_the_table_has_the_keys_and_indexes_that_the_ledger_asks_for(resources: Resources) -> None:
    (table,) = of(resources, "aws_dynamodb_table").values()
    wanted = table_definition("hevcq")

    assert {a["name"]: a["type"] for a in table["attribute"]} == {
        a["AttributeName"]: a["AttributeType"] for a in wanted["AttributeDefinitions"]
    }
    assert table["hash_key"] == wanted["KeySchema"][0]["AttributeName"]
    made = {
        i["name"]: (
            [key for key in (i["hash_key"], i["range_key"]) if key],
            i["projection_type"],
            sorted(i["non_key_attributes"] or []),
        )
        for i in table["global_secondary_index"]
    }
    assert made == {
        i["IndexName"]: (
            [key["AttributeName"] for key in i["KeySchema"]],
            i["Projection"]["ProjectionType"],
            sorted(i["Projection"].get("NonKeyAttributes", [])),
        )
        for i in wanted["GlobalSecondaryIndexes"]
    }
    assert table["ttl"][0]["attribute_name"] == TTL


def test_the_variable_profiles_names_those_that_get_a_queue(changed: dict[str, Any]) -> None:
    queues = of(planned(changed), "aws_sqs_queue")

    made = {name for name in {*KNOWN, "webm"} if any(f'["{name}"]' in q for q in queues)}
    assert made == set(OTHERS)
