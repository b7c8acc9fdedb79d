"""What every store promises (ports/store.py), over every backend."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from contracts.backends import KEY_ORDER, LINKS, ODD_NAMES, World
from contracts.objects import (
    KEY,
    accepted,
    content,
    fetched,
    library_file,
    nothing,
    publish,
    sha,
    visible,
)
from hevcq.errors import (
    BadKey,
    LibraryError,
    SourceChanged,
    SourceGone,
    StaleFence,
    Stopped,
)
from hevcq.ports.store import Publication, StoredObject
from support.fakes.encoder import content_of


@pytest.fixture
def world(keeper: World) -> World:
    return keeper


def test_an_accepted_file_can_be_checked_and_fetched(world):
    path, moved = library_file(world), []

    source = world.backend.store.accept(
        path, "TODO/all/video.mp4", moved=moved.append, stop=threading.Event()
    )

    assert (source.key, source.size, moved[-1]) == ("TODO/all/video.mp4", 6, 6)
    world.backend.store.check(source)
    assert fetched(world, source) == b"a clip"
    assert list((world.folder / "scratch").iterdir()) == [], "what a fetch made is removed"
    assert path.read_bytes() == b"a clip"


def test_a_published_object_is_streamed_for_ffmpeg(world):
    scratch, store, stop = world.folder / "scratch", world.backend.store, threading.Event()
    scratch.mkdir(exist_ok=True)
    store.put(KEY, b"a rendition", metadata={})

    with store.stream_published(KEY, scratch, stop=stop) as given:
        assert content_of(given.location) == b"a rendition"

    assert list(scratch.iterdir()) == [], "what was made for it is removed"
    assert content(world) == b"a rendition"
    with pytest.raises(SourceGone), store.stream_published("DONE/none", scratch, stop=stop):
        pass
    stop.set()
    with pytest.raises(Stopped), store.stream_published(KEY, scratch, stop=stop):
        pass


def test_a_streamed_source_has_the_same_bytes(world):
    path, scratch = library_file(world), world.folder / "scratch"
    source, store = accepted(world, path), world.backend.store
    scratch.mkdir(exist_ok=True)

    with store.stream(source, scratch, moved=nothing, stop=threading.Event()) as given:
        assert content_of(given.location) == b"a clip"

    assert list(scratch.iterdir()) == []
    assert path.read_bytes() == b"a clip"


@pytest.mark.parametrize("new", [b"A CLIP", b"a longer clip"])
def test_a_source_that_was_replaced_is_an_error_and_never_other_bytes(world, new):
    path = library_file(world)
    source = accepted(world, path)

    world.replace_source(source, path, new)

    with pytest.raises(SourceChanged):
        world.backend.store.check(source)
    with pytest.raises(SourceChanged):
        fetched(world, source)
    stop = threading.Event()
    with (
        pytest.raises(SourceChanged),
        world.backend.store.stream(source, world.folder, moved=nothing, stop=stop),
    ):
        pass


def test_a_source_that_was_deleted_is_gone(world):
    path = library_file(world)
    source = accepted(world, path)

    world.remove_source(source, path)

    with pytest.raises(SourceGone):
        world.backend.store.check(source)
    with pytest.raises(SourceGone):
        fetched(world, source)


def test_a_source_nobody_accepted_is_gone(world):
    path = library_file(world)
    other = accepted(world, path).model_copy(update={"key": "TODO/all/other.mp4"})

    with pytest.raises(SourceGone):
        world.backend.store.check(other)


def test_a_linked_source_is_the_library_s_own_file(world):
    world.needs(LINKS)
    path = library_file(world)
    source = accepted(world, path)
    store, stop = world.backend.store, threading.Event()

    with store.fetch(source, world.folder, moved=nothing, stop=stop) as given:
        assert given.path == path


def test_a_stop_ends_accepting_and_fetching(world):
    path, stop = library_file(world), threading.Event()
    source = accepted(world, path)
    stop.set()

    with pytest.raises(Stopped):
        world.backend.store.accept(path, "TODO/all/x.mp4", moved=nothing, stop=stop)
    with (
        pytest.raises(Stopped),
        world.backend.store.fetch(source, world.folder, moved=nothing, stop=stop),
    ):
        pass


def test_a_publication_is_visible_with_its_digest_and_metadata(world):
    made = publish(world, b"rendition")

    assert (made.key, made.size, made.sha256) == (KEY, 9, sha(b"rendition"))
    assert made.metadata == {"job": "j", "fence": "1", "sha256": sha(b"rendition")}
    assert world.backend.store.stat(KEY) == made
    assert content(world) == b"rendition"
    assert visible(world) == [KEY]


def test_what_was_never_published_is_not_there(world):
    assert world.backend.store.stat(KEY) is None
    with pytest.raises(SourceGone):
        world.backend.store.open(KEY)
    assert world.backend.store.delete(KEY) is False
    assert visible(world) == []


def test_a_large_object_comes_back_in_parts(world):
    large = bytes(range(256)) * 8192 + b"tail"
    publish(world, large)

    with world.backend.store.open(KEY) as file:
        assert (file.read(3), file.read(5)) == (large[:3], large[3:8])
        assert file.read() == large[8:]


def test_a_zombie_s_publication_is_refused(world):
    publish(world, b"the winner", fence=2)

    for fence in (1, 2):
        with pytest.raises(StaleFence):
            publish(world, b"the zombie", fence=fence)

    assert content(world) == b"the winner"


def test_publishing_the_same_bytes_again_returns_what_is_visible(world):
    first = publish(world, b"same", fence=2)

    assert publish(world, b"same", fence=2) == first
    assert publish(world, b"same", fence=1) == first


def test_a_higher_fence_or_another_job_replaces_what_is_there(world):
    publish(world, b"one", fence=1)

    second = publish(world, b"two", fence=2)
    assert (content(world), world.backend.store.stat(KEY)) == (b"two", second)
    third = publish(world, b"three", job="other", fence=1)

    assert (content(world), world.backend.store.stat(KEY)) == (b"three", third)
    assert visible(world) == [KEY]


def test_of_two_that_publish_at_once_the_higher_fence_stays(world):
    for round_ in range(8):
        barrier, key = threading.Barrier(2), f"DONE/{round_}"

        def run(fence: int, barrier=barrier, key: str = key) -> None:
            barrier.wait()
            try:
                publish(world, b"fence %d" % fence, fence=fence, key=key)
            except StaleFence:
                assert fence == 1

        with ThreadPoolExecutor(2) as pool:
            for future in [pool.submit(run, fence) for fence in (1, 2)]:
                future.result()

        assert content(world, key) == b"fence 2"


def test_a_reader_sees_the_old_object_or_the_new_one_and_never_a_part(world):
    versions = [bytes([number]) * 50_000 for number in range(12)]
    publish(world, versions[0], fence=1)
    done, seen = threading.Event(), set()

    def read() -> None:
        while not done.is_set():
            found = content(world)
            assert found in versions
            seen.add(found[0])

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for number, version in enumerate(versions[1:], 2):
                publish(world, version, fence=number)
        finally:
            done.set()
        for reader in readers:
            reader.result()
    assert content(world) == versions[-1]
    assert seen


def test_what_is_visible_is_replaced_only_after_another_look_at_the_source(world):
    looks: list[int] = []
    publish(world, b"first", recheck=lambda _seen: looks.append(1))
    assert looks == [], "there was nothing to be replaced"

    def replaced(seen: StoredObject) -> None:
        assert seen == world.backend.store.stat(KEY), "what is looked at is what is visible"
        raise SourceChanged

    with pytest.raises(SourceChanged):
        publish(world, b"older", job="other", recheck=replaced)
    assert content(world) == b"first"

    publish(world, b"newer", job="other", recheck=lambda _seen: looks.append(2))
    assert (content(world), looks) == (b"newer", [2])


def test_a_small_object_is_put_replaced_and_deleted(world):
    store = world.backend.store
    store.put("work/x.json", b"old", metadata={})

    made = store.put("work/x.json", b"new one", metadata={"kind": "certificate"})

    assert (made.size, made.sha256) == (7, sha(b"new one"))
    assert (store.stat("work/x.json"), content(world, "work/x.json")) == (made, b"new one")
    assert [store.delete("work/x.json"), store.delete("work/x.json")] == [True, False]
    assert store.stat("work/x.json") is None


def test_a_collected_object_is_at_its_target_with_its_digest(world):
    publish(world, b"rendition")
    target = world.folder / "out" / "video é.mp4"
    target.parent.mkdir()

    digest = world.backend.store.collect(KEY, target, stop=threading.Event())

    assert (digest, target.read_bytes()) == (sha(b"rendition"), b"rendition")
    assert list(target.parent.iterdir()) == [target]
    assert content(world) == b"rendition", "the object stays"


def test_a_target_that_exists_is_left_as_it_is(world):
    publish(world, b"rendition")
    target = library_file(world)

    with pytest.raises((LibraryError, FileExistsError)):
        world.backend.store.collect(KEY, target, stop=threading.Event())

    assert target.read_bytes() == b"a clip"


def test_nothing_is_collected_from_a_key_that_is_not_there_or_after_a_stop(world):
    target, stop = world.folder / "out.mp4", threading.Event()
    with pytest.raises(SourceGone):
        world.backend.store.collect(KEY, target, stop=stop)
    publish(world, b"rendition")
    stop.set()
    with pytest.raises(Stopped):
        world.backend.store.collect(KEY, target, stop=stop)

    assert not target.exists()


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


KEYS = ["a/2", "a/10", "a/1", "ab", "b/1", "A/1", "a/é", "a/z"]


def test_objects_are_listed_in_key_order(world):
    world.needs(KEY_ORDER)
    for key in KEYS:
        world.backend.store.put(key, key.encode(), metadata={})

    assert visible(world) == sorted(KEYS, key=str.encode)


def test_objects_are_listed_by_prefix(world):
    for key in KEYS:
        world.backend.store.put(key, key.encode(), metadata={})

    assert sorted(visible(world, "a/")) == ["a/1", "a/10", "a/2", "a/z", "a/é"]
    assert visible(world, "a/1") == ["a/1", "a/10"]
    assert visible(world, "c") == []
    assert visible(world, "%") == visible(world, "_") == []


def test_odd_keys_survive(world):
    for key in ODD_KEYS:
        odd = "\\" in key or any(len(part.encode()) > 255 for part in key.split("/"))
        if odd and ODD_NAMES not in world.can:
            continue
        made = publish(world, b"rendition", key=key)

        assert made.key == key
        assert visible(world) == visible(world, key) == [key]
        assert content(world, key) == b"rendition"
        assert world.backend.store.delete(key) is True


def test_bad_keys_are_refused_everywhere(world):
    store, stop, path = world.backend.store, threading.Event(), library_file(world)
    calls = [
        lambda key: store.accept(path, key, moved=nothing, stop=stop),
        store.open,
        lambda key: store.publish(Publication(key, path, sha(b"a clip"), "j", 1)),
        lambda key: store.put(key, b"x", metadata={}),
        store.stat,
        store.delete,
        lambda key: store.collect(key, world.folder / "out", stop=stop),
    ]
    for key in BAD_KEYS:
        for call in calls:
            with pytest.raises(BadKey):
                call(key)
    assert path.read_bytes() == b"a clip"
