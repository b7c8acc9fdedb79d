"""Jobs whose rendition is a set of files: judged as a whole, made whole, and never published in part."""

from dataclasses import replace

import pytest

from hevcq.domain.job import JobState
from hevcq.domain.keys import MASTER, set_notes_prefix
from hevcq.ports.encoder import SetFile
from hevcq.worker.publish import GRACE_S, sweep_sets
from support.fakes.backend import HLS
from support.fakes.encoder import passed
from support.fakes.farm import Farm


@pytest.fixture
def farm(tmp_path) -> Farm:
    return Farm(tmp_path, HLS)


def stored(farm: Farm) -> list[str]:
    return [each.key for each in farm.store.list("DONE/")]


def test_a_set_that_was_not_checked_as_a_set_is_not_published(farm, monkeypatch):
    monkeypatch.setattr(type(farm.encoder), "verify", lambda *_a, **_n: passed())
    source = farm.submit()

    assert farm.until_settled(source).state is JobState.DEAD
    assert stored(farm) == []


def test_a_file_outside_the_folder_of_the_attempt_is_not_published(farm, monkeypatch):
    made = type(farm.encoder).encode

    def astray(encoder, request, **how):
        found = made(encoder, request, **how)
        (request.output / "stray.mp4").write_bytes(b"x")
        return replace(found, files=(SetFile("stray.mp4", "video/mp4"), *found.files))

    monkeypatch.setattr(type(farm.encoder), "encode", astray)
    source = farm.submit()

    assert farm.until_settled(source).state is JobState.DEAD
    assert stored(farm) == []


def test_a_set_that_is_still_being_published_is_not_swept(farm):
    """However long it takes: its attempt is the one that the ledger knows of."""
    source = farm.submit()
    seen: list[list[str]] = []

    def come_to(point: str) -> None:
        if point.endswith("store.publish#2:after") and not seen:
            before = stored(farm)
            farm.clock.advance(GRACE_S + 1)
            sweep_sets(farm.backend, farm.clock, [HLS.name])
            seen.extend((before, stored(farm)))

    farm.come_to(come_to)
    farm.handle()
    assert len(seen[0]) == 3, "two files and the certificate"
    assert seen[1] == seen[0]
    assert farm.store.stat(farm.key(source)) is None, "its lease ran out meanwhile"

    # Nobody has it any more: another attempt makes it, and the first one's files go.
    record = farm.until_settled(source)
    farm.clock.advance(GRACE_S + 1)
    sweep_sets(farm.backend, farm.clock, [HLS.name])
    assert record.state is JobState.DONE
    kept = [key for key in stored(farm) if not key.endswith("certificate.json")]
    assert [key for key in stored(farm) if key not in kept] == [record.rendition.certificate_key]
    assert {key.rpartition("/")[0].rpartition("-")[2] for key in kept if MASTER not in key} == {
        str(record.fence)
    }


def test_a_note_of_the_set_in_use_removes_none_of_it(farm):
    source = farm.submit()
    assert farm.killed_at("store.delete:before"), "after the master playlist, before the note goes"
    files = stored(farm)

    assert farm.until_settled(source).state is JobState.DONE
    farm.clock.advance(GRACE_S + 1)
    sweep_sets(farm.backend, farm.clock, [HLS.name])

    assert stored(farm) == files
    assert list(farm.store.list(set_notes_prefix(HLS.name))) == []


NOTE = (
    '{"master":"DONE/hls/a.mp4/master.m3u8","job_id":"j","fence":1,"versions":["%s"],"noted_at":1}'
)


@pytest.mark.parametrize("note", ["", "{}", NOTE % "", NOTE % ".."])
def test_a_note_that_cannot_be_read_removes_nothing(farm, note):
    source = farm.submit()
    farm.until_settled(source)
    before = stored(farm)
    farm.store.put(f"{set_notes_prefix(HLS.name)}x-1.json", note.encode(), metadata={})
    farm.clock.advance(2 * GRACE_S)

    sweep_sets(farm.backend, farm.clock, [HLS.name])

    assert stored(farm) == before
