"""JSON log lines: whoever writes one while a job is in hand, it says which job that is."""

import io
import json

import pytest

from hevcq.errors import EncoderFailed
from hevcq.util import log
from hevcq.util.log import get_logger
from hevcq.worker.handler import ProfileQueue
from hevcq.worker.slot import Slot
from support.fakes.farm import Farm


@pytest.fixture
def stream() -> io.StringIO:
    stream = io.StringIO()
    log.configure("debug", "json", stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def worker_of(farm: Farm) -> Slot:
    return Slot(farm.context, farm.handler(), [ProfileQueue(farm.profile, farm.queue)])


def named(line: dict[str, object]) -> dict[str, object]:
    return {name: line.get(name) for name in ("job", "profile", "attempt", "source")}


@pytest.mark.parametrize("error", [None, EncoderFailed("exit 1"), ZeroDivisionError("a defect")])
def test_every_line_about_a_job_names_it(tmp_path, stream, error):
    farm = Farm(tmp_path)
    source = farm.submit()
    farm.encoder.during["encode"] = lambda: get_logger().info("from_deep_below")
    if error is not None:
        farm.encoder.errors["verify"] = [error]

    worker_of(farm).step()

    written = lines(stream)
    expected = {
        "job": farm.record(source).job_id,
        "profile": "hevc",
        "attempt": 1,
        "source": source.key,
    }
    assert [named(line) for line in written] == [expected] * len(written)
    assert {"job_started", "from_deep_below"} < {line["event"] for line in written}
