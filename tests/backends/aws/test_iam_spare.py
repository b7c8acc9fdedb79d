"""No policy allows an action that src never asks for: each granted action is one of its calls."""

import ast
from pathlib import Path

import pytest
from botocore import xform_name
from botocore.session import get_session

from support.aws import iam

BACKEND = Path(iam.TERRAFORM).parents[1] / "src" / "hevcq" / "backends" / "aws"
SERVICES = ("s3", "sqs", "sns", "dynamodb", "kms")
NOT_OURS = {
    "ecs:GetTaskProtection": "asked of the ECS agent in the task, not by boto3",
    "ecs:UpdateTaskProtection": "asked of the ECS agent in the task, not by boto3",
    "kms:Decrypt": "S3 asks it in our name",
    "kms:GenerateDataKey": "S3 asks it in our name",
}
OF_A_VERSION = {
    "s3:GetObject": "s3:GetObjectVersion",
    "s3:GetObjectTagging": "s3:GetObjectVersionTagging",
    "s3:PutObjectTagging": "s3:PutObjectVersionTagging",
    "s3:DeleteObject": "s3:DeleteObjectVersion",
}
POLICIES = [
    ("operator.tf", "operator"),
    ("modules/worker_service/roles.tf", "task"),
    ("modules/web/roles.tf", "task"),
    ("modules/input_tagger/roles.tf", "task"),
]


def asked() -> set[str]:
    """Return the action of every call of AWS in the backend's sources."""
    operations: dict[str, set[str]] = {}
    for service in SERVICES:
        for name in get_session().get_service_model(service).operation_names:
            action = iam.S3_ACTIONS.get(name, name) if service == "s3" else name
            action = f"{service}:{action.removesuffix('Batch') if service == 'sqs' else action}"
            operations.setdefault(xform_name(name), set()).add(action)
    found: set[str] = set()
    for path in BACKEND.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = node.attr if isinstance(node, ast.Attribute) else None
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named = node.value  # a paginator's name
            found |= operations.get(named or "", set())
    if "dynamodb:TransactWriteItems" in found:
        found |= {f"dynamodb:{kind}Item" for kind in ("Put", "Update", "Delete")}
    return found | {OF_A_VERSION[action] for action in found if action in OF_A_VERSION}


@pytest.mark.parametrize(("file", "document"), POLICIES, ids=lambda value: value)
def test_every_action_that_a_policy_grants_is_a_call_that_the_sources_make(file, document):
    granted = {action for action, _ in iam.allowed(file, document)}

    assert len(granted) > 6
    assert granted - asked() - set(NOT_OURS) == set()


def test_every_call_that_the_sources_make_is_granted_to_somebody():
    """The calls of the recorded tests are held to the policies one by one; this finds the others."""
    granted = {action for file, document in POLICIES for action, _ in iam.allowed(file, document)}
    missing = asked() - granted - set(OF_A_VERSION)

    # A topic is subscribed to by Terraform, and the bucket publishes to it; both words are ours as
    # well. A transaction needs the actions of what is in it, and a signed link those of whom it is
    # given to.
    assert missing <= {"sns:Subscribe", "sns:Publish", "dynamodb:TransactWriteItems"}
