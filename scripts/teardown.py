"""Take the farm down in an order that fails before it does harm.

Run by `make destroy`. First lists everything that the farm still holds: videos, messages, tasks, job
records. Unless DATA says what to do with them, it stops there and changes nothing. `DATA=keep` leaves
buckets and job records in the account, with their protections. `DATA=delete` deletes everything, once
the farm's name was typed (or given as CONFIRM=name).
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import humanize
from botocore.exceptions import BotoCoreError, ClientError

FARM = "module.farm"
GUARDS = tuple(
    f"{FARM}.module.{name}.terraform_data.guard" for name in ("data_guard", "teardown_guard")
)
"""The later one knows the whole farm; an apply that failed midway made the first one only."""
KEPT = (f"{FARM}.module.storage.", f"{FARM}.module.ledger.")
PAGE = f"{FARM}.module.web[0]"
USERS = f"{PAGE}.aws_cognito_user_pool.this"
PAGE_KEPT = (f"{PAGE}.module.videos.", USERS)
COUNTED = 100_000
"""Versions that are counted in a bucket before "more than" is said."""
NO_IMAGE = "-var=image=hevcq-worker:teardown"
"""Nothing of an image is made here, and the variable has no default."""
AGAIN = "Run make destroy again; if it knows no farm any more, the rest goes with:"


class Refused(Exception):
    """Why the farm was left as it is, for a person."""


@dataclass(frozen=True, slots=True)
class Holding:
    """Something that the farm still holds; `data` if it cannot be made again."""

    what: str
    data: bool = True


class Farm:
    """The farm in the account, by the names that its Terraform state gives."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names
        self._session = boto3.session.Session(region_name=names["region"])

    def client(self, service: str) -> Any:
        """Return boto3's client of a service, in the farm's region."""
        return self._session.client(service)  # type: ignore[call-overload]

    def holdings(self) -> Iterator[Holding]:
        """Yield everything that the farm still holds, most precious first."""
        yield from self._bucket("input_bucket", "uploads, some of them perhaps the only copy")
        yield from self._bucket("output_bucket", "renditions and certificates")
        for profile, urls in self.names.get("queues", {}).items():
            for url, what in zip(
                urls, ("tasks", "dead letters", "undelivered uploads"), strict=True
            ):
                yield from self._queue(url, f"{what} of {profile}")
        yield from self._table("table", "job records")
        if self.page:
            yield from self._table("videos_table", "records of uploaded videos")
            yield from self._users()
        for profile, service in self.names.get("services", {}).items():
            if tasks := self.tasks(service):
                yield Holding(
                    f"service {service}: {len(tasks)} running workers of {profile}", False
                )
        if groups := [name for name, _ in self.policy_holders()]:
            yield Holding(f"operator policy: attached to {', '.join(groups)}", False)

    def _bucket(self, name: str, what: str) -> Iterator[Holding]:
        bucket, count, size = self.names[name], 0, 0
        pages = self.client("s3").get_paginator("list_object_versions").paginate(Bucket=bucket)
        for page in pages:
            found = page.get("Versions", [])
            count += len(found) + len(page.get("DeleteMarkers", []))
            size += sum(version["Size"] for version in found)
            if count >= COUNTED:
                break
        if count:
            more = "more than " if count >= COUNTED else ""
            much = humanize.naturalsize(size, binary=True)
            yield Holding(f"bucket {bucket}: {more}{count} object versions, {more}{much} ({what})")

    def _queue(self, url: str, what: str) -> Iterator[Holding]:
        names = [f"ApproximateNumberOfMessages{state}" for state in ("", "NotVisible", "Delayed")]
        found = self.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)
        count = sum(int(value) for value in found["Attributes"].values())
        if count:
            yield Holding(f"queue {url.rsplit('/', 1)[1]}: {count} {what}")

    @property
    def page(self) -> bool:
        """Whether the farm has the page; a farm of an older version does not say."""
        return bool(self.names.get("videos_table"))

    def _table(self, name: str, what: str) -> Iterator[Holding]:
        table = self.names[name]
        if _there(lambda: self.client("dynamodb").scan(TableName=table, Limit=1))["Items"]:
            yield Holding(f"table {table}: {what}")

    def _users(self) -> Iterator[Holding]:
        pool = self.names["user_pool"]
        if pool and self.client("cognito-idp").list_users(UserPoolId=pool, Limit=1)["Users"]:
            yield Holding(f"user pool {pool}: people who sign in to the page")

    def tasks(self, service: str) -> list[str]:
        """Return the ARNs of a service's tasks."""
        pages = self.client("ecs").get_paginator("list_tasks")
        listed = pages.paginate(cluster=self.names["cluster"], serviceName=service)
        return [arn for page in listed for arn in page["taskArns"]]

    def policy_holders(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Yield each holder of the operator policy, and a function that detaches it."""
        iam, arn = self.client("iam"), self.names.get("operator_policy", "")
        if not arn:
            return
        found = iam.list_entities_for_policy(PolicyArn=arn)
        for kind in ("Group", "User", "Role"):
            for entity in found[f"Policy{kind}s"]:
                name = entity[f"{kind}Name"]
                detach = getattr(iam, f"detach_{kind.lower()}_policy")
                named = {"PolicyArn": arn, f"{kind}Name": name}
                yield f"the {kind.lower()} {name}", partial(detach, **named)

    def stop_workers(self) -> None:
        """Stop the workers and detach the operator policy from its holders: both block a destroy."""
        ecs, cluster = self.client("ecs"), self.names.get("cluster", "")
        for service in self.names.get("services", {}).values():
            ecs.update_service(cluster=cluster, service=service, desiredCount=0)
            for task in self.tasks(service):
                ecs.stop_task(cluster=cluster, task=task, reason="the farm is taken down")
        for _, detach in self.policy_holders():
            detach()


def _there(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return ask()
    except ClientError as error:
        if error.response["Error"]["Code"] == "ResourceNotFoundException":
            return {"Items": []}
        raise


class Terraform:
    """The terraform of one folder."""

    def __init__(self, folder: Path, more: Sequence[str], name: str = "") -> None:
        self._command = ["terraform", f"-chdir={folder}"]
        self._more = list(more)
        self.name = name

    def names(self) -> dict[str, Any]:
        """Return the farm's names from the guards in the state; raise Refused if it has no guard."""
        done = subprocess.run(
            [*self._command, "show", "-json"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Refused(f"`terraform show` says: {' '.join(done.stderr.split())}")
        modules = [json.loads(done.stdout).get("values", {}).get("root_module", {})]
        known: dict[str, dict[str, Any]] = {}
        while modules:
            module = modules.pop()
            modules += module.get("child_modules", [])
            for resource in module.get("resources", []):
                if resource["address"] in GUARDS:
                    known[resource["address"]] = resource["values"]["output"]
        if not known:
            raise Refused("no farm is known here.")
        newest = known[max(known, key=GUARDS.index)]
        return {**newest["holds"], "name": newest["name"]}

    def run(self, *arguments: str) -> None:
        """Run terraform with the guard lifted."""
        environment = {**os.environ, "HEVCQ_TEARDOWN": self.name}
        subprocess.run([*self._command, *arguments], env=environment, check=True)

    def in_state(self, *places: str) -> list[str]:
        """Return those of the modules and resources that are in the state."""
        listed = subprocess.run(
            [*self._command, "state", "list"], capture_output=True, text=True, check=True
        )
        return [each.rstrip(".") for each in places if each in listed.stdout]

    def remove_from_state(self, *places: str) -> None:
        """Remove modules and resources from the state, so that a destroy leaves them in the account."""
        if present := self.in_state(*places):
            self.run("state", "rm", *present)

    def change(self, action: str, *flags: str) -> None:
        """Apply or destroy without asking, since the person has confirmed already."""
        self.run(action, "-input=false", "-auto-approve", NO_IMAGE, *self._more, *flags)


def main(arguments: Sequence[str] | None = None) -> int:
    """Look, ask, and take the farm down; return the exit code."""
    wanted = _arguments(arguments)
    try:
        take_down(wanted)
    except Refused as error:
        print(f"make destroy: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError:
        print(
            "make destroy: terraform stopped, see above. Run make destroy again.", file=sys.stderr
        )
        return 1
    except (BotoCoreError, ClientError) as error:
        print(f"make destroy: nothing more was done, for AWS answered: {error}", file=sys.stderr)
        return 1
    return 0


def take_down(wanted: argparse.Namespace) -> None:
    """Take the farm down as wanted.

    Raises:
        Refused: It holds something, or nobody confirmed; nothing was changed.
    """
    terraform = Terraform(wanted.folder, wanted.terraform)
    farm = Farm(terraform.names())
    terraform.name = farm.names["name"]
    found = list(farm.holdings())
    for holding in found:
        print(f"  {holding.what}")
    data = any(holding.data for holding in found)
    if data and not wanted.data:
        raise Refused(WHAT_NOW)
    _confirm(terraform.name, wanted)
    farm.stop_workers()
    # AWS deletes a load balancer of the page only once its protection is lifted, too.
    protected = [f"{FARM}.module.registry.", f"{PAGE}.aws_lb.this"]
    if wanted.data == "keep":
        terraform.remove_from_state(*KEPT, *PAGE_KEPT)
    else:
        protected += [f"{FARM}.module.ledger.", *PAGE_KEPT]
        # Only if something is to be deleted: else a bucket that got a video meanwhile refuses to go.
        if data:
            protected.append(f"{FARM}.module.storage.aws_s3_bucket.this")
    if targets := [f"-target={each}" for each in terraform.in_state(*protected)]:
        terraform.change("apply", "-var=force_destroy=true", *targets)
    terraform.change("destroy")
    _say_what_is_left(farm, wanted)


WHAT_NOW = """the farm holds what is listed above; nothing was changed.
  To fetch renditions first: hevcq ingest --collect-only, or hevcq ingest, which waits for what is under way.
  To take the farm down and leave buckets and job records in the account: make destroy DATA=keep
  To delete all of it: make destroy DATA=delete"""


def _confirm(name: str, wanted: argparse.Namespace) -> None:
    if wanted.confirm == name:
        return
    what = {"delete": "and everything listed above", "keep": "but not its buckets and job records"}
    question = f"This deletes the farm {name} {what.get(wanted.data, '')}".rstrip()
    try:
        said = input(f"{question}. Type its name to go on: ")
    except EOFError:
        said = ""
    if said.strip() != name:
        raise Refused("not confirmed; nothing was changed. CONFIRM=name answers beforehand.")


def _say_what_is_left(farm: Farm, wanted: argparse.Namespace) -> None:
    if wanted.data == "keep":
        names = ("input_bucket", "output_bucket", "table", "videos_table", "user_pool")
        kept = ", ".join(farm.names[each] for each in names if farm.names.get(each))
        print(f"The farm is gone. In the account stay, and cost storage: {kept}.")
    else:
        print(
            "The farm is gone. Alarm topic, KMS key and Terraform's own state were never part of it."
        )


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Take the farm down.")
    parser.add_argument("--folder", type=Path, required=True, help="folder that terraform runs in")
    parser.add_argument("--data", choices=["", "keep", "delete"], default="")
    parser.add_argument("--confirm", default="", help="the farm's name, instead of a question")
    parser.add_argument("terraform", nargs="*", help="more arguments for terraform, after --")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
