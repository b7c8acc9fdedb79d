"""`hevcq sync` and its check in `hevcq doctor`, as a person runs them."""

import json

import pytest

from hevcq.cli.commands import run
from support.webdav import PASSWORD, without


@pytest.fixture
def server(webdav):
    return webdav


@pytest.fixture
def hevcq(server, tmp_path, capsys):
    """Run hevcq with a settings file that has one sync; its extra lines come as `more`."""
    (tmp_path / "target").mkdir()
    (tmp_path / "secret").write_text(f"{PASSWORD}\n")
    (tmp_path / "secret").chmod(0o600)

    def call(*arguments: str, more: str = 'mode = "move"\nsettle = 0', url: str | None = None):
        file = tmp_path / "hevcq.toml"
        file.write_text(
            f'data_dir = "data"\n[[sync]]\nname = "anna"\nurl = "{url or server.url}"\nuser = "anna"\n'
            f'password_file = "secret"\nfolders = ["Camera"]\ntarget = "target"\n{more}\n'
        )
        code = run(["--config", str(file), *arguments])
        said = capsys.readouterr()
        assert PASSWORD not in said.out + said.err
        return code, said.out, said.err

    return call


def test_moves_and_says_so(server, hevcq, tmp_path):
    server.put("Camera/a\x1b[2J.mp4", b"video")
    code, out, err = hevcq("sync")
    assert code == 0
    assert out.startswith("moved  Camera/a\\x1b[2J.mp4 -> ")
    assert "anna: 1 moved (5 Bytes)." in err
    assert (tmp_path / "target" / "a_[2J.mp4").read_bytes() == b"video"
    assert server.files() == {}


def test_json_names_each_file(server, hevcq, tmp_path):
    server.put("Camera/a.mp4", b"video")
    _, out, _ = hevcq("sync", "anna", "--json")
    assert json.loads(out) == {
        "type": "synced",
        "sync": "anna",
        "path": "Camera/a.mp4",
        "size": 5,
        "result": "moved",
        "target": str(tmp_path / "target/a.mp4"),
        "reason": "",
    }


def test_a_server_that_is_away_is_unavailable(hevcq, monkeypatch):
    from hevcq.usecases.sync import session

    monkeypatch.setattr(session, "RETRY", session.RetryPolicy(attempts=1, base_s=0, cap_s=0))
    code, _, err = hevcq("sync", url="http://127.0.0.1:9")
    assert code == 7
    assert "does not answer" in err
    assert "nothing new" not in err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('folders = ["../x"]', "folders"),
        ('settle = "soon"', "must be a duration"),
        ('limit = "fast"', "must be a rate"),
        ('mode = "delete"', "must be one of"),
        ('colour = "red"', "colour"),
    ],
)
def test_a_wrong_setting_is_named(hevcq, tmp_path, more, said):
    double = more.startswith("folders")
    code, _, err = hevcq("sync", more=more if not double else "", url="ftp://x" if double else None)
    assert code == 3
    assert said in err or double
    assert "hevcq.toml" in err


def test_a_password_in_the_address_is_refused_and_not_repeated(server, hevcq):
    code, _, err = hevcq("sync", url=server.url.replace("//", f"//anna:{PASSWORD}@"))
    assert code == 3
    assert "password_file" in err


def test_doctor_says_whether_the_server_deletes_safely(server, hevcq):
    code, out, _ = hevcq("doctor")
    assert "ok     sync anna" in out
    assert "moves" in out
    server.faults.append(without("If-Match"))
    code, out, _ = hevcq("doctor")
    assert code == 1
    assert "WRONG  sync anna" in out
    assert "ignores If-Match" in out
    assert server.files() == {}
