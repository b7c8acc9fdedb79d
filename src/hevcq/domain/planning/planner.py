"""Make the plan for a source from a profile and its facts: skip, refuse, or encode it.

Pure: no I/O, no clock. Every loss is decided here, before anything runs, by a named policy; each
change or omission is a notice in the plan.
"""

from collections.abc import Iterator
from fractions import Fraction

from hevcq.domain.formats import (
    Container,
    candidates,
    same_samples,
    unsuited,
)
from hevcq.domain.media import containers
from hevcq.domain.media.facts import CREDENTIALS, MediaInfo, Stream, StreamKind, VideoFacts
from hevcq.domain.planning import metadata
from hevcq.domain.planning.encode_plan import (
    Action,
    EncodePlan,
    Plan,
    Refuse,
    Skip,
    SkipReason,
    StreamPlan,
    VideoTarget,
)
from hevcq.domain.planning.ladder import ladder_of, plan_set_stream
from hevcq.domain.planning.metadata import found_mark
from hevcq.domain.planning.streams import (
    in_languages,
    plan_stream,
    plan_video,
    without_unread,
)
from hevcq.domain.planning.video import (
    HDR_TRANSFERS,
    captions_become_text,
    smaller_than_box,
    uneven,
    uneven_words,
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
    plan = _encode(profile, info, main)
    return _with_place(profile, plan) if isinstance(plan, Refuse) else plan


def _with_place(profile: Profile, refusal: Refuse) -> Refuse:
    """Say where the keys of the profile are set that the refusal names."""
    if "." not in refusal.policy:
        return refusal
    place = (
        f"Keys are set in the profile {profile.name}; `hevcq profiles init` makes copies to edit."
    )
    return refusal.model_copy(update={"detail": f"{refusal.detail} {place}"})


def hardware_problem(profile: Profile, plan: EncodePlan) -> str:
    """Return why a picture is not given to hardware, or "": what no driver is known to carry."""
    target, codec = plan.video, profile.video.codec
    if not candidates(profile.video.encoder, codec):
        return f"no hardware makes {codec}"
    if plan.ladder is not None:
        return "a ladder is encoded in software"
    if target.mastering_display is not None or target.light_level is not None:
        return "its HDR10 metadata would not be in the bitstream"
    if target.captions:
        return "its closed captions are kept"
    return unsuited(codec, target.pixel_format, target.bit_depth)


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
    return _smaller(profile, info, main)


def _smaller(profile: Profile, info: MediaInfo, main: Stream) -> Skip | None:
    """Skip a picture smaller than the box if nothing would be gained."""
    size = smaller_than_box(profile, main.video) if main.video is not None else ""
    if not size or not _streams_already(profile, info, main):
        return None
    detail = f"Already {main.codec.upper()} in a streamable MP4 of {size}; not upscaled."
    return Skip(reason=SkipReason.SMALLER_THAN_BOX, detail=detail)


def _streams_already(profile: Profile, info: MediaInfo, main: Stream) -> bool:
    """Whether the file is what the profile would make of it: its codecs in an MP4, index first."""
    target = plan_video(profile, main, containers.MP4)
    if isinstance(target, Refuse) or target.video is None or main.video is None:
        return False
    facts, made = main.video, target.video
    same_picture = (facts.pixel_format, main.codec) == (made.pixel_format, made.codec)
    plain = not (facts.interlaced or made.scale or made.pad_right or made.pad_bottom)
    sounds = all(s.codec in STREAMED_AUDIO for s in info.of_kind(StreamKind.AUDIO))
    is_mp4 = containers.target_container(Container.SOURCE, info) == containers.MP4
    return is_mp4 and info.index_first and same_picture and plain and sounds


def _no_video() -> Skip:
    return Skip(reason=SkipReason.NO_VIDEO, detail="It has no video stream.")


def _main_video(info: MediaInfo) -> Stream | None:
    """Return the main video: the first video stream that is not cover art."""
    videos = info.of_kind(StreamKind.VIDEO)
    return next((s for s in videos if not s.pictureless), videos[0] if videos else None)


def _encode(profile: Profile, info: MediaInfo, main: Stream) -> Refuse | EncodePlan:
    if profile.container is Container.HLS:
        return _encode_set(profile, info, main)
    muxer = containers.target_container(profile.container, info)
    every = [
        plan_video(profile, stream, muxer)
        if stream.index == main.index
        else plan_stream(profile, info, stream, muxer)
        for stream in info.streams
    ]
    read, unread = without_unread(info, every)
    decided, foreign = in_languages(profile, info, read)
    refused = Refuse.of_all(each for each in decided if isinstance(each, Refuse))
    if refused is not None:
        return refused
    numbered = _numbered([each for each in decided if isinstance(each, StreamPlan)])
    lost = metadata.losses(muxer, info, numbered)
    missed = (*lost, *metadata.left_behind(info))
    captions = _captions(profile, main)
    if captions and muxer not in containers.SUBTITLE_ENCODERS:
        return _refused_text(muxer)
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
            *_not_searched(profile, picture),
            *([metadata.in_words(lost)] if lost else []),
        ),
        personal=metadata.personal(muxer, info, numbered),
        losses=_forbidding(profile, missed, (*unread, *foreign)),
    )


