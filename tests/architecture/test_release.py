"""One version is the package's, the changelog's, the images' and the tag's; the workflows run what people run."""

import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from scripts import release

from support.forkserver import HEVCQ

ROOT = Path(release.ROOT)
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def steps(path: Path) -> list[dict]:
    jobs = yaml.safe_load(path.read_text())["jobs"].values()
    return [step for job in jobs for step in job.get("steps", ())]


def test_program_wheel_changelog_images_and_tag_name_one_version():
    said = subprocess.run([str(HEVCQ), "--version"], capture_output=True, text=True, check=True)

    assert said.stdout == f"hevcq {release.version()}\n"
    assert version("hevcq") == release.version()
    assert list(release.differences()) == []
    assert list(release.differences(f"v{release.version()}")) == []


def test_each_place_that_names_another_version_is_told(tmp_path):
    for name, text in {
        "src/hevcq/__init__.py": '__version__ = "0.2.0"\n',
        "CHANGELOG.md": "## [0.1.0] - 2026-11-24\n\nThe first.\n",
        "docker/compose.yaml": "image: hevcq-worker:0.1.0\n",
        "docker/worker.Dockerfile": "ARG VERSION=0.2.0\n",
        "docs/a/b.md": "`hevcq-home:0.3.0`",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    told = list(release.differences("v0.1.0", tmp_path))

    assert [line.partition(":")[0] for line in told] == [
        "the tag v0.1.0",
        "CHANGELOG.md",
        "docker/compose.yaml",
        "docs/a/b.md",
    ]


def test_the_notes_of_a_release_are_its_section_of_the_changelog(tmp_path):
    (tmp_path / "src/hevcq").mkdir(parents=True)
    (tmp_path / "src/hevcq/__init__.py").write_text('__version__ = "0.2.0"\n')
    sections = "## [0.2.0] - 2027-01-01\n\n- New.\n\n## [0.1.0] - 2026-11-24\n\n- Old.\n"
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{sections}")

    assert release.notes(tmp_path) == "- New."
    assert release.notes()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_make_targets_and_may_only_read(path):
    """What needs more than reading says so at its job."""
    whole = yaml.safe_load(path.read_text())
    lines = [line for step in steps(path) for line in step.get("run", "").splitlines()]
    targets = {found[1] for line in lines if (found := re.match(r"make (?:-s )?([a-z-]+)", line))}

    assert whole["permissions"] == {"contents": "read"}
    assert targets
    assert targets <= TARGETS
    assert all(step.get("uses", "@").count("@") == 1 for step in steps(path))


@pytest.mark.skipif(shutil.which("actionlint") is None, reason="actionlint is not installed")
def test_actionlint_finds_nothing():
    done = subprocess.run(["actionlint"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.stdout == ""
