"""Subtitles beside a rendition: never over another's file, and gone with an undo."""

import errno

import pytest

from hevcq.domain.certificate import Certificate, Gate, GateResult, Outcome, Sidecar
from hevcq.domain.planning.streams import sidecar_marks
from hevcq.errors import VerificationFailed
from hevcq.library.filesystem import FileSystem
from hevcq.library.place import place_sidecars, sweep
from hevcq.library.replacement.swap import Swap
from support.clips import ManualClock
from support.library import FailingFileSystem, MortalFileSystem, looks, strays
from support.library import video as original
from support.media_facts import audio, media, profile, subtitle, video
from support.processes import Killed

TEXT = "1\n00:00:01,000 --> 00:00:02,000\nüno\n"
ENGLISH = Sidecar(marks="en", cues=1, text=TEXT)
FORCED = Sidecar(marks="en.forced", cues=1, text=TEXT)


def certified(made) -> Certificate:
    proof = made.change.certificate
    passed = GateResult(gate=Gate.T1, outcome=Outcome.PASSED)
    return proof.model_copy(update={"sidecars": (ENGLISH, FORCED), "gates": (*proof.gates, passed)})


def placed(made, fs=None) -> tuple[str, ...]:
    fs = fs or FileSystem()
    return place_sidecars(fs, made.root, made.target, made.source, certified(made))


def names(made) -> list[str]:
    return sorted(path.name for path in made.source.parent.glob("*.srt"))


def test_text_beside_is_named_by_language_and_kind_each_once():
    found = media(
        video(), audio(language="ger"),
        subtitle("subrip", language="eng"), subtitle("subrip", language="eng"),
        subtitle("ass", language="ger", dispositions=("forced",)),
        subtitle("mov_text", language="fre"), subtitle("hdmv_pgs_subtitle", language="eng"),
        subtitle("subrip", dispositions=("hearing_impaired",)),
    )  # fmt: skip
    recipe = profile(subtitles={"beside": True, "languages": ["en"]})

    marks = {2: "en", 3: "en.2", 4: "de.forced", 7: "sdh"}
    assert sidecar_marks(recipe, found) == marks
    assert sidecar_marks(profile(), found) == {}
    with pytest.raises(ValueError, match=r"subtitles\.beside is for files"):
        profile("hls", subtitles={"beside": True})


def test_they_are_named_as_media_servers_read_them_and_look_like_the_source(tmp_path):
    made = original(tmp_path, "tv/Film.avi", "Film.hevc.mkv")

    assert placed(made) == placed(made) == ()

    assert names(made) == ["Film.hevc.en.forced.srt", "Film.hevc.en.srt"]
    written = looks(made.source.parent / "Film.hevc.en.srt")
    assert written == (TEXT.encode(), *looks(made.source)[1:])
    assert strays(tmp_path) == []


def test_a_strangers_file_stays_and_is_named(tmp_path):
    made = original(tmp_path, "Film.avi", "Film.mkv")
    (tmp_path / "Film.en.srt").write_text("a stranger's")

    (said,) = placed(made)

    assert "Film.en.srt is another file and was left as it is." in said
    assert (tmp_path / "Film.en.srt").read_text() == "a stranger's"
    assert names(made) == ["Film.en.forced.srt", "Film.en.srt"]


def test_a_full_disk_is_said_and_leaves_no_half_file(tmp_path):
    made = original(tmp_path, "Film.avi", "Film.mkv")

    said = placed(made, FailingFileSystem(1, errno.ENOSPC))

    assert [each.rpartition(": ")[2] for each in said] == ["No space left on device."] * 2
    assert names(made) == []


@pytest.mark.parametrize("when", ["after", "torn"])
def test_a_kill_at_any_call_leaves_whole_files_or_none(tmp_path, when):
    counting = MortalFileSystem()
    placed(original(tmp_path / "counted"), counting)
    for at in range(1, counting.count + 1):
        made = original(tmp_path / str(at))
        try:
            placed(made, MortalFileSystem(at, when))
        except Killed:
            sweep(made.root, FileSystem())
        assert placed(made) == ()
        assert {path.read_text() for path in made.source.parent.glob("*.srt")} == {TEXT}
        assert (len(names(made)), strays(made.root)) == (2, [])


@pytest.mark.parametrize("target", [None, "video.mkv"])
def test_an_undo_takes_away_what_was_placed_and_nothing_else(tmp_path, target):
    made = original(tmp_path, "video.avi", target)
    change = made.change.__class__(
        made.source, made.target, made.change.fingerprint, certified(made), 30.0
    )
    (tmp_path / "video.en.forced.srt").write_text(TEXT)  # the same text, and somebody else's
    swap = Swap(tmp_path, ManualClock(), FileSystem())
    done = swap.replace(change, made.fetch)
    place_sidecars(FileSystem(), tmp_path, done.target, done.retained, change.certificate)
    assert names(made) == ["video.en.forced.srt", "video.en.srt"]

    swap.undo(change.certificate.job_id)

    assert names(made) == ["video.en.forced.srt"]
    assert made.source.read_bytes() == made.original


def test_a_name_that_is_too_long_with_its_marks_is_said_and_hinders_no_undo(tmp_path):
    made = original(tmp_path, f"{'x' * 246}.avi", f"{'x' * 246}.mkv")  # .en.forced.srt is too much
    swap = Swap(tmp_path, ManualClock(), FileSystem())
    change = made.change.__class__(
        made.source, made.target, made.change.fingerprint, certified(made), 30.0
    )
    done = swap.replace(change, made.fetch)

    said = place_sidecars(FileSystem(), tmp_path, done.target, done.retained, change.certificate)
    (unwritten,) = [each for each in said if "File name too long" in each]
    assert ".en.forced.srt could not be written" in unwritten

    swap.undo(change.certificate.job_id)
    assert (names(made), made.source.read_bytes()) == ([], made.original)


def test_a_certificate_of_subtitles_without_their_gate_proves_nothing(tmp_path):
    proof = certified(original(tmp_path))
    lacking = proof.model_copy(update={"gates": proof.gates[:-1]})

    assert Certificate.parse(proof.to_json()) == proof
    with pytest.raises(VerificationFailed, match="T1 subtitles beside did not run"):
        Certificate.parse(lacking.to_json())
    with pytest.raises(VerificationFailed):
        Certificate.parse(proof.to_json().replace('"en.forced"', '"../en"'))
