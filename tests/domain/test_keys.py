"""Keys: which are safe, which profile an upload wants, and where its rendition goes."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hevcq.domain.keys import (
    MAX_KEY_BYTES,
    certificate_key,
    check_key,
    is_routed_to,
    is_set,
    key_for_path,
    member_key,
    path_of_key,
    rendition_key,
    set_version,
)
from hevcq.errors import BadKey

KNOWN = {"hevc", "720p", "1080p"}


@pytest.mark.parametrize(
    "key",
    ["a", "TODO/all/ümläut +100%.mov", "new\nline'\".mp4", "ü" * (MAX_KEY_BYTES // 2), "a/..."],
)
def test_safe_keys_are_returned_unchanged(key):
    assert check_key(key) == key


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/etc/passwd",
        "a//b",
        "a/",
        "../a",
        "a/../b",
        "a/..",
        "a/./b",
        "nul\0byte",
        "ü" * 513,
        "lone\ud800surrogate",
    ],
)
def test_keys_that_could_leave_their_folder_or_break_a_store_are_refused(key):
    with pytest.raises(BadKey):
        check_key(key)


@pytest.mark.parametrize(
    ("key", "wanted_by"),
    [
        ("TODO/a.mp4", {"hevc", "1080p"}),
        ("TODO/all/a.mp4", {"hevc", "1080p"}),
        ("TODO/holiday/2024/a.mp4", {"hevc", "1080p"}),
        ("TODO/720p/a.mp4", {"720p"}),
        ("TODO/720p/all/a.mp4", {"720p"}),
        ("TODO/hevc/a.mp4", {"hevc"}),
        ("TODO/720p", {"hevc", "1080p"}),
        ("TODO/720P/a.mp4", {"hevc", "1080p"}),
        ("TODO/all/720p/a.mp4", {"hevc", "1080p"}),
        ("TODO/folder/", set()),
        ("TODO/", set()),
        ("TODO", set()),
        ("todo/a.mp4", set()),
        ("DONE/hevc/a.mp4", set()),
        ("work/x", set()),
        ("a.mp4", set()),
        ("", set()),
    ],
)
def test_which_profiles_an_upload_wants(key, wanted_by):
    found = {p for p in KNOWN if is_routed_to(key, p, subscribed=p != "720p", known=KNOWN)}
    assert found == wanted_by


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("TODO/a.mov", "DONE/hevc/a.mov.mp4"),
        ("TODO/all/a.mov", "DONE/hevc/a.mov.mp4"),
        ("TODO/hevc/a.mov", "DONE/hevc/a.mov.mp4"),
        ("TODO/720p/a.mov", "DONE/hevc/720p/a.mov.mp4"),
        ("TODO/b/c/a.mov", "DONE/hevc/b/c/a.mov.mp4"),
        ("TODO/all/all/a.mov", "DONE/hevc/all/a.mov.mp4"),
        ("TODO/hevc", "DONE/hevc/hevc.mp4"),
        ("TODO/noext", "DONE/hevc/noext.mp4"),
        ("elsewhere/a.mov", "DONE/hevc/elsewhere/a.mov.mp4"),
    ],
)
def test_where_a_rendition_goes(source, expected):
    assert rendition_key(source, "hevc", "mp4") == expected


def test_the_longest_keys_stay_within_the_limit_and_apart():
    one = rendition_key("TODO/" + "x" * 1000 + "1/video.mp4", "hevc", "mp4")
    two = rendition_key("TODO/" + "x" * 1000 + "2/video.mp4", "hevc", "mp4")
    assert one != two
    for key in (one, two, certificate_key(one, "0" * 64)):
        assert len(key.encode()) <= MAX_KEY_BYTES
        assert check_key(key) == key
    assert one.endswith("video.mp4.mp4")


@given(
    st.lists(
        st.text(
            st.characters(exclude_characters="/\0", exclude_categories=["Cs"]),
            min_size=1,
            max_size=400,
        ).filter(lambda s: s not in {".", ".."}),
        min_size=1,
        max_size=6,
    )
)
def test_any_upload_gets_a_rendition_and_a_certificate_with_safe_keys(parts):
    source = "TODO/" + "/".join(parts)
    if len(source.encode()) > MAX_KEY_BYTES:
        return
    key = rendition_key(source, "hevc", "mkv")
    assert check_key(key) == key
    assert key.startswith("DONE/hevc/")
    assert check_key(certificate_key(key, "f" * 64))


@given(st.binary(min_size=1, max_size=1500), st.binary(min_size=1, max_size=1500))
def test_any_two_paths_get_safe_keys_that_differ(one, two):
    paths = [b"/" + raw.replace(b"\0", b"0") for raw in (one, two)]
    usable = [p for p in paths if not {b"", b".", b".."} & set(p[1:].split(b"/"))]
    keys = {p: key_for_path(os.fsdecode(p)) for p in usable}
    assert len(set(keys.values())) == len(keys)
    assert all(check_key(k) == k and k.startswith("TODO/all/") for k in keys.values())
    assert all(is_routed_to(k, "hevc", subscribed=True, known=KNOWN) for k in keys.values())
    whole = {p: k for p, k in keys.items() if "~" not in k and b"//" not in p}
    assert {p: os.fsencode(path_of_key(k) or "") for p, k in whole.items()} == {
        p: p.rstrip(b"/") for p in whole
    }
    assert path_of_key("TODO/all/machine.nas/a%25.mp4") is path_of_key("DONE/all/a.mp4") is None


def test_the_same_path_on_two_machines_is_two_keys():
    one, two = (key_for_path("/v/a b.mp4", namespace=n) for n in ("nas-1", "nas-2"))

    assert one == "TODO/all/machine.nas-1/v/a b.mp4"
    assert two == "TODO/all/machine.nas-2/v/a b.mp4"
    assert key_for_path("/v/a b.mp4", "hevc", "x") == "TODO/hevc/machine.x/v/a b.mp4"
    assert is_routed_to(one, "hevc", subscribed=True, known=KNOWN)
    assert rendition_key(one, "hevc", "mp4") == "DONE/hevc/machine.nas-1/v/a b.mp4.mp4"


def test_a_path_that_is_not_utf8_and_one_that_looks_like_it_stay_apart():
    assert key_for_path(os.fsdecode(b"/a/\xff.mp4")) == "TODO/all/a/%FF.mp4"
    assert key_for_path("/a/%FF.mp4") == "TODO/all/a/%25FF.mp4"


def test_a_set_has_a_folder_whose_master_playlist_is_the_rendition():
    key = rendition_key("TODO/all/shows/a.mov", "hls", "m3u8")

    assert key == "DONE/hls/shows/a.mov/master.m3u8"
    assert is_set(key)
    assert not is_set(rendition_key("TODO/all/master.m3u8", "hevc", "mp4"))
    version = set_version("0123456789abcdef" * 2, 7)
    assert member_key(key, f"{version}/v720.mp4") == "DONE/hls/shows/a.mov/01234567-7/v720.mp4"
    with pytest.raises(BadKey):
        member_key(key, "../../hevc/a.mov.mp4")
