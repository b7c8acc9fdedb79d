"""What a log line carries, and where it goes."""

import io
import json
from collections.abc import Iterator

import pytest
import structlog

from hevcq.util import log


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    kept = structlog.get_config()
    yield
    structlog.configure(**kept)


def test_bound_names_are_on_every_line_of_the_context_and_on_none_after_it():
    stream = io.StringIO()
    log.configure("info", "json", stream)

    with log.bind(job="j1"):
        log.get_logger(slot=2).info("claimed")
    log.get_logger().info("idle")

    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["event"], first["job"], first["slot"]) == ("claimed", "j1", 2)
    assert "job" not in second


@pytest.mark.parametrize("style", ["console", "json"])
@pytest.mark.parametrize(
    "name", ["\x1b]0;title\x07\x1b[2J.mp4", "a\x0bfake", "a\nfake", "a\u2028b\u202e", "\udcff"]
)
def test_a_strangers_name_neither_breaks_a_line_nor_controls_the_terminal(style, name):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="utf-8")
    log.configure("info", style, stream)

    log.get_logger(source=name).info(name, reason=name)
    stream.flush()

    written = raw.getvalue().decode()
    assert written.endswith("\n")
    assert written[:-1].isprintable()


def test_a_traceback_keeps_its_lines_and_nothing_else():
    stream = io.StringIO()
    log.configure("info", "console", stream)

    try:
        raise ValueError("of \x1b[2J.mp4")
    except ValueError:
        log.get_logger().exception("broke")

    assert "Traceback (most recent call last):\n" in stream.getvalue()
    assert r"of \x1b[2J.mp4" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_lines_that_a_display_shows_are_dropped_from_the_console_and_kept_in_json():
    for style, left in (("console", ["other"]), ("json", ["job_buried", "other"])):
        stream = io.StringIO()
        log.configure("info", style, stream, shown=lambda line: line.get("job") == "a")
        log.get_logger(job="a").warning("job_buried")
        log.get_logger(job="b").warning("other")
        assert [name for name in ("job_buried", "other") if name in stream.getvalue()] == left
