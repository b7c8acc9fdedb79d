"""Scale-in protection: on with the first work in hand, off with the last, and never in the way."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import ThreadingHTTPServer

import pytest

from hevcq.backends.aws.clients import TaskProtection
from hevcq.domain.job import JobState
from hevcq.settings.model import Settings
from hevcq.wiring.app import App
from hevcq.wiring.worker import process_watchers
from hevcq.worker.handler import ProfileQueue
from hevcq.worker.monitoring.watchers import PROTECT_S, RENEW_S, RETRY_S, PoolState, ScaleInGuard
from hevcq.worker.pool import WorkerPool
from support.clips import ManualClock
from support.fakes.farm import Farm
from support.standin import Quiet, running

PATH = "/api/1234/task-protection/v1/state"


class Agent(ThreadingHTTPServer):
    """Remembers each wanted state in `asked`; `answers` are sent before the right ones."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[dict[str, object]] = []
        self.answers: list[bytes | None] = []

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/api/1234"

    @property
    def states(self) -> list[bool]:
        return [bool(wanted["ProtectionEnabled"]) for wanted in self.asked]


class _Handler(Quiet):
    def do_PUT(self) -> None:
        agent = self.server
        assert isinstance(agent, Agent)
        wanted = json.loads(self.body())
        assert self.path == PATH, self.path
        agent.asked.append(wanted)
        answer = json.dumps({"protection": wanted}).encode()
        if agent.answers:
            given = agent.answers.pop(0)
            if given is None:
                self.close_connection = True
                return
            answer = given
        self.reply(200, answer)


@contextmanager
def agent() -> Iterator[Agent]:
    """Serve until the block ends."""
    with running(Agent()) as server:
        yield server


@pytest.fixture
def ecs() -> Iterator[Agent]:
    with agent() as server:
        yield server


class Guarded(ScaleInGuard):
    """A guard whose steps the test makes."""

    def __init__(self, uri: str) -> None:
        self.clock = ManualClock()
        super().__init__(TaskProtection(uri), self.clock)
        self._thread.wake = lambda: None

    def see(self, busy: int) -> float:
        self.observe(PoolState(slots=4, alive=4, handled=0, oldest_poll_s=0, busy=busy))
        return self.step()


def until(true: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(5000):
        if true():
            return
        pause.wait(0.002)
    raise AssertionError("it never came true")


def test_only_the_first_and_the_last_busy_slot_make_a_request(ecs):
    guard = Guarded(ecs.uri)
    for busy in (0, 1, 3, 2, 1, 0, 0):
        guard.see(busy)

    assert ecs.asked == [
        {"ProtectionEnabled": True, "ExpiresInMinutes": PROTECT_S / 60},
        {"ProtectionEnabled": False},
    ]


def test_the_protection_of_a_long_job_is_renewed_before_it_ends(ecs):
    guard = Guarded(ecs.uri)
    assert guard.see(1) == RENEW_S
    guard.clock.advance(RENEW_S - 1)
    guard.see(1)
    assert ecs.states == [True]
    guard.clock.advance(1)
    guard.see(1)

    assert ecs.states == [True, True]
    assert 3 * RENEW_S <= PROTECT_S, "two renewals may fail"


@pytest.mark.parametrize("answer", [None, b"", b"[]", b"<html>", b'{"failure": {"Reason": "x"}}',
                                    b'{"protection": {"ProtectionEnabled": "maybe"}}'])  # fmt: skip
def test_a_request_that_fails_is_repeated_soon(ecs, answer):
    guard = Guarded(ecs.uri)
    ecs.answers = [answer]
    assert guard.see(1) == RETRY_S
    guard.clock.advance(RETRY_S)
    assert guard.see(1) == RENEW_S

    ecs.answers = [answer]
    assert guard.see(0) == RETRY_S
    guard.clock.advance(RETRY_S)
    guard.see(0)

    assert ecs.states == [True, True, False, False]


def test_a_protection_whose_answer_was_lost_is_ended_too(ecs):
    guard = Guarded(ecs.uri)
    ecs.answers = [None]
    guard.see(1)
    guard.see(0)

    assert ecs.states == [True, False]


def drive(farm: Farm, pool: WorkerPool, done: Callable[[], bool]) -> None:
    def step() -> bool:
        pool.step()
        return done()

    until(step)


def held(farm: Farm) -> tuple[threading.Event, threading.Event]:
    begun, finish = threading.Event(), threading.Event()

    def encode() -> None:
        begun.set()
        assert finish.wait(20)

    farm.encoder.during["encode"] = encode
    return begun, finish


def end(farm: Farm, pool: WorkerPool) -> None:
    pool.ask_to_stop()
    while not pool.stopped:
        farm.clock.advance(1)
        threading.Event().wait(0.002)
    pool.finish()


@pytest.fixture
def farm(tmp_path) -> Farm:
    farm = Farm(tmp_path)
    farm.clock.auto = False
    return farm


def pool_of(farm: Farm, uri: str) -> WorkerPool:
    guard = ScaleInGuard(TaskProtection(uri), farm.clock)
    return WorkerPool(farm.context, [ProfileQueue(farm.profile, farm.queue)], [guard], slots=2)


def test_a_pool_is_protected_while_a_job_runs_and_no_longer(farm, ecs):
    source = farm.submit()
    begun, finish = held(farm)
    pool = pool_of(farm, ecs.uri)
    pool.start()
    assert begun.wait(20)
    drive(farm, pool, lambda: ecs.states == [True])

    finish.set()
    drive(farm, pool, lambda: ecs.states == [True, False])
    end(farm, pool)

    assert farm.state(source) is JobState.DONE
    assert ecs.states == [True, False]


def test_an_agent_that_is_not_there_fails_no_job(farm):
    with agent() as gone:
        uri = gone.uri
    source = farm.submit()
    pool = pool_of(farm, uri)
    pool.start()
    drive(farm, pool, lambda: farm.state(source) is JobState.DONE)
    end(farm, pool)

    assert farm.state(source) is JobState.DONE


def names(tmp_path) -> list[str]:
    with closing(App(Settings(data_dir=tmp_path))) as app:
        return [type(w).__name__ for w in process_watchers(app)]


@pytest.mark.parametrize("uri", ["ftp://nowhere", "file:///etc/passwd", "169.254.170.2/api"])
def test_an_address_that_is_none_is_reported_and_the_worker_works_without(
    tmp_path, monkeypatch, capsys, uri
):
    monkeypatch.setenv("ECS_AGENT_URI", uri)

    assert "ScaleInGuard" not in names(tmp_path)
    said = capsys.readouterr()
    assert uri in said.out + said.err
