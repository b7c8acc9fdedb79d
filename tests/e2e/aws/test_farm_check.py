"""`hevcq doctor --farm` on a farm with one worker too few: what works, where it stops, nothing left."""

import json
from pathlib import Path

import pytest

from e2e.aws.fleet import Fleet
from support.aws.emulator import Emulator

pytestmark = [pytest.mark.aws, pytest.mark.media]


@pytest.fixture
def small(tmp_path: Path, emulator: Emulator):
    made = Fleet(tmp_path / "fleet", emulator=emulator, profiles=("hevc", "720p"))
    yield made
    made.close()


def test_a_clip_for_each_profile_says_where_it_stopped(small: Fleet) -> None:
    small.worker("hevc")

    ran = small.run("doctor", "--farm", "--timeout", 30, "--json")

    found = {each["name"]: each for each in map(json.loads, ran.out.splitlines())}
    assert ran.code == 1, ran.out + ran.err + small.log()
    assert found["farm: hevc"]["ok"], ran.out + small.log()
    assert "encoded, verified and published" in found["farm: hevc"]["detail"]
    assert not found["farm: 720p"]["ok"]
    assert "stopped at the worker" in found["farm: 720p"]["detail"]
    assert "no worker took it" in found["farm: 720p"]["detail"]
    assert "farm: tidying up" not in found
    assert list(small.backend.store.list("DONE/")) == []
    assert small.jobs(profile="720p")[0].failure_class == "cancelled"
    listed = small.clients.s3.list_objects_v2(Bucket=small.aws.input_bucket)["Contents"]
    for each in listed:
        assert "/hevcq-doctor/" in each["Key"]
