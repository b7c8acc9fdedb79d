"""The catalog of a user's library folders, the health of files and the journal of a sync.

The probe cache and digests of files stay on this machine; machines of one PostgreSQL database share
placements, health and journal. Paths are stored as raw bytes, because a file name may hold any bytes.
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
from hevcq.sql.database import Connection, Database, PathMap, flatten, upsert
from hevcq.util.clock import Clock

Recorded = TypeVar("Recorded", Placement, Checked)
BATCH = 500
PAGE = 500

RECORD_FILE = upsert("file", "path, size, mtime_ns, inode, device, facts, info, problem", "path")
FIND_HASH = (
    "SELECT size, mtime_ns, inode, device, ctime_ns, sha256, certificate "
    "FROM hashed_file WHERE path = ?"
)
FIRST_VIDEO_CODEC = """(SELECT json_extract(value, '$.codec') FROM json_each(info, '$.streams')
WHERE json_extract(value, '$.kind') = 'video' LIMIT 1)"""
FIND_LIVED = "SELECT total_s, highest_wall, uptime_s, boot FROM lived"
RECORD_LIVED = upsert("lived", "id, total_s, highest_wall, uptime_s, boot", "id")
FIND_KEPT = "SELECT since_s FROM kept_original WHERE job_id = ?"
RECORD_KEPT = upsert("kept_original", "job_id, since_s", "job_id")
RECORD_HASH = upsert(
    "hashed_file", "path, size, mtime_ns, inode, device, ctime_ns, sha256, certificate", "path"
)
COLUMNS = (
    "job_id, root, source, size, mtime_ns, inode, device, profile, mode, target, keep_days, "
    "state, detail, retained, sha256, updated_at"
)
RECORD_PLACEMENT = upsert("placement", COLUMNS, "job_id")
FIND_PLACEMENT = f"SELECT {COLUMNS} FROM placement WHERE job_id = ?"  # noqa: S608 - constants only
FIND_BY_FINGERPRINT = (
    f"SELECT {COLUMNS} FROM placement WHERE size = ? AND mtime_ns = ? "  # noqa: S608
    "ORDER BY updated_at DESC, seq DESC"
)
RECORD_COST = upsert(
    "encode_cost",
    "job_id, at, profile, encoder, preset, megapixels, source_size, output_size, cpu_s",
    "job_id",
)
FIND_COSTS = """SELECT job_id, profile, encoder, preset, megapixels, source_size, output_size, cpu_s
FROM encode_cost WHERE profile = ? ORDER BY at DESC LIMIT ?"""
MIN_MISSING = 3
"""Missing videos from which on a folder counts as another one; a user may have deleted fewer."""
LATEST_IN_FOLDER = """SELECT source, target, size, state FROM placement WHERE source >= ? AND source < ?
ORDER BY updated_at DESC LIMIT 50"""
BELOW = (
    "source = :path{0} OR (source >= :first{0} AND source < :last{0})"
    " OR target = :path{0} OR (target >= :first{0} AND target < :last{0})"
)


@functools.cache
def facts_version() -> str:
    """Return a digest of the schema of MediaInfo: a file with facts of another schema is probed again."""
    schema = json.dumps(MediaInfo.model_json_schema(), sort_keys=True)
    return hashlib.sha256(schema.encode()).hexdigest()[:16]


class Catalog:
    """Records of library folders. A placement without `updated_at` gets the current time.

    `local` stores what concerns this machine only: probed files, costs of encodes, and lived time. It is
    the same database unless machines share `database`.
    """

    def __init__(self, database: Database, clock: Clock, local: Database | None = None) -> None:
        self._database, self._local = database, local or database
        self._clock = clock

    @property
    def database(self) -> Database:
        """The database of the placements, which also holds events, health and sync records."""
        return self._database

    def close(self) -> None:
        self._database.close()
        self._local.close()

    def cached(self, paths: Sequence[Path]) -> Mapping[Path, tuple[Fingerprint, MediaInfo | str]]:
        """Return the cached scan results of `paths`: the media facts, or why the file is no video."""
        results: dict[Path, tuple[Fingerprint, MediaInfo | str]] = {}
        columns = "path, size, mtime_ns, inode, device, info, problem"
        for path, *mark, info, problem in self._files(columns, paths):
            facts = problem if info is None else _parse_facts(info)
            if facts is not None:
                results[Path(os.fsdecode(path))] = (Fingerprint(*mark), facts)
        return results

    def codecs(self, paths: Sequence[Path]) -> dict[tuple[Path, int], str | None]:
        """Return the codec of the first video track of each file probed here, by path and size."""
        rows = self._files(f"path, size, {FIRST_VIDEO_CODEC}", paths)
        return {(Path(os.fsdecode(path)), size): codec for path, size, codec in rows}

    def _files(self, columns: str, paths: Sequence[Path]) -> Iterator[tuple[Any, ...]]:
        select = f"SELECT {columns} FROM file WHERE facts = ? AND"  # noqa: S608 - names of columns
        return _rows_of_paths(self._local, select, list(map(os.fsencode, paths)), facts_version())

    def cache(self, results: Iterable[tuple[Path, Fingerprint, MediaInfo | str]]) -> None:
        """Store scan results: the media facts of a file, or why it is no video."""
        version, rows = facts_version(), []
        for path, mark, facts in results:
            info = None if isinstance(facts, str) else facts.model_dump_json(exclude_defaults=True)
            problem = facts if isinstance(facts, str) else None
            rows.append((os.fsencode(path), *flatten(mark), version, info, problem))
        if rows:
            self._local.write(lambda c: c.executemany(RECORD_FILE, rows))

    def hashed(self, path: Path) -> HashedFile | None:
        """Return the last recorded digest of a file, or None."""
        row = self._local.row(FIND_HASH, (os.fsencode(path),))
        return None if row is None else HashedFile(Fingerprint(*row[:4]), *row[4:])

    def record_hash(self, path: Path, hashed: HashedFile) -> None:
        self._local.change(RECORD_HASH, (os.fsencode(path), *flatten(hashed)))

    def lived(self) -> LivedTime | None:
        """Return the last recorded lived time, or None."""
        row = self._local.row(FIND_LIVED)
        return None if row is None else LivedTime(*row)

    def record_lived(self, lived: LivedTime) -> None:
        self._local.change(RECORD_LIVED, (1, *dataclasses.astuple(lived)))

    def kept_since(self, job_id: str) -> float | None:
        """Return at which second of lived time a job's original began to be kept, or None."""
        row = self._local.row(FIND_KEPT, (job_id,))
        return None if row is None else float(row[0])

    def record_kept(self, job_id: str, since_s: float) -> None:
        """Insert or overwrite at which second of lived time a job's original began to be kept."""
        self._local.change(RECORD_KEPT, (job_id, since_s))

    def record_placements(self, placements: Iterable[Placement]) -> None:
        """Insert or overwrite placements by job id, durably."""
        now = self._clock.now()
        rows = []
        for placement in placements:
            dated = dataclasses.replace(placement, updated_at=placement.updated_at or now)
            shared = without_inode(self._database, dated)
            rows.append(tuple(flatten(shared, self._database.paths.unambiguous_path)))
        if rows:
            self._database.write(lambda c: c.executemany(RECORD_PLACEMENT, rows))

    def record_encode_cost(self, job_id: str, cost: EncodeCost) -> None:
        """Insert or overwrite the cost of a job's encode. A power cut may lose it."""
        stored = dataclasses.astuple(cost)[:-3]  # not `most`, `usual` and `search`
        values = (job_id, self._clock.now(), *stored)
        self._local.change(RECORD_COST, values, durable=False)

    def encode_costs(self, profile: str, limit: int) -> Mapping[str, EncodeCost]:
        """Return the latest recorded costs of a profile by job id, newest first."""
        rows = self._local.rows(FIND_COSTS, (profile, limit))
        return {job_id: EncodeCost(*cost) for job_id, *cost in rows}

    def placement(self, job_id: str) -> Placement | None:
        row = self._database.row(FIND_PLACEMENT, (job_id,))
        return None if row is None else _placement_of(self._database.paths, row)

    def placements_by_fingerprint(self, fingerprint: Fingerprint) -> list[Placement]:
        """Return the placements of sources with this size and modification time, at any path.

        The most recently updated comes first.
        """
        rows = self._database.rows(FIND_BY_FINGERPRINT, (fingerprint.size, fingerprint.mtime_ns))
        return [_placement_of(self._database.paths, row) for row in rows]

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
            states, [] if under is None else self._database.paths.stored_prefixes(under), since
        )
        sql = (
            f"SELECT updated_at, seq, {COLUMNS} FROM placement WHERE {where} "  # noqa: S608
            f"ORDER BY updated_at DESC, seq DESC LIMIT {PAGE}"
        )
        bound = {**values, "updated_at": float("inf"), "seq": 0}
        while True:
            rows = self._database.rows(sql, bound)
            yield from (_placement_of(self._database.paths, row[2:]) for row in rows)
            if len(rows) < PAGE:
                return
            bound |= {"updated_at": rows[-1][0], "seq": rows[-1][1]}


