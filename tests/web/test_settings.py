"""The settings in the page: what is written, what is refused, and who may."""

import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hevcq.settings.loader import load
from hevcq.usecases.settings.changes import HISTORY
from hevcq.usecases.settings.profiles import profile_text
from hevcq.wiring.app import App
from support.clips import ManualClock
from support.webdav import PASSWORD, USER, WebDav

MINE = '# mine\nmin_free_mib = 0   # a small disk\n\n[[libraries]]\nname = "tv"  # its name\npath = "{}"\n'
HOSTILE = '<script>alert("x")</script>'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "tv").mkdir()
    (tmp_path / "films").mkdir()
    file = tmp_path / "hevcq.toml"
    file.write_text(MINE.format(tmp_path / "tv"))
    return file


@pytest.fixture
def opened(tmp_path: Path, clock: ManualClock, config: Path) -> Iterator[App]:
    made = load(config=config).settings.model_copy(update={"data_dir": tmp_path / "data"})
    app = App(made, clock, config=config)
    yield app
    app.close()


def digest(app: App) -> str:
    return app.settings_file.digest()


def library(app: App, **more: str) -> dict[str, str]:
    """Return the form of the library tv as the page sends it."""
    path = str(app.settings.libraries[0].path)
    form = {"file_digest": digest(app), "former": "tv", "name": "tv", "path": path, "watch": "yes"}
    return {**form, "place": "beside", "order": "path", "priority": "0", **more}


def test_a_changed_library_is_written_beside_its_comments(operator, opened, config):
    form = library(opened, min_age="7d", exclude="*.part\r\nExtras/*", **{"profiles-av1": "yes"})
    form |= {"rules-0-codec": "hevc", "rules-0-skip": "yes", "place": "replace"}

    asked = operator.post("/settings/library", data=form)
    assert "Nothing is saved until" in asked.text
    assert config.read_text() == MINE.format(config.parent / "tv")
    answer = operator.post("/settings/library", data={**form, "sure": "yes"})

    assert answer.headers["location"] == "/settings?done=saved", answer.text
    text = config.read_text()
    assert text.startswith(MINE.format(config.parent / "tv"))
    assert tomllib.loads(text)["libraries"] == [
        {
            "name": "tv",
            "path": str(config.parent / "tv"),
            "profiles": ["av1"],
            "place": "replace",
            "exclude": ["*.part", "Extras/*"],
            "min_age": "7d",
            "rules": [{"codec": ["hevc"], "skip": True}],
        }
    ]
    assert opened.settings.libraries[0].place == "replace"
    shown = operator.get("/settings/changes").text
    assert "Change library tv" in shown


def test_an_untouched_form_changes_nothing(operator, opened, config):
    before = config.read_text()

    answer = operator.post("/settings/library", data=library(opened))

    assert answer.status_code == 303
    assert config.read_text() == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"min_age": "soon"}, "must be a duration such as"),
        ({"name": HOSTILE}, "must be letters, digits"),
        ({"schedule": "Someday 1:00-2:00"}, "is not a day"),
        ({"rules-0-skip": "yes"}, "Not saved, see: Rules."),
    ],
)
def test_an_invalid_value_is_shown_beside_its_field(operator, opened, config, more, said):
    before = config.read_text()

    answer = operator.post("/settings/library", data=library(opened, **more))

    assert answer.status_code == 200
    assert said in answer.text
    assert HOSTILE not in answer.text
    assert config.read_text() == before


def test_a_concurrent_edit_of_the_file_is_reported_and_the_input_kept(operator, opened, config):
    form = library(opened, min_age="9d")
    config.write_text(config.read_text() + "# by hand\n")
    before = config.read_text()

    answer = operator.post("/settings/library", data=form)

    assert "changed meanwhile" in answer.text
    assert 'value="9d"' in answer.text
    assert config.read_text() == before


def test_a_library_is_added_removed_and_brought_back(operator, opened, config):
    form = library(opened, former="", name="films", path=str(config.parent / "films"))
    assert operator.post("/settings/library", data=form).status_code == 303
    gone = {"file_digest": digest(opened), "name": "tv"}

    assert operator.post("/settings/library/remove", data=gone).status_code == 400
    assert operator.post("/settings/library/remove", data={**gone, "sure": "yes"}).is_redirect
    assert [each.name for each in opened.settings.libraries] == ["films"]
    operator.post("/settings/changes/undo", data={"number": "2"})

    assert [each.name for each in opened.settings.libraries] == ["films", "tv"]
    assert 'name = "tv"' in config.read_text()
    assert "undone by" in operator.get("/settings/changes").text


