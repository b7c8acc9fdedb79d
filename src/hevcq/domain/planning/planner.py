"""Make the plan for a source from a profile and its facts: skip, refuse, or encode it.

Pure: no I/O, no clock. Every loss is decided here, before anything runs, by a named policy; each
change or omission is a notice in the plan.
"""

from collections.abc import Iterator
from fractions import Fraction

from hevcq.domain.formats import (
    Container,
    hardware_candidates,
    keeps_samples,
    why_unsuited,
)
from hevcq.domain.media import containers
from hevcq.domain.media.facts import CREDENTIALS, MediaInfo, Stream, StreamKind, VideoFacts
from hevcq.domain.planning import metadata
from hevcq.domain.planning.encode_plan import (
    EncodePlan,
    Plan,
    Refuse,
    Skip,
    SkipReason,
    StreamPlan,
    VideoTarget,
)
from hevcq.domain.planning.ladder import ladder_of, plan_set_stream
from hevcq.domain.planning.metadata import first_names, found_mark
from hevcq.domain.planning.streams import (
    drop_undecodable,
    drop_unlisted_languages,
    encode_video,
    plan_stream,
    plan_video,
)
from hevcq.domain.planning.video import (
    HDR_TRANSFERS,
    captions_become_text,
    evening_clause,
    is_uneven,
    smaller_than_box,
)
from hevcq.domain.profile import Profile
from hevcq.domain.quality import NOT_FOR_HDR, not_searched

_LAST = {StreamKind.ATTACHMENT: 1, StreamKind.PICTURE: 2}
"""Order of attachments and covers after the tracks, as demuxers report them."""

STREAMED_AUDIO = frozenset({"aac", "mp3"})
"""Audio codecs that every player of streamed MP4 decodes."""


def make_plan(profile: Profile, info: MediaInfo) -> Plan:
    if not containers.readable(info):
        return Refuse(
            policy="container",
            detail=f"A file of the format {info.format_name or 'unknown'} is not read: it could "
            "make ffmpeg open other files, or carries no times.",
        )
    main = _main_video(info)
    skip = _skip(profile, info, main)
    if skip is not None or main is None:
        return skip or _no_video()
    plan = _plan_file(profile, info, main)
    return _with_profile_hint(profile, plan) if isinstance(plan, Refuse) else plan


def _with_profile_hint(profile: Profile, refusal: Refuse) -> Refuse:
    """Add where to set the profile's key that the refusal names."""
    if "." not in refusal.policy:
        return refusal
    place = (
        f"Keys are set in the profile {profile.name}; `hevcq profiles init` makes copies to edit."
    )
    return refusal.model_copy(update={"detail": f"{refusal.detail} {place}"})


def hardware_problem(profile: Profile, plan: EncodePlan) -> str:
    """Return why hardware cannot encode this picture without a loss, or ""."""
    target, codec = plan.video, profile.video.codec
    if not hardware_candidates(profile.video.encoder, codec):
        return f"no hardware makes {codec}"
    if plan.ladder is not None:
        return "a ladder is encoded in software"
    if target.mastering_display is not None or target.light_level is not None:
        return "its HDR10 metadata would not be in the bitstream"
    if target.captions:
        return "its closed captions are kept"
    return why_unsuited(codec, target.pixel_format, target.bit_depth)


def _skip(profile: Profile, info: MediaInfo, main: Stream | None) -> Skip | None:
    if main is None or main.video is None:
        return _no_video()
    if found_mark(info) is not None:
        return Skip(
            reason=SkipReason.OWN_RENDITION,
            detail="It is a rendition that hevcq made, not an original.",
        )
    if main.codec in profile.video.skip_codecs:
        return Skip(
            reason=SkipReason.ALREADY_TARGET,
            detail=f"Already {main.codec.upper()}.",
        )
    return _skip_small_picture(profile, info, main)


def _skip_small_picture(profile: Profile, info: MediaInfo, main: Stream) -> Skip | None:
    """Skip a picture smaller than the box if the file is already what the profile would make."""
    size = smaller_than_box(profile, main.video) if main.video is not None else ""
    if not size or not _is_streamable(profile, info, main):
        return None
    detail = f"Already {main.codec.upper()} in a streamable MP4 of {size}; not upscaled."
    return Skip(reason=SkipReason.SMALLER_THAN_BOX, detail=detail)


