"""The local name of a file on a server: none leads out of the target."""

import os
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hevcq.library.own_files import MAX_NAME_BYTES, is_own
from hevcq.usecases.sync.move import local_parts, numbered, safe_name


@given(st.text(st.characters(exclude_characters="/"), min_size=1, max_size=400))
def test_any_name_becomes_one_that_a_file_system_takes(name):
    safe = safe_name(name)
    assert safe not in {"", ".", ".."}
    assert "/" not in safe
    assert not is_own(safe)
    assert all(c.isprintable() or "\ud800" <= c <= "\udfff" for c in safe)
    if not any("\ud800" <= c <= "\udfff" for c in name):
        longest = next(islice(numbered(safe), 9998, None))
        assert len(os.fsencode(longest)) <= MAX_NAME_BYTES


def test_long_names_stay_apart_and_keep_their_suffix():
    one, other = safe_name("ä" * 200 + "1.mp4"), safe_name("ä" * 200 + "2.mp4")
    assert one != other
    assert one.endswith(".mp4")
    assert len(os.fsencode(one)) <= MAX_NAME_BYTES


@pytest.mark.parametrize(
    ("name", "safe"),
    [("a\u202e4pm.exe", "a_4pm.exe"), ("..", "_.."), (".hevcq-a.part", "_.hevcq-a.part")],
)
def test_a_name_leads_nowhere_and_reads_as_it_is(name, safe):
    assert safe_name(name) == safe


@pytest.mark.parametrize(
    "path", ["Camera", "Other/a", "Camera/", "Camera/../a", "Camera//a", "Camera/."]
)
def test_what_is_not_below_the_folder_is_no_path(path):
    with pytest.raises(ValueError, match="not"):
        local_parts(path, "Camera")
