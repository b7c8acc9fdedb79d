"""The page over a real data folder of its own, asked in this process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from argon2 import PasswordHasher
from starlette.testclient import TestClient

from hevcq.settings.model import Settings
from hevcq.settings.web import WebSettings
from hevcq.web.app import create_app
from hevcq.web.identity.accounts import Users
from hevcq.web.identity.modes import OneToken
from hevcq.web.identity.person import Role
from hevcq.wiring.app import App
from support.accounts import accounts_in
from support.browser import Site, require_chromium
from support.clips import ManualClock
from support.jobs import Farm
from support.videos import VideoBench

SomeSite = TypeVar("SomeSite", bound=Site)
HERE = "http://127.0.0.1:8790"
SAME = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash passwords at no cost; a hash holds its own, so that checking it costs nothing either."""
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr("hevcq.web.identity.accounts.PasswordHasher", lambda: cheap)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_800_000_000.0, auto=True)


@pytest.fixture
def opened(tmp_path: Path, clock: ManualClock) -> Iterator[App]:
    app = App(Settings(data_dir=tmp_path / "data", min_free_mib=0), clock)
    yield app
    app.close()


@pytest.fixture
def farm(opened: App, tmp_path: Path) -> Farm:
    return Farm(opened, tmp_path / "library")


@pytest.fixture
def bench(tmp_path: Path, opened: App) -> Iterator[VideoBench]:
    """Uploaded videos in the data folder of the page."""
    made = VideoBench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def as_person(visit: Callable[..., TestClient]) -> Callable[[str], TestClient]:
    """Return a function that gives a person, known by a proxy, a browser; op is an operator."""

    def make(name: str) -> TestClient:
        client = visit(auth="proxy", trusted_proxies=("127.0.0.1",), operators=("op",))
        client.headers["Remote-User"] = name
        return client

    return make


@pytest.fixture
def ann(as_person: Callable[[str], TestClient]) -> TestClient:
    return as_person("ann")


PASSWORD = "correct horse battery"


@contextmanager
def peopled(site: SomeSite, **people: Role) -> Iterator[SomeSite]:
    """Yield a site that these people can sign in to with PASSWORD, for a browser; skip without one."""
    require_chromium()
    with accounts_in(site.data) as accounts:
        for name, role in people.items():
            Users(accounts).put(name, PASSWORD, role)
    try:
        yield site
    finally:
        site.close()


@pytest.fixture
def people(visit: Callable[..., TestClient], opened: App) -> Callable[[str], TestClient]:
    """Return a function that gives each person a browser; olga is the operator."""
    users = Users(opened.accounts)

    def one(name: str) -> TestClient:
        users.put(name, PASSWORD, Role.OPERATOR if name == "olga" else Role.USER)
        client = visit(auth="users")
        form = {"name": name, "password": PASSWORD}
        assert client.post("/sign-in", data=form).status_code == 303
        return client

    return one


@pytest.fixture
def visit(opened: App) -> Iterator[Callable[..., TestClient]]:
    """Return a function that opens a browser at the page with these settings of `[web]`."""
    clients: list[TestClient] = []

    def make(address: str = HERE, peer: str = "127.0.0.1", **web: Any) -> TestClient:
        opened.settings = opened.settings.model_copy(update={"web": WebSettings(**web)})
        client = TestClient(
            create_app(opened),
            base_url=address,
            headers=SAME,
            follow_redirects=False,
            client=(peer, 50_000),
        )
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def operator(visit: Callable[..., TestClient], opened: App) -> TestClient:
    """A browser in which the person of the token is signed in."""
    client = visit()
    token = OneToken(opened.accounts).new()
    assert client.post("/sign-in", data={"token": token}).status_code == 303
    return client
