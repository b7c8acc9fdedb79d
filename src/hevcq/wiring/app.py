"""Open what the settings configure; the only module that imports both backends."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hevcq.errors import file_errors
from hevcq.settings.model import Settings
from hevcq.settings.profile_files import read_profiles
from hevcq.util.capacity import Capacity, capacity
from hevcq.util.clock import Clock, SystemClock
from hevcq.util.text import ffmpeg_release

if TYPE_CHECKING:
    from hevcq.backends.aws.clients import Clients
    from hevcq.backends.aws.factory import CompatibleStore
    from hevcq.backends.sql.factory import SqlBackend
    from hevcq.backends.sql.migrate import Migration
    from hevcq.domain.profile import Profile
    from hevcq.domain.schedule import Hours
    from hevcq.ffmpeg.encoder import FfmpegEncoder
    from hevcq.ports.backend import Backend
    from hevcq.ports.encoder import Encoder
    from hevcq.ports.videos import Accounts, VideoFiles, VideoRecords
    from hevcq.sql.catalog import Catalog
    from hevcq.usecases.context import LibraryPorts, Ports
    from hevcq.usecases.operations.pausing import DailyCap
    from hevcq.usecases.settings.changes import SettingsFile
    from hevcq.util.processes import Processes

SomeEncoder = TypeVar("SomeEncoder", bound="FfmpegEncoder")

SHOWN = ("libraries", "ingest", "sync", "schedule", "notify", "webhook", "media_server")
"""Settings that the page shows, and that take effect at once when it changes them."""


class App:
    """Everything that use cases need: each property opens on its first use, and `close` closes all.

    Opening one raises ConfigError, StorageError or Unavailable.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock | None = None,
        config: Path | None = None,
    ) -> None:
        """Open nothing yet; `config` is the settings file that was named, if any."""
        self.settings, self._config = settings, config
        self.clock: Clock = clock if clock is not None else SystemClock()

    @cached_property
    def profiles(self) -> dict[str, Profile]:
        """Every profile by name; on AWS those that have a queue there. Only `adopt_profiles` changes it."""
        return read_profiles(self.settings)

    @property
    def settings_file(self) -> SettingsFile:
        """The settings file of this machine, for changes."""
        from hevcq.settings.loader import settings_path
        from hevcq.usecases.settings.changes import SettingsFile

        return SettingsFile(settings_path(self._config), self.settings.data_dir, self.clock)

    def adopt_settings(self, new: Settings, names: Iterable[str] = SHOWN) -> None:
        """Use the settings `names` of `new` from now on; the others stay, because open parts use them."""
        self.settings = self.settings.model_copy(update={n: getattr(new, n) for n in names})

    def adopt_saved(self) -> None:
        """Use the present content of the settings file and the profiles' folder."""
        self.adopt_settings(self.settings_file.settings())
        self.adopt_profiles(read_profiles(self.settings))

    def adopt_profiles(self, profiles: Mapping[str, Profile]) -> tuple[list[str], list[str]]:
        """Use changed and new profiles from now on; return their names, and those that need a restart.

        A removed profile and one with other queue numbers need a restart. So does a new one on AWS,
        where Terraform makes each profile's queue.
        """
        present, adopted = self.profiles, list[str]()
        new = profiles.keys() - present.keys()
        later = sorted(
            (present.keys() - profiles.keys()) | (new if self.settings.on_aws else set())
        )
        for name in profiles.keys() & present.keys():
            if profiles[name] != present[name]:
                (adopted if profiles[name].queue == present[name].queue else later).append(name)
        if not self.settings.on_aws:
            for name in new:
                self._sql.open_queue(profiles[name])
            adopted += new
        # In place, because others hold the same dictionary.
        present.update({name: profiles[name] for name in adopted})
        return sorted(adopted), sorted(later)

    def aim_profiles(self, *profiles: Profile) -> None:
        """Use this command's own recipes for the jobs it queues; jobs of others keep theirs."""
        self.adopt_profiles({**self.profiles, **{each.name: each for each in profiles}})
        for profile in profiles:
            self.backend.queues[profile.name].asked = profile.video.crf, profile.video.quality

    @cached_property
    def _sql(self) -> SqlBackend:
        from hevcq.backends.sql.factory import open_sql

        if not self.settings.s3.bucket:
            return open_sql(self.settings, self.profiles, self.clock)
        opened = open_sql(self.settings, self.profiles, self.clock, self._bucket)
        try:
            self._bucket.require_conditions()  # refuses another farm's bucket, and a server without conditional writes
        except BaseException:
            opened.close()
            raise
        return opened.with_store(self._bucket.beside)

    @cached_property
    def _bucket(self) -> CompatibleStore:
        from hevcq.backends.aws.factory import CompatibleStore

        return CompatibleStore(self.settings, self.clock)

    @cached_property
    def processes(self) -> Processes:
        """The rows of this data folder's processes, including this one's."""
        if not self.settings.on_aws:
            return self._sql.processes
        from hevcq.util.processes import FOLDER, Processes

        with file_errors("written", self.settings.data_dir):
            processes = Processes(self.settings.data_dir / FOLDER, self.clock)
            processes.reap(lambda _owner, _died_alone: None, now=True)
        return processes

    @cached_property
    def backend(self) -> Backend:
        if not self.settings.on_aws:
            return self._sql.backend
        from hevcq.backends.aws.factory import open_aws

        return open_aws(self.settings, self.profiles, self.clock)

    @contextmanager
    def scratch(self, needed_bytes: int) -> Iterator[Path]:
        """Create an empty folder in the scratch folder, and remove it afterwards.

        Raises DiskFull unless `needed_bytes` are free. If it is left by a kill, a worker sweeps it.
        """
        from hevcq.worker.admission import Scratch

        keep = self.settings.min_free_mib << 20
        with (
            closing(Scratch(self.settings.scratch, self.clock)) as own,
            own.job("check", min_free_bytes=needed_bytes + keep) as folder,
        ):
            yield folder

    @cached_property
    def worker_backend(self) -> Backend:
        """The backend of a worker, which retries its control calls itself."""
        if not self.settings.on_aws:
            return self._sql.backend
        from hevcq.backends.aws.factory import open_aws

        return open_aws(self.settings, self.profiles, self.clock, caller_retries=True)

    @cached_property
    def catalog(self) -> Catalog:
        """The catalog of placements in library folders; local to this machine with both backends."""
        if not self.settings.on_aws:
            return self._sql.catalog
        from hevcq.backends.sql.factory import open_catalog

        return open_catalog(self.settings.data_dir / "catalog.db", self.clock)

    @cached_property
    def videos(self) -> VideoRecords:
        if not self.settings.on_aws:
            return self._sql.videos
        from hevcq.backends.aws.videos.records import DynamoVideoRecords

        return DynamoVideoRecords(self._clients.dynamodb, self.settings.aws.videos)

    @cached_property
    def accounts(self) -> Accounts:
        if not self.settings.on_aws:
            from hevcq.backends.sql.video_records import SqlAccounts

            return SqlAccounts(self._sql.database)
        from hevcq.backends.aws.videos.records import DynamoAccounts

        return DynamoAccounts(self._clients.dynamodb, self.settings.aws.videos)

    @cached_property
    def video_files(self) -> VideoFiles:
        if self.settings.s3.bucket:
            return self._bucket.video_files
        if not self.settings.on_aws:
            from hevcq.backends.sql.video_records import FolderVideoFiles

            return FolderVideoFiles(self.settings.files_dir / "videos", self.backend.store)
        from hevcq.backends.aws.factory import buckets_of
        from hevcq.backends.aws.videos.files import S3VideoFiles

        return S3VideoFiles(self._clients.s3, buckets_of(self.settings.aws))

    @cached_property
    def _clients(self) -> Clients:
        """The AWS clients of parts that no worker needs."""
        from hevcq.backends.aws.clients import make_clients

        return make_clients(self.settings.aws)

    @cached_property
    def encoder(self) -> Encoder:
        from hevcq.ffmpeg.encoder import FfmpegEncoder

        return self.new_encoder(FfmpegEncoder)

    def new_encoder(self, kind: type[SomeEncoder]) -> SomeEncoder:
        """Return an encoder of this kind with the programs of the settings."""
        import platformdirs

        from hevcq.ffmpeg.process.sandbox import DRIVERS

        return kind(
            self.settings.ffmpeg,
            self.settings.ffprobe,
            self.clock,
            sandboxed=self.settings.sandbox,
            passes=platformdirs.user_cache_path("hevcq", appauthor=False) / "self-tests",
            metric=self.settings.metric_ffmpeg,
        ).with_drivers({name: os.environ[name] for name in DRIVERS if name in os.environ})

    @cached_property
    def capacity(self) -> Capacity:
        """Parallel encodes and threads, from the setting `workers` or this machine."""
        return capacity(self.settings.workers)

    def slots_per_job(self, profile: Profile) -> int:
        """Return how many slots may share a video: this process's, all of a PostgreSQL farm, or the fleet's.

        A video's chunks add to the queue's depth, which scales the fleet up to `fleet.max_tasks` tasks
        of one slot each. If there is only one slot, no video is split. Machines with another ffmpeg do
        not count, because its chunks do not fit.
        """
        if self.settings.on_aws:
            return profile.fleet.max_tasks
        slots = self.capacity.slots
        if self.settings.backend == "embedded" or self.backend.machines is None:
            return slots
        ours = ffmpeg_release(self.encoder.version())
        working = [
            each.facts.slots
            for each in self.backend.machines.processes()
            if each.alive and not each.drained_by and each.facts.ffmpeg == ours
        ]
        return max(slots, sum(working))

    @property
    def library_ports(self) -> LibraryPorts:
        """Ports for changing library folders on this machine; opens no backend."""
        from hevcq.usecases.context import LibraryPorts

        return LibraryPorts(self.catalog, self.clock, self.settings.data_dir)

    @property
    def ports(self) -> Ports:
        from hevcq.usecases.context import Ports

        return Ports(self.catalog, self.clock, self.settings.data_dir, self.backend)

    @property
    def hours(self) -> Hours:
        """The hours in which this machine may work; a fleet's workers have their own settings."""
        from hevcq.domain.schedule import Hours

        return self.settings.schedule.hours() if not self.settings.on_aws else Hours()

    def condition(self) -> str:
        """Return why the gate command of this machine forbids work now, or ""."""
        settings = self.settings.schedule
        if not settings.gate_command or self.settings.on_aws:
            return ""
        from hevcq.ffmpeg.process.child import run_command
        from hevcq.usecases.operations.pausing import GateCommand

        condition = GateCommand(lambda: settings.gate_command, run_command)
        condition.check()
        return condition.reason()

    @cached_property
    def daily_cap(self) -> DailyCap:
        """The check that pauses all work once the settings' dollars for a day are spent."""
        from hevcq.usecases.operations.pausing import DailyCap
        from hevcq.usecases.operations.status import encoded_since

        ledger = self.backend.ledger
        return DailyCap(
            ledger,
            lambda since: self.settings.prices.cost(encoded_since(ledger, since)),
            lambda: self.settings.prices.max_per_day,
            self.clock,
            self.hours.schedule.zone,
        )

    def close(self) -> None:
        """Close everything that was opened; idempotent."""
        if self.settings.on_aws:  # a database closes its own
            if (processes := self.__dict__.get("processes")) is not None:
                processes.close(forget=True)
            if (catalog := self.__dict__.get("catalog")) is not None:
                catalog.close()
        for name in ("catalog", "processes", "videos", "video_files"):
            self.__dict__.pop(name, None)
        for name in ("backend", "worker_backend", "_sql", "_clients", "_bucket"):
            opened = self.__dict__.pop(name, None)
            if opened is not None:
                opened.close()


def migration(settings: Settings, to: str) -> AbstractContextManager[Migration]:
    """Open the migration of the data folder's records to another engine; see `backends.sql.migrate`."""
    from hevcq.backends.sql.migrate import open_migration

    return open_migration(settings, to, SystemClock())
