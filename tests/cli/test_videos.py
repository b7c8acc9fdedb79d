"""`hevcq serve videos`: list, show, publish and delete what was uploaded."""

from pathlib import Path

import pytest

from hevcq.cli.exit_codes import ExitCode
from hevcq.errors import SourceDamaged
from hevcq.wiring.app import App
from hevcq.wiring.contexts import video_farm
from support.videos import CLIP, VideoBench


@pytest.fixture
def bench(opened: App, tmp_path: Path) -> VideoBench:
    return VideoBench(tmp_path, video_farm(opened))


def test_videos_are_listed_newest_first_and_searched(hevcq, bench):
    assert "No videos." in hevcq("serve", "videos", "list").err
    first = bench.upload(title="Lake", profiles=("hevc",))
    bench.encoder.errors["probe"] = [SourceDamaged("Two packets are missing.")]
    bench.work("hevc")
    second = bench.request("bob", title="Sea \x1b[31m")

    lines = hevcq("serve", "videos", "list", "--json").lines
    assert {line["id"] for line in lines} == {first.video_id, second.video_id}
    by_id = {line["id"]: line for line in lines}
    assert by_id[first.video_id]["status"] == "failed"
    assert by_id[first.video_id]["failure_class"] == "damaged"
    assert by_id[first.video_id]["formats"][0]["state"] == "dead"
    assert len(hevcq("serve", "videos", "list", "--limit", "1", "--json").lines) == 1
    (mine,) = hevcq("serve", "videos", "list", "--owner", "bob", "--json").lines
    assert mine["title"] == "Sea [31m"
    (found,) = hevcq("serve", "videos", "list", "--search", "lAke", "--json").lines
    assert found["id"] == first.video_id
    (open_one,) = hevcq("serve", "videos", "list", "--status", "uploading", "--json").lines
    assert open_one["id"] == second.video_id

    ran = hevcq("serve", "videos", "list")
    assert "Two packets are missing." in ran.out
    assert "\x1b" not in ran.out


def test_a_video_is_shown_with_its_formats(hevcq, bench):
    video = bench.done(title="Lake", profiles=("hevc",))
    ran = hevcq("serve", "videos", "show", video.video_id)
    assert "status: done" in ran.out
    assert video.renditions[0].key in ran.out
    (shown,) = hevcq("serve", "videos", "show", video.video_id, "--json").lines
    assert shown["type"] == "video"
    assert shown["size"] == len(CLIP)
    assert shown["formats"][0]["key"] == video.renditions[0].key


def test_an_unknown_video_is_a_sentence(hevcq, bench):
    for command in ("show", "publish", "delete"):
        ran = hevcq("serve", "videos", command, "../x", *(["--yes"] if command == "delete" else []))
        assert ran.code == ExitCode.USAGE
        assert "There is no such video." in ran.err


def test_publishing_prints_the_address_and_private_ends_it(hevcq, bench):
    video = bench.done(title="Lake", profiles=("hevc",))
    address = hevcq("serve", "videos", "publish", video.video_id).out.strip()
    assert bench.farm.videos.by_slug(address.removeprefix("/p/")) is not None
    ran = hevcq("serve", "videos", "publish", video.video_id, "--private")
    assert "private" in ran.err
    assert bench.farm.videos.by_slug(address.removeprefix("/p/")) is None


def test_what_files_tell_of_people_is_shared_only_with_a_word(hevcq, bench):
    video = bench.telling(bench.done(profiles=("hevc",)), ("location", "artist"))
    ran = hevcq("serve", "videos", "publish", video.video_id)
    assert (ran.code, "location, artist" in ran.err) == (ExitCode.USAGE, True)
    assert hevcq("serve", "videos", "publish", video.video_id, "--tags").out.startswith("/p/")
    assert not bench.now(video).public_original


def test_deleting_needs_a_yes_and_leaves_nothing(hevcq, bench):
    video, other = bench.done(profiles=("hevc",)), bench.done(profiles=("hevc",))
    ran = hevcq("serve", "videos", "delete", video.video_id)
    assert (ran.code, "Nothing deleted." in ran.err) == (ExitCode.SOME_FAILED, True)
    assert (
        hevcq("serve", "videos", "delete", video.video_id, "0" * 26, "--yes").code == ExitCode.USAGE
    )
    assert bench.farm.videos.get(video.video_id) is not None

    assert hevcq("serve", "videos", "delete", video.video_id, "--yes").code == 0
    assert bench.farm.videos.get(video.video_id) is None
    assert bench.farm.videos.get(other.video_id) is not None
    assert all(other.video_id in each.key for each in bench.backend.store.list(""))
