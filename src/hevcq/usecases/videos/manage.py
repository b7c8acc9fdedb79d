"""Change, share, retry and delete an uploaded video."""

from collections.abc import Sequence

from hevcq.domain.job import SETTLED, JobState, Source, job_id
from hevcq.domain.videos.record import (
    MAX_DESCRIPTION,
    MAX_TITLE,
    Video,
    VideoStatus,
    Visibility,
    one_line,
    paragraphs,
)
from hevcq.domain.videos.rules import make_slug, output_prefix
from hevcq.errors import BadUpload, Conflict, UsageError
from hevcq.usecases.operations.reprocess import ReprocessRequest, cancel, reprocess
from hevcq.usecases.videos.context import VideoFarm
from hevcq.usecases.videos.follow import refresh


def rename(
    farm: VideoFarm, video: Video, *, title: str | None = None, description: str | None = None
) -> Video:
    """Change title or description; None leaves it. Raises UsageError for an empty title."""
    facts: dict[str, object] = {}
    if title is not None:
        facts["title"] = one_line(title, MAX_TITLE)
        if not facts["title"]:
            raise UsageError("A title has at least one character.")
    if description is not None:
        facts["description"] = paragraphs(description, MAX_DESCRIPTION)
    return farm.change(video, **facts) if facts else video


def publish(farm: VideoFarm, video: Video, *, tags: bool = False, original: bool = False) -> Video:
    """Make the video public under an address that cannot be guessed; a public one keeps its own.

    `tags` is its owner's word that formats are shared with what they tell of people, places and
    devices, `original` that the uploaded file is too. Raises UsageError without a word that is needed.
    """
    video = refresh(farm, video)
    if video.personal and not tags:
        raise UsageError(
            f"Its files tell more than the video shows: {', '.join(video.personal)}.",
            remedy='Agree to share that too: tick the box, or send "tags": true, or add --tags.',
        )
    facts = {"visibility": Visibility.PUBLIC, "public_tags": tags, "public_original": original}
    if all(getattr(video, name) == value for name, value in facts.items()):
        return video
    slug = video.slug or make_slug(video.title, farm.chance(10))
    return farm.change(video, slug=slug, **facts)


def unpublish(farm: VideoFarm, video: Video) -> Video:
    """Make the video private; its public address leads nowhere from now on."""
    if video.visibility is Visibility.PRIVATE:
        return video
    return farm.change(video, visibility=Visibility.PRIVATE, slug=None)


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
