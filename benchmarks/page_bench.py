"""How much CPU a page costs at 10,000 videos and 100,000 jobs: `python benchmarks/page_bench.py [JOBS]`.

The pages are asked in this process over a data folder that is filled once. Prints the median of
REQUESTS in milliseconds of CPU, and exits 1 when one is above the limit.
"""

import hashlib
import sqlite3
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from starlette.testclient import TestClient

from hevcq.domain.job import JobState
from hevcq.domain.keys import key_for_path
from hevcq.domain.media.facts import MediaInfo, Stream, StreamKind
from hevcq.domain.videos import Upload, Video, VideoRendition, VideoStatus
from hevcq.settings.model import Settings
from hevcq.sql.catalog import facts_version
from hevcq.web.app import create_app
from hevcq.web.identity.modes import OneToken
from hevcq.wiring.app import App

JOBS = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
LIMIT_MS, REQUESTS = 20, 15
STATES = ["queued"] * 60 + ["done"] * 30 + ["dead"] * 5 + ["skipped"] * 5
INSERT = """INSERT INTO job (job_id, bucket, key, version, size, profile, state, failure_class,
created_at, updated_at) VALUES (?, 'library', ?, ?, ?, 'hevc', ?, ?, ?, ?)"""
JOB = hashlib.md5(b"4242").hexdigest()
PAGES = ("/upload", "/settings", "/settings/library", "/settings/profiles", "/settings/profile?name=hevc",
         "/settings/hours", "/settings/messages", "/settings/sync", "/settings/changes",
         f"/board/jobs/{JOB}", "/board/figures", "/board/libraries", f"/v/01{4242:024}",
         "/board/jobs/ask?action=cancel&state=waiting&q=film+4242")  # fmt: skip
LISTS = ("/", "/now", "/?sort=name", "/?q=no+such+film", "/board", "/board/now", "/board/jobs/now",
         "/board/jobs?state=waiting", "/board/jobs?sort=path", "/board/jobs?state=waiting&sort=largest",
         "/board/jobs?size=5", "/board/jobs?state=failed", "/board/jobs")  # fmt: skip
SEARCHES = ("q=no+such+film", "q=film", "q=all", "q=FILM+4242", "q=%C3%A4rger", "q=film+77", "q=film+77&sort=path",
            "q=film&state=failed&cause=damaged", "state=failed&cause=network",
            "codec=h264", "codec=av1")  # fmt: skip
FILE = """INSERT INTO file (path, size, mtime_ns, inode, device, facts, info)
SELECT CAST('/' || substr(key, 10) AS BLOB), size, 0, 0, 0, ?, ? FROM job ORDER BY seq DESC LIMIT 10000"""
VIDEOS = 10_000
VIDEO_ROW = """INSERT INTO video (video_id, owner, status, words, bytes, revision, record)
VALUES (?, 'ann', 'done', ?, 1, 1, ?)"""
VIDEO = Stream(index=0, kind=StreamKind.VIDEO, codec="h264")


def row(number: int) -> tuple[object, ...]:
    """Return one job, of one of a hundred states and a size that its number makes up."""
    state = STATES[number % 100]
    key = key_for_path(f"/media/{number * 7 % 300:03}/film {number}.mkv", "all", "")
    name, size = hashlib.md5(str(number).encode()).hexdigest(), number * 7919 % 10**4 * 10**6 + 1
    at, cause = 1e9 + number, "damaged" if state == "dead" else None
    return name, key, str(number), size, state, cause, at, at


def video_row(number: int) -> tuple[object, ...]:
    """Return one uploaded video with four formats."""
    name = hashlib.md5(str(number).encode()).hexdigest()
    made = tuple(
        VideoRendition(profile=each, job_id=name, state=JobState.DONE, key=name, sha256=2 * name)
        for each in ("hevc", "720p", "1080p", "hls")
    )
    video = Video(
        video_id=f"01{number:024}",
        owner="ann",
        title=f"Holiday {number}",
        created_at=1e9,
        updated_at=1e9,
        status=VideoStatus.DONE,
        profiles=tuple(each.profile for each in made),
        upload=Upload(name="holiday.mov", size=10**9, expires_at=1e9),
        renditions=made,
    )
    return video.video_id, video.search_text, video.model_dump_json()


def main() -> int:
    """Fill a data folder, ask for each page and print its CPU time."""
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        app = App(Settings(data_dir=Path(folder), min_free_mib=0))
        app.backend.ledger.counts()  # makes the tables
        with closing(sqlite3.connect(Path(folder) / "hevcq.db")) as filled, filled:
            filled.executemany(INSERT, map(row, range(JOBS)))
            filled.executemany(VIDEO_ROW, map(video_row, range(VIDEOS)))
            info = MediaInfo(format_name="matroska,webm", streams=(VIDEO,)).model_dump_json()
            filled.execute(FILE, (facts_version(), info))
        client = TestClient(
            create_app(app),
            base_url="http://127.0.0.1:8790",
            headers={"Sec-Fetch-Site": "same-origin"},
            client=("127.0.0.1", 50_000),
        )
        with client:
            client.post("/sign-in", data={"token": OneToken(app.accounts).new()})
            for address in (*PAGES, *LISTS, *(f"/board/jobs?{each}" for each in SEARCHES)):
                spent = []
                for _ in range(REQUESTS):
                    start = time.process_time()
                    assert client.get(address).status_code == 200, address
                    spent.append((time.process_time() - start) * 1000)
                took = statistics.median(spent)
                missed += took > LIMIT_MS
                print(f"{took:6.1f} ms of {LIMIT_MS}  {address}", flush=True)
        app.close()
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
