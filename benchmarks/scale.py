"""What a day of uploads does to queue, ledger and fleet: the real code against the services' limits.

Run as `python -m benchmarks.scale [JOBS]` (default 20,000 jobs a run; `make scale` takes a million, in
8 minutes of CPU).
It plans the example offline, which needs terraform and its provider.

Real are the reading of S3's event, the routing to a profile, the ledger's claim and end of each job
with all their conditions, and the scaling rules of the plan. Modelled are the services, by their
documented limits (docs/farm/scale.md has the sources): 1,000 writes a second in each partition of
an index, 120,000 messages in flight, 500 tasks a minute started by a service, metrics 1 to 3 minutes
late. Virtual time, in steps of STEP_S. Nothing here was measured on AWS.
"""

from __future__ import annotations

import collections
import functools
import heapq
import itertools
import json
import random
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

from botocore.exceptions import ClientError

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / part) for part in ("", "tests")]

from benchmarks.scaling import (
    STEP_S,
    TASK_HOUR_USD,
    Metrics,
    Rules,
    Scaler,
    offline_resources,
    rules_of,
)

from hevcq.backends.aws.dynamodb import job_table, schema
from hevcq.backends.aws.dynamodb.ledger import PROGRESS_EVERY_S, DynamoLedger
from hevcq.backends.aws.sqs.message_parser import Recipient, parse
from hevcq.domain.job import RenditionRef, Task
from hevcq.errors import Unavailable
from hevcq.ports.ledger import Granted
from support.clips import ManualClock

PARTITION_WRITES = 1_000 * STEP_S
"""Write units of one partition in a step."""
IN_FLIGHT = 120_000
STARTS_A_MINUTE = 500
START_S = (60, 120)
HEARTBEAT_S = 100.0
WRITE_USD, REQUEST_USD = 0.625e-6, 0.40e-6
KNOWN = frozenset({"hevc", "720p", "1080p"})
MADE = RenditionRef(key="DONE/hevc/a.mp4", size=1, sha256="0" * 64, certificate_key="c")
EVENT = {
    "eventVersion": "2.1",
    "eventSource": "aws:s3",
    "eventName": "ObjectCreated:Put",
    "s3": {"bucket": {"name": "uploads"}},
}


class Refused(ClientError):
    """A condition that does not hold."""


class Table:
    """A DynamoDB table as far as the ledger uses it for one job, with the limits of its index."""

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Any]] = {}
        self.units = self.throttles = 0
        self.written: collections.Counter[str] = collections.Counter()
        self.hottest = 0
        self.exceptions = mock.Mock(ConditionalCheckFailedException=Refused)

    def step(self) -> None:
        """Begin the next step of time."""
        self.hottest = max([self.hottest, *self.written.values()])
        self.written.clear()

    def get_item(self, *, Key: Any, **_more: Any) -> dict[str, Any]:  # noqa: N803 - boto's name
        item = self.items.get(Key["pk"]["S"])
        return {"Item": dict(item)} if item is not None else {}

    def put_item(self, *, Item: Any, **_more: Any) -> dict[str, Any]:  # noqa: N803
        there = self.items.get(Item["pk"]["S"])
        if there is not None:
            raise _refused(there)
        self._write(None, Item)
        return {}

    def update_item(self, *, Key: Any, **asked: Any) -> dict[str, Any]:  # noqa: N803
        pk, names = Key["pk"]["S"], asked["ExpressionAttributeNames"]
        values, item = asked["ExpressionAttributeValues"], self.items.get(pk, {})
        expected, sets, removed = _read(asked["ConditionExpression"], asked["UpdateExpression"])
        for name, value in expected:
            if item.get(names[name]) != values[value]:
                raise _refused(item)
        changed = dict(item)
        for name, value in sets:
            changed[names[name]] = values[value]
        for name in removed:
            changed.pop(names[name], None)
        self._write(item, changed)
        return {}

    def _write(self, old: Mapping[str, Any] | None, new: dict[str, Any]) -> None:
        places = [entry["shard"]["S"] for entry in (old or {}, new) if "shard" in entry]
        if old is not None and old.get("shard") == new.get("shard"):
            places = []
        if any(self.written[place] + 1 > PARTITION_WRITES for place in places):
            self.throttles += 1
            raise ClientError({"Error": {"Code": "ThrottlingException"}}, "UpdateItem")
        self.written.update(places)
        self.units += 1 + len(places) + (2 if old is None else 0)
        self.items[new["pk"]["S"]] = new

    def forget(self, job_id: str) -> None:
        """Drop a job that ended, for this simulation's memory."""
        self.items.pop(schema.job_pk(job_id, "hevc"), None)


