"""A catalog in memory."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from hevcq.domain.media.facts import MediaInfo
from hevcq.ports.catalog import (
    Catalog,
    EncodeCost,
    Fingerprint,
    HashedFile,
    LivedTime,
    Placement,
    PlacementState,
)
from hevcq.util.clock import Clock


class MemoryCatalog(Catalog):
    """Three dicts. A placement without `updated_at` gets the clock's time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._facts: dict[Path, tuple[Fingerprint, MediaInfo | str]] = {}
        self._costs: dict[str, EncodeCost] = {}
        self._placements: dict[str, Placement] = {}
        self._hashes: dict[Path, HashedFile] = {}
        self._lived: LivedTime | None = None
        self._kept: dict[str, float] = {}

    def cached(self, paths: Sequence[Path]) -> Mapping[Path, tuple[Fingerprint, MediaInfo | str]]:
        return {path: self._facts[path] for path in paths if path in self._facts}

    def cache(self, found: Iterable[tuple[Path, Fingerprint, MediaInfo | str]]) -> None:
        for path, fingerprint, facts in found:
            self._facts[path] = (fingerprint, facts)

    def hashed(self, path: Path) -> HashedFile | None:
        return self._hashes.get(path)

    def record_hash(self, path: Path, found: HashedFile) -> None:
        self._hashes[path] = found

    def lived(self) -> LivedTime | None:
        return self._lived

    def record_lived(self, seen: LivedTime) -> None:
        self._lived = seen

    def kept_since(self, job_id: str) -> float | None:
        return self._kept.get(job_id)

    def record_kept(self, job_id: str, since_s: float) -> None:
        self._kept[job_id] = since_s

    def record_placements(self, placements: Iterable[Placement]) -> None:
        for placement in placements:
            when = placement.updated_at or self._clock.now()
            self._placements[placement.job_id] = dataclasses.replace(placement, updated_at=when)

    def record_encode_cost(self, job_id: str, cost: EncodeCost) -> None:
        self._costs.pop(job_id, None)
        self._costs[job_id] = cost

    def encode_costs(self, profile: str, limit: int) -> Mapping[str, EncodeCost]:
        newest = reversed(self._costs.items())
        found = [(job_id, cost) for job_id, cost in newest if cost.profile == profile]
        return dict(found[:limit])

    def placement(self, job_id: str) -> Placement | None:
        return self._placements.get(job_id)

    def alike(self, fingerprint: Fingerprint) -> list[Placement]:
        found = [
            p
            for p in self._placements.values()
            if p.fingerprint.size == fingerprint.size
            and p.fingerprint.mtime_ns == fingerprint.mtime_ns
        ]
        return sorted(found, key=lambda p: (-p.updated_at, p.job_id))

    def placements(
        self,
        *,
        states: frozenset[PlacementState] = frozenset(),
        under: Path | None = None,
        since: float | None = None,
    ) -> Iterator[Placement]:
        found = [
            p
            for p in self._placements.values()
            if (not states or p.state in states)
            and (under is None or _below(p.source, under) or _below(p.target, under))
            and (since is None or p.updated_at >= since)
        ]
        return iter(sorted(found, key=lambda p: (-p.updated_at, p.job_id)))


def _below(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents
