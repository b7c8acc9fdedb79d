"""Create the AWS clients of a process, translate their exceptions, and protect the ECS task."""

from __future__ import annotations

import http.client
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    InvalidRegionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
)

import hevcq
from hevcq.errors import (
    AccessDenied,
    ConfigError,
    HevcqError,
    LeaseLost,
    SourceChanged,
    SourceGone,
    SourceUnreadable,
    Unavailable,
)
from hevcq.settings.model import AwsSettings
from hevcq.util.log import get_logger

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_sns.client import SNSClient
    from mypy_boto3_sqs.client import SQSClient


DENIED = frozenset(
    {"AccessDenied", "AccessDeniedException", "AllAccessDisabled", "AuthorizationError", "403"}
)

_STALE = "the receipt is no longer valid"
_MISSING = "it does not exist in this account and region"
_REFUSED = "AWS does not accept the credentials"
_SKEWED = "this machine's clock is wrong; set it by NTP"
_DENIED = "access is denied: the role lacks a permission, or the object is gone"
_CODES: tuple[tuple[str, type[HevcqError], str], ...] = (
    ("NoSuchKey NoSuchVersion 404 NotFound", SourceGone, "it does not exist"),
    ("PreconditionFailed 412", SourceChanged, "it is no longer the version asked for"),
    ("InvalidObjectState", SourceUnreadable, "it is archived; restore it first"),
    ("ReceiptHandleIsInvalid InvalidReceiptHandle MessageNotInflight", LeaseLost, _STALE),
    ("AWS.SimpleQueueService.MessageNotInflight", LeaseLost, _STALE),
    ("NoSuchBucket QueueDoesNotExist ResourceNotFoundException", ConfigError, _MISSING),
    ("AWS.SimpleQueueService.NonExistentQueue", ConfigError, _MISSING),
    ("ExpiredToken ExpiredTokenException InvalidAccessKeyId", ConfigError, _REFUSED),
    ("InvalidClientTokenId SignatureDoesNotMatch AuthFailure", ConfigError, _REFUSED),
    ("UnrecognizedClientException", ConfigError, _REFUSED),
    ("RequestTimeTooSkewed RequestExpired", ConfigError, _SKEWED),
    (" ".join(DENIED), AccessDenied, _DENIED),
)
CODES: Mapping[str, tuple[type[HevcqError], str]] = {
    code: (kind, meaning) for codes, kind, meaning in _CODES for code in codes.split()
}
"""Maps a service's error code to hevcq's error and its meaning. S3 answers 403 for a missing key if the
caller may not list the bucket (https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html), so a
denial is retried a bounded number of times. Other codes (throttling, 5xx, new ones) become Unavailable."""

_SIGN_IN = "Sign in again (`aws sso login`), or look at AWS_PROFILE."
_REACH = "Look at this machine's network, aws.region and aws.endpoint_url."
REMEDIES: Mapping[str, str] = {
    _MISSING: "Run `terraform apply`, or look at aws.region and the names in [aws]: `terraform output` "
    "prints them.",
    _REFUSED: _SIGN_IN,
    _DENIED: "Look at the policies of whoever asked: `terraform output operator_policy_arn` is what "
    "people need, a worker's role comes with `terraform apply`.",
}
"""The remedy for each meaning of an error code."""


