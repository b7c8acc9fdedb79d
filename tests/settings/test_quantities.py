"""Check how durations and past times are read."""

import pytest

from hevcq.errors import UsageError
from hevcq.settings.quantities import past_time

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90m", NOW - 5400),
        ("12H", NOW - 43_200),
        (" 2d ", NOW - 172_800),
        ("1.5w", NOW - 907_200),
        ("2h30m", NOW - 9000),
        ("2023-11-14T22:13:20+00:00", NOW),
        ("2023-11-14T22:13:20Z", NOW),
    ],
)
def test_a_moment_is_a_duration_or_an_iso_time(text: str, expected: float) -> None:
    assert past_time(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "2x", "-2d", "2023-13-01", "1e99d"])
def test_any_other_moment_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="neither"):
        past_time(text, NOW)
