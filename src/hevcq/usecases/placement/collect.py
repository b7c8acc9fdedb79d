"""Put finished renditions in place: verify the certificate, place or swap, clean up.

The retention of an original is measured in time that this machine has lived through, because the clock
alone must delete nothing: a board without a battery starts in 1970, and a typing error can put a clock 60
days ahead. The kernel counts the time that the machine was up. The time that it was off is known by the
clock only, so each start adds at most MAX_OFF_S of it; an original is rather kept longer than asked.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from hevcq.domain.certificate import Certificate, Gate
from hevcq.domain.job import JobRecord, RenditionRef, Source
from hevcq.domain.keys import OUTBOX, is_set, member_key, path_of_key
from hevcq.errors import (
    DiskFull,
    HevcqError,
    Interruption,
    LibraryError,
    SourceChanged,
    SourceGone,
    StorageError,
    Unavailable,
    VerificationFailed,
)
from hevcq.library.filesystem import FileSystem, fingerprint_of, holds, library_errors, same_bytes
from hevcq.library.own_files import certificate_path, shown_path
from hevcq.library.place import (
    Check,
    Fetch,
    FetchFile,
    ToPlace,
    place,
    place_sidecars,
    remove_sidecars,
)
from hevcq.library.replacement.journal import Record
from hevcq.library.replacement.refusals import Replacement
from hevcq.library.replacement.retention import DAY_S
from hevcq.library.replacement.swap import Swap
from hevcq.ports.catalog import UNPLACED, LivedTime, Mode, Placement, PlacementState
from hevcq.ports.store import Store
from hevcq.sql.catalog import Catalog
from hevcq.usecases.context import Ports, placing
from hevcq.usecases.proofs import Proofs, proof_at
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger
from hevcq.util.text import printable

MAX_OFF_S = 3 * DAY_S
"""Most seconds that a start of the machine adds for the time it was off."""


def advanced(before: LivedTime | None, seen: LivedTime) -> LivedTime:
    """Return `seen` with the total of `before` plus the seconds since; `seen.total_s` is ignored."""
    if before is None:
        return replace(seen, total_s=0.0)
    # Without a boot id, the machine may have restarted between; if its uptime grew all the same, the
    # difference is at most the time that passed.
    if before.boot == seen.boot and seen.uptime_s >= before.uptime_s:
        gained = seen.uptime_s - before.uptime_s
    else:
        off = seen.highest_wall - before.highest_wall - seen.uptime_s
        gained = seen.uptime_s + min(max(0.0, off), MAX_OFF_S)
    highest = max(before.highest_wall, seen.highest_wall)
    return replace(seen, total_s=before.total_s + gained, highest_wall=highest)


def lived_s(catalog: Catalog, clock: Clock) -> float:
    """Record and return the seconds that this machine has lived through until now."""
    seen = LivedTime(0.0, clock.now(), clock.uptime(), clock.boot())
    now = advanced(catalog.lived(), seen)
    catalog.record_lived(now)
    return now.total_s


def note_kept(catalog: Catalog, clock: Clock, job_id: str) -> None:
    catalog.record_kept(job_id, lived_s(catalog, clock))


def kept_s(catalog: Catalog, lived: float, record: Record) -> float:
    """Return for how many seconds, lived through by this machine, an original has been kept.

    The retention of an original that this data folder does not know begins now.
    """
    since = catalog.kept_since(record.job_id)
    if since is None:
        catalog.record_kept(record.job_id, lived)
        return 0.0
    return lived - since


FOLLOWED = "The video changed, and its new rendition took this one's place."
RETRIED = (DiskFull, Unavailable, Interruption, StorageError)
"""Errors that do not concern the rendition or its target: the placement is retried later."""


@dataclass(frozen=True, slots=True)
class Collected:
    """A rendition of `size` bytes in its place.

    `already`: another process or an earlier run placed it. `keep_days`: retention of a replaced
    original. `cpu_s`: CPU seconds of the encode alone.
    """

    target: Path
    size: int
    mode: Mode
    notices: tuple[str, ...] = ()
    retained: Path | None = None
    already: bool = False
    keep_days: float = 0.0
    cpu_s: float = 0.0


class Collector:
    """Places finished renditions.

    `discard` deletes them from the store once they are in place: on one machine they would only fill
    the disk, in a bucket they stay. `mark_source_finished` gets the source of each placed job; it must
    not raise.
    """

    def __init__(
        self,
        ports: Ports,
        proofs: Proofs,
        *,
        discard: bool,
        mark_source_finished: Callable[[Source], bool] = lambda _source: False,
    ) -> None:
        self._ports = ports
        self._proofs = proofs
        self._discard = discard
        self.mark_source_finished = mark_source_finished

    def collect(self, job: JobRecord, stop: threading.Event) -> Collected:
        """Put the rendition of a DONE job in place.

        Raises LibraryError or VerificationFailed if it cannot be placed (recorded, and retried by the
        next run); DiskFull, Unavailable or Stopped if only not now.
        """
        placement, ref = self._placement_of(job)
        if _is_settled(placement, ref):
            self._clear_store(ref)
            self.mark_source_finished(job.source)
            return _already_placed(placement, ref)
        try:
            done = self._place(job, placement, ref, stop)
        except HevcqError as error:
            return self._failed(placement, ref, error)
        if done.mode is Mode.REPLACE:
            # First, because after the record nothing looks for it again.
            _remove_beside(placement, ref, self._ports.files(stop))
        self._record(placement, ref, done)
        self._clear_store(ref)
        # Last, because deleting the store's hard link alters the file's change time.
        if done.mode is not Mode.REPLACE:
            with suppress(OSError):
                self._proofs.remember(done.target, ref.sha256, ref.certificate_sha256)
        self.mark_source_finished(job.source)
        return done

    def reprocessed(self) -> Iterator[Placement]:
        """Yield placements whose job was reprocessed after they were placed.

        Only where collecting empties the store (`discard`), since a rendition that is still there is then
        a new one. Certificates and files of sets that a killed attempt left there are no renditions.
        """
        if not self._discard:
            return
        stored = self._ports.backend.store.list(f"{OUTBOX}/")
        jobs = {each.metadata.get("job") for each in stored if each.metadata.get("certificate")}
        for job in sorted(jobs - {None, ""}, key=str):
            placement = self._ports.catalog.placement(str(job))
            if placement is not None and placement.state is PlacementState.PLACED:
                yield placement

    def _placement_of(self, job: JobRecord) -> tuple[Placement, RenditionRef]:
        placement, key = self._ports.catalog.placement(job.job_id), job.source.key
        if placement is None:
            raise LibraryError(
                f"This machine has no target for the rendition of {path_of_key(key) or key}.",
                remedy="Run hevcq ingest on its folder.",
            )
        if job.rendition is None:
            raise LibraryError(
                f"The job {job.job_id} is done but has no rendition.",
                remedy="Encode it again with `hevcq retry`.",
            )
        return placement, job.rendition

    def _place(
        self, job: JobRecord, placement: Placement, ref: RenditionRef, stop: threading.Event
    ) -> Collected:
        proof = self._proof(placement, ref)
        proofs = replace(self._proofs, stop=stop)
        rendition = ToPlace(library_root_of(placement), placement.source, placement.target, proof)
        fs = self._ports.files(stop)

        def fetch(target: Path) -> str:
            return self._fetch(placement, ref, target, stop)

        def check(target: Path) -> None:
            if proofs.verify_before_replace:
                _require_proven_again(proofs, proof, placement.source, target)

        if placement.mode is Mode.REPLACE:
            done = self._swap(placement, ref, proof, (fetch, check), fs)
        else:
            self._require_same_source(placement)
            self._require_same_ends(job.source)
            self._clear_older(placement, ref, fs)
            file = self._file_of_set(placement, proof, stop)
            placed = place(rendition, lambda n, to: file(n, to) if n else fetch(to), fs)
            done = Collected(
                placed.target, ref.size, placement.mode, placed.notices, already=placed.already
            )
        source = done.retained or placement.source
        left = place_sidecars(fs, rendition.home, done.target, source, proof)
        return replace(done, notices=(*done.notices, *left), cpu_s=proof.cpu_s)

    def _fetch(
        self, placement: Placement, ref: RenditionRef, target: Path, stop: threading.Event
    ) -> str:
        """Write the rendition to `target`; return its SHA-256.

        Raises VerificationFailed if the store has lost it or has other bytes than were published: only
        a new encode helps then.
        """
        store = self._ports.backend.store
        try:
            digest = store.collect(ref.key, target, stop=stop)
        except SourceGone as error:
            if placement.retained is None:
                raise self._lost(placement, "The finished rendition", error) from error
            digest = _link_or_copy(placement.retained, target, FileSystem(stop))
        if digest != ref.sha256:
            raise VerificationFailed(
                f"The finished rendition of {printable(placement.source)} was damaged"
                f" in the store (its SHA-256 differs, {Gate.G9.name}); nothing was written.",
                remedy=_retry_remedy(placement),
            )
        return digest

    def _file_of_set(
        self, placement: Placement, proof: Certificate, stop: threading.Event
    ) -> FetchFile:
        """Return a function that writes one file of a set, by its name in the set, to a path."""
        store = self._ports.backend.store

        def fetch(name: str, target: Path) -> str:
            key = member_key(proof.rendition_key, name)
            try:
                return store.collect(key, target, stop=stop)
            except SourceGone as error:
                raise self._lost(placement, f"{name} of the rendition", error) from error

        return fetch

    @staticmethod
    def _lost(placement: Placement, what: str, error: SourceGone) -> VerificationFailed:
        return VerificationFailed(
            f"{what} of {printable(placement.source)} is lost: {error}",
            remedy=_retry_remedy(placement),
        )

    def _swap(
        self,
        placement: Placement,
        ref: RenditionRef,
        proof: Certificate,
        how: tuple[Fetch, Check],
        fs: FileSystem,
    ) -> Collected:
        swap = Swap(placement.root, self._ports.clock, fs)
        if swap.find(placement.job_id) is None:
            self._require_same_source(placement)
        change = Replacement(
            source=placement.source,
            target=placement.target,
            fingerprint=placement.fingerprint,
            certificate=proof,
            keep_days=placement.keep_days,
        )
        swapped = swap.replace(change, *how)
        return Collected(
            target=swapped.target,
            size=ref.size,
            mode=Mode.REPLACE,
            notices=swapped.notices,
            retained=swapped.retained,
            already=swapped.already,
            keep_days=placement.keep_days,
        )

    @staticmethod
    def _require_same_source(placement: Placement) -> None:
        """Refuse to put a rendition of old bytes beside a changed source (gate G0)."""
        folder = placement.source.parent
        if not folder.is_dir():
            raise LibraryError(
                f"The folder {printable(folder)} is missing.",
                remedy="Mount or restore it, and run the same command again.",
            )
        with library_errors(placement.source):
            if not os.path.lexists(placement.source):
                return
            now = fingerprint_of(placement.source.lstat())
        if not same_bytes(now, placement.fingerprint):
            raise SourceChanged(
                f"{printable(placement.source)} changed after it was encoded; its old rendition is"
                " discarded.",
                remedy="Run hevcq ingest again to encode the new version.",
            )

    def _require_same_ends(self, source: Source) -> None:
        """Refuse a changed source by its first and last bytes, where a file server rounds times (gate G0).

        A source that is gone is accepted.
        """
        if self._ports.catalog.database.shared:
            with suppress(SourceGone):
                self._ports.backend.store.check(source)

    def _proof(self, placement: Placement, ref: RenditionRef) -> Certificate:
        try:
            with self._ports.backend.store.open(ref.certificate_key) as reading:
                proof = Certificate.read(reading)
        except SourceGone as error:
            earlier = proof_at(placement.retained, ref)
            if earlier is None:
                raise self._lost(placement, "The certificate of the rendition", error) from error
            proof = earlier
        recorded = (placement.job_id, ref.sha256, ref.certificate_sha256)
        if (proof.job_id, proof.rendition_sha256, proof.digest) != recorded:
            raise VerificationFailed(
                f"The certificate of {printable(placement.source)} in the store is not the one that this"
                f" farm wrote ({Gate.G9.name}); nothing was written.",
                remedy=_retry_remedy(placement),
            )
        return proof

    @staticmethod
    def _clear_older(placement: Placement, ref: RenditionRef, fs: FileSystem) -> None:
        """Remove an older rendition of the same job from its target. `place` itself replaces a set."""
        if placement.sha256 in {"", ref.sha256} or is_set(ref.key):
            return
        target = placement.target
        with library_errors(target):
            facts = fs.lstat(target)
            if facts is None or fs.digest(target) != placement.sha256:
                return
            sizes = facts.st_size, placement.fingerprint.size
            home = library_root_of(placement)
            record = certificate_path(home, placement.sha256, sizes, placement.job_id)
            fs.unlink(target)
            fs.fsync_dir(target.parent)
            fs.unlink(record)

    def _failed(self, placement: Placement, ref: RenditionRef, error: HevcqError) -> Collected:
        """Return the placement if another process placed it meanwhile; else record and raise the error."""
        with placing(self._ports) as require:
            now = self._ports.catalog.placement(placement.job_id)
            if now is not None and _is_settled(now, ref):
                return _already_placed(now, ref)
            if not isinstance(error, RETRIED):
                obsolete = isinstance(error, SourceChanged)
                refused = replace(
                    placement,
                    state=PlacementState.EXPIRED if obsolete else PlacementState.REFUSED,
                    detail=str(error),
                    updated_at=self._ports.clock.now(),
                )
                require()
                self._ports.catalog.record_placements([refused])
        if isinstance(error, SourceChanged):
            self._clear_store(ref)
        raise error

    def _record(self, placement: Placement, ref: RenditionRef, done: Collected) -> None:
        replaced = placement.mode is Mode.REPLACE
        with placing(self._ports) as require:
            settled = replace(
                placement,
                state=PlacementState.REPLACED if replaced else PlacementState.PLACED,
                detail=" ".join(done.notices),
                sha256=ref.sha256,
                target=done.target,
                retained=done.retained,
                updated_at=self._ports.clock.now(),
            )
            require()
            self._ports.catalog.record_placements([*self._expired_by(settled), settled])
        if replaced:
            note_kept(self._ports.catalog, self._ports.clock, placement.job_id)

    def _expired_by(self, new: Placement) -> Iterator[Placement]:
        """Yield the placements of the video's earlier content at this target, as expired."""
        placed = self._ports.catalog.placements(
            states=frozenset({PlacementState.PLACED}), under=new.source
        )
        for each in list(placed):
            if each.target == new.target and each.job_id != new.job_id:
                yield replace(each, state=PlacementState.EXPIRED, detail=FOLLOWED)

    def _clear_store(self, ref: RenditionRef) -> None:
        if not self._discard:
            return
        store = self._ports.backend.store
        try:
            files = _files_of(store, ref)
            for key in (ref.key, *files, ref.certificate_key):
                store.delete(key)
        except HevcqError as error:
            # The rendition is in place, so a leftover in the store only costs space.
            get_logger().warning("rendition_not_tidied", key=ref.key, reason=str(error))


