"""boto clients, made once a process: timeouts, retries, user agent, endpoint, region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

import hevcq
from hevcq.aws.errors import translated
from hevcq.errors import ConfigError
from hevcq.settings import AwsSettings

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_sns.client import SNSClient
    from mypy_boto3_sqs.client import SQSClient

MAX_WAIT_S = 20
"""SQS's longest long poll
(https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-short-and-long-polling.html)."""
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 20
"""A third of the shortest useful lease, so that a stuck heartbeat is tried again in time."""
POLL_READ_TIMEOUT_S = MAX_WAIT_S + 15
"""Longer than the poll itself: a message handed to a client that has hung up is hidden until its
timeout and has used up a receive (https://github.com/aws/aws-sdk-js/issues/3227)."""
S3_READ_TIMEOUT_S = 60
ATTEMPTS = 3
"""Few, because the worker repeats what got no answer too, and a stop has 120 s in all."""
POOL = 32
"""Connections per client: more than PARTS_AT_A_TIME for each of a few slots."""


@dataclass(frozen=True, slots=True)
class Clients:
    """The clients of one process; they are safe to share between threads.

    `polls` is an SQS client that never repeats a call by itself: a ReceiveMessage that timed out
    may have taken messages, and repeating it takes others. `emulated` says that an endpoint
    override is set.
    """

    s3: S3Client
    sqs: SQSClient
    polls: SQSClient
    sns: SNSClient
    dynamodb: DynamoDBClient
    region: str
    emulated: bool

    def close(self) -> None:
        """Close every connection; may be called twice."""
        for client in (self.s3, self.sqs, self.polls, self.sns, self.dynamodb):
            client.close()


def make_clients(settings: AwsSettings) -> Clients:
    """Make the clients; raise ConfigError if there is no region or there are no credentials."""
    with translated("start a session"):
        session = boto3.Session(region_name=settings.region or None)
        if session.region_name is None:
            raise ConfigError("There is no AWS region.", remedy="Set aws.region or AWS_REGION.")
        if session.get_credentials() is None:
            raise ConfigError(
                "There are no AWS credentials.",
                remedy="Set AWS_PROFILE, run `aws sso login`, or give the task a role.",
            )
        where: dict[str, Any] = {"endpoint_url": settings.endpoint_url or None}
        s3_style: dict[str, Any] = (
            {"s3": {"addressing_style": "path"}} if settings.endpoint_url else {}
        )
        return Clients(
            s3=session.client("s3", config=_config(S3_READ_TIMEOUT_S, **s3_style), **where),
            sqs=session.client("sqs", config=_config(READ_TIMEOUT_S), **where),
            polls=session.client("sqs", config=_config(POLL_READ_TIMEOUT_S, attempts=1), **where),
            sns=session.client("sns", config=_config(READ_TIMEOUT_S), **where),
            dynamodb=session.client("dynamodb", config=_config(READ_TIMEOUT_S), **where),
            region=session.region_name,
            emulated=bool(settings.endpoint_url),
        )


def _config(read_timeout_s: int, *, attempts: int = ATTEMPTS, **more: Any) -> Config:
    return Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=read_timeout_s,
        retries={"total_max_attempts": attempts, "mode": "adaptive"},
        max_pool_connections=POOL,
        user_agent_extra=f"hevcq/{hevcq.__version__}",
        **more,
    )
