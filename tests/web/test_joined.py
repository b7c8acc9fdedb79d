"""Joined machines at the page: what an invitation and a machine's token open, and what they do not."""

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from hevcq import __version__
from hevcq.domain.orders import MachineFacts, OrderEnd, OrderProgress
from hevcq.ports.backend import Errand, source_tag
from hevcq.running.machines import JoinedMachines
from hevcq.usecases.machines.board import JoinedMachine
from hevcq.web.identity.accounts import ProgramTokens
from hevcq.web.identity.person import Scope
from hevcq.wiring.app import App
from support.clips import ManualClock
from support.jobs import Farm as Jobs
from support.orders import ORDER_ID as ORDER
from support.orders import new_order

API = "/api/v1/joined/"
FACTS = {
    "version": __version__,
    "ffmpeg": "ffmpeg version 7",
    "build": "b",
    "start": "s",
    "slots": 1,
}
MADE = f"orders/{ORDER}/made"
CHUNK = {"Content-Type": "application/offset+octet-stream"}
REPORT = '{"report": {"arguments": [], "stderr": [], %s}}'
SOURCE = bytes(range(256)) * 100


class NoPool:
    """Slots without work, until they are told to end."""

    error = None

    def __init__(self, *_given: object) -> None:
        """Nothing is opened."""

    def run(self, signals: Any, _drained: object) -> None:
        signals.asked.wait()


class Farm:
    """The page, its tokens, and a job that waits for an order."""

    def __init__(self, client: TestClient, opened: App, folder: Path) -> None:
        self.client, self.folder = client, folder
        self.tokens = ProgramTokens(opened.accounts, opened.clock)
        services = client.app.state.services
        self.machines = JoinedMachines(opened, NoPool)
        client.app.state.services = replace(services, machines=self.machines)
        client.headers.pop("Sec-Fetch-Site")
        self.source, self.made = folder / "source.mkv", folder / "made.arriving"
        self.source.write_bytes(SOURCE)
        self.stop, self.ends = threading.Event(), list[OrderEnd | Exception]()

    def join(self, name: str = "desk") -> str:
        """Return the token of a machine that joined and has polled once."""
        token = self.ask("POST", "join", self.tokens.invite(), json={**FACTS, "name": name}).json()
        self.machines.greet(token["name"], _facts())
        return str(token["token"])

    def ask(self, method: str, path: str, token: str, **more: Any) -> Any:
        headers = {"Authorization": f"Bearer {token}", **more.pop("headers", {})}
        return self.client.request(method, API + path, headers=headers, **more)

    def send(self, token: str, start: int | str, content: bytes) -> Any:
        """Send a piece of what the machine made."""
        headers = {**CHUNK, "Upload-Offset": str(start)}
        return self.ask("PATCH", MADE, token, content=content, headers=headers)

    def order(
        self, name: str = "desk", most_bytes: int = 1000, chunk: int | None = None
    ) -> threading.Thread:
        """Let a job wait for an order, which the machine takes; return the job's thread."""
        machine = self.machines.find(name)
        assert machine is not None
        tag = source_tag(self.source)
        order = new_order(len(SOURCE), tag=tag, max_seconds=1e9, chunk=chunk)
        errand = Errand(order, self.source, self.made, most_bytes)

        def wait() -> None:
            try:
                self.ends.append(machine.carry_out(errand, lambda _progress: None, self.stop))
            except Exception as error:  # noqa: BLE001 - the test looks at it
                self.ends.append(error)

        job = threading.Thread(target=wait)
        job.start()
        while machine.take() is None:
            pass
        return job


def _facts() -> MachineFacts:
    return MachineFacts.model_validate(FACTS)


@pytest.fixture
def farm(
    visit: Callable[..., TestClient], opened: App, tmp_path: Path, clock: ManualClock
) -> Iterator[Farm]:
    clock.auto = False
    made = Farm(visit(), opened, tmp_path)
    yield made
    made.stop.set()
    clock.advance(60)
    made.machines.close()


