"""The farm is taken down in an order that fails before it harms."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from scripts import teardown

from infra.terraform import INFRA, need_terraform, run_command

REGION = "eu-central-1"
TERRAFORM = """#!/bin/sh
shift
case "$1 $2" in
  "show -json") cat "$NAMES"; exit ;;
  "state list") cat "$LISTED"; exit ;;
esac
echo "$HEVCQ_TEARDOWN $*" >> "$RECORD"
"""


def make_table(name: str) -> Any:
    dynamodb = boto3.client("dynamodb", region_name=REGION)
    dynamodb.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    return dynamodb


def workers_wanted() -> int:
    ecs = boto3.client("ecs", region_name=REGION)
    (service,) = ecs.describe_services(cluster="farm", services=["farm-hevc"])["services"]
    return service["desiredCount"]


def operators(names: dict[str, Any]) -> list[dict[str, str]]:
    """Return the groups whose members may operate the farm."""
    found = boto3.client("iam").list_entities_for_policy(PolicyArn=names["operator_policy"])
    return found["PolicyGroups"]


def terraform(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "CHECKPOINT_DISABLE": "1", **more}
    return run_command("terraform", *words, cwd=folder, env=environment)


@pytest.fixture
def names(emulated: None) -> dict[str, Any]:
    """Make what a farm of one profile consists of; return its names."""
    s3, sqs, iam = (boto3.client(each, region_name=REGION) for each in ("s3", "sqs", "iam"))
    for bucket in ("farm-in", "farm-out"):
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    make_table("farm")
    ecs = boto3.client("ecs", region_name=REGION)
    ecs.create_cluster(clusterName="farm")
    ecs.register_task_definition(
        family="farm", containerDefinitions=[{"name": "w", "image": "i", "memory": 1}]
    )
    ecs.create_service(
        cluster="farm", serviceName="farm-hevc", taskDefinition="farm", desiredCount=1
    )
    reading = {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::farm-in"}
    document = {"Version": "2012-10-17", "Statement": reading}
    policy = iam.create_policy(PolicyName="operator", PolicyDocument=json.dumps(document))
    return {
        "name": "farm",
        "region": REGION,
        "input_bucket": "farm-in",
        "output_bucket": "farm-out",
        "table": "farm",
        "repository": "farm-worker",
        "cluster": "farm",
        "services": {"hevc": "farm-hevc"},
        "queues": {
            "hevc": [
                sqs.create_queue(QueueName=f"farm-hevc{ending}")["QueueUrl"]
                for ending in ("", "-dlq", "-subscription-dlq")
            ]
        },
        "operator_policy": policy["Policy"]["Arn"],
    }


def use(names: dict[str, Any]) -> None:
    """Leave behind what a farm's use leaves behind."""
    s3, iam = (boto3.client(each, region_name=REGION) for each in ("s3", "iam"))
    s3.put_object(Bucket="farm-in", Key="TODO/all/only-copy.mp4", Body=b"0" * 2048)
    s3.put_object(Bucket="farm-out", Key="DONE/hevc/a.mp4", Body=b"0")
    s3.delete_object(Bucket="farm-out", Key="DONE/hevc/a.mp4")
    queue, letters, _ = names["queues"]["hevc"]
    sqs = boto3.client("sqs", region_name=REGION)
    sqs.send_message(QueueUrl=queue, MessageBody="{}")
    sqs.send_message(QueueUrl=letters, MessageBody="{}")
    boto3.client("dynamodb", region_name=REGION).put_item(
        TableName="farm", Item={"pk": {"S": "job"}}
    )
    iam.create_group(GroupName="editors")
    iam.attach_group_policy(GroupName="editors", PolicyArn=names["operator_policy"])


def state_of(names: dict[str, Any]) -> dict[str, Any]:
    """Return what `terraform show -json` says of a farm of these names."""
    values = {"output": {"name": names["name"], "force_destroy": False, "holds": names}}
    guard = {"address": teardown.GUARDS[-1], "values": values}
    inner = {"child_modules": [{"resources": [guard]}], "resources": [{"address": "other"}]}
    return {"values": {"root_module": {"child_modules": [inner]}}}


