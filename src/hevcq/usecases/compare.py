"""Show a job's rendition beside its source, frame by frame: one comparison at a time, kept as files."""

import json
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from hevcq.domain.job import JobRecord, JobState
from hevcq.domain.quality import Aim, Comparison, Probe, Still
from hevcq.errors import HevcqError, SourceGone, SourceUnreadable, UsageError
from hevcq.ports.catalog import UNPLACED, Placement, PlacementState
from hevcq.ports.encoder import FramePairs, OnPlace
from hevcq.usecases.context import LibraryPorts, Tools, placing
from hevcq.usecases.verify_files import VerifyFilesRequest, frame_pairs
from hevcq.util.log import get_logger
from hevcq.util.text import printable, size

FRAMES = 24
"""Frames shown around a moment of the video."""
MAX_WAITING = 8
MAX_OF_ONE = 3
"""Comparisons that one person may have open."""
MAX_PROBLEMS = 100
MAX_KEPT = 20
"""Comparisons that are kept, some 15 MB each for 1080p."""
CHILD_S = 600.0
"""Most seconds for one program of a comparison."""
ACCEPTED = "Accepted by "
GONE = {
    PlacementState.EXPIRED: "The original of {} is deleted, so there is nothing to compare with.",
    PlacementState.UNDONE: "The original of {} was brought back; the rendition is gone.",
}


@dataclass(frozen=True, slots=True)
class Look:
    """A requested comparison of a finished job: its worst frames, or those around `at_s` seconds."""

    job: JobRecord
    at_s: float | None = None

    @property
    def name(self) -> str:
        """The name of its folder, made of the job, the rendition's digest and the moment in milliseconds."""
        rendition = self.job.rendition
        place = "worst" if self.at_s is None else f"{round(self.at_s * 1000)}"
        return f"{self.job.job_id}-{rendition.sha256[:12] if rendition else ''}-{place}"


@dataclass(frozen=True, slots=True)
class ShownFrames:
    """The state of a comparison. `frames` are (seconds, score) of all compared frames, `shown` are (seconds,
    score, name) of those with pictures, which are fetched by index. `sizes` are in bytes; `waiting` is
    the current step, `problem` why the comparison failed."""

    metric: str = ""
    frames: Sequence[tuple[float, float]] = ()
    shown: Sequence[tuple[float, float, str]] = ()
    sizes: tuple[int, int] = (0, 0)
    waiting: str = ""
    problem: str = ""


def require_comparable(job: JobRecord) -> None:
    """Raise UsageError unless the job has a rendition of one file."""
    if job.state is not JobState.DONE or job.rendition is None:
        raise UsageError("There is no rendition to compare yet.")
    if job.rendition.key.endswith(".m3u8"):
        raise UsageError("A set of files can't be compared; only a rendition of one file can.")


@contextmanager
def files_of(
    job: JobRecord, tools: Tools, folder: Path, stop: threading.Event
) -> Iterator[tuple[Path, Path]]:
    """Yield a job's source and rendition as files, from the library if they are placed, else from the store.

    Raises SourceGone if a file is gone, and what the store raises.
    """
    require_comparable(job)
    assert job.rendition is not None
    placement = tools.catalog.placement(job.job_id)
    if placement is not None and placement.state not in UNPLACED:
        yield _placed_files(placement)
        return
    with ExitStack() as stack:
        fetched = tools.backend.store.fetch(job.source, folder, moved=lambda _: None, stop=stop)
        source = stack.enter_context(fetched)
        streamed = tools.backend.store.stream_published(job.rendition.key, folder, stop=stop)
        rendition = stack.enter_context(streamed).path
        if rendition is None:
            rendition = folder / "rendition"
            tools.backend.store.collect(job.rendition.key, rendition, stop=stop)
        yield source.path or Path(source.location), rendition


def _placed_files(placement: Placement) -> tuple[Path, Path]:
    name = printable(placement.source)
    replaced = placement.state is PlacementState.REPLACED
    source = placement.retained if replaced else placement.source
    if placement.state in GONE or source is None:
        raise SourceGone(GONE.get(placement.state, GONE[PlacementState.EXPIRED]).format(name))
    for path in (source, placement.target):
        if not path.is_file():
            raise SourceGone(f"{printable(path)} is gone: moved, deleted, or its disk is away.")
    return source, placement.target


def accept(job_id: str, ports: LibraryPorts, who: str) -> bool:
    """Record that a person accepts a replaced video's rendition; return False if it is not replaced.

    The original stays until its retention ends.
    """
    with placing(ports) as require:
        placement = ports.catalog.placement(job_id)
        if placement is None or placement.state is not PlacementState.REPLACED:
            return False
        require()
        ports.catalog.record_placements([replace(placement, detail=f"{ACCEPTED}{who}.")])
        return True


