"""Run terraform offline for tests: a provider from a local folder, one run at a time."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from hevcq.domain.profile import Profile
from hevcq.settings.profile_files import installed_folder, load_profiles

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra" / "terraform"
ZONES = '["eu-central-1a","eu-central-1b"]'
ACCOUNT = "000000000000"
ALARM_TOPIC = f"arn:aws:sns:eu-central-1:{ACCOUNT}:alarms"
VARIABLES = (
    "offline=true",
    f"account_id={ACCOUNT}",
    f"zones={ZONES}",
    "image=registry.example/hevcq-worker:test",
    f"alarm_topic_arn={ALARM_TOPIC}",
    'budget={"monthly_usd":100,"emails":["a@example.org"]}',
)
"""What an offline plan of the example needs."""
OTHERS = ("hevc", "720p", "hls", "webm")
"""Not the profiles that get a queue by themselves: one is left out, and another comes."""
SCALED_TO = 7
"""The tasks of a service that scaling has changed since it was made."""


SECRET = f"arn:aws:secretsmanager:eu-central-1:{ACCOUNT}:secret:hevcq-session"
WEB = {
    "url": "https://videos.example.org",
    "certificate_arn": f"arn:aws:acm:eu-central-1:{ACCOUNT}:certificate/a",
    "session_key_secret_arn": SECRET,
    "operators": ["ann@example.org"],
}


def run_command(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def deployed() -> dict[str, Profile]:
    """Return the profiles that come with hevcq and get a queue and workers."""
    found = load_profiles(installed_folder())
    return {name: profile for name, profile in found.items() if profile.fleet.deployed}


@cache
def plugin_folder() -> str | None:
    """Return a folder that holds the AWS provider, or None where this machine has none."""
    given = os.environ.get("TERRAFORM_PLUGIN_DIR", "")
    if given:
        return given
    finder = ROOT.parent / "shared" / "bin" / "terraform-plugins"
    if not finder.is_file():
        return None
    done = run_command(finder)
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
    """A copy of one configuration in a folder of its own, with its own state.

    `state` is the content of state.hcl: where the state is kept, if not in the folder.
    """

    def __init__(
        self, folder: Path, environment: dict[str, str] | None = None, state: str = ""
    ) -> None:
        plugins = need_terraform()
        shutil.copytree(INFRA, folder / "infra" / "terraform", dirs_exist_ok=True)
        shutil.copytree(ROOT / "workers", folder / "workers", dirs_exist_ok=True)
        self.example = folder / "infra" / "terraform" / "examples" / "minimal"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "CHECKPOINT_DISABLE": "1",
            "GOGC": "400",  # a fifth less CPU, for 200 MB more memory
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_EC2_METADATA_DISABLED": "true",
            "TF_IN_AUTOMATION": "1",
            # The provider waits for most of what it makes; what a destroy reads was read just before.
            "TF_CLI_ARGS_apply": "-parallelism=60",
            "TF_CLI_ARGS_destroy": "-parallelism=60 -refresh=false",
            **(environment or {}),
        }
        more = []
        if state:
            # As the page says: the backend's example, and what it is told by a file beside it.
            shutil.copy(self.example / "backend.tf.example", self.example / "backend.tf")
            (self.example / "state.hcl").write_text(state, encoding="utf-8")
            more = ["-backend-config=state.hcl"]
        self.run("init", f"-plugin-dir={plugins}", "-input=false", "-no-color", *more)

    def run(self, *arguments: str, ok: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
        """Run terraform; fail the test with its words unless it ends with one of `ok`."""
        done = run_command(
            "terraform", *arguments, cwd=self.example, env=self.environment, timeout=900
        )
        assert done.returncode in ok, f"terraform {arguments[0]}: {done.stdout}{done.stderr}"
        return done

    def plan(self, *variables: str, options: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return the plan as terraform's JSON."""
        flags = [*options, *(f"-var={variable}" for variable in variables)]
        self.run("plan", "-input=false", "-no-color", "-out=plan.bin", *flags)
        return json.loads(self.run("show", "-json", "plan.bin").stdout)

    def refused(self, *variables: str) -> str:
        """Plan what must be refused; return terraform's words in one line."""
        flags = [f"-var={variable}" for variable in variables]
        done = self.run("plan", "-input=false", "-no-color", *flags, ok=(1,))
        return " ".join(done.stderr.replace("\u2502", " ").split())

    def stand_as_if_applied(self, changes: Iterable[dict[str, Any]]) -> None:
        """Write a state in which what these changes of a plan create is there.

        What AWS would name (ids, ARNs) is named after the resource.
        """
        made: dict[tuple[str, ...], dict[str, Any]] = {}
        for change in changes:
            values = dict(change["change"]["after"])
            values |= dict.fromkeys(_unknown(change), f"arn:aws:ecs:::{change['name']}")
            module, _, name = change["address"].rpartition(f".{change['type']}.")
            where = (module, change["type"], name)
            made[where] = {
                "module": where[0],
                "mode": "managed",
                "type": where[1],
                "name": where[2],
                "provider": f'provider["{change["provider_name"]}"]',
                "instances": [{"schema_version": change["schema_version"], "attributes": values}],
            }
        head = {"version": 4, "terraform_version": "1.6.0", "serial": 1, "outputs": {}}
        state = {**head, "lineage": "a-test", "resources": list(made.values())}
        self.state.write_text(json.dumps(state), encoding="utf-8")

    @property
    def state(self) -> Path:
        """Where the state is kept, if not in a bucket."""
        return self.example / "terraform.tfstate"


def created(plan: dict[str, Any], *kinds: str) -> list[dict[str, Any]]:
    """Return what a plan would do to the resources of some kinds, with their schemas' versions."""
    versions = {each["address"]: each["schema_version"] for each in planned(plan)}
    return [
        {**change, "schema_version": versions[change["address"]]}
        for change in plan["resource_changes"]
        if change["type"] in kinds and change["mode"] == "managed"
    ]


def planned(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every resource that a plan ends with."""
    found: list[dict[str, Any]] = []
    modules = [plan["planned_values"]["root_module"]]
    while modules:
        module = modules.pop()
        found += module.get("resources", [])
        modules += module.get("child_modules", [])
    return found


def _unknown(change: dict[str, Any]) -> list[str]:
    unknown = change["change"]["after_unknown"]
    return [name for name in ("id", "arn", "cluster") if unknown.get(name) is True]


def assert_schema(
    table: dict[str, Any], indexes: dict[str, tuple[list[str], list[str]]], numbers: frozenset[str]
) -> None:
    """Require that a planned table has the keys and indexes that its records ask for."""
    keys = {"pk", *(key for keys, _ in indexes.values() for key in keys)}
    kinds = {key: "N" if key in numbers else "S" for key in keys}
    assert {a["name"]: a["type"] for a in table["attribute"]} == kinds
    assert indexes == {
        i["name"]: (
            [key for key in (i["hash_key"], i["range_key"]) if key],
            sorted(i["non_key_attributes"] or []),
        )
        for i in table["global_secondary_index"]
    }
