"""The farm that terraform makes in an emulator: applied, used, and taken down.

One test, because each step stands on the one before; minutes, nearly all of it the provider's own
waiting.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import yaml

from infra.terraform import ROOT, Terraform, run_command
from support.aws.emulator import KEYS, REGION, Emulator
from support.clips import make_clip

pytestmark = [pytest.mark.terraform, pytest.mark.aws, pytest.mark.timeout(1200)]
HEVCQ = Path(sys.executable).with_name("hevcq")
MOTO_ACCOUNT = "123456789012"
PROFILE = "hevc"
"""One shows what more would: each adds twenty resources of the same kind, whose names the plan tells."""
OUTPUT_BUCKET = f"hevcq-out-{MOTO_ACCOUNT}"
UNASKED = ["-auto-approve", "-input=false", "-no-color"]
SIGNED = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
STATE = f"""
bucket         = "states"
key            = "hevcq/terraform.tfstate"
region         = "{REGION}"
use_path_style = true
"""


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


def quick_profiles(folder: Path) -> Path:
    """Copy the profiles with the fastest preset, so that the farm and not x265 is tested."""
    folder.mkdir()
    for path in (ROOT / "workers").glob("*.yaml"):
        profile = yaml.safe_load(path.read_text())
        if profile["video"]["codec"] in {"hevc", "h264"}:
            profile["video"]["preset"] = "ultrafast"
        if profile["name"] == "hevc":
            profile["gates"]["minimum_saving"] = None
        (folder / path.name).write_text(yaml.safe_dump(profile))
    return folder


def environment(home: Path, endpoint: str, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        **KEYS,
        "AWS_EC2_METADATA_DISABLED": "true",
        "HEVCQ_AWS__ENDPOINT_URL": endpoint,
        "HEVCQ_DATA_DIR": str(home / "data"),
        **more,
    }


def hevcq(folder: Path, own: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return run_command(str(HEVCQ), *words, cwd=folder, env=own, timeout=240)


def ingest_through_a_worker(folder: Path, endpoint: str, profiles: Path, config: str) -> None:
    """Run `hevcq ingest` against the applied farm, with a real worker process."""
    (folder / "hevcq.toml").write_text(config)
    (home := folder / "worker").mkdir()
    (library := folder / "library").mkdir()
    video = make_clip(folder, seconds=1).rename(library / "holiday.mp4")
    common = {"HEVCQ_PROFILES_DIR": str(profiles), "HEVCQ_CONFIG": str(folder / "hevcq.toml")}
    more = {**common, "HEVCQ_PROFILES": PROFILE, "HEVCQ_STOP_GRACE_S": "1"}
    log = folder / "worker.log"
    with log.open("wb") as errors:
        worker = subprocess.Popen(
            [sys.executable, str(ROOT / "workers" / "run.py")],
            cwd=folder,
            env=environment(home, endpoint, **more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
    try:
        words = ("ingest", str(library), "--json", "--profile", PROFILE)
        done = hevcq(folder, environment(folder, endpoint, **common), *words)
    finally:
        worker.terminate()
        worker.wait(timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr + log.read_text()
    assert video.with_name("holiday.hevc.mp4").is_file(), done.stdout + log.read_text()


def assert_published(emulator: Emulator, bucket: str) -> None:
    """What workers published says what it is: no browser is left to guess."""
    s3 = emulator.clients.s3
    listed = s3.list_objects_v2(Bucket=bucket, Prefix="DONE/")["Contents"]
    renditions = [each["Key"] for each in listed if each["Key"].endswith(".mp4")]
    assert renditions
    for key in renditions:
        assert s3.head_object(Bucket=bucket, Key=key)["ContentType"] == "video/mp4"


def take_down(terraform: Terraform, *words: str, flags: list[str]) -> tuple[int, str]:
    """Run what `make destroy` runs; return its exit code and its words."""
    script = [sys.executable, str(ROOT / "scripts" / "teardown.py")]
    done = run_command(
        *script,
        "--folder",
        str(terraform.example),
        *words,
        "--",
        *flags,
        env=terraform.environment,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stdout + done.stderr


def attach_operator_policy(emulator: Emulator, arn: str) -> None:
    iam = boto3.client("iam", endpoint_url=emulator.endpoint, region_name=REGION, **SIGNED)
    iam.create_group(GroupName="editors")
    iam.attach_group_policy(GroupName="editors", PolicyArn=arn)


def farm_of(folder: Path, emulator: Emulator, profiles: Path) -> tuple[Terraform, list[str]]:
    """Return the example with its state in a bucket of the emulator, and its variables."""
    location = {"LocationConstraint": REGION}
    emulator.clients.s3.create_bucket(Bucket="states", CreateBucketConfiguration=location)
    settings = {"AWS_ENDPOINT_URL": emulator.endpoint, "AWS_REGION": REGION}
    terraform = Terraform(folder, settings, STATE)
    return terraform, [f"profiles_dir={profiles}", f"profiles={json.dumps([PROFILE])}"]


def test_a_farm_is_applied_used_and_taken_down(tmp_path, emulator):
    """With its protections at their defaults, its state in a bucket, and all that its use leaves behind."""
    endpoint = emulator.endpoint
    profiles = quick_profiles(tmp_path / "profiles")
    terraform, variables = farm_of(tmp_path, emulator, profiles)
    image = "hevcq-worker:test"
    variables = [f"image={image}", *variables]
    flags = [f"-var={variable}" for variable in variables]

    terraform.run("apply", *UNASKED, *flags)
    ecs = boto3.client("ecs", endpoint_url=endpoint, region_name=REGION, **SIGNED)
    task = ecs.describe_task_definition(taskDefinition="hevcq-hevc")["taskDefinition"]
    outputs = json.loads(terraform.run("output", "-json").stdout)
    attach_operator_policy(emulator, outputs["operator_policy_arn"]["value"])
    use = tmp_path / "use"
    use.mkdir()
    ingest_through_a_worker(use, endpoint, profiles, outputs["hevcq_toml"]["value"])
    assert_published(emulator, OUTPUT_BUCKET)
    meant = take_down(terraform, "--data", "delete", "--confirm", "hevcq", flags=flags)
    left = terraform.run("state", "list").stdout

    assert task["containerDefinitions"][0]["image"] == image
    assert meant[0] == 0, meant[1]
    assert left == ""
    assert [b["Name"] for b in emulator.clients.s3.list_buckets()["Buckets"]] == ["states"]
