"""A worker is killed before and after every call, and every call of every port fails: each life ends as it must.

A call fails once or several times: its request is lost, or its effect happened and its reply is lost.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path
from unittest.mock import Mock

import pytest
import structlog

from hevcq.domain.certificate import Certificate, Gate, GateResult, Outcome
from hevcq.domain.job import JobState, Source
from hevcq.errors import EncoderFailed, LimitExceeded, PartUnfit, SourceDamaged, Stopped
from hevcq.worker.admission import Scratch
from support.fakes.backend import Outage
from support.fakes.encoder import passed
from support.fakes.farm import Farm
from support.fakes.videofarm import CHUNKS, VideoFarm

pytestmark = pytest.mark.repeats


@pytest.fixture(autouse=True)
def _quiet(_own_logging: None) -> None:
    """To write what a thousand lives log would be a third of what they cost."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def submitted(farm: Farm) -> Source:
    return farm.submit()


def breaking(step: str, *errors: Exception) -> Callable[[Farm], Source]:
    def prepare(farm: Farm) -> Source:
        farm.encoder.errors[step] = [*errors]
        return farm.submit()

    return prepare


def not_smaller(farm: Farm) -> Source:
    farm.encoder.gates = passed(GateResult(gate=Gate.G6, outcome=Outcome.NOT_SMALLER))
    return farm.submit()


def transient(farm: Farm) -> Source:
    source = breaking("encode", EncoderFailed("once"))(farm)
    farm.doubt(farm.record(source).job_id)
    return source


def published(farm: Farm) -> Source:
    source = farm.submit()
    farm.vanish_at("store.publish:after")
    return source


def too_late(farm: Farm) -> Source:
    """The message was held for as long as one may be before its job could be claimed."""
    farm.ledger.claim = Mock(side_effect=LimitExceeded("The message was held for too long."))
    return farm.submit()


def announced_again(farm: VideoFarm) -> Source:
    source = farm.submit()
    farm.vanish_at("queue.send:before")
    return source


def last_chunk(farm: VideoFarm) -> Source:
    source = farm.split()
    for _ in range(CHUNKS - 1):
        farm.handle()
    return source


def joined_not_smaller(farm: VideoFarm) -> Source:
    farm.encoder.gates = passed(GateResult(gate=Gate.G6, outcome=Outcome.NOT_SMALLER))
    return farm.chunked()


def poisoned_chunk(farm: VideoFarm) -> Source:
    source = farm.split()
    farm.encoder.errors["encode_chunk"] = [SourceDamaged("holes")] * 9
    return source


def lost_part(farm: VideoFarm) -> Source:
    source = farm.chunked()
    farm.store.delete(farm.chunks(source)[1].rendition.key)
    return source


def fits_once_no_more(farm: VideoFarm) -> Source:
    source = farm.chunked()
    farm.encoder.errors["join"] = [PartUnfit("never")] * 9
    for _ in range(1 + 2):  # the first of them is not counted
        farm.handle()
        farm.clock.advance(100)
    return source


@dataclass(frozen=True)
class Life:
    """A delivery of a worker, and how its job must end wherever that worker is killed."""

    prepare: Callable[[Farm], Source]
    end: JobState = JobState.DONE
    encodes: int = 2
    like: str = ""
    """The life with which its way begins: there, workers were killed already."""
    kind: type[Farm] = Farm

    @property
    def encode(self) -> str:
        """The step of which there may be so many."""
        return "encode" if self.kind is Farm else "encode_chunk"


def of_video(
    prepare: Callable[[VideoFarm], Source],
    end: JobState = JobState.DONE,
    encodes: int = CHUNKS + 1,
    like: str = "",
) -> Life:
    return Life(prepare, end, encodes, like, VideoFarm)


HOLES = [SourceDamaged("holes")] * 9
LIVES = {
    "plain": Life(submitted),
    "not smaller": Life(not_smaller, JobState.SKIPPED, like="plain"),
    "doubtful": Life(breaking("encode", EncoderFailed("once")), like="plain"),
    "transient": Life(transient, like="plain"),
    "poison": Life(breaking("preflight", *HOLES), JobState.DEAD, 0, "plain"),
    "stopped": Life(breaking("encode", Stopped()), like="plain"),
    "published": Life(published, encodes=1, like="plain"),
    "too late": Life(too_late, JobState.DEAD, 0, "plain"),
    "split": of_video(submitted, encodes=CHUNKS),
    "split again": of_video(announced_again, encodes=CHUNKS),
    "chunk": of_video(lambda farm: farm.split()),
    "last chunk": of_video(last_chunk, like="chunk"),
    "join": of_video(lambda farm: farm.chunked(), encodes=CHUNKS),
    "joined, not smaller": of_video(joined_not_smaller, JobState.SKIPPED, CHUNKS, "join"),
    "poisoned chunk": of_video(poisoned_chunk, JobState.DEAD, 2, "chunk"),
    "lost part": of_video(lost_part, like="join"),
    "never fits": of_video(fits_once_no_more, like="join"),
}


