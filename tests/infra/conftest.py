"""One offline plan, shared by the tests that read it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto import mock_aws
from moto.core.models import MockAWS

from infra.terraform import (
    OTHERS,
    SCALED_TO,
    VARIABLES,
    WEB,
    Terraform,
    created,
    need_terraform,
    planned,
)
from support.once import made_once


@pytest.fixture(scope="session")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    return Terraform(tmp_path_factory.mktemp("terraform"))


@pytest.fixture(scope="session")
def plan(request: pytest.FixtureRequest) -> dict[str, Any]:
    def make(path: Path) -> None:
        terraform: Terraform = request.getfixturevalue("terraform")
        path.write_text(json.dumps(terraform.plan(*VARIABLES)), encoding="utf-8")

    need_terraform()
    return json.loads(made_once("plan", make, ".json").read_bytes())


@pytest.fixture(scope="session")
def changed(request: pytest.FixtureRequest, plan: dict[str, Any]) -> dict[str, Any]:
    """Plan other profiles, another share of Spot, uploads that expire, a restored table, the page and
    public playback, where services stand with `SCALED_TO` tasks each."""

    def make(path: Path) -> None:
        other = Terraform(path.with_suffix(""))
        standing = created(plan, "aws_ecs_cluster", "aws_ecs_service")
        for each in standing:
            if each["type"] == "aws_ecs_service":
                each["change"]["after"]["desired_count"] = SCALED_TO
        other.stand_as_if_applied(standing)
        profile = path.with_suffix("") / "workers" / "hevc.yaml"
        profile.write_text(profile.read_text() + "fleet: {spot_share: 100}\n")
        asked = f"profiles={json.dumps(OTHERS)}"
        more = ("tag_finished_inputs=true", "ledger_table=hevcq.2", "public_playback={}")
        page = f"web={json.dumps(WEB)}"
        found = other.plan(*VARIABLES, asked, page, *more, options=("-refresh=false",))
        path.write_text(json.dumps(found), encoding="utf-8")

    return json.loads(made_once("changed", make, ".json").read_bytes())


@pytest.fixture(scope="session")
def resources(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return planned(plan)


@pytest.fixture(scope="module")
def account() -> Iterator[MockAWS]:
    """An emulated account: one session for a module, since making one takes 0.3 s of CPU."""
    with mock_aws() as mocked:
        yield mocked


@pytest.fixture
def emulated(account: MockAWS, monkeypatch: pytest.MonkeyPatch) -> None:
    """The account as a new one, signed in to."""
    account.reset()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
