"""A video's page: player, formats, sharing, editing; and the public page of a shared video."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from urllib.parse import quote

from anyio.to_thread import run_sync
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from hevcq.domain.job import SETTLED, JobState
from hevcq.domain.media.facts import Chapter
from hevcq.domain.profile import Profile, VideoCodec
from hevcq.domain.verdict import FailureClass
from hevcq.domain.videos import Share, Video, Visibility, media_type
from hevcq.errors import UsageError
from hevcq.usecases.videos import manage
from hevcq.usecases.videos.manage import ProfileRow, VideoFarm, live_rows, refresh, settled_rows
from hevcq.usecases.videos.playback import (
    ORIGINAL,
    PLAYABLE,
    PLAYLIST,
    Texts,
    chapters_of_set,
    part_of_set,
)
from hevcq.util.text import printable, whole
from hevcq.web.identity.accounts import new_share, opens_share
from hevcq.web.identity.attempts import too_many
from hevcq.web.identity.person import person_of
from hevcq.web.identity.session import digest
from hevcq.web.rendering import page, render, time_left
from hevcq.web.services import (
    certificate_file,
    find_shared,
    find_video,
    form_endpoint,
    has_password,
    own_address,
    read_form,
    services_of,
    share_cookie,
)

PATH = "/v/{video_id}"
NOTICES = {
    "retry": "Queued again.",
    "cancel": "Cancelled.",
    "publish": "The video is public now.",
    "terms": "Saved. The public address is unchanged.",
    "unpublish": "The video is private again; its public address no longer works.",
    "edit": "Saved.",
}


PASSWORD_VALID_S = 12 * 3600.0
"""Seconds until a browser must send a share's password again."""


def routes() -> Sequence[BaseRoute]:
    changes = [
        Route(f"{PATH}/{name}", form_endpoint(partial(_change, name)), methods=["POST"])
        for name in CHANGES
    ]
    return (
        Route(PATH, show),
        Route(f"{PATH}/now", now),
        Route(f"{PATH}/edit", edit),
        *changes,
        Route(f"{PATH}/delete", form_endpoint(delete), methods=["POST"]),
        Route(f"{PATH}/{{profile}}/certificate", certificate),
        Route("/p/{slug}", watch),
        Route("/p/{slug}", unlock, methods=["POST"]),
    )


def show(request: Request) -> Response:
    person = person_of(request)
    farm, video = find_video(request)
    video = refresh(farm, video)
    profile_rows = live_rows(farm, video)
    public = f"{own_address(request)}/p/{video.slug}"
    return page(
        request,
        "video.html",
        video=video,
        playing=player_content(request, farm, video, profile_rows),
        formats=_formats_html(farm, video, profile_rows),
        notice=NOTICES.get(request.query_params.get("notice", ""), ""),
        unshared=[each.profile for each in video.published if not video.shares(each)],
        public=public if video.visibility is Visibility.PUBLIC else "",
        now=farm.clock.now(),
        original=original_address(media_base(video), video, download=True),
        whose=video.owner if video.owner != person.owner else "",
    )


def now(request: Request) -> Response:
    farm, video = find_video(request)
    video = refresh(farm, video)
    return HTMLResponse(_formats_html(farm, video, live_rows(farm, video)))


def edit(request: Request) -> Response:
    return page(request, "edit.html", video=find_video(request)[1])


Change = Callable[[VideoFarm, Video, str, Mapping[str, str]], object]
CHANGES: dict[str, Change] = {
    "edit": lambda farm, video, _who, form: manage.rename(
        farm,
        video,
        title=form.get("title", ""),
        description=form.get("description", ""),
        tags=[form.get("tags", "")],
    ),
    "retry": lambda farm, video, who, form: manage.retry(farm, video, who, _profiles(form)),
    "cancel": lambda farm, video, who, form: manage.stop(farm, video, who, _profiles(form)),
    "publish": lambda farm, video, _who, form: manage.publish(
        farm,
        video,
        tags=form.get("tags") == "yes",
        original=form.get("original") == "yes",
        share=_share(farm, form),
    ),
    "terms": lambda farm, video, _who, form: manage.set_terms(
        farm, video, _changed_share(farm, video.share, form)
    ),
    "unpublish": lambda farm, video, _who, _form: manage.unpublish(farm, video),
}
"""Changes by a form, by the last part of its address."""


def _share(farm: VideoFarm, form: Mapping[str, str]) -> Share | None:
    """Return the terms in a form, or None if it has none. Raises UsageError."""
    if "days" not in form:
        return None
    days = whole(form["days"]) if form["days"].strip() else None
    if form["days"].strip() and days is None:
        raise UsageError("Days must be a whole number.")
    return new_share(
        farm.clock.now(),
        days=days,
        password=form.get("password", ""),
        download=form.get("download") == "yes",
    )


