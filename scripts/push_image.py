"""Build the worker image for the fleet's processors and push it under the commit that it is of.

Run by `make push`, after `make registry`. Writes the image's name where `make plan` and `make apply`
read it, so that a release is `make push apply`. A commit is pushed once: the registry's tags never
change, and a second push of the same commit only writes the name again.
"""

import argparse
import base64
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import boto3
import yaml
from botocore.exceptions import BotoCoreError, ClientError

from hevcq.domain.profile import Fleet

ROOT = Path(__file__).resolve().parent.parent
ENGINES = ("docker", "podman", "buildah")
PLATFORMS = {"x86_64": "linux/amd64", "arm64": "linux/arm64"}
DOCKERFILE = "docker/worker.Dockerfile"
REGISTRY = re.compile(
    r"(?P<host>\d{12}\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com)/(?P<name>.+)"
)


class Refused(Exception):
    """Why nothing was pushed, for a person."""


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Push the image of the commit that is checked out; return the exit code."""
    wanted = _arguments(arguments, root)
    try:
        image = push(wanted, root)
        wanted.write.write_text(f'image = "{image}"\n', encoding="utf-8")
    except Refused as error:
        print(f"make push: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"make push: {error.cmd[0]} {error.cmd[1]} failed, see above.", file=sys.stderr)
        return 1
    except (BotoCoreError, ClientError) as error:
        print(f"make push: AWS answered: {error}", file=sys.stderr)
        return 1
    print(f"{image}\nNow `make apply` rolls it out: it is in {wanted.write.name}.")
    return 0


def push(wanted: argparse.Namespace, root: Path) -> str:
    """Build and push; return the image's name with its tag.

    Raises:
        Refused: Something has to be done first.
    """
    registry = REGISTRY.fullmatch(wanted.repository.strip())
    if registry is None:
        found = wanted.repository.strip() or "nothing"
        raise Refused(f"no registry is known ({found}); `make registry` makes it.")
    commit = _commit(root)
    platforms = _platforms(wanted.profiles)
    image = f"{registry['host']}/{registry['name']}:{commit}"
    client = boto3.client("ecr", region_name=registry["region"])
    if _is_there(client, registry["name"], commit):
        print(f"{image} is in the registry already; nothing is built.")
        return image
    engine = _engine(wanted.engine)
    _log_in(client, engine, registry["host"])
    for command in commands(engine, image, platforms, wanted.base_image):
        subprocess.run(command, cwd=root, check=True, stdin=subprocess.DEVNULL)
    return image


def commands(engine: str, image: str, platforms: Sequence[str], base: str) -> list[list[str]]:
    """Return the engine's commands: for one image, or for one of each processor under one name."""
    options = ["--platform", ",".join(platforms), "-f", DOCKERFILE]
    options += ["--build-arg", f"REVISION={image.rpartition(':')[2]}"]
    if base:
        options += ["--build-arg", f"BASE_IMAGE={base}"]
    if len(platforms) == 1:
        return [[engine, "build", *options, "-t", image, "."], [engine, "push", image]]
    if engine == "docker":
        return [[engine, "buildx", "build", *options, "-t", image, "--push", "."]]
    return [
        [engine, "build", *options, "--manifest", image, "."],
        [engine, "manifest", "push", "--all", image, f"docker://{image}"],
    ]


def _arguments(arguments: Sequence[str] | None, root: Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Push the worker image of this commit.")
    parser.add_argument("--repository", required=True, help="address of the farm's registry")
    parser.add_argument("--write", type=Path, required=True, help="file that gets the image's name")
    parser.add_argument("--profiles", type=Path, default=root / "workers")
    parser.add_argument("--base-image", default="")
    parser.add_argument("--engine", default="", help=", ".join(ENGINES))
    return parser.parse_args(arguments)


def _commit(root: Path) -> str:
    git = ["git", "-C", str(root)]
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--untracked-files=all", "--", *_in_the_image(root)],
        capture_output=True,
        text=True,
        check=False,
    )
    if changed.returncode:
        raise Refused(f"{root} is no git checkout, and the tag is the commit.")
    if changed.stdout.strip():
        files = ", ".join(line[3:] for line in changed.stdout.splitlines()[:3])
        raise Refused(f"commit or remove {files} first: the tag names the commit that is built.")
    command = [*git, "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _in_the_image(root: Path) -> list[str]:
    """Return the files that the image is made of: the Dockerfile, and those it copies from the checkout."""
    found = [DOCKERFILE, ".dockerignore"]
    for line in (root / DOCKERFILE).read_text(encoding="utf-8").splitlines():
        if line.startswith("COPY ") and "--from=" not in line:
            found += line.split()[1:-1]
    return found


def _platforms(folder: Path) -> list[str]:
    found = set()
    for path in sorted(folder.glob("*.yaml")):
        fleet = yaml.safe_load(path.read_text(encoding="utf-8")).get("fleet") or {}
        found.add(PLATFORMS[fleet.get("architecture", Fleet().architecture)])
    if not found:
        raise Refused(f"no profiles (*.yaml) in {folder}.")
    return sorted(found)


def _engine(named: str) -> str:
    for engine in [named] if named else ENGINES:
        if shutil.which(engine):
            return engine
    raise Refused(f"{named or ', '.join(ENGINES)}: not installed; images are built by one of them.")


def _is_there(client: Any, name: str, tag: str) -> bool:
    try:
        client.describe_images(repositoryName=name, imageIds=[{"imageTag": tag}])
    except client.exceptions.ImageNotFoundException:
        return False
    except client.exceptions.RepositoryNotFoundException as error:
        raise Refused(f"there is no registry {name}; `make registry` makes it.") from error
    return True


def _log_in(client: Any, engine: str, host: str) -> None:
    token = client.get_authorization_token()["authorizationData"][0]["authorizationToken"]
    user, _, password = base64.b64decode(token).decode().partition(":")
    # Over standard input: an argument could be read by every user of this machine.
    command = [engine, "login", "--username", user, "--password-stdin", host]
    subprocess.run(command, input=password.encode(), check=True)


if __name__ == "__main__":
    sys.exit(main())
