"""Decide whether a rendition still is what its certificate proves, reading no more than needed.

A rendition is hashed once; the catalog keeps the digest with the file's fingerprint and change time,
which no program can set back. A certificate is trusted if this farm wrote it (the ledger has its
digest) or this machine checked it before (the catalog has it). Any other certificate is trusted only
after the gates have compared rendition and source again.
"""

import os
import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePosixPath
from urllib.parse import unquote_to_bytes

from hevcq.domain.certificate import Certificate, failure_sentence
from hevcq.domain.job import RenditionRef, is_same_version
from hevcq.domain.keys import key_for_path, tail_of_key
from hevcq.domain.profile import Profile
from hevcq.errors import BadKey, Interruption, PermanentError, UsageError
from hevcq.library.filesystem import (
    FileSystem,
    fingerprint_of,
    has_subseconds,
    open_regular,
    same_bytes,
    size_of,
)
from hevcq.library.own_files import Certificates, shown_path
from hevcq.ports.catalog import HashedFile, Placement, PlacementState
from hevcq.ports.encoder import Encoder, SpareFolder
from hevcq.ports.ledger import Ledger
from hevcq.sql.catalog import Catalog
from hevcq.sql.database import PathMap
from hevcq.usecases.verify_files import VerifyFilesRequest, verify_files
from hevcq.util.capacity import nearest_existing
from hevcq.util.file_io import sha256_ends
from hevcq.util.log import get_logger
from hevcq.util.text import printable

_LIBRARY_VERSION = re.compile(r"[0-9]+-([0-9]+)-[0-9]+")
"""The version of a library file: size, modification time in nanoseconds, inode."""
AGAIN = "move it away, then encode it again with `hevcq retry`."


