"""Settings to ports to use cases; the only module that knows both backends."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from hevcq.clock import Clock, SystemClock
from hevcq.profiles import installed_folder, load_profiles
from hevcq.settings import Settings

if TYPE_CHECKING:
    from hevcq.domain.profile import Profile
    from hevcq.embedded.open import EmbeddedBackend
    from hevcq.ports.backend import Backend
    from hevcq.ports.catalog import Catalog
    from hevcq.ports.encoder import Encoder


class App:
    """Everything a use case may ask for, opened on first use and closed together.

    Opening raises ConfigError, StorageError or Unavailable.
    """

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.clock: Clock = clock if clock is not None else SystemClock()

    @cached_property
    def profiles(self) -> Mapping[str, Profile]:
        """Every profile by name."""
        return load_profiles(self.settings.profiles_dir or installed_folder())

    @cached_property
    def _embedded(self) -> EmbeddedBackend:
        from hevcq.embedded.open import open_embedded

        return open_embedded(self.settings, self.profiles, self.clock)

    @cached_property
    def backend(self) -> Backend:
        """The queues, ledger, store and fan-out of the chosen way of running."""
        if self.settings.backend == "embedded":
            return self._embedded.backend
        from hevcq.aws.open import open_aws

        return open_aws(self.settings, self.profiles, self.clock)

    @cached_property
    def catalog(self) -> Catalog:
        """What this machine knows of library folders; local in both ways of running."""
        if self.settings.backend == "embedded":
            return self._embedded.catalog
        from hevcq.embedded.open import open_catalog

        return open_catalog(self.settings.data_dir / "catalog.db", self.clock)

    @cached_property
    def encoder(self) -> Encoder:
        """ffmpeg."""
        from hevcq.ffmpeg.encoder import FfmpegEncoder

        return FfmpegEncoder(self.settings.ffmpeg, self.settings.ffprobe, self.clock)

    def close(self) -> None:
        """Close what was opened; may be called twice."""
        backend = self.__dict__.pop("backend", None)
        if backend is not None:
            backend.close()


def open_app(settings: Settings, clock: Clock | None = None) -> App:
    """Return the app of these settings; nothing is opened before it is used."""
    return App(settings, clock)
