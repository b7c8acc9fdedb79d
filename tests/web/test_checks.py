"""What `hevcq doctor` says of the page: its address, its sign-in, its uploads and their records."""

import socket

import pytest

from hevcq.ports.videos import AccountKind
from hevcq.settings.web import OidcSettings, UploadSettings, WebSettings
from hevcq.usecases.farm_check import examined
from hevcq.web.checks import page_checks
from hevcq.web.identity.accounts import Users
from hevcq.web.identity.person import Role
from web.conftest import PASSWORD


@pytest.fixture
def look(opened):
    """Return a function that checks the page with other settings; it returns the checks by name."""

    def check(uploads: UploadSettings | None = None, **web):
        update = {"web": WebSettings(**web), "uploads": uploads or UploadSettings()}
        opened.settings = opened.settings.model_copy(update=update)
        return {found.name: found for found in examined(page_checks(opened))}

    return check


def test_a_page_as_shipped_is_sound_and_checking_it_makes_no_file(look, opened):
    found = look()

    assert {name: check.ok for name, check in found.items()} == dict.fromkeys(
        ("page", "sign-in", "videos"), True
    )
    assert found["page"].detail == "http://127.0.0.1:8790"
    assert found["videos"].detail == "0 uploaded, 0 of them unfinished"
    assert not (opened.settings.data_dir / "web").exists()


JUDGED = [
    ({"auth": "none", "host": "0.0.0.0"}, "page", False, "this machine only"),
    ({"auth": "none"}, "page", True, "http://127.0.0.1:8790"),
    ({"host": "0.0.0.0"}, "page", True, "unencrypted: see web.url; only by its IP address"),
    ({"host": "0.0.0.0", "url": "https://a.example"}, "page", True, "https://a.example"),
    ({"auth": "proxy"}, "sign-in", False, "trusted_proxies"),
    (
        {"auth": "proxy", "trusted_proxies": ("127.0.0.1",)},
        "sign-in",
        True,
        "nobody is an operator",
    ),
    ({"session_key": "short"}, "sign-in", False, "32 characters"),
    ({"auth": "oidc"}, "sign-in", False, "needs web.oidc.issuer"),
]


def test_settings_that_open_or_close_the_page_are_judged(look):
    for web, name, ok, said in JUDGED:
        check = look(**web)[name]

        assert (check.ok, said in check.detail) == (ok, True), check.detail


def test_a_page_without_its_users_is_wrong(look, opened):
    check = look(auth="users")["sign-in"]
    assert not check.ok
    assert "hevcq serve add-user" in check.remedy

    Users(opened.accounts).put("anna", PASSWORD, Role.USER)
    assert look(auth="users")["sign-in"].detail == "1 user, no operators"
    Users(opened.accounts).put("olga", PASSWORD, Role.OPERATOR)
    assert look(auth="users")["sign-in"].detail == "2 users, 1 operator"

    opened.accounts.put(AccountKind.USER, "anna", {"role": "king"})
    damaged = look(auth="users")["sign-in"]
    assert not damaged.ok
    assert "is damaged" in damaged.detail


def test_a_provider_that_does_not_answer_is_wrong(look):
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        issuer = f"http://127.0.0.1:{taken.getsockname()[1]}"
        check = look(auth="oidc", oidc=OidcSettings(issuer=issuer, client_id="page"))["sign-in"]

    assert not check.ok
    assert "does not answer" in check.detail
