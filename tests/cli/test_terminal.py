"""What is different when a person sits at a terminal."""

import sys

import pytest

from hevcq.cli.output import table as render
from hevcq.ports.queue import Selection


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "200")


def test_purge_asks_and_a_no_deletes_nothing(hevcq, farm, terminal, monkeypatch):
    farm.buried("a.mp4")
    asked: list[str] = []
    monkeypatch.setattr("typer.confirm", lambda words, **_named: asked.append(words))

    ran = hevcq("failures", "forget")

    assert asked == ["Permanently delete 1 dead letter?"]
    assert ran.err == "Nothing deleted.\n"
    assert farm.app.backend.queues["hevc"].depth().dead == 1


def test_purge_asks_and_a_yes_deletes(hevcq, farm, terminal, monkeypatch):
    farm.buried("a.mp4")
    monkeypatch.setattr("typer.confirm", lambda _words, **_named: True)

    assert hevcq("failures", "forget").err == "1 dead letter deleted.\n"

    assert list(farm.app.backend.queues["hevc"].dead_letters(Selection())) == []


def test_a_table_on_a_terminal_keeps_markup_and_control_characters_as_text(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "100")

    render.emit_table(("name", "size"), [["[red]a\x1b[2J\n.mp4", 3]])

    out = capsys.readouterr().out
    assert r"[red]a\x1b[2J\n.mp4" in out
    assert "\x1b[2J" not in out


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


def test_a_plain_table_is_aligned_and_has_no_trailing_blanks():
    assert render.plain_table(["a", "bb"], [["ccc", "d"], ["e", ""]]) == ["a    bb", "ccc  d", "e"]


def test_one_name_of_255_characters_pushes_no_other_row():
    long, short = render.plain_table(["a", "b"], [["x" * 255, "1"], ["y", "2"]])[1:]
    assert long == f"{'x' * 255}  1"
    assert short == f"y{' ' * (render.WIDEST + 1)}2"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain ä 日本.mp4", "plain ä 日本.mp4"),
        ("a\tb\r\n", r"a\tb\r\n"),
        ("\udcff.mp4", r"\xff.mp4"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
    ],
)
def test_names_are_shown_as_text(name: str, shown: str):
    assert render.printable(name) == shown


def test_wide_letters_count_for_two_columns_where_a_name_is_cut():
    cut = render.shorten("映" * 15, 20)

    assert cut.count("…") == 1
    assert 2 * cut.count("映") + 1 <= 20
    assert render.shorten("映" * 10, 20) == "映" * 10
