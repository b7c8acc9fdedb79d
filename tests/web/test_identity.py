"""Every way to sign in, over the page; the OpenID provider is a real server on this machine."""

import re
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from starlette.requests import HTTPConnection
from starlette.testclient import TestClient

from hevcq.errors import ConfigError, StorageError, UsageError
from hevcq.ports.videos import AccountKind, Accounts
from hevcq.settings.web import OidcSettings, WebSettings
from hevcq.util.clock import SystemClock
from hevcq.web.identity.accounts import ProgramTokens, Users
from hevcq.web.identity.attempts import client_of, network_of
from hevcq.web.identity.modes import is_trusted_proxy
from hevcq.web.identity.oidc import Flow, Oidc, SignInRefused
from hevcq.web.identity.person import Person, Role, Scope
from hevcq.web.identity.session import configured_key, stored_key

PASSWORD = "correct horse battery"


pytestmark = [
    pytest.mark.filterwarnings("ignore:get_jwt_config:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:authlib.jose"),
]


@pytest.fixture
def accounts(opened) -> Accounts:
    return opened.accounts


def test_a_user_signs_in_and_sees_the_board_only_as_operator(visit, accounts):
    users = Users(accounts)
    users.put("anna", PASSWORD, Role.OPERATOR)
    users.put("ben", PASSWORD, Role.USER)
    anna, ben = visit(auth="users"), visit(auth="users")

    assert anna.post("/sign-in", data={"name": "anna", "password": "wrong"}).status_code == 403
    assert anna.post("/sign-in", data={"name": "anna", "password": PASSWORD}).status_code == 303
    assert ben.post("/sign-in", data={"name": "ben", "password": PASSWORD}).status_code == 303

    assert anna.get("/board").status_code == 200
    for path in ("", "/now", "/doctor", "/libraries", "/figures", "/figures.csv"):
        assert ben.get(f"/board{path}").status_code == 404
    for path in ("/board/jobs/change", "/board/drain"):
        assert ben.post(path, data={"all": "yes", "job": "0" * 32}).status_code == 404
    users.put("anna", PASSWORD + "2", Role.OPERATOR)
    assert anna.get("/board").status_code == 303, "a new password ends the sessions"
    users.remove("ben")
    assert ben.get("/sign-in").status_code == 200, "and so does removal"


def test_passwords_are_stored_as_argon2_hashes(accounts):
    Users(accounts).put("anna", PASSWORD, Role.USER)
    row = str(accounts.get(AccountKind.USER, "anna"))

    assert "$argon2id$" in row
    assert PASSWORD not in row


@pytest.mark.parametrize(
    ("name", "password"),
    [("", PASSWORD), ("a b", PASSWORD), ("../x", PASSWORD), ("anna", "short"), ("a", "x" * 2000)],
)
def test_an_invalid_name_or_password_is_refused(accounts, name, password):
    with pytest.raises(UsageError):
        Users(accounts).put(name, password, Role.USER)


def test_a_damaged_row_lets_nobody_in(accounts, visit):
    accounts.put(AccountKind.USER, "anna", {"role": "king"})

    with pytest.raises(StorageError, match="anna"):
        Users(accounts).all()
    got = visit(auth="users").post("/sign-in", data={"name": "anna", "password": PASSWORD})
    assert got.status_code == 503
    assert "set-cookie" not in got.headers


def test_attempts_on_a_name_from_many_addresses_are_limited(visit, accounts, capsys):
    Users(accounts).put("anna", PASSWORD, Role.USER)
    client = visit(auth="users", peer="10.0.0.1", trusted_proxies=("10.0.0.1",))

    def guess(address: str) -> int:
        form = {"name": "anna", "password": "x" * 2000}  # too long to be hashed: cheap
        return client.post("/sign-in", data=form, headers={"X-Forwarded-For": address}).status_code

    codes = [guess(f"192.0.2.{n}") for n in range(12)]
    assert "address 192.0.2.0, name anna" in capsys.readouterr().out
    assert codes[0] == 403
    assert codes[-1] == 429
    one_network = [guess(f"2001:db8::{n:x}") for n in range(2)]
    assert one_network == [429, 429]


