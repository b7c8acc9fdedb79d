"""What is missing on AWS is said in one sentence, with the exit code of a configuration."""

import pytest

from e2e.embedded.farm import Ran
from hevcq.cli.exit_codes import ExitCode

pytestmark = pytest.mark.aws


def one_sentence(ran: Ran, code: ExitCode, *words: str) -> None:
    assert ran.code == code, ran.err
    lines = [line for line in ran.err.splitlines() if not line.startswith("Running ")]
    assert len(lines) == 1, ran.err
    for word in words:
        assert word in lines[0]
    assert "Traceback" not in ran.err
    assert ran.out == ""


MISSING = {
    "credentials": (
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
        "There are no AWS credentials",
    ),
    "region": ({"HEVCQ_AWS__REGION": ""}, "There is no AWS region"),
    "input bucket": ({"HEVCQ_AWS__INPUT_BUCKET": ""}, "No input bucket is set"),
    "wrong input bucket": ({"HEVCQ_AWS__INPUT_BUCKET": "not-there"}, "not-there"),
    "wrong output bucket": ({"HEVCQ_AWS__OUTPUT_BUCKET": "nowhere"}, "nowhere"),
    "queue": ({"HEVCQ_AWS__TABLE": "none"}, "find the queue none-"),
    "topic": (
        {"HEVCQ_AWS__TOPIC_ARN": "arn:aws:sns:eu-central-1:123456789012:none"},
        "find the topic",
    ),
}


def test_what_is_missing_is_named_and_nothing_is_touched(fleet):
    for environment, words in MISSING.values():
        one_sentence(fleet.run("status", env=environment), ExitCode.CONFIG, words)
    nowhere = {"HEVCQ_AWS__ENDPOINT_URL": "http://127.0.0.1:9"}
    one_sentence(fleet.run("status", env=nowhere), ExitCode.UNAVAILABLE, "could not be reached")
    video = fleet.clip("video.mp4")
    before = video.stat()

    ran = fleet.run("ingest", fleet.media, env=MISSING["wrong input bucket"][0])

    one_sentence(ran, ExitCode.CONFIG, "not-there")
    assert video.stat() == before
