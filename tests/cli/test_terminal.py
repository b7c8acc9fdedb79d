"""What is different when a person sits at a terminal."""

import pytest

from hevcq.cli.output import render


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "200")


def test_purge_asks_and_a_yes_deletes(hevcq, farm, terminal, monkeypatch):
    farm.buried("a.mp4")
    monkeypatch.setattr("typer.confirm", lambda _words, **_named: True)

    assert hevcq("failures", "forget").err == "1 dead letter deleted.\n"

    assert list(farm.app.backend.queues["hevc"].dead_letters()) == []


def test_a_message_fits_the_terminal_and_what_is_copied_stays_whole():
    path = "/srv/media/" + "long" * 20
    said = (
        f"Paused; `hevcq resume --profile 720p` ends it, or remove the file {path} when it is old."
    )
    lines = render.paragraph(said, 40).split("\n")
    assert [line for line in lines if len(line) > 40] == [f"  {path}"]
    assert any("`hevcq resume --profile 720p`" in line for line in lines)
    assert " ".join(line.strip() for line in lines) == said
    assert render.paragraph(said, None) == said


@pytest.mark.parametrize(
    "words",
    [
        ("doctor",),
        ("config", "notify", "list"),
        ("config", "notify", "test"),
        ("pause", "--for", "2h"),
        ("status",),
    ],
)
def test_a_terminal_of_80_columns_is_never_overrun(hevcq, farm, monkeypatch, words):
    for number in range(3):
        farm.buried(f"A rather long name of a series - S01E{number:02} - and its title, too.mp4")
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    ran = hevcq(*words)
    lines = [line for line in (ran.out + ran.err).splitlines() if " " in line.strip()]
    assert lines
    assert [line for line in lines if len(line) > 80] == []


def test_a_long_name_is_cut_to_what_the_terminal_has_left_and_keeps_its_end():
    name = "A long name of a series - S01E02 - and its title.mp4"
    lines = render.fit_table(("file", "size"), [(name, "1.4 GiB")], 40)

    assert [len(line) for line in lines[1:]] == [40]
    assert "… and its title.mp4  1.4 GiB" in lines[1].replace("02 -", "").replace("- ", "")