def _changed_share(farm: VideoFarm, share: Share, form: Mapping[str, str]) -> Share:
    """Return a share changed by a form, whose empty fields change nothing. Raises UsageError."""
    new = _share(farm, {"days": "", **form}) or share
    kept: dict[str, object] = {}
    if not form.get("days", "").strip() and form.get("endless") != "yes":
        kept["ends_at"] = share.ends_at
    if not form.get("password") and form.get("open") != "yes":
        kept["password"] = share.password
    return new.model_copy(update=kept)


def _profiles(form: Mapping[str, str]) -> list[str]:
    return [form["profile"]] if form.get("profile") else []


def _change(name: str, request: Request, form: Mapping[str, str]) -> Response:
    """Change the video and show it again. Raises HTTPException 409 with the reason of a refusal."""
    farm, video = find_video(request)
    try:
        CHANGES[name](farm, video, person_of(request).name, form)
    except UsageError as error:
        raise HTTPException(409, str(error)) from error
    return RedirectResponse(f"/v/{video.video_id}?notice={name}", 303)


def delete(request: Request, form: Mapping[str, str]) -> Response:
    """Delete a video. Raises HTTPException 400 unless the box is ticked."""
    farm, video = find_video(request)
    if form.get("sure") != "yes":
        raise HTTPException(400, "Tick the box to delete the video.")
    manage.delete(farm, video, person_of(request).name)
    return RedirectResponse("/", 303)


def certificate(request: Request) -> Response:
    farm, video = find_video(request)
    profile = request.path_params["profile"]
    row = next((each for each in live_rows(farm, video) if each.profile == profile), None)
    proof = farm.certificate(row.certificate_key) if row and row.certificate_key else None
    return certificate_file(proof, f"{video.video_id}-{profile}")


def player_content(
    request: Request, farm: VideoFarm, video: Video, profile_rows: Sequence[ProfileRow]
) -> Playing:
    """Return what to play, with storyboard, chapters and subtitles."""
    base = media_base(video, public=request.url.path.startswith("/p/"))
    to_play = choose_playable(base, video, profile_rows, farm.profiles)
    if not to_play.profile:
        return _add_storyboard(to_play, base, profile_rows, farm)
    texts = services_of(request).texts.texts(farm, video, to_play.profile)
    return _add_subtitles(to_play, base, texts)


def _formats_html(farm: VideoFarm, video: Video, profile_rows: Sequence[ProfileRow]) -> str:
    base = media_base(video)
    formats = [
        {
            "row": row,
            "open": file_address(base, row.profile, row.key) if row.key else "",
            "save": file_address(base, row.profile, row.key, download=True) if row.key else "",
            "left": time_left(row.phase, row.percent, row.eta_s),
            "settled": row.state in SETTLED,
            "words": farm.profiles[row.profile].description if row.profile in farm.profiles else "",
        }
        for row in profile_rows
    ]
    playable: Playing = choose_playable(base, video, profile_rows, farm.profiles)
    failed = any(row.state is JobState.DEAD for row in profile_rows)
    return render(
        "video_formats.html",
        video=video,
        formats=formats,
        playable=playable.kind,
        may_retry=failed and video.raw_kept,
        under_way=any(row.state not in SETTLED for row in profile_rows),
    )


HEARING_IMPAIRED = "hearing_impaired"
"""The disposition of subtitles that also describe sounds."""
CODECS = {VideoCodec.H264: "avc1.640028", VideoCodec.HEVC: "hvc1.1.6.L120.B0"}
"""The codecs in the type of a `<source>`, so that browsers skip what they cannot decode."""


@dataclass(frozen=True, slots=True)
class Playing:
    """What a player gets: the playlist of an HLS set if there is one, and files, best first."""

    playlist: str
    files: Sequence[tuple[str, str]]
    storyboard: str = ""
    chapters: Sequence[Chapter] = ()
    tracks: Sequence[Mapping[str, str]] = ()
    profile: str = ""
    """The profile of the first file, if no set is played: its subtitles and chapters are shown."""

    def __bool__(self) -> bool:
        return bool(self.playlist or self.files)

    @property
    def kind(self) -> str:
        return "playlist" if self.playlist else "file" if self.files else "none"


def media_base(video: Video, *, public: bool = False) -> str:
    """Return the address below which a video's files are; with `public` it contains the slug."""
    return f"/p/{video.slug}/media" if public else f"/media/{video.video_id}"


def file_address(base: str, profile: str, key: str, *, download: bool = False) -> str:
    name = quote(key.rpartition("/")[2], safe="")
    return f"{base}/{profile}/{name}{'?download=1' if download else ''}"


def original_address(base: str, video: Video, *, download: bool = False) -> str:
    """Return the address of the uploaded file, or "" if it is not kept."""
    if video.source is None or not video.raw_kept or video.raw_leaving:
        return ""
    return file_address(base, ORIGINAL, video.source.key, download=download)