def points(folder: Path, life: Life) -> list[str]:
    """Return the points that the next delivery of a life comes to, in their order."""
    farm, came_to = life.kind(folder), list[str]()
    life.prepare(farm)
    farm.come_to(came_to.append)
    farm.handle()
    return list(dict.fromkeys(came_to))


@pytest.mark.parametrize("name", LIVES)
def test_a_kill_at_any_point_loses_doubles_and_leaves_nothing(tmp_path, name):
    """At each point that the delivery comes to, from where it takes another way than the life like it."""
    life = LIVES[name]
    before = points(tmp_path / "before", LIVES[life.like]) if life.like else []
    left = [*dropwhile(before.__contains__, points(tmp_path / "points", life))]
    assert left

    for number, point in enumerate(left):
        farm = life.kind(tmp_path / f"{number}")
        source = life.prepare(farm)
        farm.vanish_at(point)

        farm.until_settled(source, rounds=120)

        assert farm.encoder.calls.count(life.encode) <= life.encodes, point
        Scratch(farm.folder / "scratch", farm.clock).sweep()
        ended_well(farm, source, life.end, point)
        assert life.end is JobState.DEAD or farm.kept(source) == [], point


def ended_well(farm: Farm, source: Source, end: JobState, why: object) -> None:
    """Require one end, a letter if it is dead, and one proven rendition if it is done; nothing is left."""
    done = end is JobState.DONE
    assert farm.ledger.counts() == {("hevc", end): 1}, why
    assert farm.quiet(), why
    assert len(farm.letters()) == (end is JobState.DEAD), why
    assert farm.renditions() == [farm.key(source)] * done, why
    assert [key for key, _, _ in farm.store.published].count(farm.key(source)) == done, why
    assert farm.scratch_files() == [], why
    if done:
        rendition = farm.record(source).rendition
        certificate = Certificate.parse(farm.store.content(rendition.certificate_key))
        shown = farm.store.stat(rendition.key).sha256
        assert certificate.rendition_sha256 == rendition.sha256 == shown, why


CALLS = {
    "ledger": "claim progress recall remember complete skip fail interrupt bury get",
    "store": "check fetch stat put publish free_bytes",
    "queue": "ack release bury",
}
CALLS_OF_VIDEOS = {
    "ledger": "claim claim_subjob split mark_enqueued subjobs complete get progress forget_subjobs "
    "bury fail abandon_split reopen interrupt",
    "store": "check fetch stream stat put publish open collect list delete",
    "queue": "ack release bury send",
}
WHOLE = {"fetch", "stream", "publish", "open", "collect"}
"""Calls that move a whole file: their adapters repeat parts of them, the handler does not, so that
each that fails is a counted failure, of which a job has two to spare."""
DISTURBED = {
    **{name: LIVES[name] for name in ("plain", "not smaller", "poison", "stopped")},
    "transient": Life(breaking("encode", EncoderFailed("once"))),
    "split": LIVES["split"],
    "poisoned chunk": of_video(breaking("encode_chunk", *HOLES), JobState.DEAD),
}


@pytest.mark.parametrize("port", CALLS)
@pytest.mark.parametrize("name", DISTURBED)
def test_no_lost_request_or_reply_loses_or_doubles_a_job(tmp_path, port, name):
    life = DISTURBED[name]
    for call in (CALLS if life.kind is Farm else CALLS_OF_VIDEOS)[port].split():
        for side, times in (("before", 1), ("before", 4), ("after", 1), ("after", 4)):
            farm = life.kind(tmp_path / f"{call}-{side}-{times}")
            source = life.prepare(farm)
            most = (1 if name == "transient" else 2) if call in WHOLE else times
            farm.break_port(port, side, Outage(call, min(times, most)))

            farm.until_settled(source, rounds=200)

            ended_well(farm, source, life.end, (call, side, times))


ENDS = {
    "complete": "plain",
    "publish": "plain",
    "skip": "not smaller",
    "fail": "transient",
    "interrupt": "stopped",
    "bury": "poison",
}


@pytest.mark.parametrize("call", ENDS)
def test_a_transition_whose_reply_was_lost_is_not_made_twice(tmp_path, call):
    farm = Farm(tmp_path)
    source = DISTURBED[ENDS[call]].prepare(farm)
    farm.doubt(farm.record(source).job_id)
    outage = Outage(call, 1)
    farm.break_port("store" if call == "publish" else "ledger", "after", outage)

    farm.handle()

    assert outage.left == 0
    assert farm.queue.settled, "the effect was recognised, so the delivery is settled at once"
    assert farm.record(source).failures == (1 if call == "fail" else 0)
    assert [s for _, s in farm.ledger.history].count(farm.state(source)) == 1
    assert call not in {"complete", "publish"} or farm.encoder.calls.count("encode") == 1
