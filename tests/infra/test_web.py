"""The page and public playback in the plan: off unless asked for, narrow where they are there."""

import json
import re
from fnmatch import fnmatch
from typing import Any

import pytest

from hevcq.backends.aws.videos.records import INDEXES, NUMBERS
from hevcq.domain.keys import certificate_key
from hevcq.domain.videos import UPLOADS
from hevcq.settings.model import AwsSettings, PriceSettings, Settings
from hevcq.settings.web import OidcSettings, WebSettings
from infra.terraform import INFRA, OTHERS, SECRET, WEB, assert_schema, planned

pytestmark = pytest.mark.terraform
Resources = list[dict[str, Any]]
KINDS = {
    "aws_lb",
    "aws_cloudfront_distribution",
    "aws_cognito_user_pool",
    "aws_s3_bucket_cors_configuration",
}


@pytest.fixture(scope="module")
def both(changed: dict[str, Any]) -> Resources:
    """Return all that there is with the page and public playback."""
    return planned(changed)


def only(resources: Resources, kind: str, name: str = "") -> dict[str, Any]:
    (found,) = [
        r["values"] for r in resources if r["type"] == kind and name in r["address"] and r["values"]
    ]
    return found


def allowed(resources: Resources, address: str) -> list[dict[str, Any]]:
    (policy,) = [
        r["values"]["policy"]
        for r in resources
        if r["type"] == "aws_iam_role_policy" and r["address"].endswith(address)
    ]
    return json.loads(policy)["Statement"]


def test_neither_is_made_unless_it_is_asked_for(resources):
    assert [r["address"] for r in resources if r["type"] in KINDS] == []
    assert UPLOADS not in json.dumps([r for r in resources if r["type"] == "aws_iam_role_policy"])


def test_buckets_stay_closed_and_only_cloudfront_reads_only_the_public_folder(both):
    blocked = [r["values"] for r in both if r["type"] == "aws_s3_bucket_public_access_block"]
    assert all(b["block_public_policy"] and b["restrict_public_buckets"] for b in blocked)
    made = only(both, "aws_cloudfront_distribution")
    (behaviour,) = made["default_cache_behavior"]
    assert behaviour["viewer_protocol_policy"] == "redirect-to-https"
    assert set(behaviour["allowed_methods"]) == {"GET", "HEAD", "OPTIONS"}
    assert made["origin"][0]["origin_path"] == "/DONE"
    control = only(both, "aws_cloudfront_origin_access_control")
    assert (control["signing_behavior"], control["signing_protocol"]) == ("always", "sigv4")
    # Its condition names the distribution, which has no address before it is made.
    reading, proofs = only(both, "aws_iam_policy_document", "playback")["statement"]
    assert proofs["effect"] == "Deny"
    key = certificate_key("DONE/hevc/public/a.mp4.mp4", "0" * 64)
    (denied,) = [each.partition("/DONE/")[2] for each in proofs["resources"]]
    assert fnmatch(key, f"*{denied}")
    assert reading["actions"] == ["s3:GetObject"]
    assert sorted(each.partition("/DONE/")[2] for each in reading["resources"]) == sorted(
        f"{profile}/public/*" for profile in OTHERS
    )


def test_the_table_of_videos_is_the_one_that_the_records_ask_for(both):
    table = only(both, "aws_dynamodb_table", "videos")

    assert table["name"] == AwsSettings(table="hevcq").videos
    assert_schema(table, INDEXES, NUMBERS)


def test_the_way_in_is_tls_at_the_load_balancer_alone(both):
    listener = only(both, "aws_lb_listener")
    assert (listener["protocol"], listener["port"]) == ("HTTPS", 443)
    assert "TLS13" in listener["ssl_policy"]
    ports = {
        r["address"].partition("ingress_rule.")[2].partition("[")[0]: r["values"]
        for r in both
        if r["type"] == "aws_vpc_security_group_ingress_rule"
    }
    assert set(ports) == {"https", "from_balancer"}
    assert ports["from_balancer"].get("cidr_ipv4") is None
    assert only(both, "aws_lb_target_group")["health_check"][0]["path"] == "/healthz"


def test_the_page_is_configured_by_names_the_settings_know_and_keeps_no_secret(both):
    definition = only(both, "aws_ecs_task_definition", "module.web[0]")
    known = {f"HEVCQ_{name.upper()}" for name in Settings.model_fields}
    known |= {f"HEVCQ_AWS__{name.upper()}" for name in AwsSettings.model_fields}
    known |= {f"HEVCQ_WEB__{name.upper()}" for name in WebSettings.model_fields}
    known |= {f"HEVCQ_WEB__OIDC__{name.upper()}" for name in OidcSettings.model_fields}
    known |= {f"HEVCQ_PRICES__{name.upper()}" for name in PriceSettings.model_fields}
    text = (INFRA / "modules" / "web" / "main.tf").read_text(encoding="utf-8")
    named = set(re.findall(r"\bHEVCQ_[A-Z_]+", text))

    assert definition["cpu"] == "512"
    assert named
    assert named <= known
    assert SECRET in json.dumps(
        allowed(both, "module.web[0].module.roles.aws_iam_role_policy.execution")
    )


def test_only_the_page_itself_uploads_from_a_browser(both):
    rules = [
        rule
        for r in both
        if r["type"] == "aws_s3_bucket_cors_configuration"
        for rule in r["values"]["cors_rule"]
    ]

    assert [rule["allowed_origins"] for rule in rules] == [[WEB["url"]]] * 2
    methods = {method for rule in rules for method in rule["allowed_methods"]}
    assert methods == {"PUT", "GET", "HEAD"}


def test_the_page_writes_nothing_but_uploads_and_workers_read_them(both):
    page = allowed(both, "module.web[0].aws_iam_role_policy.task")
    assert only(both, "aws_dynamodb_table", "videos")["ttl"][0]["attribute_name"] == "expires_at"
    writes = [s for s in page if "s3:PutObject" in s["Action"] and s["Effect"] == "Allow"]
    assert all(f"/{UPLOADS}/" in json.dumps(s["Resource"]) for s in writes)
    assert "*" not in {action for s in page for action in s["Action"]}
    (denied,) = [s for s in page if s["Effect"] == "Deny"]
    assert denied["Action"] == "s3:PutObjectVersionTagging"
    assert denied["Condition"] == {"StringEquals": {"s3:RequestObjectTag/hevcq": "done"}}
    worker = allowed(both, 'worker_service["hevc"].aws_iam_role_policy.task')
    (reading,) = [s for s in worker if s.get("Sid") == "ReadInputs"]
    assert any(name.endswith(f"/{UPLOADS}/*") for name in reading["Resource"])


def test_operators_list_uploaded_videos_and_leave_changes_to_the_page(both):
    statements = json.loads(only(both, "aws_iam_policy", "operator")["policy"])["Statement"]

    (videos,) = [s for s in statements if s.get("Sid") == "Videos"]
    assert set(videos["Action"]) == {"dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:Query"}
    table = f"table/{AwsSettings(table='hevcq').videos}"
    named = sorted(name.rpartition(":")[2] for name in videos["Resource"])
    assert named == [table, f"{table}/index/*"]
