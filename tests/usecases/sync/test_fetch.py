"""Fetching one version of a file: what another try left is used, what does not fit is never kept."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hevcq.errors import SourceChanged, SourceUnreadable
from hevcq.library.filesystem import Pace
from hevcq.ports.catalog import Body, RemoteFile
from hevcq.usecases.sync.move import fetch
from support.clips import ManualClock

CONTENT = b"0123456789" * 10
FILE = RemoteFile("Camera/a.mp4", len(CONTENT), etag="1")


class Server:
    """Serves one file; `parts` says whether it can begin in the middle."""

    def __init__(self, content: bytes = CONTENT, *, parts: bool = True) -> None:
        self.content, self.parts = content, parts
        self.now: RemoteFile | None = FILE
        self.asked: list[int] = []

    @contextmanager
    def read(self, _file: RemoteFile, start: int) -> Iterator[Body]:
        self.asked.append(start)
        begin = start if self.parts else 0
        blocks = (self.content[at : at + 7] for at in range(begin, len(self.content), 7))
        yield Body(begin, blocks)

    def stat(self, _path: str) -> RemoteFile | None:
        return self.now


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "part"


def fetched(server: Server, part: Path, file: RemoteFile = FILE) -> str:
    pace = Pace(ManualClock(auto=True), threading.Event())
    return fetch(server, file, part, pace)


@pytest.mark.parametrize("parts", [True, False], ids=["resumed", "from the beginning"])
@pytest.mark.parametrize("left", [0, 33, 100, 140])
def test_what_an_earlier_try_left_is_gone_on_with(part, left, *, parts):
    part.write_bytes((CONTENT * 2)[:left])
    server = Server(parts=parts)

    assert fetched(server, part) == hashlib.sha256(CONTENT).hexdigest()

    assert part.read_bytes() == CONTENT
    assert server.asked == {0: [0], 33: [33], 100: [], 140: [0]}[left]


def test_a_file_that_is_longer_than_listed_is_not_kept(part):
    with pytest.raises(SourceChanged, match=r"a\.mp4 is longer than it was listed"):
        fetched(Server(CONTENT + b"more"), part)
    assert not part.exists()


@pytest.mark.parametrize("now", [None, replace(FILE, etag="2"), replace(FILE, size=99)])
def test_a_file_that_changed_meanwhile_is_not_kept(part, now):
    server = Server()
    server.now = now
    with pytest.raises(SourceChanged, match="was changed while it was fetched"):
        fetched(server, part)
    assert not part.exists()


def test_a_stated_checksum_is_compared(part):
    right = hashlib.sha1(CONTENT).hexdigest()
    fetched(Server(), part, replace(FILE, checksums=(("sha1", right),)))
    part.unlink()
    with pytest.raises(SourceUnreadable, match="does not have the SHA1 that the server states"):
        fetched(Server(), part, replace(FILE, checksums=(("sha1", "0" * 40),)))
    assert not part.exists()
