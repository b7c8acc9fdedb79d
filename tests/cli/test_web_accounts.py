"""`hevcq serve`: users, the sign-in token and programs' tokens from the command line."""

import io

from hevcq.cli.exit_codes import ExitCode
from hevcq.util.clock import SystemClock
from hevcq.web.identity.accounts import ProgramTokens, Users
from hevcq.web.identity.modes import OneToken
from hevcq.web.identity.person import Role
from support.accounts import accounts_in


def test_a_user_is_added_changed_listed_and_removed(hevcq, data_dir, monkeypatch):
    for operator in ((), ("--operator",)):
        monkeypatch.setattr("sys.stdin", io.StringIO("correct horse battery\n"))
        ran = hevcq("serve", "add-user", "anna", *operator)
        assert (ran.code, ran.out) == (0, "")
    assert ran.err == "User anna changed.\n"
    assert hevcq("serve", "users", "--json").lines == [
        {"type": "user", "name": "anna", "role": "operator"}
    ]
    with accounts_in(data_dir) as accounts:
        user = Users(accounts).check({"name": "anna", "password": "correct horse battery"})
    assert user.role is Role.OPERATOR

    assert hevcq("serve", "remove-user", "anna").code == 0
    assert "No users" in hevcq("serve", "users").err
    assert hevcq("serve", "remove-user", "anna").code == ExitCode.USAGE


def test_a_password_that_is_missing_or_short_is_one_sentence(hevcq, data_dir, monkeypatch):
    for typed, words in (("", "No password"), ("short\n", "10 to 1024 characters")):
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        ran = hevcq("serve", "add-user", "anna")
        assert ran.code == ExitCode.USAGE
        assert words in ran.err
    assert "No users" in hevcq("serve", "users").err


def test_a_new_sign_in_token_is_printed_and_is_the_one_that_counts(hevcq, data_dir):
    first, second = (hevcq("serve", "new-token").out.strip() for _ in range(2))

    with accounts_in(data_dir) as accounts:
        mode = OneToken(accounts)
        assert mode.check({"token": second}) is not None
        assert mode.check({"token": first}) is None


def test_a_programs_token_is_made_listed_and_revoked(hevcq, data_dir):
    token = hevcq(
        *("serve", "token", "create", "backup", "--scope", "read", "--scope", "upload"),
        *("--owner", "anna", "--days", "2"),
    ).out.strip()
    with accounts_in(data_dir) as accounts:
        person = ProgramTokens(accounts, SystemClock()).person(token)
    assert (person.owner, person.scopes) == ("anna", frozenset({"read", "upload"}))

    (listed,) = hevcq("serve", "token", "list", "--json").lines
    assert token.split("_", 2)[2] not in str(listed)
    assert "2 days" in hevcq("serve", "token", "list").out
    assert hevcq("serve", "token", "revoke", listed["id"][:5]).code == 0
    with accounts_in(data_dir) as accounts:
        assert ProgramTokens(accounts, SystemClock()).person(token) is None
    assert hevcq("serve", "token", "revoke", listed["id"]).code == ExitCode.USAGE
    assert hevcq("serve", "token", "create", "x", "--scope", "all").code == ExitCode.USAGE


def test_a_token_belongs_to_a_user_who_is_there_where_people_sign_in_by_name(
    hevcq, data_dir, monkeypatch
):
    monkeypatch.setenv("HEVCQ_WEB__AUTH", "users")
    create = ("serve", "token", "create", "sonarr", "--scope", "operate")
    ran = hevcq(*create)
    assert ran.code == ExitCode.USAGE
    assert "hevcq serve add-user" in ran.err

    for name, operator in (("anna", "--operator"), ("ben", "")):
        monkeypatch.setattr("sys.stdin", io.StringIO("correct horse battery\n"))
        assert hevcq(*filter(None, ("serve", "add-user", name, operator))).code == 0
    with accounts_in(data_dir) as accounts:
        token = hevcq(*create).out.strip()
        assert ProgramTokens(accounts, SystemClock()).person(token).owner == "anna"
        theirs = hevcq(*create, "--owner", "ben").out.strip()
        assert ProgramTokens(accounts, SystemClock()).person(theirs).owner == "ben"
    ran = hevcq(*create, "--owner", "local")
    assert ran.code == ExitCode.USAGE
    assert "'local'" in ran.err
    assert "anna, ben" in ran.err
