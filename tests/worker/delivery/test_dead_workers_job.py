"""What a dead worker had in hand is begun again by another within 1.2 times its lease."""

import pytest

from hevcq.domain.job import JobState, Source, job_id
from hevcq.domain.verdict import Done
from hevcq.worker.handler import ProfileQueue
from support.fakes.farm import Farm, Killed

WAY = (
    "ledger.claim store.check store.fetch encoder.probe ledger.recall store.stat encoder.preflight "
    "encoder.encode encoder.verify store.check#2 store.put store.publish ledger.complete queue.ack"
)
SIDES = ("before", "after")
CALL_S = 0.02
"""What every call takes: a claim is a little younger than the receive before it, always."""


class SlowFarm(Farm):
    """Every call takes a moment, as on a network."""

    def __init__(self, folder) -> None:
        super().__init__(folder)
        self.point = ""
        self.come_to(self._slowly)

    def die_at(self, point: str) -> None:
        """Handle one delivery and die at `point`."""
        self.point = f"encode/{point}"
        with pytest.raises(Killed):
            self.handle("doomed:0")
        self.point = ""

    def _slowly(self, here: str) -> None:
        self.clock.advance(CALL_S)
        if here == self.point:
            raise Killed(here)

    def seconds_until_begun(self, source: Source) -> float:
        """Poll as an idle worker does; return how long until the job was begun, or its end seen."""
        began = self.clock.monotonic()
        while True:
            found = self.receive()
            if found is None:
                # A long poll hands the message out at the very moment it is visible.
                (message,) = self.queue._state.messages.values()
                self.clock.advance(message.visible_at - self.clock.monotonic())
                continue
            at, fence = self.clock.monotonic(), self._fence(source)
            queue = self.context.backend.queues[self.profile.name]
            handled = self.handler("alive:0").process(ProfileQueue(self.profile, queue), found)
            if self._fence(source) > fence or isinstance(handled.verdict, Done):
                return at - began

    def _fence(self, source: Source) -> int:
        record = self.ledger.get(job_id(source, self.profile.name))
        return record.fence if record is not None else 0


@pytest.mark.parametrize("point", [f"{site}:{side}" for site in WAY.split() for side in SIDES][:-1])
def test_the_next_worker_begins_within_a_lease_and_a_fifth(tmp_path, point):
    farm = SlowFarm(tmp_path)
    source = farm.submit()
    farm.die_at(point)

    assert farm.seconds_until_begun(source) <= 1.2 * farm.profile.queue.visibility_s
    assert farm.until_settled(source).state is JobState.DONE


def test_a_duplicate_still_waits_long_for_a_worker_that_is_alive(tmp_path):
    farm = SlowFarm(tmp_path)
    source = farm.submit()
    first = farm.receive()
    farm.ledger.claim(source, "hevc", owner="alive:0", lease_s=farm.profile.queue.visibility_s)
    farm.queue.send_body(first.body)

    handled = farm.handle("other:0")

    # At a look a heartbeat the message would use up its receives in minutes.
    assert handled.verdict.delay_s >= 0.9 * farm.profile.queue.visibility_s
