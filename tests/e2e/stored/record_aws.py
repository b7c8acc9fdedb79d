"""How `aws.json` was made: `python record_aws.py`, after and like `record.py` beside it.

The release's own worker works on an emulator of AWS until there is a job in every state; then all
that AWS would keep is written down as it is: items, message bodies, objects.
"""

# The sorting of imports does not know the old release's modules.
# ruff: noqa: I001
from __future__ import annotations

import base64
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import hevcq
from aws.moto_server import Farm, make_farm
from hevcq.clock import SystemClock
from hevcq.domain.job import Phase, Progress, Task, TaskKind, job_id
from hevcq.domain.planner import make_plan
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.profiles import load_profiles
from hevcq.settings import Settings
from hevcq.settings_load import load
from hevcq.worker.handler import Handler, ProfileQueue
from hevcq.worker.context import WorkerContext
from hevcq.worker.loop import Worker
from hevcq.worker.scratch import Scratch

HERE = Path(__file__).parent
FOLDER = Path("/srv/hevcq-stored/aws")
FINISHED = ("done", "larger", "damaged", "odd näme")


def main(folder: Path) -> None:
    with zipfile.ZipFile(HERE / "files.zip") as archive:
        archive.extractall(folder)
    profiles = load_profiles(folder / "profiles")
    farm = make_farm(profiles, clock=SystemClock())
    scratch = Scratch(folder / "scratch", SystemClock())
    context = WorkerContext(
        farm.backend,
        FfmpegEncoder("ffmpeg", "ffprobe", farm.clock),
        make_plan,
        scratch,
        farm.clock,
        threads=1,
    )
    handler = Handler(context, farm.backend.owner)
    workers = {
        name: Worker(context, handler, [ProfileQueue(profile, farm.backend.queues[name])])
        for name, profile in profiles.items()
    }
    finished_ones(farm, workers["hevc"], folder / "lib")
    unfinished_ones(farm, workers["chunked"], folder / "lib")
    stored = {
        "items": items(farm),
        "messages": {name: messages(farm, name) for name in profiles},
        "letters": {name: messages(farm, f"{name}-dlq") for name in profiles},
        "tasks": tasks(farm),
        "uploads": uploads(farm),
        "objects": objects(farm),
    }
    write("aws.json", stored)
    write("settings.json", {"values": settings(), "profiles": shipped_profiles()})
    scratch.close()
    farm.backend.close()


def write(name: str, stored: object) -> None:
    text = json.dumps(stored, indent=1, ensure_ascii=False, sort_keys=True)
    (HERE / name).write_text(text + "\n")


def settings() -> dict[str, Any]:
    found = load(config=HERE / "hevcq.toml").settings.model_dump(mode="json")
    defaults = Settings().model_dump(mode="json")
    kept = {name for name in found if name != "aws" and found[name] == defaults[name]}
    assert not kept, f"hevcq.toml leaves {kept} at the default"
    assert found["aws"].keys() == defaults["aws"].keys()
    return found


def shipped_profiles() -> dict[str, dict[str, str]]:
    """Return the recipes that came with the release, with the revision each was known by."""
    folder = Path(hevcq.__file__).parents[2] / "workers"
    return {
        name: {"yaml": (folder / f"{name}.yaml").read_text(), "revision": profile.revision}
        for name, profile in load_profiles(folder).items()
    }


def upload(farm: Farm, folder: str, path: Path) -> None:
    farm.clients.s3.put_object(
        Bucket="uploads", Key=f"TODO/{folder}/{path.name}", Body=path.read_bytes()
    )


def work_off(farm: Farm, worker: Worker, queue: str) -> None:
    while farm.backend.queues[queue].depth().ready:
        worker.step()


def finished_ones(farm: Farm, worker: Worker, library: Path) -> None:
    """Done, skipped and remembered, dead with its letter, a letter of no job, and reopened."""
    for name in FINISHED:
        upload(farm, "hevc", library / f"{name}.mkv")
    farm.put_body("hevc", '{"forged": true}')
    work_off(farm, worker, "hevc")
    (again,) = [s for s in farm.backend.store.sources("TODO/") if "odd" in s.key]
    assert farm.backend.ledger.reopen(job_id(again, "hevc"), who="operator", why="a new recipe")
    farm.backend.queues["hevc"].send([Task(source=again, profile="hevc")])


def unfinished_ones(farm: Farm, worker: Worker, library: Path) -> None:
    """Split with one chunk done, running under a lease that ends, and a fresh upload's event."""
    work_off(farm, worker, "chunked")
    upload(farm, "chunked", library / "split.mkv")
    for _ in range(2):
        worker.step()
    for path in (library.parent / "mended.mkv", library / "waiting.mkv"):
        upload(farm, "hevc", path)
    (begun,) = [s for s in farm.backend.store.sources("TODO/") if "mended" in s.key]
    granted = farm.backend.ledger.claim(begun, "hevc", owner="gone:0", lease_s=1)
    half = Progress(phase=Phase.ENCODE, percent=50.0, speed=2.0, eta_s=7.5)
    farm.backend.ledger.progress(job_id(begun, "hevc"), granted.fence, half)


def items(farm: Farm) -> list[dict[str, Any]]:
    found = farm.clients.dynamodb.scan(TableName=farm.settings.aws.table)["Items"]
    return sorted(found, key=lambda item: item["pk"]["S"])


def messages(farm: Farm, name: str) -> list[dict[str, Any]]:
    found = []
    while got := farm.clients.sqs.receive_message(
        QueueUrl=farm.url(farm.settings.aws.queue_prefix + name),
        MaxNumberOfMessages=10,
        WaitTimeSeconds=0,
        VisibilityTimeout=3600,
        MessageAttributeNames=["All"],
    ).get("Messages"):
        found += got
    kept = ("Body", "MessageAttributes")
    return [{name: each[name] for name in kept if name in each} for each in found]


def tasks(farm: Farm) -> list[dict[str, str]]:
    """Every kind of task as the release sends it, with the identity of what it asks for."""
    source = next(s for s in farm.backend.store.sources("TODO/") if "split" in s.key)
    split = {"split": "0123456789abcdef-1", "group": source.source_id}
    made = [
        Task(source=source, profile="hevc"),
        Task(source=source, profile="chunked", kind=TaskKind.CHUNK, chunk=3, **split),
        Task(source=source, profile="chunked", kind=TaskKind.JOIN, **split),
    ]
    return [{"body": each.body(), "job_id": each.job_id, "unit_id": each.unit_id} for each in made]


def uploads(farm: Farm) -> list[dict[str, str]]:
    """Return what is in the inbox; the bytes are those of the stored file of that name."""
    found = farm.backend.store.sources("TODO/")
    return [
        {"key": each.key, "version": each.version, "name": each.key.rpartition("/")[2]}
        for each in found
    ]


def objects(farm: Farm) -> list[dict[str, Any]]:
    found = []
    for each in farm.clients.s3.list_objects_v2(Bucket="out")["Contents"]:
        got = farm.clients.s3.get_object(Bucket="out", Key=each["Key"])
        content = base64.b64encode(got["Body"].read()).decode()
        found.append({"key": each["Key"], "metadata": got["Metadata"], "content": content})
    return found


if __name__ == "__main__":
    shutil.rmtree(FOLDER, ignore_errors=True)
    main(FOLDER)
