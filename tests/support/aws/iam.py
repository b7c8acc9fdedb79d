"""What boto3 was asked to do, as IAM sees it, and what the Terraform policies allow.

A grant is (action, place): a place is a word for one of the farm's resources, such as "queue",
"dlq", "table", "input" (the bucket itself) or "output:DONE/hevc/" (objects below a prefix).
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

TERRAFORM = Path(__file__).resolve().parents[3] / "infra" / "terraform"
Grant = tuple[str, str]

S3_ACTIONS = {
    "HeadObject": "GetObject",
    "HeadBucket": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "ListObjectVersions": "ListBucketVersions",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "ListParts": "ListMultipartUploadParts",
}
"""Calls whose action has another name
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html)."""
PLACES = {
    r"var\.queue\.arn": "queue",
    r"var\.queue\.dlq_arn": "dlq",
    r"queue\.queue\.arn": "queue",
    r"queue\.queue\.dlq_arn": "dlq",
    r"queue\.queue\.subscription_dlq_arn": "subscription-dlq",
    r'"\$\{var\.table\.arn\}/index/\*"': "table/index",
    r"var\.table\.arn": "table",
    r'"\$\{module\.ledger\.table_arn\}/index/\*"': "table/index",
    r"module\.ledger\.table_arn": "table",
    r'"\$\{local\.table_arn\}/index/\*"': "videos/index",
    r"local\.table_arn": "videos",
    r"module\.fanout\.topic_arn": "topic",
    r"(?:var\.storage\.input_arn|module\.storage\.input_bucket_arn)": "input",
    r"(?:var\.storage\.output_arn|module\.storage\.output_bucket_arn)": "output",
}


@contextmanager
def recorded(*clients: Any) -> Iterator[list[tuple[str, str, dict[str, Any]]]]:
    """Collect (service, operation, parameters) of every call of these clients inside the context."""
    calls: list[tuple[str, str, dict[str, Any]]] = []

    def note(params: dict[str, Any], model: Any, **_more: Any) -> None:
        calls.append((model.service_model.service_name, model.name, dict(params)))

    for client in clients:
        client.meta.events.register("before-parameter-build", note, unique_id="iam")
    try:
        yield calls
    finally:
        for client in clients:
            client.meta.events.unregister("before-parameter-build", unique_id="iam")


def needed(service: str, operation: str, params: Mapping[str, Any]) -> set[Grant]:
    """Return the grants that one call needs."""
    if service == "s3":
        return _s3(operation, params)
    if service == "sqs":
        place = _queue(str(params.get("QueueUrl") or params.get("QueueName") or ""))
        return {(f"sqs:{operation.removesuffix('Batch')}", place)}
    if service == "dynamodb":
        place = "table/index" if "IndexName" in params else "table"
        if operation == "TransactWriteItems":
            names = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem"}
            kinds = {kind for item in params["TransactItems"] for kind in item}
            return {(f"dynamodb:{names.get(kind, 'ConditionCheckItem')}", place) for kind in kinds}
        return {(f"dynamodb:{operation}", place)}
    return {(f"{service}:{operation}", "topic")}


def _s3(operation: str, params: Mapping[str, Any]) -> set[Grant]:
    bucket = {"uploads": "input", "out": "output"}[params["Bucket"]]
    action = f"s3:{S3_ACTIONS.get(operation, operation)}"
    if "Key" not in params:
        return {(action, bucket)}
    if "VersionId" in params:
        action = action.replace("s3:GetObject", "s3:GetObjectVersion")
        action = action.replace("s3:PutObjectTagging", "s3:PutObjectVersionTagging")
    return {(action, f"{bucket}:{params['Key']}")}


def _queue(name: str) -> str:
    for ending in ("-subscription-dlq", "-dlq"):
        if name.endswith(ending):
            return ending[1:]
    return "queue"


def allowed(path: str, document: str, profile: str = "hevc") -> set[Grant]:
    """Return the grants of a policy document in a file below infra/terraform."""
    text = (TERRAFORM / path).read_text(encoding="utf-8")
    start = text.index(f'data "aws_iam_policy_document" "{document}"')
    end = text.find('\ndata "', start + 1)
    body = text[start : end if end > 0 else None]
    found: set[Grant] = set()
    for statement in re.split(r'\n  (?:dynamic "statement"|statement) \{', body)[1:]:
        if 'effect    = "Deny"' in statement:
            continue
        actions = re.search(r"actions\s*=\s*\[(.*?)\]", statement, re.DOTALL)
        resources = re.search(r"resources\s*=\s*(.*?)\n(?:  \}|\n)", statement, re.DOTALL)
        assert actions, statement
        assert resources, statement
        places = list(_places(resources[1], profile))
        found |= {(a, place) for a in re.findall(r'"([^"]+)"', actions[1]) for place in places}
    return found


def _places(text: str, profile: str) -> Iterator[str]:
    text = text.replace("${var.profile}", profile)
    for pattern, place in PLACES.items():
        objects = rf'"\$\{{{pattern}\}}/([^"]*)\*"'
        for found in re.finditer(objects, text):
            yield f"{place}:{found[1]}"
        text = re.sub(objects, "", text)
        text, count = re.subn(pattern + r"(?![\w.])", "", text)
        if count:
            yield place


def covered(grant: Grant, policy: set[Grant]) -> bool:
    """Return whether a policy allows it: the very place, or a prefix of the object's key."""
    action, place = grant
    return any(
        action == other and (place == where or (":" in where and fnmatchcase(place, f"{where}*")))
        for other, where in policy
    )


def require_allowed(calls: list, path: str, document: str, profile: str = "hevc") -> set[Grant]:
    """Require that a role of Terraform allows each of these calls; return what they need."""
    policy = allowed(path, document, profile)
    used = {grant for call in calls for grant in needed(*call)}
    assert {grant for grant in used if not covered(grant, policy)} == set()
    return used
