"""A data folder and a library that an earlier release left in the middle of work are gone on with."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from e2e.stored.relocate import stored_jobs, stored_sources
from e2e.stored.stored_folder import StoredFolder
from hevcq.domain.job import job_id
from hevcq.domain.keys import key_for_path

pytestmark = pytest.mark.media

STORED_FFMPEG = "5.1.9-0+deb12u1"
STORED_DAMAGE = "is damaged: Invalid NAL unit size"
DAMAGE = "Invalid NAL unit size"


def names(events: list[dict[str, object]], event: str) -> dict[str, str]:
    """Return the reasons of one kind of event, or its dispositions, by the file's name."""
    told = [each for each in events if each["event"] == event]
    return {Path(str(e["path"])).name: str(e.get("disposition", e.get("reason"))) for e in told}


def other_ffmpeg() -> bool:
    """Return whether chunks encoded here need not fit to the stored one."""
    command = ["ffmpeg", "-version"]
    here = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return here.splitlines()[0].split()[2] != STORED_FFMPEG


class TestWhatIsDerived:
    def test_jobs_and_sources_have_the_identities_they_had(self) -> None:
        jobs = stored_jobs()
        assert len(jobs) == 8
        assert [job_id(each.source, each.profile) for each in jobs] == [j.job_id for j in jobs]
        assert {each.source.source_id for each in jobs} == set(stored_sources())

    def test_a_library_file_has_the_key_it_had(self) -> None:
        paths = stored_sources()
        for each in stored_jobs():
            assert key_for_path(paths[each.source.source_id]) == each.source.key

    @pytest.mark.parametrize(
        ("path", "key"),
        [
            ("/m/50% off.mkv", "TODO/all/m/50%25 off.mkv"),
            (os.fsdecode(b"/m/\xff\xe9.mkv"), "TODO/all/m/%FF%E9.mkv"),
            (
                f"/m/{'ü' * 600}.mkv",
                f"TODO/all/38993b5985395f5f234a83dc6c4662dc~{'ü' * 488}.mkv",
            ),
        ],
        ids=["percent", "no UTF-8", "too long"],
    )
    def test_an_odd_name_has_the_key_that_the_release_made(self, path: str, key: str) -> None:
        assert key_for_path(path) == key


class TestWhatIsShown:
    def test_status_counts_the_stored_jobs(self, stored: StoredFolder) -> None:
        (status,) = stored.lines("status")
        assert stored.jobs("hevc") == {"queued": 1, "done": 4, "skipped": 1, "dead": 1}
        assert stored.jobs("chunked") == {"split": 1}
        queues = {q["profile"]: (q["ready"], q["dead_letters"]) for q in status["queues"]}
        assert queues == {"hevc": (1, 1), "chunked": (3, 0)}
        (running,) = status["running"]
        assert (running["chunks"], running["chunks_done"]) == (4, 1)
        assert "1 dead letter" in stored.run("status")

    def test_the_dead_letter_has_its_reason(self, stored: StoredFolder) -> None:
        (letter,) = stored.lines("dead-letters", "list")
        assert letter["failure_class"] == "damaged"
        shown = stored.run("dead-letters", "show", letter["letter_id"])
        assert f"{stored.library / 'damaged.mkv'} {STORED_DAMAGE}" in shown
        body = json.loads(shown.partition("message: ")[2])
        assert body["source"]["key"].endswith("/lib/damaged.mkv")

    def test_the_database_and_the_folders_are_sound(self, stored: StoredFolder) -> None:
        assert "readable, 8 jobs, 1 of them dead" in stored.run("doctor")