def test_the_week_is_written_as_windows(operator, opened, config):
    night = {f"h{day * 24 + hour}": "1" for day in range(5) for hour in (22, 23)}
    form = {"file_digest": digest(opened), "grid": "yes", "at_end": "border", **night}

    assert operator.post("/settings/hours", data=form).is_redirect
    assert opened.settings.schedule.windows == ("Mon-Fri 22:00-24:00",)
    page = operator.get("/settings/hours").text
    assert page.count(" checked") == 10
    empty = {"file_digest": digest(opened), "grid": "yes", "at_end": "border"}
    assert "must have an hour" in operator.post("/settings/hours", data=empty).text
    exact = {"file_digest": digest(opened), "windows": "22:30-06:00", "timezone": "Mars/Olympus"}
    assert "needs a time zone" in operator.post("/settings/hours", data=exact).text
    exact["timezone"] = "Europe/Berlin"
    assert operator.post("/settings/hours", data=exact).is_redirect
    assert "22:30-06:00</textarea>" in operator.get("/settings/hours").text


@pytest.mark.parametrize("command", ["", "/usr/local/bin/cheap-power"])
def test_the_page_sets_no_program_to_run(operator, opened, config, command):
    if command:
        config.write_text(f'{config.read_text()}\n[schedule]\ngate_command = "{command}"\n')
    form = {
        "file_digest": digest(opened),
        "windows": "22:30-06:00",
        "gate_command": "touch /tmp/owned",
    }

    assert operator.post("/settings/hours", data=form).is_redirect
    assert opened.settings.schedule.windows == ("22:30-06:00",)
    assert opened.settings.schedule.gate_command == command


def test_a_receiver_is_added_and_its_secret_never_shown(operator, opened, config):
    secret = "whsec_" + "c2VjcmV0" * 5
    form = {"file_digest": digest(opened), "kind_of": "webhook", "name": "me", "secret": secret}

    wrong = operator.post("/settings/messages", data={**form, "url": "nowhere"})
    assert "must be an address" in wrong.text
    assert secret not in wrong.text
    empty = operator.post("/settings/messages", data={**form, "secret": ""}).text
    assert "Secret is missing.</strong> Signs the messages: <code>whsec_</code>" in empty
    assert "<code>echo whsec_$(openssl rand -base64 32)</code> makes it" in empty
    short = operator.post("/settings/messages", data={**form, "secret": "not-a-good-one"})
    assert "must be whsec_" in short.text
    assert "not-a-good-one" not in short.text
    added = operator.post("/settings/messages", data={**form, "url": "http://127.0.0.1:9/in"})

    assert added.headers["location"] == "/settings/messages?done=receiver", added.text
    shown = operator.get("/settings/messages").text
    assert "http://127.0.0.1:9/in" in shown
    assert secret not in shown + operator.get("/settings/changes").text
    one = {"file_digest": digest(opened), "number": "0"}
    assert "refused the test" in operator.post("/settings/messages/test", data=one).text
    assert operator.post("/settings/messages/remove", data=one).is_redirect
    assert "webhook" not in config.read_text()
    assert operator.post("/settings/messages/test", data=one).status_code == 400
    person = {"file_digest": digest(opened), "kind_of": "notify", "name": "me"}
    person |= {"url": "me", "digest": "07:30"}
    assert "must be an address" in operator.post("/settings/messages", data=person).text
    person["url"] = "discrd://token/mysecret"
    misspelt = operator.post("/settings/messages", data=person).text
    assert "does not know the address discrd" in misspelt
    assert "mysecret" not in misspelt
    (own := config.with_name("own")).write_text("of another program\n")
    no_address = operator.post("/settings/messages", data={**person, "url": str(own)}).text
    assert "holds no address" in no_address
    assert "another program" not in no_address
    assert "discrd" not in config.read_text()
    person["url"] = "json://127.0.0.1:9/in"
    known = f'name="file_digest" value="{digest(opened)}"'
    for page in ("messages", "hours", "library?name=tv"):
        assert known in operator.get(f"/settings/{page}").text
    assert operator.post("/settings/messages", data=person).is_redirect
    assert "one message a day at 07:30" in operator.get("/settings/messages").text