@dataclass(frozen=True)
class Proofs:
    """Checks certificates; `stop` interrupts hashing and gates.

    With `verify_before_replace` the gates run again before an original is replaced: a fleet's ledger
    is not enough, because a worker that was taken over can write to it.
    """

    catalog: Catalog
    ledger: Ledger
    encoder: Encoder
    profiles: Mapping[str, Profile]
    scratch: SpareFolder
    stop: threading.Event = field(default_factory=threading.Event)
    verify_before_replace: bool = False

    def why_not_proven(self, proof: Certificate, source: Path, rendition: Path) -> str:
        """Return why `proof` does not prove that `rendition` was made from `source`, or "".

        Raises OSError, Stopped, and WorkerUnfit or a TransientError if it could not be checked now.
        """
        name = printable(rendition)
        same = self.digest(rendition) == proof.rendition_sha256
        bad = self._bad_file(proof, rendition) if same else name
        if bad:
            return f"{bad} was damaged or changed since its certificate was made; {AGAIN}"
        if not self._is_source_unchanged(proof, source):
            return f"{name} was made of other bytes than {printable(source)} has now; {AGAIN}"
        if self._is_trusted(proof, rendition):
            return ""
        why = self.why_gates_fail(proof, source, rendition)
        if why:
            return (
                f"{name} has no certificate of this farm, and failed a new check ({why}); {AGAIN}"
            )
        self.remember(rendition, proof.rendition_sha256, proof.digest)
        return ""

    def why_gates_fail(self, proof: Certificate, source: Path, rendition: Path) -> str:
        """Run the gates of the certificate's profile again; return the first failure, or ""."""
        profile = self.profiles.get(proof.profile)
        if profile is None:
            return f"its profile {proof.profile} is not installed"
        get_logger(source=printable(source)).info("rendition_checked_again")
        request = VerifyFilesRequest(source, rendition, profile, proof)
        try:
            report = verify_files(self.encoder, request, stop=self.stop, scratch=self.scratch)
        except Interruption:
            raise
        except (PermanentError, UsageError) as error:
            return error.message
        failed = report.failures
        return failure_sentence(failed[0]).rstrip(".") if failed else ""

    def why_changed(self, placement: Placement) -> str:
        """Return why the rendition at a placement's target is no longer the placed one, or "".

        Raises OSError or Stopped.
        """
        if placement.state is not PlacementState.PLACED or not placement.sha256:
            return ""
        target, size = placement.target, os.lstat(placement.target).st_size
        bad = printable(target)
        if self.digest(target) == placement.sha256:
            mine = placement.sha256, placement.job_id
            is_set = shown_path(target) != target
            proofs = Certificates().of_rendition(target, size) if is_set else ()
            proof = next((p for p in proofs if (p.rendition_sha256, p.job_id) == mine), None)
            bad = "" if proof is None else self._bad_file(proof, target)
        return f"{bad} was damaged or changed since it was put there; {AGAIN}" if bad else ""

    def _bad_file(self, proof: Certificate, rendition: Path) -> str:
        """Return in words which file of a set is missing or has other bytes than certified, or ""."""
        for file in proof.files:
            path = rendition.parent / file.name
            place = f"{printable(rendition.parent)} (its file {printable(path.name)})"
            try:
                if self.digest(path) != file.sha256:
                    return place
            except FileNotFoundError:
                return place
        return ""

    def remember(self, rendition: Path, sha256: str, certificate: str) -> None:
        """Record that `rendition` has the bytes of a trusted certificate, with the digests of both."""
        self._record_hash(rendition, os.lstat(rendition), sha256, certificate)

    def digest(self, path: Path) -> str:
        """Return the SHA-256 of a regular file; an unchanged file is not read again.

        Raises OSError or Stopped.
        """
        before = os.lstat(path)
        hashed = self.catalog.hashed(path)
        if hashed is not None and _is_unchanged(hashed, before):
            return hashed.sha256
        sha256 = FileSystem(self.stop).digest(path)
        if _is_unchanged(_hashed(before, sha256, ""), os.lstat(path)):
            self._record_hash(path, before, sha256, "")
        return sha256

    def _is_source_unchanged(self, proof: Certificate, source: Path) -> bool:
        """Return whether the source has the certified bytes; it is not read if its version is the same."""
        with os.fdopen(open_regular(source), "rb", buffering=0) as reading:
            number = reading.fileno()
            if is_same_version(proof.source.version, os.fstat(number), lambda: sha256_ends(number)):
                return True
        return self.digest(source) == proof.source_sha256

    def _is_trusted(self, proof: Certificate, rendition: Path) -> bool:
        """Return whether this farm wrote exactly this certificate, or this machine checked it before."""
        hashed = self.catalog.hashed(rendition)
        if hashed is not None and hashed.certificate == proof.digest:
            return True
        job = self.ledger.get(proof.job_id)
        return job is not None and job.certified(proof.digest)

    def _record_hash(
        self, path: Path, facts: os.stat_result, sha256: str, certificate: str
    ) -> None:
        self.catalog.record_hash(path, _hashed(facts, sha256, certificate))


def _hashed(facts: os.stat_result, sha256: str, certificate: str) -> HashedFile:
    return HashedFile(fingerprint_of(facts), facts.st_ctime_ns, sha256, certificate)


def _is_unchanged(hashed: HashedFile, now: os.stat_result) -> bool:
    """Return whether a file is unchanged: size and mtime can be set back, the change time cannot."""
    same = same_bytes(hashed.fingerprint, fingerprint_of(now))
    return same and hashed.ctime_ns == now.st_ctime_ns


class TargetState(StrEnum):
    """The file at a target: TWIN is the rendition of another video with the same name, FORMER the rendition
    of the source's earlier content. LINKED: the library's records are behind a symbolic link."""

    FREE = "free"
    OURS = "ours"
    TWIN = "twin"
    FORMER = "former"
    STRANGER = "stranger"
    READ_ONLY = "read_only"
    LINKED = "linked"


