"""What the page costs: live updates to 500 browsers, the list at 10,000 videos, bytes of the first page.

Run as `python benchmarks/page_bench.py [VIDEOS] [CLIENTS]`. Clients and server share the machine, so
latencies hold the clients' own work too. Writes benchmarks/out/page.json.
"""

from __future__ import annotations

import asyncio
import http.client
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.idle_bench import cpu_s
from benchmarks.measured import report
from benchmarks.upload_bench import WHO, serving
from hevcq.domain.videos.record import Upload, Video, VideoStatus, make_video_id
from hevcq.ports.videos import Quota, VideoRecords
from hevcq.settings.model import Settings
from hevcq.wiring.app import open_app

OWNERS = 20
REQUESTS = 200
ROUNDS = 10
PATIENCE_S = 30.0
GZIP = {**WHO, "Accept-Encoding": "gzip"}
ASSET = re.compile(r'(?:src|href)="(/static/[^"]+\.(?:js|css)[^"]*)"')
MOST_CPU_MS, MOST_KB = 50.0, 80.0


def fill(records: VideoRecords, count: int) -> Video:
    """Write that many videos, every other one Ann's; return her newest."""
    newest = None
    now = time.time() - count
    for number in range(count):
        owner = "ann" if number % 2 else f"owner{number % OWNERS}"
        video = Video(
            video_id=make_video_id(now + number, random.randbytes(10)),
            owner=owner,
            title=f"Video {number} of a long summer",
            created_at=now + number,
            updated_at=now + number,
            status=VideoStatus.DONE,
            profiles=("hevc", "720p"),
            upload=Upload(name=f"file {number}.mov", size=1 << 30, expires_at=now),
        )
        records.create(video, Quota())
        newest = video if owner == "ann" else newest
    assert newest is not None
    return newest


def pages(pid: int, port: int, address: str) -> tuple[float, float]:
    """Return the requests a second of one client, and the server's CPU milliseconds of each."""
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    get(line, address, WHO)
    before, began = cpu_s(pid), time.perf_counter()
    for _ in range(REQUESTS):
        get(line, address, WHO)
    wall, cpu = time.perf_counter() - began, cpu_s(pid) - before
    line.close()
    return REQUESTS / wall, 1000 * cpu / REQUESTS


def get(line: http.client.HTTPConnection, address: str, headers: Mapping[str, str]) -> bytes:
    """Return the body as it was sent."""
    line.request("GET", address, headers=dict(headers))
    answer = line.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{address}: the server answered {answer.status}.")
    return body


def weight(port: int) -> float:
    """Return the kilobytes that a first visit of the home page loads: HTML, styles and scripts."""
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    html = get(line, "/", WHO).decode()
    assets = set(ASSET.findall(html))
    if len(assets) < 2:
        raise SystemExit("The home page names no styles or scripts.")
    total = sum(len(get(line, address, GZIP)) for address in ("/", *assets))
    line.close()
    return total / 1000


async def fan_out(
    port: int, clients: int, records: VideoRecords, video: Video
) -> list[list[float]]:
    """Return for each change the seconds after which each client had it."""
    heads = "".join(f"{name}: {value}\r\n" for name, value in WHO.items())
    request = f"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n{heads}\r\n".encode()
    lines = []
    for _ in range(clients):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        lines.append((reader, writer))
    await asyncio.gather(*(until(reader, b"long summer") for reader, _ in lines))
    seen = []
    for number in range(ROUNDS):
        await asyncio.sleep(1 + random.random())  # anywhere between two looks of the server
        title = f"Changed {number}."
        video = records.update(video.model_copy(update={"title": title}))
        began = time.perf_counter()
        ends = await asyncio.gather(*(until(reader, title.encode()) for reader, _ in lines))
        seen.append([end - began for end in ends])
    for _, writer in lines:
        writer.close()
    return seen


async def until(reader: asyncio.StreamReader, words: bytes) -> float:
    """Read until the words came and their event ended; return when."""
    async with asyncio.timeout(PATIENCE_S):
        found = False
        while line := await reader.readline():
            found = found or words in line
            if found and line in {b"\n", b"\r\n"}:
                return time.perf_counter()
    raise SystemExit("The server ended a stream.")


def main() -> int:
    """Measure, print, write, judge."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    clients = int(sys.argv[2]) if len(sys.argv) > 2 else 500
    with tempfile.TemporaryDirectory() as folder:
        app = open_app(Settings(data_dir=Path(folder)))
        newest = fill(app.videos, count)
        halfway = make_video_id(newest.created_at - count / 2, bytes(10))
        with serving(folder) as (child, port):
            first = pages(child.pid, port, "/")
            deep = pages(child.pid, port, f"/?before={halfway}")
            nothing = pages(child.pid, port, "/?q=no+such+words")
            kb = weight(port)
            seen = asyncio.run(fan_out(port, clients, app.videos, newest))
        app.close()
    return report("page", _rows(count, clients, (first, deep, nothing), kb, seen))


def _rows(
    count: int,
    clients: int,
    pages: tuple[tuple[float, float], ...],
    kb: float,
    seen: list[list[float]],
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    names = ("first page", "a page from the middle", "search that finds nothing")
    for name, (rate, cpu) in zip(names, pages, strict=True):
        what = f"{name} of {count:,} videos"
        rows.append({"figure": f"{what}, requests of one client", "value": rate, "unit": "1/s"})
        row = {"figure": f"{what}, CPU", "value": cpu, "unit": "ms", "limit": MOST_CPU_MS}
        rows.append(row)
    every = sorted(1000 * each for found in seen for each in found)
    spread = statistics.median(1000 * (max(found) - min(found)) for found in seen)
    what = f"change to {clients} browsers (the server looks every second)"
    rows += [
        {"figure": f"{what}, p50", "value": statistics.median(every), "unit": "ms"},
        {"figure": f"{what}, p99", "value": every[len(every) * 99 // 100], "unit": "ms"},
        {"figure": "the same, from the first to the last browser", "value": spread, "unit": "ms"},
        {
            "figure": "first visit of the home page: HTML, styles, scripts, compressed",
            "value": kb,
            "unit": "KB",
            "limit": MOST_KB,
        },
    ]
    return rows


if __name__ == "__main__":
    sys.exit(main())
