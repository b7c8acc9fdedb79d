"""Which keys every store carries, and which it refuses (ports/store.py)."""

from __future__ import annotations

import threading

import pytest

from contracts.backends import World
from contracts.objects import (
    content,
    library_file,
    nothing,
    publish,
    sha,
    visible,
)
from hevcq.errors import (
    BadKey,
)
from hevcq.ports.store import Publication, StoredObject

ODD_KEYS = [
    "DONE/hevc/a b  c.mp4",
    "DONE/hevc/ leading and trailing ",
    "DONE/hevc/日本語/é.mp4",
    "DONE/hevc/e\u0301 decomposed.mp4",
    "DONE/hevc/a+b%20c%2F.mp4",
    "DONE/hevc/.hidden/..name/...mp4",
    "DONE/hevc/-i 'quoted\" `x` $HOME;|&.mp4",
    "DONE/hevc/line\nbreak\ttab.mp4",
    "DONE/hevc/back\\slash*?[x].mp4",
    "DONE/hevc/data",
    "a",
    "x" * 1024,
    "DONE/" + "é/" * 300 + "a" * 119,
]


BAD_KEYS = ["", "/absolute", "../up", "a/../b", "a/./b", "a//b", "a/", "..", "n\0l", "é" * 513]


def test_objects_are_listed_by_prefix_in_key_order(world: World) -> None:
    keys = ["a/2", "a/10", "a/1", "ab", "b/1", "A/1", "a/é", "a/z"]
    for key in keys:
        world.backend.store.put(key, key.encode(), metadata={})

    assert visible(world) == sorted(keys, key=str.encode)
    assert visible(world, "a/") == ["a/1", "a/10", "a/2", "a/z", "a/é"]
    assert visible(world, "a/1") == ["a/1", "a/10"]
    assert visible(world, "c") == []
    assert visible(world, "%") == visible(world, "_") == []


@pytest.mark.parametrize("key", ODD_KEYS, ids=range(len(ODD_KEYS)))
def test_odd_keys_survive(world: World, key: str) -> None:
    made = publish(world, b"rendition", key=key)

    assert made.key == key
    assert visible(world) == visible(world, key) == [key]
    assert content(world, key) == b"rendition"
    assert world.backend.store.delete(key) is True


@pytest.mark.parametrize("key", BAD_KEYS, ids=range(len(BAD_KEYS)))
def test_bad_keys_are_refused_everywhere(world: World, key: str) -> None:
    store, stop, path = world.backend.store, threading.Event(), library_file(world)
    calls = [
        lambda: store.accept(path, key, moved=nothing, stop=stop),
        lambda: store.open(key),
        lambda: store.publish(Publication(key, path, sha(b"a clip"), "j", 1)),
        lambda: store.put(key, b"x", metadata={}),
        lambda: store.stat(key),
        lambda: store.delete(key),
        lambda: store.collect(key, world.folder / "out", moved=nothing, stop=stop),
    ]
    for call in calls:
        with pytest.raises(BadKey):
            call()
    assert path.read_bytes() == b"a clip"


def test_two_keys_that_look_alike_do_not_meet(world: World) -> None:
    keys = [
        "DONE/a%2Fb",
        "DONE/a/b",
        "DONE/A/b",
        "DONE/\u00e9",
        "DONE/e\u0301",
        "DONE/a+b",
        "DONE/a b",
    ]

    made: list[StoredObject] = [publish(world, key.encode(), key=key) for key in keys]

    assert [content(world, key) for key in keys] == [key.encode() for key in keys]
    assert sorted(visible(world)) == sorted(found.key for found in made)
