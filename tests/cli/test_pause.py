"""`hevcq pause` and `hevcq resume`: what they say, what status says, and what is refused."""

import pytest

from hevcq.cli.exit_codes import ExitCode


def test_a_pause_is_shown_by_status_until_it_is_resumed(hevcq):
    ran = hevcq("pause", "--for", "2h", "--freeze")
    assert ran.code == 0
    assert ran.out.startswith("Paused by ")
    assert "until " in ran.out
    assert "stand still and go on later" in ran.out

    shown = hevcq("status")
    assert "Paused by " in shown.out
    assert "`hevcq resume` ends it. Running encodes stand still." in shown.out
    (known,) = hevcq("status", "--json").lines
    assert known["closed"][0]["running"] == "freeze"
    every = [queue["profile"] for queue in known["queues"]]
    assert sorted(known["closed"][0]["profiles"]) == sorted(every)

    assert hevcq("resume").out == "Resumed.\n"
    assert "aused" not in hevcq("status").out
    assert hevcq("resume").out == "Nothing was paused.\n"


def test_one_profile_is_paused_and_resumed_alone(hevcq):
    (made,) = hevcq("pause", "--profile", "720p", "--now", "--json").lines
    assert (made["profile"], made["running"], made["until"]) == ("720p", "stop", None)
    assert "720p: Profile 720p is paused by " in hevcq("status").out
    assert hevcq("resume", "--profile", "hevc").out == "Nothing was paused.\n"
    (ended,) = hevcq("resume", "--profile", "720p", "--json").lines
    assert (ended["type"], ended["profile"]) == ("resume", "720p")


def test_status_and_resume_name_the_hours_that_are_closed(hevcq, monkeypatch):
    from datetime import datetime, timedelta

    now = datetime.now().astimezone()
    opens, closes = now + timedelta(hours=2), now + timedelta(hours=3)
    monkeypatch.setenv("HEVCQ_SCHEDULE__WINDOWS", f"{opens:%H:%M}-{closes:%H:%M}")

    assert f"Outside the hours of schedule.windows. It opens {opens:%H:%M}."[:-8] in (
        hevcq("status").out
    )
    hevcq("pause")
    ran = hevcq("resume")
    assert "Resumed." in ran.out
    assert "Outside the hours" in ran.out
    (checked,) = [line for line in hevcq("doctor").out.splitlines() if "schedule" in line]
    assert "closed until" in checked


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--for", "soon"], "'soon' is not a length of time"),
        (["--for", "0h"], "is not between a second and a year"),
        (["--for", "2h junk"], "is not a length of time"),
        (["--now", "--freeze"], "Only one of"),
        (["--profile", "nothere"], "nothere"),
    ],
)
def test_a_wrong_pause_is_refused_and_holds_nothing_back(hevcq, arguments, says):
    ran = hevcq("pause", *arguments)

    assert ran.code == ExitCode.USAGE
    assert says in ran.err
    assert hevcq("resume").out == "Nothing was paused.\n"


@pytest.mark.parametrize(("command", "held"), [("true", False), ("false", True)])
def test_the_exit_code_of_the_gate_command_decides(hevcq, monkeypatch, command, held):
    monkeypatch.setenv("HEVCQ_SCHEDULE__GATE_COMMAND", command)
    assert ("says no (exit code 1)" in hevcq("status").out) is held


def test_a_bad_window_is_refused_with_its_place_in_the_settings(hevcq, monkeypatch):
    monkeypatch.setenv("HEVCQ_SCHEDULE__WINDOWS", "at night")
    ran = hevcq("status")
    assert ran.code == ExitCode.CONFIG
    assert "schedule.windows 'at night' is not a window of time" in ran.err
