"""Plan how one file would be encoded by some profiles, or encode a sample of it."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from hevcq.domain.certificate import Outcome
from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.planning.encode_plan import EncodePlan, Refuse, Rung, Skip, revise_plan
from hevcq.domain.planning.ladder import expected_bytes
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Container, Profile
from hevcq.domain.quality import Aim, Comparison
from hevcq.errors import HevcqError, MediaRefused, SourceDamaged, SourceUnreadable, UsageError
from hevcq.library.scanning.scan import Filter, FoundFile, find
from hevcq.ports.encoder import EncodeProgress, Encoder, EncodeRequest, OnProgress, SpareFolder
from hevcq.util.log import get_logger
from hevcq.util.text import encodable, printable

SEARCH_S = 3600.0
"""Most seconds for one sample of a quality search."""


def plan_one_file(info: MediaInfo, profile: Profile) -> dict[str, Any]:
    """Return a profile's plan for a file with the facts `info`, as JSON values."""
    head = {"profile": profile.name, "revision": profile.revision}
    plan = make_plan(profile, info)
    match plan:
        case Skip():
            reason = plan.reason.value
            return {**head, "action": "skip", "reason": reason, "detail": plan.detail}
        case Refuse():
            return {**head, "action": "refuse", "reason": plan.policy, "detail": plan.detail}
    values = plan.model_dump(mode="json", include={"extension", "streams", "chapters", "notices"})
    if plan.ladder is not None:
        values["rungs"] = [_rung(rung, info) for rung in plan.ladder.rungs]
    return {**head, "action": "encode", **values}


def search_quality(
    encoder: Encoder,
    location: str,
    profile: Profile,
    folder: Path,
    stop: threading.Event,
    on_share: Callable[[float], object],
) -> Aim | str:
    """Search the CRF for the profile's quality as a worker does; return why it cannot be searched, if so.

    Samples are written to `folder`; `on_share` gets the approximate share of the search that is done. Raises
    UsageError if the profile does not encode this file, and what `find_quality` and a pre-flight raise.
    """
    request = _encode_request(encoder, location, profile, folder, stop, SEARCH_S)
    return encoder.find_quality(replace(request, on_share=on_share), stop=stop, exact=True)


def _encode_request(
    encoder: Encoder,
    location: str,
    profile: Profile,
    folder: Path,
    stop: threading.Event,
    max_seconds: float,
) -> EncodeRequest:
    """Return the request of an encode into `folder`, as a worker would make it."""
    info = encoder.probe(location, stop=stop)
    plan = _require_plan(profile, info)
    measured = encoder.preflight(location, info, profile, stop=stop)
    info, plan = revise_plan(make_plan, profile, (info, plan), measured)
    return EncodeRequest(
        profile=profile,
        plan=plan,
        info=info,
        location=location,
        output=folder / f"made.{plan.extension}",
        duration_s=info.duration_s,
        source_size=info.size,
        max_seconds=max_seconds,
        measured=measured,
    )


def _require_plan(profile: Profile, info: MediaInfo) -> EncodePlan:
    plan = make_plan(profile, info)
    if not isinstance(plan, EncodePlan):
        raise UsageError(plan.detail, remedy="Choose another video to try it on.")
    return plan


def _rung(rung: Rung, info: MediaInfo) -> dict[str, Any]:
    usual, most = expected_bytes(rung, info)
    return {
        "name": rung.name,
        **rung.target.model_dump(include={"codec", "width", "height"}),
        **rung.model_dump(include={"crf", "max_kbps"}),
        "bytes": usual,
        "most_bytes": most,
    }


SAMPLE_S = 10.0
MAX_FOUND, OFFERED = 200, 12
"""Videos that are listed to choose from, and the most that are offered; a whole library takes minutes."""
MAX_S = 900.0
"""Most seconds for the sample's encode: some encoders need a minute per second on small machines."""
ROOM = 512 << 20
"""Bytes of scratch space for a sample, its rendition and the compared pictures."""


@dataclass(frozen=True, slots=True)
class TriedSample:
    """The result of a test encode: sizes in bytes and compared frames. `problem`: the failed check, or ""."""

    name: str
    before: int
    after: int
    seconds: float
    compared: Comparison | None
    problem: str = ""