def holds_recorded_video(
    database: Database, folder: Path, except_for: Path | None = None
) -> bool | None:
    """Return whether a mapped folder still holds one of the videos last recorded in it.

    `folder` is a common path; the local path `except_for` does not count. If none is there, the mapping
    leads to another folder. None means that too few videos are recorded to tell.
    """
    prefix, missing = os.fsencode(folder).rstrip(b"/") + b"/", 0
    local_path = database.paths.local_path
    for source, target, size, state in database.rows(LATEST_IN_FOLDER, _range_below(prefix)):
        if local_path(source) == except_for:
            continue
        missing += 1
        with suppress(OSError):
            if state in {"placed", "replaced"} and local_path(target).is_file():
                return True
            if local_path(source).stat().st_size == size:
                return True
    return False if missing >= MIN_MISSING else None


def find_linked_media_folder(database: Database) -> tuple[Path, Path] | None:
    """Return a symbolic link of this machine in the path of a recorded video, and its target; or None.

    A scan resolves links, so it would record the same video a second time under another path.
    """
    local_path, common = database.paths.local_path, database.paths.common_path
    for source, *_ in (
        database.rows(LATEST_IN_FOLDER, _range_below(b"/")) if database.shared else ()
    ):
        link = local_path(source).parent
        real = Path(os.path.realpath(link))
        if common(real) == common(link) or not real.is_dir():
            continue
        while link.parent != real.parent and Path(os.path.realpath(link.parent)) == real.parent:
            link, real = link.parent, real.parent
        return link, real
    return None


