"""CPU seconds of the server for each uploaded GiB, by tus in chunks of 16 MiB.

Run as `python benchmarks/upload_bench.py [MIB] [ROUNDS]`. Compared, interleaved, with a bare
Starlette handler that writes what it gets, and with `cat > file`. Writes benchmarks/out/upload.json.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measured import report
from benchmarks.idle_bench import cpu_s

MIB = 1 << 20
CHUNK = 16 * MIB
BLOCK = os.urandom(MIB)
PORT = 18_799
WHO = {"Remote-User": "ann", "Tus-Resumable": "1.0.0", "Sec-Fetch-Site": "same-origin"}
BARE = f"""
import os, sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
async def patch(request):
    file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    async for block in request.stream():
        os.write(file, block)
    os.close(file)
    return Response(status_code=204)
application = Starlette(routes=[Route("/x", patch, methods=["PATCH"])])
uvicorn.run(application, port={PORT}, log_level="warning")
"""


def send(port: int, where: str, headers: Mapping[str, str], size: int) -> None:
    """Send one chunk."""
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    line.putrequest("PATCH", where)
    for name, value in {**headers, "Content-Length": str(size)}.items():
        line.putheader(name, value)
    line.endheaders()
    for _ in range(size // MIB):
        line.send(BLOCK)
    answer = line.getresponse()
    answer.read()
    line.close()
    if answer.status != 204:
        raise SystemExit(f"The server answered {answer.status}.")


@contextlib.contextmanager
def serving(folder: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run `hevcq serve`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HEVCQ_")}
    web = {"AUTH": "proxy", "TRUSTED_PROXIES": "127.0.0.1", "PORT": "0"}
    environment = {**kept, "HEVCQ_DATA_DIR": folder, "HEVCQ_MIN_FREE_MIB": "1"}
    environment |= {f"HEVCQ_WEB__{name}": value for name, value in web.items()}
    command = [sys.executable, "-m", "hevcq", "serve"]
    child = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert child.stderr is not None
        port = next(int(m[1]) for line in child.stderr if (m := re.search(r"\.1:(\d+)", line)))
        yield child, port
    finally:
        child.kill()
        child.communicate()


def by_hevcq(folder: str, size: int) -> float:
    """Return the server's CPU seconds for one upload; a small one before it warms it up."""
    headers = {**WHO, "Content-Type": "application/offset+octet-stream"}
    with serving(folder) as (child, port):
        before = 0.0
        for length in (MIB, size):
            line = http.client.HTTPConnection("127.0.0.1", port)
            line.request("POST", "/uploads", headers={**WHO, "Upload-Length": str(length)})
            answer = line.getresponse()
            answer.read()
            before = cpu_s(child.pid)
            for start in range(0, length, CHUNK):
                more = {**headers, "Upload-Offset": str(start)}
                send(port, answer.headers["Location"], more, min(CHUNK, length - start))
        return cpu_s(child.pid) - before


def by_starlette(folder: str, size: int) -> float:
    """Return the CPU seconds of a handler that only writes."""
    child = subprocess.Popen([sys.executable, "-c", BARE, f"{folder}/file"])
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                http.client.HTTPConnection("127.0.0.1", PORT).request("GET", "/")
                break
            time.sleep(0.05)
        before = cpu_s(child.pid)
        for _ in range(0, size, CHUNK):
            send(PORT, "/x", {}, CHUNK)
        return cpu_s(child.pid) - before
    finally:
        child.kill()
        child.wait()


def by_cat(folder: str, size: int) -> float:
    """Return the CPU seconds of `cat > file`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(f"{folder}/file", "wb") as file:
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file)
        assert child.stdin is not None
        for _ in range(size // MIB):
            child.stdin.write(BLOCK)
        child.stdin.close()
        child.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Measure, print, write."""
    size = int(sys.argv[1]) * MIB if len(sys.argv) > 1 else 256 * MIB
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    seen: dict[str, list[float]] = {"hevcq": [], "starlette": [], "cat": []}
    for _ in range(rounds):
        for name, take in (("hevcq", by_hevcq), ("starlette", by_starlette), ("cat", by_cat)):
            with tempfile.TemporaryDirectory() as folder:
                seen[name].append(take(folder, size) * (1 << 30) / size)
    middle = {name: statistics.median(found) for name, found in seen.items()}
    ratios = [a / b for a, b in zip(seen["hevcq"], seen["starlette"], strict=True)]
    rows: list[dict[str, object]] = [
        {"figure": "upload by tus: CPU for each GiB", "value": middle["hevcq"], "unit": "s"},
        {"figure": "bare Starlette handler: the same", "value": middle["starlette"], "unit": "s"},
        {"figure": "cat > file: the same", "value": middle["cat"], "unit": "s"},
        {
            "figure": "upload by tus / bare Starlette handler",
            "value": statistics.median(ratios),
            "limit": 1.5,
            "unit": "x",
        },
    ]
    return report("upload", rows)


if __name__ == "__main__":
    sys.exit(main())