@pytest.fixture
def destroy(
    names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, list[str]]]:
    """Return what runs `make destroy` beside a terraform that records what it is told."""
    program = tmp_path / "bin" / "terraform"
    program.parent.mkdir()
    program.write_text(TERRAFORM)
    program.chmod(0o755)
    (tmp_path / "names.json").write_text(json.dumps(state_of(names)))
    record = tmp_path / "record"
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setenv("NAMES", str(tmp_path / "names.json"))
    monkeypatch.setenv("RECORD", str(record))
    (tmp_path / "listed").write_text(
        "module.farm.module.storage.aws_s3_bucket.this\nmodule.farm.module.ledger.table\n"
        "module.farm.module.registry.repository\n"
    )
    monkeypatch.setenv("LISTED", str(tmp_path / "listed"))

    def run(*arguments: str) -> tuple[int, list[str]]:
        code = teardown.main(["--folder", str(tmp_path), *arguments])
        return code, record.read_text().splitlines() if record.is_file() else []

    return run


@pytest.fixture
def page(names: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Make what the page has beside the farm: a video, somebody who signs in; return all names."""
    make_table("farm-videos").put_item(TableName="farm-videos", Item={"pk": {"S": "video"}})
    cognito = boto3.client("cognito-idp", region_name=REGION)
    pool = cognito.create_user_pool(PoolName="farm")["UserPool"]["Id"]
    cognito.admin_create_user(UserPoolId=pool, Username="ann@example.org")
    return names | {"videos_table": "farm-videos", "user_pool": pool}


@pytest.fixture
def destroy_page(
    page: dict[str, Any], destroy: Callable[..., tuple[int, list[str]]], tmp_path: Path
) -> Callable[..., tuple[int, list[str]]]:
    (tmp_path / "names.json").write_text(json.dumps(state_of(page)))
    with (tmp_path / "listed").open("a") as listed:
        listed.write("module.farm.module.web[0].aws_cognito_user_pool.this[0]\n")
        listed.write("module.farm.module.web[0].module.videos.aws_dynamodb_table.this\n")
        listed.write("module.farm.module.web[0].aws_lb.this\n")
    return destroy


def test_a_used_farm_is_left_as_it_is_and_says_what_it_holds(page, destroy_page, capsys):
    use(page)

    assert destroy_page("--confirm", "farm") == (1, [])

    said = capsys.readouterr()
    for words in (
        "bucket farm-in: 1 object versions, 2.0 KiB (uploads, some of them perhaps the only copy)",
        "bucket farm-out: 2 object versions, 1 Byte",
        "queue farm-hevc: 1 tasks of hevc",
        "queue farm-hevc-dlq: 1 dead letters of hevc",
        "table farm: job records",
        "operator policy: attached to the group editors",
        "table farm-videos: records of uploaded videos",
        f"user pool {page['user_pool']}: people who sign in to the page",
    ):
        assert words in said.out
    assert "nothing was changed" in said.err
    assert "DATA=keep" in said.err
    assert workers_wanted() == 1
    assert operators(page)


def test_deleting_lifts_the_protections_first_and_frees_what_holds_a_destroy_up(names, destroy):
    use(names)

    code, told = destroy("--data", "delete", "--confirm", "farm")

    assert code == 0
    apply, gone = told
    assert apply.startswith("farm apply ")
    assert "-var=force_destroy=true" in apply
    for part in ("registry", "ledger", "storage.aws_s3_bucket.this"):
        assert f"-target=module.farm.module.{part}" in apply
    assert gone.startswith("farm destroy ")
    assert "-target" not in gone
    assert workers_wanted() == 0
    assert not operators(names)


def test_keeping_takes_buckets_records_and_people_out_of_what_is_destroyed(
    page, destroy_page, capsys
):
    use(page)

    code, told = destroy_page("--data", "keep", "--confirm", "farm")

    assert code == 0
    assert told[0].startswith("farm state rm ")
    web = "web[0].module.videos", "web[0].aws_cognito_user_pool.this"
    for kept in ("module.storage", "module.ledger", *(f"module.{each}" for each in web)):
        assert f" module.farm.{kept}" in told[0]
        assert kept not in told[1]
    assert "-target=module.farm.module.web[0].aws_lb.this" in told[1]
    assert told[2].startswith("farm destroy ")
    said = capsys.readouterr().out
    assert f"cost storage: farm-in, farm-out, farm, farm-videos, {page['user_pool']}." in said


def test_a_farm_whose_apply_failed_is_taken_down_by_what_its_state_has(names, destroy, tmp_path):
    use(names)
    holds = {each: names[each] for each in ("region", "input_bucket", "output_bucket", "table")}
    state = json.dumps(state_of({**holds, "name": "farm"}))
    early = state.replace(teardown.GUARDS[1], teardown.GUARDS[0])
    (tmp_path / "names.json").write_text(early)
    (tmp_path / "listed").write_text("module.farm.module.storage.aws_s3_bucket.this\n")

    assert destroy("--confirm", "farm") == (1, [])
    code, told = destroy("--data", "delete", "--confirm", "farm")

    assert code == 0
    assert "-target=module.farm.module.storage.aws_s3_bucket.this" in told[0]
    assert "module.registry" not in told[0]
    assert told[1].startswith("farm destroy ")


@pytest.mark.parametrize("said", ["", "another"])
def test_nothing_is_changed_until_the_farms_name_is_typed(
    names, destroy, monkeypatch, capsys, said
):
    use(names)
    monkeypatch.setattr("builtins.input", lambda _question: said)

    assert destroy("--data", "delete") == (1, [])
    assert "not confirmed" in capsys.readouterr().err


@pytest.mark.terraform
def test_a_bare_destroy_is_stopped_before_anything_else_is_touched(folder):
    need_terraform()
    shutil.copytree(INFRA / "modules" / "teardown_guard", folder, dirs_exist_ok=True)

    def run(word: str, forced: str = "false", **more: str) -> subprocess.CompletedProcess[str]:
        flags = ["-auto-approve", "-no-color", "-var=name=farm", f"-var=force_destroy={forced}"]
        return terraform(folder, word, *flags, **more)

    for done in (terraform(folder, "init"), run("apply")):
        assert done.returncode == 0, done.stderr
    bare, forced_too_late = run("destroy"), run("destroy", forced="true")
    other = run("destroy", HEVCQ_TEARDOWN="another")
    for refused in (bare, forced_too_late, other):
        assert refused.returncode != 0
        assert "so nothing was destroyed" in refused.stdout + refused.stderr
    assert run("apply", forced="true").returncode == 0
    assert run("destroy").returncode == 0
    assert run("apply").returncode == 0
    assert run("destroy", HEVCQ_TEARDOWN="farm").returncode == 0


@pytest.mark.terraform
def test_a_profile_that_is_taken_out_keeps_its_queues_until_that_is_said(folder):
    need_terraform()
    shutil.copytree(INFRA / "modules" / "teardown_guard", folder / "guard")
    (folder / "main.tf").write_text(
        'variable "profiles" { type = set(string) }\nmodule "queue_guard" {\n  source = "./guard"\n'
        '  for_each = var.profiles\n  name = "farm"\n  profile = each.key\n'
        "  force_destroy = false\n}\n"
    )

    def apply(profiles: str, **more: str) -> subprocess.CompletedProcess[str]:
        flags = ("-auto-approve", "-no-color", f"-var=profiles={profiles}")
        return terraform(folder, "apply", *flags, **more)

    assert terraform(folder, "init").returncode == 0
    assert apply('["hevc","720p"]').returncode == 0
    for refused in (apply('["hevc"]'), apply('["hevc"]', HEVCQ_DROP_PROFILE="hevc")):
        assert refused.returncode != 0
        assert "The profile 720p is no longer deployed" in refused.stdout + refused.stderr
    assert apply('["hevc"]', HEVCQ_DROP_PROFILE="720p").returncode == 0
    assert apply("[]", HEVCQ_TEARDOWN="farm").returncode == 0


@pytest.mark.terraform
def test_the_guard_stands_before_every_resource_of_the_farm(plan):
    farm = plan["configuration"]["root_module"]["module_calls"]["farm"]["module"]
    guarded = set(farm["module_calls"]["teardown_guard"]["depends_on"])
    assert farm["module_calls"]["data_guard"]["depends_on"] == ["module.storage", "module.ledger"]
    parts = {f"module.{name}" for name in farm["module_calls"]} - {"module.teardown_guard"}
    own = {each["address"] for each in farm["resources"] if each["mode"] == "managed"}

    assert guarded == parts | own


@pytest.mark.parametrize("state", ["{}", '{"values": {"root_module": {"resources": []}}}'])
def test_a_folder_without_a_farm_is_said_to_be_one(destroy, tmp_path, capsys, state):
    (tmp_path / "names.json").write_text(state)

    assert destroy("--data", "delete", "--confirm", "farm") == (1, [])
    assert "no farm is known here" in capsys.readouterr().err


def test_a_state_that_cannot_be_read_changes_nothing(destroy, tmp_path, capsys):
    (tmp_path / "names.json").unlink()

    assert destroy("--data", "delete", "--confirm", "farm") == (1, [])
    assert "`terraform show` says" in capsys.readouterr().err
