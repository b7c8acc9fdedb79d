"""One offline plan, shared by the tests that read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.terraform import VARIABLES, Terraform, planned


@pytest.fixture(scope="session")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    return Terraform(tmp_path_factory.mktemp("terraform"))


@pytest.fixture(scope="session")
def plan(terraform: Terraform) -> dict[str, Any]:
    return terraform.plan(*VARIABLES)


@pytest.fixture(scope="session")
def resources(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return planned(plan)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
