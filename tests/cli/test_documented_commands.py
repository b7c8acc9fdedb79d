"""Every command line that the pages for people show is one that hevcq takes."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from hevcq.cli.commands import COMMANDS, app, load_command

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted(ROOT.glob("docs/**/*.md")),
]
CALL = re.compile(r"(?:^|[/\s(`\"])hevcq(?:-ingest)?\"? ((?:[a-z]|--)[^`\n|>)]*)")


MENTION = re.compile("Missing parameter|requires an argument")
"""What is lacking where a command is named and not called."""


def calls(page: Path) -> list[str]:
    """Return the arguments of each call of hevcq in a page: in blocks of commands, and in ticks."""
    text = page.read_text(encoding="utf-8")
    fence = re.compile(r"^[ ]*```(\w*)\n(.*?)^[ ]*```", re.DOTALL | re.MULTILINE)
    blocks = [body for kind, body in fence.findall(text) if kind in {"", "sh", "ini"}]
    ticks = re.findall(r"`(hevcq [^`\n]+)`", fence.sub("", text))
    lines = [line for part in (*blocks, *ticks) for line in part.splitlines()]
    found = []
    for line in lines:
        code = line.partition("#")[0] if "'#" not in line else line
        if match := CALL.search(code):
            found.append(match[1].strip().rstrip("."))
    return found


def parse(arguments: list[str]) -> None:
    """Parse as the program does, without running anything."""
    command = typer.main.get_command(app)
    context = None
    name = "hevcq"
    while True:
        context = command.make_context(name, arguments, parent=context)
        if not hasattr(command, "resolve_command"):
            return
        rest = [*context._protected_args, *context.args]
        name, command, arguments = command.resolve_command(context, rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_is_one(page):
    wrong = []
    for call in calls(page):
        words = shlex.split(call, comments=True)
        named = len(words) == 1 and words[0] in COMMANDS  # a mention, not a call
        if (
            named
            or {"--help", "--install-completion"} & set(words)
            or {"COMMAND", "…"} & set(words)
        ):
            continue
        try:
            parse([word for word in words if word not in {"&&", ";"}])
        except (SystemExit, Exception) as error:  # noqa: BLE001 - click's own, which typer hides
            if not (len(words) == 2 and MENTION.search(str(error))):
                wrong.append((call, f"{type(error).__name__}: {error}"))

    assert wrong == []


ADVICE = re.compile(r"hevcq ((?:[a-z]+-)*[a-z]+)(?: ((?:[a-z]+-)*[a-z]+))?")
SOURCES = [
    path
    for folder in ("src/hevcq", "scripts", "docker", "infra/terraform")
    for kind in ("py", "html", "sh", "tf", "yaml", "md")
    for path in sorted((ROOT / folder).rglob(f"*.{kind}"))
    if "vendor" not in path.parts and ".terraform" not in path.parts
]


def advised(text: str) -> list[tuple[str, str]]:
    """Return command and following word of each call of hevcq in ticks."""
    ticks = re.findall(r"`(hevcq [a-z][^`]*)`", text)
    return [found.groups("") for tick in ticks if (found := ADVICE.match(tick))]


def test_every_command_that_a_message_advises_is_one():
    groups = {
        name: set(getattr(load_command(name), "commands", {}))
        for name in COMMANDS
        if name != "serve"
    }
    groups["serve"] = {*load_command("serve").commands, ""}
    wrong = [
        f"{path.relative_to(ROOT)}: hevcq {name} {word}"
        for path in SOURCES
        for name, word in advised(path.read_text(encoding="utf-8"))
        if name not in COMMANDS or (groups[name] and word and word not in groups[name])
    ]

    assert wrong == []
