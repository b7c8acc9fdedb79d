"""The grid of a week and the windows in the settings file say the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hevcq.domain.schedule import Schedule
from hevcq.usecases.settings.libraries import WEEK, hours_of, windows_of


@given(st.frozensets(st.integers(0, WEEK - 1), min_size=1))
def test_a_grid_comes_back_from_its_windows(hours):
    windows = windows_of(hours)

    assert hours_of(windows) == hours
    Schedule.parse(windows)


@pytest.mark.parametrize(
    "windows",
    [
        ["Mon-Fri 22:00-06:00"],
        ["Sat,Sun 00:00-24:00"],
        ["Sun 20:00-08:00"],
        ["Mon-Sun 01:00-02:00", "Wed 10:00-12:00"],
    ],
)
def test_windows_of_whole_hours_are_written_as_people_write_them(windows):
    hours = hours_of(windows)

    assert hours is not None
    assert hours_of(windows_of(hours)) == hours
    assert len(windows_of(hours)) == len(windows)


def test_minutes_are_no_grid_and_no_hour_is_refused():
    assert hours_of(["22:30-06:00"]) is None
    assert hours_of([]) == set(range(WEEK))
    assert windows_of(set(range(WEEK))) == []
    with pytest.raises(ValueError, match="pause it"):
        windows_of(frozenset())
