"""The end of a video is told where no data folder does it: at least once, by one server at a time."""

from collections.abc import Sequence

import pytest

from hevcq.ports.catalog import Happened, Message, NotDelivered, Receiver
from hevcq.usecases.event_dispatch import RETRY_DELAYS_S, DirectDispatcher
from hevcq.usecases.videos.uploads import SENDING_S, process_due
from support.videos import VideoBench

DAY_S = 86_400.0


class Listener(Receiver):
    """Takes messages, or fails with each of `errors` first."""

    def __init__(self, name: str = "one", *events: str) -> None:
        self.name = self.identity = name
        self.events = frozenset(events or ("video.ready", "video.failed"))
        self.errors: list[Exception] = []
        self.taken: list[Message] = []

    def deliver(self, messages: Sequence[Message]) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.taken += messages


@pytest.fixture
def shared(bench: VideoBench, monkeypatch: pytest.MonkeyPatch) -> VideoBench:
    """A farm whose records tell nobody by themselves, as on AWS."""
    monkeypatch.setattr(bench.farm.videos, "sends_ends", False)
    return bench


def test_a_video_that_is_ready_is_reported_once(shared):
    one, other = Listener(), Listener("other", "job.failed")
    video = shared.done(title="The garden")
    assert shared.now(video).unsent is not None

    for _ in range(3):
        process_due(shared.farm, DirectDispatcher([one, other]))

    (message,) = one.taken
    assert (message.event, message.text) == ("video.ready", "The garden.")
    assert message.data["video"] == video.video_id
    assert other.taken == []
    after = shared.now(video)
    assert (after.unsent, after.updated_at) == (None, video.updated_at)


def test_after_three_tries_it_is_given_up_and_nothing_else_waits_for_it(shared):
    down, video = Listener(), shared.done()
    down.errors = [NotDelivered("no")] * 50
    tell = DirectDispatcher([down])
    for wait_s in (0, *RETRY_DELAYS_S):
        shared.clock.advance(wait_s)
        assert shared.raw(video).exists(), "a message deletes nothing early"
        process_due(shared.farm, tell)
    assert shared.now(video).unsent is None
    assert len(down.errors) == 50 - len(RETRY_DELAYS_S) - 1
    assert shared.now(video).raw_due_at == video.raw_due_at
    shared.clock.advance(8 * DAY_S)
    process_due(shared.farm, tell)
    assert shared.now(video).raw_deleted_at is not None or shared.now(video).raw_due_at is not None


def test_one_server_reports_it_and_another_does_if_it_dies(shared):
    class Killed(BaseException):
        pass

    one, video = Listener(), shared.done()

    def dies(_happened: Happened) -> bool:
        process_due(shared.farm, DirectDispatcher([one]))  # another server, meanwhile
        raise Killed

    with pytest.raises(Killed):
        process_due(shared.farm, dies)
    assert one.taken == [], "the claim holds"
    shared.clock.advance(SENDING_S)
    process_due(shared.farm, DirectDispatcher([one]))
    assert len(one.taken) == 1
    assert shared.now(video).unsent is None
