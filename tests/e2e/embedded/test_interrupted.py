"""Interrupted at any point, the same command goes on where it was, and leaves nothing half-done."""

import os
import signal
import threading

import pytest

from e2e.embedded.farm import Farm, Ran, encoding, first_event, until
from support.processes import descendants, is_alive

pytestmark = pytest.mark.media


def placed(ran: Ran) -> list[str]:
    return [str(event["path"]) for event in ran.named("placed")]


@pytest.fixture
def slow(farm: Farm) -> Farm:
    farm.add_profile("hevc", "medium")
    farm.slow_clip("video.mp4")
    return farm


def test_killed_in_mid_encode_it_leaves_nothing_and_goes_on(slow):
    child = slow.start("ingest", slow.media, "--json")
    first_event(child, encoding)
    until(lambda: bool(descendants(child.pid)))
    ffmpegs = descendants(child.pid)

    child.kill()
    child.wait()

    until(lambda: not any(map(is_alive, ffmpegs)))
    left = {os.fspath(path.relative_to(slow.media)) for path in slow.media.rglob("*")}
    # A killed process cannot remove its lock file; the kernel has dropped the lock.
    assert left == {"video.mp4", ".hevcq", ".hevcq/in-use"}

    slow.add_profile("hevc", "ultrafast")
    again = slow.ingest()

    assert again.code == 0, again.err
    assert (slow.media / "video.hevc.mp4").is_file()
    assert slow.strays() == []
    assert not (slow.media / ".hevcq" / "in-use").exists()


def test_what_was_finished_before_a_kill_is_in_place_and_not_encoded_twice(slow):
    quick = slow.clip("a-quick.mp4")
    child = slow.start("ingest", slow.media, "--json", "--workers", "1")
    first_event(child, lambda event: event["event"] == "placed")
    child.kill()
    child.wait()

    rendition = quick.with_name("a-quick.hevc.mp4")
    before = rendition.stat()
    slow.add_profile("hevc", "ultrafast")
    again = slow.ingest()

    assert again.code == 0, again.err
    assert placed(again) == [str(slow.media / "video.mp4")]
    assert rendition.stat() == before


def test_a_stop_gives_the_work_back_at_once_and_says_so(slow):
    child = slow.start("ingest", slow.media, "--json")
    first_event(child, encoding)
    ffmpegs = descendants(child.pid)
    child.send_signal(signal.SIGINT)
    ran = slow.finish(child, timeout=30)

    assert ran.code == 130
    assert ran.named("summary")[0]["counts"] == {"open": 1}
    assert not any(map(is_alive, ffmpegs))
    assert slow.strays() == []
    status = slow.run("status", "--json")
    assert '"ready":1' in status.out.replace(" ", "")


def test_a_ctrl_c_after_the_last_video_interrupted_nothing(farm):
    farm.clip("a.mp4")
    child = farm.start("ingest", farm.media, "--replace", "--json")
    first_event(child, lambda event: event["event"] == "placed")
    child.send_signal(signal.SIGINT)

    ran = farm.finish(child, timeout=30)

    assert (ran.code, "Interrupted" in ran.err) == (0, False)


def test_two_ingests_at_once_work_together_and_encode_each_file_once(farm):
    for number in range(5):
        farm.clip(f"{number}.mp4")
    children = [farm.start("ingest", farm.media, "--json", "--workers", "1") for _ in range(2)]
    # Both pipes are read at the same time, so that neither ingest waits for its reader.
    rans: list[Ran] = []
    threads = [
        threading.Thread(target=lambda c=child: rans.append(farm.finish(c))) for child in children
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [ran.code for ran in rans] == [0, 0], [ran.err for ran in rans]
    ends = [path for ran in rans for path in placed(ran)]
    assert sorted(ends) == sorted(str(farm.media / f"{number}.mp4") for number in range(5))
    assert len(list(farm.media.glob("*.hevc.mp4"))) == 5
    assert farm.strays() == []


def test_watch_takes_up_a_new_file_once_it_stops_growing_and_stops_on_request(farm):
    whole = farm.clip("whole.mp4")
    os.utime(whole, (1.0, 1.0))
    child = farm.start("ingest", farm.media, "--json", "--watch")
    first_event(child, lambda event: event["event"] == "placed")

    late = farm.clip("late.mp4")
    half = late.read_bytes()
    late.write_bytes(half[: len(half) // 2])
    late.write_bytes(half)
    event = first_event(child, lambda event: event["event"] in {"placed", "job_failed"})

    assert event["event"] == "placed", event
    assert event["path"] == str(late)
    child.send_signal(signal.SIGTERM)
    assert farm.finish(child, timeout=30).code == 130
