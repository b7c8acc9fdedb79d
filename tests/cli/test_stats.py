"""`hevcq libraries stats`: what it prints for people and programs, within 80 columns."""

import csv
import io
import re

import pytest

from hevcq.domain.job import RenditionRef

MADE = RenditionRef(key="DONE/hevc/a.mp4", size=5, sha256="a" * 64, certificate_key="c")


@pytest.fixture
def worked(hevcq, farm):
    for name in ("a.mp4", "b.mp4"):
        job = farm.running(name)
        farm.app.backend.ledger.complete(job.job_id, job.fence, MADE, cpu_s=1800.0)
    farm.buried("c.mp4")
    farm.skipped("d.mp4")
    return hevcq


def test_what_was_saved_is_shown_by_day_within_80_columns(worked):
    ran = worked("libraries", "stats")

    assert ran.code == 0
    assert "2 renditions made" in ran.out
    assert "1 h of CPU" in " ".join(ran.out.split())
    assert "Skipped 1, failed 1 (encoder 1), retried 0." in ran.out
    assert re.search(r"^day +made +before +after +smaller", ran.out, re.M)
    assert "No original was replaced, so no space is freed." in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    assert worked("libraries", "stats").out == ran.out, "nothing is counted twice"


def test_json_and_csv_say_the_same(worked):
    (told,) = worked("libraries", "stats", "--json").lines
    rows = list(csv.DictReader(io.StringIO(worked("libraries", "stats", "--csv").out)))

    assert (told["type"], told["total"]["renditions"], told["skipped"]) == ("stats", 2, 1)
    assert told["failures"] == {"encoder": 1}
    done = [row for row in rows if row["event"] == "job.done"]
    assert sum(int(row["count"]) for row in done) == 2
    assert sum(int(row["bytes_before"]) for row in done) == told["total"]["before"]
    assert told["months"][0]["saved"] == told["total"]["saved"]
