"""The root: help, version, exit codes, one sentence for each error."""

import os
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from hevcq import errors
from hevcq.cli import commands as root
from hevcq.cli.exit_codes import ExitCode, exit_code
from hevcq.cli.main import main


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_another_system_is_told_in_one_sentence_that_hevcq_needs_linux(monkeypatch, capsys, system):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(sys, "argv", ["hevcq", "--version"])

    code = main()

    assert code == ExitCode.UNFIT
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("hevcq needs Linux")


def test_every_command_and_option_has_help_that_says_what_it_does(hevcq):
    for name, (_, said) in root.COMMANDS.items():
        ran = hevcq(name, "--help")

        assert (ran.code, ran.err) == (0, ""), name
        words = " ".join(ran.out.split("\n\n")[1].split())
        assert words == said, "the list of commands says the same"
        assert words.endswith(".")
        assert len(words) > 15
        command = root.load_command(name)
        for each in (command, *getattr(command, "commands", {}).values()):
            for parameter in each.params:
                if parameter.name != "ctx":
                    assert getattr(parameter, "help", None), f"{name}: {parameter.name}"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError(), ExitCode.CONFIG),
        (errors.UnknownProfile(), ExitCode.USAGE),
        (errors.BadKey(), ExitCode.USAGE),
        (errors.WorkerUnfit(), ExitCode.UNFIT),
        (errors.StorageError(), ExitCode.STORAGE),
        (errors.DatabaseBusy(), ExitCode.STORAGE),
        (errors.DiskFull(), ExitCode.STORAGE),
        (errors.Unavailable(), ExitCode.UNAVAILABLE),
        (errors.EncoderFailed(), ExitCode.UNAVAILABLE),
        (errors.SourceDamaged(), ExitCode.SOME_FAILED),
        (errors.SwapRefused(), ExitCode.REFUSED),
        (errors.UndoRefused(), ExitCode.REFUSED),
        (errors.Stopped(), ExitCode.INTERRUPTED),
        (errors.HevcqError(), ExitCode.INTERNAL),
        (ValueError("x"), ExitCode.INTERNAL),
        (OSError(28, "No space left on device"), ExitCode.STORAGE),
        (OSError(5, "Input/output error"), ExitCode.UNAVAILABLE),
    ],
)
def test_each_error_has_its_exit_code(error, code):
    assert exit_code(error) is code


def break_status(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    monkeypatch.setattr("hevcq.cli.queue.status._show", Mock(side_effect=error))


def test_an_error_is_one_sentence_and_a_trace_only_with_verbose(hevcq, monkeypatch):
    break_status(monkeypatch, errors.Unavailable("S3 did not\nanswer.", remedy="Try again."))

    ran = hevcq("status")
    loud = hevcq("--verbose", "status")

    assert ran.code == loud.code == ExitCode.UNAVAILABLE
    assert ran.err == "hevcq: S3 did not answer. Try again.\n"
    assert "Traceback" in loud.err
    assert loud.err.endswith(ran.err)
    assert ran.out == loud.out == ""


BUG = "this is a bug: KeyError: 'nope' (--verbose shows the traceback)"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyError("nope"), ExitCode.INTERNAL, f"hevcq: {BUG}\n"),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, None),
        (BrokenPipeError(32, "Broken pipe"), ExitCode.PIPE, ""),
        (
            errors.UsageError("There is no \x1b[2J\udcff file."),
            ExitCode.USAGE,
            "hevcq: There is no \\x1b[2J\\xff file.\n",
        ),
    ],
    ids=["a bug is called one", "Ctrl-C", "a reader that goes away", "control characters"],
)
def test_each_exit_has_its_message_and_no_traceback(hevcq, monkeypatch, error, code, said):
    break_status(monkeypatch, error)
    monkeypatch.setattr("hevcq.cli.commands._drop_stdout", lambda: None)

    ran = hevcq("status")

    assert ran.code == code
    assert said is None or ran.err == said
    assert "Traceback" not in ran.err


def test_a_settings_file_of_the_current_folder_runs_no_program(hevcq, data_dir, monkeypatch):
    monkeypatch.setenv("HEVCQ_SANDBOX", "false")  # which would keep the program from its deed
    here, ran = Path.cwd(), Path.cwd() / "ran"
    (here / "evil.sh").write_text(f"#!/bin/sh\ntouch {ran}\n")
    (here / "evil.sh").chmod(0o755)
    (here / "clip.mp4").write_bytes(b"no video")
    (here / "hevcq.toml").write_text('ffmpeg = "./evil.sh"\n')

    hevcq("profiles", "plan", "clip.mp4")
    hevcq("doctor")

    assert not ran.exists()
    hevcq("--config", "hevcq.toml", "doctor")
    assert ran.exists(), "the file that was named is trusted"


