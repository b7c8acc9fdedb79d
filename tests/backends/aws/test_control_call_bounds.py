"""The longest time of a worker's control calls, against what leases and stops leave for them."""

import pytest

from hevcq.backends.aws.clients import (
    CONTROL_ATTEMPT_S,
    make_clients,
)
from hevcq.domain.profile import Profile
from hevcq.settings.model import AwsSettings
from hevcq.settings.profile_files import installed_folder, load_profiles
from hevcq.sql.sqlite import MAX_LOCK_WAIT_S
from hevcq.util.retry import CONTROL_CALL
from hevcq.worker.delivery.lease import JOIN_S, MARGIN_SHARE, MAX_MARGIN_S
from support.aws.emulator import KEYS, REGION

PROFILES = list(load_profiles(installed_folder()).values())


def longest_s(attempt_s: float) -> float:
    """Return how long a control call may take whose attempts take so long each."""
    waits = (CONTROL_CALL.wait_s(n, lambda: 1.0) for n in range(CONTROL_CALL.attempts - 1))
    return CONTROL_CALL.attempts * attempt_s + sum(waits)


LONGEST_S = longest_s(CONTROL_ATTEMPT_S)
STOP_TIMEOUT_S, STOP_GRACE_S, TERM_S = 120, 60, 2
"""What infra/terraform/modules/worker_service gives a task; tests/infra checks those."""


def lease_left_s(profile: Profile) -> float:
    """Return how long a lease that is kept alive is valid at least."""
    numbers = profile.queue
    margin_s = min(MAX_MARGIN_S, numbers.visibility_s * MARGIN_SHARE)
    return numbers.visibility_s - numbers.heartbeat_s - margin_s


@pytest.fixture
def clients(monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    found = make_clients(AwsSettings(region=REGION), caller_retries=True)
    yield found
    found.close()


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_a_verdict_is_recorded_and_settled_within_the_lease(profile):
    look_s = CONTROL_ATTEMPT_S  # whether a transition whose answer was lost has happened
    assert LONGEST_S + look_s + LONGEST_S < lease_left_s(profile)
    assert longest_s(MAX_LOCK_WAIT_S) < lease_left_s(profile)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_two_heartbeats_may_hang_to_their_end_and_the_third_comes_in_time(profile):
    heartbeat_s = 2 * CONTROL_ATTEMPT_S  # the message and the claim, each sent once
    assert heartbeat_s < JOIN_S
    assert 2 * heartbeat_s + profile.queue.heartbeat_s < lease_left_s(profile)


def test_a_stopped_task_gives_its_work_back_before_it_is_killed():
    assert LONGEST_S < STOP_GRACE_S
    assert STOP_GRACE_S + TERM_S + 2 * LONGEST_S < STOP_TIMEOUT_S
