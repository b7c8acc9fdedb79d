"""A set whose video is split: joined, proven and published as a whole, whatever is killed or lost."""

import pytest

from hevcq.domain.certificate import Certificate
from hevcq.domain.events import EventName
from hevcq.domain.job import JobState, Source
from hevcq.domain.keys import MASTER, is_set_version, set_notes_prefix
from hevcq.worker.admission import Scratch
from hevcq.worker.publish import GRACE_S, sweep_sets
from support.fakes.backend import HLS
from support.fakes.encoder import RUNGS
from support.fakes.videofarm import CHUNKED, CHUNKS, VideoFarm

LADDER = HLS.model_copy(update={"chunking": CHUNKED.chunking})
OF_SETS = "encoder.join store.publish#2 store.publish#3 store.delete ledger.complete"
"""Calls that a set's join makes otherwise than that of one file, and those around its last file."""


@pytest.fixture
def farm(tmp_path) -> VideoFarm:
    return VideoFarm(tmp_path, LADDER)


def in_use(farm: VideoFarm, source: Source) -> set[str]:
    """Return the folders that the visible master playlist's files are in."""
    with farm.store.open(farm.key(source)) as stream:
        lines = stream.read().decode().split()
    return {line.partition("/")[0] for line in lines if line.endswith(".m3u8")}


def proven(farm: VideoFarm, source: Source) -> Certificate:
    """Require one whole set, each file of which the certificate names; return the certificate."""
    rendition = farm.record(source).rendition
    with farm.store.open(rendition.certificate_key) as stream:
        certificate = Certificate.parse(stream.read())
    (version,) = in_use(farm, source)
    folder = farm.key(source).removesuffix(MASTER)
    wanted = {f"{version}/{rung}.{kind}" for rung in RUNGS for kind in ("mp4", "m3u8")}
    assert {file.name for file in certificate.files} == wanted
    for file in certificate.files:
        seen = farm.store.stat(f"{folder}{file.name}")
        assert (seen.sha256, seen.size) == (file.sha256, file.size)
    assert farm.store.stat(farm.key(source)).sha256 == rendition.sha256
    assert farm.kept(source) == []
    return certificate


def spoil(farm: VideoFarm, key: str) -> None:
    """Give a stored object other bytes under the metadata that it has."""
    farm.store.put(key, b"rotten", metadata=farm.store.stat(key).metadata)


def test_a_set_is_made_by_its_chunks_and_their_join(farm):
    farm.encoder.set_notices = ("v240 is left out.",)
    source = farm.chunked()

    farm.handle()

    assert farm.state(source) is JobState.DONE
    assert farm.encoder.calls.count("encode_chunk") == CHUNKS
    assert "encode" not in farm.encoder.calls
    certificate = proven(farm, source)
    assert certificate.notices == ("v240 is left out.",)
    assert [e.reason for e in farm.events if e.kind is EventName.JOB_NOTICE] == [
        "v240 is left out."
    ]


@pytest.mark.repeats
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("site", OF_SETS.split())
def test_a_kill_at_any_point_leaves_one_whole_set(farm, site, side):
    leaves_one_whole_set(farm, f"{site}:{side}")


def leaves_one_whole_set(farm: VideoFarm, point: str) -> None:
    """Kill a worker at a point of the join; one set is made, and nothing else is left."""
    source = farm.chunked()

    assert farm.killed_at(point), "the scenario does not come to the point"
    farm.clock.advance(LADDER.queue.visibility_s + 1)
    record = farm.until_settled(source, rounds=120)

    assert record.state is JobState.DONE
    assert farm.encoder.calls.count("encode_chunk") <= CHUNKS + 1
    proven(farm, source)
    Scratch(farm.folder / "scratch", farm.clock).sweep()
    assert farm.scratch_files() == []
    # What the killed attempt left goes once its grace is over; what players see stays.
    farm.clock.advance(GRACE_S + 1)
    sweep_sets(farm.backend, farm.clock, [LADDER.name])
    folder = farm.key(source).removesuffix(MASTER)
    left = {each.key.removeprefix(folder).partition("/")[0] for each in farm.store.list(folder)}
    assert {name for name in left if is_set_version(name)} == in_use(farm, source)
    assert list(farm.store.list(set_notes_prefix(LADDER.name))) == []
    proven(farm, source)


def test_a_set_that_was_published_but_not_recorded_is_adopted(farm):
    source = farm.chunked()
    assert farm.killed_at("store.delete:before"), "after the master playlist"
    farm.clock.advance(LADDER.queue.visibility_s + 1)

    assert farm.until_settled(source).state is JobState.DONE
    assert farm.encoder.calls.count("join") == 1
    proven(farm, source)


def test_a_set_that_cannot_be_adopted_is_replaced_by_a_whole_encode(farm):
    """Another join has the same fence, which may not replace what that fence published."""
    source = farm.chunked()
    assert farm.killed_at("store.delete:before"), "after the master playlist"
    (version,) = in_use(farm, source)
    spoil(farm, f"{farm.key(source).removesuffix(MASTER)}{version}/{RUNGS[0]}.mp4")
    farm.clock.advance(LADDER.queue.visibility_s + 1)

    record = farm.until_settled(source, rounds=60)

    assert record.state is JobState.DONE, record.reason
    assert farm.encoder.calls.count("encode") == 1
    assert in_use(farm, source) != {version}
    proven(farm, source)


def test_two_joins_of_one_split_never_write_to_one_folder(farm):
    """They share the job's fence; a player may have the first one's playlists already."""
    source = farm.chunked()
    assert farm.killed_at("store.publish#2:after")
    first = {key.split("/")[-2] for key, _, _ in farm.store.published if key.endswith(".mp4")}
    farm.clock.advance(LADDER.queue.visibility_s + 1)

    farm.until_settled(source)

    assert len(first) == 1
    assert in_use(farm, source).isdisjoint(first)
