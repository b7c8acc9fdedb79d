"""Follow a video's jobs in the ledger; change, share, retry and delete it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hevcq.domain.certificate import Certificate
from hevcq.domain.job import SETTLED, JobRecord, JobState, Source, job_id, split_progress
from hevcq.domain.planning.encode_plan import skip_in_words
from hevcq.domain.profile import Profile
from hevcq.domain.videos import (
    MAX_DESCRIPTION,
    MAX_TITLE,
    Quota,
    Share,
    Video,
    VideoRendition,
    VideoStatus,
    Visibility,
    decide_status,
    is_video_id,
    make_slug,
    one_line,
    output_prefix,
    paragraphs,
    parse_tags,
    remedy_of,
    use_upload_name,
)
from hevcq.errors import BadUpload, Conflict, HevcqError, NoSuchVideo, UsageError
from hevcq.ports.backend import Backend
from hevcq.ports.videos import VideoFiles, VideoRecords
from hevcq.settings.web import GIB, UploadSettings
from hevcq.sql.catalog import Catalog
from hevcq.usecases.operations.reprocess import ReprocessRequest, cancel, reprocess
from hevcq.usecases.placement.collect import note_kept
from hevcq.util.clock import Clock

OWNER_OPEN, FARM_OPEN = 10, 200
"""Unfinished uploads that one person, and everybody together, may have."""


@dataclass(frozen=True)
class VideoFarm:
    """The ports of uploaded videos with their limits.

    `catalog` is of a machine whose clock alone is not believed (a data folder), else None. `chance`
    returns that many random bytes. `least_free` is in bytes.
    """

    videos: VideoRecords
    files: VideoFiles
    backend: Backend
    profiles: Mapping[str, Profile]
    limits: UploadSettings
    clock: Clock
    chance: Callable[[int], bytes]
    catalog: Catalog | None = None
    least_free: int = 0

    @property
    def quota(self) -> Quota:
        limits = self.limits
        return Quota(
            owner_size=int(limits.owner_gib * GIB) or None,
            owner_open=OWNER_OPEN,
            farm_size=int(limits.farm_gib * GIB) or None,
            farm_open=FARM_OPEN,
        )

    def find(self, video_id: str, owner: str | None) -> Video:
        """Return a video of `owner` (None: anybody's). Raises NoSuchVideo, also for another's."""
        video = self.videos.get(video_id) if is_video_id(video_id) else None
        if video is None or owner not in (None, video.owner):
            raise NoSuchVideo("There is no such video.")
        return video

    def jobs(self, video: Video) -> dict[str, JobRecord | None]:
        """Return the job of each profile of a video whose upload is complete, as the ledger has it."""
        assert video.source is not None
        ledger, source = self.backend.ledger, video.source
        return {name: ledger.get(job_id(source, name)) for name in video.profiles}

    def certificate(self, key: str) -> Certificate | None:
        """Return a certificate, or None if there is none that can be read."""
        try:
            with self.backend.store.open(key) as stream:
                return Certificate.read(stream)
        except HevcqError:
            return None

    def change(self, video: Video, **facts: object) -> Video:
        """Update some facts of the record; raises Conflict.

        A video that ends by it is an event to send, unless its records write it by themselves.
        """
        now, status = self.clock.now(), facts.get("status", video.status)
        if status is not video.status and not self.videos.sends_ends:
            ended = status in {VideoStatus.DONE, VideoStatus.FAILED}
            facts["unsent"] = {"at": now, "next_at": now} if ended else None
        checked = {**video.model_dump(), **facts, "updated_at": now}
        return self.videos.update(Video.model_validate(checked))


class ProfileRow(VideoRendition):
    """What one profile makes of a video, as of now.

    `percent` is that of the phase, 0 to 100; `eta_s` seconds; `saved` the share of the uploaded
    file's size that the rendition saves (negative where it is larger), None while there is none.
    """

    phase: str = ""
    percent: float = 0.0
    speed: float | None = None
    eta_s: float | None = None
    saved: float | None = None
    remedy: str = ""


def refresh(farm: VideoFarm, video: Video) -> Video:
    """Bring the record up to what the ledger says; return it as it is now.

    Jobs that a profile lacks are queued: the process that took the upload in may have died.
    """
    source = video.source
    if source is None:
        return video
    records = farm.jobs(video)
    if video.status is VideoStatus.PROCESSING and any(each is None for each in records.values()):
        farm.backend.task_publisher.publish(source, video.profiles, announced=False)
        records = farm.jobs(video)
    known = {each.profile: each for each in video.renditions}
    settled = []
    for profile, record in records.items():
        if record is None:  # forgotten by the ledger (on AWS after half a year): as last seen
            if profile in known:
                settled.append(known[profile])
        elif record.state in SETTLED:
            settled.append(_rendition(farm, record, known.get(profile)))
    try:
        return _noted(farm, video, settled)
    except Conflict:
        return farm.videos.get(video.video_id) or video


def _noted(farm: VideoFarm, video: Video, settled: Sequence[VideoRendition]) -> Video:
    status, why = decide_status(video.profiles, settled)
    facts: dict[str, object] = {"status": status, "reason": "", "remedy": "", "failure_class": None}
    if why is not None:
        failed = [each for each in settled if each.state is JobState.DEAD]
        words = use_upload_name(video, why.reason)
        if failed and len(video.profiles) > 1:
            words = f"{len(failed)} of {len(video.profiles)} formats failed. {why.profile}: {words}"
        facts |= {"reason": words, "failure_class": why.failure_class if failed else None}
        facts["remedy"] = remedy_of(why.failure_class) if failed else ""
    if video.raw_deleted_at is None:
        facts |= _retention(farm, video, settled)
    shown = _shown(video, settled)
    changed = shown != video.renditions or any(
        getattr(video, name) != value for name, value in facts.items()
    )
    if not changed:
        return video
    return farm.change(video, renditions=[each.model_dump() for each in shown], **facts)


def _shown(video: Video, settled: Sequence[VideoRendition]) -> tuple[VideoRendition, ...]:
    """Return the entries to keep: those that settled, and what is made again but is still there."""
    found = {each.profile: each for each in video.renditions if each.key}
    found |= {each.profile: each for each in settled}
    return tuple(found[name] for name in video.profiles if name in found)


def _retention(
    farm: VideoFarm, video: Video, settled: Sequence[VideoRendition]
) -> dict[str, float | None]:
    """Return from when, and until when at least, the uploaded file is kept.

    Its time begins when every profile's rendition is published, and anew after any was made again.
    """
    made = {each.profile for each in settled if each.state is JobState.DONE}
    if made != set(video.profiles):
        return {"done_at": None, "raw_due_at": None}
    if video.done_at is not None:
        return {}
    if farm.catalog is not None:
        note_kept(farm.catalog, farm.clock, kept_name(video))
    now = farm.clock.now()
    return {"done_at": now, "raw_due_at": now + farm.limits.raw_retention_s}


def kept_name(video: Video) -> str:
    """Return the name under which the catalog knows since when the uploaded file is kept."""
    return f"video-{video.video_id}"


def rows(farm: VideoFarm, video: Video) -> list[ProfileRow]:
    """Return a row for each profile, with the live progress of its job."""
    if video.source is None:
        return []
    known = {each.profile: each for each in video.renditions}
    found = []
    for profile, record in farm.jobs(video).items():
        if record is not None:
            found.append(_row(farm, video, record))
        elif profile in known:
            found.append(_settled_row(video, known[profile]))
    return found


def settled_rows(video: Video, *, shared: bool = False) -> list[ProfileRow]:
    """Return a row for each format that is known to have ended (or those of them that are shared)."""
    found = (each for each in video.renditions if not shared or video.shares(each))
    return [_settled_row(video, each) for each in found]


def _row(farm: VideoFarm, video: Video, record: JobRecord) -> ProfileRow:
    if record.state in SETTLED:
        known = {each.profile: each for each in video.renditions}
        return _settled_row(video, _rendition(farm, record, known.get(record.profile)))
    progress = record.progress
    if record.split is not None:
        parts = farm.backend.ledger.subjobs(record.job_id)
        shared = split_progress(record, parts)
        progress = shared.progress if shared is not None else progress
    return ProfileRow(
        profile=record.profile,
        job_id=record.job_id,
        state=record.state,
        phase=progress.phase.value if progress else "",
        percent=progress.percent if progress else 0.0,
        speed=progress.speed if progress else None,
        eta_s=progress.eta_s if progress else None,
        reason=skip_in_words(record.reason)[1] if record.reason else "",
        failure_class=record.failure_class,
    )


def _settled_row(video: Video, made: VideoRendition) -> ProfileRow:
    dead = made.state is JobState.DEAD
    shown = {**dict(made), "reason": use_upload_name(video, made.reason)}
    return ProfileRow(
        **shown,
        percent=100.0 if made.state is JobState.DONE else 0.0,
        saved=1 - made.size / video.upload.size if made.size else None,
        remedy=remedy_of(made.failure_class) if dead else "",
    )


def _rendition(farm: VideoFarm, record: JobRecord, known: VideoRendition | None) -> VideoRendition:
    """Return the entry of a settled job; the size of a set is that of all its files."""
    made = record.rendition
    if made is None or record.state is not JobState.DONE:
        return VideoRendition(
            profile=record.profile,
            job_id=record.job_id,
            state=record.state,
            reason=skip_in_words(record.reason)[1] if record.reason else "",
            failure_class=record.failure_class,
        )
    if known is not None and known.sha256 == made.sha256 and known.key == made.key:
        return known
    proof = farm.certificate(made.certificate_key)
    if proof is not None and proof.rendition_sha256 != made.sha256:
        proof = None  # of other bytes
    return VideoRendition(
        profile=record.profile,
        job_id=record.job_id,
        state=record.state,
        key=made.key,
        certificate_key=made.certificate_key,
        size=proof.total_size if proof else made.size,
        sha256=made.sha256,
        notices=made.notices,
        personal=proof.personal if proof else None,
    )


def rename(
    farm: VideoFarm,
    video: Video,
    *,
    title: str | None = None,
    description: str | None = None,
    tags: Sequence[str] | None = None,
) -> Video:
    """Change title, description or tags; None leaves it. Raises UsageError for an empty title."""
    facts: dict[str, object] = {}
    if title is not None:
        facts["title"] = one_line(title, MAX_TITLE)
        if not facts["title"]:
            raise UsageError("A title has at least one character.")
    if description is not None:
        facts["description"] = paragraphs(description, MAX_DESCRIPTION)
    if tags is not None:
        facts["tags"] = parse_tags(tags)
    return farm.change(video, **facts) if facts else video


def publish(
    farm: VideoFarm,
    video: Video,
    *,
    tags: bool = False,
    original: bool = False,
    share: Share | None = None,
) -> Video:
    """Make the video public under an address that cannot be guessed; a public one keeps its own.

    `tags` is its owner's word that formats are shared with what they tell of people, places and
    devices, `original` that the uploaded file is too. `share` are new terms; None keeps those it has.
    Raises UsageError without a word that is needed.
    """
    video = refresh(farm, video)
    if video.personal and not tags:
        raise UsageError(
            f"Its files tell more than the video shows: {', '.join(video.personal)}.",
            remedy='Agree to share that too: tick the box, or send "tags": true, or add --tags.',
        )
    if video.status is VideoStatus.DONE and not video.made and not original:
        raise UsageError(
            "No format of it was made, so only the uploaded file can be shared.",
            remedy='Agree to share that: tick the box, or send "original": true.',
        )
    facts = {"visibility": Visibility.PUBLIC, "public_tags": tags, "public_original": original}
    facts["share"] = share or video.share
    if all(getattr(video, name) == value for name, value in facts.items()):
        return video
    slug = video.slug or make_slug(video.title, farm.chance(10))
    return farm.change(video, slug=slug, **facts)


def set_terms(farm: VideoFarm, video: Video, share: Share) -> Video:
    """Change the terms of a public video; its address stays. Raises UsageError of a private one."""
    if video.visibility is Visibility.PRIVATE:
        raise UsageError("It is private.", remedy="Make it public first.")
    return farm.change(video, share=share) if share != video.share else video


def unpublish(farm: VideoFarm, video: Video) -> Video:
    """Make the video private; its public address leads nowhere from now on."""
    if video.visibility is Visibility.PRIVATE:
        return video
    return farm.change(video, visibility=Visibility.PRIVATE, slug=None, share=Share())


def retry(farm: VideoFarm, video: Video, who: str, profiles: Sequence[str] = ()) -> Video:
    """Queue failed formats again (all of them, or the named ones); return the video as it is then.

    Raises BadUpload if there is nothing to encode any more, UsageError if none failed.
    """
    if video.source is None:
        raise BadUpload("The upload was not completed.", remedy="Upload the file again.")
    if video.raw_deleted_at is not None or video.raw_leaving:
        raise BadUpload("The uploaded file was deleted.", remedy="Upload the file again.")
    wanted = [name for name in video.profiles if not profiles or name in profiles]
    # The record first: whoever deletes the uploaded file holds an older revision from here on.
    video = farm.change(video, status=VideoStatus.PROCESSING, done_at=None, raw_due_at=None)
    assert video.source is not None
    ids = [job_id(video.source, name) for name in wanted]
    request = ReprocessRequest(
        ids, states=frozenset({JobState.DEAD}), who=who, why="retry", exact=True
    )
    done = list(reprocess(farm.backend, request))
    video = refresh(farm, video)
    if not done:
        raise UsageError("No format of this video failed.")
    return video


def stop(farm: VideoFarm, video: Video, who: str, profiles: Sequence[str] = ()) -> Video:
    """Cancel queued and running formats (all of them, or the named ones)."""
    if video.source is not None:
        wanted = [name for name in video.profiles if not profiles or name in profiles]
        ids = [job_id(video.source, name) for name in wanted]
        list(cancel(farm.backend, ids, who))
    return refresh(farm, video)


def delete(farm: VideoFarm, video: Video, who: str) -> None:
    """Delete a video with everything that belongs to it: upload, jobs, renditions, certificates.

    The record goes last, so that a kill in between leaves it to be deleted again. Raises Conflict
    while a client is sending it.
    """
    if video.visibility is Visibility.PUBLIC:
        video = unpublish(farm, video)
    if video.source is not None:
        _delete_renditions(farm, video, video.source, who)
    farm.files.discard(video)
    for _ in range(3):
        try:
            farm.videos.delete(video)
        except Conflict:
            there = farm.videos.get(video.video_id)
            if there is None:
                return
            video = there
        else:
            return
    raise Conflict("The video is being changed by somebody else just now.", remedy="Try again.")


def _delete_renditions(farm: VideoFarm, video: Video, source: Source, who: str) -> None:
    """Cancel what is under way, then delete what was published, also by profiles that are gone."""
    for name in video.profiles:
        job = farm.backend.ledger.get(job_id(source, name))
        if job is not None and job.state not in SETTLED:
            list(cancel(farm.backend, [job.job_id], who))
    store = farm.backend.store
    for name in dict.fromkeys([*video.profiles, *farm.profiles]):
        for stored in list(store.list(output_prefix(video, name))):
            store.delete(stored.key)
