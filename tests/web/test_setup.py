"""The screens of the first run, asked by people who may not, and answered with what cannot be."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from hevcq.settings.libraries import Library
from hevcq.settings.web import WebSettings
from hevcq.usecases.first_run import FirstRun
from hevcq.web.identity.accounts import ProgramTokens, Users
from hevcq.web.identity.person import Role, Scope
from hevcq.web.server import open_setup
from hevcq.wiring.app import App
from web.conftest import PASSWORD

FORM = {"name": "ada", "password": PASSWORD, "again": PASSWORD}
START = ["password", "folders", "output", "hours", "sample"]


@pytest.fixture
def media(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "media"
    (made / "Films" / "Old").mkdir(parents=True)
    settings = tmp_path / "hevcq.toml"
    settings.write_text("# mine\n")
    monkeypatch.setenv("HEVCQ_CONFIG", str(settings))
    return made


@pytest.fixture
def code(opened: App, media: Path) -> str:
    made = open_setup(opened)
    assert made
    return made


@pytest.fixture
def ada(visit: Callable[..., TestClient], code: str, media: Path) -> TestClient:
    """The operator, who has chosen a password."""
    client = visit(browse=(str(media),))
    assert client.post("/setup/password", data={**FORM, "code": code}).status_code == 303
    return client


def answered(ada: TestClient, media: Path) -> None:
    """Answer each screen with what most people choose."""
    folder = str(media / "Films")
    for screen, form in (
        ("folders", {"do": "add", "folder": folder}),
        ("folders", {"do": "next"}),
        ("output", {"profile": "hevc", "place": "beside"}),
        ("hours", {"when": "night"}),
    ):
        said = ada.post(f"/setup/{screen}", data=form)
        assert said.status_code == 303, said.text


def test_without_the_code_nobody_gets_past_the_first_screen(visit, code, opened):
    stranger = visit(peer="192.0.2.7")

    assert stranger.get("/sign-in").headers["location"] == "/setup"
    assert stranger.get("/setup/folders").headers["location"] == "/setup/password"
    for given in ("", "AAAAA-AAAAA", code[:-1], "ä" * 10):
        said = stranger.post("/setup/password", data={**FORM, "code": given})
        assert said.status_code == 403, given
        assert "Wrong code" in said.text
    assert not Users(opened.accounts).all()
    for screen in START[1:]:
        assert stranger.post(f"/setup/{screen}", data={}).status_code == 404
    assert stranger.post("/setup/start", data={"go": ""}).headers["location"].startswith("/sign-in")


def test_this_machine_needs_the_code_too_as_a_proxy_on_it_sends_everybodys_requests(visit, code):
    assert visit(peer="127.0.0.1").post("/setup/password", data=FORM).status_code == 403


def test_attempts_on_the_set_up_code_are_limited(visit, code):
    guesser = visit(peer="192.0.2.7")
    for _ in range(10):
        guesser.post("/setup/password", data={**FORM, "code": "AAAAA-AAAAA"})

    assert guesser.post("/setup/password", data={**FORM, "code": code}).status_code == 429
    again = visit(peer="192.0.2.8")
    assert again.post("/setup/password", data={**FORM, "code": code.lower()}).status_code == 303


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"password": "short", "again": "short"}, "10 to 1024 characters"),
        ({"again": "another password"}, "differ"),
        ({"name": "<b>"}, "not a valid user name"),
    ],
)
def test_a_wrong_name_or_password_is_said_and_the_code_still_works(visit, code, wrong, words):
    client = visit()

    said = client.post("/setup/password", data={**FORM, "code": code, **wrong})

    assert said.status_code == 422
    assert words in said.text
    assert "<b>" not in said.text
    assert client.post("/setup/password", data={**FORM, "code": code}).status_code == 303


def test_the_code_works_once_and_each_start_makes_another(visit, code, opened):
    newer = open_setup(opened)
    kept = (opened.settings.data_dir / "first-run.json").read_bytes()
    assert newer.replace("-", "").encode() not in kept
    assert visit().post("/setup/password", data={**FORM, "code": code}).status_code == 403
    assert visit().post("/setup/password", data={**FORM, "code": newer}).status_code == 303

    late = visit().post("/setup/password", data={**FORM, "name": "eve", "code": newer})
    assert late.status_code == 404
    assert set(Users(opened.accounts).all()) == {"ada"}
    assert open_setup(opened) == "", "the next start goes on without a code"


def test_a_settings_file_that_cannot_be_written_is_said_and_costs_nothing(visit, code, opened):
    file = opened.settings_file.file
    file.chmod(0o444)

    said = visit().post("/setup/password", data={**FORM, "code": code})

    assert said.status_code == 422
    assert "read-only" in said.text
    file.chmod(0o644)
    assert visit().post("/setup/password", data={**FORM, "code": code}).status_code == 303
    assert 'auth = "users"' in file.read_text()
    assert file.read_text().startswith("# mine\n")


def test_only_the_operator_continues_the_set_up(ada, opened, clock, media):
    Users(opened.accounts).put("bob", PASSWORD, Role.USER)
    token = ProgramTokens(opened.accounts, clock).create("nas", "ada", list(Scope), 1)
    bob = TestClient(
        ada.app, base_url=str(ada.base_url), headers=ada.headers, follow_redirects=False
    )
    bob.post("/sign-in", data={"name": "bob", "password": PASSWORD})

    assert bob.get("/").status_code == 200
    assert bob.get("/setup/folders").status_code == 404
    assert bob.post("/setup/folders", data={"do": "next"}).status_code == 404
    bob.cookies.clear()
    bob.headers["Authorization"] = f"Bearer {token}"
    assert bob.get("/setup/folders").status_code == 404
    assert ada.get("/").headers["location"] == "/setup"
    assert ada.get("/setup").headers["location"] == "/setup/folders"


UNFIT_FOLDERS = [
    ({"do": "next"}, "at least one folder"),
    ({"do": "add", "folder": "/etc"}, "not among the folders"),
    ({"do": "add", "folder": "{media}/../hevcq.toml"}, "not among the folders"),
    ({"do": "add", "folder": "{media}/Gone"}, "No such folder"),
    ({"do": "add", "folder": "{media}/Films"}, "already"),
    ({"do": "add", "folder": "{media}/Films/Old"}, "within"),
    ({"do": "add", "folder": "{media}"}, "parent of"),
]


def test_an_invalid_folder_is_refused_with_a_reason(ada, media):
    for form, words in UNFIT_FOLDERS:
        filled = {name: value.format(media=media) for name, value in form.items()}
        if words == "already":
            ada.post("/setup/folders", data={"do": "add", "folder": str(media / "Films")})

        said = ada.post("/setup/folders", data=filled)

        assert (said.status_code, words in said.text) == (422, True), form


UNFIT_ANSWERS = [
    ("output", {"place": "beside"}, "Choose what to make"),
    ("output", {"profile": "none-such", "place": "beside"}, "Choose what to make"),
    ("output", {"profile": "hevc", "place": "nowhere"}, "lace"),
    ("output", {"profile": "hls", "place": "replace"}, "cannot take an original's place"),
    ("output", {"profile": "hevc", "place": "mirror", "output": ""}, "must be a whole path"),
    ("output", {"profile": "hevc", "place": "mirror", "output": "x"}, "must be a whole path"),
    ("output", {"profile": "hevc", "place": "replace", "keep_days": "soon"}, "how many days"),
    ("output", {"profile": "hevc", "place": "replace", "keep_days": "-1"}, "at least 0"),
    ("hours", {"when": "window", "start": "25:00", "end": "7:00"}, "25:00"),
    ("hours", {"when": "window", "start": "", "end": ""}, "window"),
    ("sample", {"video": "/etc/passwd"}, "one of the videos"),
    ("sample", {"video": "{media}/Films/../../hevcq.toml"}, "one of the videos"),
]


def test_an_invalid_answer_is_an_error_on_its_screen(ada, media):
    answered(ada, media)
    for screen, form, words in UNFIT_ANSWERS:
        filled = {name: value.format(media=media) for name, value in form.items()}

        said = ada.post(f"/setup/{screen}", data=filled)

        text = re.sub(r"&#39;", "'", said.text)
        assert (said.status_code, words in text) == (422, True), (screen, form)


@pytest.mark.parametrize(
    ("place", "kept"),
    [
        ({"place": "beside"}, {}),
        ({"place": "replace", "keep_days": "7"}, {"keep_originals": 7.0}),
        ({"place": "mirror", "output": "{media}/small"}, {"output": Path("Films")}),
    ],
)
def test_the_start_writes_the_libraries_and_closes_the_screens(ada, media, opened, place, kept):
    answered(ada, media)
    form = {name: value.format(media=media) for name, value in place.items()}
    assert ada.post("/setup/output", data={"profile": "av1", **form}).status_code == 303
    assert ada.get("/setup/sample").status_code == 200

    assert ada.post("/setup/start", data={"go": ""}).status_code == 303

    (library,) = opened.settings_file.settings().libraries
    assert (library.name, library.profiles) == ("Films", ("av1",))
    assert library.schedule == ("22:00-07:00",)
    assert library.place == place["place"]
    if "output" in kept:
        assert library.output == media / "small" / "Films"
    if "keep_originals" in kept:
        assert library.keep_originals == kept["keep_originals"]
    assert opened.settings.libraries == (library,), "the running process knows it"
    for screen in (*START, "start"):
        assert ada.post(f"/setup/{screen}", data=FORM).status_code == 404
    assert ada.get("/setup/folders").headers["location"] == "/"
    assert ada.get("/").status_code == 200
    assert open_setup(opened) is None


def test_a_kill_between_the_settings_and_the_end_repeats_nothing(ada, media, opened):
    answered(ada, media)
    first = FirstRun(opened.settings.data_dir)
    before = first.read()
    assert before is not None
    ada.post("/setup/start", data={"go": ""})
    first.keep(before)

    assert ada.post("/setup/start", data={"go": ""}).status_code == 303
    assert len(opened.settings_file.settings().libraries) == 1


def test_a_start_from_another_screen_is_not_there(ada, opened):
    assert ada.post("/setup/start", data={"go": ""}).status_code == 404
    assert not opened.settings_file.settings().libraries


def test_a_folder_of_videos_that_was_used_before_is_not_set_up_again(opened, media):
    opened.settings = opened.settings.model_copy(
        update={"libraries": (Library(name="Films", path=media),)}
    )
    assert open_setup(opened) is None
    opened.settings = opened.settings.model_copy(update={"libraries": ()})
    Users(opened.accounts).put("olga", PASSWORD, Role.OPERATOR)
    assert open_setup(opened) is None


def test_a_sign_in_that_is_configured_takes_the_place_of_the_first_screen(visit, opened, media):
    proxy = {"auth": "proxy", "trusted_proxies": ("127.0.0.1",), "operators": ("op",)}
    opened.settings = opened.settings.model_copy(update={"web": WebSettings(**proxy)})
    assert open_setup(opened) == ""
    client = visit(browse=(str(media),), **proxy)

    assert client.post("/setup/password", data=FORM).status_code == 404
    assert client.get("/setup/folders").headers["location"].startswith("/sign-in")
    client.headers["Remote-User"] = "op"
    assert client.get("/setup/folders").status_code == 200
    client.headers["Remote-User"] = "ann"
    assert client.get("/setup/folders").status_code == 404
