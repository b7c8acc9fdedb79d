"""Every policy statement of the plan, held against least privilege."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from infra.terraform import deployed, planned

pytestmark = pytest.mark.terraform
Resources = list[dict[str, Any]]
PROFILES = sorted(deployed())
WITHOUT_RESOURCE = {"ecr:GetAuthorizationToken"}


def as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def statements(resources: Resources) -> Iterator[tuple[str, dict[str, Any]]]:
    for resource in resources:
        for key in ("policy", "assume_role_policy"):
            text = resource.get("values", {}).get(key)
            if resource["type"] != "aws_ecr_lifecycle_policy" and text:
                for statement in json.loads(text)["Statement"]:
                    yield resource["address"], statement


def role_statements(resources: Resources, role: str, profile: str) -> list[dict[str, Any]]:
    module = f'module.farm.module.worker_service["{profile}"]'
    where = f"{module}.module.roles" if role == "execution" else module
    address = f"{where}.aws_iam_role_policy.{role}"
    found = [statement for name, statement in statements(resources) if name == address]
    assert found, f"{address} has no policy that the plan can tell"
    return found


def test_every_policy_can_be_read_in_the_plan(resources):
    kinds = {
        "aws_iam_role_policy",
        "aws_iam_policy",
        "aws_sqs_queue_policy",
        "aws_sns_topic_policy",
    }
    unknown = [
        r["address"]
        for r in resources
        if r["type"] in kinds and not r.get("values", {}).get("policy")
    ]

    assert unknown == []


def test_every_allowed_action_and_resource_is_named(resources):
    for address, statement in statements(resources):
        if statement["Effect"] != "Allow":
            continue
        for action in as_list(statement["Action"]):
            assert "*" not in action, f"{address}: {action}"
        if "Resource" not in statement:
            continue
        if set(as_list(statement["Action"])) <= WITHOUT_RESOURCE:
            continue
        for resource in as_list(statement["Resource"]):
            assert resource.startswith("arn:"), f"{address}: {resource}"
            assert resource.split(":", 5)[5] not in {"", "*"}, f"{address}: {resource}"


@pytest.mark.parametrize("profile", PROFILES)
def test_a_worker_sends_only_to_its_own_queue_and_dead_letters(resources, profile):
    """To its queue: the chunks of a video that it split, and their join."""
    senders = [
        resource
        for statement in role_statements(resources, "task", profile)
        if "sqs:SendMessage" in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    ]

    assert [name.rsplit(":", 1)[1] for name in senders] == [
        f"hevcq-{profile}",
        f"hevcq-{profile}-dlq",
    ]


@pytest.mark.parametrize("profile", PROFILES)
def test_a_worker_reaches_no_other_profile_and_deletes_only_work_files(resources, profile):
    others = [other for other in PROFILES if other != profile]
    allowed = role_statements(resources, "task", profile)
    text = json.dumps(allowed)

    deletes = [s for s in allowed if any("Delete" in a for a in as_list(s["Action"]) if "s3:" in a)]
    assert {a for s in deletes for a in as_list(s["Action"])} == {"s3:DeleteObject"}
    places = [name.partition("/")[2] for s in deletes for name in as_list(s["Resource"])]
    of_a_set = ("????????-*/*", "master.m3u8.*")
    of_replaced_sets = [f"DONE/{profile}/*/{each}" for each in of_a_set if profile == "hls"]
    assert sorted(places) == sorted([f"work/{profile}/*", *of_replaced_sets])
    assert "dynamodb:Scan" not in text
    for other in others:
        assert f"DONE/{other}/" not in text
        assert f"hevcq-{other}" not in text


@pytest.mark.parametrize("profile", PROFILES)
def test_a_worker_writes_only_jobs_of_its_own_profile(resources, profile):
    writes = [
        statement
        for statement in role_statements(resources, "task", profile)
        if {"dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem"}
        & set(as_list(statement["Action"]))
    ]

    (only,) = writes
    condition = only["Condition"]
    assert as_list(condition["ForAllValues:StringLike"]["dynamodb:LeadingKeys"]) == [f"{profile}#*"]
    assert condition["Null"] == {"dynamodb:LeadingKeys": "false"}


def test_only_the_daily_tasks_role_and_people_tag_uploads_and_only_where_they_expire(
    resources, changed
):
    def tagging(found: Resources) -> set[str]:
        return {
            address
            for address, statement in statements(found)
            if statement["Effect"] == "Allow" and "Tagging" in json.dumps(statement["Action"])
        }

    assert tagging(resources) == set()
    assert tagging(planned(changed)) == {
        "module.farm.aws_iam_policy.operator",
        "module.farm.module.input_tagger[0].aws_iam_role_policy.task",
    }


def test_only_the_bucket_may_publish_and_only_the_topic_may_send(resources):
    for address, statement in statements(resources):
        service = statement.get("Principal", {})
        if (
            statement["Effect"] != "Allow"
            or not isinstance(service, dict)
            or "Service" not in service
        ):
            continue
        condition = statement.get("Condition", {})
        if service["Service"] == "s3.amazonaws.com":
            assert condition["ArnLike"]["aws:SourceArn"], address
            assert condition["StringEquals"]["aws:SourceAccount"], address
        elif service["Service"] == "sns.amazonaws.com":
            assert condition["ArnEquals"]["aws:SourceArn"], address
        else:
            assert condition["StringEquals"]["aws:SourceAccount"], address


def test_nothing_is_reached_without_tls(resources):
    denied = {
        address
        for address, statement in statements(resources)
        if statement["Effect"] == "Deny"
        and statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    }
    queues = [each for each in resources if each["type"] == "aws_sqs_queue"]

    kinds = [address.rsplit(".", 1)[0].rsplit(".", 1)[-1] for address in denied]
    assert set(kinds) == {"aws_s3_bucket_policy", "aws_sns_topic_policy", "aws_sqs_queue_policy"}
    assert kinds.count("aws_sqs_queue_policy") == len(queues) == 3 * len(PROFILES)