def test_a_restart_is_asked_for_exactly_where_a_receiver_changed(operator, opened, config):
    person = {"kind_of": "notify", "name": "me", "url": "json://127.0.0.1:9/in"}
    hours, said = {"grid": "yes", "at_end": "border", "h1": "1"}, []
    for number, section, form in [("1", "hours", hours), ("3", "messages", person)]:
        saved = operator.post(f"/settings/{section}", data={"file_digest": digest(opened), **form})
        undone = operator.post("/settings/changes/undo", data={"number": number})
        said += [operator.get(each.headers["location"]).text for each in (saved, undone)]

    assert ["Saved." in each for each in said] == [True, False, True, False]
    assert ["Undone." in each for each in said] == [False, True, False, True]
    assert ["Restart hevcq" in each for each in said] == [False, False, True, True]
    assert ["within seconds" in each for each in said] == [True, True, False, False]


@pytest.fixture
def account(opened: App, webdav: WebDav, tmp_path: Path) -> dict[str, str]:
    """The form of a new sync account at a server that is there."""
    (tmp_path / "phone").mkdir()
    form = {"former": "", "name": "anna", "url": webdav.url, "user": USER, "password": PASSWORD}
    form |= {"folders": "Camera", "target": str(tmp_path / "phone"), "mode": "move"}
    return {**form, "settle": "10m", "schedule": "Mon-Fri 22:00-06:00"}


def test_a_sync_account_is_added_tested_changed_and_removed(
    operator, opened, config, account, webdav
):
    added = operator.post("/settings/sync/account", data={**account, "file_digest": digest(opened)})
    assert added.headers["location"] == "/settings/sync?done=saved", added.text
    (sync,) = opened.settings.sync
    assert (sync.mode, sync.settle, sync.schedule) == ("move", 600, ("Mon-Fri 22:00-06:00",))
    assert sync.password() == PASSWORD
    assert sync.password_file is not None
    assert sync.password_file.stat().st_mode & 0o777 == 0o600

    tested = operator.post("/settings/sync/test", data={"name": "anna"}).text
    assert "anna works: it moves, 0 files" in tested
    webdav.root.joinpath("Camera").rmdir()
    assert (
        "has no folder Camera" in operator.post("/settings/sync/test", data={"name": "anna"}).text
    )
    form = fields_of(operator.get("/settings/sync/account?name=anna").text) | {"mode": "copy"}
    assert form["password"] == ""
    assert operator.post("/settings/sync/account", data=form).is_redirect
    assert (opened.settings.sync[0].mode, opened.settings.sync[0].password()) == ("copy", PASSWORD)
    gone = {"file_digest": digest(opened), "name": "anna", "sure": "yes"}
    assert operator.post("/settings/sync/remove", data=gone).is_redirect
    assert not opened.settings.sync
    operator.post("/settings/changes/undo", data={"number": "3"})
    assert opened.settings.sync[0].password() == PASSWORD
    told = config.read_text() + (opened.settings.data_dir / HISTORY).read_text()
    for page in ("", "/sync", "/sync/account?name=anna", "/changes"):
        told += operator.get(f"/settings{page}").text
    assert "Remove sync account anna" in told
    assert PASSWORD not in told


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"password": ""}, "must be given for this address"),
        ({"user": ""}, "Not saved, see: User."),
        ({"folders": ""}, "Folders on the server is missing"),
        ({"schedule": "always"}, "window"),
        ({"password_file": "/etc/shadow", "settle": "soon"}, "must be a duration"),
    ],
)
def test_a_wrong_sync_account_is_said_and_no_password_kept(operator, opened, account, more, said):
    form = {**account, "file_digest": digest(opened), **more}

    answer = operator.post("/settings/sync/account", data=form)

    assert said in answer.text
    assert PASSWORD not in answer.text
    assert not list(opened.settings.data_dir.rglob("secrets/*"))
    assert "shadow" not in opened.settings_file.file.read_text()