def without_inode(database: Database, record: Recorded) -> Recorded:
    """Return a record without inode and device if machines share the database, else unchanged.

    Over a network share each machine may see another inode and a rounded time; see `same_bytes`.
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
        first, last = _range_below(folder.rstrip(b"/") + b"/")
        ends = {"path": folder, "first": first, "last": last}
        values |= {f"{name}{number}": value for name, value in ends.items()}
    if since is not None:
        parts.append("updated_at >= :since")
        values["since"] = since
    return " AND ".join(parts), values


def _rows_of_paths(
    database: Database, select: str, paths: Sequence[bytes], *values: Any
) -> Iterator[tuple[Any, ...]]:
    for start in range(0, len(paths), BATCH):
        batch = paths[start : start + BATCH]
        marks = ", ".join("?" * len(batch))
        yield from database.rows(f"{select} path IN ({marks})", (*values, *batch))


def _range_below(prefix: bytes) -> tuple[bytes, bytes]:
    """Return the range of the paths that begin with a folder and its "/": "0" is the byte after "/"."""
    return prefix, prefix[:-1] + b"0"


def _parse_facts(text: str) -> MediaInfo | None:
    try:
        return MediaInfo.model_validate_json(text)
    except ValidationError:
        return None  # written by another version: probe again


def _placement_of(paths: PathMap, row: tuple[Any, ...]) -> Placement:
    job_id, root, source, *mark = row[:7]
    profile, mode, target, keep_days, state, detail, retained, *rest = row[7:]
    local = paths.local_path
    video = (job_id, local(root), local(source), Fingerprint(*mark), profile, Mode(mode))
    outcome = (keep_days, PlacementState(state), detail)
    kept = None if retained is None else local(retained)
    return Placement(*video, local(target), *outcome, kept, *rest)


HEALTH_COLUMNS = "path, size, mtime_ns, inode, device, sha256, depth, health, detail, at, spots"
RECORD_HEALTH = upsert("health", HEALTH_COLUMNS, "path")
SELECT_HEALTH = f"SELECT {HEALTH_COLUMNS} FROM health WHERE"  # noqa: S608 - constants only
FIND_UNSOUND = f"{SELECT_HEALTH} health <> 'sound' ORDER BY at DESC, path"
FIND_ROUND = "SELECT at FROM health_round WHERE round = ?"
BEGIN_ROUND = upsert("health_round", "round, at", "round")
END_ROUND = "DELETE FROM health_round WHERE round = ?"


class HealthRecords:
    """The last check of each file, and when a round of checks over some folders began. Durable.

    The caller closes the database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def checked(self, paths: Sequence[Path]) -> Mapping[Path, Checked]:
        """Return the last check of each of the files that has one, by path."""
        stored = list(map(self._database.paths.stored_path, paths))
        rows = _rows_of_paths(self._database, SELECT_HEALTH, stored)
        return {checked.path: checked for checked in map(self._checked_of, rows)}

    def unsound(self) -> Sequence[Checked]:
        """Return the last check of each file that was not sound, latest first."""
        return [self._checked_of(row) for row in self._database.rows(FIND_UNSOUND)]

    def record(self, checked: Checked) -> None:
        *row, spots = flatten(
            without_inode(self._database, checked), self._database.paths.unambiguous_path
        )
        row.append(json.dumps([dataclasses.astuple(spot) for spot in spots]))
        self._database.change(RECORD_HEALTH, row)

    def round_began(self, key: str) -> float | None:
        """Return when the unfinished round of this key began, in Unix seconds, or None."""
        row = self._database.row(FIND_ROUND, (key,))
        return None if row is None else float(row[0])

    def begin_round(self, key: str, at: float) -> None:
        self._database.change(BEGIN_ROUND, (key, at))

    def end_round(self, key: str) -> None:
        self._database.change(END_ROUND, (key,))

    def _checked_of(self, row: tuple[Any, ...]) -> Checked:
        stored, *mark, sha256, depth, health, detail, at, spots = row
        path = self._database.paths.local_path(stored)
        damage = tuple(Spot(*spot) for spot in json.loads(spots))
        return Checked(
            path, Fingerprint(*mark), sha256, Depth(depth), Health(health), detail, at, damage
        )