def test_invitation_serves_once_and_for_joining_alone(farm, clock):
    invitation, expired = farm.tokens.invite(), farm.tokens.invite()
    greeting = {**FACTS, "name": "my desk"}
    assert farm.ask("POST", "poll", invitation, json=FACTS).status_code == 403

    other = farm.ask("POST", "join", invitation, json={**greeting, "version": "0.999.1"})
    joined = farm.ask("POST", "join", invitation, json=greeting)
    again = farm.ask("POST", "join", invitation, json=greeting)

    assert (other.status_code, "0.999.1" in other.text) == (426, True)
    assert (joined.status_code, joined.json()["name"]) == (200, "my-desk")
    assert again.status_code == 401
    clock.advance(3601)
    assert farm.ask("POST", "join", expired, json=greeting).status_code == 401
    assert set(farm.tokens.machines()) == {"my-desk"}


def test_machines_of_one_name_get_names_of_their_own_until_they_are_shut_out(farm):
    token = farm.join()
    farm.join()
    assert set(farm.tokens.machines()) == {"desk", "desk-2"}

    assert farm.tokens.remove_machine("desk")

    assert farm.ask("POST", "poll", token, json=FACTS).status_code == 401
    assert not farm.tokens.remove_machine("desk")


def test_no_program_and_no_person_acts_as_a_machine(farm, operator):
    for scope in Scope:
        token = farm.tokens.create("program", "local", [scope], 1)
        assert farm.ask("POST", "poll", token, json=FACTS).status_code == 403
    assert operator.post(f"{API}poll", json=FACTS).status_code == 403


def test_source_is_served_by_ranges_to_its_machine_only(farm):
    token, other = farm.join(), farm.join("lap")
    farm.order()
    path = f"orders/{ORDER}/source"

    part = farm.ask("GET", path, token, headers={"Range": "bytes=10-19"})

    assert (part.status_code, part.content) == (206, SOURCE[10:20])
    assert farm.ask("GET", path, other).status_code == 404
    assert farm.ask("GET", "orders/fedcba9876543210/source", token).status_code == 404


def test_changed_source_is_not_served(farm):
    token = farm.join()
    farm.order()
    farm.source.write_bytes(b"another video")

    assert farm.ask("GET", f"orders/{ORDER}/source", token).status_code == 422


def test_upload_resumes_where_it_broke_off(farm):
    token = farm.join()
    farm.order()

    first, wrong = (farm.send(token, 0, b"abc") for _ in range(2))
    offset = farm.ask("HEAD", MADE, token).headers["upload-offset"]
    second = farm.send(token, offset, b"def")

    assert (first.status_code, wrong.status_code, second.status_code) == (204, 409, 204)
    assert farm.made.read_bytes() == b"abcdef"


def test_nothing_is_added_to_a_file_whose_order_ended_meanwhile(farm, monkeypatch):
    token = farm.join()
    job = farm.order()
    machine = farm.machines.find("desk")
    found = machine.find(ORDER)
    farm.send(token, 0, b"abc")
    machine.end(found, OrderEnd())
    job.join(10)
    monkeypatch.setattr(type(machine), "find", lambda *_: found)  # the request had found it before

    late = farm.send(token, 3, b"def")

    assert late.status_code == 404
    assert farm.made.read_bytes() == b"abc"


def test_upload_beyond_what_an_encode_may_have_is_refused(farm):
    token = farm.join()
    farm.order(most_bytes=5)

    assert farm.send(token, 0, b"123456").status_code == 413
    assert not farm.made.exists()


def test_end_reaches_the_job_and_closes_the_order(farm):
    token = farm.join()
    job = farm.order()

    ended = farm.ask("POST", f"orders/{ORDER}/answer", token, json={"reason": "no disk"})
    job.join(10)

    assert ended.status_code == 204
    assert farm.ends == [OrderEnd(reason="no disk")]
    assert farm.ask("POST", f"orders/{ORDER}/beat", token).status_code == 404


