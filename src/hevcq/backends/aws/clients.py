"""boto clients, made once a process: timeouts, retries, user agent, endpoint, region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

import hevcq
from hevcq.backends.aws.errors import translate_errors
from hevcq.errors import ConfigError
from hevcq.settings.model import AwsSettings

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
CONTROL_CONNECT_TIMEOUT_S = 3
CONTROL_READ_TIMEOUT_S = 6
"""A worker's control calls, which AWS answers within milliseconds. Short, so that three attempts at
one fit into what a lease and a stop leave for them: see `util.retry`."""
CONTROL_ATTEMPT_S = CONTROL_CONNECT_TIMEOUT_S + CONTROL_READ_TIMEOUT_S
"""The longest time of one attempt of a control call in seconds, once its credentials are there."""
POLL_READ_TIMEOUT_S = MAX_WAIT_S + 15
"""Longer than the poll itself: a message handed to a client that has hung up is hidden until its
timeout and has used up a receive (https://github.com/aws/aws-sdk-js/issues/3227)."""
S3_READ_TIMEOUT_S = 60
ATTEMPTS = 3
"""How often botocore sends a request where nobody above it repeats the call."""
POOL = 32
"""Connections per client: more than PARTS_AT_A_TIME for each of a few slots."""


@dataclass(frozen=True, slots=True)
class Clients:
    """The clients of one process; they are safe to share between threads.

    `polls` is an SQS client that never repeats a call by itself: a ReceiveMessage that timed out
    may have taken messages, and repeating it takes others. `control` is an S3 client for
    small requests, if the caller repeats those; else None. `emulated` says that an endpoint
    override is set.
    """

    s3: S3Client
    sqs: SQSClient
    polls: SQSClient
    sns: SNSClient
    dynamodb: DynamoDBClient
    region: str
    emulated: bool
    control: S3Client | None = None

    def close(self) -> None:
        """Close every connection; may be called twice."""
        for client in (self.s3, self.sqs, self.polls, self.sns, self.dynamodb, self.control):
            if client is not None:
                client.close()


def make_clients(settings: AwsSettings, *, caller_retries: bool = False) -> Clients:
    """Make the clients; raise ConfigError if there is no region or there are no credentials.

    With `caller_retries`, as for a worker, the clients of queue and ledger send each request once
    and there is an S3 client that does; bulk transfers always leave retries to botocore.
    """
    with translate_errors("start a session"):
        session = boto3.Session(region_name=settings.region or None)
        if session.region_name is None:
            raise ConfigError("There is no AWS region.", remedy="Set aws.region or AWS_REGION.")
        if session.get_credentials() is None:
            raise ConfigError(
                "There are no AWS credentials.",
                remedy="Set AWS_PROFILE, run `aws sso login`, or give the task a role.",
            )
        where: dict[str, Any] = {"endpoint_url": settings.endpoint_url or None}
        style: dict[str, Any] = (
            {"s3": {"addressing_style": "path"}} if settings.endpoint_url else {}
        )
        control = _control_config() if caller_retries else _config(READ_TIMEOUT_S)
        return Clients(
            s3=session.client("s3", config=_config(S3_READ_TIMEOUT_S, **style), **where),
            sqs=session.client("sqs", config=control, **where),
            polls=session.client("sqs", config=_config(POLL_READ_TIMEOUT_S, attempts=1), **where),
            sns=session.client("sns", config=_config(READ_TIMEOUT_S), **where),
            dynamodb=session.client("dynamodb", config=control, **where),
            region=session.region_name,
            emulated=bool(settings.endpoint_url),
            control=(
                session.client("s3", config=_control_config(**style), **where)
                if caller_retries
                else None
            ),
        )


def _control_config(**more: Any) -> Config:
    return _config(
        CONTROL_READ_TIMEOUT_S, attempts=1, connect_timeout=CONTROL_CONNECT_TIMEOUT_S, **more
    )


def _config(
    read_timeout_s: int,
    *,
    attempts: int = ATTEMPTS,
    connect_timeout: int = CONNECT_TIMEOUT_S,
    **more: Any,
) -> Config:
    return Config(
        connect_timeout=connect_timeout,
        read_timeout=read_timeout_s,
        retries={"total_max_attempts": attempts, "mode": "adaptive"},
        max_pool_connections=POOL,
        user_agent_extra=f"hevcq/{hevcq.__version__}",
        **more,
    )