def test_a_kept_password_goes_to_no_other_server(operator, opened, account):
    operator.post("/settings/sync/account", data={**account, "file_digest": digest(opened)})
    form = fields_of(operator.get("/settings/sync/account?name=anna").text)

    elsewhere = operator.post("/settings/sync/account", data={**form, "url": "http://127.0.0.1:9"})
    by_program = operator.put(
        "/api/v1/sync/anna", json={**SENT, "target": account["target"], "url": "http://127.0.0.1:9"}
    )

    assert "must be given for this address" in elsewhere.text
    assert by_program.status_code == 422
    assert opened.settings.sync[0].url == account["url"]


SENT = {"user": USER, "folders": ["Camera"], "url": "https://cloud.example.org"}


def test_a_program_keeps_sync_accounts_as_the_page_does(operator, opened, account, config):
    wanted = {**SENT, "url": account["url"], "target": account["target"]}
    at = "/api/v1/sync/anna"

    made = operator.put(at, json={**wanted, "password": PASSWORD})
    again = operator.put(at, json={**wanted, "schedule": ["22:00-06:00"]})
    kept = operator.put(at, json={**wanted, "schedule": ["22:00-06:00"], "password": None})
    refused = operator.put(at, json={**wanted, "password_file": "/etc/shadow"})
    odd = [operator.put(at, json={**wanted, "password": each}) for each in (["a"], "a\nb")]
    (listed,) = operator.get("/api/v1/sync").json()

    assert (made.status_code, again.status_code, refused.status_code) == (200, 200, 422)
    assert [each.status_code for each in (kept, *odd)] == [200, 422, 422]
    assert opened.settings.sync[0].password() == PASSWORD
    assert listed == again.json()
    assert (bool(listed["password_file"]), listed["schedule"]) == (True, ["22:00-06:00"])
    sent_back = {key: value for key, value in listed.items() if key != "name"}
    assert operator.put(at, json=sent_back).json() == listed
    assert PASSWORD not in made.text + again.text
    assert operator.post(f"{at}/test").json() == {
        "works": "copies, 0 files at the top of its folders"
    }
    assert [operator.delete(at).status_code for _ in range(2)] == [204, 404]
    assert operator.delete("/api/v1/libraries/tv").status_code == 204
    assert not opened.settings.sync + opened.settings.libraries
    assert config.read_text().startswith("# mine\n")


def test_a_profile_is_copied_changed_and_deleted(operator, opened, config):
    refused = operator.post("/settings/profiles/copy", data={"from": "hevc", "name": "hevc"})
    assert "There is a profile" in refused.text
    assert "<option selected>hevc" in refused.text
    assert "<option selected>av1" in operator.get("/settings/profiles?from=av1").text
    refused = operator.post("/settings/profiles/copy", data={"from": "hevc", "name": "../x"})
    assert "must be lower-case letters" in refused.text
    assert operator.post(
        "/settings/profiles/copy", data={"from": "hevc", "name": "mine"}
    ).is_redirect

    page = operator.get("/settings/profile?name=mine").text
    form = fields_of(page) | {"video-crf": "20", "audio-languages": "en\r\nde"}
    saved = operator.post("/settings/profile", data=form)
    assert saved.is_redirect, saved.text
    _, text = profile_text(opened.settings, "mine")
    assert "crf: 20\n" in text
    assert "# The best quality at which" in text
    assert "languages: [en, de]" in text
    lost = {**form, "do": "try", "video": "/etc/passwd"}
    assert "Choose one of the videos" in operator.post("/settings/profile", data=lost).text
    assert profile_text(opened.settings, "mine")[1] == text
    wrong = fields_of(operator.get("/settings/profile?name=mine").text) | {"video-crf": "99"}
    answer = operator.post("/settings/profile", data=wrong)
    assert "must be at most 63" in answer.text
    assert profile_text(opened.settings, "mine")[1] == text
    assert operator.post(
        "/settings/profile", data=fields_of(answer.text) | {"video-crf": "21"}
    ).is_redirect
    assert "crf: 21\n" in profile_text(opened.settings, "mine")[1]

    gone = {"name": "mine", "sure": "yes"}
    used = library(opened, **{"profiles-mine": "yes"})
    saved = operator.post("/settings/library", data=used)
    assert "uses it within seconds" in operator.get(saved.headers["location"]).text
    assert opened.profiles["mine"].video.crf == 21
    assert opened.backend.queues["mine"].depth().empty
    assert "is in use: library tv" in operator.post("/settings/profile/delete", data=gone).text
    assert operator.post("/settings/library", data=library(opened)).is_redirect
    assert operator.post("/settings/profile/delete", data=gone).is_redirect
    assert operator.get("/settings/profile?name=mine").status_code == 404
    assert (
        "came with hevcq"
        in operator.post("/settings/profile/delete", data={**gone, "name": "hevc"}).text
    )


