"""The catalog of a user's library folders, the health of files and the journal of a sync, in SQLite.

The catalog is local to this machine with every backend: probe cache, digests and placements. Paths are
kept as raw bytes, so that they may hold any bytes valid in a file name.
"""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from hevcq.domain.media.facts import MediaInfo
from hevcq.ports.catalog import (
    Arrival,
    Checked,
    Depth,
    EncodeCost,
    Fingerprint,
    HashedFile,
    Health,
    LivedTime,
    Mode,
    Placement,
    PlacementState,
    Spot,
    SyncEntry,
)
from hevcq.sql.database import Connection, Database, PathMap, flat, upsert
from hevcq.util.clock import Clock

Recorded = TypeVar("Recorded", Placement, Checked)
BATCH = 500
PAGE = 500

CACHE = upsert("file", "path, size, mtime_ns, inode, device, facts, info, problem", "path")
HASHED = (
    "SELECT size, mtime_ns, inode, device, ctime_ns, sha256, certificate "
    "FROM hashed_file WHERE path = ?"
)
CODEC = """(SELECT json_extract(value, '$.codec') FROM json_each(info, '$.streams')
WHERE json_extract(value, '$.kind') = 'video' LIMIT 1)"""
LIVED = "SELECT total_s, highest_wall, uptime_s, boot FROM lived"
LIVE = upsert("lived", "id, total_s, highest_wall, uptime_s, boot", "id")
KEPT = "SELECT since_s FROM kept_original WHERE job_id = ?"
KEEP = upsert("kept_original", "job_id, since_s", "job_id")
HASH = upsert(
    "hashed_file", "path, size, mtime_ns, inode, device, ctime_ns, sha256, certificate", "path"
)
COLUMNS = (
    "job_id, root, source, size, mtime_ns, inode, device, profile, mode, target, keep_days, "
    "state, detail, retained, sha256, updated_at"
)
PLACE = upsert("placement", COLUMNS, "job_id")
FIND = f"SELECT {COLUMNS} FROM placement WHERE job_id = ?"  # noqa: S608 - constants only
ALIKE = (
    f"SELECT {COLUMNS} FROM placement WHERE size = ? AND mtime_ns = ? "  # noqa: S608
    "ORDER BY updated_at DESC, seq DESC"
)
RECORD_COST = upsert(
    "encode_cost",
    "job_id, at, profile, encoder, preset, megapixels, source_size, output_size, cpu_s",
    "job_id",
)
COSTS = """SELECT job_id, profile, encoder, preset, megapixels, source_size, output_size, cpu_s
FROM encode_cost WHERE profile = ? ORDER BY at DESC LIMIT ?"""
FEW = 3
"""Videos of one library that may all have been deleted."""
LAST_IN = """SELECT source, target, size, state FROM placement WHERE source >= ? AND source < ?
ORDER BY updated_at DESC LIMIT 50"""
BELOW = (
    "source = :path{0} OR (source >= :first{0} AND source < :last{0})"
    " OR target = :path{0} OR (target >= :first{0} AND target < :last{0})"
)


@functools.cache
def facts_version() -> str:
    """Return a version of the fields of MediaInfo: facts of other versions are probed again."""
    schema = json.dumps(MediaInfo.model_json_schema(), sort_keys=True)
    return hashlib.sha256(schema.encode()).hexdigest()[:16]


