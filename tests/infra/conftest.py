"""One offline plan, shared by the tests that read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.terraform import ACCOUNT, ZONES, Terraform


@pytest.fixture(scope="session")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    return Terraform(tmp_path_factory.mktemp("terraform"))


@pytest.fixture(scope="session")
def plan(terraform: Terraform) -> dict[str, Any]:
    return terraform.plan(
        "offline=true", f"account_id={ACCOUNT}", f"zones={ZONES}", "image=hevcq-worker:test"
    )


@pytest.fixture(scope="session")
def resources(plan: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    modules = [plan["planned_values"]["root_module"]]
    while modules:
        module = modules.pop()
        found += module.get("resources", [])
        modules += module.get("child_modules", [])
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
