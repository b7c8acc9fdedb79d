"""docs/farm/operations.md names only what there is: whoever is paged has no time for a wrong page."""

import re
from pathlib import Path

from hevcq import alive
from hevcq.cli.app import COMMANDS
from hevcq.domain.profile import Profile, QueueNumbers
from hevcq.domain.verdict import FailureClass
from hevcq.settings.explain import leaves
from hevcq.settings.model import Settings
from hevcq.worker.monitoring.watchers import PROTECT_S, RENEW_S

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


def test_the_alarms_it_is_paged_by_are_made():
    runbook = PAGE.partition("| paged because |")[2]

    assert "subscription-dlq = " in TERRAFORM
    assert "-not-empty" in TERRAFORM
    for alarm in ("oldest-task", "no-progress"):
        assert f"`{alarm}`" in runbook
        assert alarm in TERRAFORM


def test_the_fleets_numbers_it_tells_to_change_are_variables():
    for name in set(re.findall(r"`fleet\.([a-z_]+)`", PAGE)):
        assert re.search(rf"\b{name}\b", TERRAFORM), name


def test_the_log_lines_it_sends_people_to_are_written():
    events = set(re.findall(r"`((?:job|lease|task|heartbeat|work|poll)_[a-z_]+)`", PAGE))

    assert len(events) >= 6
    for event in events:
        assert f'"{event}"' in SOURCE, event  # as a log line's name


def test_the_settings_it_names_are_settings():
    settings = {key for key, _ in leaves(Settings)}
    numbers = set(QueueNumbers.model_fields) | set(Profile.model_fields)
    named = set(
        re.findall(r"`((?:min_free|stop_grace|scratch_dir|data_dir|max|metrics)[a-z_]*)`", PAGE)
    )

    assert named - settings - numbers == set()


def test_the_bounds_of_the_health_check_are_those_of_the_code():
    part = PAGE.partition("## Health")[2].partition("\n## ")[0]

    assert f"every {alive.EVERY_S:.0f} s" in part
    assert f"older than {alive.STALE_S:.0f} s" in part
    assert f"for {alive.MAX_POLL_S:.0f} s" in part
    assert f"renewed every {RENEW_S / 60:.0f} minutes" in PAGE
    assert PROTECT_S == 3600