def _not_searched(profile: Profile, picture: VideoTarget) -> tuple[str, ...]:
    if profile.video.quality is None or picture.colour.transfer not in HDR_TRANSFERS:
        return ()
    return (not_searched(profile.video.crf, NOT_FOR_HDR),)


def _forbidding(
    profile: Profile, missed: tuple[str, ...], foreign: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the losses of metadata and of tracks for which no rendition replaces the original."""
    kept = missed if profile.policies.metadata == "keep" else ()
    return (*kept, *foreign) if profile.policies.tracks == "keep" else kept


def _captions(profile: Profile, main: Stream) -> tuple[str, ...]:
    """Return the channel of captions that is to become text; which others there are only reading shows."""
    wanted = main.video is not None and captions_become_text(profile, main.video)
    return ("CC1",) if wanted else ()


def _refused_text(muxer: str) -> Refuse:
    return Refuse(
        policy="policies.closed_captions",
        detail=f"The picture carries closed captions, and {containers.NAMES[muxer]} holds no text track "
        "for them; set policies.closed_captions to drop to encode without them.",
    )


def _encode_set(profile: Profile, info: MediaInfo, main: Stream) -> Refuse | EncodePlan:
    """Plan an HLS ladder. It never replaces an original: it holds none of the file's metadata."""
    ladder = ladder_of(profile, main)
    if isinstance(ladder, Refuse):
        return ladder
    top = ladder.rungs[0].target
    picture = StreamPlan(
        source_index=main.index,
        kind=StreamKind.VIDEO,
        action=Action.ENCODE,
        codec=top.codec,
        encoder=top.encoder,
        video=top,
    )
    every = [plan_set_stream(profile, info, s) if s != main else picture for s in info.streams]
    decided, _ = in_languages(profile, info, without_unread(info, every)[0])
    refused = Refuse.of_all(each for each in decided if isinstance(each, Refuse))
    if refused is not None:
        return refused
    # The picture has the first place, wherever it is in the file.
    others = [e for e in decided if isinstance(e, StreamPlan) and e is not picture]
    numbered = _numbered([picture, *others])
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


def _numbered(streams: list[StreamPlan]) -> tuple[StreamPlan, ...]:
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
    found = [stream.notice for stream in streams if stream.notice]
    if any(item.name == CREDENTIALS for item in info.metadata):
        found.append(metadata.UNCREDITED)
    for stream in streams:
        source = info.stream(stream.source_index).video
        if stream.video is None or source is None:
            continue
        details = (*_changed(stream.video, source), *_field_notices(stream.video, source))
        details += tuple(_lost(stream.video, source, as_text=bool(texts)))
        texts = ()  # they are those of the first video alone
        found += [f"Stream {stream.source_index}: {words}." for words in details]
    return tuple(found)


def _changed(target: VideoTarget, source: VideoFacts) -> Iterator[str]:
    if target.fit:
        yield _fitted_words(source)
    if target.crop:
        left, over = target.crop.split(":")[:2]
        yield f"its black bars are cropped, which leaves {left}x{over}"
    if source.recoloured:
        yield "its colour tags change on the way, and the rendition has only the first ones"
    if target.rate and uneven(source):
        yield uneven_words(target.rate)
    if target.limit_range:
        yield "its full range of brightness is stored as limited range"
    if not target.tone_map and not same_samples(source.pixel_format, target.pixel_format):
        yield f"its samples become {target.pixel_format} (from {source.pixel_format})"
    if source.rotation or source.mirrored:
        yield "the picture is turned upright"
    if target.pad_right or target.pad_bottom:
        yield (
            f"the picture gains an edge pixel to be {target.width}x{target.height}; this pixel format"
            " needs even sizes"
        )


def _fitted_words(facts: VideoFacts) -> str:
    """Return what becomes of a picture whose size or aspect changes, as a clause."""
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
    if target.deinterlace and source.misordered:
        yield "its fields are marked in the wrong order; the right one is used"


def _lost(target: VideoTarget, source: VideoFacts, *, as_text: bool) -> Iterator[str]:
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