class Catalog:
    """Facts about library folders. A placement without `updated_at` gets the current time.

    `local` keeps what is true of this machine alone: what it read of files, what encodes cost it, and
    the time that it lived through. It is the same database unless machines share `database`.
    """

    def __init__(self, database: Database, clock: Clock, local: Database | None = None) -> None:
        self._database, self._local = database, local or database
        self._clock = clock

    @property
    def database(self) -> Database:
        """The database, for other records of this machine beside the catalog."""
        return self._database

    def close(self) -> None:
        self._database.close()
        self._local.close()

    def cached(self, paths: Sequence[Path]) -> Mapping[Path, tuple[Fingerprint, MediaInfo | str]]:
        """Return the cached scan results of `paths`: the media facts, or why the file is no video."""
        found: dict[Path, tuple[Fingerprint, MediaInfo | str]] = {}
        columns = "path, size, mtime_ns, inode, device, info, problem"
        for path, *mark, info, problem in self._files(columns, paths):
            facts = problem if info is None else _info(info)
            if facts is not None:
                found[_path(path)] = (Fingerprint(*mark), facts)
        return found

    def codecs(self, paths: Sequence[Path]) -> dict[tuple[Path, int], str | None]:
        """Return the codec of the first video track by path and size, of files that were probed here."""
        rows = self._files(f"path, size, {CODEC}", paths)
        return {(_path(path), size): codec for path, size, codec in rows}

    def _files(self, columns: str, paths: Sequence[Path]) -> Iterator[tuple[Any, ...]]:
        for start in range(0, len(paths), BATCH):
            batch = [os.fsencode(path) for path in paths[start : start + BATCH]]
            marks = ", ".join("?" * len(batch))
            sql = f"SELECT {columns} FROM file WHERE facts = ? AND path IN ({marks})"  # noqa: S608
            yield from self._local.rows(sql, (facts_version(), *batch))

    def cache(self, found: Iterable[tuple[Path, Fingerprint, MediaInfo | str]]) -> None:
        version = facts_version()
        rows = [
            (os.fsencode(path), *flat(mark), version, None, facts)
            if isinstance(facts, str)
            else (
                os.fsencode(path),
                *flat(mark),
                version,
                facts.model_dump_json(exclude_defaults=True),
                None,
            )
            for path, mark, facts in found
        ]
        if rows:
            self._local.write(lambda c: c.executemany(CACHE, rows))

    def hashed(self, path: Path) -> HashedFile | None:
        """Return the last recorded digest of a file, or None."""
        row = self._local.row(HASHED, (os.fsencode(path),))
        return None if row is None else HashedFile(Fingerprint(*row[:4]), *row[4:])

    def record_hash(self, path: Path, found: HashedFile) -> None:
        row = (os.fsencode(path), *flat(found))
        self._local.write(lambda c: c.execute(HASH, row))

    def lived(self) -> LivedTime | None:
        """Return the last record of the time lived through, or None."""
        row = self._local.row(LIVED, ())
        return None if row is None else LivedTime(*row)

    def record_lived(self, seen: LivedTime) -> None:
        self._local.write(lambda c: c.execute(LIVE, (1, *dataclasses.astuple(seen))))

    def kept_since(self, job_id: str) -> float | None:
        """Return since which second of the time lived through a job's original is kept, or None."""
        row = self._local.row(KEPT, (job_id,))
        return None if row is None else float(row[0])

    def record_kept(self, job_id: str, since_s: float) -> None:
        """Store since when a job's original is kept, over an earlier record."""
        self._local.write(lambda c: c.execute(KEEP, (job_id, since_s)))

    def record_placements(self, placements: Iterable[Placement]) -> None:
        """Insert or overwrite placements by job id, durably."""
        now = self._clock.now()
        dated = (
            dataclasses.replace(each, updated_at=each.updated_at or now) for each in placements
        )
        paths = self._database.paths
        rows = [tuple(flat(shared(self._database, each), paths.own)) for each in dated]
        if rows:
            self._database.write(lambda c: c.executemany(PLACE, rows))

    def record_encode_cost(self, job_id: str, cost: EncodeCost) -> None:
        """Insert or overwrite what a job's encode cost. May be lost in a power cut."""
        stored = dataclasses.astuple(cost)[:-3]  # not `most`, `usual` and `search`
        values = (job_id, self._clock.now(), *stored)
        self._local.change(RECORD_COST, values, durable=False)

    def encode_costs(self, profile: str, limit: int) -> Mapping[str, EncodeCost]:
        """Return the latest recorded costs of a profile by job id, newest first."""
        rows = self._local.rows(COSTS, (profile, limit))
        return {job_id: EncodeCost(*cost) for job_id, *cost in rows}

    def placement(self, job_id: str) -> Placement | None:
        row = self._database.row(FIND, (job_id,))
        return None if row is None else _placement(self._database.paths, row)

    def alike(self, fingerprint: Fingerprint) -> list[Placement]:
        """Return the placements of sources with this size and modification time, wherever they are,
        most recently updated first."""
        rows = self._database.rows(ALIKE, (fingerprint.size, fingerprint.mtime_ns))
        return [_placement(self._database.paths, row) for row in rows]

    def placements(
        self,
        *,
        states: frozenset[PlacementState] = frozenset(),
        under: Path | None = None,
        since: float | None = None,
    ) -> Iterator[Placement]:
        """Yield placements page by page, most recently updated first.

        `under` selects placements whose source or target is that path or below it; `since` is in
        Unix seconds.
        """
        where, values = _conditions(
            states, [] if under is None else self._database.paths.within(under), since
        )
        sql = (
            f"SELECT updated_at, seq, {COLUMNS} FROM placement WHERE {where} "  # noqa: S608
            f"ORDER BY updated_at DESC, seq DESC LIMIT {PAGE}"
        )
        bound = {**values, "updated_at": float("inf"), "seq": 0}
        while True:
            rows = self._database.rows(sql, bound)
            yield from (_placement(self._database.paths, row[2:]) for row in rows)
            if len(rows) < PAGE:
                return
            bound |= {"updated_at": rows[-1][0], "seq": rows[-1][1]}


