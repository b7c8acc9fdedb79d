"""Values and verbs that the contract suites of the store share."""

import hashlib
import threading
from pathlib import Path

from contracts.backends import World
from hevcq.domain.job import Source
from hevcq.ports.store import Publication

KEY = "DONE/hevc/a.mp4"


def nothing(_moved: int) -> None:
    return


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def library_file(world: World, content: bytes = b"a clip", name: str = "video.mp4") -> Path:
    path = world.folder / "library" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def accepted(world: World, path: Path, key: str = "TODO/all/video.mp4") -> Source:
    return world.backend.store.accept(path, key, moved=nothing, stop=threading.Event())


def fetched(world: World, source: Source) -> bytes:
    scratch = world.folder / "scratch"
    scratch.mkdir(exist_ok=True)
    store = world.backend.store
    with store.fetch(source, scratch, moved=nothing, stop=threading.Event()) as given:
        return world.read(given)


def publish(
    world: World, content: bytes, *, job: str = "j", fence: int = 1, key: str = KEY, **more
):
    folder = world.folder / "encodes"
    folder.mkdir(exist_ok=True)
    file = folder / f"{sha(content)[:8]}-{job}-{fence}"
    file.write_bytes(content)
    metadata = {"job": job, "fence": str(fence), "sha256": sha(content)}
    publication = Publication(key, file, sha(content), job, fence, metadata, **more)
    made = world.backend.store.publish(publication)
    assert not file.exists(), "the file is consumed"
    return made


def content(world: World, key: str = KEY) -> bytes:
    with world.backend.store.open(key) as file:
        return file.read()


def visible(world: World, prefix: str = "") -> list[str]:
    return [found.key for found in world.backend.store.list(prefix)]
