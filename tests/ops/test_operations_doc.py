"""docs/farm/operations.md names only what there is: whoever is paged has no time for a wrong page."""

import re
from pathlib import Path

from hevcq.cli.app import COMMANDS
from hevcq.domain.profile import Profile
from hevcq.domain.profile_sections import QueueNumbers
from hevcq.domain.verdict import FailureClass
from hevcq.settings.explain import leaves
from hevcq.settings.model import Settings

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "farm" / "operations.md").read_text(encoding="utf-8")
TERRAFORM = "".join(
    path.read_text(encoding="utf-8") for path in (ROOT / "infra" / "terraform").rglob("*.tf")
)
SOURCE = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))


def test_every_failure_class_says_what_to_do():
    table = PAGE.partition("| class |")[2].partition("\n\n")[0]

    rows = [row.split("|")[1] for row in table.splitlines()[1:]]
    assert set(re.findall(r"`([a-z]+)`", "".join(rows))) == {kind.value for kind in FailureClass}


def test_the_commands_it_names_are_commands():
    blocks = re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)
    prose = re.sub(r"```\n.*?```", "", PAGE, flags=re.DOTALL)
    said = [*re.findall(r"`([^`\n]+)`", prose), *"".join(blocks).splitlines()]
    named = set(re.findall(r"^hevcq ([a-z-]+)", "\n".join(said), re.MULTILINE))

    assert named - set(COMMANDS) == set()
    assert len(named) > 6


def test_the_settings_it_names_are_settings():
    settings = {key for key, _ in leaves(Settings)}
    numbers = set(QueueNumbers.model_fields) | set(Profile.model_fields)
    named = set(
        re.findall(r"`((?:min_free|stop_grace|scratch_dir|data_dir|max|metrics)[a-z_]*)`", PAGE)
    )

    assert named - settings - numbers == set()
