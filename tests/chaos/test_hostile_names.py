"""Names, titles and the environment: data stays data from the source to the rendition."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from chaos.damage_corpus import ffmpeg
from chaos.damage_judge import profile, run
from hevcq.clock import SystemClock
from hevcq.ffmpeg.encoder import FfmpegEncoder
from support import make_clip

EVIL = [
    "-i", "-y.mkv", "--", "%d.mkv", "a%03d$(touch pwned).mkv", "new\nline.mkv", "`touch pwned`.mkv",
    "q'uo\"te;[in],movie=x:y\\.mkv", "concat:a|b.mkv", "pipe:1", "\x1b]0;title\x07.mkv", "|cat.mkv",
]  # fmt: skip


@pytest.mark.parametrize("name", EVIL)
def test_a_name_is_only_a_name_from_the_probe_to_the_last_gate(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    make_clip(tmp_path, name="clip.mkv", audio=False, seconds=0.2).rename(tmp_path / name)
    ended = run(Path(name), Path(f"made {name}"), profile())
    assert ended.step == "", ended
    assert {path.name for path in tmp_path.iterdir()} == {name, f"made {name}"}


TITLE = "';movie=/etc/passwd[out];$(touch pwned) %{metadata} \\N{1} =;#\n[CHAPTER]\nSTART=0"


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_titles_and_tags_are_carried_over_word_for_word_and_never_obeyed(
    tmp_path, monkeypatch, suffix
):
    monkeypatch.chdir(tmp_path)
    plain = make_clip(tmp_path, name=f"plain.{suffix}", seconds=0.4)
    source, made = tmp_path / f"film.{suffix}", tmp_path / f"made.{suffix}"
    tags = ["-metadata", f"title={TITLE}", "-metadata", "comment=-y -i /etc/passwd"]
    tags += ["-metadata:s:v", f"handler_name={TITLE}", "-metadata:s:a", f"title={TITLE}"]
    ffmpeg("-i", plain, "-c", "copy", *tags, source)
    ended = run(source, made, profile())
    assert ended.step == "", ended
    title = (
        FfmpegEncoder("ffmpeg", "ffprobe", SystemClock())
        .probe(str(made), stop=threading.Event())
        .tags["title"]
    )
    assert title == TITLE
    assert {path.name for path in tmp_path.iterdir()} == {plain.name, source.name, made.name}


def test_no_credential_reaches_the_environment_of_any_program(tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "LD_PRELOAD_X",
                 "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "HEVCQ_BUCKET", "http_proxy"):  # fmt: skip
        monkeypatch.setenv(name, "secret")
    seen = tmp_path / "seen"
    spy = tmp_path / "ffmpeg"
    spy.write_text(f"#!/bin/sh\nenv >> {seen}\necho ffmpeg version 5.1\n")
    spy.chmod(0o755)
    assert FfmpegEncoder(str(spy), str(spy), SystemClock()).version() == "ffmpeg version 5.1"
    words = seen.read_text()
    assert "secret" not in words
    assert {line.partition("=")[0] for line in words.splitlines()} <= {
        "PATH", "LANG", "HOME", "PWD", "OLDPWD", "SHLVL", "_",
    }  # fmt: skip