def _is_streamable(profile: Profile, info: MediaInfo, main: Stream) -> bool:
    """Return whether the file is a streamable MP4 (index first) with the codecs of the profile."""
    target = plan_video(profile, main, containers.MP4)
    if isinstance(target, Refuse) or target.video is None or main.video is None:
        return False
    facts, goal = main.video, target.video
    same_picture = (facts.pixel_format, main.codec) == (goal.pixel_format, goal.codec)
    plain = not (facts.interlaced or goal.scale or goal.pad_right or goal.pad_bottom)
    sounds = all(s.codec in STREAMED_AUDIO for s in info.of_kind(StreamKind.AUDIO))
    is_mp4 = containers.target_container(Container.SOURCE, info) == containers.MP4
    return is_mp4 and info.index_first and same_picture and plain and sounds


def _no_video() -> Skip:
    return Skip(reason=SkipReason.NO_VIDEO, detail="It has no video stream.")


def _main_video(info: MediaInfo) -> Stream | None:
    """Return the first video stream with a picture, else the first video stream."""
    videos = info.of_kind(StreamKind.VIDEO)
    return next((s for s in videos if not s.has_no_picture), videos[0] if videos else None)


def _plan_file(profile: Profile, info: MediaInfo, main: Stream) -> Refuse | EncodePlan:
    if profile.container is Container.HLS:
        return _plan_set(profile, info, main)
    muxer = containers.target_container(profile.container, info)
    every = [
        plan_video(profile, stream, muxer)
        if stream.index == main.index
        else plan_stream(profile, info, stream, muxer)
        for stream in info.streams
    ]
    read, unread = drop_undecodable(info, every)
    decided, foreign = drop_unlisted_languages(profile, info, read)
    refused = Refuse.combine(each for each in decided if isinstance(each, Refuse))
    if refused is not None:
        return refused
    numbered = _assign_positions([each for each in decided if isinstance(each, StreamPlan)])
    lost = metadata.losses(muxer, info, numbered)
    missed = (*lost, *metadata.left_behind(info))
    captions = _caption_channels(profile, main)
    if captions and muxer not in containers.SUBTITLE_ENCODERS:
        return _refuse_captions(muxer)
    picture = next(s.video for s in numbered if s.source_index == main.index and s.video)
    return EncodePlan(
        profile=profile.name,
        revision=profile.revision,
        muxer=muxer,
        extension=containers.EXTENSIONS[muxer],
        streams=numbered,
        captions=captions,
        chapters=len(info.chapters) if muxer in containers.CHAPTERED else 0,
        notices=(
            *_notices(info, numbered, texts=captions),
            *_unsearched_notice(profile, picture),
            *([f"Metadata that the rendition cannot hold: {first_names(lost)}."] if lost else []),
        ),
        personal=metadata.personal_names(muxer, info, numbered),
        losses=_replacement_losses(profile, missed, (*unread, *foreign)),
    )


def _unsearched_notice(profile: Profile, picture: VideoTarget) -> tuple[str, ...]:
    if profile.video.quality is None or picture.colour.transfer not in HDR_TRANSFERS:
        return ()
    return (not_searched(profile.video.crf, NOT_FOR_HDR),)


