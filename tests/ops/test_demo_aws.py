"""The demo of the farm works on the profiles that it made queues for, whoever runs it."""

import shutil
from pathlib import Path

import pytest
from scripts import demo_aws

from hevcq.settings.loader import load
from hevcq.settings.model import AwsSettings
from hevcq.wiring.app import App


def test_the_demo_knows_its_profiles_and_hls_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in demo_aws.PROFILES:
        shutil.copy(demo_aws.ROOT / "workers" / f"{name}.yaml", tmp_path)
    made = AwsSettings(region="eu-central-1", endpoint_url="http://127.0.0.1:9", input_bucket="b")
    monkeypatch.setenv("HEVCQ_AWS__INPUT_BUCKET", "somebody-s")

    told = demo_aws.environment(made, tmp_path, tmp_path / "data")

    for name, value in told.items():
        monkeypatch.setenv(name, value)
    settings = load().settings
    assert set(App(settings).profiles) == {"hevc", "720p", "1080p", "hls"}
    assert settings.aws.input_bucket == "b"