def test_a_proxy_names_the_person_and_nobody_else_may(visit, operator):
    settings = {
        "auth": "proxy",
        "trusted_proxies": ("10.0.0.0/8",),
        "operators": ("anna",),
    }
    proxied = visit(peer="10.1.2.3", **settings)
    outside = visit(peer="192.0.2.1", **settings)
    anna, ben = {"Remote-User": "anna"}, {"Remote-User": "ben"}

    assert proxied.get("/board", headers=anna).status_code == 200
    assert proxied.get("/board", headers=ben).status_code == 404
    proxied.cookies.update(operator.cookies)
    assert proxied.get("/board").status_code == 303, "a session of another way to sign in"
    assert outside.get("/board", headers=anna).status_code == 303
    twice = [("Remote-User", "ben"), ("Remote-User", "anna")]
    assert proxied.get("/board", headers=twice).status_code == 303, "a header that was let through"
    assert "reverse proxy" in proxied.get("/sign-in").text
    assert proxied.post("/sign-in", data={"token": "x"}).status_code == 404


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", "198.51.100.7", "192.0.2.1"),
        ("10.0.0.1", "203.0.113.9, 198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "198.51.100.7, 10.0.0.2", "198.51.100.7"),
        ("10.0.0.1", "", "10.0.0.1"),
    ],
)
def test_a_client_is_the_last_address_that_a_trusted_proxy_added(peer, forwarded, client):
    named = [(b"x-forwarded-for", forwarded.encode())]
    asked = HTTPConnection({"type": "http", "client": (peer, 1), "headers": named})

    assert client_of(["10.0.0.0/8"], asked) == client


def test_an_ipv4_mapped_address_is_the_same_peer():
    assert is_trusted_proxy(("10.0.0.0/8",), "::ffff:10.1.1.1")
    assert not is_trusted_proxy(("10.0.0.0/8",), "::1")
    assert not is_trusted_proxy(("10.0.0.0/8",), "testclient")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::1:2", "2001:db8::/64"),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.7"),
        ("testclient", "testclient"),
    ],
)
def test_attempts_from_one_ipv6_network_count_together(address, network):
    assert network_of(address) == network


def test_a_programs_token_does_what_its_scopes_say_until_it_ends(visit, accounts, clock):
    tokens = ProgramTokens(accounts, clock)
    reader = tokens.create("backup", "anna", {Scope.READ}, days=1)
    runner = tokens.create("cron", "local", {Scope.READ, Scope.OPERATE}, days=30)
    other = tokens.create("cron", "anna", {Scope.READ, Scope.OPERATE}, days=30)
    client = visit()
    client.headers.pop("sec-fetch-site")

    def get(token: str, kind: str = "Bearer") -> int:
        headers = {"Authorization": f"{kind} {token}"}
        return client.get("/api/v1/queues", headers=headers).status_code

    assert (get(reader), get(runner), get(runner, "bearer")) == (403, 200, 200)
    assert get(runner[:-1]) == get(f"{runner}x") == get("x") == get("") == 401
    assert get(runner, "Basic") == 401
    assert get(other) == 403, "its owner is not the one person who signs in"
    bearer = {"Authorization": f"Bearer {runner}"}
    done = client.post("/api/v1/resume", headers=bearer)
    assert done.status_code == 200, "a program says no Origin"
    assert runner.split("_", 2)[2] not in str(accounts.all(AccountKind.PROGRAM))
    tokens.revoke(runner.split("_")[1])
    assert get(runner) == 401
    uploader = {"Authorization": f"Bearer {tokens.create('x', 'local', {Scope.UPLOAD}, days=1)}"}
    assert client.get("/media/x/hevc/x.mp4", headers=uploader).status_code == 403
    person = tokens.person(reader)
    assert (person.owner, person.may("read"), person.may("upload")) == ("anna", True, False)
    clock.advance(86_401)
    assert tokens.person(reader) is None


