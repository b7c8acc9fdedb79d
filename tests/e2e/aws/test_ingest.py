"""`hevcq ingest` against the farm: uploads, waits, collects, places or replaces, goes on."""

import json

import pytest

from e2e.aws.fleet import Fleet
from e2e.embedded.farm import digest, first_event
from support.clips import codec_of

pytestmark = [pytest.mark.aws, pytest.mark.media]
HEVC = ("--profile", "hevc")


def uploads(fleet: Fleet) -> dict[str, list[str]]:
    """Return the versions of every object in the input bucket, by the end of its key."""
    answer = fleet.clients.s3.list_object_versions(Bucket=fleet.aws.input_bucket)
    found: dict[str, list[str]] = {}
    for entry in answer.get("Versions", []):
        found.setdefault(entry["Key"].rpartition("/")[2], []).append(entry["VersionId"])
    return found


def test_what_it_costs_is_said_before_and_after_and_nothing_dearer_is_queued(fleet):
    fleet.clip("a.mp4")
    dear = {"HEVCQ_PRICES__VCPU_HOUR": "1000"}
    capped = fleet.run("ingest", fleet.media, *HEVC, "--max-cost", "0.01", env=dear)
    assert (capped.code, uploads(fleet)) == (0, {})
    assert "Not within the price of --max-cost." in capped.out
    fleet.worker("hevc")

    ran = fleet.run("ingest", fleet.media, *HEVC, "--max-cost", "100", env=dear)

    assert ran.code == 0, ran.out + ran.err + fleet.log()
    assert "dollars, at 1000 a vCPU-hour (your prices.vcpu_hour)." in ran.err
    assert codec_of(fleet.media / "a.hevc.mp4") == "hevc"
    said = fleet.run("status", env=dear).out
    assert float(said.partition("last 24 hours: about ")[2].split()[0]) > 0, said
    fleet.clip("b.mp4", seconds=2)
    spent = {**dear, "HEVCQ_PRICES__MAX_PER_DAY": "0.000001"}
    fleet.run("ingest", fleet.media, *HEVC, "--no-wait", env=spent)
    assert "Paused by prices.max_per_day" in fleet.run("status").out
    sampled = fleet.run("ingest", fleet.media, "--half")
    assert "--sample, --fit and --half only work with the embedded" in sampled.err


def test_killed_while_it_waits_it_goes_on_uploads_nothing_twice_and_places_what_is_certified(fleet):
    videos = [fleet.clip(f"{n}/video {n}+é.mp4", crf=10 + n) for n in range(3)]
    child = fleet.start("ingest", fleet.media, "--json", *HEVC)
    first_event(child, lambda event: event["event"] == "job_queued")
    child.kill()
    child.wait()
    before = uploads(fleet)
    assert before

    fleet.worker("hevc")
    ran = fleet.ingest(*HEVC)

    assert ran.code == 0, ran.out + ran.err + fleet.log()
    after = uploads(fleet)
    assert set(after) == {video.name for video in videos}
    assert {name: after[name] for name in before} == before
    assert {len(versions) for versions in after.values()} == {1}
    for video in videos:
        rendition = video.with_name(video.stem + ".hevc.mp4")
        (path,) = fleet.media.glob(f".hevcq/certificates/{digest(rendition)[:32]}.*.json")
        proof = json.loads(path.read_bytes())
        assert proof["rendition_sha256"] == digest(rendition)
        assert proof["source_sha256"] == digest(video)
    again = fleet.ingest(*HEVC)
    assert (again.code, again.named("job_queued")) == (0, [])
    assert fleet.left_behind() == []
    assert fleet.strays() == []
