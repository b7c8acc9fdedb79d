"""Encode a set: run its one command, drop useless rungs, write playlists and images."""

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
from hevcq.domain.planning.encode_plan import LOW, SOUNDS, SURROUND, Action, Rung, StreamPlan
from hevcq.domain.planning.ladder import rungs_worth_keeping
from hevcq.errors import EncoderFailed
from hevcq.ffmpeg.containers.fragments import FragmentedFile, delay_fragments, read_fragments
from hevcq.ffmpeg.hls.command import (
    encoded_sounds_of,
    kept_tracks,
    ladder_in,
    output_files,
    set_command,
    set_paths,
    sounds_of,
)
from hevcq.ffmpeg.hls.playlists import set_playlists
from hevcq.ffmpeg.hls.storyboard import Images
from hevcq.ffmpeg.inputs import FfmpegTools
from hevcq.ffmpeg.run.runner import FfmpegRun, create_output, run_with_progress
from hevcq.ports.encoder import EncodeReport, EncodeRequest, OnProgress, SetFile

PLAYLIST = "application/vnd.apple.mpegurl"
CONTENT_TYPES = {
    ".m3u8": PLAYLIST, ".vtt": "text/vtt", ".jpg": "image/jpeg", ".json": "application/json"
}  # fmt: skip
_CLOCK = "X-TIMESTAMP-MAP=MPEGTS:0,LOCAL:00:00:00.000"
"""Maps the times of subtitles to those of the media, which begin at 0 (RFC 8216, 3.5)."""


def encode_set(
    tools: FfmpegTools, request: EncodeRequest, on_progress: OnProgress, stop: threading.Event
) -> EncodeReport:
    """Encode the ladder to the folder of the request; see ports.encoder."""
    job, command = FfmpegRun(tools, request, stop), set_command(tools, request)
    with new_set_files(request) as files:
        report = run_with_progress(job, command, request.duration_s, on_progress, writes=files)
        return package_set(job, report)


def package_set(job: FfmpegRun, report: EncodeReport) -> EncodeReport:
    """Make playlists, images and texts of a set whose media files are encoded, and drop useless rungs."""
    package, paths = _Package(job), set_paths(job.request)
    package.write()
    return replace(
        report,
        thumbnails=tuple(map(paths.thumbnails, package.rungs)),
        levels=tuple(map(paths.levels, encoded_sounds_of(job.request.plan))),
        files=tuple(package.files()),
        notices=package.notices,
    )


@contextlib.contextmanager
def new_set_files(request: EncodeRequest) -> Iterator[list[Path]]:
    """Create the folders of a set, and yield its new empty files; remove all if the block fails.

    Raises EncoderFailed if the folder exists.
    """
    folder, files = request.output, output_files(request)
    try:
        folder.mkdir()
        set_paths(request).folder.mkdir()
    except FileExistsError as error:
        raise EncoderFailed(f"{folder} exists already and is not overwritten.") from error
    try:
        for path in files:
            create_output(path)
        yield files
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        for kind in ("thumbnails", "levels"):
            for path in folder.parent.glob(f"{folder.name}.{kind}-*"):
                path.unlink(missing_ok=True)
        raise


class _Package:
    """Everything of a set that is made from its encoded files.

    `rungs` are those that are worth keeping; `notices` say which were left out, and why.
    """

    def __init__(self, job: FfmpegRun) -> None:
        self._request = job.request
        self._plan = job.request.plan
        self._paths = set_paths(job.request)
        self._images = Images(job.tools, job.request.profile, job.stop)
        rungs = ladder_in(self._plan).rungs
        self._contents = {rung.name: self._read(self._paths.rung(rung)) for rung in rungs}
        self.rungs = self._drop_useless_rungs()
        self.notices = tuple(
            f"{rung.name} is left out: {self._reason_left_out(rung)}."
            for rung in rungs
            if rung not in self.rungs
        )

    def write(self) -> None:
        """Write playlists, subtitles, chapters and images; the master playlist last."""
        for rung in self.rungs:
            path, content = self._paths.rung(rung), self._contents[rung.name]
            self._contents[rung.name] = self._shift_start(path, content, self._plan.main_video)
        sounds = {name: self._sound(name, track) for name, track in sounds_of(self._plan).items()}
        for number, _ in enumerate(kept_tracks(self._plan, StreamKind.SUBTITLE), 1):
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

    def _drop_useless_rungs(self) -> list[Rung]:
        """Delete the rungs that are hardly smaller than the next higher one; return the others.

        A low rung also goes if its bit rate is too small for this video: it would be a blur.
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
        """Whether a low rung exceeds its largest bit rate over the whole video."""
        content = self._contents[rung.name]
        return rung.is_low and content.size * 8 > rung.max_kbps * 1000 * content.seconds

    def _reason_left_out(self, rung: Rung) -> str:
        if self._is_starved(rung):
            return f"{rung.max_kbps} kbit/s are too few for this video"
        return "it needs hardly fewer bits than the rung above it"

    def _shift_start(
        self, path: Path, content: FragmentedFile, track: StreamPlan
    ) -> FragmentedFile:
        """Shift a zero-based file by the track's start offset in the source."""
        request = self._request
        source = request.measured.track(track.source_index)
        begins = (source.first_pts_s if source is not None else None) or 0.0
        late = max(0.0, begins - request.info.origin_s(self._plan.mapped))
        ticks = round(late * content.timescale)
        return delay_fragments(path, content, ticks) if ticks else content

    def _sound(self, name: str, track: StreamPlan) -> FragmentedFile:
        path = self._paths.sound(name)
        content = self._read(path)
        return self._shift_start(path, content, track) if track.action is Action.COPY else content

    @staticmethod
    def _read(path: Path) -> FragmentedFile:
        try:
            return read_fragments(path)
        except ValueError as error:
            raise EncoderFailed(f"The encoded file {path.name} is not usable: {error}.") from error


def content_type(name: str) -> str:
    """Return the media type of a set's file by its name."""
    if name.endswith(".mp4"):
        return "audio/mp4" if name.startswith((SOUNDS, SURROUND, LOW)) else "video/mp4"
    return CONTENT_TYPES[Path(name).suffix]
