"""`hevcq ingest` does its main job: a folder of H.264 becomes verified HEVC."""

import json
import re
import shutil
from pathlib import Path

import pytest

from e2e.embedded.farm import digest
from support.clips import codec_of

pytestmark = pytest.mark.media


def certificates(root: Path) -> dict[str, dict[str, object]]:
    """Return a library's certificates by the digest of their rendition."""
    found = [json.loads(path.read_bytes()) for path in (root / ".hevcq/certificates").iterdir()]
    return {proof["rendition_sha256"]: proof for proof in found}


def test_every_video_below_the_folder_gets_a_verified_rendition_beside_it(farm):
    one, two = farm.clip("a.mp4"), farm.clip("deep/er/b.mkv")
    before = digest(one), digest(two)

    ran = farm.ingest()

    assert ran.code == 0, ran.err
    for source, target in ((one, "a.hevc.mp4"), (two, "b.hevc.mkv")):
        rendition = source.with_name(target)
        assert codec_of(rendition) == "hevc"
        assert rendition.stat().st_size < source.stat().st_size
        proof = certificates(farm.media)[digest(rendition)]
        assert proof["source_sha256"] == digest(source)
    names = sorted(str(p.relative_to(farm.media)) for p in farm.media.rglob("*.*") if p.is_file())
    assert [name for name in names if not name.startswith(".hevcq/")] == [
        *("a.hevc.mp4", "a.mp4", "deep/er/b.hevc.mkv", "deep/er/b.mkv")
    ]
    assert (digest(one), digest(two)) == before
    assert farm.strays() == []


def test_a_dry_run_lets_no_original_go_whose_time_is_up(farm):
    video = farm.clip("video.mp4")
    before = digest(video)
    assert farm.ingest("--replace", "--keep-originals", "0").code == 0

    ran = farm.ingest("--replace", "--dry-run")

    assert ran.named("recovered") == []
    assert farm.run("undo", farm.media).code == 0
    assert digest(video) == before


def test_a_dry_run_changes_nothing_at_all(farm):
    farm.clip("a.mp4")
    before = sorted(farm.media.rglob("*"))

    ran = farm.run("ingest", farm.media, "--dry-run", "--sample", "1m")

    assert ran.code == 0
    assert ran.err.endswith("Based on samples of 1 of 1.\n")
    assert "a.mp4" in ran.out
    assert ran.out.splitlines()[1].startswith("a.mp4 ")
    assert re.match(r"1 to encode\. Originals .*, renditions .*; encoding will take ", ran.err)
    assert sorted(farm.media.rglob("*")) == before


def test_events_are_one_json_object_a_line_from_plan_to_summary(farm):
    farm.clip("a.mp4")

    ran = farm.ingest()

    names = [event["event"] for event in ran.events]
    assert len(ran.events) == len(ran.out.splitlines())
    order = ["scan_started", "file_planned", "plan", "job_queued", "job_done", "placed", "summary"]
    assert [name for name in names if name in order] == order
    assert ran.named("placed")[0]["target"] == str(farm.media / "a.hevc.mp4")
    assert ran.named("summary")[0]["exit_code"] == 0
    low, high = ran.named("plan")[0]["forecast_s"]
    assert 0 <= low < high

    shutil.rmtree(farm.data)  # what is in place is known without it
    again = farm.ingest()

    assert again.code == 0
    assert again.named("job_queued") == []


def test_quiet_names_what_the_exit_code_speaks_of_and_only_while_it_is_new(farm):
    farm.clip("video.mp4")
    (farm.media / "text.mp4").write_text("no video")

    ran = farm.run("ingest", farm.media, "--quiet")

    assert (ran.code, ran.out) == (1, "")
    (line,) = ran.err.splitlines()
    assert "text.mp4: not usable" in line
    again = farm.run("ingest", farm.media, "--quiet")
    assert (again.code, again.out, again.err) == (0, "", "")
    assert farm.run("ingest", farm.media).code == 1


def test_collecting_what_was_queued_and_is_gone_since_is_no_mistake(farm):
    clip = farm.clip("video.mp4")
    assert farm.ingest("--no-wait").code == 0
    clip.unlink()

    assert farm.run("ingest", "--collect-only", clip).code == 0