def test_a_wrong_token_is_not_helped_by_a_session(operator):
    wrong = {"Authorization": "Bearer hevcq_000000000000_xxxxxxxxxxxxxxxxxxxxxxxx"}

    assert operator.get("/board", headers=wrong).status_code == 303


def test_a_token_ends_with_its_user(visit, accounts, clock):
    Users(accounts).put("anna", PASSWORD, Role.OPERATOR)
    token = ProgramTokens(accounts, clock).create("x", "anna", {Scope.OPERATE}, days=1)
    client = visit(auth="users")
    bearer = {"Authorization": f"Bearer {token}"}

    def get() -> int:
        return client.get("/api/v1/queues", headers=bearer).status_code

    assert get() == 200
    Users(accounts).put("anna", PASSWORD, Role.USER)
    assert get() == 403, "nobody runs the farm by a token of the time they were its operator"
    Users(accounts).remove("anna")
    assert get() == 401


def test_a_proxys_token_runs_the_farm_for_its_operators_only(visit, accounts, clock):
    tokens = ProgramTokens(accounts, clock)
    client = visit(auth="proxy", trusted_proxies=("10.0.0.1",), operators=("olga",))

    def get(owner: str) -> int:
        bearer = {"Authorization": f"Bearer {tokens.create('x', owner, {Scope.OPERATE}, days=1)}"}
        return client.get("/api/v1/queues", headers=bearer).status_code

    assert (get("olga"), get("local"), get("ben")) == (200, 200, 403)


def test_no_page_takes_a_programs_token(visit, accounts, clock, bench):
    tokens = ProgramTokens(accounts, clock)
    video = bench.request()
    client = visit(auth="none")
    client.headers.pop("sec-fetch-site")
    page = f"/v/{video.video_id}"

    for scopes in ({Scope.READ}, set(Scope)):
        bearer = {"Authorization": f"Bearer {tokens.create('x', 'ann', scopes, days=1)}"}
        for path in ("/", "/now", "/board", page, f"{page}/now", f"{page}/poster.jpg"):
            assert client.get(path, headers=bearer).status_code == 403, path
        for path in (f"{page}/delete", f"{page}/edit", f"{page}/publish", "/board/pause"):
            answer = client.post(path, data={"sure": "yes", "title": "x"}, headers=bearer)
            assert answer.status_code == 403, path
    assert bench.now(video) == video, "scopes are known to /api, /uploads and /media only"


def test_a_short_session_key_is_refused_without_showing_it(tmp_path):
    with pytest.raises(ConfigError) as caught:
        configured_key("guessable")
    assert "guessable" not in str(caught.value)
    assert configured_key("k" * 32) == configured_key("k" * 32)


def test_the_key_of_sessions_is_made_once_for_its_owner_alone(tmp_path):
    folder = tmp_path / "web"
    assert stored_key(folder) == stored_key(folder)
    assert (folder.stat().st_mode & 0o777, len(stored_key(folder))) == (0o700, 32)
    (folder / "session.key").write_bytes(b"")
    with pytest.raises(StorageError, match="is not a key"):
        stored_key(folder)


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """A real OpenID provider with two people."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import oidc_provider_mock

        people = [
            oidc_provider_mock.User(sub="sub-anna", claims={"name": "Anna", "groups": ["farm"]}),
            oidc_provider_mock.User(sub="sub-ben", claims={"name": "Ben"}),
        ]
        with oidc_provider_mock.run_server_in_thread(user_claims=people) as server:
            yield f"http://127.0.0.1:{server.server_port}"


def settings_for(issuer: str, **more: str) -> dict[str, object]:
    oidc = OidcSettings(issuer=issuer, client_id="page", operator_group="farm", **more)
    return {"auth": "oidc", "oidc": oidc, "operators": ("anna@example.org", "olga")}


def at_the_provider(address: str, who: str) -> str:
    """Agree at the provider's own page, as a person does; return where it sends the browser."""
    with httpx2.Client() as client:
        page = client.get(address)
        assert page.status_code == 200, page.text
        answer = client.post(address, data={"sub": who})
    parts = urlsplit(answer.headers["location"])
    return f"{parts.path}?{parts.query}"


