"""Worlds in which videos are split, or several queues have receivers."""

import random

from chaos.points import points
from chaos.sim import chaos as rates
from chaos.sim.parts import Nature
from chaos.sim.split_checks import SplitChecks
from chaos.sim.video_driver import VideoDriver
from chaos.sim.video_machine import VideoMachine
from chaos.sim.videos import MOST, SLOWED, Quirk, VideoJob, video_profile
from chaos.sim.world import RIGHT, World
from hevcq.domain.job import JobState

EVERY = 160
"""About one world in so many is of this kind."""


def is_video_world(seed: int) -> bool:
    """Whether this seed's world is of this kind; its own dice, so that others keep their traces."""
    return random.Random(f"videos {seed}").random() * EVERY < 1.0


class VideoWorld(World):
    """A world of split videos, with `receivers` where its seed says so.

    The process that passes the crash point `target` for the `target_in`th time is killed there.
    """

    checked_by, driven_by, worked_by = SplitChecks, VideoDriver, VideoMachine
    videos = receivers = False
    forced: tuple[str, ...] = ()
    """What a world has whatever its seed says, for tests."""

    def _choose(self) -> None:
        super()._choose()
        throw = self.random.random
        self.receivers = not self.embedded and throw() < 0.4
        self.videos = throw() < 0.8 or not self.receivers
        for name in self.forced:
            setattr(self, name, True)
        names = ["hevc", "other"] if self.receivers else list(self.profiles)
        number = rates.PROFILES["hevc"].index(self.profiles["hevc"])
        self.profiles = {name: video_profile(name, number) for name in names}
        aims = points("chunk", "join") if throw() < 0.8 else points("", "encode")
        self.target = aims[int(throw() * len(aims))] if self.chaos.level != "calm" else ""
        self.target_in = 1 + int(throw() ** 3 * 4)

    # --- what checks need

    def natural(self, job: VideoJob) -> set[str]:
        own = super().natural(job)
        spoilt = job.lost or job.quirk in {Quirk.UNFIT, Quirk.MISFIT}
        own |= {"encoder"} if spoilt else set()
        return own | ({"limit"} if self._endless(job) else set())

    def right_ends(self, job: VideoJob) -> set[JobState]:
        """A video that only its cutting spoils ends as it would have done whole."""
        right = super().right_ends(job)
        good = job.nature is Nature.GOOD and self.chaos.level == "calm"
        killed = any(one.nature is Nature.KILLER for one in self.jobs.values())
        bounded = self.limited or self._endless(job)
        if good and not killed and not job.replaced and not bounded:
            right = {RIGHT[Nature.GOOD]}
        return right

    def _endless(self, job: VideoJob) -> bool:
        """Whether a chunk that takes many times its time may meet its job's time limit."""
        slowest = job.seconds * SLOWED * MOST
        limits = [profile.queue.max_job_s for profile in self.profiles.values()]
        return job.quirk is Quirk.SLOW and slowest > min(limits)

    @property
    def limited(self) -> bool:
        """Whether a job's time limit may end it."""
        return any(p.queue.max_job_s < 39600 for p in self.profiles.values())
