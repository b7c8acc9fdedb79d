"""Profiles, probe, and the pages and tables that are written from the models."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hevcq.cli.exit_codes import ExitCode
from support.media_facts import SHIPPED

ROOT = Path(__file__).resolve().parents[2]


def test_a_listing_names_each_profile_and_whether_uploads_want_it(hevcq):
    ran = hevcq("profiles", "list")

    assert ran.code == 0
    rows = [line.split()[:2] for line in ran.out.splitlines()[1:]]
    assert [row[0] for row in rows] == SHIPPED
    found = hevcq("profiles", "list", "--json").lines
    wanted = {line["name"] for line in found if line["subscribe"]}
    assert wanted == {"1080p", "720p", "hevc"}, "no upload makes more than these unasked"
    assert "uploads" not in ran.out, "at home there is no inbox"
    assert [line["name"] for line in found] == SHIPPED
    assert all(len(line["revision"]) == 12 for line in found)
    costs = {line["name"]: (line["minute_cpu_s"], line["minute_bytes"]) for line in found}
    assert costs["720p"] < costs["1080p"] < costs["hls"]
    assert costs["1080p"] < costs["hevc"]
    assert "CPU/min" in ran.out


def test_show_fills_in_every_default_and_is_itself_a_valid_profile(hevcq, tmp_path):
    ran = hevcq("profiles", "show", "720p")
    (tmp_path / "720p.yaml").write_text(ran.out)

    checked = hevcq("profiles", "validate", tmp_path / "720p.yaml")

    assert yaml.safe_load(ran.out)["queue"]["visibility_s"] == 300
    assert checked.code == 0
    assert checked.out.startswith("ok ")
    (line,) = hevcq("profiles", "show", "720p", "--json").lines
    assert line["revision"] in checked.out


WRONG = [
    ("name: bad\ndescription: x\nvideo: {codec: hevc, crf: 99}", "video.crf"),
    (
        "name: bad\ndescription: x\nvideo: {codec: hevc, crf: 20, speed: 1}",
        "video.speed is unknown; known: codec, preset,",
    ),
    ("name: bad\ndescription: x\nvideo: {codec: hevc, crff: 20}", "did you mean 'video.crf'?"),
    (
        "name: bad\nvideo: {codec: hevc, crf: 20, bitrate: 5M}",
        "video.bitrate is unknown; known: codec, ",
    ),
    (
        "name: bad\ndescription: x\nvideo: {codec: h264, crf: 20, pixel_format: yuv420p10}",
        "h264 is not made",
    ),
    (
        "name: bad\ndescription: x\nvideo: {codec: hevc, crf: 20, encoder_params: {pass: 2}}",
        "makes one",
    ),
    ("name: bad\nqueues: {}\nvideo: {codec: hevc, crf: 2}", "did you mean 'queue'?"),
    (
        "name: bad\ndescription: x\ncontainer: hls\nvideo: {codec: h264, crf: 20}",
        "of the highest, 22, not 20",
    ),
    ("name: bad\nname: good", "duplicate key 'name'"),
    ("name: other\ndescription: x\nvideo: {codec: hevc, crf: 20}", "must match"),
    ("- a list", "not a YAML mapping"),
    ("name: [", "is not YAML"),
]


def test_validate_names_the_file_and_the_key_and_goes_on(hevcq, tmp_path):
    for text, said in WRONG:
        (tmp_path / "bad.yaml").write_text(text)

        ran = hevcq("profiles", "validate", tmp_path / "bad.yaml", ROOT / "workers" / "hevc.yaml")

        assert ran.code == ExitCode.CONFIG
        bad, good = ran.out.splitlines()
        assert bad.startswith("wrong")
        assert "bad.yaml" in bad
        assert said in bad
        assert good.startswith("ok")


def test_validate_without_files_checks_those_of_this_set_up(hevcq, tmp_path, monkeypatch):
    assert len(hevcq("profiles", "validate").out.splitlines()) == len(SHIPPED)

    monkeypatch.setenv("HEVCQ_PROFILES_DIR", str(tmp_path))

    assert hevcq("profiles", "validate").code == ExitCode.CONFIG


@pytest.mark.parametrize("script", ["write_profiles_doc", "write_readme", "write_screenshot"])
def test_what_is_written_from_the_program_is_up_to_date(script):
    path = ROOT / "scripts" / f"{script}.py"

    done = subprocess.run([sys.executable, str(path), "--check"], check=False)

    assert done.returncode == 0, f"run `python scripts/{script}.py`"


def test_init_copies_the_shipped_profiles_which_are_then_used_and_keeps_what_exists(
    hevcq, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    own = tmp_path / "hevcq" / "profiles"

    ran = hevcq("profiles", "init")

    assert ran.code == 0
    assert sorted(path.stem for path in own.iterdir()) == SHIPPED
    mine = own / "720p.yaml"
    mine.write_text(mine.read_text().replace("description: ", "description: Mine: ", 1))
    mine.write_text(mine.read_text().replace("Mine: ", "Mine, ", 1))
    (own / "1080p.yaml").unlink()
    assert "Mine, " in hevcq("profiles", "list").out
    again = hevcq("profiles", "init")
    assert [line.split()[0] for line in again.out.splitlines()] == ["copied"] + ["kept"] * (
        len(SHIPPED) - 1
    )
    assert "Mine, " in mine.read_text()
