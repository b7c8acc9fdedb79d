"""The page of figures: sums by time and kind, hostile names, the CSV, and who may see them."""

import csv
import re
from dataclasses import replace

from hevcq.ports.event_log import Happened
from hevcq.settings.libraries import Library
from hevcq.wiring.notify import event_log

DAY_S = 86_400.0
HOSTILE = "<b onmouseover=alert(1)>"


def encoded(farm, number: int, days_ago: float, **keys: object) -> None:
    now = farm.app.clock.now() - days_ago * DAY_S
    done = Happened(
        "job.done", now, job_id=f"{number:032d}", profile="hevc", before=3000, after=1000
    )
    source = f"TODO/all/media/{HOSTILE}/{number}.mkv"
    event_log(farm.app).add_missing([replace(done, source=source, **keys)])


def test_it_shows_what_was_saved_in_the_time_asked_for(operator, farm):
    encoded(farm, 1, 1)
    encoded(farm, 2, 60, before=9000)

    month = operator.get("/board/figures").text
    year = operator.get("/board/figures?since=1y").text

    assert "<strong>2.0 KiB</strong> smaller" in month
    assert "1 rendition made" in month
    assert "2 renditions made" in year
    assert month.count("<rect") > 0
    assert f">{HOSTILE}" not in month


def test_each_bar_has_its_number_in_the_table(operator, farm):
    encoded(farm, 1, 1)
    encoded(farm, 2, 3)

    html = operator.get("/board/figures").text

    chart, table = html.split("Renditions made</h2>")[1].split("</details>")[0].split("<details>")
    assert re.findall(r"<title>(\S+): 1</title>", chart) == re.findall(
        r'<th scope="row">(\S+)</th><td>1</td>', table
    )
    assert len(re.findall("<title>", chart)) == 4
    assert chart.count(": 0</title>") == 2


def test_nothing_encoded_is_said(operator):
    html = operator.get("/board/figures?since=nonsense").text

    assert "Nothing was encoded in this time." in html
    assert "<rect" not in html


def test_the_csv_has_a_row_for_each_daily_sum(operator, farm):
    encoded(farm, 1, 1)
    encoded(farm, 2, 60)

    answer = operator.get("/board/figures.csv?since=all")

    assert answer.headers["content-type"].startswith("text/csv")
    assert 'filename="hevcq-figures-all.csv"' in answer.headers["content-disposition"]
    rows = list(csv.DictReader(answer.text.splitlines()))
    assert [(row["event"], row["count"], row["bytes_after"]) for row in rows] == [
        ("job.done", "1", "1000"),
        ("job.done", "1", "1000"),
    ]


def test_only_operators_see_them(people):
    for path in ("/board/figures", "/board/figures.csv"):
        assert people("anna").get(path).status_code == 404


def test_it_shows_what_this_machine_has_left_and_which_folder_is_not_there(
    operator, farm, tmp_path
):
    app = farm.app
    (tmp_path / "films").mkdir()
    libraries = [
        Library(name="films", path=tmp_path / "films"),
        Library(name="away", path=tmp_path / "gone", place="mirror", output=tmp_path / "out"),
    ]
    app.settings = app.settings.model_copy(update={"libraries": tuple(libraries)})

    html = operator.get("/board/figures").text.partition("This machine now")[2]

    found = dict(re.findall(r'<li><p>(.*?)</p> <p class="facts">(.*?)</p>', html))
    room = r"\d.* [KMGTP]iB of \d.* [KMGTP]iB free"
    assert re.fullmatch(
        r"[\d.]+, [\d.]+, [\d.]+ on \d+ cores", found["Load of 1, 5 and 15 minutes"]
    )
    for name in ("Memory", "Data folder", "Library films"):
        assert re.fullmatch(room, found[name]), name
    for name in ("Library away", "Output of away"):
        assert found[name] == "cannot be read: No such file or directory"


def test_on_aws_the_machine_of_the_page_is_left_out(operator, farm):
    farm.app.settings = farm.app.settings.model_copy(update={"backend": "aws"})

    assert "This machine now" not in operator.get("/board/figures").text
