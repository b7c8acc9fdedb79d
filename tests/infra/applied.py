"""What the page is once it was applied, asked of the emulator itself."""

from typing import Any

import boto3

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


def assert_entry(account: Account) -> None:
    """The load balancer is protected and leads to the page."""
    balancing = account.client("elbv2")
    arn = account.only("elbv2", "describe_load_balancers", "LoadBalancers")["LoadBalancerArn"]
    attributes = balancing.describe_load_balancer_attributes(LoadBalancerArn=arn)["Attributes"]
    listener = account.only("elbv2", "describe_listeners", "Listeners", LoadBalancerArn=arn)
    group = account.only("elbv2", "describe_target_groups", "TargetGroups", LoadBalancerArn=arn)

    assert {"Key": "deletion_protection.enabled", "Value": "true"} in attributes
    dropped = {"Key": "routing.http.drop_invalid_header_fields.enabled", "Value": "true"}
    assert dropped in attributes
    assert listener["DefaultActions"][0]["TargetGroupArn"] == group["TargetGroupArn"]


def assert_page(account: Account) -> None:
    """The page runs as itself, and is told of the pool and of the client that it signs in with."""
    task = account.client("ecs").describe_task_definition(taskDefinition="hevcq-web")
    (container,) = task["taskDefinition"]["containerDefinitions"]
    told = {each["name"]: each["value"] for each in container["environment"]}
    attached = account.only(
        "iam", "list_attached_role_policies", "AttachedPolicies", RoleName="hevcq-web-task"
    )
    pool = account.only("cognito-idp", "list_user_pools", "UserPools", MaxResults=5)["Id"]
    named = {"UserPoolId": pool}
    client = account.only("cognito-idp", "list_user_pool_clients", "UserPoolClients", **named)
    group = account.only("cognito-idp", "list_groups", "Groups", **named)["GroupName"]
    kept = account.client("cognito-idp").describe_user_pool(**named)["UserPool"]

    assert task["taskDefinition"]["taskRoleArn"].endswith(":role/hevcq-web-task")
    assert (container["command"], container["user"]) == (["serve"], "10001")
    assert {each["name"] for each in container["secrets"]} == {"HEVCQ_WEB__SESSION_KEY"}
    assert attached["PolicyName"] == "hevcq-operator"
    assert kept["DeletionProtection"] == "ACTIVE"
    assert told["HEVCQ_WEB__URL"] == URL
    assert told["HEVCQ_WEB__OIDC__ISSUER"].endswith(f".amazonaws.com/{pool}")
    assert told["HEVCQ_WEB__OIDC__CLIENT_ID"] == client["ClientId"]
    assert told["HEVCQ_WEB__OIDC__OPERATOR_GROUP"] == group


def assert_published(account: Account, bucket: str) -> None:
    """What workers published says what it is: no browser is left to guess."""
    s3 = account.client("s3")
    listed = s3.list_objects_v2(Bucket=bucket, Prefix="DONE/")["Contents"]
    renditions = [each["Key"] for each in listed if each["Key"].endswith(".mp4")]
    assert renditions
    for key in renditions:
        assert s3.head_object(Bucket=bucket, Key=key)["ContentType"] == "video/mp4"
