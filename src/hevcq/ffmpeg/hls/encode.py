"""Encode a set: run the one command, drop useless rungs, write playlists."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from hevcq.domain.keys import MASTER
from hevcq.domain.media.facts import StreamKind
from hevcq.domain.planning.encode_plan import (
    LOW,
    SOUNDS,
    SURROUND,
    Action,
    Rung,
    StreamPlan,
)
from hevcq.domain.planning.ladder import rungs_worth_keeping
from hevcq.errors import EncoderFailed
from hevcq.ffmpeg.containers.fragments import FragmentedFile, delay_fragments, read_fragments
from hevcq.ffmpeg.hls.command import (
    SetPaths,
    encoded_sounds_of,
    ladder_in,
    of_kind,
    set_command,
    set_paths,
    sounds_of,
    written,
)
from hevcq.ffmpeg.hls.playlists import set_playlists
from hevcq.ffmpeg.hls.storyboard import Images
from hevcq.ffmpeg.inputs import FfmpegTools
from hevcq.ffmpeg.run.runner import FfmpegRun, create_output, run_with_progress
from hevcq.ports.encoder import EncodeReport, EncodeRequest, OnProgress, SetFile

PLAYLIST, TEXT, JPEG, JSON = (
    "application/vnd.apple.mpegurl", "text/vtt", "image/jpeg", "application/json",
)  # fmt: skip
CONTENT_TYPES = {".m3u8": PLAYLIST, ".vtt": TEXT, ".jpg": JPEG, ".json": JSON}
_CLOCK = "X-TIMESTAMP-MAP=MPEGTS:0,LOCAL:00:00:00.000"
"""Puts subtitles on the clock of the media, which begins at 0 (RFC 8216, 3.5)."""


def encode_set(
    tools: FfmpegTools, request: EncodeRequest, on_progress: OnProgress, stop: threading.Event
) -> EncodeReport:
    """Encode the ladder to the folder of the request; see ports.encoder."""
    paths = set_paths(request)
    with new_folder(request.output, paths):
        files = written(request, paths)
        for path in files:
            create_output(path)
        report = run_with_progress(
            FfmpegRun(tools, request, stop),
            set_command(tools, request),
            request.duration_s,
            on_progress,
            writes=files,
        )
        return packaged(request, paths, report, Images(tools, request.profile, stop))


def packaged(
    request: EncodeRequest, paths: SetPaths, report: EncodeReport, images: Images
) -> EncodeReport:
    """Make everything of a set that is made of its encoded files, which are at `paths`."""
    package = _Package(request, paths, images)
    package.write()
    return replace(
        report,
        thumbnails=tuple(map(paths.thumbnails, package.rungs)),
        levels=tuple(map(paths.levels, encoded_sounds_of(request.plan))),
        files=tuple(package.files()),
        notices=package.notices,
    )


@contextlib.contextmanager
def new_folder(folder: Path, paths: SetPaths) -> Iterator[None]:
    """Create the folders of a set, raise EncoderFailed if there is one; remove all if the block fails."""
    try:
        folder.mkdir()
        paths.folder.mkdir()
    except FileExistsError as error:
        raise EncoderFailed(f"{folder} exists already and is not overwritten.") from error
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        for kind in ("thumbnails", "levels"):
            for path in folder.parent.glob(f"{folder.name}.{kind}-*"):
                path.unlink(missing_ok=True)
        raise


class _Package:
    """Everything of a set that is made of its encoded files."""

    def __init__(self, request: EncodeRequest, paths: SetPaths, images: Images) -> None:
        self._request = request
        self._plan = request.plan
        self._paths = paths
        self._images = images
        self._contents = {
            rung.name: self._read(paths.rung(rung)) for rung in ladder_in(self._plan).rungs
        }
        self.rungs = self._worthy()
        self.notices = tuple(
            f"{rung.name} is left out: {self._why_not(rung)}."
            for rung in ladder_in(self._plan).rungs
            if rung not in self.rungs
        )

    def write(self) -> None:
        """Write playlists, subtitles, chapters and images; the master playlist last."""
        self._show_in_time()
        sounds = {name: self._sound(name, track) for name, track in sounds_of(self._plan).items()}
        for number, _ in enumerate(of_kind(self._plan, StreamKind.SUBTITLE), 1):
            path = self._paths.text(number)
            words = path.read_text(encoding="utf-8")
            path.write_text(words.replace("WEBVTT", f"WEBVTT\n{_CLOCK}", 1), encoding="utf-8")
        lowest = min(self.rungs, key=lambda rung: rung.target.width * rung.target.height)
        for rung, draw in ((self.rungs[0], self._images.poster), (lowest, self._images.storyboard)):
            draw(self._paths.rung(rung), rung.target, self._contents[rung.name])
        request = self._request
        rungs = [(rung, self._contents[rung.name]) for rung in self.rungs]
        texts = set_playlists(self._plan, request.info, request.version, rungs, sounds)
        for name, text in texts.items():
            (request.output / name).write_text(text, encoding="utf-8")

    def files(self) -> Iterator[SetFile]:
        """Yield the files of the set, the master playlist last."""
        version = self._request.version
        for path in sorted(self._paths.folder.iterdir()):
            yield SetFile(f"{version}/{path.name}", content_type(path.name))
        yield SetFile(MASTER, PLAYLIST)

    def _worthy(self) -> list[Rung]:
        """Delete the rungs that are hardly smaller than the next higher one; return the others.

        The lowest also goes if it is too little for this video, for it would be a blur.
        """
        kept: list[Rung] = []
        for _, rungs in groupby(ladder_in(self._plan).rungs, key=lambda rung: rung.target.codec):
            family = list(rungs)
            family = [rung for rung in family if not self._is_starved(rung)] or family
            sizes = [(rung.name, float(self._contents[rung.name].size)) for rung in family]
            worthy = set(rungs_worth_keeping(sizes))
            kept += [rung for rung in family if rung.name in worthy]
        for rung in ladder_in(self._plan).rungs:
            if rung not in kept:
                self._paths.rung(rung).unlink()
                self._paths.thumbnails(rung).unlink(missing_ok=True)
        return kept

    def _is_starved(self, rung: Rung) -> bool:
        """Whether a low rung takes all that it may, and on through the whole video."""
        content = self._contents[rung.name]
        return rung.is_low and content.size * 8 > rung.max_kbps * 1000 * content.seconds

    def _why_not(self, rung: Rung) -> str:
        if self._is_starved(rung):
            return f"{rung.max_kbps} kbit/s are too few for this video"
        return "it needs hardly fewer bits than the rung above it"

    def _show_in_time(self) -> None:
        """Delay every rung by what the picture begins later than the file."""
        for rung in self.rungs:
            path, content = self._paths.rung(rung), self._contents[rung.name]
            self._contents[rung.name] = self._delayed(path, content, self._plan.main_video)

    def _delayed(self, path: Path, content: FragmentedFile, track: StreamPlan) -> FragmentedFile:
        """Delay a file that begins at 0 by what its track begins later than the source's file."""
        request = self._request
        source = request.measured.track(track.source_index)
        begins = (source.first_pts_s if source is not None else None) or 0.0
        late = max(0.0, begins - request.info.origin_s(self._plan.mapped))
        ticks = round(late * content.timescale)
        return delay_fragments(path, content, ticks) if ticks else content

    def _sound(self, name: str, track: StreamPlan) -> FragmentedFile:
        path = self._paths.sound(name)
        content = self._read(path)
        return self._delayed(path, content, track) if track.action is Action.COPY else content

    @staticmethod
    def _read(path: Path) -> FragmentedFile:
        try:
            return read_fragments(path)
        except ValueError as error:
            raise EncoderFailed(f"The encoded file {path.name} is not usable: {error}.") from error


def content_type(name: str) -> str:
    """Return the media type of a file of a set, by its name."""
    if name.endswith(".mp4"):
        return "audio/mp4" if name.startswith((SOUNDS, SURROUND, LOW)) else "video/mp4"
    return CONTENT_TYPES[Path(name).suffix]
