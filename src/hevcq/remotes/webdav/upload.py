"""Put a new file on a WebDAV server; a large one on a Nextcloud in chunks that can be resumed.

Chunked upload, version 2: a folder of chunks in the account's `uploads`, named by what is in it, so
that the next try finds the chunks of the last one; a MOVE of `.file` joins them
(https://docs.nextcloud.com/server/latest/developer_manual/client_apis/WebDAV/chunking.html).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from hevcq.errors import DiskFull, SourceChanged, SourceUnreadable
from hevcq.ports.sync import RemoteFile, Upload
from hevcq.util.text import printable

WHOLE_BYTES = 100 * 1024 * 1024
"""Files up to this size go in one request, as in Nextcloud's own clients."""
CHUNK_BYTES = 32 * 1024 * 1024
MAX_CHUNKS = 10_000
FILES, UPLOADS = "/remote.php/dav/files/", "/remote.php/dav/uploads/"

Send = Callable[[str, str, Mapping[str, str], Iterator[bytes] | None], int]
"""Sends a method to an address with headers and a body, and returns the status."""


@dataclass(frozen=True, slots=True)
class Uploader:
    """Uploads over the connection of one account; `base` is the address of its files.

    `chunks` lists the names and sizes of what is in an upload folder, or None without one.
    """

    base: str
    send: Send
    chunks: Callable[[str], Mapping[str, int] | None]
    whole_bytes: int = WHOLE_BYTES
    chunk_bytes: int = CHUNK_BYTES

    def put(self, path: str, upload: Upload) -> bool:
        """Put a file; return False if one is there. Raises what the port's `put` raises."""
        self._make_folders(path)
        if upload.size <= self.whole_bytes or FILES not in self.base:
            return self._put_whole(path, upload)
        return self._put_in_chunks(path, upload)

    def _address(self, path: str) -> str:
        return self.base + quote(path, safe="/", errors="surrogateescape")

    def _make_folders(self, path: str) -> None:
        parts = path.split("/")[:-1]
        for count in range(1, len(parts) + 1):
            # 405: it is there already (RFC 4918, 9.3.1).
            self.send("MKCOL", self._address("/".join(parts[:count])), {}, None)

    def _put_whole(self, path: str, upload: Upload) -> bool:
        headers = {
            "If-None-Match": "*",
            "Content-Length": str(upload.size),
            **_facts(upload),
        }
        body = upload.blocks(0, upload.size)
        return _judged(self.send("PUT", self._address(path), headers, body), path)

    def _put_in_chunks(self, path: str, upload: Upload) -> bool:
        destination = {"Destination": self._address(path), "OC-Total-Length": str(upload.size)}
        folder = self.base.replace(FILES, UPLOADS, 1) + f"hevcq-{upload.sha1}"
        there = self.chunks(folder)
        if there is None:
            _judged(self.send("MKCOL", folder, destination, None), path)
            there = {}
        step = max(self.chunk_bytes, -(-upload.size // MAX_CHUNKS))
        for number, start in enumerate(range(0, upload.size, step), 1):
            count = min(step, upload.size - start)
            name = f"{number:05d}"
            if there.get(name) != count:
                headers = {**destination, "Content-Length": str(count)}
                body = upload.blocks(start, count)
                _judged(self.send("PUT", f"{folder}/{name}", headers, body), path)
        headers = {**destination, **_facts(upload), "Overwrite": "F"}
        return _judged(self.send("MOVE", f"{folder}/.file", headers, None), path)


def chunk_sizes(files: tuple[RemoteFile, ...]) -> dict[str, int]:
    """Return the sizes of chunks by their names."""
    return {file.path.rpartition("/")[2]: file.size for file in files}


def _facts(upload: Upload) -> dict[str, str]:
    return {"OC-Checksum": f"SHA1:{upload.sha1}", "X-OC-MTime": str(int(upload.modified))}


def _judged(status: int, path: str) -> bool:
    """Return whether something was made; False if a file is there already."""
    name = printable(path)
    if 200 <= status < 300:
        return True
    match status:
        case 412:
            return False
        case 507 | 413:
            raise DiskFull(f"The server has no room for {name} (HTTP {status}).")
        case 400:
            raise SourceChanged(f"{name} did not arrive as it was sent (HTTP 400).")
    raise SourceUnreadable(f"The server does not take {name} (HTTP {status}).")
