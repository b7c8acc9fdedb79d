"""A farm of uploaded videos in a data folder: real records, files and queues, a pretended encoder."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from contracts.backends import PROFILES
from hevcq.backends.sql.factory import open_sql
from hevcq.backends.sql.video_records import FolderVideoFiles
from hevcq.domain.job import JobRecord, job_id
from hevcq.domain.videos import Video
from hevcq.settings.model import Settings
from hevcq.settings.web import UploadSettings
from hevcq.usecases.videos.manage import VideoFarm, refresh
from hevcq.usecases.videos.uploads import UploadRequest, complete_upload, request_upload
from support.clips import ManualClock
from support.fakes.encoder import FakeEncoder
from support.fakes.farm import FakeWorker

CLIP = b"a video's bytes"


class VideoBench:
    """Ann and Bob upload; `work` lets a worker take every message that is visible."""

    def __init__(self, folder: Path, farm: VideoFarm | None = None) -> None:
        self.folder, self.encoder = folder, FakeEncoder()
        self.close: Callable[[], None] = lambda: None
        self.farm = farm if farm is not None else self._opened()
        self.clock, self.backend = self.farm.clock, self.farm.backend

    def _opened(self) -> VideoFarm:
        clock = ManualClock(1_800_000_000.0, auto=True)
        opened = open_sql(Settings(data_dir=self.folder / "data"), PROFILES, clock)
        self.close = opened.close
        numbers = itertools.count(1)
        return VideoFarm(
            videos=opened.videos,
            files=FolderVideoFiles(self.folder / "data" / "videos", opened.backend.store),
            backend=opened.backend,
            profiles=PROFILES,
            limits=UploadSettings(),
            clock=clock,
            chance=lambda count: next(numbers).to_bytes(count),
            catalog=opened.catalog,
        )

    def limit(self, **limits: Any) -> None:
        """Change the settings, as a restart with others does."""
        self.farm = replace(self.farm, limits=UploadSettings(**limits))

    def request(self, owner: str = "ann", **facts: Any) -> Video:
        """Begin an upload."""
        given: dict[str, Any] = {"name": "Holiday.MOV", "size": len(CLIP)}
        return request_upload(self.farm, UploadRequest(owner=owner, **{**given, **facts}))

    def send(self, video: Video, content: bytes = CLIP) -> None:
        """Append bytes to an upload."""
        with self.farm.files.receive(video) as receiver:
            receiver.append(content)
            receiver.sync()

    def upload(self, owner: str = "ann", **facts: Any) -> Video:
        """Upload a whole video, and queue it."""
        video = self.request(owner, **facts)
        self.send(video)
        return complete_upload(self.farm, video)

    def work(self, *profiles: str) -> None:
        """Let a worker of these profiles (none: all) take what is visible."""
        worker = FakeWorker(self.backend, self.folder, self.clock, self.encoder)
        worker.do(*(self.farm.profiles[name] for name in profiles or self.farm.profiles))

    def done(self, owner: str = "ann", **facts: Any) -> Video:
        """Return a video with all its renditions."""
        video = self.upload(owner, **facts)
        self.work()
        return refresh(self.farm, video)

    def telling(self, video: Video, *names: tuple[str, ...] | None) -> Video:
        """Return the video with renditions that tell these things (None: nobody looked)."""
        found = zip(video.renditions, names, strict=True)
        made = [{**each.model_dump(), "personal": personal} for each, personal in found]
        return self.farm.change(video, renditions=made)

    def now(self, video: Video) -> Video:
        """Return the record as it is."""
        return self.farm.videos.get(video.video_id)

    def job(self, video: Video, profile: str) -> JobRecord:
        """Return the ledger's record."""
        assert video.source is not None
        return self.backend.ledger.get(job_id(video.source, profile))

    def raw(self, video: Video) -> Path:
        """Return where the uploaded file is."""
        (found,) = [
            path
            for path in (self.folder / "data" / "videos").iterdir()
            if path.name.startswith(video.video_id)
        ] or [Path("gone")]
        return found
