"""Make the farm's buckets, topic, queues and tables on the emulator of compose.yaml; on AWS, Terraform does.

It takes the settings of a worker (HEVCQ_*), and refuses to work on AWS itself. On an emulator that has
them already it changes nothing.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

from hevcq.backends.aws.clients import (
    MAX_WAIT_S,
    MESSAGE_RETENTION_S,
    Clients,
    make_clients,
    translate_errors,
)
from hevcq.backends.aws.dynamodb import schema
from hevcq.backends.aws.sqs.dead_letters import DEAD_LETTERS, UNDELIVERED
from hevcq.backends.aws.videos import records
from hevcq.domain.keys import INBOX
from hevcq.domain.profile import Profile
from hevcq.errors import ConfigError, HevcqError
from hevcq.settings.loader import load
from hevcq.settings.model import AwsSettings
from hevcq.settings.profile_files import installed_folder, load_profiles

MAX_RETENTION_S = 1_209_600
"""The longest that SQS allows, for dead letters."""
Indexes = Mapping[str, tuple[list[str], list[str]]]


def create_resources(
    clients: Clients, settings: AwsSettings, profiles: Mapping[str, Profile]
) -> AwsSettings:
    """Create buckets, topic, queues, subscriptions, notification and table.

    Returns the settings with the topic's ARN. Raises ConfigError without an endpoint override,
    because a real account is set up by Terraform; Unavailable.
    """
    if not clients.emulated:
        raise ConfigError(
            "Resources are made here on an emulator only.",
            remedy="Set aws.endpoint_url, or use Terraform (infra/terraform).",
        )
    with translate_errors("make the resources"):
        topic = clients.sns.create_topic(Name=f"{settings.queue_prefix}uploads")["TopicArn"]
        # Buckets first, so that S3's test event reaches no queue.
        _buckets(clients, settings, topic)
        for profile in profiles.values():
            _queues(clients, settings.queue_prefix + profile.name, profile, topic)
        _table(clients, settings.table, schema.INDEXES, schema.NUMBERS)
        _table(clients, settings.videos, records.INDEXES, records.NUMBERS)
    return settings.model_copy(update={"topic_arn": topic})


def _table(clients: Clients, name: str, indexes: Indexes, numbers: frozenset[str]) -> None:
    attributes = dict.fromkeys(["pk", *(key for keys, _ in indexes.values() for key in keys)])
    clients.dynamodb.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            {"AttributeName": key, "AttributeType": "N" if key in numbers else "S"}
            for key in attributes
        ],
        KeySchema=_keys(["pk"]),
        GlobalSecondaryIndexes=[
            {
                "IndexName": index,
                "KeySchema": _keys(keys),
                "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": others}
                if others
                else {"ProjectionType": "KEYS_ONLY"},
            }
            for index, (keys, others) in indexes.items()
        ],
    )
    clients.dynamodb.get_waiter("table_exists").wait(TableName=name)
    clients.dynamodb.update_time_to_live(
        TableName=name, TimeToLiveSpecification={"Enabled": True, "AttributeName": schema.TTL}
    )


def _keys(names: list[str]) -> Any:
    kinds = ("HASH", "RANGE")
    return [
        {"AttributeName": key, "KeyType": kind} for key, kind in zip(names, kinds, strict=False)
    ]


def _buckets(clients: Clients, settings: AwsSettings, topic: str) -> None:
    place: Any = (
        {}
        if clients.s3.meta.region_name == "us-east-1"
        else {"CreateBucketConfiguration": {"LocationConstraint": clients.s3.meta.region_name}}
    )
    for name in {settings.input_bucket, settings.output_bucket or settings.input_bucket}:
        clients.s3.create_bucket(Bucket=name, **place)
        # Both, as in Terraform: reading an object version needs another permission.
        clients.s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    clients.s3.put_bucket_notification_configuration(
        Bucket=settings.input_bucket,
        NotificationConfiguration={
            "TopicConfigurations": [
                {
                    "TopicArn": topic,
                    "Events": ["s3:ObjectCreated:*"],
                    "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": f"{INBOX}/"}]}},
                }
            ]
        },
    )


def _queues(clients: Clients, name: str, profile: Profile, topic: str) -> None:
    numbers = profile.queue
    kept = {"MessageRetentionPeriod": str(MAX_RETENTION_S)}
    dead = _queue(clients, name + DEAD_LETTERS, kept)
    undelivered = _queue(clients, name + UNDELIVERED, kept)
    main = _queue(
        clients,
        name,
        {
            "VisibilityTimeout": str(numbers.visibility_s),
            "MessageRetentionPeriod": str(MESSAGE_RETENTION_S),
            "ReceiveMessageWaitTimeSeconds": str(MAX_WAIT_S),
            "RedrivePolicy": json.dumps(
                {"deadLetterTargetArn": dead, "maxReceiveCount": numbers.max_receives}
            ),
        },
    )
    clients.sns.subscribe(
        TopicArn=topic,
        Protocol="sqs",
        Endpoint=main,
        Attributes={
            "RawMessageDelivery": "true",
            "RedrivePolicy": json.dumps({"deadLetterTargetArn": undelivered}),
        },
    )


def _queue(clients: Clients, name: str, attributes: Mapping[str, str]) -> str:
    wanted: Any = dict(attributes)
    url = clients.sqs.create_queue(QueueName=name, Attributes=wanted)["QueueUrl"]
    answer = clients.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    return answer["Attributes"]["QueueArn"]


def main() -> int:
    """Make what is missing; return the exit code."""
    settings = load().settings
    clients = make_clients(settings.aws)
    # The table is made last, so where it is, all the rest is as well.
    if clients.emulated and settings.aws.table in clients.dynamodb.list_tables()["TableNames"]:
        sys.stdout.write("The farm's resources are there already.\n")
        return 0
    profiles = load_profiles(settings.profiles_dir or installed_folder())
    create_resources(clients, settings.aws, profiles)
    sys.stdout.write(f"Made the farm's resources for {', '.join(sorted(profiles))}.\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except HevcqError as error:
        sys.exit(f"emulator_setup: {error}")
