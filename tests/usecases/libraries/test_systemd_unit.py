"""The systemd unit: what systemd makes of it, and whose file is written and removed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hevcq.errors import StorageError, UsageError
from hevcq.settings.libraries import Library
from hevcq.settings.model import Settings
from hevcq.usecases.libraries.systemd_unit import Unit, install, quoted, uninstall, unit_file

ODD = 'My "100 %" $videos'


def unit(folder: Path, account: str = "") -> Unit:
    program = folder / "bin" / "hevcq"
    program.parent.mkdir(exist_ok=True)
    shutil.copy("/bin/true", program)
    settings = Settings(
        data_dir=folder / "data",
        stop_grace_s=7,
        libraries=(
            Library(name="tv", path=Path("/srv") / ODD),
            Library(name="b", path=Path("/srv/b"), place="mirror", output=Path("/srv/c")),
        ),
    )
    words = (str(program), "--config", f"/home/me/{ODD}.toml", "service")
    return Unit(words, settings, account)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
@pytest.mark.parametrize("account", ["", "root"])
def test_systemd_finds_no_fault_in_it(tmp_path: Path, account: str) -> None:
    file = tmp_path / "hevcq.service"
    file.write_text(unit(tmp_path, account).text())
    scope = ["--system"] if account else ["--user"]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)}

    ran = subprocess.run(
        ["systemd-analyze", "verify", *scope, "--man=no", "--recursive-errors=no", file],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )

    said = [line for line in (ran.stdout + ran.stderr).splitlines() if "hevcq.service" in line]
    assert said == []


def test_a_system_unit_may_write_its_folders_only(tmp_path: Path) -> None:
    lines = unit(tmp_path, "media").text().splitlines()

    assert "User=media" in lines
    assert "ProtectSystem=strict" in lines
    written = next(line for line in lines if line.startswith("ReadWritePaths="))
    assert written.endswith(' "-/srv/My \\"100 %%\\" $$videos" -/srv/b -/srv/c')
    assert "TimeoutStopSec=67" in lines


def test_a_unit_of_a_user_asks_for_nothing_that_his_manager_may_not_do(tmp_path: Path) -> None:
    text = unit(tmp_path).text()

    assert "Protect" not in text
    assert "User=" not in text
    assert "NoNewPrivileges=yes" in text
    assert "WantedBy=default.target" in text


@pytest.mark.parametrize(
    ("word", "written"),
    [("/a/b-c_1.toml", "/a/b-c_1.toml"), ("a b", '"a b"'), ("50%", "50%%"), ("$x", '"$$x"')],
)
def test_words_are_written_so_that_nothing_is_expanded(word: str, written: str) -> None:
    assert quoted(word) == written


def test_it_is_written_once_and_removed_with_what_enables_it(tmp_path: Path) -> None:
    file = unit_file(system=False, config_home=tmp_path / "conf")
    assert file == tmp_path / "conf" / "systemd" / "user" / "hevcq.service"
    assert install(file, unit(tmp_path).text())
    assert not install(file, unit(tmp_path).text())
    link = file.parent / "default.target.wants" / file.name
    link.parent.mkdir()
    link.symlink_to(file)

    assert uninstall(file)
    assert not uninstall(file)
    assert not os.path.lexists(link)
    assert [each.name for each in file.parent.iterdir()] == ["default.target.wants"]


def test_a_file_of_somebody_else_is_neither_changed_nor_removed(tmp_path: Path) -> None:
    file = tmp_path / "hevcq.service"
    file.write_text("[Service]\nExecStart=/mine\n")

    for action in (lambda: install(file, unit(tmp_path).text()), lambda: uninstall(file)):
        with pytest.raises(UsageError, match="is not from hevcq; it stays as it is"):
            action()
    assert file.read_text() == "[Service]\nExecStart=/mine\n"
    with pytest.raises(StorageError, match="Cannot write"):
        install(file / "below", "x")


def test_a_system_unit_makes_its_data_folder_as_the_user_before_the_limits_hold(
    tmp_path: Path,
) -> None:
    made = f"{tmp_path}/data {tmp_path}/data/scratch"
    line = f"ExecStartPre=-+/usr/sbin/runuser -u media -- mkdir -p -m 700 -- {made}"
    assert line in unit(tmp_path, "media").text().splitlines()
    assert "ExecStartPre" not in unit(tmp_path).text()