def _link_or_copy(placed: Path, target: Path, fs: FileSystem) -> str:
    """Link or copy a placed rendition to `target`; return the SHA-256 of the file there."""
    with library_errors(target):
        try:
            os.link(placed, target, follow_symlinks=False)
        except OSError:
            fs.copy(placed, target)
        return fs.digest(target)


def _remove_beside(placement: Placement, ref: RenditionRef, fs: FileSystem) -> None:
    """Remove the rendition that an earlier command placed beside an original replaced now."""
    before = placement.retained
    if before is None or before.parent != placement.source.parent or before == placement.target:
        return
    with suppress(OSError):
        if holds(fs, before, ref.size, ref.sha256):
            if (proof := proof_at(before, ref)) is not None:
                remove_sidecars(fs, before, proof, placement.fingerprint.mtime_ns)
            fs.unlink(before)
            fs.fsync_dir(before.parent)


def _files_of(store: Store, ref: RenditionRef) -> list[str]:
    """Return the keys of a set's files except its master playlist; none for a single file."""
    if not is_set(ref.key):
        return []
    with suppress(SourceGone, VerificationFailed), store.open(ref.certificate_key) as reading:
        return [member_key(ref.key, file.name) for file in Certificate.read(reading).files]
    return []


def _require_proven_again(proofs: Proofs, proof: Certificate, source: Path, new: Path) -> None:
    """Run the gates on this machine before an original is replaced. Raises VerificationFailed."""
    why = proofs.why_gates_fail(proof, source, new)
    if why:
        raise VerificationFailed(
            f"The rendition of {printable(source)} failed the check on this machine before replacing"
            f" ({why}). The original is unchanged.",
            remedy="Encode it again with `hevcq retry`.",
        )


def _retry_remedy(placement: Placement) -> str:
    return f"Make it again: `hevcq retry {placement.job_id}`, then the same command."


def _already_placed(placement: Placement, ref: RenditionRef) -> Collected:
    return Collected(placement.target, ref.size, placement.mode, already=True)


def _is_settled(placement: Placement, ref: RenditionRef) -> bool:
    return placement.state not in UNPLACED and placement.sha256 in {"", ref.sha256}


def library_root_of(placement: Placement) -> Path:
    """Return the folder that holds a placement's journal: the root, or a mirror's output folder."""
    if placement.mode is not Mode.MIRROR:
        return placement.root
    depth = len(placement.source.parent.relative_to(placement.root).parts)
    return shown_path(placement.target).parents[depth]