@pytest.mark.parametrize(
    ("path", "forged"),
    [
        ("answer", '{"sum": 1}'),
        ("answer", REPORT % '"seconds": 1e999, "cpu_s": 0, "frames": 1'),
        ("answer", REPORT % '"seconds": 1, "cpu_s": NaN, "frames": 1'),
        ("answer", REPORT % f'"seconds": 1, "cpu_s": 1, "frames": {10**30}'),
        ("beat", '{"fraction": 0.5, "out_time_s": 1, "frame": 1, "speed": 1e999, "size": 1}'),
        ("beat", '{"fraction": 0.5, "out_time_s": NaN, "frame": 1, "speed": null, "size": 1}'),
    ],
)
def test_forged_report_is_refused_and_the_job_waits_on(farm, path, forged):
    token = farm.join()
    job = farm.order()

    refused = farm.ask("POST", f"orders/{ORDER}/{path}", token, content=forged)

    assert refused.status_code == 422
    assert job.is_alive()


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def test_stolen_token_opens_no_route_but_those_of_its_own_orders(farm, opened, tmp_path):
    """Each path of pages and API, by each method, with the order, job and video of others in it."""
    token, other = farm.join(), farm.join("lap")
    waiting = farm.order("lap")
    _path, job = Jobs(opened, tmp_path / "library").done("film.mp4")
    files = {p: p.read_bytes() for p in (tmp_path / "library").rglob("*") if p.is_file()}
    paths = {getattr(route, "path", "") for route in farm.client.app.routes} - {"/static"}
    for path in sorted(paths):
        named = re.sub(r"{order_id}", ORDER, path)
        named = re.sub(r"{[^}]*}", job.job_id, named)
        for method in METHODS:
            answer = farm.client.request(
                method,
                named,
                headers={"Authorization": f"Bearer {token}", **CHUNK, "Upload-Offset": "0"},
                content=b"" if method in {"GET", "HEAD"} else b"forged",
            )
            ours = path.startswith(API)
            assert answer.status_code in ({403, 404, 405, 422} if ours else {403}), (method, path)

    assert len(paths) > 60
    assert waiting.is_alive()
    assert not farm.made.exists()
    assert farm.ask("POST", f"orders/{ORDER}/beat", other).status_code == 200
    assert opened.backend.ledger.get(job.job_id) == job
    assert {p: p.read_bytes() for p in (tmp_path / "library").rglob("*") if p.is_file()} == files
    assert set(farm.tokens.machines()) == {"desk", "lap"}


def test_machine_gets_no_chunk_in_advance_until_its_own_is_nearly_done(farm):
    token = farm.join()
    job = farm.order(chunk=0)
    machine = farm.machines.find("desk")
    full = []
    for fraction in (0.5, 0.95):
        told = OrderProgress(fraction=fraction, out_time_s=1, frame=1, speed=1, size=1)
        farm.ask("POST", f"orders/{ORDER}/beat", token, content=told.model_dump_json())
        full.append(machine.full)
    farm.ask("POST", f"orders/{ORDER}/answer", token, json={"reason": "enough"})
    job.join(10)

    assert [*full, machine.full] == [True, False, False]


def test_failing_machine_gets_no_more_until_it_starts_anew(farm):
    token = farm.join()
    machine = farm.machines.find("desk")
    assert isinstance(machine, JoinedMachine)
    for _ in range(3):
        machine.complain("gate G8 failed")

    refused = farm.ask("POST", "poll", token, json=FACTS)
    machine.greet(_facts().model_copy(update={"start": "another"}))

    assert refused.status_code == 403
    assert "G8" in refused.text
    assert not machine.refused


def test_two_machines_with_one_token_are_told_so_and_get_no_orders(farm):
    token = farm.join()
    copy = {**FACTS, "start": "copy"}

    polls = [farm.machines.greet("desk", _facts().model_copy(update=each)) for each in ({}, copy)]
    refused = farm.ask("POST", "poll", token, json=FACTS)

    assert polls[0] is polls[1]
    assert refused.status_code == 403
    assert "Two machines work by this token" in refused.text
