"""Open pages ask for news of the part that changes; searches leave threads for everybody else."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from hevcq.ports.videos import Page, VideoFilter


def test_an_open_page_gets_its_part_until_the_session_ends(operator, farm) -> None:
    assert 'hx-get="/board/now"' in operator.get("/board").text
    farm.running("film.mp4")

    part = operator.get("/board/now", headers={"HX-Request": "true"})

    assert "film.mp4" in part.text
    assert "<html" not in part.text
    operator.post("/sign-out")
    refused = operator.get("/board/now", headers={"HX-Request": "true"})
    assert refused.status_code == 401, "a sign-in page has no place in a part"
    assert operator.get("/board/now").headers["location"].startswith("/sign-in")


def test_many_viewers_cost_one_look_until_somebody_changes_something(
    operator, opened, clock, monkeypatch
) -> None:
    looks, counts = [], opened.backend.ledger.counts
    monkeypatch.setattr(opened.backend.ledger, "counts", lambda: looks.append(1) or counts())
    clock.auto = False

    def look() -> int:
        before = len(looks)
        assert operator.get("/board/jobs/now").status_code == 200
        return len(looks) - before

    assert look() == 1
    assert look() == 0
    operator.post("/board/pause", data={"for": "1h"})
    assert look() == 1, "who changed something sees it"
    operator.post("/board/resume")
    assert look() == 1
    clock.advance(5)
    assert look() == 1


def test_a_search_of_videos_is_not_kept_up_to_date(ann) -> None:
    assert 'hx-get="/now?state=done"' in ann.get("/?state=done").text
    assert ann.get("/now?state=done").status_code == 200
    assert "hx-get" not in ann.get("/?q=x").text
    assert ann.get("/now?q=x").status_code == 400


@pytest.mark.parametrize("search", ["/?q=x", "/api/v1/videos?text=x"])
def test_many_searches_leave_threads_for_other_pages(
    visit, opened, monkeypatch, search: str
) -> None:
    gate, begun, page = threading.Event(), threading.Semaphore(0), opened.videos.page
    at_once: list[int] = []

    def slow(wanted: VideoFilter) -> Page:
        if wanted.text:
            at_once.append(1)
            begun.release()
            assert gate.wait(60)
        return page(wanted)

    monkeypatch.setattr(opened.videos, "page", slow)
    with visit(auth="none") as client, ThreadPoolExecutor(30) as many:
        searches = [many.submit(client.get, search) for _ in range(20)]
        for _ in range(4):
            assert begun.acquire(timeout=60)
        for _ in range(5):
            assert client.get("/board").status_code == 200
        assert len(at_once) == 4
        gate.set()
        assert {each.result().status_code for each in searches} == {200}
