"""A farm on the emulator of AWS with what the release left on it: items, messages and objects."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moto.backends import get_backend

from e2e.stored.relocate import HERE
from e2e.stored.stored_folder import PATIENCE_S
from hevcq.settings.profile_files import load_profiles
from hevcq.util.clock import SystemClock
from support import forkserver
from support.aws.emulator import KEYS
from support.aws.moto_server import Farm, make_farm
from support.forkserver import HEVCQ

STORED = json.loads((HERE / "aws.json").read_text())


def _text(value: object) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


@dataclass(frozen=True)
class StoredFarm:
    """The farm, and the installed command as an operator runs it."""

    folder: Path
    farm: Farm

    @property
    def environment(self) -> dict[str, str]:
        where = self.farm.settings.aws.model_dump().items()
        return {
            **os.environ,
            **KEYS,
            **{f"HEVCQ_AWS__{name.upper()}": _text(value) for name, value in where},
            "HEVCQ_BACKEND": "aws",
            "HEVCQ_DATA_DIR": str(self.folder / "data-here"),
            "HEVCQ_PROFILES_DIR": str(self.folder / "profiles"),
            "HEVCQ_MIN_FREE_MIB": "1",
            "HEVCQ_LOG_STYLE": "json",
        }

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        command = [str(HEVCQ), *(str(word) for word in words)]
        done = forkserver.run(command, PATIENCE_S, env=self.environment, text=True)
        assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
        return done

    def lines(self, *words: object) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.run(*words, "--json").stdout.splitlines()]

    def work(self, profile: str) -> list[dict[str, Any]]:
        """Let a worker do what there is for a profile; return its log."""
        log = self.run("worker", profile, "--drain", "--workers", 1).stderr.splitlines()
        return [json.loads(line) for line in log if line.startswith("{")]

    def jobs(self, profile: str) -> dict[str, int]:
        (status,) = self.lines("status")
        (found,) = [each for each in status["queues"] if each["profile"] == profile]
        return {state: count for state, count in found["jobs"].items() if count}

    def renditions(self) -> list[str]:
        found = self.farm.clients.s3.list_objects_v2(Bucket="out", Prefix="DONE/")["Contents"]
        return sorted(each["Key"] for each in found if not each["Key"].endswith(".json"))


def open_stored(folder: Path) -> StoredFarm:
    """Make the farm with resources of the present names, and put into them what is stored."""
    with zipfile.ZipFile(HERE / "files.zip") as archive:
        archive.extractall(folder)
    farm = make_farm(load_profiles(folder / "profiles"), clock=SystemClock())
    stored = StoredFarm(folder, farm)
    for each in STORED["uploads"]:
        (path,) = [*folder.glob(each["name"]), *folder.glob(f"lib/{each['name']}")]
        put_upload(farm, each["key"], each["version"], path.read_bytes())
    for each in STORED["objects"]:
        content = base64.b64decode(each["content"])
        farm.clients.s3.put_object(
            Bucket="out", Key=each["key"], Body=content, Metadata=each["metadata"]
        )
    for item in STORED["items"]:
        farm.clients.dynamodb.put_item(TableName=farm.settings.aws.table, Item=item)
    for name in ("hevc", "chunked"):
        send(farm, name, STORED["messages"][name])
        send(farm, f"{name}-dlq", STORED["letters"][name])
    return stored


def put_upload(farm: Farm, key: str, version: str, content: bytes) -> None:
    """Upload under the stored version's name; S3, and so the emulator, makes up a new one."""
    farm.clients.s3.put_object(Bucket="uploads", Key=key, Body=content)
    accounts = [each for region in get_backend("s3").values() for each in region.values()]
    (bucket,) = [each.buckets["uploads"] for each in accounts if "uploads" in each.buckets]
    bucket.keys[key]._version_id = version


def send(farm: Farm, queue: str, messages: list[dict[str, Any]]) -> None:
    """Put the stored messages there, and nothing else: not the events of uploading anew."""
    url = farm.url(farm.settings.aws.queue_prefix + queue)
    farm.clients.sqs.purge_queue(QueueUrl=url)
    for each in messages:
        attributes = each.get("MessageAttributes", {})
        farm.clients.sqs.send_message(
            QueueUrl=url, MessageBody=each["Body"], MessageAttributes=attributes
        )
