"""A settings file and the recipes of an earlier release mean what they meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from e2e.stored.relocate import HERE
from hevcq.settings.loader import load
from hevcq.settings.profile_files import load_profiles

STORED = json.loads((HERE / "settings.json").read_text())


def test_every_setting_is_taken_as_it_was() -> None:
    found = load(config=HERE / "hevcq.toml").settings.model_dump(mode="json")
    aws = found.pop("aws")
    wanted = dict(STORED["values"])
    assert aws | wanted.pop("aws") == aws
    assert found | wanted == found


@pytest.mark.parametrize("name", STORED["profiles"])
def test_a_recipe_that_was_shipped_says_what_it_said(name: str, tmp_path: Path) -> None:
    """Its revision is another, because defaults of keys that it leaves out have changed since."""
    text = STORED["profiles"][name]["yaml"]
    (tmp_path / f"{name}.yaml").write_text(text)
    found, said = load_profiles(tmp_path)[name].model_dump(mode="json"), yaml.safe_load(text)
    for key, value in said.items():
        if isinstance(value, dict):
            assert found[key] | value == found[key]
        else:
            assert found[key] == value
