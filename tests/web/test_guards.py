"""The guards in front of every request, tried as an attacker would."""

import asyncio
import base64
import json
from collections.abc import Iterator

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey
from starlette.requests import Request
from starlette.responses import Response

from hevcq.errors import ConfigError
from hevcq.ports.videos import AccountKind
from hevcq.settings.web import WebSettings
from hevcq.web import services
from hevcq.web.checks import require_loopback_or_sign_in
from hevcq.web.identity.authentication import local_path
from hevcq.web.identity.modes import OneToken
from hevcq.web.identity.session import Cookies, stored_key
from web.conftest import HERE

CHANGES = (
    "/sign-in",
    "/sign-out",
    "/board/jobs/change",
    "/board/pause",
)


def test_another_sites_post_is_refused_before_anything_is_done(operator):
    operator.headers.pop("sec-fetch-site")

    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "", "Origin": HERE},
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "null"},
        {},
    ):
        for path in CHANGES:
            answer = operator.post(path, data={"job": "x"}, headers=headers)
            assert answer.status_code == 403, (path, headers)
    assert operator.get("/board").status_code == 200, "and nobody was signed out"
    for headers in ({"Sec-Fetch-Site": "none"}, {"Origin": HERE}):
        own = operator.post("/board/resume", data={"all": "yes"}, headers=headers)
        assert own.status_code == 303, headers


def test_only_the_pages_own_names_are_answered(visit):
    client = visit(url="https://videos.example.org")
    for host, status in (
        ("evil.example", 421),
        ("evil.example:8790", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421),
        ("evil-videos.example.org", 421),
        ("a@evil.example", 421),
        ("evil.example@127.0.0.1", 421),
        ("127.0.0.1/evil.example", 421),
        ("127.0.0.1#.evil.example", 421),
        ("[::1%25eth0]", 421),
        ("127.0.0.1:8790:1", 421),
        ("", 421),
        ("videos.example.org", 200),
        ("VIDEOS.example.org.", 200),
        ("videos.example.org:443", 200),
        ("localhost:1", 200),
        ("192.0.2.7:8790", 200),
        ("[::1]:8790", 200),
    ):
        assert client.get("/healthz", headers={"Host": host}).status_code == status, host
    twice = [("Host", "127.0.0.1"), ("Host", "evil.example")]
    assert client.get("/healthz", headers=twice).status_code == 421


def test_a_request_with_two_lengths_is_refused_and_its_connection_ends(visit):
    both = {"Transfer-Encoding": "chunked", "Content-Length": "5"}

    got = visit().post("/sign-in", headers=both, content=b"token=x")

    assert (got.status_code, got.headers["Connection"]) == (400, "close")


def test_every_answer_carries_the_headers_that_bind_browsers(visit):
    client = visit(url="https://videos.example.org")
    for path in ("/sign-in", "/board", "/static/hevcq.css", "/no-such", "/healthz"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "worker-src 'self';" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["strict-transport-security"]
    assert client.get("/sign-in").headers["cache-control"] == "no-store"
    assert "immutable" in client.get("/static/hevcq.css").headers["cache-control"]


def test_nobody_sees_a_page_before_signing_in(visit):
    client = visit()
    for path in ("/", "/board", "/board/now", "/board/doctor", "/no-such"):
        got = client.get(path)
        assert got.status_code == 303, path
        assert got.headers["location"].startswith("/sign-in")


def test_a_program_gets_401_and_its_body_is_not_read(visit):
    def body() -> Iterator[bytes]:
        raise AssertionError("the body was read")
        yield b"first"

    got = visit().post("/uploads", content=body())
    assert got.status_code == 401
    assert got.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_program_without_a_token_is_told_so(visit, method):
    client = visit()
    client.headers.pop("sec-fetch-site")
    got = client.request(method, "/api/v1/videos")
    assert (got.status_code, got.json()["detail"]) == (401, "Authentication required.")
    other = client.request("POST", "/api/v1/videos", headers={"Origin": "https://evil.example"})
    assert (other.status_code, other.json()["status"]) == (403, 403)


def test_the_cookie_is_kept_from_scripts_and_other_sites(visit, opened):
    token = OneToken(opened.accounts).new()
    plain = visit().post("/sign-in", data={"token": token}).headers["set-cookie"]
    secure = visit("https://videos.example.org", url="https://videos.example.org").post(
        "/sign-in", data={"token": token}
    )

    assert plain.startswith("hevcq=")
    assert "HttpOnly" in plain
    assert "SameSite=lax" in plain
    cookie = secure.headers["set-cookie"]
    assert cookie.startswith("__Host-hevcq=")
    assert "; Secure" in cookie
    assert "Path=/" in cookie
    assert "Domain" not in cookie


def forged(cookie: str) -> Iterator[str]:
    header, body, signature = cookie.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    other = base64.urlsafe_b64encode(json.dumps({**claims, "sub": "root"}).encode()).decode()
    yield f"{header}.{other.rstrip('=')}.{signature}"
    yield f"{header}.{body}."
    yield body
    yield f"{header}.{body}.{signature[:-2]}"
    yield f"eyJhbGciOiJub25lIn0.{body}."
    yield jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(b"k" * 32))
    yield f"{header}.{body}é.{signature}"
    yield "." * 9000
    yield ""