@functools.lru_cache(maxsize=1024)
def _read(
    condition: str, update: str
) -> tuple[list[tuple[str, str]], list[tuple[str, str]], list[str]]:
    """Return what must be equal, what is set, and what is removed; the ledger writes few texts."""
    clauses = dict(re.findall(r"(SET|REMOVE|ADD) (.*?)(?= (?:REMOVE|ADD) |$)", update))
    return (
        re.findall(r"(#\w+) = (:if_\w+)", condition),
        re.findall(r"(#\w+) = (:\w+)", clauses.get("SET", "")),
        re.findall(r"#\w+", clauses.get("REMOVE", "")),
    )


def _refused(item: Mapping[str, Any]) -> Refused:
    answer: Any = {"Error": {"Code": "ConditionalCheckFailedException"}, "Item": item}
    return Refused(answer, "Write")


@dataclass(frozen=True)
class Day:
    """Uploads that arrive evenly within `hours`, the fleet's limit, and the mean time of a job."""

    uploads: int
    hours: float
    max_tasks: int
    job_s: float = 1800.0
    warm: bool = False


@dataclass
class Seen:
    """What became of a day; waits are seconds from upload to claim."""

    done: int = 0
    hours: float = 0.0
    task_h: float = 0.0
    most_waiting: int = 0
    most_in_flight: int = 0
    most_tasks: int = 0
    units: int = 0
    requests: int = 0
    throttles: int = 0
    hottest: float = 0.0
    waits: list[float] = None  # type: ignore[assignment]

    def wait_h(self, share: float) -> float:
        """Return the wait in hours that this share of the jobs did not exceed."""
        return sorted(self.waits)[min(len(self.waits) - 1, int(share * len(self.waits)))] / 3600


class Fleet:
    """One profile's queue, ledger and service. Has what Metrics and Scaler ask of a farm."""

    def __init__(self, rules: Rules, day: Day, seed: int) -> None:
        self.rules = replace(rules, capacity=(day.max_tasks if day.warm else 0, day.max_tasks))
        self.day, self.random = day, random.Random(seed)
        self.clock, self.table = ManualClock(start=0.0), Table()
        tokens = itertools.count()
        self.ledger = DynamoLedger(
            self.table,  # type: ignore[arg-type]
            "hevcq",
            self.clock,
            lambda: str(next(tokens)),
            bucket="uploads",
        )
        self.recipient = Recipient(profile="hevc", subscribed=True, known=KNOWN, bucket="uploads")
        self.queue: collections.deque[tuple[float, int]] = collections.deque()
        self.working: list[tuple[float, int, Task, int]] = []
        self.starting: list[float] = []
        self.ready, self.desired, self.used = 0, self.rules.capacity[0], 0.0
        if day.warm:
            self.ready = day.max_tasks
        self.starts, self.sent, self.numbers = 0.0, 0, itertools.count()
        self.seen = Seen(waits=[])

    @property
    def waiting(self) -> int:
        return len(self.queue)

    @property
    def busy(self) -> int:
        return len(self.working)

    def running(self, _now: float) -> int:
        return self.ready

    def step(self, now: float) -> None:
        """Take in uploads, end jobs, start and stop tasks, and let idle tasks claim work."""
        self.table.step()
        self.clock.advance(STEP_S)
        due = min(self.day.uploads, int(self.day.uploads * now / (self.day.hours * 3600)))
        self.queue.extend((now, number) for number in range(self.sent, due))
        self.sent = max(self.sent, due)
        while self.working and self.working[0][0] <= now:
            self._end(now, *heapq.heappop(self.working))
        self._fit(now)
        while self.queue and self.busy < min(self.ready, IN_FLIGHT):
            if not self._claim(now, *self.queue.popleft()):
                break
        if self.queue or self.working or self.ready:
            self.used = now

    def _fit(self, now: float) -> None:
        while self.starting and self.starting[0] <= now:
            heapq.heappop(self.starting)
            self.ready += 1
        self.starts = min(STARTS_A_MINUTE, self.starts + STARTS_A_MINUTE * STEP_S / 60)
        lacking = self.desired - self.ready - len(self.starting)
        for _ in range(max(0, min(lacking, int(self.starts)))):
            heapq.heappush(self.starting, now + self.random.uniform(*START_S))
            self.starts -= 1
        # What has work is protected from scaling in.
        self.ready -= max(0, min(-lacking, self.ready - self.busy))

    def _claim(self, now: float, since: float, number: int) -> bool:
        detail = {
            "key": f"TODO/all/machine.a/videos/{number}.mp4",
            "size": 1,
            "versionId": f"v{number}",
        }
        body = json.dumps({"Records": [{**EVENT, "s3": {**EVENT["s3"], "object": detail}}]})  # type: ignore[dict-item]
        (task,) = parse(body, self.recipient).tasks
        try:
            found = self.ledger.claim(task.source, "hevc", owner="w", lease_s=300)
        except Unavailable:
            self.queue.appendleft((since, number))
            return False
        assert isinstance(found, Granted)
        took = self.day.job_s * self.random.lognormvariate(-0.125, 0.5)
        heapq.heappush(self.working, (now + took, next(self.numbers), task, found.fence))
        beats = int(took / HEARTBEAT_S)
        self.seen.requests += 2 + beats
        self.seen.units += beats + int(took / PROGRESS_EVERY_S)
        self.seen.waits.append(now - since)
        return True

    def _end(self, now: float, _at: float, number: int, task: Task, fence: int) -> None:
        try:
            self.ledger.complete(task.job_id, fence, MADE, cpu_s=1.0)
        except Unavailable:
            heapq.heappush(self.working, (now + STEP_S, number, task, fence))
            return
        self.table.forget(task.job_id)
        self.seen.done += 1


