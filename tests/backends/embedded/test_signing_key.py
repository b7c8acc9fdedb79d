"""The data folder's signing key: made once, private, and a clear sentence where it cannot be used."""

import os
import stat
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest

from hevcq.backends.embedded import signing_key
from hevcq.backends.embedded.signing_key import FILE, FileSigner
from hevcq.domain.certificate import Standing
from hevcq.errors import ConfigError, Unavailable
from hevcq.ports import signer as signatures
from hevcq.ports.signer import Keyring
from support.library import certificate


def test_nobody_makes_a_key_to_verify_and_the_first_signature_makes_one(tmp_path: Path):
    signer = FileSigner(tmp_path / "data")
    assert signer.public_key() == ""
    assert not (tmp_path / "data").exists()

    value = signer.sign(b"content")

    key = FileSigner(tmp_path / "data").public_key()
    assert key == signer.public_key()
    assert signatures.verify(key, b"content", value)
    facts = (tmp_path / "data" / FILE).stat()
    assert stat.S_IMODE(facts.st_mode) == 0o600


def test_two_that_need_a_key_at_once_agree_on_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first, second = FileSigner(tmp_path), FileSigner(tmp_path)
    made = signatures.make_private_key
    entered = threading.Event()

    def make() -> bytes:
        if not entered.is_set():
            entered.set()
            threads[1].start()
        return made()

    monkeypatch.setattr(signing_key.signer, "make_private_key", make)
    threads = [threading.Thread(target=each.prepare) for each in (first, second)]
    threads[0].start()
    threads[0].join()
    threads[1].join()

    assert first.public_key() == second.public_key() != ""


def test_what_a_kill_left_of_a_key_is_made_again(tmp_path: Path):
    (tmp_path / f"{FILE}.new").write_bytes(b"half")

    FileSigner(tmp_path).prepare()

    assert FileSigner(tmp_path).public_key().startswith("ed25519:")


@pytest.mark.parametrize("what", ["empty", "garbage", "link", "folder", "pipe", "unreadable"])
def test_a_key_that_cannot_be_used_is_one_sentence_with_a_remedy(tmp_path: Path, what: str):
    path = tmp_path / FILE
    if what == "link":
        FileSigner(tmp_path / "other").prepare()
        path.symlink_to(tmp_path / "other" / FILE)
    elif what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "unreadable":
        FileSigner(tmp_path).prepare()
        path.chmod(0)
        if os.access(path, os.R_OK, effective_ids=True):
            pytest.skip("root reads every file")
    else:
        path.write_bytes(b"" if what == "empty" else b"garbage")

    for use in (FileSigner(tmp_path).public_key, FileSigner(tmp_path).prepare):
        with pytest.raises(
            ConfigError, match=r"signing key .*signing\.key cannot be used"
        ) as caught:
            use()
        assert "move it away" in caught.value.remedy
        assert "\n" not in str(caught.value)


def test_a_denied_read_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    FileSigner(tmp_path).prepare()

    monkeypatch.setattr(
        signing_key, "open_regular", Mock(side_effect=PermissionError(13, "Permission denied"))
    )

    with pytest.raises(ConfigError, match=r"cannot be used: permission denied\. Give this user"):
        FileSigner(tmp_path).public_key()


def test_a_data_folder_that_is_a_file_is_one_sentence(tmp_path: Path):
    (tmp_path / "data").write_bytes(b"")

    with pytest.raises(Unavailable, match=r"signing\.key"):
        FileSigner(tmp_path / "data").prepare()


def test_a_key_that_others_may_read_is_used_and_logged(tmp_path: Path, capsys):
    FileSigner(tmp_path).prepare()
    (tmp_path / FILE).chmod(0o644)

    assert FileSigner(tmp_path).public_key()
    assert "signing_key_readable_by_others" in "".join(capsys.readouterr())


def test_a_keyring_signs_what_it_then_trusts_and_nobody_else_does(tmp_path: Path):
    (tmp_path / "a.mp4").write_bytes(b"original")
    plain = certificate(tmp_path / "a.mp4", b"original", b"small")
    ring = Keyring(FileSigner(tmp_path / "one"))
    other = Keyring(FileSigner(tmp_path / "two"))
    assert ring.standing(plain) is Standing.UNKNOWN, "and no key is made for it"
    assert not (tmp_path / "one").exists()

    signed = ring.signed(plain)

    assert signed.signature is not None
    assert ring.standing(signed) is Standing.TRUSTED
    assert other.standing(signed) is Standing.UNKNOWN
    assert Keyring().standing(signed) is Standing.UNKNOWN
    assert Keyring(None, [signed.signature.key]).standing(signed) is Standing.TRUSTED
    assert Keyring().signed(plain) == plain
    Keyring().prepare()


def test_a_lost_key_makes_certificates_of_before_unknown_and_not_forged(tmp_path: Path):
    (tmp_path / "a.mp4").write_bytes(b"original")
    signed = Keyring(FileSigner(tmp_path)).signed(
        certificate(tmp_path / "a.mp4", b"original", b"small")
    )
    (tmp_path / FILE).unlink()
    ring = Keyring(FileSigner(tmp_path))
    ring.prepare()

    assert ring.standing(signed) is Standing.UNKNOWN
