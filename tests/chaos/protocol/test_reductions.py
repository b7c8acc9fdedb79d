"""What the search takes for the same goes on alike; a plain search ends as a reduced one does."""

from array import array
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from chaos.protocol import scenes
from chaos.protocol.automaton import Automaton
from chaos.protocol.farm import SETTLED, Farm, Scope
from chaos.protocol.local import stepped
from chaos.protocol.normal import normal
from chaos.protocol.scenes import Scene, Scenes
from chaos.protocol.search import Search
from chaos.protocol.shared import MemoryShared
from chaos.protocol.trouble import Spare
from chaos.protocol.videos import Video
from chaos.protocol.visited import FIRST, Visited
from chaos.sim.campaign import silent

SMALL = (
    Scope("an expiry", 1, Spare(expiries=1)),
    Scope("a kill, a failure", 1, Spare(kills=1, broken=1)),
    Scope("a lost message", 1, Spare(silent=1)),
    Scope("shown again", 1, Spare(shown_again=1)),
    Scope("two jobs, a stop", 2, Spare(stops=1), tick_s=20.0),
)
LONG = {"an expiry", "shown again"}
"""Scopes of the long form only: their plain searches cost twice as much as those of all the others."""
STOP = Scope("a stop, a late answer", 1, Spare(stops=1, slow=1))


@contextmanager
def searched(scope: Scope) -> Iterator[tuple[Search, Search]]:
    """Give a plain search and a reduced one of the same farm, both run."""
    with silent(), stepped():
        automaton = Automaton()
        farm = Farm(scope, automaton, MemoryShared())
        searches = [Search(farm, 1_000_000, reduced=reduced) for reduced in (False, True)]
        for one in searches:
            one.run()
        yield searches[0], searches[1]
        automaton.close()


@pytest.mark.parametrize(
    "scope",
    [
        pytest.param(scope, id=scope.name, marks=[pytest.mark.slow] * (scope.name in LONG))
        for scope in SMALL
    ],
)
def test_what_is_taken_for_the_same_goes_on_alike(scope):
    """Each scene of a plain search has its normal form's moves, trouble, faults and ends."""
    with searched(scope) as (plain, reduced):
        looked, told = differing_scenes(plain, reduced)

    assert plain.found.whole
    assert reduced.found.whole
    assert set(plain.found.ends) == set(reduced.found.ends)
    assert reduced.found.states < plain.found.states
    assert looked >= 50
    assert told == []


def test_a_normal_form_that_forgets_too_much_is_noticed(monkeypatch):
    forgotten = ("attempts", "hidden_s", "lease_s", "visible")
    with searched(STOP) as (plain, reduced):
        found = {}
        for name in forgotten:
            monkeypatch.setattr(scenes, "normal", forgetting(name))
            found[name] = differing_scenes(plain, reduced)[1]

    assert [name for name in forgotten if not found[name]] == []


def forgetting(name: str):
    """Return a normal form without one of the facts that decide something."""

    def normal_form(video: Video, workers, scope: Scope):
        video, workers = normal(video, workers, scope)
        if name == "visible":
            return video._replace(visible=0), workers
        if name == "lease_s":
            return video._replace(record=video.record._replace(lease_s=0.0)), workers
        if video.message is not None:
            video = video._replace(message=video.message._replace(**{name: 0}))
        return video, workers

    return normal_form


def differing_scenes(plain: Search, reduced: Search) -> tuple[int, list[str]]:
    """Return how many scenes of a plain search are not their own normal form, and what differs."""
    seen = [scene for scene in plain.scenes.values if scene is not None]
    changed = [one for one in seen if reduced.scenes.normal(one) != one._replace(job=0)]
    return len(changed), [said for one in changed for said in differing(reduced.scenes, one)]


def differing(known: Scenes, scene: Scene) -> Iterator[str]:
    """Yield in what a scene and its normal form differ."""
    farm, form = known.farm, known.normal(scene)
    if known.normal(form) != form:
        yield f"{scene} has a normal form of a normal form"
    for elsewhere in range(4):
        here, there = ({*after(known, one, elsewhere)} for one in (scene, form))
        if here != there:
            yield f"{scene}, {form}: {here ^ there}"
    if known.normal(known.aged(scene)) != known.normal(known.aged(form)):
        yield f"{scene} grows old otherwise than {form}"
    if known.running_out(scene) != known.running_out(form):
        yield f"{scene} loses another lease than {form}"
    for worker in (0, 1):
        gone = [one._replace(video=farm.killed(worker, one.video)) for one in (scene, form)]
        if known.normal(gone[0]) != known.normal(gone[1]):
            yield f"{scene} loses worker {worker} otherwise than {form}"
    if known.end(scene) != known.end(form):
        yield f"{scene} has another end than {form}"
    ended = farm.videos.values[scene.video].record.state in SETTLED
    for used in farm.troubles.used:
        wrong, too = known.wrong(scene, used), known.wrong(form, used)
        # How often an ended job had failed was looked at before it ended: its counts are dropped.
        if bool(wrong) != bool(too) and not (ended and "are counted" in wrong):
            yield f"after {used} only one is wrong of {scene} and {form}"


def after(known: Scenes, scene: Scene, elsewhere: int) -> Iterator[tuple]:
    for move in known.reported(scene, elsewhere):
        yield move.kind, known.normal(move.scene), move.killed, bool(move.fault)


def test_no_two_states_are_taken_for_the_same():
    """Thousands of numbers that differ in few bits, each met twice, through every growth."""
    states = [job << 24 | other | 3 << 48 for job in range(40) for other in range(0, 4_000, 7)]
    visited, numbers = Visited(places=3), array("I")

    for state in [*states, *states]:
        visited.add([state], numbers)

    assert len(visited) == len(states)
    assert list(numbers[: len(states)]) == list(range(FIRST, len(states) + FIRST))
    assert numbers[: len(states)] == numbers[len(states) :]
    assert list(visited.states[FIRST:]) == states