class Comparisons:
    """Compares one pair at a time in its own thread, and keeps the results in `folder`."""

    def __init__(self, tools: Tools, folder: Path) -> None:
        self._tools, self._folder = tools, folder
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="compare")
        self._asked: dict[str, tuple[str, Future[str]]] = {}
        """For each look, who asked for it, and its problem or ""."""
        self._now = ""
        self._last: tuple[str, FramePairs] | None = None

    def ask(self, look: Look, who: str) -> None:
        """Queue a comparison unless it is queued or done already. Raises UsageError if too many wait."""
        require_comparable(look.job)
        with self._lock:
            open_now = {name: by for name, (by, asked) in self._asked.items() if not asked.done()}
            if look.name in open_now or self._read(look.name) is not None:
                return
            of_one = list(open_now.values()).count(who)
            if of_one >= MAX_OF_ONE or len(open_now) > MAX_WAITING:
                raise UsageError("Too many comparisons are under way; wait until one has ended.")
            ended = [name for name in self._asked if name not in open_now]
            for name in [look.name, *ended[:-MAX_PROBLEMS]]:
                self._asked.pop(name, None)
            self._asked[look.name] = who, self._pool.submit(self._try_compare, look)

    def shown(self, look: Look) -> ShownFrames | None:
        """Return the state of a comparison; None if nobody asked for it."""
        with self._lock:
            _, asked = self._asked.get(look.name, ("", None))
        if asked is not None and not asked.done():
            waits = "Waiting for another comparison to end"
            return ShownFrames(waiting=self._now if asked.running() else waits)
        if asked is not None and not asked.cancelled() and (problem := asked.result()):
            return ShownFrames(problem=problem)
        return self._read(look.name)

    def picture(self, look: Look, number: int, side: str) -> bytes:
        """Return a picture as JPEG, or b""; `side` is "source" or "made"."""
        try:
            return (self._folder / look.name / f"{number}-{side}.jpg").read_bytes()
        except OSError:
            return b""

    def close(self) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)

    def join(self) -> None:
        wait([asked for _, asked in self._asked.values()])

    def _try_compare(self, look: Look) -> str:
        self._now = "Reading both files"
        try:
            self._compare(look)
        except (HevcqError, OSError) as error:
            problem = str(error) or "It could not be compared."
        except Exception as error:  # noqa: BLE001 - a bug must not end all later comparisons
            problem = f"It could not be compared: {type(error).__name__}: {error}."
        else:
            return ""
        get_logger(job=look.job.job_id).info("not_compared", reason=problem)
        return problem

    def _compare(self, look: Look) -> None:
        tools, job, stop = self._tools, look.job, self._stop

        def on_place(number: int, count: int) -> None:
            self._now = f"Measuring place {number + 1} of {count}"

        with tools.scratch(0) as folder, files_of(job, tools, folder, stop) as (source, made):
            sizes = source.stat().st_size, made.stat().st_size
            with self._pairs(job, tools, (source, made), folder) as pairs:
                comparison = _compared(pairs, look, folder, on_place, stop)
        if comparison is None or not comparison.stills:
            raise SourceUnreadable("No frame can be compared there.")
        self._keep(look.name, comparison, sizes)

    @contextmanager
    def _pairs(
        self, job: JobRecord, tools: Tools, files: tuple[Path, Path], folder: Path
    ) -> Iterator[FramePairs]:
        """Yield the frame pairs of both files; those of the last comparison if the files are the same."""
        source, made = files
        facts = [(each.stat().st_mtime_ns, each.stat().st_size) for each in files]
        identity = f"{job.job_id} {source} {made} {facts}"
        if self._last is not None and self._last[0] == identity:
            yield self._last[1]
            return
        profile = tools.profiles.get(job.profile)
        if profile is None:
            raise UsageError(f"The profile {job.profile} no longer exists.")
        request = VerifyFilesRequest(source, made, profile)
        opened = frame_pairs(
            tools.encoder, request, stop=self._stop, scratch=tools.scratch, child_s=CHILD_S
        )
        with opened as pairs:
            # A recording's trimmed copy and files in `folder` are deleted afterwards.
            if pairs.lasting and folder not in {*source.parents, *made.parents}:
                self._last = (identity, pairs)
            yield pairs

    def _keep(self, name: str, comparison: Comparison, sizes: tuple[int, int]) -> None:
        """Write a comparison in one step, and delete the oldest ones beyond MAX_KEPT."""
        place, temp = self._folder / name, self._folder / f".{name}"
        shutil.rmtree(temp, ignore_errors=True)
        temp.mkdir(parents=True)
        for number, still in enumerate(comparison.stills):
            (temp / f"{number}-source.jpg").write_bytes(still.source)
            (temp / f"{number}-made.jpg").write_bytes(still.made)
        facts = {
            "metric": comparison.metric,
            "frames": comparison.frames,
            "shown": [(still.at_s, still.score, still.name) for still in comparison.stills],
            "sizes": sizes,
        }
        (temp / "shown.json").write_text(json.dumps(facts), encoding="utf-8")
        shutil.rmtree(place, ignore_errors=True)
        temp.rename(place)
        with os.scandir(self._folder) as entries:
            kept = sorted((each.stat().st_mtime_ns, each.path) for each in entries)
        for _, path in kept[:-MAX_KEPT]:
            shutil.rmtree(path, ignore_errors=True)

    def _read(self, name: str) -> ShownFrames | None:
        try:
            facts = json.loads((self._folder / name / "shown.json").read_text(encoding="utf-8"))
            return ShownFrames(**facts)
        except (OSError, ValueError, TypeError):
            return None


