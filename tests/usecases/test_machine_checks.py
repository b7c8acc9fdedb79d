"""What the doctor finds of settings, clocks and queues that no command line here can have."""

from dataclasses import replace
from unittest.mock import Mock

import pytest

from hevcq.errors import Unavailable, UnknownProfile
from hevcq.running.doctor import machine_checks
from hevcq.settings.model import ScheduleSettings, Settings
from hevcq.usecases.farm_check import examined
from hevcq.util.clock import EARLIEST
from hevcq.wiring.app import App
from support.clips import ManualClock
from support.fakes.backend import HEVC, memory_backend
from support.fakes.encoder import FakeEncoder

AWS = {"backend": "aws"}
ALWAYS = {"schedule": ScheduleSettings(windows=("Mon-Sun 00:00-24:00",))}


class NoQueue(dict):
    def __getitem__(self, name: str):
        raise UnknownProfile(f"There is no queue of {name}.", remedy="Run terraform apply.")


def away(_app):
    raise Unavailable("DynamoDB does not answer.")


@pytest.mark.parametrize(
    ("settings", "changes", "check", "says"),
    [
        (AWS, {}, "database", "ok readable, 0 jobs, 0 of them dead"),
        (AWS, {"queues": NoQueue()}, "queues", "no There is no queue of hevc."),
        (AWS, {"backend": away}, "database", "no DynamoDB does not answer."),
        (ALWAYS, {}, "schedule", "ok Mon-Sun 00:00-24:00: open"),
        ({}, {}, "profile hevc", "ok one second of picture and sound"),
    ],
)
def test_what_the_doctor_finds(tmp_path, monkeypatch, settings, changes, check, says):
    clock = ManualClock(EARLIEST + 1)
    backend = replace(memory_backend(clock), **{k: v for k, v in changes.items() if k == "queues"})
    given = Settings(data_dir=tmp_path, min_free_mib=0, **settings)
    app = App(given, clock)
    opened = {"profiles": {"hevc": HEVC}, "encoder": FakeEncoder(), "catalog": Mock()}
    app.__dict__.update(opened, backend=backend)
    if "backend" in changes:
        monkeypatch.setattr(App, "backend", property(changes["backend"]))

    found = {each.name: each for each in examined(machine_checks(app))}

    assert f"{'ok' if found[check].ok else 'no'} {found[check].detail}".startswith(says)
    assert ("data_dir" in found) is (settings != AWS)
    assert ("queues" in found) is (settings == AWS and "backend" not in changes)
