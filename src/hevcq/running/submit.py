"""One video that a program submits, by its path or by its key in S3."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hevcq.domain.events import EventName, IngestEvent
from hevcq.errors import NoSuchVideo, UsageError
from hevcq.running.ingest import IngestApplication
from hevcq.settings.libraries import Library, library_of
from hevcq.usecases.ingest.decide import Disposition, Item
from hevcq.usecases.ingest.request import IngestRequest, library_request
from hevcq.util.signals import StopSignals
from hevcq.util.text import encodable, printable
from hevcq.wiring.app import App


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of a video for one profile; `job` is "" where there is none, `reason` why."""

    profile: str
    result: str
    job: str = ""
    reason: str = ""


def submit_path(app: App, text: str, profiles: Sequence[str]) -> list[Submitted]:
    """Queue a file of a library by its rules, for these of its profiles (none: all); a job stays as it is.

    Only what the library itself would make is queued, so that whoever looks after it puts it in place.
    Raises UsageError for a path outside of the libraries, NoSuchVideo, UnknownProfile, ConfigError.
    """
    if "\0" in text or encodable(text) != text or not text.startswith("/"):
        raise UsageError("The path must be a whole one, from / on.")
    named = Path(os.path.abspath(text))  # noqa: PTH100 - links are kept
    real = Path(os.path.realpath(named))
    library = library_of(app.settings.libraries, named)
    if library is None or not real.is_relative_to(library.place_on_disk):
        raise UsageError(
            f"{printable(text)} is in no library of this machine.",
            remedy="Add its folder as a library; paths are those that this machine sees.",
        )
    if not real.is_file():
        raise NoSuchVideo(f"There is no file {printable(text)}.")
    request = _file_request(library, real)
    usual = app.settings.ingest.profiles
    offered = [each.name for each in request.chosen_profiles(app.profiles, usual)]
    if other := [name for name in profiles if name not in offered]:
        raise UsageError(
            f"The library {library.name} does not make {other[0]}, only {', '.join(offered)}.",
            remedy="Add it to the library's profiles.",
        )
    if profiles:
        chosen = library.model_copy(update={"profiles": tuple(profiles)})
        request = replace(request, library=chosen)
    queued: dict[str, str] = {}

    def note(event: IngestEvent) -> None:
        if event.event is EventName.JOB_QUEUED and event.profile and event.job:
            queued[event.profile] = event.job

    ingest = IngestApplication(app, request, note, StopSignals())
    with ingest.in_use():
        items = ingest.plan().items
        ingest.work(items)
    return [_submitted(item, queued) for item in items]


def _file_request(library: Library, real: Path) -> IngestRequest:
    """Return the request for one file: of a mirror, its own folder there."""
    request = replace(library_request(library, no_wait=True), roots=(real,), include=())
    if request.output is None:
        return request
    return replace(request, output=request.output / real.parent.relative_to(library.place_on_disk))


def _submitted(item: Item, queued: dict[str, str]) -> Submitted:
    profile = item.profile.name if item.profile is not None else ""
    job, result = item.job_id or queued.get(profile, ""), item.disposition.value
    if item.disposition is Disposition.QUEUE and not job:
        result = Disposition.FAILED.value
    return Submitted(profile, result, job, item.reason)


def submit_key(app: App, key: str, profiles: Sequence[str]) -> list[Submitted]:
    """Queue the newest version of an object of the input bucket for these profiles, or the subscribed ones.

    Raises UsageError, NoSuchVideo, UnknownProfile.
    """
    if not app.settings.on_aws:
        raise UsageError("A key names an object in S3, and this farm is not on AWS; send a path.")
    found = (each for each in app.backend.store.sources(key) if each.key == key)
    source = next(found, None)
    if source is None:
        raise NoSuchVideo(f"There is no object {printable(key)} in the input bucket.")
    wanted = profiles or [name for name, each in app.profiles.items() if each.subscribe]
    jobs = app.backend.task_publisher.publish(source, list(wanted), announced=False)
    return [Submitted(job.profile, job.state.value, job.job_id, job.reason) for job in jobs]