def code_of(error: BaseException | None) -> str:
    """Return the service's error code, or "" if `error` is not a service's answer."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return ""


@contextmanager
def translate_errors(
    what: str, also: Mapping[str, tuple[type[HevcqError], str]] | None = None
) -> Iterator[None]:
    """Translate botocore's errors within the context into a HevcqError.

    `what` describes the action, such as "read key 'a'". `also` overrides CODES. Raises the error of CODES,
    ConfigError for credentials and region, and otherwise Unavailable.
    """
    try:
        yield
    except ClientError as error:
        code = code_of(error)
        kind, meaning = {**CODES, **(also or {})}.get(code, (Unavailable, ""))
        detail = meaning or str(error.response.get("Error", {}).get("Message", "")) or "no reason"
        remedy = REMEDIES.get(meaning, "")
        raise kind(f"AWS could not {what}: {detail} ({code}).", remedy=remedy) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise ConfigError(
            "There are no AWS credentials.",
            remedy="Set AWS_PROFILE, run `aws sso login`, or give the task a role.",
        ) from error
    except (CredentialRetrievalError, TokenRetrievalError, ProfileNotFound) as error:
        raise ConfigError(
            f"The AWS credentials cannot be read: {error}.", remedy=_SIGN_IN
        ) from error
    except (NoRegionError, InvalidRegionError) as error:
        raise ConfigError(
            "There is no AWS region.", remedy="Set aws.region or AWS_REGION."
        ) from error
    except BotoCoreError as error:
        raise Unavailable(
            f"AWS could not be reached to {what}: {str(error).rstrip('.')}.", remedy=_REACH
        ) from error


MESSAGE_RETENTION_S = 864_000
"""Seconds that SQS keeps a waiting message, as Terraform configures it."""
MAX_WAIT_S = 20
"""Seconds of SQS's longest long poll
(https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-short-and-long-polling.html)."""
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 20
CONTROL_CONNECT_TIMEOUT_S = 3
CONTROL_READ_TIMEOUT_S = 6
"""Seconds for a worker's control calls, which AWS answers within milliseconds. Three attempts must fit
into the time that a lease and a stop leave for them: see `util.retry`."""
CONTROL_ATTEMPT_S = CONTROL_CONNECT_TIMEOUT_S + CONTROL_READ_TIMEOUT_S
"""Maximum seconds of one attempt of a control call, once credentials are loaded."""
POLL_READ_TIMEOUT_S = MAX_WAIT_S + 15
"""Seconds, longer than the poll itself: a message sent to a client that has hung up stays hidden until
its visibility timeout and costs a receive (https://github.com/aws/aws-sdk-js/issues/3227)."""
S3_READ_TIMEOUT_S = 60
ATTEMPTS = 3
"""botocore's attempts at a request that the caller does not retry."""
POOL = 32
"""Connections per client: more than PARTS_AT_A_TIME for each of a few slots."""


@dataclass(frozen=True, slots=True)
class Clients:
    """The clients of one process. Thread-safe.

    `polls` is an SQS client without retries: a ReceiveMessage that timed out may have received messages,
    and a retry would receive others. `control` is an S3 client for small requests. `emulated` tells
    whether an endpoint override is set.
    """

    s3: S3Client
    sqs: SQSClient
    polls: SQSClient
    sns: SNSClient
    dynamodb: DynamoDBClient
    emulated: bool
    control: S3Client

    def close(self) -> None:
        """Close every connection; may be called twice."""
        for client in (self.s3, self.sqs, self.polls, self.sns, self.dynamodb, self.control):
            client.close()


def make_clients(settings: AwsSettings, *, caller_retries: bool = False) -> Clients:
    """Create the clients. Raises ConfigError if there is no region or there are no credentials.

    With `caller_retries`, as in a worker, the clients of queue and ledger and the S3 client `control` send
    each request once. botocore always retries bulk transfers.
    """
    with translate_errors("start a session"):
        session = boto3.Session(region_name=settings.region or None)
        if session.region_name is None:
            raise NoRegionError
        if session.get_credentials() is None:
            raise NoCredentialsError
        where: dict[str, Any] = {"endpoint_url": settings.endpoint_url or None}
        style = _s3_style(settings)
        control = _config(READ_TIMEOUT_S)
        if caller_retries:
            control = _config(
                CONTROL_READ_TIMEOUT_S, attempts=1, connect_timeout=CONTROL_CONNECT_TIMEOUT_S
            )
        return Clients(
            s3=session.client("s3", config=_config(S3_READ_TIMEOUT_S, **style), **where),
            sqs=session.client("sqs", config=control, **where),
            polls=session.client("sqs", config=_config(POLL_READ_TIMEOUT_S, attempts=1), **where),
            sns=session.client("sns", config=_config(READ_TIMEOUT_S), **where),
            dynamodb=session.client("dynamodb", config=control, **where),
            emulated=bool(settings.endpoint_url),
            control=session.client("s3", config=control.merge(Config(**style)), **where),
        )


def _s3_style(settings: AwsSettings) -> dict[str, Any]:
    """Return the options for addressing S3 and signing links.

    By default botocore signs links to the global endpoint, which redirects to other regions; a page's
    content policy forbids that. In us-east-1 its default signature does not cover the length.
    """
    style = "path" if settings.endpoint_url else "virtual"
    regional = {"addressing_style": style, "us_east_1_regional_endpoint": "regional"}
    options: dict[str, Any] = {"s3": regional, "signature_version": "s3v4"}
    if settings.endpoint_url:  # other servers store a trailing checksum as part of the body
        options |= dict.fromkeys(
            ("request_checksum_calculation", "response_checksum_validation"), "when_required"
        )
    return options


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


PATH = "/task-protection/v1/state"
MIN_MINUTES, MAX_MINUTES = 1, 2880
TIMEOUT_S = 5.0

_log = get_logger()


class TaskProtection:
    """Switches the scale-in protection of this ECS task; a failure never fails a job.

    `agent_uri` is the container's ECS_AGENT_URI. Raises ConfigError if it is no http URL.
    """

    def __init__(self, agent_uri: str) -> None:
        parts = urlsplit(agent_uri)
        if parts.scheme != "http" or not parts.hostname:
            raise ConfigError(f"The ECS agent's address {agent_uri!r} is not an http URL.")
        self._host, self._port = parts.hostname, parts.port or 80
        self._path = parts.path.rstrip("/") + PATH

    def protect(self, seconds: float) -> bool:
        """Request protection for `seconds`, rounded up to minutes; return whether it is on."""
        minutes = min(MAX_MINUTES, max(MIN_MINUTES, math.ceil(seconds / 60)))
        return self._put({"ProtectionEnabled": True, "ExpiresInMinutes": minutes}) is True

    def release(self) -> bool:
        """End the protection; return whether it is off."""
        return self._put({"ProtectionEnabled": False}) is False

    def _put(self, request: dict[str, object]) -> bool | None:
        """Send a request; return the state that the agent reports, or None after logging a warning."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        try:
            body = json.dumps(request)
            headers = {"Content-Type": "application/json"}
            connection.request("PUT", self._path, body=body, headers=headers)
            answer = json.loads(connection.getresponse().read(65_536))
        except (OSError, http.client.HTTPException, ValueError) as error:
            _log.warning("task_protection_unreachable", why=f"{type(error).__name__}: {error}")
            return None
        finally:
            connection.close()
        state = answer.get("protection") if isinstance(answer, dict) else None
        if isinstance(state, dict) and isinstance(state.get("ProtectionEnabled"), bool):
            return bool(state["ProtectionEnabled"])
        _log.warning("task_protection_refused", answer=json.dumps(answer)[:500])
        return None
