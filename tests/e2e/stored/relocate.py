"""Unpack the stored folder somewhere else, and rewrite what says where it is.

A library's files are known by path and by inode, which no copy keeps. So every mention of the old
root and of an old inode is rewritten, and with them what is derived from these: the identities of
sources and jobs, the keys of objects and the folders named after them, and the digests of objects
whose text changed. Nothing else is touched, and it is rewritten as text: what wrote it is not asked.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from hevcq.domain.job import Source, job_id

HERE = Path(__file__).parent
DUMP = HERE / "database.sql"
DATABASE = "data/hevcq.db"
MANIFEST = json.loads((HERE / "manifest.json").read_text())
JOBS = "SELECT bucket, key, version, size, profile, job_id FROM job WHERE parent = ''"

Rewrite = Callable[[str], str]


@dataclass(frozen=True)
class StoredJob:
    """A job as the stored database has it."""

    source: Source
    profile: str
    job_id: str


def stored_jobs() -> list[StoredJob]:
    """Return the jobs of the stored database, with the sources they are of."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(DUMP.read_text())
        rows = db.execute(JOBS).fetchall()
    return [
        StoredJob(Source(bucket=bucket, key=key, version=version, size=size), profile, name)
        for bucket, key, version, size, profile, name in rows
    ]


def stored_sources() -> dict[str, str]:
    """Return the stored identities of sources, each with its absolute path."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(DUMP.read_text())
        return {
            name: os.fsdecode(path)
            for name, path in db.execute("SELECT source_id, path FROM source")
        }


def relocate(root: Path) -> None:
    """Unpack the stored folder to the new folder `root`."""
    unpack(root)
    pairs = moved(root)
    pairs |= identities(rewriter(pairs))
    pairs |= object_names(root, rewriter(pairs))
    pairs |= rewrite_texts(root, rewriter(pairs))
    rewrite = rewriter(pairs)
    rename_files(root, rewrite)
    restore_database(root, rewrite)


def unpack(root: Path) -> None:
    with zipfile.ZipFile(HERE / "files.zip") as archive:
        archive.extractall(root)
    for name, was in MANIFEST["files"].items():
        os.utime(root / name, ns=(was["mtime_ns"], was["mtime_ns"]))


def moved(root: Path) -> dict[str, str]:
    """Return the old root, as text and as the dump's hexadecimal, inodes and device with the new."""
    old, new = MANIFEST["root"].lstrip("/"), str(root).lstrip("/")
    pairs = {
        re.escape(old): new,
        old.encode().hex().upper(): os.fsencode(new).hex().upper(),
        rf"\b{MANIFEST['device']}\b": str(root.stat().st_dev),
    }
    for name, was in MANIFEST["files"].items():
        pairs[rf"\b{was['inode']}\b"] = str((root / name).stat().st_ino)
    return pairs


def rewriter(pairs: dict[str, str]) -> Rewrite:
    """Return what replaces each pattern, all in one pass."""
    news = list(pairs.values())
    every = re.compile("|".join(f"({pattern})" for pattern in pairs))
    return lambda text: every.sub(lambda found: news[found.lastindex - 1], text)


def identities(rewrite: Rewrite) -> dict[str, str]:
    pairs = {}
    for job in stored_jobs():
        old = job.source
        here = {"key": rewrite(old.key), "version": rewrite(old.version)}
        new = old.model_copy(update=here)
        pairs[old.source_id] = new.source_id
        pairs[job.job_id] = job_id(new, job.profile)
    return pairs


def object_names(root: Path, rewrite: Rewrite) -> dict[str, str]:
    """Return the names of the objects' folders: the digests of their keys."""
    keys = [
        json.loads(path.read_text())["key"] for path in root.glob("data/objects/*/*/*/meta.json")
    ]
    return {digest(key.encode()): digest(rewrite(key).encode()) for key in keys}


def rewrite_texts(root: Path, rewrite: Rewrite) -> dict[str, str]:
    """Rewrite every text file; return the digests of those objects that changed."""
    pairs = {}
    for path in [each for each in root.rglob("*") if each.is_file() and each.name != "meta.json"]:
        try:
            old = path.read_text()
        except UnicodeDecodeError:
            continue  # A video.
        if rewrite(old) != old:
            path.write_text(rewrite(old))
            pairs[digest(old.encode())] = digest(rewrite(old).encode())
    for path in root.glob("data/objects/*/*/*/meta.json"):
        facts = json.loads(rewriter(pairs)(rewrite(path.read_text())))
        facts["size"] = path.with_name("data").stat().st_size
        path.write_text(json.dumps(facts, indent=1, ensure_ascii=False))
    return pairs


def rename_files(root: Path, rewrite: Rewrite) -> None:
    for path in sorted(root.rglob("*"), reverse=True):
        if rewrite(path.name) != path.name:
            path.rename(path.with_name(rewrite(path.name)))
    objects = root / "data/objects"
    for path in list(objects.glob("*/*")):
        shard = objects / path.name[:2]
        shard.mkdir(exist_ok=True)
        path.rename(shard / path.name)


def restore_database(root: Path, rewrite: Rewrite) -> None:
    with closing(sqlite3.connect(root / DATABASE)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(rewrite(DUMP.read_text()))
        for path in root.glob("data/objects/*/*/*/meta.json"):
            facts = json.loads(path.read_text())
            db.execute("UPDATE object SET size = ? WHERE key = ?", (facts["size"], facts["key"]))
        db.commit()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
