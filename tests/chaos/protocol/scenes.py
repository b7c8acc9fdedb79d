"""One job with the workers on it, by number: what two of them together may do is soon told.

Two jobs have only the workers, the time and the troubles in common. So what may happen to one job
is worked out once for each scene of it, and a state of the whole farm is two numbers of scenes and
what trouble may still come.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from chaos.protocol.farm import NAMES, Farm
from chaos.protocol.normal import normal
from chaos.protocol.trouble import FREE, KINDS, Spare

NOBODY = 0
KILL, SHOWN = KINDS["kills"], KINDS["shown_again"]


class Scene(NamedTuple):
    """A video, and the worker that each of the two is on it as (0: it is not), by their numbers.

    `job` tells the jobs of a plain search apart; a reduced one does not.
    """

    video: int
    workers: tuple[int, int]
    job: int


class Move(NamedTuple):
    """What may happen to one job: the trouble it takes, the scene it leaves, who dies of it."""

    kind: int
    scene: Scene
    killed: int
    what: str
    fault: str


class LedgerTransitions(NamedTuple):
    """The scenes that come for nothing, the other moves, and the first that is wrong."""

    free: tuple[int, ...]
    dear: tuple[Move, ...]
    fault: str


class Kept(dict):
    """A function of numbers that is worked out once each."""

    def __init__(self, work: Any) -> None:
        self._work = work

    def __missing__(self, key):
        value = self[key] = self._work(*key) if isinstance(key, tuple) else self._work(key)
        return value


class Scenes:
    """All scenes found so far. Number 0 is the job that there is not, in scopes of one job.

    `reduced` takes scenes of one normal form for the same. Kept by number: `moves` (by four times
    the number and who of the workers is on the other job), `later` one tick on, `lost` how many
    leases run out by that, `busy` who is on this job, `bad` what is wrong with it (with so much
    trouble spare), and `ended` how it has ended.
    """

    def __init__(self, farm: Farm, *, reduced: bool) -> None:
        self.farm, self._reduced = farm, reduced
        self._works, self._receives = Kept(farm.works), Kept(farm.receives)
        self._worker_later, self._older = Kept(farm.later), Kept(farm.older)
        self.values: list[Scene | None] = [None]
        self._numbers: dict[Scene, int] = {}
        self._raw: dict[Scene, int] = {}
        self.busy = bytearray(1)
        self.moves, self.lost, self.later = (
            Kept(self._transitions),
            Kept(self._lost),
            Kept(self._later),
        )
        self.killed, self.ended = Kept(self._killed), Kept(self._ended)
        self.bad = Kept(self._bad)

    def number(self, scene: Scene) -> int:
        """Return the number of a scene, or of its normal form."""
        found = self._raw.get(scene)
        if found is None:
            found = self._raw[scene] = self._placed(self.normal(scene) if self._reduced else scene)
        return found

    def normal(self, scene: Scene) -> Scene:
        """Return the normal form of a scene."""
        videos, workers = self.farm.videos, self.farm.workers
        known, (first, second) = videos.values[scene.video], scene.workers
        on = (workers.values[first], workers.values[second])
        video, now = normal(known, on, self.farm.scope)
        if video is known and now is on:
            return scene if not scene.job else scene._replace(job=0)
        return Scene(videos.number(video), (workers.number(now[0]), workers.number(now[1])), 0)

    def _placed(self, scene: Scene) -> int:
        found = self._numbers.get(scene)
        if found is None:
            found = self._numbers[scene] = len(self.values)
            self.values.append(scene)
            self.busy.append(bool(scene.workers[0]) | bool(scene.workers[1]) << 1)
        return found

    def reported(self, scene: Scene, elsewhere: int) -> Iterator[Move]:
        """Yield what may happen to a scene while some workers (as bits) are on the other job."""
        farm, video = self.farm, scene.video
        for number, worker in enumerate(scene.workers):
            if worker:
                steps = self._works[number, worker, video]
            else:
                step = None if elsewhere >> number & 1 else self._receives[number, video]
                steps = () if step is None else (step,)
            for step in steps:
                after = _with(scene, number, step.worker, step.video)
                killed = number if step.kind == KILL else -1
                yield Move(step.kind, after, killed, step.what, step.fault)
        shown = farm.shown(video) if farm.scope.trouble.shown_again else None
        if shown is not None:
            yield Move(SHOWN, scene._replace(video=shown), -1, "its message is shown again", "")

    def aged(self, scene: Scene) -> Scene:
        """Return a scene one tick later."""
        (one, two), video = scene.workers, scene.video
        workers = (self._worker_later[one, video][0], self._worker_later[two, video][0])
        return Scene(self._older[video], workers, scene.job)

    def running_out(self, scene: Scene) -> int:
        """Return how many leases run out with the next tick."""
        (one, two), video = scene.workers, scene.video
        return self._worker_later[one, video][1] + self._worker_later[two, video][1]

    def wrong(self, scene: Scene, used: Spare) -> str:
        """Return what is wrong with a scene after so much trouble, or nothing."""
        first, second = scene.workers
        if first and second and self.farm.holds(first) and self.farm.holds(second):
            return "both workers take this job to be theirs"
        return self.farm.fault(scene.video, used)

    def end(self, scene: Scene) -> str:
        """Return how a job has ended well, or nothing if it goes on."""
        return "" if any(scene.workers) else self.farm.ended(scene.video)

    def kind(self, scene: Scene) -> str:
        """Return the states of job, queue and end, as "running:shown held:"."""
        message, record, _, letters = self.farm.videos.values[scene.video]
        lapsed = record.state == "running" and record.lease_s <= 0
        queue = ["gone" if message is None else "hidden" if message.hidden_s > 0 else "shown"]
        queue += ["held"] * (message is not None and message.held) + ["letter"] * bool(letters)
        return f"{'lapsed' if lapsed else record.state}:{' '.join(queue)}:{self.end(scene)}"

    # --- by number

    def _transitions(self, key: int) -> LedgerTransitions:
        scene = self.values[key >> 2]
        if scene is None:
            return LedgerTransitions((), (), "")
        told = list(self.reported(scene, key & 3))
        free = [move for move in told if move.kind == FREE]
        fault = next((f"{move.what}: {move.fault}" for move in free if move.fault), "")
        dear = tuple(move for move in told if move.kind != FREE)
        return LedgerTransitions(tuple({self.number(move.scene): 0 for move in free}), dear, fault)

    def _lost(self, number: int) -> int:
        scene = self.values[number]
        return 0 if scene is None else self.running_out(scene)

    def _later(self, number: int) -> int:
        scene = self.values[number]
        return NOBODY if scene is None else self.number(self.aged(scene))

    def _killed(self, worker: int, number: int) -> int:
        scene = self.values[number]
        if scene is None:
            return NOBODY
        return self.number(scene._replace(video=self.farm.killed(worker, scene.video)))

    def _bad(self, number: int, spare: int) -> str:
        scene = self.values[number]
        return "" if scene is None else self.wrong(scene, self.farm.troubles.used[spare])

    def _ended(self, number: int) -> str:
        scene = self.values[number]
        return "nothing" if scene is None else self.end(scene)

    def shown_as(self, number: int) -> str:
        """Return a scene for people."""
        scene = self.values[number]
        if scene is None:
            return ""
        on = [
            f"{name} {self.farm.workers.values[worker]}"
            for name, worker in zip(NAMES, scene.workers, strict=True)
            if worker
        ]
        return "\n".join([str(self.farm.videos.values[scene.video]), *on])


def _with(scene: Scene, number: int, worker: int, video: int) -> Scene:
    first, second = scene.workers
    workers = (first, worker) if number else (worker, second)
    return Scene(video, workers, scene.job)
