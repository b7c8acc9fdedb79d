"""A job beside its source in the page: who may see it, what is gone, what is kept, and the way back."""

import re
from contextlib import contextmanager
from dataclasses import replace
from html import escape
from unittest.mock import Mock

import pytest

from hevcq.domain.job import RenditionRef
from hevcq.domain.quality import Aim, Comparison, Probe, Still
from hevcq.errors import SourceDamaged, UsageError
from hevcq.ports.catalog import Mode, PlacementState
from hevcq.ports.encoder import FramePairs
from hevcq.usecases import compare
from hevcq.web.pages import compare as page

HOSTILE = "a '<b> $(x);.mp4"


class Pairs(FramePairs):
    """Frames of nothing: each picture says which it is."""

    name = "vmaf"

    def compare(self, folder, *, on_place, stop):
        on_place(0, 1)
        return Comparison(
            "vmaf", ((1.0, 91.0), (2.0, 97.0)), (Still(1.0, 91.0, b"s", b"m", "Worst frame"),)
        )

    def around(self, at_s, count, folder, *, stop):
        shown = [at_s + n / 25 for n in range(count)]
        return [Still(at, 95.0, b"source %.2f" % at, b"made") for at in shown]


@pytest.fixture
def opened_files(monkeypatch):
    """Return the files that were compared; nothing decodes them."""
    seen = []

    @contextmanager
    def frame_pairs(_encoder, request, **_how):
        seen.append((request.source, request.rendition))
        yield Pairs()

    monkeypatch.setattr(compare, "frame_pairs", frame_pairs)
    return seen


def press(client, job, at="", **fields):
    address = f"/board/jobs/{job.job_id}/compare"
    came = client.post(address, data={"at": at, **fields})
    client.app.state.services.comparisons.join()
    return came


def page_of(client, job, query=""):
    return client.get(f"/board/jobs/{job.job_id}/compare{query}")


def placed(farm, path, job, state, **how):
    target = path.with_suffix(".hevc.mp4")
    target.write_bytes(b"rendition")
    placement = replace(farm.placement(path, job, target), state=state, mode=Mode.REPLACE, **how)
    farm.app.catalog.record_placements([placement])
    return target


def test_only_operators_and_the_owner_see_frames(ann, farm, opened_files):
    _, job = farm.done("a.mp4")

    assert page_of(ann, job).status_code == 404
    assert press(ann, job).status_code == 404
    assert ann.get(f"/board/jobs/{job.job_id}/compare/0-made.jpg").status_code == 404
    assert ann.post(f"/board/jobs/{job.job_id}/compare/undo", data={"a": "b"}).status_code == 404
    assert ann.get("/v/" + "0" * 26 + "/compare/hevc").status_code == 404
    assert opened_files == []


@pytest.mark.parametrize("at", ["nan", "-1", "1:2:3:4", "soon", "1e99", "<b>"])
def test_an_invalid_time_is_an_error_beside_the_typed_text(operator, farm, opened_files, at):
    _, job = farm.done("a.mp4")

    for came in (page_of(operator, job, f"?at={at}"), press(operator, job, at)):
        assert came.status_code == 422
        assert "Write the time in seconds, or as 1:02:03.5." in came.text
        assert f'value="{escape(at)}"' in came.text, "nothing has to be typed anew"
        assert "Show</button>" in came.text
    assert opened_files == []


def test_a_job_without_a_single_file_rendition_cannot_be_compared(operator, farm):
    waiting = farm.running("b.mp4")
    _, job = farm.done("a.mp4")
    ref = RenditionRef(key="DONE/x/master.m3u8", size=1, sha256="0" * 64, certificate_key="c")

    assert "There is no rendition to compare yet." in page_of(operator, waiting).text
    with pytest.raises(UsageError, match="set of files"):
        compare.require_comparable(job.model_copy(update={"rendition": ref}))
    assert operator.get("/board/jobs/" + "0" * 32 + "/compare").status_code == 404


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (PlacementState.EXPIRED, "is deleted, so there is nothing to compare with"),
        (PlacementState.UNDONE, "was brought back; the rendition is gone"),
        (PlacementState.REPLACED, "moved, deleted, or its disk is away"),
    ],
)
def test_a_missing_original_is_one_sentence(operator, farm, opened_files, state, words):
    path, job = farm.done(HOSTILE)
    placed(farm, path, job, state, retained=farm.folder / "gone")

    press(operator, job)

    html = page_of(operator, job).text
    assert words in html
    assert "<b>" not in html
    assert opened_files == []


