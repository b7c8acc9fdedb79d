"""How crash points are named, and that a kill at one is like the end of a process."""

import pytest

from hevcq.errors import Unavailable
from support.fakes.crashing import MOST, Calls
from support.fakes.farm import Farm, Killed


@pytest.fixture
def watched(tmp_path) -> tuple[Farm, list[str]]:
    """A farm whose ports are watched, and the points that it came to."""
    farm, points = Farm(tmp_path), []
    farm.come_to(points.append)
    return farm, points


def test_a_point_says_the_kind_of_work_the_port_the_method_and_which_call_it_is(watched):
    farm, points = watched
    farm.submit()

    farm.handle()

    assert points[:3] == [
        "queue.receive:after",
        "encode/ledger.claim:before",
        "encode/ledger.claim:after",
    ]
    assert points[-1] == "encode/queue.ack:after"
    for call in ("store.check", "store.check#2", "ledger.progress", f"ledger.progress#{MOST}"):
        assert {f"encode/{call}:before", f"encode/{call}:after"} <= set(points)


def test_calls_inside_a_context_lie_between_its_entry_and_its_exit(watched):
    farm, points = watched
    farm.submit()

    farm.handle()

    way = [points.index(f"encode/{at}") for at in ("store.fetch:after", "encoder.encode:before")]
    way += [points.index("encode/store.fetch.exit:before")]
    assert way == sorted(way)


def test_work_that_was_settled_gives_its_kind_to_no_later_call(watched):
    farm, points = watched
    farm.submit()
    farm.handle()
    points.clear()

    farm.context.backend.ledger.get("b" * 32)

    assert points == ["ledger.get:before", "ledger.get:after"]


def test_a_call_that_raised_has_no_point_after_it_and_is_not_counted(watched):
    farm, points = watched
    source = farm.submit()
    farm.context.backend.ledger.claim(source, "hevc", owner="here:0", lease_s=300)
    points.clear()
    check, farm.store.check = farm.store.check, _down
    with pytest.raises(Unavailable):
        farm.context.backend.store.check(source)
    farm.store.check = check

    farm.context.backend.store.check(source)

    assert points == [f"encode/store.check:{side}" for side in ("before", "before", "after")]


def _down(*_args: object) -> None:
    raise Unavailable("no answer")


def test_a_poll_that_brings_nothing_is_no_point_and_one_after_work_is(watched):
    farm, points = watched
    farm.receive()
    assert points == []

    farm.submit()
    farm.handle()
    points.clear()
    farm.receive()

    assert points == ["queue.receive:before"]


def test_what_a_worker_is_killed_before_it_has_is_closed():
    class Opened:
        closed = False

        def close(self) -> None:
            self.closed = True

    class Store:
        opened = Opened()

        def open(self, _key: str) -> Opened:
            return self.opened

    def killed(point: str) -> None:
        if point == "store.open:after":
            raise Killed

    with pytest.raises(Killed):
        Calls(killed).port("store", Store()).open("a")

    assert Store.opened.closed
