"""Status: what is waiting, running and dead, for every state a folder can be in."""

from hevcq.cli.exit_codes import ExitCode
from hevcq.domain.job import Phase, Progress, RenditionRef
from hevcq.util.processes import Processes


def test_a_running_job_is_shown_with_its_progress_and_a_dead_letter_is_pointed_to(hevcq, farm):
    farm.skipped("a.mp4")
    farm.buried("b.mp4")
    job = farm.running("d.mp4")
    progress = Progress(phase=Phase.ENCODE, percent=41.6, speed=1.234, eta_s=754)
    farm.app.backend.ledger.progress(job.job_id, job.fence, progress)
    farm.queued("c\n\x1b.mp4", "hevc", "720p")

    ran = hevcq("status")

    assert ran.code == 0
    assert "1 failed job: run" in ran.out
    assert f"{job.job_id[:8]}  hevc     encode  42%   1.23x  13 min  /" in ran.out
    counts = {row.split()[0]: row.split()[1:6] for row in ran.out.splitlines()[1:3]}
    assert ran.out.splitlines()[3].startswith("No jobs of 1080p, ")
    assert counts == {
        "720p": ["1", "0", "0", "0", "0"],
        "hevc": ["1", "1", "0", "1", "1"],
    }


def test_a_video_that_is_shared_out_is_one_running_job_with_its_chunks(hevcq, farm):
    job = farm.split("video.mp4", frames=(100, 300))

    table = hevcq("status").out.splitlines()
    (found,) = hevcq("status", "--json").lines

    (running,) = found["running"]
    assert (running["job_id"], running["chunks"], running["chunks_done"]) == (job.job_id, 2, 1)
    assert (running["phase"], running["percent"]) == ("encode", 62.5), "weighted by frames"
    (hevc,) = [queue for queue in found["queues"] if queue["profile"] == "hevc"]
    assert (hevc["jobs"]["split"], hevc["jobs"]["queued"]) == (1, 0), "parts are no jobs"
    (line,) = [line for line in table if "video.mp4" in line]
    assert "encode 1/2 chunks" in line
    assert "62%" in line
    (counts,) = [line.split() for line in table if line.startswith("hevc ")]
    assert counts[:3] == ["hevc", "0", "1"], "it is worked on: counted as running"


def test_a_path_shows_the_jobs_of_that_file_or_folder_with_the_reason(hevcq, farm):
    path, _ = farm.buried("in/b.mp4")
    farm.skipped("out/a.mp4")

    table = hevcq("status", path.parent).out
    (line,) = hevcq("status", path, path, "--json").lines

    assert len(table.splitlines()) == 2
    assert table.splitlines()[0].split() == ["job", "profile", "state", "source", "why"]
    assert table.splitlines()[1].endswith(f"{path}  in/b.mp4 broke")
    assert (line["type"], line["state"], line["failure_class"]) == ("job", "dead", "encoder")
    assert {"doubts", "whole", "part", "split"} <= line.keys(), (
        "the names that docs/cli.md promises"
    )


def test_what_a_finished_rendition_lacks_of_its_source_is_reported(hevcq, farm):
    job = farm.running("in/a.ts")
    said = ("10 pictures are left out.", "Two joints were closed.")
    made = RenditionRef(
        key="DONE/a.mkv", size=1, sha256="0" * 64, certificate_key="c", notices=said
    )
    farm.app.backend.ledger.complete(job.job_id, job.fence, made, cpu_s=1.0)

    table = hevcq("status", job.job_id).out
    (line,) = hevcq("status", job.job_id, "--json").lines

    assert job.job_id in table  # whole: it is what other commands take
    assert table.rstrip().endswith(" ".join(said))
    assert line["rendition"]["notices"] == list(said)


def test_a_name_without_a_job_is_a_usage_error_beside_the_jobs_that_are_there(hevcq, farm):
    path, _ = farm.queued("a.mp4", "hevc")

    new = path.with_name("new.mp4")
    new.write_bytes(b"not ingested yet")

    ran = hevcq("status", path, new)

    assert ran.code == ExitCode.USAGE
    assert "a.mp4" in ran.out
    assert (
        ran.err
        == f"hevcq: No job for {new}; `hevcq ingest --dry-run` shows what would happen to a file.\n"
    )
    gone = hevcq("status", "/nope", "--json")
    assert (gone.code, gone.err) == (ExitCode.USAGE, "hevcq: No such file or folder: /nope.\n")


def test_a_worker_that_runs_is_counted_and_one_that_ended_is_not(hevcq, farm, data_dir):
    farm.queued("a.mp4")
    row = Processes(data_dir / "processes", farm.app.clock)
    row.tell(slots=1, stopping=True)
    assert "No worker is running" in hevcq("status").out

    row.tell(stopping=False)
    assert hevcq("status", "--json").lines[0]["workers"] == 1
    assert "No worker is running" not in hevcq("status").out

    row.close()
    assert hevcq("status", "--json").lines[0]["workers"] == 0
