"""Follow a video's jobs in the ledger; change, share, retry and delete the video."""

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
    """The ports and limits of uploaded videos.

    `catalog` is set in a data folder, where the machine's clock alone is not trusted, else None. `chance`
    returns random bytes. `least_free` is in bytes.
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
        """Return a video of `owner` (None: of anybody). Raises NoSuchVideo, also for another owner's video."""
        video = self.videos.get(video_id) if is_video_id(video_id) else None
        if video is None or owner not in (None, video.owner):
            raise NoSuchVideo("There is no such video.")
        return video

    def jobs(self, video: Video) -> dict[str, JobRecord | None]:
        """Return the ledger's job of each profile of a video whose upload is complete."""
        assert video.source is not None
        ledger, source = self.backend.ledger, video.source
        return {name: ledger.get(job_id(source, name)) for name in video.profiles}

    def certificate(self, key: str) -> Certificate | None:
        try:
            with self.backend.store.open(key) as stream:
                return Certificate.read(stream)
        except HevcqError:
            return None

    def change(self, video: Video, **facts: object) -> Video:
        """Update some facts of the record. Raises Conflict.

        If the video ends by this change, the record notes an unsent event, unless the store of records
        writes such events itself.
        """
        now, status = self.clock.now(), facts.get("status", video.status)
        if status is not video.status and not self.videos.sends_ends:
            ended = status in {VideoStatus.DONE, VideoStatus.FAILED}
            facts["unsent"] = {"at": now, "next_at": now} if ended else None
        checked = {**video.model_dump(), **facts, "updated_at": now}
        return self.videos.update(Video.model_validate(checked))


class ProfileRow(VideoRendition):
    """The state of one profile of a video, with live progress.

    `percent` is that of the phase, 0 to 100; `eta_s` is in seconds; `saved` is the share of the uploaded
    file's size that the rendition saves (negative: it is larger), None without a rendition.
    """

    phase: str = ""
    percent: float = 0.0
    speed: float | None = None
    eta_s: float | None = None
    saved: float | None = None
    remedy: str = ""