def _replacement_losses(
    profile: Profile, missed: tuple[str, ...], foreign: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the losses of metadata and tracks that forbid the rendition to replace the original."""
    kept = missed if profile.policies.metadata == "keep" else ()
    return (*kept, *foreign) if profile.policies.tracks == "keep" else kept


def _caption_channels(profile: Profile, main: Stream) -> tuple[str, ...]:
    """Return CC1 if captions become text; only a measurement shows the other channels."""
    become_text = main.video is not None and captions_become_text(profile, main.video)
    return ("CC1",) if become_text else ()


def _refuse_captions(muxer: str) -> Refuse:
    return Refuse(
        policy="policies.closed_captions",
        detail=f"The picture carries closed captions, and {containers.NAMES[muxer]} holds no text track "
        "for them; set policies.closed_captions to drop to encode without them.",
    )


def _plan_set(profile: Profile, info: MediaInfo, main: Stream) -> Refuse | EncodePlan:
    """Plan an HLS ladder. It holds none of the file's metadata, so it never replaces an original."""
    ladder = ladder_of(profile, main)
    if isinstance(ladder, Refuse):
        return ladder
    top = ladder.rungs[0].target
    picture = encode_video(main, top)
    every = [plan_set_stream(profile, info, s) if s != main else picture for s in info.streams]
    decided, _ = drop_unlisted_languages(profile, info, drop_undecodable(info, every)[0])
    refused = Refuse.combine(each for each in decided if isinstance(each, Refuse))
    if refused is not None:
        return refused
    # The picture comes first, whatever its position in the file.
    others = [e for e in decided if isinstance(e, StreamPlan) and e is not picture]
    numbered = _assign_positions([picture, *others])
    notices = _notices(info, numbered)
    if top.tone_map and any(not rung.target.tone_map for rung in ladder.rungs):
        notices = (*notices, "The HEVC rungs keep HDR, those of H.264 are for other screens.")
    return EncodePlan(
        profile=profile.name,
        revision=profile.revision,
        muxer=containers.MP4,
        extension="m3u8",
        ladder=ladder,
        streams=tuple(sorted(numbered, key=lambda stream: stream.source_index)),
        chapters=len(info.chapters),
        notices=notices,
        personal=(),
        losses=("all that HLS does not carry",),
    )


def _assign_positions(streams: list[StreamPlan]) -> tuple[StreamPlan, ...]:
    """Give each kept stream its output position: source order, with attachments and covers last."""
    kept = [stream for stream in streams if stream.action != "drop"]
    kept.sort(key=lambda stream: _LAST.get(stream.kind, 0))
    position = {stream.source_index: place for place, stream in enumerate(kept)}
    return tuple(
        stream.model_copy(update={"position": position.get(stream.source_index)})
        for stream in streams
    )


def _notices(
    info: MediaInfo,
    streams: tuple[StreamPlan, ...],
    *,
    texts: tuple[str, ...] = (),
) -> tuple[str, ...]:
    notices = [stream.notice for stream in streams if stream.notice]
    if any(item.name == CREDENTIALS for item in info.metadata):
        notices.append(metadata.UNCREDITED)
    for stream in streams:
        source = info.stream(stream.source_index).video
        if stream.video is None or source is None:
            continue
        details = (*_change_notices(stream.video, source), *_field_notices(stream.video, source))
        details += tuple(_loss_notices(stream.video, source, as_text=bool(texts)))
        texts = ()  # only the first video's captions become text
        notices += [f"Stream {stream.source_index}: {words}." for words in details]
    return tuple(notices)


def _change_notices(target: VideoTarget, source: VideoFacts) -> Iterator[str]:
    if target.fit:
        yield _fitting_clause(source)
    if target.crop:
        left, over = target.crop.split(":")[:2]
        yield f"its black bars are cropped, which leaves {left}x{over}"
    if source.recoloured:
        yield "its colour tags change on the way, and the rendition has only the first ones"
    if target.rate and is_uneven(source):
        yield evening_clause(target.rate)
    if target.limit_range:
        yield "its full range of brightness is stored as limited range"
    if not target.tone_map and not keeps_samples(source.pixel_format, target.pixel_format):
        yield f"its samples become {target.pixel_format} (from {source.pixel_format})"
    if source.rotation or source.mirrored:
        yield "the picture is turned upright"
    if target.pad_right or target.pad_bottom:
        yield (
            f"the picture gains an edge pixel to be {target.width}x{target.height}; this pixel format"
            " needs even sizes"
        )


def _fitting_clause(facts: VideoFacts) -> str:
    """Return the clause on fitting a picture whose size or aspect changes."""
    lasting, *others = facts.shapes
    return (
        f"its size or aspect changes: {' and '.join(others)} (size, sample aspect) is fitted into "
        f"{lasting}, undistorted, with black bars where the shape differs"
    )


def _field_notices(target: VideoTarget, source: VideoFacts) -> Iterator[str]:
    if target.telecine:
        shown = float(Fraction(target.telecine))
        yield f"telecined; its original {shown:.6g} frames per second are restored"
    elif target.field_rate:
        yield "deinterlaced to full rate, a frame of each field"
    elif target.deinterlace:
        yield "deinterlaced, one frame of each pair of fields"
    elif target.unmark_fields:
        yield "marked as interlaced, but its pictures are progressive; encoded so"
    if source.interlaced_pictures:
        yield "not marked as interlaced, but its pictures are"
    if target.deinterlace and source.has_wrong_field_order:
        yield "its fields are marked in the wrong order; the right one is used"


def _loss_notices(target: VideoTarget, source: VideoFacts, *, as_text: bool) -> Iterator[str]:
    if target.tone_map:
        yield "its HDR tones are mapped to SDR"
    if source.dolby_vision and not target.dolby_vision:
        yield f"Dolby Vision is left out; its base layer ({source.dolby_base.upper()}) is what remains"
    if source.hdr10_plus:
        yield "HDR10+ dynamic metadata is left out"
    if target.captions is False and as_text:
        yield "closed captions become a text track, without their places and colours"
    elif target.captions is False:
        yield "closed captions are left out"
    if target.unmark_hdr:
        yield "marks of HDR10, which its pictures are not, are left out"
