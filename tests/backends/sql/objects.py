"""Renditions in the embedded store: verbs that its tests share."""

from pathlib import Path

from contracts.objects import sha
from hevcq.backends.sql.factory import OBJECTS
from hevcq.ports.store import Publication, Store

OLD, NEW = b"old rendition" * 100, b"new rendition" * 100


def publish(store: Store, file: Path, content: bytes = OLD, **more: object):
    file.write_bytes(content)
    given = {"job_id": "j", "fence": 1, **more}
    return store.publish(Publication("DONE/a", file, sha(content), **given))


def read(store: Store) -> bytes:
    with store.open("DONE/a") as file:
        return file.read()


def versions(folder: Path) -> list[Path]:
    return list((folder / OBJECTS).glob("??/*/*"))
