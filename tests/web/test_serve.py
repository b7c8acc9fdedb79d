"""`hevcq serve` as a person starts it, what it prints, how it stops, and what it is made of."""

import asyncio
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from importlib.resources import files
from pathlib import Path
from unittest.mock import Mock

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hevcq.cli.web.serve import missing
from hevcq.errors import Unavailable, UsageError
from hevcq.settings.web import WebSettings
from hevcq.util.signals import StopSignals
from hevcq.web import server
from hevcq.web.server import listen, startup_lines
from support.accounts import accounts_in

ROOT = Path(__file__).resolve().parents[2]
STATIC = Path(str(files("hevcq.web").joinpath("static")))


def started(data_dir: Path) -> tuple[subprocess.Popen[str], str]:
    """Start the page on a free port; return it with the sentence that names its address."""
    command = [sys.executable, "-m", "hevcq", "--data-dir", str(data_dir), "serve", "--port", "0"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    return running, running.stderr.readline()


def test_a_start_without_a_terminal_says_how_to_sign_in_and_sigterm_ends_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HEVCQ_WEB__AUTH", "token")
    running, said = started(tmp_path)
    try:
        found = re.search(r"The page is at (http://127\.0\.0\.1:\d+); `hevcq (.+)` prints", said)
        assert found, said
        assert "#" not in said, "a journal would keep the token"
        how = [sys.executable, "-m", "hevcq", "--data-dir", str(tmp_path), *found[2].split()]
        token = subprocess.run(how, check=True, capture_output=True, text=True).stdout.strip()
        client = httpx2.Client(base_url=found[1], headers={"Sec-Fetch-Site": "same-origin"})
        with client:
            assert client.get("/healthz").text == "ok"
            client.post("/sign-in", data={"token": token})
            assert client.get("/board").status_code == 200
            running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=60) == 0
    finally:
        running.kill()
        running.communicate()
    for kept in (tmp_path / "hevcq.db", tmp_path / "web" / "session.key"):
        assert kept.stat().st_mode & 0o777 == 0o600
        assert token.encode() not in kept.read_bytes()


def test_a_request_that_a_stop_cuts_off_leaves_no_traceback(monkeypatch, caplog):
    asked = threading.Event()

    async def hang(_request: Request) -> Response:
        asked.set()
        await asyncio.Event().wait()

    page, signals = Starlette(routes=[Route("/", hang)]), StopSignals()
    page.state.services = Mock()
    monkeypatch.setattr(server, "STOP_S", 0.2)
    with listen("127.0.0.1", 0) as listening:
        stop = threading.Thread(target=lambda: asked.wait() and signals.ask())
        client = socket.create_connection(listening.getsockname())
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        stop.start()
        server.run_until(page, signals, listening)
        client.close()

    assert "Cancel 1 running task" in caplog.text
    assert "Traceback" not in caplog.text


def test_the_token_is_shown_once(tmp_path):
    with listen("127.0.0.1", 0) as listening, accounts_in(tmp_path) as accounts:
        first = list(startup_lines(WebSettings(), accounts, listening, terminal=True))
        second = list(startup_lines(WebSettings(), accounts, listening, terminal=True))

    assert "/sign-in#" in first[0]
    assert not any("#" in line for line in second)
    assert any("hevcq serve new-token" in line for line in second)


def test_an_address_of_the_network_without_tls_is_warned_about(tmp_path):
    with listen("127.0.0.1", 0) as listening, accounts_in(tmp_path) as accounts:
        settings = WebSettings(host="0.0.0.0", auth="token")
        open_lines = list(startup_lines(settings, accounts, listening, terminal=False))
        behind = settings.model_copy(update={"url": "https://videos.example.org"})
        closed_lines = list(startup_lines(behind, accounts, listening, terminal=False))

    assert any("unencrypted" in line for line in open_lines)
    assert not any("unencrypted" in line for line in closed_lines)


def test_a_taken_port_is_one_sentence(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match=f"Cannot listen on 127.0.0.1:{port}"):
            listen("127.0.0.1", port)
    with pytest.raises(Unavailable, match=r"no-such\.invalid"):
        listen("no-such.invalid", 0)


def test_without_the_extra_it_says_how_to_install_it():
    assert "pip install 'hevcq[web]'" in str(missing(ModuleNotFoundError(name="uvicorn.config")))
    assert isinstance(missing(ModuleNotFoundError(name="jinja2")), UsageError)
    other = ModuleNotFoundError("No module named 'hevcq.gone'", name="hevcq.gone")
    with pytest.raises(ModuleNotFoundError):
        missing(other)


def test_every_vendored_file_is_the_one_that_was_taken():
    rows = json.loads((STATIC / "vendor.json").read_text())

    for row in rows:
        assert hashlib.sha256((STATIC / row["file"]).read_bytes()).hexdigest() == row["sha256"]
        assert (STATIC / row["licence_file"]).read_text().strip(), row["package"]
        assert re.fullmatch(r"\d+\.\d+\.\d+", row["version"])
    named = {row["file"] for row in rows} | {row["licence_file"] for row in rows}
    there = {path.relative_to(STATIC).as_posix() for path in (STATIC / "vendor").iterdir()}
    assert there == named


def test_the_wheel_holds_templates_and_assets(tmp_path):
    build = "from hatchling.build import build_wheel; print(build_wheel(__import__('sys').argv[1]))"
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    wheel = tmp_path / done.stdout.split()[-1]
    inside = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("static", "templates"):
        for path in (ROOT / "src" / "hevcq" / "web" / folder).rglob("*.*"):
            assert path.relative_to(ROOT / "src").as_posix() in inside
