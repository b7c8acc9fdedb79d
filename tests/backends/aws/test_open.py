"""What is missing is said in one sentence; what may not be looked at is left to its first use."""

import re
from dataclasses import replace

import pytest
from botocore.exceptions import (
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
)
from structlog.testing import capture_logs

from contracts.backends import PROFILES
from hevcq.backends.aws.clients import (
    translate_errors,
)
from hevcq.backends.aws.factory import machine_name, open_aws
from hevcq.errors import ConfigError, Unavailable
from hevcq.settings.model import Settings
from hevcq.usecases.operations.status import overview
from support.aws.breaking import Breaking, broken, refusal
from support.clips import ManualClock

pytestmark = pytest.mark.aws


def reopened(farm, **changes):
    aws = farm.settings.aws.model_copy(update=changes)
    settings = farm.settings.model_copy(update={"aws": aws})
    return open_aws(settings, PROFILES, farm.clock, farm.clients)


def test_one_missing_queue_stops_its_own_profile_and_no_other(farm):
    """At 3 a.m. the rest of the farm is to be seen, and to work."""
    url = farm.clients.sqs.get_queue_url(QueueName=f"{farm.settings.aws.queue_prefix}hevc")
    farm.clients.sqs.delete_queue(QueueUrl=url["QueueUrl"])

    with capture_logs() as logged:
        backend = reopened(farm)

    assert set(backend.queues) == set(PROFILES) - {"hevc"}
    assert [(each["event"], each["profile"]) for each in logged] == [("queue_missing", "hevc")]
    shown = overview(backend, farm.clock, Settings(backend="aws"), "", limit=9)
    assert "hevc" not in {each.profile for each in shown.queues}
    with pytest.raises(
        ConfigError, match=r"hevc: it does not exist.*take hevc out of aws\.profiles"
    ):
        _ = backend.queues["hevc"]


def unseen(code: str):
    """Return what SQS answers who may not ask for a queue's URL: it may be there or not."""
    words = "The specified queue does not exist or you do not have access to it."
    return refusal(code, 400, Error={"Code": code, "Message": words})


@pytest.mark.parametrize(
    "denied",
    [
        refusal("AccessDenied", 403),
        unseen("AWS.SimpleQueueService.NonExistentQueue"),
        unseen("QueueDoesNotExist"),
    ],
    ids=["denied", "unseen", "unseen by JSON"],
)
def test_a_role_that_may_not_look_at_everything_opens_all_the_same(farm, denied):
    clients = replace(
        farm.clients,
        s3=Breaking(farm.clients.s3, {"head_bucket": [refusal("403", 403)] * 2}),
        sqs=Breaking(farm.clients.sqs, {"get_queue_url": [denied] * 2}),
        sns=Breaking(farm.clients.sns, {"get_topic_attributes": [refusal("AuthorizationError")]}),
    )

    backend = open_aws(farm.settings, PROFILES, farm.clock, clients)

    assert backend.queues["hevc"].depth().ready == 0
    assert backend.announces_uploads is True


@pytest.mark.parametrize(
    ("service", "method", "error"),
    [
        ("s3", "head_bucket", refusal("503", 503)),
        ("sqs", "get_queue_url", refusal("ThrottlingException")),
        ("sqs", "get_queue_url", broken()),
        ("sns", "get_topic_attributes", refusal("InternalError", 500)),
        ("dynamodb", "get_item", refusal("ProvisionedThroughputExceededException")),
        ("dynamodb", "get_item", broken()),
    ],
)
def test_a_worker_that_meets_a_throttle_while_it_starts_asks_again(farm, service, method, error):
    flaky = Breaking(getattr(farm.clients, service), {method: [error]})
    clients = replace(farm.clients, **{service: flaky})

    clock = ManualClock(auto=True)
    with capture_logs() as logged:
        backend = open_aws(farm.settings, PROFILES, clock, clients, caller_retries=True)

    assert set(backend.queues) == set(PROFILES)
    assert [each["event"] for each in logged] == ["aws_not_ready"]


def test_a_worker_whose_aws_stays_away_ends_in_the_end_and_a_command_at_once(farm):
    clock = ManualClock(auto=True)
    for caller_retries, attempts in ((True, 5), (False, 1)):
        away = Breaking(farm.clients.s3, {"head_bucket": [broken()] * 9})
        clients = replace(farm.clients, s3=away)

        with pytest.raises(Unavailable), capture_logs():
            open_aws(farm.settings, PROFILES, clock, clients, caller_retries=caller_retries)

        assert away.count("head_bucket") == attempts


@pytest.mark.parametrize("code", ["InternalError", "SlowDown", "NeverHeardOf", ""])
def test_a_code_that_nobody_knows_is_unavailable_never_a_success(code):
    with pytest.raises(Unavailable, match="could not do this"), translate_errors("do this"):
        raise refusal(code, 500)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NoCredentialsError(), ConfigError),
        (PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"), ConfigError),
        (CredentialRetrievalError(provider="sso", error_msg="expired"), ConfigError),
        (NoRegionError(), ConfigError),
        (EndpointConnectionError(endpoint_url="http://x"), Unavailable),
    ],
)
def test_what_botocore_raises_itself_is_translated_too(error, kind):
    with pytest.raises(kind), translate_errors("do this"):
        raise error


def test_the_name_of_a_machine_is_made_once_and_kept_with_its_data_folder(tmp_path):
    first = machine_name(tmp_path / "data")

    assert re.fullmatch(r"[a-z0-9][a-z0-9-]*-[0-9a-f]{8}", first)
    assert machine_name(tmp_path / "data") == first
    assert machine_name(tmp_path / "other") != first
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["machine"]
