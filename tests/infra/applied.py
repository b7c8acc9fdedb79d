"""What the page and public playback are once they were applied, asked of the emulator itself."""

import json
from fnmatch import fnmatchcase
from typing import Any

import boto3

from hevcq.backends.aws.videos.schema import table_definition
from hevcq.web.identity import oidc
from support.aws.emulator import REGION, Emulator

URL = "https://videos.example.org"
OPERATOR = "ann@example.org"


class Account:
    """The emulator's account, and what of the farm is in it."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    def client(self, service: str) -> Any:
        return boto3.client(
            service,  # type: ignore[call-overload]
            endpoint_url=self._emulator.endpoint,
            region_name=REGION,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    def web(self) -> dict[str, Any]:
        """Make what the page needs beforehand, a certificate and a key; return its variable."""
        asked = self.client("acm").request_certificate(DomainName="videos.example.org")
        secret = self.client("secretsmanager").create_secret(Name="key", SecretString="k" * 64)
        return {
            "url": URL,
            "certificate_arn": asked["CertificateArn"],
            "session_key_secret_arn": secret["ARN"],
            "operators": [OPERATOR],
        }

    def only(self, service: str, call: str, key: str, **words: Any) -> Any:
        (found,) = getattr(self.client(service), call)(**words)[key]
        return found


def assert_playback(account: Account, bucket: str, profiles: list[str]) -> None:
    """Only CloudFront reads, only what is public, signed; scripts elsewhere may read ranges."""
    cloudfront, s3 = account.client("cloudfront"), account.client("s3")
    read = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"]
    (statement,) = [s for s in read if s["Effect"] == "Allow"]
    arn = statement["Condition"]["StringEquals"]["aws:SourceArn"]
    made = cloudfront.get_distribution(Id=arn.rpartition("/")[2])["Distribution"]
    config = made["DistributionConfig"]
    (origin,) = config["Origins"]["Items"]
    behaviour = config["DefaultCacheBehavior"]
    control = cloudfront.get_origin_access_control(Id=origin["OriginAccessControlId"])
    cache = cloudfront.get_cache_policy(Id=behaviour["CachePolicyId"])["CachePolicy"]
    headers = cloudfront.get_response_headers_policy(Id=behaviour["ResponseHeadersPolicyId"])
    cors = headers["ResponseHeadersPolicy"]["ResponseHeadersPolicyConfig"]["CorsConfig"]

    assert statement["Principal"] == {"Service": "cloudfront.amazonaws.com"}
    assert statement["Action"] == "s3:GetObject"
    keys = [f"arn:aws:s3:::{bucket}/DONE/{name}/public/a.mp4" for name in profiles]
    hidden = [each.replace("/public/", "/UPLOAD/") for each in keys]
    resources = statement["Resource"]
    for each in keys:
        assert any(fnmatchcase(each, pattern) for pattern in resources)
    for each in hidden:
        assert not any(fnmatchcase(each, pattern) for pattern in resources)
    assert made["ARN"] == arn
    assert origin["DomainName"] == f"{bucket}.s3.{REGION}.amazonaws.com"
    assert (origin["OriginPath"], config["Enabled"]) == ("/DONE", True)
    signing = control["OriginAccessControl"]["OriginAccessControlConfig"]
    assert (signing["SigningBehavior"], signing["SigningProtocol"]) == ("always", "sigv4")
    assert behaviour["ViewerProtocolPolicy"] == "redirect-to-https"
    assert set(behaviour["AllowedMethods"]["Items"]) == {"GET", "HEAD", "OPTIONS"}
    ages = cache["CachePolicyConfig"]
    assert (ages["MinTTL"], ages["MaxTTL"]) == (0, 31_536_000)
    assert cors["AccessControlAllowHeaders"]["Items"] == ["Range"]
    assert "Content-Range" in cors["AccessControlExposeHeaders"]["Items"]
    assert cors["AccessControlAllowCredentials"] is False


def assert_entry(account: Account) -> None:
    """TLS at a protected load balancer, which asks the page for its health."""
    balancing = account.client("elbv2")
    balancer = account.only("elbv2", "describe_load_balancers", "LoadBalancers")
    arn = balancer["LoadBalancerArn"]
    attributes = {
        each["Key"]: each["Value"]
        for each in balancing.describe_load_balancer_attributes(LoadBalancerArn=arn)["Attributes"]
    }
    listener = account.only("elbv2", "describe_listeners", "Listeners", LoadBalancerArn=arn)
    group = account.only("elbv2", "describe_target_groups", "TargetGroups", LoadBalancerArn=arn)

    assert attributes["deletion_protection.enabled"] == "true"
    assert attributes["routing.http.drop_invalid_header_fields.enabled"] == "true"
    assert (listener["Protocol"], listener["Port"]) == ("HTTPS", 443)
    assert listener["DefaultActions"][0]["TargetGroupArn"] == group["TargetGroupArn"]
    assert (group["HealthCheckPath"], group["TargetType"]) == ("/healthz", "ip")


def assert_sign_in(account: Account, environment: dict[str, str]) -> None:
    """Nobody signs up alone; the page is told of the pool and of a client that keeps no secret."""
    cognito = account.client("cognito-idp")
    pool = account.only("cognito-idp", "list_user_pools", "UserPools", MaxResults=5)["Id"]
    kept = cognito.describe_user_pool(UserPoolId=pool)["UserPool"]
    listed = account.only(
        "cognito-idp", "list_user_pool_clients", "UserPoolClients", UserPoolId=pool
    )
    client = cognito.describe_user_pool_client(UserPoolId=pool, ClientId=listed["ClientId"])[
        "UserPoolClient"
    ]

    assert kept["AdminCreateUserConfig"]["AllowAdminCreateUserOnly"] is True
    assert kept["DeletionProtection"] == "ACTIVE"
    assert "ClientSecret" not in client
    assert client["CallbackURLs"] == [URL + oidc.BACK]
    assert client["AllowedOAuthFlows"] == ["code"]
    group = account.only("cognito-idp", "list_groups", "Groups", UserPoolId=pool)["GroupName"]
    assert environment["HEVCQ_WEB__OIDC__ISSUER"].endswith(f".amazonaws.com/{pool}")
    assert environment["HEVCQ_WEB__OIDC__CLIENT_ID"] == client["ClientId"]
    assert environment["HEVCQ_WEB__OIDC__OPERATOR_GROUP"] == group


def assert_page(account: Account, buckets: list[str]) -> None:
    """The page runs as itself, on a table of its own, and only its own origin uploads."""
    ecs, iam, s3 = (account.client(each) for each in ("ecs", "iam", "s3"))
    task = ecs.describe_task_definition(taskDefinition="hevcq-web")["taskDefinition"]
    (container,) = task["containerDefinitions"]
    environment = {each["name"]: each["value"] for each in container["environment"]}
    inline = iam.get_role_policy(RoleName="hevcq-web-task", PolicyName="web")["PolicyDocument"]
    attached = iam.list_attached_role_policies(RoleName="hevcq-web-task")["AttachedPolicies"]
    table = account.client("dynamodb").describe_table(TableName="hevcq-videos")["Table"]
    wanted = table_definition("hevcq-videos")

    assert task["taskRoleArn"].endswith(":role/hevcq-web-task")
    assert task["executionRoleArn"].endswith(":role/hevcq-web-execution")
    assert (container["command"], container["user"]) == (["serve"], "10001")
    assert {each["name"] for each in container["secrets"]} == {"HEVCQ_WEB__SESSION_KEY"}
    assert environment["HEVCQ_WEB__URL"] == URL
    assert [each["PolicyName"] for each in attached] == ["hevcq-operator"]
    actions = {a for s in inline["Statement"] for a in [*s["Action"]]}
    assert not any(action.endswith("*") for action in actions)
    assert table["KeySchema"] == wanted["KeySchema"]
    assert {i["IndexName"] for i in table["GlobalSecondaryIndexes"]} == {
        i["IndexName"] for i in wanted["GlobalSecondaryIndexes"]
    }
    for bucket in buckets:
        (rule,) = s3.get_bucket_cors(Bucket=bucket)["CORSRules"]
        assert rule["AllowedOrigins"] == [URL]
    assert_sign_in(account, environment)


def assert_published(account: Account, bucket: str) -> None:
    """What workers published says what it is: no browser is left to guess."""
    s3 = account.client("s3")
    listed = s3.list_objects_v2(Bucket=bucket, Prefix="DONE/")["Contents"]
    renditions = [each["Key"] for each in listed if each["Key"].endswith(".mp4")]
    assert renditions
    for key in renditions:
        assert s3.head_object(Bucket=bucket, Key=key)["ContentType"] == "video/mp4"