def shows_itself(database: Database, name: Path, but: Path | None = None) -> bool | None:
    """Return whether a mapped folder has one of the videos that were last recorded in it, not `but`.

    So a folder with other bytes is told from a video that changed. None: too few are recorded to say.
    """
    inside, away = os.fsencode(name).rstrip(b"/") + b"/", 0
    here = database.paths.here
    for source, target, size, state in database.rows(LAST_IN, (inside, inside[:-1] + b"0")):
        if here(source) == but:
            continue
        away += 1
        with suppress(OSError):
            if state in {"placed", "replaced"} and here(target).is_file():
                return True
            if here(source).stat().st_size == size:
                return True
    return False if away >= FEW else None


def linked(database: Database) -> tuple[Path, Path] | None:
    """Return a link of this machine in the name of a recorded video, and where it leads; None if there is none.

    A scan names files by where links lead, so that it would record the same video by a second name.
    """
    here, common = database.paths.here, database.paths.common
    for source, *_ in database.rows(LAST_IN, (b"/", b"0")) if database.shared else ():
        link = here(source).parent
        real = Path(os.path.realpath(link))
        if common(real) == common(link) or not real.is_dir():
            continue
        while link.parent != real.parent and Path(os.path.realpath(link.parent)) == real.parent:
            link, real = link.parent, real.parent
        return link, real
    return None


def shared(database: Database, record: Recorded) -> Recorded:
    """Return a record as the machines of a database share it: without what is a number of this one.

    Over a share each machine may see another inode, and a rounded time; see `same_bytes`.
    """
    if not database.shared:
        return record
    mark = dataclasses.replace(record.fingerprint, inode=0, device=0)
    return dataclasses.replace(record, fingerprint=mark)


def _conditions(
    states: frozenset[PlacementState], under: list[bytes], since: float | None
) -> tuple[str, dict[str, Any]]:
    parts = ["(updated_at, seq) < (:updated_at, :seq)"]
    values: dict[str, Any] = {}
    if states:
        names = {f"state{number}": state for number, state in enumerate(sorted(states))}
        parts.append(f"state IN ({', '.join(':' + name for name in names)})")
        values |= names
    if under:
        parts.append(f"({' OR '.join(BELOW.format(each) for each in range(len(under)))})")
    for number, folder in enumerate(under):
        inside = folder.rstrip(b"/") + b"/"
        # "0" is the byte after "/": the range holds every path that starts with the folder.
        ends = {"path": folder, "first": inside, "last": inside[:-1] + b"0"}
        values |= {f"{name}{number}": value for name, value in ends.items()}
    if since is not None:
        parts.append("updated_at >= :since")
        values["since"] = since
    return " AND ".join(parts), values


def _info(text: str) -> MediaInfo | None:
    try:
        return MediaInfo.model_validate_json(text)
    except ValidationError:
        return None  # written by another version: probe again


def _placement(paths: PathMap, row: tuple[Any, ...]) -> Placement:
    job_id, root, source, *mark = row[:7]
    profile, mode, target, keep_days, state, detail, retained, *rest = row[7:]
    return Placement(
        job_id,
        paths.here(root),
        paths.here(source),
        Fingerprint(*mark),
        profile,
        Mode(mode),
        paths.here(target),
        keep_days,
        PlacementState(state),
        detail,
        None if retained is None else paths.here(retained),
        *rest,
    )


def _path(raw: bytes) -> Path:
    return Path(os.fsdecode(raw))


HEALTH_COLUMNS = "path, size, mtime_ns, inode, device, sha256, depth, health, detail, at, spots"
RECORD_HEALTH = upsert("health", HEALTH_COLUMNS, "path")
UNSOUND = f"SELECT {HEALTH_COLUMNS} FROM health WHERE health <> 'sound' ORDER BY at DESC, path"  # noqa: S608
ROUND = "SELECT at FROM health_round WHERE round = ?"
BEGIN_ROUND = upsert("health_round", "round, at", "round")
END_ROUND = "DELETE FROM health_round WHERE round = ?"


