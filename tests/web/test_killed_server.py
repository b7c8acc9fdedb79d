"""An upload goes on where it was after kill -9 of the server, byte for byte."""

import hashlib
import http.client
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hevcq.domain.videos.record import VideoStatus
from hevcq.settings.model import Settings
from hevcq.wiring.app import open_app

MIB = 1 << 20
CONTENT = b"".join(hashlib.sha256(n.to_bytes(4)).digest() for n in range(5 * MIB // 32))
WHO = {"Remote-User": "ann", "Tus-Resumable": "1.0.0", "Sec-Fetch-Site": "same-origin"}
CHUNK = {**WHO, "Content-Type": "application/offset+octet-stream"}
PATIENCE_S = 60.0


@contextmanager
def serving(data: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    environment = {
        **os.environ,
        "HEVCQ_DATA_DIR": str(data),
        "HEVCQ_MIN_FREE_MIB": "0",
        "HEVCQ_WEB__AUTH": "proxy",
        "HEVCQ_WEB__TRUSTED_PROXIES": "127.0.0.1",
        "HEVCQ_WEB__PORT": "0",
    }
    command = [sys.executable, "-m", "hevcq", "serve"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                yield process, int(found[1])
                break
        else:
            raise AssertionError("the server said no address")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def ask(port: int, method: str, where: str, headers: dict[str, str], body: bytes = b""):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    connection.request(method, where, body=body or None, headers=headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


@pytest.mark.slow  # tests/web/test_browser.py has its short form, by a real browser
def test_an_upload_resumes_after_the_server_was_killed_in_the_middle(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(data) as (process, port):
        made = ask(port, "POST", "/uploads", {**WHO, "Upload-Length": str(len(CONTENT))})
        assert made.status == 201
        where = made.headers["Location"]
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        line.putrequest("PATCH", where)
        for name, value in {**CHUNK, "Upload-Offset": "0"}.items():
            line.putheader(name, value)
        line.putheader("Content-Length", str(len(CONTENT)))
        line.endheaders()
        line.send(CONTENT[: 3 * MIB])
        (file,) = [p for p in (data / "videos").iterdir() if not p.name.startswith(".")]
        end = time.monotonic() + PATIENCE_S
        while file.stat().st_size < 2 * MIB:
            assert time.monotonic() < end
            os.sched_yield()
        process.kill()
        process.wait()
        line.close()

    with serving(data) as (_, port):
        there = ask(port, "HEAD", where, WHO)
        start = int(there.headers["Upload-Offset"])
        assert 2 * MIB <= start <= 3 * MIB
        assert file.read_bytes() == CONTENT[:start]
        rest = {**CHUNK, "Upload-Offset": str(start)}
        assert ask(port, "PATCH", where, rest, CONTENT[start:]).status == 204

    app = open_app(Settings(data_dir=data))
    video = app.videos.get(where.rpartition("/")[2])
    assert video.status is VideoStatus.PROCESSING
    assert file.read_bytes() == CONTENT
    assert {job.source.size for job in app.backend.ledger.jobs(_every())} == {len(CONTENT)}
    app.close()


def _every():
    from hevcq.ports.ledger import JobFilter

    return JobFilter()