def choose_playable(
    base: str, video: Video, rows: Sequence[ProfileRow], profiles: Mapping[str, Profile]
) -> Playing:
    """Return what can be played now: H.264 before HEVC, large before small, the uploaded file last.

    The uploaded file may be all that a browser can play, if a profile skipped it as already fitting.
    """
    published = [row for row in rows if row.state is JobState.DONE and row.key]
    lists = [row for row in published if media_type(row.key) == PLAYLIST]
    files = [row for row in published if media_type(row.key) in PLAYABLE]

    def rank(row: ProfileRow) -> tuple[bool, int]:
        profile = profiles.get(row.profile)
        codec = profile.video.codec if profile else None
        return codec is not VideoCodec.H264, -((profile and profile.video.max_height) or 10_000)

    files_to_play = [
        (file_address(base, row.profile, row.key), _source_type(row, profiles.get(row.profile)))
        for row in sorted(files, key=rank)
    ]
    shared = video.public_original or base == media_base(video)
    original = original_address(base, video) if shared and not _has_no_video(rows) else ""
    if original and video.source is not None and media_type(video.source.key) in PLAYABLE:
        files_to_play.append((original, media_type(video.source.key)))
    if not lists:
        best = min(files, key=rank, default=None)
        return Playing("", files_to_play, profile=best.profile if best else "")
    return Playing(file_address(base, lists[0].profile, lists[0].key), files_to_play)


def _has_no_video(rows: Sequence[ProfileRow]) -> bool:
    """Return whether every format failed because the uploaded file has no readable video."""
    return bool(rows) and all(row.failure_class is FailureClass.UNREADABLE for row in rows)


def _add_storyboard(
    to_play: Playing, base: str, rows: Sequence[ProfileRow], farm: VideoFarm
) -> Playing:
    """Add storyboard and chapters of the played set, which its certificate locates."""
    for row in rows:
        if to_play.playlist and to_play.playlist == file_address(base, row.profile, row.key):
            key = part_of_set(farm, row.key, row.certificate_key, "storyboard.vtt")
            within = key.removeprefix(row.key.rpartition("/")[0] + "/")
            board = f"{base}/{row.profile}/{quote(within)}" if key else ""
            chapters = chapters_of_set(farm, row.key, row.certificate_key)
            return replace(to_play, storyboard=board, chapters=chapters)
    return to_play


def _add_subtitles(to_play: Playing, base: str, texts: Texts) -> Playing:
    tracks = []
    for number, each in enumerate(texts.tracks):
        name = each.title or each.language or f"Subtitles {number + 1}"
        forced = "forced" in each.dispositions and "forced" not in name.lower()
        named = f"{name} (forced)" if forced else name
        kind = "captions" if HEARING_IMPAIRED in each.dispositions else "subtitles"
        track = {"kind": kind, "language": each.language}
        track["address"] = f"{base}/{to_play.profile}/texts/{number}.vtt"
        tracks.append(track | {"label": printable(named)})
    return replace(to_play, tracks=tracks, chapters=texts.chapters)


def _source_type(row: ProfileRow, profile: Profile | None) -> str:
    if row.key.lower().endswith(".webm"):
        return "video/webm"
    codec = CODECS.get(profile.video.codec) if profile else None
    return f'video/mp4; codecs="{codec}"' if codec else "video/mp4"


def watch(request: Request) -> Response:
    """Show a public video to anybody, without its owner."""
    farm, video = find_shared(request)
    if not has_password(request, video):
        return ask_password(request)
    video = refresh(farm, video)
    profile_rows = settled_rows(video, shared=True)
    return page(
        request,
        "public.html",
        video=video,
        playing=player_content(request, farm, video, profile_rows),
    )


async def unlock(request: Request) -> Response:
    """Check the password of a shared video; limit failed attempts."""
    services, form = services_of(request), await read_form(request)
    _, video = await run_in_threadpool(find_shared, request)
    if has_password(request, video):
        return RedirectResponse(f"/p/{video.slug}", 303)
    attempt, now = f"share {video.slug}", services.app.clock.now()
    if wait := services.attempts.count(attempt):
        return ask_password(request, too_many(wait), status=429, retry_s=wait)
    given = form.get("password", "")
    if not await run_sync(opens_share, video.share, given, limiter=services.passwords):
        return ask_password(request, "Wrong password.", status=403)
    services.attempts.forget(attempt)
    response = RedirectResponse(f"/p/{video.slug}", 303)
    until = min(now + PASSWORD_VALID_S, video.share.ends_at or math.inf)
    claims = {"mark": digest(video.share.password)}
    services.authenticator.cookies.write(
        response, share_cookie(video), claims, until=until, now=now
    )
    return response


def ask_password(
    request: Request, wrong: str = "", *, status: int = 200, retry_s: int = 0
) -> Response:
    """Ask for the share's password; the page tells nothing about the video."""
    return page(request, "locked.html", status=status, retry_s=retry_s, wrong=wrong)