def simulate(rules: Rules, day: Day, *, seed: int = 1, shards: int = schema.SHARDS) -> Seen:
    """Play a day to its last job; `shards` is the number of index partitions of each state."""
    # One ledger stands for thousands of workers, each of which remembers the keys of its own jobs.
    known = mock.patch.object(job_table, "MAX_KNOWN", IN_FLIGHT + day.uploads)
    with mock.patch.object(schema, "SHARDS", shards), known:
        fleet = Fleet(rules, day, seed)
        metrics, seen, now = Metrics(fleet), fleet.seen, 0
        scaler = Scaler(fleet, metrics)
        while seen.done < day.uploads:
            now += STEP_S
            fleet.step(now)
            if now % 60 == 0:
                metrics.note(now)
                scaler.act(now)
            seen.task_h += fleet.ready * STEP_S / 3600
            seen.most_tasks = max(seen.most_tasks, fleet.ready)
            seen.most_waiting = max(seen.most_waiting, fleet.waiting)
            seen.most_in_flight = max(seen.most_in_flight, fleet.busy)
    seen.hours, seen.throttles = now / 3600, fleet.table.throttles
    seen.hottest = fleet.table.hottest / STEP_S
    seen.units += fleet.table.units
    return seen


HEAD = (
    "| run | jobs | last job, h | wait, median / 99 %, h | most waiting | most tasks | writes a second "
    "in the hottest partition | throttled | ledger + queue, $ | tasks on demand, $ |"
)


def row(name: str, seen: Seen) -> str:
    """Return one line of the table."""
    control = seen.units * WRITE_USD + seen.requests * REQUEST_USD
    return (
        f"| {name} | {seen.done:,} | {seen.hours:.1f} | {seen.wait_h(0.5):.2f} / {seen.wait_h(0.99):.2f} "
        f"| {seen.most_waiting:,} | {seen.most_tasks:,} | {seen.hottest:.0f} | {seen.throttles:,} "
        f"| {control:.2f} | {seen.task_h * TASK_HOUR_USD:,.0f} |"
    )


def main() -> int:
    """Print the table."""
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    rules = rules_of(offline_resources(), "hevc")
    print(HEAD)
    print("|" + "---|" * 10)
    ten = min(jobs, 10_000)
    burst = Day(jobs, jobs / 1157 / 3600, 60_000, job_s=40.0, warm=True)
    runs = {
        f"{ten:,} in a day, 20 tasks (default)": (Day(ten, 24, 20), schema.SHARDS),
        f"{ten:,} in a day, 300 tasks": (Day(ten, 24, 300), schema.SHARDS),
        f"{jobs:,} at a million a day, 25,000 tasks": (
            Day(jobs, 24 * jobs / 1e6, 25_000),
            schema.SHARDS,
        ),
        f"{jobs:,} at 100 million a day, one partition": (burst, 1),
        f"{jobs:,} at 100 million a day, {schema.SHARDS} partitions": (burst, schema.SHARDS),
    }
    for name, (day, shards) in runs.items():
        before = time.process_time()
        print(row(name, simulate(rules, day, shards=shards)), flush=True)
        took = time.process_time() - before
        print(f"{name}: {took:.0f} s of CPU", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
