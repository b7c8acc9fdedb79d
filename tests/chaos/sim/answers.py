"""What a service or the way to it answers when a call fails: botocore's errors, turned by our own code."""

import random
from typing import NoReturn

from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    ReadTimeoutError,
)

from hevcq.backends.aws.clients import translate_errors

URL = "http://simulated"


def _answer(code: str, status: int) -> ClientError:
    answer = {
        "Error": {"Code": code, "Message": "simulated"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(answer, "Simulated")


THROTTLED = tuple(
    _answer(code, status)
    for code, status in (
        ("ThrottlingException", 400),
        ("RequestThrottled", 403),
        ("ProvisionedThroughputExceededException", 400),
        ("SlowDown", 503),
        ("ServiceUnavailable", 503),
    )
)
"""Refusals: nothing was done."""
UNANSWERED = (
    _answer("InternalError", 500),
    _answer("InternalFailure", 500),
    _answer("RequestTimeout", 400),
    ReadTimeoutError(endpoint_url=URL),
    ConnectionClosedError(endpoint_url=URL),
)
"""Nobody knows whether it was done."""
UNREACHABLE = (EndpointConnectionError(endpoint_url=URL),)


def fail(label: str, errors: tuple[Exception, ...], random_: random.Random) -> NoReturn:
    """Raise what the adapters make of one of these errors."""
    with translate_errors(f"do {label}"):
        raise errors[int(random_.random() * len(errors))].with_traceback(None)
    raise AssertionError("every error is turned into one of ours")
