"""`hevcq profiles plan FILE`: what each profile would do with a file, in chunks where it would be split."""

from __future__ import annotations

import threading

from hevcq.domain.profile_sections import ChunkMode
from hevcq.usecases import plan_one_file as use_case
from hevcq.usecases.plan_one_file import ONE_SLOT, plan_one_file
from support.fakes.backend import HEVC, HLS
from support.fakes.encoder import FakeEncoder, fake_index, fake_plan
from support.fakes.videofarm import CHUNKED


def planned(*profiles, slots: int = 4, encoder: FakeEncoder | None = None) -> list[dict]:
    encoder = encoder or FakeEncoder()
    stop = threading.Event()
    return plan_one_file(encoder, "a.mp4", encoder.info, profiles, stop, lambda _profile: slots)


def probed(monkeypatch) -> FakeEncoder:
    encoder = FakeEncoder()
    monkeypatch.setattr(encoder, "probe", lambda _location, stop: encoder.info)
    return encoder


def test_a_file_that_no_profile_encodes_is_not_read_whole(monkeypatch) -> None:
    encoder = probed(monkeypatch)
    skipping = HEVC.video.model_copy(update={"skip_codecs": ("h264",)})

    (found,) = planned(HEVC.model_copy(update={"video": skipping}), encoder=encoder)

    assert (found["action"], "chunks" in found) == ("skip", False)
    assert "keyframes" not in encoder.calls


def test_a_long_video_is_planned_in_chunks_and_read_once_for_all_profiles(monkeypatch) -> None:
    encoder = probed(monkeypatch)
    encoder.index = fake_index(length_s=60, every_s=20)

    split, again = planned(CHUNKED, CHUNKED, encoder=encoder)

    assert len(split["chunks"]) > 1
    assert split == again
    assert encoder.calls.count("keyframes") == 1


def test_where_one_slot_shares_a_video_it_stays_whole(monkeypatch) -> None:
    auto = HEVC.chunking.model_copy(update={"mode": ChunkMode.AUTO})
    (found,) = planned(
        HEVC.model_copy(update={"chunking": auto}), slots=1, encoder=probed(monkeypatch)
    )
    assert (found["whole"]["reason"], found["chunks"]) == (ONE_SLOT.reason, [])


def test_a_short_video_stays_whole_with_the_reason(monkeypatch) -> None:
    encoder = probed(monkeypatch)
    encoder.index = fake_index(length_s=10)
    never = HEVC.chunking.model_copy(update={"mode": ChunkMode.OFF})
    (found,) = planned(HEVC.model_copy(update={"chunking": never}), encoder=encoder)
    assert found["chunks"] == []
    assert found["whole"]["reason"] not in {"", ONE_SLOT.reason}


def test_a_ladder_lists_its_rungs_with_their_bytes_and_reads_the_file_on_its_grid(
    monkeypatch,
) -> None:
    encoder = probed(monkeypatch)
    monkeypatch.setattr(use_case, "make_plan", fake_plan)

    one, ladder = planned(HEVC, HLS, encoder=encoder)

    assert "rungs" not in one
    rungs = ladder["rungs"]
    assert [(rung["name"], rung["max_kbps"]) for rung in rungs] == [("v360", 900), ("v240", 900)]
    assert all(0 < rung["bytes"] <= rung["most_bytes"] for rung in rungs)
    assert encoder.calls.count("keyframes") == 2
