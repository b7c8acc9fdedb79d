"""What every place of users, tokens and ended sessions promises (ports/videos.py)."""

import threading

import pytest

from contracts.backends import World
from hevcq.ports.videos import AccountKind, Accounts

USER, ENDED = AccountKind.USER, AccountKind.ENDED


@pytest.fixture
def accounts(served: World) -> Accounts:
    assert served.accounts is not None
    return served.accounts


def test_a_row_is_kept_replaced_and_removed(accounts: Accounts) -> None:
    row = {"role": "user", "hash": "$argon2id$ä"}
    assert accounts.all(USER) == {}
    assert accounts.get(USER, "anna") is None

    assert accounts.put(USER, "anna", row)
    assert not accounts.put(USER, "anna", {**row, "role": "operator"})
    assert accounts.put(USER, "a#b/ü", row)

    assert accounts.get(USER, "anna") == {**row, "role": "operator"}
    assert set(accounts.all(USER)) == {"anna", "a#b/ü"}
    assert accounts.remove(USER, "anna")
    assert not accounts.remove(USER, "anna")
    assert accounts.get(USER, "anna") is None
    assert accounts.all(USER) == {"a#b/ü": row}


def test_kinds_are_apart(accounts: Accounts) -> None:
    for kind in AccountKind:
        key = "token" if kind is AccountKind.SIGN_IN else "same"
        until = 9e9 if kind is ENDED else None
        assert accounts.put(kind, key, {"sha256": kind.value}, expires_at=until)
    assert accounts.get(AccountKind.PROGRAM, "same") == {"sha256": "tokens"}
    assert accounts.remove(USER, "same")
    assert accounts.get(AccountKind.PROGRAM, "same") is not None
    assert accounts.get(AccountKind.SIGN_IN, "token") == {"sha256": "sign-in"}


def test_what_has_ended_may_be_forgotten_and_nothing_else(accounts: Accounts) -> None:
    for key, until in (("early", 1_000.0), ("late", 9e9)):
        assert accounts.put(ENDED, key, {}, expires_at=until)
    accounts.forget(ENDED, 2_000.0)
    assert accounts.get(ENDED, "late") is not None
    assert accounts.get(ENDED, "never") is None


def test_rows_put_at_the_same_time_are_all_kept(accounts: Accounts) -> None:
    def add(number: int) -> None:
        accounts.put(AccountKind.PROGRAM, str(number), {"n": number})

    threads = [threading.Thread(target=add, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(accounts.all(AccountKind.PROGRAM)) == {str(n) for n in range(6)}
