"""A film that an ingest has just probed is not probed again by the worker beside it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from hevcq.domain.media import MediaInfo
from hevcq.errors import Stopped
from hevcq.ffmpeg import memo
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.ffmpeg.memo import ProbeMemo, identity
from hevcq.util.clock import SystemClock


@pytest.fixture
def looks(monkeypatch) -> list[str]:
    """The probes that were really made."""
    made: list[str] = []

    def probe(_tools, location, stop):
        made.append(location)
        if stop.is_set():
            raise Stopped
        return MediaInfo(format_name=f"look {len(made)}")

    monkeypatch.setattr("hevcq.ffmpeg.probe.probe", probe)
    return made


@pytest.fixture
def film(tmp_path) -> Path:
    path = tmp_path / "film.mp4"
    path.write_bytes(b"film")
    return path


def look(encoder: FfmpegEncoder, location: object) -> str:
    return encoder.probe(str(location), stop=threading.Event()).format_name


def test_a_second_look_is_spared_and_a_third_is_not(looks, film):
    encoder = FfmpegEncoder("ffmpeg", "ffprobe", SystemClock())

    assert [look(encoder, film) for _ in range(3)] == ["look 1", "look 1", "look 2"]


def test_a_film_that_changed_meanwhile_is_looked_at_again(looks, film):
    encoder = FfmpegEncoder("ffmpeg", "ffprobe", SystemClock())
    look(encoder, film)
    facts = film.stat()

    # Same size, same name, and its time of modification set back
    other = film.with_name("other")
    other.write_bytes(b"FILM")
    os.utime(other, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    other.rename(film)

    assert look(encoder, film) == "look 2"


def test_a_url_is_always_looked_at(looks):
    encoder = FfmpegEncoder("ffmpeg", "ffprobe", SystemClock())

    assert [look(encoder, "https://x/film.mp4") for _ in range(2)] == ["look 1", "look 2"]


def test_a_look_that_failed_is_not_kept(looks, film):
    encoder, stop = FfmpegEncoder("ffmpeg", "ffprobe", SystemClock()), threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        encoder.probe(str(film), stop=stop)

    assert look(encoder, film) == "look 2"


def test_no_more_than_so_many_are_kept(film, monkeypatch):
    monkeypatch.setattr(memo, "MOST", 2)
    kept, now = ProbeMemo(), identity(str(film))
    for name in "abc":
        kept.keep(name, now, MediaInfo(format_name=name))

    found = [kept.take(name, now) for name in "abc"]

    assert [info and info.format_name for info in found] == ["a", "b", None]
