"""Translate botocore's exceptions into hevcq's errors, by error code and by type."""

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
    AccessDenied,
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
"""Maps a service's error code to hevcq's error and its meaning. S3 answers 403 for a missing key
if the caller may not list the bucket (https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html),
so a denial is retried a bounded number of times. Other codes (throttling, 5xx, new ones) become
Unavailable: an unknown code never means success."""

_SIGN_IN = "Sign in again (`aws sso login`), or look at AWS_PROFILE."
_REACH = "Look at this machine's network, aws.region and aws.endpoint_url."
REMEDIES: Mapping[str, str] = {
    _MISSING: "Run `terraform apply`, or look at aws.region and the names in [aws]: `terraform output` "
    "prints them.",
    _REFUSED: _SIGN_IN,
    _DENIED: "Look at the policies of whoever asked: `terraform output operator_policy_arn` is what "
    "people need, a worker's role comes with `terraform apply`.",
}
"""What to do, by the meaning of an error code."""


def code_of(error: BaseException | None) -> str:
    """Return the service's error code, or "" if `error` is not a service's answer."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return ""


@contextmanager
def translate_errors(
    what: str, also: Mapping[str, tuple[type[HevcqError], str]] | None = None
) -> Iterator[None]:
    """Translate any error of botocore raised inside the context into a HevcqError.

    `what` names the attempted action, such as "read key 'a'". `also` overrides CODES. Raises what
    CODES says, ConfigError for credentials and region, else Unavailable.
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
