"""What `make push` builds, how it is named, and when it refuses: an emulated registry, a recorded engine."""

import subprocess
from pathlib import Path

import boto3
import pytest
from scripts import push_image

HOST = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
REPOSITORY = f"{HOST}/hevcq-worker"
ENGINE = """#!/bin/sh
echo "$(basename "$0") $*" >> "$RECORD"
case "$1" in login) cat > "$RECORD.password" ;; esac
case "$1" in "$FAILS") exit 1 ;; esac
"""


@pytest.fixture(autouse=True)
def registry(emulated: None) -> None:
    client = boto3.client("ecr", region_name="eu-central-1")
    client.create_repository(repositoryName="hevcq-worker", imageTagMutability="IMMUTABLE")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    (root / "workers").mkdir(parents=True)
    for name in ("hevc", "720p"):
        (root / "workers" / f"{name}.yaml").write_text(f"name: {name}\n")
    (root / "docker").mkdir()
    (root / push_image.DOCKERFILE).write_text(
        "FROM base AS build\nCOPY pyproject.toml README.md ./\nCOPY workers ./workers\n"
        "FROM base\nCOPY --from=build /opt/x /opt/x\n"
    )
    for name in ("pyproject.toml", "README.md"):
        (root / name).write_text("first\n")
    git(root, "init", "-q")
    commit(root)
    return root


def git(root: Path, *command: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    done = ["git", *identity, "-C", str(root), *command]
    return subprocess.run(done, capture_output=True, text=True, check=True).stdout.strip()


def commit(root: Path) -> str:
    git(root, "add", ".")
    git(root, "commit", "-qm", "a change")
    return git(root, "rev-parse", "--short=12", "HEAD")


@pytest.fixture(autouse=True)
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put engines on the path that record what they are told."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in push_image.ENGINES:
        (folder / name).write_text(ENGINE)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    monkeypatch.setenv("FAILS", "nothing")
    return tmp_path / "record"


def push(root: Path, *more: str, repository: str = REPOSITORY) -> tuple[int, str]:
    """Return the exit code, and what terraform will read."""
    written = root.parent / "image.auto.tfvars"
    arguments = ["--repository", repository, "--write", str(written), *more]
    code = push_image.main(arguments, root)
    return code, written.read_text() if written.is_file() else ""


def reported(record: Path) -> list[str]:
    return record.read_text().splitlines() if record.is_file() else []


def test_a_push_builds_for_the_fleet_and_names_the_image_by_its_commit(checkout, record):
    image = f"{REPOSITORY}:{git(checkout, 'rev-parse', '--short=12', 'HEAD')}"

    code, written = push(checkout, "--base-image", "python:pinned")

    revision = f"--build-arg REVISION={image.rpartition(':')[2]}"
    options = f"--platform linux/amd64 -f docker/worker.Dockerfile {revision}"
    assert (code, written) == (0, f'image = "{image}"\n')
    assert reported(record) == [
        f"docker login --username AWS --password-stdin {HOST}",
        f"docker build {options} --build-arg BASE_IMAGE=python:pinned -t {image} .",
        f"docker push {image}",
    ]
    password = record.with_name("record.password").read_text()
    assert password
    assert password not in record.read_text()


@pytest.mark.parametrize("engine", ["docker", "podman", "buildah"])
def test_a_fleet_of_two_architectures_gets_one_name_with_both(checkout, record, engine):
    (checkout / "workers" / "720p.yaml").write_text("name: 720p\nfleet: {architecture: arm64}\n")
    image = f"{REPOSITORY}:{commit(checkout)}"

    assert push(checkout, "--engine", engine)[0] == 0

    revision = f"--build-arg REVISION={image.rpartition(':')[2]}"
    both = f"--platform linux/amd64,linux/arm64 -f docker/worker.Dockerfile {revision}"
    if engine == "docker":
        wanted = [f"docker buildx build {both} -t {image} --push ."]
    else:
        wanted = [
            f"{engine} build {both} --manifest {image} .",
            f"{engine} manifest push --all {image} docker://{image}",
        ]
    assert reported(record)[1:] == wanted


@pytest.mark.parametrize(
    "changed", ["workers/hevc.yaml", "workers/new.yaml", "README.md", push_image.DOCKERFILE]
)
def test_what_is_not_committed_is_not_pushed_under_the_commits_name(
    checkout, record, capsys, changed
):
    with (checkout / changed).open("a") as file:
        file.write("# new\n")

    assert push(checkout) == (1, "")
    assert f"commit or remove {changed} first" in capsys.readouterr().err
    assert reported(record) == []


@pytest.mark.parametrize(
    ("repository", "said"),
    [
        ("No outputs found", "no registry is known (No outputs found); `make registry` makes it."),
        (f"{HOST}/another", "there is no registry another; `make registry` makes it."),
    ],
)
def test_a_push_without_a_registry_says_what_makes_one(checkout, capsys, repository, said):
    assert push(checkout, repository=repository) == (1, "")
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("step", ["login", "build", "push"])
def test_nothing_is_rolled_out_that_was_not_pushed(checkout, monkeypatch, capsys, step):
    monkeypatch.setenv("FAILS", step)

    assert push(checkout) == (1, "")
    assert f"docker {step} failed" in capsys.readouterr().err