FIND_ENTRIES = "SELECT path, version, size, since, sha256, target FROM sync_entry WHERE account = ?"
RECORD_ENTRY = upsert(
    "sync_entry", "account, path, version, size, since, sha256, target", "account, path"
)
FORGET_ENTRY = "DELETE FROM sync_entry WHERE account = ? AND path = ?"
RECORD_ARRIVAL = """INSERT INTO sync_arrival VALUES (?, ?, ?, ?, ?)
ON CONFLICT (account, sha256) DO UPDATE SET target = excluded.target, landed = excluded.landed
WHERE sync_arrival.landed = 0"""
FIND_ARRIVAL = (
    "SELECT sha256, size, target, landed FROM sync_arrival WHERE account = ? AND sha256 = ?"
)
Row = tuple[str, bytes, str, int, float, str, bytes | None]


class SyncJournal:
    """Remember, for each account, the files being moved and the bytes that ever arrived. Durable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def entries(self, account: str) -> Mapping[str, SyncEntry]:
        entries = {}
        for raw, version, size, since, sha256, target in self._database.rows(
            FIND_ENTRIES, (account,)
        ):
            path = os.fsdecode(raw)
            local = None if target is None else self._database.paths.local_path(target)
            entries[path] = SyncEntry(path, version, size, since, sha256, local)
        return entries

    def record(self, account: str, entries: Iterable[SyncEntry]) -> None:
        rows = [self._row(account, entry) for entry in entries]
        if rows:
            self._database.write(lambda c: c.executemany(RECORD_ENTRY, rows))

    def expect(self, account: str, arrival: Arrival) -> None:
        """Record where these bytes are about to land. A record of landed bytes is never overwritten."""
        target = self._database.paths.unambiguous_path(arrival.target)
        row = (account, arrival.sha256, arrival.size, target, False)
        self._database.change(RECORD_ARRIVAL, row)

    def land(self, account: str, entry: SyncEntry) -> None:
        """Record that an entry and its bytes have landed, in one transaction."""
        if entry.target is None:
            raise ValueError("an entry that landed has a target")
        row = self._row(account, entry)
        arrival = (account, entry.sha256, entry.size, row[-1], True)

        def work(connection: Connection) -> None:
            connection.execute(RECORD_ENTRY, row)
            connection.execute(RECORD_ARRIVAL, arrival)

        self._database.write(work)

    def forget(self, account: str, paths: Iterable[str]) -> None:
        """Delete entries; the records of arrived bytes stay."""
        rows = [(account, os.fsencode(path)) for path in paths]
        if rows:
            self._database.write(lambda c: c.executemany(FORGET_ENTRY, rows))

    def arrival(self, account: str, sha256: str) -> Arrival | None:
        """Return where these bytes of this account landed or are about to land, or None."""
        row = self._database.row(FIND_ARRIVAL, (account, sha256))
        if row is None:
            return None
        return Arrival(row[0], row[1], self._database.paths.local_path(row[2]), bool(row[3]))

    def _row(self, account: str, entry: SyncEntry) -> Row:
        target = (
            None if entry.target is None else self._database.paths.unambiguous_path(entry.target)
        )
        path = os.fsencode(entry.path)
        return account, path, entry.version, entry.size, entry.since, entry.sha256, target