class HealthRecords:
    """The last check of each file, and when a round over some folders began. Durable.

    The database is closed by somebody else.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def checked(self, paths: Sequence[Path]) -> Mapping[Path, Checked]:
        found: dict[Path, Checked] = {}
        for start in range(0, len(paths), BATCH):
            batch = [self._database.paths.raw(path) for path in paths[start : start + BATCH]]
            marks = ", ".join("?" * len(batch))
            sql = f"SELECT {HEALTH_COLUMNS} FROM health WHERE path IN ({marks})"  # noqa: S608 - marks only
            found.update(
                (each.path, each) for each in map(self._checked, self._database.rows(sql, batch))
            )
        return found

    def unsound(self) -> Sequence[Checked]:
        """Return the last checks that found a file other than sound, latest first."""
        return [self._checked(row) for row in self._database.rows(UNSOUND)]

    def record(self, checked: Checked) -> None:
        *row, spots = flat(shared(self._database, checked), self._database.paths.own)
        row.append(json.dumps([dataclasses.astuple(spot) for spot in spots]))
        self._database.write(lambda c: c.execute(RECORD_HEALTH, row))

    def round_began(self, key: str) -> float | None:
        """Return when the round of this key began, if it did not end; Unix seconds."""
        row = self._database.row(ROUND, (key,))
        return None if row is None else float(row[0])

    def begin_round(self, key: str, at: float) -> None:
        self._database.write(lambda c: c.execute(BEGIN_ROUND, (key, at)))

    def end_round(self, key: str) -> None:
        self._database.write(lambda c: c.execute(END_ROUND, (key,)))

    def _checked(self, row: tuple[Any, ...]) -> Checked:
        path, *mark = row[:5]
        sha256, depth, health, detail, at, spots = row[5:]
        where = self._database.paths.here(path)
        found = tuple(Spot(*spot) for spot in json.loads(spots))
        return Checked(
            where, Fingerprint(*mark), sha256, Depth(depth), Health(health), detail, at, found
        )


ENTRIES = "SELECT path, version, size, since, sha256, target FROM sync_entry WHERE account = ?"
RECORD = upsert(
    "sync_entry", "account, path, version, size, since, sha256, target", "account, path"
)
FORGET = "DELETE FROM sync_entry WHERE account = ? AND path = ?"
ARRIVE = """INSERT INTO sync_arrival VALUES (?, ?, ?, ?, ?)
ON CONFLICT (account, sha256) DO UPDATE SET target = excluded.target, landed = excluded.landed
WHERE sync_arrival.landed = 0"""
ARRIVAL = "SELECT sha256, size, target, landed FROM sync_arrival WHERE account = ? AND sha256 = ?"
Row = tuple[str, bytes, str, int, float, str, bytes | None]


class SyncJournal:
    """Remember, for each account, what is being moved and which bytes ever arrived. Durable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def entries(self, account: str) -> Mapping[str, SyncEntry]:
        found = {}
        for path, version, size, since, sha256, target in self._database.rows(ENTRIES, (account,)):
            place = None if target is None else self._database.paths.here(target)
            entry = SyncEntry(os.fsdecode(path), version, size, since, sha256, place)
            found[entry.path] = entry
        return found

    def record(self, account: str, entries: Iterable[SyncEntry]) -> None:
        rows = [self._row(account, entry) for entry in entries]
        if rows:
            self._database.write(lambda c: c.executemany(RECORD, rows))

    def expect(self, account: str, arrival: Arrival) -> None:
        """Record where these bytes are about to land. What has landed is never overwritten."""
        target = self._database.paths.own(arrival.target)
        row = (account, arrival.sha256, arrival.size, target, False)
        self._database.write(lambda c: c.execute(ARRIVE, row))

    def land(self, account: str, entry: SyncEntry) -> None:
        """Record that an entry landed, and its bytes as landed, in one transaction."""
        if entry.target is None:
            raise ValueError("an entry that landed has a target")
        target = self._database.paths.own(entry.target)
        arrived = (account, entry.sha256, entry.size, target, True)

        def work(connection: Connection) -> None:
            connection.execute(RECORD, self._row(account, entry))
            connection.execute(ARRIVE, arrived)

        self._database.write(work)

    def forget(self, account: str, paths: Iterable[str]) -> None:
        """Remove entries; the memory of arrived bytes stays."""
        rows = [(account, os.fsencode(path)) for path in paths]
        if rows:
            self._database.write(lambda c: c.executemany(FORGET, rows))

    def arrival(self, account: str, sha256: str) -> Arrival | None:
        """Return where these bytes of this account came to, or None."""
        row = self._database.row(ARRIVAL, (account, sha256))
        if row is None:
            return None
        return Arrival(row[0], row[1], self._database.paths.here(row[2]), bool(row[3]))

    def _row(self, account: str, entry: SyncEntry) -> Row:
        target = None if entry.target is None else self._database.paths.own(entry.target)
        path = os.fsencode(entry.path)
        return account, path, entry.version, entry.size, entry.since, entry.sha256, target
