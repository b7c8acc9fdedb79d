"""`hevcq profiles plan FILE`: what each profile would do with a file, in chunks where it would be split."""

import threading

from hevcq.usecases.plan_one_file import plan_one_file
from support.fakes.backend import HEVC
from support.fakes.encoder import FakeEncoder, fake_index
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