def test_nobody_else_sees_or_changes_settings(people, opened, config):
    before, ann = config.read_text(), people("ann")

    for path in ("", "/library", "/hours", "/messages", "/sync", "/changes", "/profiles"):
        assert ann.get(f"/settings{path}").status_code == 404
    assert ann.post("/settings/library", data=library(opened, min_age="7d")).status_code == 404
    assert ann.post("/settings/sync/test", data={"name": "anna"}).status_code == 404
    for path in ("sync", "hours", "receivers", "changes", "profiles/hevc"):
        assert ann.get(f"/api/v1/{path}").status_code == 403
    assert ann.put("/api/v1/hours", json={}).status_code == 403
    assert ann.post("/settings/changes/undo", data={"number": "1"}).status_code == 404
    assert "/settings" not in ann.get("/").text
    assert config.read_text() == before


def test_a_program_puts_a_library_by_the_same_rules(operator, opened, config):
    wanted = {"path": str(config.parent / "films"), "min_age": "7d", "profiles": ["av1"]}
    wanted["rules"] = [{"max_height": 480, "skip": True}]

    made = operator.put("/api/v1/libraries/films", json=wanted)
    again = operator.put("/api/v1/libraries/films", json={"path": wanted["path"]})
    refused = operator.put("/api/v1/libraries/films", json={**wanted, "min_age": "soon"})
    wrong = operator.put("/api/v1/libraries/other", json=wanted)

    assert (made.status_code, made.json()["profiles"]) == (200, ["av1"])
    assert again.json()["profiles"] == ["hevc"]
    assert refused.status_code == 422
    assert "must be a duration" in refused.json()["detail"]
    assert "is the library films already" in wrong.json()["detail"]
    assert [each["name"] for each in tomllib.loads(config.read_text())["libraries"]] == [
        "tv",
        "films",
    ]


def test_a_program_says_that_originals_may_be_replaced(operator, config):
    before = config.read_text()
    wanted = {"path": str(config.parent / "films"), "place": "replace"}

    unsaid = operator.put("/api/v1/libraries/films", json=wanted)
    vague = operator.put("/api/v1/libraries/films", json={**wanted, "confirm_replace": "yes"})
    untouched = config.read_text()
    said = operator.put("/api/v1/libraries/films", json={**wanted, "confirm_replace": True})
    again = operator.put("/api/v1/libraries/films", json={**wanted, "min_age": "7d"})

    assert (unsaid.status_code, vague.status_code, untouched) == (422, 422, before)
    assert "confirm_replace" in unsaid.text
    assert (said.status_code, again.status_code) == (200, 200)
    assert tomllib.loads(config.read_text())["libraries"][-1]["place"] == "replace"


def fields_of(page: str) -> dict[str, str]:
    """Return the fields of the first form of a page, as a browser would send them."""
    form = Form()
    form.feed(page)
    return form.values


class Form(HTMLParser):
    """Reads the form that has a field named `former`."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, str] = {}
        self._inside, self._text, self._select = False, "", ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._inside = found.get("action") in {"/settings/profile", "/settings/sync/account"}
        if not self._inside:
            return
        kind, name = found.get("type", ""), found.get("name", "")
        if tag == "input" and (kind not in {"checkbox", "radio"} or "checked" in found):
            self.values[name] = found.get("value", "")
        elif tag == "textarea":
            self._text, self.values[name] = name, ""
        elif tag == "select":
            self._select = name
        elif tag == "option" and "selected" in found:
            self.values[self._select] = found["value"]

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            if self._text:
                self.values[self._text] = self.values[self._text].removeprefix("\n")
            self._text = ""

    def handle_data(self, data: str) -> None:
        if self._text:
            self.values[self._text] += data
