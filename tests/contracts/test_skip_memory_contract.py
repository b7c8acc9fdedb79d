"""What every skip memory must do: remember by content, profile and revision."""

import pytest

from contracts.backends import World


def test_a_decision_about_bytes_is_remembered_for_its_recipe_only(world: World) -> None:
    skips = world.ledger
    skips.remember("ab" * 32, "hevc", "r1", "not smaller")

    found = skips.recall("ab" * 32, "hevc", "r1")

    assert found.reason == "not smaller"
    assert found.made_at == pytest.approx(world.clock.now(), abs=2)
    assert skips.recall("ab" * 32, "hevc", "r2") is None
    assert skips.recall("ab" * 32, "720p", "r1") is None
    assert skips.recall("cd" * 32, "hevc", "r1") is None
    skips.remember("ab" * 32, "hevc", "r1", "still not smaller")
    again = skips.recall("ab" * 32, "hevc", "r1")
    assert again.reason == "still not smaller"
