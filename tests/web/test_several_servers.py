"""Two servers of one farm, as behind a load balancer: what one did, the other one knows at once."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from contracts.backends import PROFILES
from hevcq.settings.web import WebSettings
from hevcq.usecases.doctor import examined
from hevcq.web.app import create_app
from hevcq.web.checks import page_checks
from hevcq.web.identity.accounts import ProgramTokens, Users
from hevcq.web.identity.person import Role, Scope
from hevcq.wiring.app import App
from support.aws.moto_server import make_farm
from support.clips import ManualClock
from web.conftest import CHEAP, HERE, PASSWORD, SAME

pytestmark = pytest.mark.aws
KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[App]]:
    """Two servers on one farm, each with a disk of its own."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    farm, opened = make_farm(PROFILES, clock=ManualClock(1_800_000_000.0, auto=True)), []
    for number in range(2):
        folder = tmp_path / f"disk{number}"
        app = App(farm.settings.model_copy(update={"data_dir": folder}), farm.clock)
        app.__dict__["profiles"] = PROFILES
        opened.append(app)
    yield opened
    for app in opened:
        app.close()
    farm.backend.close()


@pytest.fixture
def browse(servers: list[App]) -> Iterator[Callable[..., list[TestClient]]]:
    """Return a function that opens a browser at each server."""
    clients: list[TestClient] = []

    def make(**web: Any) -> list[TestClient]:
        for app in servers:
            settings = WebSettings(**{"session_key": KEY, **web})
            app.settings = app.settings.model_copy(update={"web": settings})
            made = TestClient(create_app(app), base_url=HERE, headers=SAME, follow_redirects=False)
            clients.append(made)
        return clients

    yield make
    for client in clients:
        client.close()


def sign_in(one: TestClient, two: TestClient, **form: str) -> None:
    """Sign in at the first server; the browser has the cookie for both."""
    assert one.post("/sign-in", data=form).status_code == 303
    two.cookies.update(one.cookies)
    for client in (one, two):
        assert client.get("/upload").status_code == 200


def test_users_sessions_and_tokens_are_the_same_on_every_server(
    servers: list[App], browse: Callable[..., list[TestClient]]
) -> None:
    one, two = browse(auth="users")
    users = [Users(app.accounts, CHEAP) for app in servers]
    tokens = [ProgramTokens(app.accounts, app.clock) for app in servers]

    def pages() -> list[int]:
        return [client.get("/upload").status_code for client in (one, two)]

    def calls(token: str) -> list[int]:
        given = {"Authorization": f"Bearer {token}"}
        return [c.get("/api/v1/videos", headers=given).status_code for c in (one, two)]

    users[0].put("anna", PASSWORD, Role.USER)
    assert two.post("/sign-in", data={"name": "anna", "password": "another"}).status_code == 403
    sign_in(one, two, name="anna", password=PASSWORD)
    copy = dict(one.cookies)
    assert two.post("/sign-out").status_code == 303
    two.cookies.update(copy)
    assert pages() == [303, 303], "signed out of every copy"

    token = tokens[0].create("backup", "anna", [Scope.READ], 30)
    assert calls(token) == [200, 200]
    (listed,) = tokens[1].all()
    tokens[1].revoke(listed)
    assert calls(token) == [401, 401]

    sign_in(two, one, name="anna", password=PASSWORD)
    users[1].remove("anna")
    assert pages() == [303, 303], "a removed user"
    (found,) = [each for each in examined(page_checks(servers[0])) if each.name == "sign-in"]
    assert "the table" in found.detail