def refresh(farm: VideoFarm, video: Video) -> Video:
    """Update the record from the ledger, and return it.

    Missing jobs are queued, because the process that completed the upload may have died.
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
        return _update(farm, video, settled)
    except Conflict:
        return farm.videos.get(video.video_id) or video


def _update(farm: VideoFarm, video: Video, settled: Sequence[VideoRendition]) -> Video:
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
    # A rendition that is being made again stays until the new one is published.
    entries = {each.profile: each for each in video.renditions if each.key}
    entries |= {each.profile: each for each in settled}
    kept = tuple(entries[name] for name in video.profiles if name in entries)
    changed = kept != video.renditions or any(
        getattr(video, name) != value for name, value in facts.items()
    )
    if not changed:
        return video
    return farm.change(video, renditions=[each.model_dump() for each in kept], **facts)


def _retention(
    farm: VideoFarm, video: Video, settled: Sequence[VideoRendition]
) -> dict[str, float | None]:
    """Return from when and at least until when the uploaded file is kept.

    The time begins when every profile's rendition is published, and again after one was remade.
    """
    done = {each.profile for each in settled if each.state is JobState.DONE}
    if done != set(video.profiles):
        return {"done_at": None, "raw_due_at": None}
    if video.done_at is not None:
        return {}
    if farm.catalog is not None:
        note_kept(farm.catalog, farm.clock, kept_name(video))
    now = farm.clock.now()
    return {"done_at": now, "raw_due_at": now + farm.limits.raw_retention_s}


def kept_name(video: Video) -> str:
    """Return the name under which the catalog records since when the uploaded file is kept."""
    return f"video-{video.video_id}"


def live_rows(farm: VideoFarm, video: Video) -> list[ProfileRow]:
    """Return a row for each profile, with the live progress of its job."""
    if video.source is None:
        return []
    known = {each.profile: each for each in video.renditions}
    live = []
    for profile, record in farm.jobs(video).items():
        if record is not None:
            live.append(_row(farm, video, record))
        elif profile in known:
            live.append(_settled_row(video, known[profile]))
    return live


def settled_rows(video: Video, *, shared: bool = False) -> list[ProfileRow]:
    """Return a row for each format of the record, with `shared` only for those that are shared."""
    entries = (each for each in video.renditions if not shared or video.shares(each))
    return [_settled_row(video, each) for each in entries]


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
    """Return the record's entry for a settled job; a set's size is that of all its files."""
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
    """Change title, description or tags; None keeps them. Raises UsageError for an empty title."""
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
    """Make the video public under an address that cannot be guessed; a public video keeps its address.

    `tags`: the owner agrees to share formats with their metadata of people, places and devices;
    `original`: also the uploaded file. `share` are new terms; None keeps the present ones.
    Raises UsageError if a necessary consent is missing.
    """
    video = refresh(farm, video)
    if video.personal and not tags:
        raise UsageError(
            f"Its files tell more than the video shows: {', '.join(video.personal)}.",
            remedy='Agree to share that too: tick the box, or send "tags": true, or add --tags.',
        )
    if video.status is VideoStatus.DONE and not video.published and not original:
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
    """Change the terms of a public video; its address stays. Raises UsageError for a private video."""
    if video.visibility is Visibility.PRIVATE:
        raise UsageError("It is private.", remedy="Make it public first.")
    return farm.change(video, share=share) if share != video.share else video


def unpublish(farm: VideoFarm, video: Video) -> Video:
    """Make the video private; its public address no longer works."""
    if video.visibility is Visibility.PRIVATE:
        return video
    return farm.change(video, visibility=Visibility.PRIVATE, slug=None, share=Share())


def retry(farm: VideoFarm, video: Video, who: str, profiles: Sequence[str] = ()) -> Video:
    """Queue failed formats again (all, or the named ones); return the updated video.

    Raises BadUpload if the uploaded file is gone, UsageError if no format failed.
    """
    if video.source is None:
        raise BadUpload("The upload was not completed.", remedy="Upload the file again.")
    if video.raw_deleted_at is not None or video.raw_leaving:
        raise BadUpload("The uploaded file was deleted.", remedy="Upload the file again.")
    ids = _job_ids(video, video.source, profiles)
    # The record first, so that a process that is deleting the uploaded file has an old revision.
    video = farm.change(video, status=VideoStatus.PROCESSING, done_at=None, raw_due_at=None)
    request = ReprocessRequest(
        ids, states=frozenset({JobState.DEAD}), who=who, why="retry", exact=True
    )
    changes = list(reprocess(farm.backend, request))
    video = refresh(farm, video)
    if not changes:
        raise UsageError("No format of this video failed.")
    return video


def stop(farm: VideoFarm, video: Video, who: str, profiles: Sequence[str] = ()) -> Video:
    if video.source is not None:
        list(cancel(farm.backend, _job_ids(video, video.source, profiles), who))
    return refresh(farm, video)


def _job_ids(video: Video, source: Source, profiles: Sequence[str]) -> list[str]:
    return [job_id(source, n) for n in video.profiles if not profiles or n in profiles]


def delete(farm: VideoFarm, video: Video, who: str) -> None:
    """Delete a video with its upload, jobs, renditions and certificates.

    The record is deleted last, so that the deletion can be repeated after a kill. Raises Conflict while a
    client is uploading the video.
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
            current = farm.videos.get(video.video_id)
            if current is None:
                return
            video = current
        else:
            return
    raise Conflict("The video is being changed by somebody else just now.", remedy="Try again.")


def _delete_renditions(farm: VideoFarm, video: Video, source: Source, who: str) -> None:
    """Cancel open jobs, then delete the renditions of the video's and all present profiles."""
    for name in video.profiles:
        job = farm.backend.ledger.get(job_id(source, name))
        if job is not None and job.state not in SETTLED:
            list(cancel(farm.backend, [job.job_id], who))
    store = farm.backend.store
    for name in dict.fromkeys([*video.profiles, *farm.profiles]):
        for stored in list(store.list(output_prefix(video, name))):
            store.delete(stored.key)