def test_a_damaged_file_says_why_and_may_be_tried_again(operator, farm, monkeypatch):
    _, job = farm.done("a.mp4")

    def frame_pairs(*_all, **_how):
        raise SourceDamaged("It is damaged at 0:01.")

    monkeypatch.setattr(compare, "frame_pairs", frame_pairs)
    press(operator, job)

    html = page_of(operator, job).text
    assert "It is damaged at 0:01." in html
    assert "Try again" in html


def test_the_worst_frames_come_first_and_a_place_frame_by_frame(operator, farm, opened_files):
    path, job = farm.done(HOSTILE)
    target = placed(farm, path, job, PlacementState.PLACED)

    assert "Compare</button>" in page_of(operator, job).text
    assert press(operator, job).headers["location"].endswith("/compare")

    html = page_of(operator, job).text
    assert opened_files == [(path, target)]
    assert "Worst frame</strong>, 0:00:01.0: 91.0" in html
    assert re.search(r"<span>Original</span>\s*<span>Rendition</span>", html), "which side is which"
    assert "hx-get" not in html, "nothing changes any more"
    base = f"/board/jobs/{job.job_id}/compare"
    assert operator.get(f"{base}/0-source.jpg").content == b"s"
    assert operator.get(f"{base}/7-source.jpg").status_code == 404
    assert operator.get(f"{base}/0-other.jpg").status_code == 404

    query = press(operator, job, "0:01:02.5").headers["location"].partition("compare")[2]
    assert query == "?at=62.500"
    assert len(re.findall("data-pair", page_of(operator, job, query).text)) == compare.FRAMES
    assert operator.get(f"{base}/1-source.jpg{query}").content == b"source 62.54"


def test_what_was_tried_for_its_quality_is_drawn(operator, farm, opened_files, monkeypatch):
    path, job = farm.done("a.mp4")
    placed(farm, path, job, PlacementState.PLACED)
    probes = (Probe(crf=24, vmaf=94.0, size=90), Probe(crf=26, vmaf=92.0, size=70))
    aim = Aim(target=93, crf=24, sampled=94.0, probes=probes, metric="vmaf")
    monkeypatch.setattr(page, "certificate_of", lambda *_: Mock(quality=aim))

    press(operator, job)

    html = page_of(operator, job).text
    assert "What was tried</h2>" in html
    assert "CRF 26: 70 Bytes, 92.0</text>" in html


def comparisons(farm, folder):
    return compare.Comparisons(farm.app, folder)


def test_keeping_it_is_noted_and_the_original_stays(operator, farm):
    path, job = farm.done("a.mp4")
    kept = farm.folder / "kept"
    kept.write_bytes(b"original")
    address = f"/board/jobs/{job.job_id}/compare"
    assert "Keep it" not in page_of(operator, job).text
    assert "not_replaced" in operator.post(f"{address}/keep", data={"a": "b"}).headers["location"]
    placed(farm, path, job, PlacementState.REPLACED, retained=kept, updated_at=5.0)
    assert "Keep it" in page_of(operator, job).text

    operator.post(f"{address}/keep", data={"a": "b"})

    placement = farm.app.catalog.placement(job.job_id)
    assert (placement.state, placement.updated_at) == (PlacementState.REPLACED, 5.0)
    assert kept.read_bytes() == b"original"
    assert placement.detail.startswith("Accepted by ")
    assert placement.detail in page_of(operator, job).text


def test_a_deleted_original_cannot_be_restored(operator, farm):
    path, job = farm.done("a.mp4")
    address = f"/board/jobs/{job.job_id}/compare/undo"
    assert "not replaced" in operator.get(address).text
    target = placed(farm, path, job, PlacementState.REPLACED, retained=farm.folder / "gone")
    path.unlink()

    assert "no longer kept" in operator.get(address).text
    for asked in (address, f"/api/v1/jobs/{job.job_id}/undo"):
        refused = operator.post(asked, data={"a": "b"} if asked == address else None)
        assert refused.status_code == 409
        assert "no longer kept" in refused.text
    assert target.read_bytes() == b"rendition", "nothing was deleted"
