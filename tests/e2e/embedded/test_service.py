"""`hevcq service` as a person and as systemd run it."""

import signal
import socket
import tempfile
from pathlib import Path

import pytest

from e2e.embedded.farm import Farm, digest, until

pytestmark = pytest.mark.media


def service(farm: Farm, address: str = "") -> tuple[Path, dict[str, str]]:
    """Write the settings of two libraries; return their file and the service's environment."""
    file = farm.folder / "settings.toml"
    file.write_text(
        "# mine\n"
        + "".join(
            f'[[libraries]]\nname = "{name}"\npath = "{farm.media / name}"\nsettle = "1s"\n'
            f'place = "{place}"\n'
            for name, place in (("shows", "replace"), ("camera", "beside"))
        )
    )
    for name in ("shows", "camera"):
        (farm.media / name).mkdir(exist_ok=True)
    return file, {"NOTIFY_SOCKET": address, "HEVCQ_CONFIG": str(file), "HEVCQ_WEB__PORT": "0"}


def test_files_are_taken_a_bad_reload_keeps_the_settings_and_sigterm_ends_it(farm):
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard,
    ):
        heard.bind(f"{folder}/notify")
        heard.settimeout(60)
        file, env = service(farm, f"{folder}/notify")
        show = farm.clip("shows/a.mp4")
        before = digest(show)
        child = farm.start("service", env=env)
        assert heard.recv(4096) == b"READY=1"
        until(lambda: digest(show) != before)

        good = file.read_text()
        file.write_text(good + "plaec = 3\n")
        child.send_signal(signal.SIGHUP)
        while heard.recv(4096).partition(b"\n")[0] != b"RELOADING=1":
            pass
        while heard.recv(4096) != b"READY=1":
            pass
        farm.clip("camera/c.mp4")
        until((farm.media / "camera" / "c.hevc.mp4").is_file)
        child.send_signal(signal.SIGTERM)
        ran = farm.finish(child, timeout=30)

    assert ran.code == 0, ran.err
    assert (
        "The settings stay as they were: Invalid settings: libraries no. 2: plaec is unknown"
        in (ran.err)
    )
    assert "`hevcq serve new-token` prints the token to sign in with" in ran.err
    assert "sign-in#" not in ran.err
    assert "Stopped." in ran.err
    assert farm.strays() == []


def test_without_a_library_it_says_how_to_add_one(farm):
    (farm.folder / "empty.toml").touch()
    env = {"HEVCQ_CONFIG": str(farm.folder / "empty.toml")}
    child = farm.start("service", "--no-page", env=env)
    assert child.stderr is not None
    line = child.stderr.readline()
    child.send_signal(signal.SIGTERM)

    assert line == "Watching no library; add one with `hevcq libraries add PATH`.\n"
    assert farm.finish(child, timeout=30).code == 0