def test_output_mirrors_the_tree_and_lines_and_a_table_say_so_without_a_terminal(farm):
    farm.clip("x/y/a.mp4")
    out = farm.folder / "out"
    before = sorted(farm.media.rglob("*"))

    ran = farm.run("ingest", farm.media, "--output", out)

    assert ran.code == 0, ran.err
    assert re.search(r" % smaller, in \d+ s", ran.err)
    assert "\x1b[" not in ran.err + ran.out
    assert ran.out.splitlines()[0].split()[:3] == ["file", "result", "before"]
    assert "1 done" in ran.err
    assert codec_of(out / "x" / "y" / "a.hevc.mp4") == "hevc"
    assert sorted(farm.media.rglob("*")) == before


def test_replace_keeps_the_original_and_undo_brings_it_back_byte_for_byte(farm):
    video = farm.clip("sub/a.mp4")
    before, facts = digest(video), video.stat()

    ran = farm.ingest("--replace", "--keep-originals", "7")

    assert ran.code == 0, ran.err
    assert codec_of(video) == "hevc"
    assert video.stat().st_mtime_ns == facts.st_mtime_ns
    again = farm.ingest("--replace")
    assert again.code == 0
    assert again.named("job_queued") == []

    undone = farm.run("undo", video)

    assert undone.code == 0, undone.err
    assert "1 original restored." in undone.err
    assert digest(video) == before
    assert farm.strays() == []

    left = farm.run("ingest", farm.media, "--replace")
    assert (left.code, digest(video)) == (0, before)
    assert (
        "1 video stays undone. To encode it again: name the file itself, or `hevcq retry"
        in left.err
    )
    assert farm.run("ingest", video, "--replace").code == 0
    assert codec_of(video) == "hevc"
    assert farm.run("undo", video).code == 0
    mirror = farm.run("ingest", farm.media, "--output", farm.media.parent / "out")
    assert (mirror.code, "1 done." in mirror.err) == (0, True), mirror.err
    assert farm.run("ingest", farm.media, "--replace").code == 0
    assert digest(video) == before, "replaced a second time unasked"


def test_a_rendition_deleted_by_hand_is_named_and_made_again_as_the_last_line_says(farm):
    farm.clip("a.mp4")
    assert farm.ingest().code == 0
    rendition = farm.media / "a.hevc.mp4"
    rendition.unlink()

    for options in ((), ("--dry-run",)):
        left = farm.run("ingest", farm.media, *options)
        assert (left.code, rendition.exists()) == (0, False)
        assert "1 video stays without rendition. To encode it again: `hevcq retry" in left.err
    assert farm.run("retry", farm.media, "--missing").code == 0
    assert farm.ingest().code == 0
    assert codec_of(rendition) == "hevc"


def test_shrink_replaces_after_a_yes_and_undo_finds_the_renamed_video(farm):
    video = farm.clip("Show/a.mp4")
    before = digest(video)

    unasked = farm.run("shrink", farm.media)
    assert (unasked.code, digest(video)) == (1, before)
    assert "This saves about" in unasked.err
    ran = farm.run("shrink", farm.media, "--yes")

    assert ran.code == 0, ran.err
    assert codec_of(video) == "hevc"
    assert re.search(r"Saved .*: 1 video took .* kept until .*: `hevcq undo` restores", ran.err)
    renamed = video.parent.rename(farm.media / "The Show") / "a.mp4"
    undone = farm.run("undo", renamed.parent)
    assert undone.code == 0, undone.err
    assert digest(renamed) == before
    assert farm.strays() == []


def test_no_wait_queues_a_worker_encodes_and_the_next_ingest_places(farm):
    farm.clip("a.mp4")
    farm.clip("b.mp4")

    queued = farm.ingest("--no-wait")
    assert queued.code == 0
    assert queued.named("summary")[0]["counts"] == {"queued": 2}
    assert list(farm.media.glob("*.hevc.*")) == []

    assert farm.run("worker", "--drain").code == 0
    assert list(farm.media.glob("*.hevc.mp4")) == []

    collected = farm.ingest()
    assert collected.code == 0, collected.err
    assert len(collected.named("placed")) == 2
    assert len(list(farm.media.glob("*.hevc.mp4"))) == 2