def test_python_m_imports_no_module_of_the_current_folder(tmp_path):
    (tmp_path / "typer.py").write_text("raise SystemExit('ran the folder')")

    ran = subprocess.run(
        [sys.executable, "-m", "hevcq", "--version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_wrong_setting_ends_every_command_with_its_sentence(hevcq, monkeypatch):
    monkeypatch.setenv("HEVCQ_WROKERS", "1")

    ran = hevcq("status")

    assert ran.code == ExitCode.CONFIG
    assert "Did you mean 'HEVCQ_WORKERS'?" in ran.err
    assert len(ran.err.splitlines()) == 1


def test_config_show_tells_every_value_and_its_origin(hevcq, data_dir):
    ran = hevcq("--verbose", "config", "show")

    assert ran.code == 0
    (row,) = [line for line in ran.out.splitlines() if line.startswith("data_dir")]
    assert str(data_dir) in row
    assert "environment HEVCQ_DATA_DIR" in row
    assert re.search(r"log_level +info +flag --verbose", ran.out)
    assert re.search(r"aws\.table +hevcq +default", ran.out)


COMMAND = [sys.executable, "-m", "hevcq"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize(
    ("arguments", "unbuffered"), [(["--help"], ""), (["profiles", "list"], "1")]
)
def test_a_full_disk_behind_stdout_is_one_sentence(arguments, unbuffered):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )

    assert done.returncode == ExitCode.STORAGE
    assert done.stderr == "hevcq: No space left on device.\n"


@pytest.mark.parametrize("arguments", [["--help"], ["profiles", "list"]])
def test_a_pipe_that_nobody_reads_ends_quietly(arguments):
    reading, writing = os.pipe()
    os.close(reading)

    done = subprocess.run(
        [*COMMAND, *arguments], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)

    assert (done.returncode, done.stderr) == (ExitCode.PIPE, "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_process_without_standard_streams_works_as_with_null_ones(closed, tmp_path):
    script = f'exec "$@" --data-dir "$0" status --json {closed}'
    command = ["/bin/sh", "-c", script, str(tmp_path / "data"), *COMMAND]

    done = subprocess.run(command, stdin=subprocess.PIPE, capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (0, b"")
    assert bool(done.stdout) == (">&-" not in closed.replace("2>&-", ""))


@pytest.mark.parametrize(
    "command",
    [
        ("ingest", "{nope}"),
        ("ingest", ".", "{nope}", "--dry-run"),
        ("ingest", "--collect-only", "{nope}"),
        ("profiles", "plan", "{nope}"),
        ("check", "{nope}", "--source", "{nope}"),
    ],
)
def test_a_path_that_does_not_exist_is_a_usage_error_and_starts_nothing(
    hevcq, data_dir, tmp_path, command
):
    nope = tmp_path / "no pe"

    ran = hevcq(*(each.format(nope=nope) for each in command))

    assert (ran.code, ran.out) == (ExitCode.USAGE, "")
    assert ran.err == f"hevcq: No such file or folder: {nope}.\n"
    looked_up = "--collect-only" in command  # what was queued is known to the database alone
    assert looked_up or not (data_dir / "hevcq.db").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--config", "{folder}", "status"), "No such settings file"),
        (("profiles", "validate", "{folder}"), "Cannot read the profile {folder}: Is a directory."),
        (("--data-dir", "{file}", "status"), "{file} cannot be created: it, or a folder above"),
        (("profiles", "init", "{file}"), "{file} is not a folder."),
        (
            ("profiles", "init", "{file}/sub"),
            "Cannot write {file}/sub/1080p.yaml: Not a directory.",
        ),
    ],
)
def test_no_error_of_the_system_is_shown_raw(hevcq, tmp_path, arguments, said):
    names = {"folder": tmp_path / "folder", "file": tmp_path / "file"}
    names["folder"].mkdir()
    names["file"].write_text("x")

    ran = hevcq(*(each.format(**names) for each in arguments))

    assert ran.code not in {ExitCode.OK, ExitCode.INTERNAL}
    assert said.format(**names) in ran.out + ran.err
    assert "Errno" not in ran.out + ran.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ingest", "x", "--workers", "0"), "'--workers' / '-w': must be at least 1."),
        (("ingest", "x", "--workers", "two"), "'--workers' / '-w': must be a whole number."),
        (("ingest", "x", "--keep-originals", "x"), "'--keep-originals': must be a number."),
        (("redrive", "--class", "x"), "'--class': 'x' is not one of 'message', "),
    ],
)
def test_a_wrong_value_is_reported_in_words(hevcq, arguments, said):
    ran = hevcq(*arguments)

    assert ran.code == ExitCode.USAGE
    assert f"Invalid value for {said}" in ran.err
    assert "Did you mean `hevcq profiles plan`?" in hevcq("plan", "a.mp4").err
