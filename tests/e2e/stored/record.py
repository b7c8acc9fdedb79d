"""How the stored folder was made: `python record.py` with the old release's code on PYTHONPATH.

    unshare --uts sh -c 'hostname farm; PYTHONPATH=<release>/src:<release>/tests python record.py'

Its root is a path of no machine in particular; `relocate.py` beside it moves what is stored from
there into a test's folder. Run it again only to store another release, in a folder of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = Path("/srv/hevcq-stored")
LIB, SWAPS, DATA = ROOT / "lib", ROOT / "swaps", ROOT / "data"
PROFILES = ROOT / "profiles"
PROFILE = """name: {name}
description: H.265 at the same size and frame rate
subscribe: {subscribe}
container: source
video: {{codec: hevc, preset: ultrafast, crf: 30, skip_codecs: [hevc], encoder_params: {{hash: 1}}}}
gates: {{minimum_saving: 0.05, review_below: 0.0, picture_floor: 0.5}}
bounds: {{nice: 0}}
queue: {{visibility_s: 30, heartbeat_s: 5, backoff_base_s: 1, backoff_cap_s: 2}}
"""
CHUNKING = (
    "chunking: {mode: always, min_s: 1, target_s: 2, max_s: 4, least_film_s: 2, threads: 1}\n"
)
MAIN = "import sys; sys.argv[0] = 'hevcq'\nfrom hevcq.front import main; sys.exit(main())"
KILLED_IN_SWAP = """import os, signal
from hevcq.library.files import FileSystem
exchange = FileSystem.exchange
def exchange_and_die(self, one, other):
    exchange(self, one, other)
    os.kill(os.getpid(), signal.SIGKILL)
FileSystem.exchange = exchange_and_die
"""
REPLACE = ("--replace", "--keep-originals", 36500)  # So that what is stored never expires.
ENVIRONMENT = {
    **os.environ,
    "HOME": str(ROOT / "home"),
    "HEVCQ_DATA_DIR": str(DATA),
    "HEVCQ_PROFILES_DIR": str(PROFILES),
    "HEVCQ_MIN_FREE_MIB": "1",
}


def start(*words: object, before: str = "") -> subprocess.Popen[bytes]:
    """Start the release's command in a session of its own, so that a kill ends its children too."""
    command = [sys.executable, "-c", before + MAIN, *map(str, words)]
    return subprocess.Popen(command, env=ENVIRONMENT, start_new_session=True)


def hevcq(*words: object, before: str = "", expect: int = 0) -> None:
    code = start(*words, before=before).wait()
    assert code == expect, (words, code)


def clip(path: Path, *, seconds: float, codec: str, size: str = "64x48", quality: int = 4) -> Path:
    title = f"title={path.stem}"  # So that no two have the same bytes.
    source = f"testsrc2=size={size}:rate=10:duration={seconds}"
    coded = ["-c:v", codec, "-crf", str(quality), "-g", "5", "-metadata", title]
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", source, *coded]
    subprocess.run([*command, "-bitexact", str(path)], check=True)
    return path


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 600] = bytes(600)
    path.write_bytes(content)


def farm() -> None:
    shutil.rmtree(ROOT, ignore_errors=True)
    for folder in (LIB, SWAPS, PROFILES, ROOT / "home"):
        folder.mkdir(parents=True)
    (PROFILES / "hevc.yaml").write_text(PROFILE.format(name="hevc", subscribe="true"))
    chunked = PROFILE.format(name="chunked", subscribe="false") + CHUNKING
    (PROFILES / "chunked.yaml").write_text(chunked)


def finished_ones() -> None:
    for name in ("done.mkv", "odd näme.mkv"):
        clip(LIB / name, seconds=1, codec="libx264")
    clip(LIB / "skipped.mkv", seconds=0.5, codec="libx265", quality=30)
    clip(LIB / "larger.mkv", seconds=1, codec="libx264", quality=51)
    hevcq("ingest", LIB, "-p", "hevc")
    shutil.copy(clip(LIB / "damaged.mkv", seconds=1, codec="libx264"), ROOT / "mended.mkv")
    damage(LIB / "damaged.mkv")
    hevcq("ingest", LIB / "damaged.mkv", "-p", "hevc", expect=1)
    clip(LIB / "replaced.mkv", seconds=1, codec="libx264")
    shutil.copy(LIB / "replaced.mkv", ROOT / "replaced-original.mkv")
    hevcq("ingest", LIB / "replaced.mkv", "-p", "hevc", *REPLACE)
    hevcq("reprocess", LIB / "odd näme.mkv")
    hevcq("worker", "--drain", "-w", "1")
    hevcq("collect", expect=0)


def interrupted_ones() -> None:
    swapped = clip(SWAPS / "swapped.mkv", seconds=1, codec="libx264")
    shutil.copy(swapped, ROOT / "swapped-original.mkv")
    swap = ("ingest", swapped, "-p", "hevc", *REPLACE)
    hevcq(*swap, before=KILLED_IN_SWAP, expect=-signal.SIGKILL)
    clip(LIB / "split.mkv", seconds=8, codec="libx264", quality=30)
    hevcq("ingest", LIB / "split.mkv", "-p", "chunked", "--no-wait")
    worker = start("worker", "chunked", "-w", "1")
    while not chunk("done") or not chunk("running"):
        assert worker.poll() is None
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    clip(LIB / "waiting.mkv", seconds=1, codec="libx264")
    hevcq("ingest", LIB / "waiting.mkv", "-p", "hevc", "--no-wait")


def chunk(state: str) -> bool:
    with sqlite3.connect(f"file:{DATA / 'hevcq.db'}?mode=ro", uri=True) as db:
        wanted = "SELECT 1 FROM job WHERE parent <> '' AND state = ?"
        return db.execute(wanted, (state,)).fetchone() is not None


def store() -> None:
    with sqlite3.connect(DATA / "hevcq.db") as db:
        kept = ("application_id", "user_version")
        numbers = [(name, db.execute(f"PRAGMA {name}").fetchone()[0]) for name in kept]
        lines = [*db.iterdump(), *(f"PRAGMA {name} = {number};" for name, number in numbers)]
    (HERE / "database.sql").write_text("\n".join(lines) + "\n")
    files, facts = [], {}
    for path in sorted(ROOT.rglob("*")):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(("home", "data/hevcq.db")):
            continue
        files.append((path, name))
        if path.is_file():
            there = path.stat()
            facts[name] = {"inode": there.st_ino, "mtime_ns": there.st_mtime_ns}
    manifest = {"root": str(ROOT), "device": LIB.stat().st_dev, "files": facts}
    (HERE / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    with zipfile.ZipFile(HERE / "files.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path, name in files:
            archive.write(path, name)


if __name__ == "__main__":
    farm()
    finished_ones()
    interrupted_ones()
    store()
