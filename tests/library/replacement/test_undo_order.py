"""`hevcq undo` of a path that was replaced twice, of a moment without a catalog, of nested roots."""

from __future__ import annotations

import dataclasses
import os

import pytest

from hevcq.library.filesystem import fingerprint_of
from hevcq.library.replacement.swap import Swap
from hevcq.usecases.placement.undo import UndoResult
from library.replacement.test_undo import House
from support.fakes.catalog import MemoryCatalog
from support.library import DAY, RENDITION, QuickFileSystem, Video, certificate, looks


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


def lose_the_catalog(house: House) -> None:
    house.catalog = MemoryCatalog(house.clock)
    house.ports = dataclasses.replace(house.ports, catalog=house.catalog)


def test_a_path_that_two_profiles_replaced_in_turn_comes_back_as_it_was_first(house):
    made, before = house.replace("video.mkv")
    house.clock.advance(60)
    smaller = b"720"
    change = dataclasses.replace(
        made.change,
        fingerprint=fingerprint_of(os.lstat(made.target)),
        certificate=certificate(made.target, RENDITION, smaller, "720p"),
    )
    again = Video(house.root, change, RENDITION, smaller, os.lstat(made.target))
    Swap(house.root, house.clock, QuickFileSystem()).replace(change, again.fetch)
    lose_the_catalog(house)

    results = house.undo(made.source)

    assert [one.job_id for one in results] == [
        change.certificate.job_id,
        made.change.certificate.job_id,
    ]
    assert {one.result for one in results} == {UndoResult.RESTORED}
    assert looks(made.source) == before


def test_without_a_catalog_a_moment_still_keeps_older_replacements_from_coming_back(house):
    old, _ = house.replace("old.mkv")
    house.clock.advance(3 * DAY)
    new, before = house.replace("new.mkv")
    lose_the_catalog(house)

    (one,) = house.undo(house.root, since=house.clock.now() - DAY)

    assert (one.source, one.result) == (new.source, UndoResult.RESTORED)
    assert looks(new.source) == before
    assert old.source.read_bytes() == RENDITION


def test_a_folder_brings_back_what_was_replaced_in_parts_of_it_that_were_roots(house):
    whole, before = house.replace("a.mkv")
    (house.root / "tv").mkdir()
    inner, inner_before = House(house.root / "tv").replace("b.mkv")
    moved = house.root.rename(house.root.with_name("moved"))
    lose_the_catalog(house)

    results = house.undo(moved)

    assert {(one.source, one.result) for one in results} == {
        (moved / "a.mkv", UndoResult.RESTORED),
        (moved / "tv" / "library" / "b.mkv", UndoResult.RESTORED),
    }
    assert looks(moved / whole.source.relative_to(house.root)) == before
    assert looks(moved / inner.source.relative_to(house.root)) == inner_before