def test_a_forged_session_is_nobodys(operator):
    cookie = operator.cookies["hevcq"]
    assert operator.get("/board").status_code == 200
    operator.cookies.clear()

    for value in forged(cookie):
        header = {"Cookie": f"hevcq={value}".encode()}
        assert operator.get("/board", headers=header).status_code == 303, value


def test_a_cookie_for_another_purpose_is_no_session(operator, opened):
    cookies, response = (
        Cookies(stored_key(opened.settings.data_dir / "web"), secure=False),
        Response(),
    )
    mark = opened.accounts.get(AccountKind.SIGN_IN, "token")["sha256"][:12]
    claims = {"sub": "root", "name": "root", "role": "operator", "mark": mark, "jti": "1"}
    cookies.write(response, "oidc", claims, until=opened.clock.now() + 60, now=opened.clock.now())
    text = response.headers["set-cookie"].partition("=")[2].partition(";")[0]
    mine = operator.cookies["hevcq"]
    operator.cookies.clear()

    for value, status in ((mine, 200), (text, 303)):
        answer = operator.get("/board", headers={"Cookie": f"hevcq={value}"})
        assert answer.status_code == status


def test_a_new_token_ends_older_sessions(operator, opened):
    OneToken(opened.accounts).new()

    assert operator.get("/board").status_code == 303


def test_a_copy_of_a_cookie_ends_with_the_sign_out(visit, operator, opened, clock):
    client = operator
    thief, other = visit(), visit()
    thief.cookies.update(client.cookies)
    token = OneToken(opened.accounts).new
    assert thief.get("/board").status_code == 200

    assert client.post("/sign-out").status_code == 303
    assert thief.get("/board").status_code == 303
    again = token()
    for each in (client, other):
        assert each.post("/sign-in", data={"token": again}).status_code == 303
    assert client.post("/sign-out").status_code == 303
    assert other.get("/board").status_code == 200, "each sign-in is a session of its own"
    kept = opened.accounts.all(AccountKind.ENDED)
    assert len(kept) == 2
    clock.advance(8 * 24 * 3600)
    assert other.post("/sign-in", data={"token": again}).status_code == 303
    assert other.post("/sign-out").status_code == 303
    kept = opened.accounts.all(AccountKind.ENDED)
    assert len(kept) == 1, "what has ended by itself is forgotten"


def test_a_session_ends_with_its_time_whatever_the_browser_kept(visit, operator, clock):
    kept = {"Cookie": f"hevcq={operator.cookies['hevcq']}"}
    late = visit()
    for hours, status in ((167, 200), (2, 303)):
        clock.advance(hours * 3600)
        assert late.get("/board", headers=kept).status_code == status


def test_failed_sign_ins_are_limited_for_a_minute(visit, clock, opened):
    client = visit()
    token = OneToken(opened.accounts).new()
    codes = [client.post("/sign-in", data={"token": f"no{n}"}).status_code for n in range(11)]

    assert codes == [403] * 10 + [429]
    assert client.post("/sign-in", data={"token": token}).status_code == 429, "not even the right"
    clock.advance(60)
    assert client.post("/sign-in", data={"token": token}).status_code == 303


def test_a_forwarded_address_counts_only_from_a_trusted_proxy(visit):
    client = visit()
    tries = [
        client.post("/sign-in", data={"token": "no"}, headers={"X-Forwarded-For": f"192.0.2.{n}"})
        for n in range(11)
    ]

    assert tries[-1].status_code == 429, "an address that the client makes up is no other client"


@pytest.mark.parametrize(
    ("after", "lands"),
    [
        ("/board?x=1", "/board?x=1"),
        ("//evil.example", "/"),
        ("https://evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/\t/evil.example", "/"),
        ("", "/"),
    ],
)
def test_a_sign_in_leads_to_this_page_only(after, lands):
    assert local_path(after) == lands


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "videos.example.org"])
def test_without_a_sign_in_only_loopback_is_served(host):
    with pytest.raises(ConfigError, match=r"web\.auth"):
        require_loopback_or_sign_in(WebSettings(auth="none", host=host))
    require_loopback_or_sign_in(WebSettings(auth="token", host=host))


def test_a_form_has_a_bound(operator):
    assert operator.post("/board/jobs/change", data={"job": "x" * 70_000}).status_code == 413
    got = operator.post(
        "/board/jobs/change", content=b"{}", headers={"Content-Type": "application/json"}
    )
    assert got.status_code == 415
    many = "&".join(f"a{n}=1" for n in range(500))
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert operator.post("/board/jobs/change", content=many, headers=form).status_code == 400


def test_a_form_that_comes_byte_by_byte_is_given_up(monkeypatch):
    monkeypatch.setattr(services, "BODY_S", 0.01)

    async def never() -> dict[str, object]:
        await asyncio.Event().wait()
        raise AssertionError

    kind = [(b"content-type", b"application/x-www-form-urlencoded")]
    scope = {"type": "http", "method": "POST", "headers": kind}

    async def read() -> None:
        async with asyncio.timeout(10):
            await services.read_form(Request(scope, never))

    with pytest.raises(services.HTTPException) as caught:
        asyncio.run(read())
    assert caught.value.status_code == 408