class TestWhatIsGoneOnWith:
    def test_a_job_that_waited_is_done(self, stored: StoredFolder) -> None:
        stored.work("hevc")
        events = stored.lines("collect", stored.library)
        assert "waiting.mkv" in names(events, "job_done")
        assert (stored.library / "waiting.hevc.mkv").is_file()
        assert stored.jobs("hevc") == {"done": 5, "skipped": 1, "dead": 1}

    def test_a_split_job_is_finished_and_its_video_proven(self, stored: StoredFolder) -> None:
        stored.work("chunked")
        stored.run("collect", stored.library)
        assert stored.jobs("chunked") == {"done": 1}
        stored.run("verify", stored.library / "split.mkv", stored.library / "split.chunked.mkv")

    @pytest.mark.skipif(other_ffmpeg(), reason="the stored chunk was encoded by another ffmpeg")
    def test_a_chunk_that_is_done_is_not_encoded_again(self, stored: StoredFolder) -> None:
        log = stored.work("chunked")
        begun = sorted(each["part"] for each in log if each["event"] == "job_started")
        chunks = [f"Chunk {number} of 4" for number in (2, 3, 4)]
        assert begun == [*chunks, "Join of 4 chunks"]

    def test_redriven_it_is_buried_again_while_the_video_is_damaged(
        self, stored: StoredFolder
    ) -> None:
        stored.run("redrive", "--dlq")
        assert list(stored.lines("dead-letters", "list")) == []
        stored.work("hevc")
        (letter,) = stored.lines("dead-letters", "list")
        assert DAMAGE in str(letter["reason"])

    def test_redriven_it_is_done_once_the_video_is_mended(self, stored: StoredFolder) -> None:
        stored.mend("damaged.mkv")
        stored.run("redrive", "--dlq")
        stored.work("hevc")
        assert stored.jobs("hevc") == {"done": 6, "skipped": 1}
        assert stored.lines("dead-letters", "list") == []


class TestWhatIsDone:
    def test_nothing_of_it_is_done_again(self, stored: StoredFolder) -> None:
        videos = ("done.mkv", "odd näme.mkv", "larger.mkv", "skipped.mkv")
        paths = [stored.library / name for name in videos]
        planned = names(stored.lines("ingest", "-p", "hevc", *paths), "file_planned")
        assert planned == dict(zip(videos, ("done", "done", "skip", "skip"), strict=True))

    def test_bytes_that_were_not_worth_it_are_skipped_under_another_name(
        self, stored: StoredFolder
    ) -> None:
        again = stored.library / "again.mkv"
        again.write_bytes((stored.library / "larger.mkv").read_bytes())
        reason = names(stored.lines("ingest", "-p", "hevc", again), "job_skipped")["again.mkv"]
        # Defaults of the stored recipe have changed since, so the bytes are worth another trial.
        assert "Would be larger" in reason

    @pytest.mark.parametrize("name", ["done", "odd näme"])
    def test_a_rendition_has_its_certificate(self, stored: StoredFolder, name: str) -> None:
        pair = (stored.library / f"{name}.mkv", stored.library / f"{name}.hevc.mkv")
        verdict = stored.lines("verify", *pair)[-1]
        assert (verdict["passed"], verdict["certified"]) == (True, True)

    def test_undo_brings_a_replaced_original_back(self, stored: StoredFolder) -> None:
        assert not stored.same("lib/replaced.mkv", "replaced-original.mkv")
        certificate = stored.library / "replaced.mkv.certificate.json"
        assert certificate.exists()
        (undone,) = stored.lines("undo", stored.library / "replaced.mkv")
        assert not certificate.exists()
        assert undone["result"] == "restored"
        assert stored.same("lib/replaced.mkv", "replaced-original.mkv")


class TestWhatWasInterrupted:
    def test_a_swap_that_was_killed_is_finished_and_can_be_undone(
        self, stored: StoredFolder
    ) -> None:
        swaps = stored.root / "swaps"
        events = stored.lines("collect", swaps)
        assert "interrupted replace finished" in str(events[0])
        assert not list(swaps.glob(".hevcq-*"))
        assert not list(swaps.glob(".hevcq/journal/*"))
        assert not list(swaps.glob(".hevcq/busy/*"))
        stored.run("undo", swaps)
        assert stored.same("swaps/swapped.mkv", "swapped-original.mkv")

    def test_what_a_killed_worker_left_is_swept(self, stored: StoredFolder) -> None:
        scratch = stored.root / "data/scratch"
        left = {each.name for each in scratch.iterdir()}
        assert len(left) == 2
        stored.work("hevc")
        assert not left & {each.name for each in scratch.iterdir()}