def videos_in(folders: Sequence[Path], skip: Path) -> list[tuple[str, int]]:
    """Return the paths and bytes of the largest among the first videos below some folders."""
    videos = (each for each in find(folders, Filter(skip=[skip])) if isinstance(each, FoundFile))
    largest = sorted(islice(videos, MAX_FOUND), key=lambda each: -each.fingerprint.size)
    named = [(str(each.path), each.fingerprint.size) for each in largest]
    return [(name, size) for name, size in named if encodable(name) == name][:OFFERED]


def try_sample(
    encoder: Encoder,
    source: Path,
    profile: Profile,
    scratch: SpareFolder,
    *,
    on_progress: OnProgress,
    stop: threading.Event,
) -> TriedSample:
    """Encode SAMPLE_S seconds from the middle of a video, check and compare them.

    A sample from the middle may begin with frames whose reference frames are missing; then the video's
    beginning is used. Raises UsageError if the profile does not encode this video, and what an encode raises.
    """
    if profile.container is Container.HLS:
        raise UsageError("A sample shows one file, and this profile makes a set of several.")
    info = encoder.probe(str(source), stop=stop)
    _require_plan(profile, info)
    length = info.duration_s or 0.0
    damage = SourceUnreadable("No sample could be cut.")
    for at_s in dict.fromkeys((max(0.0, (length - SAMPLE_S) / 2), 0.0)):
        with scratch(ROOM) as folder:
            sample = folder / "sample.mkv"
            encoder.cut_sample(str(source), sample, at_s=at_s, seconds=SAMPLE_S, stop=stop)
            try:
                return _encode_sample(encoder, source.name, sample, profile, on_progress, stop)
            except (SourceDamaged, SourceUnreadable, MediaRefused) as error:
                words = error.message.replace(str(sample), printable(source.name))
                damage = SourceUnreadable(words, remedy="Choose another video to try it on.")
    raise damage


def _encode_sample(
    encoder: Encoder,
    name: str,
    sample: Path,
    profile: Profile,
    on_progress: OnProgress,
    stop: threading.Event,
) -> TriedSample:
    request = _encode_request(encoder, str(sample), profile, sample.parent, stop, MAX_S)
    report = encoder.encode(request, on_progress=on_progress, stop=stop)
    check = request.to_verify(report)
    gates = encoder.verify(check, on_progress=lambda _progress: None, stop=stop)
    failed = [each for each in gates if each.outcome not in {Outcome.PASSED, Outcome.OFF}]
    compared = None
    if (request.info.duration_s or 0.0) >= 1.0:
        pairs = encoder.frame_pairs(check, stop=stop)
        compared = pairs.compare(sample.parent, on_place=lambda _number, _count: None, stop=stop)
    return TriedSample(
        name=name,
        before=request.source_size,
        after=request.output.stat().st_size,
        seconds=report.seconds,
        compared=compared,
        problem=failed[0].detail if failed else "",
    )


class Trial:
    """The test encode that is running, or the result of the last one; only one runs at a time."""

    def __init__(self) -> None:
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._thread: threading.Thread | None = None
        self.name, self.profile, self.percent, self.problem = "", "", 0.0, ""
        self.tried: TriedSample | None = None

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, encoder: Encoder, video: Path, profile: Profile, scratch: SpareFolder) -> None:
        """Start a test encode in a thread, unless one is running."""
        with self._lock:
            if self.running:
                return
            self.name, self.percent, self.problem, self.tried = video.name, 0.0, "", None
            self.profile, self._stop = profile.name, threading.Event()
            work = (encoder, video, profile, scratch)
            self._thread = threading.Thread(target=self._run, args=work, daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(10)

    def _run(self, encoder: Encoder, video: Path, profile: Profile, scratch: SpareFolder) -> None:
        def note(progress: EncodeProgress) -> None:
            self.percent = round(100 * progress.fraction, 1)

        try:
            self.tried = try_sample(
                encoder, video, profile, scratch, on_progress=note, stop=self._stop
            )
        except HevcqError as error:
            self.problem = str(error)
        except Exception as error:  # noqa: BLE001 - the page that waits must see that it ended
            get_logger().error("sample_failed", reason=f"{type(error).__name__}: {error}")
            self.problem = "The test encode failed; the log says why."
