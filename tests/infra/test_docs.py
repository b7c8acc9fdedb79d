"""The Terraform documents agree with the code, and so do its defaults."""

import re
import sys

import pytest

from hevcq.domain.profile import FARGATE_MEMORY_MIB, Fleet, QueueNumbers
from infra.terraform import INFRA, ROOT, run_command


def test_every_module_readme_is_up_to_date():
    done = run_command(sys.executable, "scripts/write_infra_docs.py", "--check", cwd=ROOT)

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("block", "model"), [("queue_defaults", QueueNumbers), ("fleet_defaults", Fleet)]
)
def test_defaults_are_those_of_the_profile_model(block, model):
    text = (INFRA / "main.tf").read_text(encoding="utf-8")
    found = re.search(rf"{block} = \{{(.*?)\n  \}}", text, re.DOTALL)
    assert found

    values = dict(re.findall(r'(\w+)\s+=\s+"?([\w.]+)"?', found.group(1)))

    assert values == {name: str(getattr(model(), name)) for name in values}


def test_the_example_hands_every_setting_to_the_farm():
    """A variable that it does not declare is ignored by Terraform with a mere warning."""
    example = (INFRA / "examples" / "minimal" / "main.tf").read_text(encoding="utf-8")
    farm = set(
        re.findall(r'^variable "([^"]+)"', (INFRA / "variables.tf").read_text(), re.MULTILINE)
    )

    assert farm <= set(re.findall(r"^  (\w+) += var\.\1$", example, re.MULTILINE))
    assert farm <= set(re.findall(r'^variable "([^"]+)"', example, re.MULTILINE))


def test_terraform_takes_the_task_sizes_that_the_profile_model_takes():
    text = (INFRA / "modules" / "worker_service" / "main.tf").read_text(encoding="utf-8")
    found = re.search(r"fargate_memory_mib = \{\n(.*?)\n  \}", text, re.DOTALL)
    assert found
    sizes = {}
    for cpu, listed, bounds in re.findall(
        r'"(\d+)"\s+= (?:\[(.*?)\]|range\((.*?)\))', found.group(1)
    ):
        if listed:
            sizes[int(cpu)] = [int(one) for one in listed.split(",")]
        else:
            first, last, step = re.fullmatch(r"(\d+), (\d+) \+ 1, (\d+)", bounds).groups()
            sizes[int(cpu)] = [*range(int(first), int(last) + 1, int(step))]

    assert sizes == {cpu: [*offered] for cpu, offered in FARGATE_MEMORY_MIB.items()}
