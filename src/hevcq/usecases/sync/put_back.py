"""Put the renditions of what came from a server into a folder of it, once each.

Which file is a rendition of what, the certificate says: by the digest of its source, and its own. A
rendition that a person deletes on the server later is not put there again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hevcq.errors import HevcqError, Interruption, SourceChanged, SourceUnreadable, Unavailable
from hevcq.library.certificates import Certificates
from hevcq.library.filesystem import fingerprint_of, open_regular, same_bytes
from hevcq.library.pace import Pace
from hevcq.library.scanning.scan import VIDEO_SUFFIXES
from hevcq.ports.sync import Upload
from hevcq.usecases.sync import local_names
from hevcq.usecases.sync.move import SyncJob, SyncPorts
from hevcq.usecases.sync.presence import rendition_of
from hevcq.util.text import printable, reason_of

READ = 1 << 20
Patient = Callable[[Callable[[], bool]], bool]
"""Repeats a step while the server is away."""


@dataclass(frozen=True, slots=True)
class Put:
    """A rendition that is on the server now, or why it is not."""

    path: str
    source: Path
    size: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PutBack:
    """Puts renditions of one sync back."""

    ports: SyncPorts
    job: SyncJob
    pace: Pace

    def run(self, patient: Patient) -> Iterator[Put]:
        """Yield each rendition that was put back, or could not be.

        Raises Unavailable if the server does not answer, and Stopped.
        """
        certificates = Certificates()
        account = self.ports.remote.account
        for arrival in self.ports.journal.not_put_back(account):
            self.pace.spend(0)
            if arrival.target.suffix.lower().lstrip(".") not in VIDEO_SUFFIXES:
                continue
            rendition = rendition_of(
                self.ports.fs, arrival.target, arrival.size, arrival.sha256, certificates
            )
            if rendition is None:
                continue
            put = self._one(rendition, patient)
            if not put.reason:
                now = self.ports.clock.now()
                self.ports.journal.record_put_back(account, arrival.sha256, put.path, now)
            yield put

    def _one(self, rendition: Path, patient: Patient) -> Put:
        *parents, name = self._parts(rendition)
        path = "/".join((self.job.put_back, *parents, name))
        size = 0
        try:
            upload = self._upload(rendition)
            size = upload.size
            for candidate in local_names.numbered(name):
                path = "/".join((self.job.put_back, *parents, candidate))
                if self._is_there(path, upload) or patient(
                    lambda path=path: self.ports.remote.put(path, upload)  # type: ignore[misc]
                ):
                    return Put(path, rendition, size)
        except (Interruption, Unavailable):
            raise
        except HevcqError as error:
            return Put(path, rendition, size, str(error))
        except OSError as error:
            return Put(path, rendition, size, f"{printable(rendition)}: {reason_of(error)}.")
        return Put(path, rendition, size, "It has no free name left on the server.")

    def _parts(self, rendition: Path) -> tuple[str, ...]:
        if self.job.target in rendition.parents:
            return rendition.relative_to(self.job.target).parts
        return (rendition.name,)  # it came while the sync had another target

    def _is_there(self, path: str, upload: Upload) -> bool:
        """Return whether exactly this came already, by an upload that was not recorded."""
        found = self.ports.remote.stat(path)
        return (
            found is not None
            and found.size == upload.size
            and dict(found.checksums).get("sha1") == upload.sha1
        )

    def _upload(self, rendition: Path) -> Upload:
        """Digest the file, and return it as what is sent; it must not change meanwhile."""
        before = rendition.lstat()
        digest = hashlib.sha1(usedforsecurity=False)  # what Nextcloud compares
        with os.fdopen(open_regular(rendition), "rb", buffering=0) as reading:
            while block := reading.read(READ):
                self.pace.spend(0)
                digest.update(block)

        def blocks(start: int, count: int) -> Iterator[bytes]:
            with os.fdopen(open_regular(rendition), "rb", buffering=0) as again:
                if not same_bytes(fingerprint_of(os.fstat(again.fileno())), fingerprint_of(before)):
                    raise SourceChanged(f"{printable(rendition)} changed while it was put back.")
                again.seek(start)
                while count > 0:
                    block = again.read(min(READ, count))
                    if not block:
                        raise SourceUnreadable(f"{printable(rendition)} ended early.")
                    self.pace.spend(len(block))
                    count -= len(block)
                    yield block

        return Upload(before.st_size, before.st_mtime, digest.hexdigest(), blocks)
