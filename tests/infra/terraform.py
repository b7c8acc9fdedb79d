"""Run terraform offline for tests: a provider from a local folder, one run at a time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra" / "terraform"
ZONES = '["eu-central-1a","eu-central-1b"]'
ACCOUNT = "000000000000"


@cache
def plugin_folder() -> str | None:
    """Return a folder that holds the AWS provider, or None where this machine has none."""
    given = os.environ.get("TERRAFORM_PLUGIN_DIR", "")
    if given:
        return given
    finder = ROOT.parent / "shared" / "bin" / "terraform-plugins"
    if not finder.is_file():
        return None
    done = subprocess.run([str(finder)], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def need_terraform() -> str:
    """Skip, with the reason, where terraform or its provider is missing."""
    if shutil.which("terraform") is None:
        pytest.skip("terraform is not installed")
    folder = plugin_folder()
    if folder is None:
        pytest.skip("no local folder holds the AWS provider (TERRAFORM_PLUGIN_DIR names one)")
    return folder


class Terraform:
    """A copy of one configuration in a folder of its own, with its own state."""

    def __init__(self, folder: Path, environment: dict[str, str] | None = None) -> None:
        plugins = need_terraform()
        shutil.copytree(INFRA, folder / "infra" / "terraform", dirs_exist_ok=True)
        shutil.copytree(ROOT / "workers", folder / "workers", dirs_exist_ok=True)
        self.example = folder / "infra" / "terraform" / "examples" / "minimal"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "CHECKPOINT_DISABLE": "1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_EC2_METADATA_DISABLED": "true",
            "TF_IN_AUTOMATION": "1",
            **(environment or {}),
        }
        self.run("init", f"-plugin-dir={plugins}", "-input=false", "-no-color")

    def run(self, *arguments: str, ok: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
        """Run terraform; fail the test with its words unless it ends with one of `ok`."""
        done = subprocess.run(
            ["terraform", *arguments],
            cwd=self.example,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode in ok, f"terraform {arguments[0]}: {done.stdout}{done.stderr}"
        return done

    def plan(self, *variables: str, ok: tuple[int, ...] = (0,)) -> dict[str, Any]:
        """Return the plan as terraform's JSON."""
        flags = [f"-var={variable}" for variable in variables]
        self.run("plan", "-input=false", "-no-color", "-out=plan.bin", *flags, ok=ok)
        return json.loads(self.run("show", "-json", "plan.bin").stdout)
