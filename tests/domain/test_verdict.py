"""What becomes of a delivery, for every leaf of the error tree: a new error needs a row here."""

import inspect

import pytest

from hevcq import errors
from hevcq.domain.verdict import (
    Abandon,
    Bury,
    FailureClass,
    Handling,
    Limits,
    Release,
    RetryIn,
    backoff,
    classify,
    handling,
    sentence,
    verdict,
)
from hevcq.errors import EncoderFailed, HevcqError

LIMITS = Limits(max_failures=3, backoff_base_s=30)
NEVER, LATER, BACK, OFF = Handling
C = FailureClass

TABLE = {
    errors.ConfigError: (LATER, C.INTERNAL),
    errors.UnknownProfile: (LATER, C.INTERNAL),
    errors.BadKey: (NEVER, C.MESSAGE),
    errors.NoSuchVideo: (LATER, C.INTERNAL),
    errors.QuotaExceeded: (LATER, C.INTERNAL),
    errors.BadUpload: (LATER, C.INTERNAL),
    errors.BadMessage: (NEVER, C.MESSAGE),
    errors.SourceGone: (NEVER, C.GONE),
    errors.SourceChanged: (NEVER, C.CHANGED),
    errors.SourceUnreadable: (NEVER, C.UNREADABLE),
    errors.SourceDamaged: (NEVER, C.DAMAGED),
    errors.MediaRefused: (NEVER, C.UNSUPPORTED),
    errors.VerificationFailed: (NEVER, C.VERIFICATION),
    errors.NeedsReview: (NEVER, C.REVIEW),
    errors.LimitExceeded: (NEVER, C.LIMIT),
    errors.EncoderFailed: (LATER, C.ENCODER),
    errors.EncoderStalled: (LATER, C.STALLED),
    errors.PartUnfit: (LATER, C.ENCODER),
    errors.OutOfMemory: (LATER, C.MEMORY),
    errors.DiskFull: (BACK, C.DISK),
    errors.Conflict: (LATER, C.INTERNAL),
    errors.Unavailable: (LATER, C.NETWORK),
    errors.AccessDenied: (LATER, C.NETWORK),
    errors.SourceAway: (BACK, C.NETWORK),
    errors.WorkerUnfit: (BACK, C.WORKER),
    errors.Stopped: (BACK, C.INTERNAL),
    errors.Paused: (BACK, C.INTERNAL),
    errors.LeaseLost: (OFF, C.INTERNAL),
    errors.StaleFence: (OFF, C.INTERNAL),
    errors.Superseded: (BACK, C.INTERNAL),
    errors.StorageError: (BACK, C.DISK),
    errors.DatabaseBusy: (BACK, C.DISK),
    errors.SwapRefused: (LATER, C.INTERNAL),
    errors.UndoRefused: (LATER, C.INTERNAL),
    KeyError: (LATER, C.INTERNAL),
    OSError: (LATER, C.INTERNAL),
}


def _all(kind: type[Exception]) -> set[type[Exception]]:
    return {kind}.union(*(_all(child) for child in kind.__subclasses__()))


def _own() -> set[type[Exception]]:
    return {k for k in _all(HevcqError) if k.__module__ == "hevcq.errors"}


GROUPS = {
    HevcqError,
    errors.UsageError,
    errors.PermanentError,
    errors.TransientError,
    errors.Interruption,
    errors.LibraryError,
}


def test_every_error_that_is_raised_has_a_row():
    named = {k for _, k in inspect.getmembers(errors, inspect.isclass) if issubclass(k, HevcqError)}
    assert named == _own()
    assert _own() - GROUPS == {k for k in TABLE if issubclass(k, HevcqError)}


@pytest.mark.parametrize("kind", TABLE, ids=lambda k: k.__name__)
def test_each_error_has_the_class_and_the_first_and_last_verdict_of_the_table(kind):
    how, failure_class = TABLE[kind]
    error = kind("It broke.")

    first, last = (verdict(error, failures=n, limits=LIMITS, jitter=0.5) for n in (0, 2))

    assert (handling(error), classify(error)) == (how, failure_class)
    assert "It broke." in first.reason
    assert isinstance(first, {NEVER: Bury, LATER: RetryIn, BACK: Release, OFF: Abandon}[how])
    if isinstance(first, RetryIn):
        assert first.seconds == 22.5
    assert isinstance(last, Bury) is (how in {NEVER, LATER})
    for decided in (first, last):
        assert getattr(decided, "failure_class", failure_class) is failure_class


def test_a_dead_letter_of_the_encoder_carries_its_last_lines():
    error = EncoderFailed("broke", tail=("one", "two"), returncode=1)
    decided = verdict(error, failures=2, limits=LIMITS, jitter=0)
    assert decided.tail == ("one", "two")


@pytest.mark.parametrize("kind", [errors.DiskFull, errors.DatabaseBusy])
def test_what_waits_for_the_machine_waits_longer_at_each_receive(kind):
    delays = [
        verdict(kind(), failures=0, limits=LIMITS, jitter=0.5, attempt=n).delay_s
        for n in range(1, 10)
    ]
    assert delays[0] == 22.5
    assert delays == sorted(delays)
    assert sum(delays) > 3600 * 2, "ten receives outlast two hours of a full disk"


@pytest.mark.parametrize("kind", [errors.Stopped, errors.WorkerUnfit])
def test_an_interruption_gives_the_work_back_at_once(kind):
    assert verdict(kind(), failures=0, limits=LIMITS, jitter=0.9, attempt=9).delay_s == 0


@pytest.mark.parametrize(
    ("failures", "jitter", "expected"),
    [(0, 0, 15), (0, 1, 30), (1, 1, 60), (2, 1, 120), (7, 1, 3600), (500, 1, 3600), (500, 0, 1800)],
)
def test_the_back_off_doubles_is_capped_and_jittered_over_its_upper_half(
    failures, jitter, expected
):
    assert backoff(failures, LIMITS, jitter) == expected


def test_a_reason_is_one_line():
    assert sentence(HevcqError("Two\nlines.", remedy="Do\tthis.")) == "Two lines. Do this."
    assert sentence(KeyError("a\nb")) == r"KeyError: 'a\nb'"
    assert sentence(errors.Stopped()) == "The worker was asked to stop."