@dataclass(frozen=True)
class OwnRenditions:
    """The renditions of one scan; the only place that decides whether a file is ours and sound.

    Certificates decide, so an ingest with an empty data folder finds earlier renditions, even in a
    library that was moved. `paths` are the renditions that the scan saw, by size in bytes.
    """

    proofs: Proofs
    certificates: Certificates
    paths: Mapping[int, Sequence[Path]] = field(default_factory=dict)

    def state(self, target: Path, source: Path, size: int) -> TargetState:
        """Return the state of `target` for the rendition of `source`, which has `size` bytes.

        OURS means a valid certificate names this rendition's size and this source; `why_not_proven`
        compares the bytes. Raises Stopped while a source that was moved is read.
        """
        if not os.access(nearest_existing(target.parent), os.W_OK | os.X_OK):
            return TargetState.READ_ONLY
        if self.certificates.is_behind_link(target):
            return TargetState.LINKED
        try:
            facts = target.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return TargetState.FREE
        proofs = list(self.certificates.of_rendition(target, facts.st_size))
        if any(self._is_source(proof, source, size) for proof in proofs):
            return TargetState.OURS
        if any(self._is_named(proof, source) for proof in proofs):
            return TargetState.FORMER
        # The same name may be this video before its folder was moved.
        names = {PurePosixPath(proof.source.key).name for proof in proofs}
        twin = proofs and self._key_of(source).name not in names
        return TargetState.TWIN if twin else TargetState.STRANGER

    def why_not_proven(self, target: Path, source: Path, size: int) -> str:
        """Return why no certificate proves `target` as the rendition of `source` (`size` bytes), or "".

        Raises Stopped, and WorkerUnfit or a TransientError if it could not be checked now.
        """
        why = "no certificate is left"
        try:
            for proof in self.certificates.of_rendition(target, target.lstat().st_size):
                if self._is_source(proof, source, size):
                    why = self.proofs.why_not_proven(proof, source, target)
                    if not why:
                        return ""
        except OSError as error:
            why = f"{printable(target)} cannot be read: {(error.strerror or str(error)).lower()}."
        return why

    def find_renamed(self, source: Path, size: int, profile: str) -> Path | None:
        """Return the sound rendition of a source with `size` bytes under another name, or None.

        If the certified source is still at its old path, `source` is a copy and gets its own rendition.
        """
        for proof in self.certificates.of_source(source, size):
            mine = proof.profile == profile and not self._is_copy(proof, source)
            if mine and self._is_source(proof, source, size):
                path = self.find(proof.rendition_size, proof.rendition_sha256)
                if path is not None and not self.proofs.why_not_proven(proof, source, path):
                    return path
        return None

    def find(self, size: int, sha256: str) -> Path | None:
        """Return the path of a rendition with this size in bytes and digest, or None. Raises Stopped."""
        for path in self.paths.get(size, ()):
            with suppress(OSError):
                if self.proofs.digest(path) == sha256:
                    return path
        return None

    def _is_source(self, proof: Certificate, source: Path, size: int) -> bool:
        """Return whether a certificate's source is the file at `source` with `size` bytes.

        The path in the library decides, else the modification time in nanoseconds, else the SHA-256,
        which needs reading the file. Raises Stopped.
        """
        if proof.source.size != size:
            return False
        if self._is_named(proof, source):
            return True
        try:
            version = _LIBRARY_VERSION.fullmatch(proof.source.version)
            mtime_ns = 0 if version is None else int(version[1])
            if has_subseconds(mtime_ns) and mtime_ns == source.lstat().st_mtime_ns:
                return True
            return self.proofs.digest(source) == proof.source_sha256
        except OSError:
            return False

    def _is_named(self, proof: Certificate, source: Path) -> bool:
        """Return whether a certificate's source was at this path."""
        return tail_of_key(proof.source.key) == tail_of_key(str(self._key_of(source)))

    def _is_copy(self, proof: Certificate, path: Path) -> bool:
        """Return whether a certificate's source is still at its old path, so that `path` is a copy."""
        old = self._paths.local_path(unquote_to_bytes(f"/{tail_of_key(proof.source.key)}"))
        return old != path and size_of(old) == proof.source.size

    def _key_of(self, source: Path) -> PurePosixPath:
        try:
            return PurePosixPath(key_for_path(str(self._paths.common_path(source))))
        except BadKey:
            return PurePosixPath(source.name)

    @property
    def _paths(self) -> PathMap:
        return self.proofs.catalog.database.paths


def proof_at(rendition: Path | None, ref: RenditionRef) -> Certificate | None:
    """Return the certificate of a rendition that an earlier command placed, or None."""
    proofs = () if rendition is None else Certificates().of_rendition(rendition, ref.size)
    return next((proof for proof in proofs if proof.digest == ref.certificate_sha256), None)
