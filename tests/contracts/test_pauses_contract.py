"""What every home of pauses must do: one for each profile and one for all, until it ends."""

from contracts.backends import World
from hevcq.domain.pause import Pause, RunningWork


def names(world: World) -> list[str]:
    return [pause.profile for pause in world.backend.ledger.pauses()]


def test_a_pause_is_read_back_as_it_was_set_and_ends_by_resume(world: World) -> None:
    pauses, now = world.backend.ledger, world.clock.now()
    assert pauses.pauses() == ()
    first = Pause(by="anna", since=now, running=RunningWork.FREEZE)
    other = Pause(profile="720p", by="ben", since=now, until=now + 3600)
    pauses.pause(other)
    pauses.pause(first)

    assert pauses.pauses() == (first, other)
    assert pauses.resume("hevc") == ()
    assert pauses.resume("") == (first,)
    assert pauses.pauses() == (other,)
    assert pauses.resume(None) == (other,)
    assert pauses.resume(None) == ()
    assert pauses.pauses() == ()


def test_a_second_pause_of_a_profile_takes_the_place_of_the_first(world: World) -> None:
    pauses, now = world.backend.ledger, world.clock.now()
    pauses.pause(Pause(by="anna", since=now, until=now + 60))
    last = Pause(by="ben", since=now, running=RunningWork.STOP)
    pauses.pause(last)

    world.advance(61)

    assert pauses.pauses() == (last,)


def test_a_pause_ends_by_itself_and_was_then_not_resumed(world: World) -> None:
    pauses, now = world.backend.ledger, world.clock.now()
    pauses.pause(Pause(by="anna", since=now, until=now + 60))
    pauses.pause(Pause(profile="hevc", by="anna", since=now, until=now + 120))
    assert names(world) == ["", "hevc"]

    world.advance(61)

    assert names(world) == ["hevc"]
    assert pauses.resume("") == ()
    assert [pause.profile for pause in pauses.resume(None)] == ["hevc"]
