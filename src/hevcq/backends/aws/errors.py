"""One place that turns botocore's exceptions into hevcq's errors, by code and by kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

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

from hevcq.errors import (
    ConfigError,
    HevcqError,
    LeaseLost,
    SourceChanged,
    SourceGone,
    SourceUnreadable,
    Unavailable,
)

DENIED = frozenset(
    {"AccessDenied", "AccessDeniedException", "AllAccessDisabled", "AuthorizationError", "403"}
)

CODES: Mapping[str, tuple[type[HevcqError], str]] = {
    **dict.fromkeys(
        ("NoSuchKey", "NoSuchVersion", "404", "NotFound"), (SourceGone, "it does not exist")
    ),
    **dict.fromkeys(
        ("PreconditionFailed", "412"), (SourceChanged, "it is no longer the version asked for")
    ),
    "InvalidObjectState": (SourceUnreadable, "it is archived; restore it first"),
    **dict.fromkeys(
        (
            "ReceiptHandleIsInvalid",
            "InvalidReceiptHandle",
            "MessageNotInflight",
            "AWS.SimpleQueueService.MessageNotInflight",
        ),
        (LeaseLost, "the receipt is no longer valid"),
    ),
    **dict.fromkeys(
        (
            "NoSuchBucket",
            "QueueDoesNotExist",
            "AWS.SimpleQueueService.NonExistentQueue",
            "ResourceNotFoundException",
        ),
        (ConfigError, "it does not exist in this account and region"),
    ),
    **dict.fromkeys(
        (
            "ExpiredToken",
            "ExpiredTokenException",
            "InvalidAccessKeyId",
            "InvalidClientTokenId",
            "SignatureDoesNotMatch",
            "UnrecognizedClientException",
            "AuthFailure",
        ),
        (ConfigError, "AWS does not accept the credentials"),
    ),
    **dict.fromkeys(
        ("RequestTimeTooSkewed", "RequestExpired"),
        (ConfigError, "this machine's clock is wrong; set it by NTP"),
    ),
    **dict.fromkeys(
        DENIED,
        (Unavailable, "access is denied: the role lacks a permission, or the object is gone"),
    ),
}
"""From a service's error code to hevcq's error and what it means. S3 answers 403 for a missing key
when the caller may not list (https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html),
so a denial stays a bounded retry. A code that is not here is Unavailable: throttles, 5xx, and
whatever AWS invents next; unknown never means success."""


def code_of(error: BaseException | None) -> str:
    """Return the service's error code, or "" if `error` is not an answer of a service."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return ""


@contextmanager
def translate_errors(
    what: str, also: Mapping[str, tuple[type[HevcqError], str]] | None = None
) -> Iterator[None]:
    """Raise hevcq's error for any of botocore's; `what` says what was tried, as "read key 'a'".

    `also` overrides CODES for this call.
    """
    try:
        yield
    except ClientError as error:
        code = code_of(error)
        kind, meaning = {**CODES, **(also or {})}.get(code, (Unavailable, ""))
        detail = meaning or str(error.response.get("Error", {}).get("Message", "")) or "no reason"
        raise kind(f"AWS could not {what}: {detail} ({code}).") from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise ConfigError(
            "There are no AWS credentials.",
            remedy="Set AWS_PROFILE, run `aws sso login`, or give the task a role.",
        ) from error
    except (CredentialRetrievalError, TokenRetrievalError, ProfileNotFound) as error:
        raise ConfigError(f"The AWS credentials cannot be read: {error}.") from error
    except (NoRegionError, InvalidRegionError) as error:
        raise ConfigError(
            "There is no usable AWS region.", remedy="Set aws.region or AWS_REGION."
        ) from error
    except BotoCoreError as error:
        raise Unavailable(f"AWS could not be reached to {what}: {error}.") from error
