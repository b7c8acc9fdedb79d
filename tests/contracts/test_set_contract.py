"""What every backend promises of a rendition of several files: the old set, the new one, or none."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from contracts.backends import NUMBERS, World
from contracts.objects import accepted, content, library_file, sha, visible
from hevcq.domain.certificate import Certificate
from hevcq.domain.job import JobRecord, JobState, Source, job_id
from hevcq.domain.keys import (
    MASTER,
    SET_EXTENSION,
    is_set_version,
    member_key,
    rendition_key,
    set_notes_prefix,
)
from hevcq.errors import VerificationFailed
from hevcq.library.filesystem import FileSystem
from hevcq.library.place import ToPlace, place
from hevcq.worker.publish import GRACE_S, sweep_sets
from support.fakes.backend import HLS
from support.fakes.farm import Farm
from support.processes import Killed

PROFILE = HLS.model_copy(update={"name": "720p", "queue": NUMBERS})
"""A set for the second queue that every world has."""
AMID = (15,)
"""After two of four files; `make long` takes every point."""


@dataclass
class Reader:
    """A player: whatever it finds at a master playlist must be there as a whole."""

    world: World
    master: str

    def files(self) -> dict[str, bytes]:
        """Return the files that the visible master playlist names, and what their playlists name."""
        if self.world.backend.store.stat(self.master) is None:
            return {}
        found = {MASTER: content(self.world, self.master)}
        for playlist in named_in(found[MASTER]):
            found[playlist] = content(self.world, member_key(self.master, playlist))
            folder = playlist.rpartition("/")[0]
            for media in named_in(found[playlist]):
                name = f"{folder}/{media}"
                found[name] = content(self.world, member_key(self.master, name))
        return found


def named_in(playlist: bytes) -> list[str]:
    return [line for line in playlist.decode().splitlines() if line[:1] not in {"", "#"}]


class SetFarm(Farm):
    """Workers that make sets, over the backend of a world."""

    def __init__(self, world: World) -> None:
        super().__init__(world.folder / "farm", PROFILE)
        self.world, self.clock = world, world.clock
        self.backend = world.backend
        self.queue = self.backend.queues[PROFILE.name]
        self.ledger, self.store = self.backend.ledger, self.backend.store
        self.with_context(backend=self.backend, clock=self.clock)

    def ingested(self, name: str) -> Source:
        path = library_file(self.world, f"clip {name}".encode(), f"{name}.mp4")
        source = accepted(self.world, path, f"TODO/all/{name}.mp4")
        self.backend.task_publisher.publish(source, [PROFILE.name], announced=False)
        return source

    def improve_recipe(self, number: int) -> None:
        """Change the profile, so that a rendition of before is not adopted."""
        video = PROFILE.video.model_copy(update={"crf": 20.0 + number / 10})
        self.profile = PROFILE.model_copy(update={"video": video})
        self.encoder.salt = f"again {number}"

    def reader(self, source: Source) -> Reader:
        return Reader(self.world, rendition_key(source.key, PROFILE.name, SET_EXTENSION))

    def finished(self, source: Source) -> JobRecord:
        """Let other workers come until the job is done."""
        for _ in range(9):
            while self.handle() is not None:
                pass
            depth = self.queue.depth()
            if not depth.ready + depth.in_flight + depth.delayed:
                break
            self.clock.advance(NUMBERS.visibility_s + 1)
        return self.record(source)

    def points(self, source: Source, come_to: Callable[[int, str], None]) -> int:
        """Handle a delivery; call `come_to` at each point after the gates, and count them."""
        seen = [0]

        def reported(point: str) -> None:
            if point.endswith("encoder.verify:after"):
                seen[0] = 1
            elif seen[0]:
                seen[0] += 1
                come_to(seen[0], point)

        before = self.context
        self.come_to(reported)
        try:
            self.handle("first:0")
        except Killed:
            pass
        finally:
            self.context = before
        return seen[0]


@pytest.fixture
def farm(world: World) -> SetFarm:
    return SetFarm(world)


def proof(world: World, source: Source, master: str) -> Certificate:
    seen = world.backend.store.stat(master)
    certificate = Certificate.parse(content(world, seen.metadata["certificate"]))
    assert certificate.job_id == job_id(source, PROFILE.name)
    assert certificate.rendition_key == master
    assert certificate.rendition_sha256 == sha(content(world, master)) == seen.sha256
    return certificate


def test_a_set_is_published_with_a_digest_for_each_file(world, farm):
    source = farm.ingested("a")
    seen: list[list[str]] = []

    def look(_number: int, point: str) -> None:
        if point.endswith(":after") and "/store.publish" in point:
            seen.append([key for key in visible(world, "DONE/") if "certificate" not in key])

    farm.points(source, look)

    job, reader = farm.record(source), farm.reader(source)
    assert job.state is JobState.DONE
    certificate = proof(world, source, reader.master)
    files = reader.files()
    version = f"{job.job_id[:8]}-1"
    assert set(files) == {MASTER} | {
        f"{version}/v{r}.{e}" for r in (360, 240) for e in ("mp4", "m3u8")
    }
    assert {f.name: f.sha256 for f in certificate.files} == {
        name: sha(data) for name, data in files.items() if name != MASTER
    }
    assert job.rendition.key == reader.master == "DONE/720p/a.mp4/master.m3u8"
    assert job.rendition.sha256 == sha(files[MASTER])
    assert job.rendition.size == certificate.total_size == sum(map(len, files.values()))
    assert [reader.master in keys for keys in seen] == [False] * 4 + [True], "the master is last"
    assert visible(world, set_notes_prefix(PROFILE.name)) == [], "nothing is left to remove"


@pytest.mark.slow
def test_a_kill_at_any_point_of_a_replacement_shows_the_old_set_or_the_new_one(farm):
    _killed_at_each_point(farm, range(2, 99))


def test_a_kill_in_a_replacement_shows_the_old_set_or_the_new_one(farm):
    _killed_at_each_point(farm, AMID)


def _killed_at_each_point(farm: SetFarm, points) -> None:
    reached = 0
    for number in points:
        source = farm.ingested(f"video {number}")
        reader = farm.reader(source)
        assert farm.finished(source).state is JobState.DONE
        old = reader.files()
        assert old
        farm.improve_recipe(number)
        farm.backend.task_publisher.requeue(farm.record(source), who="a person", why="again")

        def kill(at: int, _point: str, *, last: int = number) -> None:
            if at == last:
                raise Killed

        if farm.points(source, kill) < number:
            break
        reached += 1
        between = reader.files()
        assert between, "never none"
        if between != old:
            assert not set(between) & set(old) - {MASTER}, "never a mixture"
        job = farm.finished(source)
        assert job.state is JobState.DONE
        new = reader.files()
        assert new != old
        _only_this_set_is_left(farm, source, new)
    assert reached == len(points) or reached > 20


def _only_this_set_is_left(farm: SetFarm, source: Source, files: dict[str, bytes]) -> None:
    """Sweep before and after the grace: before, nothing goes; after, all but the set is gone."""
    world, master = farm.world, farm.reader(source).master
    folder = master.removesuffix(MASTER)
    before = visible(world, folder)
    farm.clock.advance(GRACE_S - 1000)
    sweep_sets(farm.backend, farm.clock, [PROFILE.name])
    assert visible(world, folder) == before
    farm.clock.advance(2000)
    sweep_sets(farm.backend, farm.clock, [PROFILE.name])
    sets = [key for key in visible(world, folder) if "certificate" not in key]
    assert sets == sorted(member_key(master, name) for name in files)
    assert farm.reader(source).files() == files
    assert visible(world, set_notes_prefix(PROFILE.name)) == []


def folders(world: World, master: str) -> set[str]:
    start = len(master) - len(MASTER)
    found = {key[start:].partition("/")[0] for key in visible(world, master.removesuffix(MASTER))}
    return {name for name in found if is_set_version(name)}


def test_a_set_that_a_killed_attempt_published_is_adopted(farm):
    source = farm.ingested("a")

    def kill(_number: int, point: str) -> None:
        if point.endswith("ledger.complete:before"):
            raise Killed

    farm.points(source, kill)
    files = farm.reader(source).files()

    job = farm.finished(source)

    assert job.state is JobState.DONE
    assert farm.encoder.calls.count("encode") == 1
    assert farm.reader(source).files() == files
    assert job.rendition.size == sum(map(len, files.values()))


@pytest.mark.parametrize("harm", ["gone", "other bytes"])
def test_a_set_with_a_bad_file_is_not_adopted(farm, world, harm):
    source = farm.ingested("a")

    def kill(_number: int, point: str) -> None:
        if point.endswith("ledger.complete:before"):
            raise Killed

    farm.points(source, kill)
    reader = farm.reader(source)
    bad = next(name for name in reader.files() if name.endswith("v360.mp4"))
    if harm == "gone":
        world.backend.store.delete(member_key(reader.master, bad))
    else:
        world.backend.store.put(member_key(reader.master, bad), b"noise", metadata={})

    job = farm.finished(source)

    assert job.state is JobState.DONE
    assert farm.encoder.calls.count("encode") == 2
    _only_this_set_is_left(farm, source, reader.files())


def test_a_worker_that_loses_its_lease_while_publishing_leaves_the_other_s_set(farm):
    source = farm.ingested("a")
    reader = farm.reader(source)
    other: dict[str, bytes] = {}

    def taken_over(_number: int, point: str) -> None:
        if point.endswith("store.publish#2:after") and not other:
            farm.clock.advance(NUMBERS.visibility_s + 1)
            farm.encoder.salt = "another encode"
            SetFarm.handle(second)
            other.update(reader.files())

    second = SetFarm(farm.world)
    second.encoder = farm.encoder
    second.with_context(encoder=farm.encoder)
    farm.points(source, taken_over)

    assert other
    assert reader.files() == other
    assert farm.finished(source).state is JobState.DONE
    _only_this_set_is_left(farm, source, other)


def test_a_set_is_fetched_a_few_files_at_once_and_one_with_other_bytes_places_nothing(
    world, farm, tmp_path
):
    source = farm.ingested("a")
    assert farm.finished(source).state is JobState.DONE
    master = farm.reader(source).master
    certificate, met = proof(world, source, master), threading.Barrier(2, timeout=10)
    two = {file.name for file in certificate.files[:2]}

    def fetch(name: str, target: Path) -> str:
        if name in two:
            met.wait()  # breaks, if the other is not under way
        key = member_key(master, name)
        return farm.store.collect(key, target, stop=threading.Event())

    home = tmp_path / "home"
    home.mkdir()
    target = home / "a.hls" / MASTER
    rendition = ToPlace(home, home / "gone.mp4", target, certificate)
    first, *rest = certificate.files
    wrong = certificate.model_copy(
        update={"files": (first.model_copy(update={"sha256": "0" * 64}), *rest)}
    )
    with pytest.raises(VerificationFailed, match="is not the rendition"):
        place(replace(rendition, certificate=wrong), fetch, FileSystem())
    assert not target.parent.exists()
    met.reset()
    place(rendition, fetch, FileSystem())
    names = {path.relative_to(target.parent).as_posix() for path in target.parent.rglob("*.*")}
    assert {MASTER, *(file.name for file in certificate.files)} <= names