def signed_in(client: TestClient, who: str) -> int:
    start = client.get("/sign-in/oidc?next=/board")
    assert start.status_code == 303
    query = parse_qs(urlsplit(start.headers["location"]).query)
    assert query["code_challenge_method"] == ["S256"]
    back = client.get(at_the_provider(start.headers["location"], who))
    assert back.headers.get("location") == "/board", back.text
    return client.get("/board").status_code


@pytest.fixture
def present(clock) -> None:
    """Move the clock to now: a real provider signs by the time it is."""
    clock.restart(SystemClock().now() - clock.now())


@pytest.mark.usefixtures("present")
def test_a_person_signs_in_at_an_openid_provider(visit, provider, clock):
    settings = settings_for(provider, client_secret="s3cret")

    anna, ben = visit(**settings), visit(**settings)
    assert signed_in(anna, "sub-anna") == 200
    assert signed_in(ben, "sub-ben") == 404, "no operator"
    clock.advance(3601)
    assert anna.get("/board").status_code == 303, "whether she still runs it must be asked again"
    assert ben.get("/board").status_code == 404
    left = ben.post("/sign-out")
    assert left.headers["location"] == "/sign-in?left=yes"
    assert "signed out here" in ben.get("/sign-in?left=yes").text


@pytest.mark.usefixtures("present")
def test_an_answer_to_another_sign_in_is_refused(visit, provider):
    settings = settings_for(provider, client_secret="s3cret")
    mine, theirs = visit(**settings), visit(**settings)
    start = theirs.get("/sign-in/oidc")
    back = at_the_provider(start.headers["location"], "sub-anna")

    assert mine.get(back).status_code == 403, "a code that was slipped to me"
    mine.get("/sign-in/oidc")
    assert mine.get(back).status_code == 403
    assert mine.get("/sign-in/oidc/back?error=access_denied").status_code == 403
    assert theirs.get(back).status_code == 303
    assert theirs.get(back).status_code == 403, "nor twice"


KEY = RSAKey.generate_key(2048, parameters={"kid": "k1"})
OTHER = RSAKey.generate_key(2048, parameters={"kid": "k1"})
ISSUER = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_pool"


class Offline(Oidc):
    """The mode with a provider that is only its keys."""

    def _get(self, address: str, max_age_s: float) -> dict[str, object]:
        if address.endswith("openid-configuration"):
            return {"issuer": ISSUER, "jwks_uri": "https://keys", "token_endpoint": "https://token"}
        return KeySet([KEY]).as_dict(private=False)  # type: ignore[return-value]


def id_token(clock, key: RSAKey = KEY, alg: str = "RS256", **claims: object) -> str:
    now = int(clock.now())
    said = {"iss": ISSUER, "sub": "u-1", "aud": "page", "nonce": "n", "iat": now, "exp": now + 300}
    said |= {"token_use": "id", "cognito:username": "anna", "cognito:groups": ["farm"]}
    held = {name: value for name, value in (said | claims).items() if value is not None}
    return jwt.encode({"alg": alg, "kid": "k1"}, held, key, algorithms=[alg])


@pytest.fixture
def cognito(clock) -> Offline:
    settings = settings_for(ISSUER, logout_url="https://pool.example/logout")
    return Offline(WebSettings(**settings), clock)


def test_cognitos_id_token_is_taken(cognito, clock):
    session = cognito._person(cognito._claims(id_token(clock), "n"))

    assert (session.owner, session.name) == (f"{ISSUER}#u-1", "anna")
    assert session.role is Role.OPERATOR
    assert cognito.revalidate(session) is not None
    assert cognito.revalidate(replace(session, mark="another provider's")) is None
    out = cognito.provider_sign_out("https://videos.example.org")
    assert out.startswith("https://pool.example/logout?client_id=page&logout_uri=https%3A%2F%2F")


