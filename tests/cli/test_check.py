"""`hevcq check` with ffmpeg, as a person runs it."""

import json
import os
import sys

import pytest
from benchmarks.fidelity import spliced

from hevcq.cli.commands import run
from support.clips import make_clip


@pytest.fixture
def library(tmp_path):
    folder = tmp_path / "library"
    folder.mkdir()
    made = make_clip(folder, name="sound.mp4", seconds=2, size="160x90")
    made.rename(folder / "sound.mp4")
    content = bytearray((folder / "sound.mp4").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 300] = bytes(byte ^ 0x5A for byte in content[middle : middle + 300])
    (folder / "picture.mp4").write_bytes(content)
    (folder / "short.mp4").write_bytes(content[: len(content) // 2])
    return folder


def test_says_which_are_damaged_and_where(library, tmp_path, capsys):
    call = ["--data-dir", str(tmp_path / "data"), "check", str(library)]
    assert run([*call, "--decode", "--json"]) == 1
    told = {
        os.path.basename(line["path"]): line
        for line in map(json.loads, capsys.readouterr().out.splitlines())
    }
    assert {name: line["health"] for name, line in told.items()} == {
        "sound.mp4": "sound",
        "picture.mp4": "damaged",
        "short.mp4": "unreadable",
    }
    size = (library / "picture.mp4").stat().st_size
    spot = told["picture.mp4"]["spots"][0]
    assert 0 < spot["time_s"] < 2
    assert abs(spot["byte"] - size / 2) < size / 4
    assert run(call) == 1
    said = capsys.readouterr()
    assert "picture.mp4  damaged" in said.out
    assert "3 files read: 1 sound, 1 damaged, 1 unreadable." in said.err
    assert run([*call, "--include", "sound.mp4"]) == 0


def test_the_ends_of_a_recording_are_no_damage_but_a_broken_part_is(tmp_path, capsys):
    folder = tmp_path / "library"
    folder.mkdir()
    cut = folder / "cut.ts"
    spliced.recording_cut_mpeg2(cut)
    content = bytearray(cut.read_bytes())
    middle = len(content) // 2 // 188 * 188
    for packet in range(middle, middle + 40 * 188, 188):
        content[packet + 60 : packet + 188] = bytes(128)
    (folder / "broken.ts").write_bytes(content)
    call = ["--data-dir", str(tmp_path / "data"), "check", str(folder), "--json", "--decode"]
    assert run(call) == 1
    told = {
        os.path.basename(line["path"]): line
        for line in map(json.loads, capsys.readouterr().out.splitlines())
    }
    assert told["cut.ts"]["health"] == "sound"
    assert told["broken.ts"]["health"] == "damaged"
    assert "broken.ts is damaged: " in told["broken.ts"]["detail"]
    assert [round(spot["time_s"]) for spot in told["broken.ts"]["spots"]] == [3]
    assert list((tmp_path / "data" / "scratch").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--share", "2/1"], "a share such as 1/12"),
        (["--share", "half"], "a share such as 1/12"),
        (["--limit", "fast"], "must be a rate"),
    ],
)
def test_a_wrong_option_is_named(tmp_path, capsys, arguments, said):
    assert run(["--data-dir", str(tmp_path / "data"), "check", str(tmp_path), *arguments]) == 2
    assert said in capsys.readouterr().err


REDRAWN = "\r\x1b[K"


def test_a_terminal_shows_which_file_is_read_unless_a_program_reads_along(
    library, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    call = ["--data-dir", str(tmp_path / "data"), "check", str(library / "sound.mp4")]

    assert run(call) == 0
    assert f"{REDRAWN}1 of 1  sound.mp4" in capsys.readouterr().err
    for silent in ("--json", "--quiet"):
        assert run([*call, silent]) == 0
        assert REDRAWN not in capsys.readouterr().err
