"""How hard one world is treated: every number drawn from its seed."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

from chaos.sim.doors import REMOTE
from hevcq.domain.profile import Profile, QueueNumbers, VideoCodec
from hevcq.domain.profile_sections import VideoRecipe


class SimProfile(Profile):
    """A profile whose revision is computed once: worlds ask for it very often."""

    @cached_property
    def revision(self) -> str:
        return f"{self.video.crf:012.0f}"


VIDEO = VideoRecipe(codec=VideoCodec.HEVC, crf=28.0)


def revised(profile: SimProfile) -> SimProfile:
    """Return a profile as a worker of the neighbouring deployment has it: other settings under its name."""
    made = profile.model_copy(update={"video": profile.video.model_copy(update={"crf": 27.0})})
    made.__dict__.pop("revision", None)  # what was computed for the other one
    return made


def _profile(name: str, **numbers) -> SimProfile:
    return SimProfile(name=name, description="sim", video=VIDEO, queue=QueueNumbers(**numbers))


def _variants(name: str) -> list[SimProfile]:
    rows = [
        (30, 10, 3, 3, 39600, 5),
        (60, 10, 3, 3, 39600, 30),
        (60, 20, 2, 2, 3600, 10),
        (120, 6, 1, 3, 39600, 30),
        (300, 10, 3, 3, 39600, 30),
        (300, 8, 3, 4, 900, 5),
        (900, 12, 4, 3, 39600, 60),
        (3600, 10, 3, 2, 39600, 30),
        (43200, 10, 3, 3, 39600, 30),
    ]
    keys = ("visibility_s", "max_receives", "max_failures", "max_crashes")
    keys += ("max_job_s", "backoff_base_s")
    return [_profile(name, **dict(zip(keys, row, strict=True))) for row in rows]


PROFILES = {name: _variants(name) for name in ("hevc", "other")}


@dataclass
class Chaos:
    """The rates of one world. `hang_s` scales how long hung calls and frozen processes stay."""

    level: str
    p_fault: float
    p_kill_point: float
    p_encode: float
    latency_s: float
    hang_s: float
    weights: list[float]

    def pick(self, random_: random.Random) -> str:
        return random_.choices(REMOTE, self.weights)[0]


LEVELS = {"calm": 0.0, "light": 0.004, "rough": 0.02, "storm": 0.06}


def draw(random_: random.Random, visibility_s: float) -> Chaos:
    """Draw a world's rates."""
    level = random_.choices(list(LEVELS), [1, 4, 4, 1])[0]
    rate = LEVELS[level]
    weights = [random_.random() ** 2 for _ in REMOTE]
    return Chaos(
        level=level,
        p_fault=rate * random_.random(),
        p_kill_point=rate / 4 * random_.random(),
        p_encode=rate * 3 * random_.random(),
        latency_s=random_.choice([0.02, 0.2, 1.0]),
        hang_s=min(visibility_s, 4000.0),
        weights=weights if sum(weights) else [1.0] * len(REMOTE),
    )


@dataclass
class Stats:
    """What one or many worlds did."""

    worlds: int = 0
    lives: int = 0
    steps: int = 0
    seconds: float = 0.0
    ends: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    killed_at: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)

    def add(self, other: Stats) -> None:
        """Take another's numbers in."""
        self.worlds += other.worlds
        self.lives += other.lives
        self.steps += other.steps
        self.seconds += other.seconds
        for name in ("ends", "faults", "calls", "points", "killed_at", "outcomes"):
            getattr(self, name).update(getattr(other, name))