@pytest.mark.parametrize(
    ("claims", "runs"),
    [
        ({"email": "anna@example.org", "email_verified": False}, False),
        ({"email": "anna@example.org", "email_verified": True}, True),
        ({"sub": "olga"}, True),
        ({"sub": "anna@example.org"}, False),
        ({"email": "olga", "email_verified": True}, False),
        ({"cognito:groups": ["farm"]}, True),
        ({"groups": ["farm"]}, True),
        ({"cognito:groups": "farm"}, False),
    ],
    ids=str,
)
def test_a_verified_address_a_subject_or_a_group_makes_an_operator(cognito, clock, claims, runs):
    token = id_token(clock, **({"cognito:groups": None} | claims))
    assert (cognito._person(cognito._claims(token, "n")).role is Role.OPERATOR) == runs


@pytest.mark.parametrize(
    "changed", [{"operators": ()}, {"oidc": {"operator_group": ""}}, {"oidc": {"client_id": "x"}}]
)
def test_a_session_ends_with_the_settings_that_gave_it_its_role(cognito, clock, changed):
    session = cognito._person(cognito._claims(id_token(clock), "n"))
    oidc = cognito._oidc.model_copy(update=changed.get("oidc", {}))
    other = {"operators": cognito._settings.operators, **changed, "oidc": oidc}

    assert cognito.revalidate(session) is not None
    assert Offline(WebSettings(auth="oidc", **other), clock).revalidate(session) is None


@pytest.mark.parametrize(
    ("owner", "runs"),
    [
        (f"{ISSUER}#olga", True),
        ("local", True),
        (f"{ISSUER}#u-1", False),
        (f"{ISSUER}#anna@example.org", False),
        ("olga", False),
        ("https://other#olga", False),
    ],
)
def test_a_token_runs_the_farm_only_for_whom_the_settings_name(cognito, owner, runs):
    program = Person(owner, "cron", Role.OPERATOR, frozenset(Scope))
    assert cognito.limit_token(program).is_operator == runs


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"iss": "https://evil.example"},
        {"aud": "another"},
        {"aud": ["page", "another"], "azp": "another"},
        {"aud": ["page", "another"]},
        {"aud": None, "client_id": "page", "token_use": "access"},
        {"token_use": "access"},
        {"exp": 1},
        {"exp": None},
        {"sub": None},
        {"sub": ""},
        {"iat": None},
    ],
    ids=str,
)
def test_an_id_token_that_is_not_for_this_sign_in_is_refused(cognito, clock, claims):
    with pytest.raises(SignInRefused):
        cognito._claims(id_token(clock, **claims), "n")


def test_a_signature_of_another_key_or_kind_is_refused(cognito, clock):
    good = id_token(clock)
    header, body, signature = good.split(".")
    unsigned = "eyJhbGciOiJub25lIn0"
    for forged in (
        id_token(clock, OTHER),
        f"{unsigned}.{body}.",
        f"{header}.{body}.{signature[:-4]}AAAA",
        "x",
    ):
        with pytest.raises(SignInRefused):
            cognito._claims(forged, "n")


def test_an_answer_of_another_provider_or_state_is_refused(cognito):
    flow = Flow.start("/")

    assert re.fullmatch(r"[\w-]{43}", flow.state)
    for answer in (
        {"state": "x", "code": "c"},
        {"state": flow.state, "code": "c", "iss": "https://evil.example"},
        {"state": flow.state},
        {},
    ):
        with pytest.raises(SignInRefused):
            cognito.finish(flow, answer, "http://127.0.0.1")


def test_a_provider_is_reached_by_https_only(clock):
    for issuer in ("http://login.example.org", "", "ftp://x"):
        with pytest.raises(ConfigError):
            Oidc(WebSettings(**settings_for(issuer)), clock)
