"""Open what the use cases of uploaded videos need."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hevcq.usecases.videos.context import VideoFarm
    from hevcq.wiring.app import App


def video_farm(app: App) -> VideoFarm:
    """Return the ports of uploaded videos with their limits; opens the backend."""
    from hevcq.usecases.videos.context import VideoFarm

    settings = app.settings
    embedded = settings.backend == "embedded"
    return VideoFarm(
        videos=app.videos,
        files=app.video_files,
        backend=app.backend,
        profiles=app.profiles,
        limits=settings.uploads,
        clock=app.clock,
        chance=secrets.token_bytes,
        catalog=app.catalog if embedded else None,
        least_free=settings.min_free_mib << 20 if embedded else 0,
    )