def _compared(
    pairs: FramePairs, look: Look, folder: Path, on_place: OnPlace, stop: threading.Event
) -> Comparison | None:
    if look.at_s is None:
        return pairs.compare(folder, on_place=on_place, stop=stop)
    stills: Sequence[Still] = pairs.around(look.at_s, FRAMES, folder, stop=stop)
    return Comparison(pairs.name, tuple((each.at_s, each.score) for each in stills), tuple(stills))


WIDTH, HEIGHT, EDGE = 640, 360, 60
"""Pixels of the drawing, and of its margins."""


def unsure(aim: Aim) -> str:
    """Return why the largest CRF that scored above the target was not chosen."""
    return (
        f"CRF {aim.uncertain_crf:g} is not chosen: its samples differ, so the whole may score less."
    )


def curve_svg(aim: Aim) -> str:
    """Return a search as a drawing: bytes on the x axis, VMAF on the y axis, the target as a line."""
    known = sorted((each for each in aim.probes if each.size), key=lambda each: each.size or 0)
    right = max((each.size or 0 for each in known), default=1) * 1.05
    low = min([aim.target, *(each.vmaf for each in known)]) - 1
    high = max([aim.target, *(each.vmaf for each in known)]) + 1

    def across(each: Probe) -> float:
        return EDGE + (each.size or 0) / right * (WIDTH - 2 * EDGE)

    def up(vmaf: float) -> float:
        return HEIGHT - EDGE - (vmaf - low) / (high - low) * (HEIGHT - 2 * EDGE)

    line = " ".join(f"{across(each):.1f},{up(each.vmaf):.1f}" for each in known)
    goal = up(aim.target)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">',
        '<g font-family="sans-serif" font-size="12" fill="none" stroke="#555">',
        f'<path d="M{EDGE} {EDGE}V{HEIGHT - EDGE}H{WIDTH - EDGE}"/>',
        f'<path d="M{EDGE} {goal:.1f}H{WIDTH - EDGE}" stroke-dasharray="4"/>',
        f'<polyline points="{line}" stroke="#06c" stroke-width="2"/>',
    ]
    for each in known:
        x, y, chosen = across(each), up(each.vmaf), each.crf == aim.crf
        clear = y + 20 if 0 < y - goal < 24 else y - 10  # the words do not cross the target's line
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{6 if chosen else 3}" fill="#06c" stroke="none"/>'
            f'<text x="{x:.1f}" y="{clear:.1f}" text-anchor="middle" stroke="none" fill="#555"'
            f' font-weight="{"bold" if chosen else "normal"}">CRF {each.crf:g}: {size(each.size)},'
            f" {each.vmaf:.1f}</text>"
        )
    parts += _labels(aim, (low, high), right)
    return "\n".join([*parts, "</g></svg>"]) + "\n"


def _labels(aim: Aim, scores: tuple[float, float], right: float) -> Iterator[str]:
    """Yield the title, the ends of both axes, and why a larger CRF was not chosen."""
    bottom = HEIGHT - EDGE
    for x, y, words in (
        (EDGE, EDGE - 20, f"VMAF of the worst twentieth, by size; {aim.target:g} was asked for"),
        (EDGE - 40, EDGE + 4, f"{scores[1]:.1f}"),
        (EDGE - 40, bottom, f"{scores[0]:.1f}"),
        (EDGE, bottom + 20, "0 Bytes"),
        (WIDTH - EDGE - 20, bottom + 20, size(round(right))),
        (EDGE, bottom + 40, unsure(aim) if aim.uncertain_crf else ""),
    ):
        yield f'<text x="{x}" y="{y}" stroke="none" fill="#555">{words}</text>'
