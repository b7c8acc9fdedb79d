"""Plan each stream besides the main video: copied, converted, dropped or refused.

Pure functions. Each returns a StreamPlan without a position (the planner numbers the streams), or
the Refuse of a named policy.
"""

from collections import Counter
from collections.abc import Sequence
from typing import assert_never

from hevcq.domain.formats import bcp47, comparable_languages, in_brackets
from hevcq.domain.media import containers
from hevcq.domain.media.facts import RECORDINGS, AudioFacts, MediaInfo, Stream, StreamKind
from hevcq.domain.planning.encode_plan import Action, Refuse, StreamPlan, VideoTarget
from hevcq.domain.planning.video import UNMARKED_IN_MOV, target_of
from hevcq.domain.profile import Profile
from hevcq.domain.profile_sections import AudioPolicy

AUDIO_CODECS = {
    "aac": "aac",
    "libopus": "opus",
    "flac": "flac",
    "libvorbis": "vorbis",
    "libmp3lame": "mp3",
}
"""ffprobe's codec name for the output of each audio encoder."""
WITHOUT_RATE = frozenset({"flac", "libvorbis"})
"""Encoders without a bit rate: FLAC is lossless, and Vorbis encodes to a quality."""
MAX_CHANNELS = 8
"""Most channels that ffmpeg's AAC and Opus encoders accept in a layout known to every player."""
FEWER_CHANNELS = {"libmp3lame": 2}
"""Most channels of encoders that take fewer; ffmpeg would silently mix down the rest."""
PLAYABLE_AUDIO = frozenset({"aac", "mp3"})
"""Codecs in MP4 that every browser plays; Chromium plays no AC-3, E-AC-3 or MP2."""
_USUAL_LAYOUTS = {
    1: "mono",
    2: "stereo",
    3: "2.1",
    4: "4.0",
    5: "5.0",
    6: "5.1",
    7: "6.1",
    8: "7.1",
}
"""Layouts that ffmpeg assumes for unnamed channels, by their number (libavutil's defaults)."""
ENCODED_LAYOUTS = {"mono": 1, "stereo": 2, "3.0": 3, "quad": 4, "5.0": 5, "5.1": 6, "7.1": 8}
"""Channels of the layouts that AAC, Opus, Vorbis and FLAC all hold, and players of each know."""
MAX_TRUE_PEAK = -1.0
"""Largest true peak after a gain, in dBTP: EBU R 128's limit, which leaves headroom for encoders."""
MIN_GAIN_DB = 0.5
"""Smallest gain, in dB, that is worth an encode."""
SILENT = -69.9
"""Loudness in LUFS up to which a sound counts as silence."""
BESIDE = {"forced": "forced", "hearing_impaired": "sdh"}
"""The word for a disposition in the name of a subtitle file, as media servers read it."""
_UNREAD_AUDIO = {
    "apac": "Apple's spatial sound (apac)",
    "sawp": "AMR-WB+ (sawp)",
    "sevc": "EVRC (sevc)",
    "ac-4": "Dolby AC-4 (ac-4)",
}
"""Names of audio codecs that ffmpeg 5.1 does not know, by their tag in MP4 and 3GP."""
_UNREAD_SUBTITLES = {"wvtt": "WebVTT", "stpp": "TTML"}
"""Subtitle tracks of MP4 that ffmpeg 5.1 reports as data and cannot decode, by codec tag."""
_CAMERA_DATA = {
    "fdsc": "GoPro's notes for mending a torn recording",
    "gpmd": "GoPro's place and motion",
    "mebx": "what an iPhone noted at each moment, such as where faces are",
    "tmcd": "a time code",
}
"""What the data tracks of cameras hold, by codec tag."""

Decision = StreamPlan | Refuse


def plan_stream(profile: Profile, info: MediaInfo, stream: Stream, muxer: str) -> Decision:
    """Plan one stream; every video stream given here is an additional one."""
    match stream.kind:
        case StreamKind.VIDEO:
            return _extra_video(profile, stream, muxer)
        case StreamKind.AUDIO:
            return _plan_unprobed_sound(info, stream) or _audio(profile, stream, muxer)
        case StreamKind.SUBTITLE:
            return _subtitle(profile, info, stream, muxer)
        case StreamKind.PICTURE:
            return _cover(profile, stream, muxer)
        case StreamKind.ATTACHMENT:
            return _attachment(profile, stream, muxer)
        case StreamKind.DATA:
            return _data(profile, info, stream, muxer)
        case _:
            assert_never(stream.kind)


def plan_video(profile: Profile, stream: Stream, muxer: str) -> Decision:
    """Plan the encode of a video stream, or refuse it by a named policy."""
    target = target_of(profile, stream)
    if isinstance(target, Refuse):
        return target
    if target.codec not in containers.VIDEO[muxer]:
        what = f"to become {target.codec}, which {containers.NAMES[muxer]} cannot hold"
        return refuse_stream(stream, "container", what)
    if target.dolby_vision and muxer == containers.MOV:
        return UNMARKED_IN_MOV
    return encode_video(stream, target)


def encode_video(stream: Stream, target: VideoTarget) -> StreamPlan:
    return StreamPlan(
        source_index=stream.index,
        kind=StreamKind.VIDEO,
        action=Action.ENCODE,
        codec=target.codec,
        encoder=target.encoder,
        video=target,
    )


def drop_unlisted_languages(
    profile: Profile, info: MediaInfo, decided: Sequence[Decision]
) -> tuple[list[Decision], tuple[str, ...]]:
    """Drop the tracks in languages that the profile does not list; return the names of the dropped ones.

    Sounds in the original language always stay.
    """
    kept = [
        stream
        for stream, each in zip(info.streams, decided, strict=True)
        if isinstance(each, Refuse) or each.action is not Action.DROP
    ]
    sounds = [stream for stream in kept if stream.kind is StreamKind.AUDIO]
    original = _original_language(sounds)
    revised, dropped = list(decided), []
    keys = {
        StreamKind.AUDIO: ("sound", "audio", profile.audio.languages),
        StreamKind.SUBTITLE: ("subtitles", "subtitles", profile.subtitles.languages),
    }
    for place, stream in enumerate(info.streams):
        noun, key, listed = keys.get(stream.kind, ("", "", ()))
        if stream not in kept or _is_listed(stream, listed, original):
            continue
        name = f"{noun} in {stream.language or stream.language_tag}"
        revised[place] = drop_stream(stream, f"{name}, which {key}.languages does not list")
        dropped.append(f"{name} (stream {stream.index})")
    return revised, tuple(dropped)


def drop_undecodable(
    info: MediaInfo, decided: Sequence[Decision]
) -> tuple[list[Decision], tuple[str, ...]]:
    """Drop sounds that ffmpeg cannot decode, if a kept one can be; return the names of the dropped ones.

    Phones record spatial sound (apac) in this way, with the same sound in stereo beside it.
    """
    revised, dropped = list(decided), []
    plans = (each for each in decided if isinstance(each, StreamPlan))
    if not any(p.kind is StreamKind.AUDIO and p.action is not Action.DROP for p in plans):
        return revised, ()
    for place, stream in enumerate(info.streams):
        if stream.kind is StreamKind.AUDIO and (what := _why_undecodable(stream)):
            revised[place] = drop_stream(stream, what)
            dropped.append(f"{what} (stream {stream.index})")
    return revised, tuple(dropped)


def _why_undecodable(stream: Stream) -> str:
    """Return why ffmpeg cannot decode a sound, or ""."""
    if stream.is_decodable:
        return ""
    named = _UNREAD_AUDIO.get(stream.codec_tag, stream.codec_tag or stream.codec)
    return f"audio in {named}, which ffmpeg cannot decode"


def sidecar_marks(profile: Profile, info: MediaInfo) -> dict[int, str]:
    """Return the text tracks to write beside the video: language and kind for each name, by stream index."""
    marks, seen = dict[int, str](), Counter[str]()
    if not profile.subtitles.beside:
        return marks
    original = _original_language(info.of_kind(StreamKind.AUDIO))
    for stream in info.of_kind(StreamKind.SUBTITLE):
        listed = _is_listed(stream, profile.subtitles.languages, original)
        if not listed or stream.codec not in containers.TEXT_SUBTITLES:
            continue
        kinds = (word for flag, word in BESIDE.items() if flag in stream.dispositions)
        language = bcp47(stream.language_tag or stream.language)
        name = ".".join(filter(None, (language if language.isascii() else "", *kinds)))
        seen[name] += 1
        number = str(seen[name]) if seen[name] > 1 else ""
        marks[stream.index] = ".".join(filter(None, (name, number)))
    return marks


def _original_language(sounds: Sequence[Stream]) -> frozenset[str]:
    """Return the languages of the sound marked original, else of the default or the first sound."""
    original = max(
        sounds,
        key=lambda s: ("original" in s.dispositions, "default" in s.dispositions),
        default=None,
    )
    return _stream_languages(original) if original is not None else frozenset()


def _is_listed(stream: Stream, listed: Sequence[str], original: frozenset[str]) -> bool:
    own = _stream_languages(stream)
    return not listed or not own or bool((comparable_languages(",".join(listed)) | original) & own)


def _stream_languages(stream: Stream) -> frozenset[str]:
    return comparable_languages(stream.language_tag or stream.language)


def _extra_video(profile: Profile, stream: Stream, muxer: str) -> Decision:
    if stream.has_no_picture:
        return drop_stream(stream, "a video track without a picture")
    if profile.policies.extra_video == "drop":
        return drop_stream(stream, "a further video stream")
    if stream.codec in profile.video.skip_codecs and stream.codec in containers.VIDEO[muxer]:
        return _copy(stream)
    return plan_video(profile, stream, muxer)


def _plan_unprobed_sound(info: MediaInfo, stream: Stream) -> Decision | None:
    """Drop or refuse a sound that a broadcast announces but sends late or never; else return None."""
    if info.is_unsent(stream):
        return drop_stream(stream, "sound that is announced, and of which nothing was sent")
    if stream.audio is None or stream.audio.sample_rate:
        return None
    return refuse_stream(
        stream, "audio", "sound that begins so late that ffmpeg does not know what it is"
    )


def _audio(profile: Profile, stream: Stream, muxer: str) -> Decision:
    # MP4 and Matroska state AAC's channels once for the track; each packet of AC-3 states its own.
    changes = stream.audio is not None and stream.audio.changes and stream.codec == "aac"
    is_held = stream.codec in containers.AUDIO[muxer] and not changes
    policy, is_playable = profile.audio.policy, stream.codec in PLAYABLE_AUDIO
    gain, clause = _plan_gain(profile, stream.audio)
    if gain is None or gain:
        policy = AudioPolicy.ENCODE
    if is_held and (policy is AudioPolicy.COPY or (policy is AudioPolicy.PLAYABLE and is_playable)):
        notice = f"Stream {stream.index}{clause}." if clause else ""
        return _copy(stream).model_copy(update={"notice": notice})
    decided = _encode_audio(profile, stream, muxer)
    if isinstance(decided, Refuse) or decided.action is Action.DROP or not clause:
        return decided
    notice = f"{decided.notice} Stream {stream.index}{clause}."
    return decided.model_copy(update={"gain_db": gain or 0.0, "notice": notice})


def _plan_gain(profile: Profile, facts: AudioFacts | None) -> tuple[float | None, str]:
    """Return the gain in dB that brings a sound to the profile's loudness, and a clause about it.

    The gain is None until the sound is measured. One gain for the whole sound keeps the difference
    between quiet and loud passages, and lets gate G8 compare levels as strictly as without a gain.
    """
    target = profile.audio.loudness
    if target is None or facts is None:
        return 0.0, ""
    if facts.loudness is None or facts.true_peak is None:
        return None, f" is to have {target:g} LUFS, as far as its peaks allow"
    gain = target - facts.loudness
    room = max(0.0, MAX_TRUE_PEAK - facts.true_peak)
    limited = f"; its peaks allow no more than {facts.loudness + room:.1f} LUFS" * (gain > room)
    gain = round(min(gain, room), 1)
    if facts.loudness <= SILENT or (abs(gain) < MIN_GAIN_DB and not limited):
        return 0.0, ""
    direction = "louder" if gain > 0 else "quieter"
    if abs(gain) < MIN_GAIN_DB:
        return 0.0, f" stays at {facts.loudness:.1f} LUFS{limited}"
    return gain, f" is made {abs(gain):.1f} dB {direction}, from {facts.loudness:.1f} LUFS{limited}"


def encoded_layout(facts: AudioFacts) -> str:
    """Return the layout to encode a sound in: its own, or a larger one that includes its channels."""
    layout = facts.layout.removesuffix("(side)")
    if layout in {"", "unknown"} or " channels" in layout:
        layout = _USUAL_LAYOUTS.get(facts.channels, "")
    if layout in ENCODED_LAYOUTS:
        return layout
    if facts.channels <= 2:
        return _USUAL_LAYOUTS.get(facts.channels, "")
    return "5.1" if facts.channels < 6 else "7.1"


def _why_unencodable(stream: Stream, facts: AudioFacts) -> str:
    """Return why a sound's channels cannot be encoded, or "".

    ffmpeg takes one of three or seven unnamed channels for the low-frequency channel, from which an
    encoder removes all other frequencies.
    """
    what = f"audio in {stream.codec} with {facts.channels} channels"
    if not 1 <= facts.channels <= MAX_CHANNELS:
        return f"{what}, which cannot be converted"
    unnamed = facts.layout.partition("(")[0] in {"", "unknown", "2.1", "6.1"}
    pcm = stream.codec.startswith("pcm_") and facts.channels in {3, 7}
    return f"{what} that nobody named" if pcm and unnamed else ""


def _encode_audio(profile: Profile, stream: Stream, muxer: str) -> Decision:
    encoder = profile.audio.codec
    codec = AUDIO_CODECS[encoder]
    facts = stream.audio or AudioFacts(channels=0, sample_rate=0)
    if unread := _why_undecodable(stream):
        return refuse_stream(stream, "audio", unread)
    if odd := _why_unencodable(stream, facts):
        return refuse_stream(stream, "audio", odd)
    if codec not in containers.AUDIO[muxer]:
        return refuse_stream(stream, "audio.codec", f"audio to become {codec}, not held by {muxer}")
    channels = min(facts.channels, FEWER_CHANNELS.get(encoder, MAX_CHANNELS))
    layout, mixed = encoded_layout(facts), ""
    output_channels = ENCODED_LAYOUTS[layout]
    if channels < facts.channels:
        output_channels = channels
        mixed = f", its {facts.channels} channels mixed down to stereo"
    elif output_channels > channels:
        mixed = f", its {channels} channels laid out as {layout}"
    kbps = None if encoder in WITHOUT_RATE else profile.audio.kbps_per_channel * channels
    changing = " whose channels change" if facts.changes else ""
    return StreamPlan(
        source_index=stream.index,
        kind=StreamKind.AUDIO,
        action=Action.CONVERT,
        codec=codec,
        encoder=encoder,
        bit_rate=None if kbps is None else kbps * 1000,
        channels=output_channels,
        notice=f"Stream {stream.index}: audio in {stream.codec}{changing} becomes {codec}"
        + ("" if kbps is None else f" at {kbps} kbit/s")
        + f"{mixed}{clipping_clause(stream)}.",
    )


def clipping_clause(stream: Stream) -> str:
    """Return the clause that float samples beyond full scale are clipped, or ""."""
    return ", clipped where it is over full scale" if stream.codec.startswith("pcm_f") else ""


def _subtitle(profile: Profile, info: MediaInfo, stream: Stream, muxer: str) -> Decision:
    if stream.codec == containers.TELETEXT:
        if info.is_unsent(stream):
            return drop_stream(stream, "teletext that is announced, and of which nothing was sent")
        what = f"teletext{in_brackets(stream.language)}, which only transport streams hold"
        return drop_stream(stream, what)
    if stream.codec in containers.SUBTITLES.get(muxer, frozenset()):
        return _copy(stream)
    text = stream.codec in containers.TEXT_SUBTITLES
    name = "subtitles" if text else "picture_subtitles"
    policy = profile.policies.subtitles if text else profile.policies.picture_subtitles
    what = f"subtitles in {stream.codec}, which {containers.NAMES[muxer]} cannot hold"
    if policy == "drop":
        return drop_stream(stream, what)
    if text and muxer in containers.SUBTITLE_ENCODERS:
        codec, encoder = containers.SUBTITLE_ENCODERS[muxer]
        plain = stream.codec in {"ass", "ssa"} or codec == "webvtt"
        styled = " without their styling" if plain else ""
        return StreamPlan(
            source_index=stream.index,
            kind=StreamKind.SUBTITLE,
            action=Action.CONVERT,
            codec=codec,
            encoder=encoder,
            notice=f"Stream {stream.index}: subtitles in {stream.codec} become {codec}{styled}.",
        )
    return refuse_stream(stream, f"policies.{name}", what)


def caption_title(channel: str) -> str:
    """Return the title of the text track made from a caption channel."""
    return f"Closed captions ({channel})"


def caption_language(info: MediaInfo, channel: str) -> str:
    """Return a caption channel's language: the first sound's for CC1, as the standard says, else unknown."""
    sounds = [s.language for s in info.of_kind(StreamKind.AUDIO) if s.language]
    return sounds[0] if sounds and channel == "CC1" else "und"


def _cover(profile: Profile, stream: Stream, muxer: str) -> Decision:
    if profile.policies.cover_art == "drop":
        return drop_stream(stream, "cover art")
    if stream.codec in containers.PICTURES.get(muxer, frozenset()):
        return _copy(stream)
    return refuse_stream(stream, "policies.cover_art", "cover art, which the container cannot hold")


def _attachment(profile: Profile, stream: Stream, muxer: str) -> Decision:
    what = stream.tags.get("filename", "an attached file")
    if profile.policies.attachments == "drop":
        return drop_stream(stream, what)
    if muxer == containers.MATROSKA:
        return _copy(stream)
    return refuse_stream(stream, "policies.attachments", f"{what}, which the container cannot hold")


def _data(profile: Profile, info: MediaInfo, stream: Stream, muxer: str) -> Decision:
    tag = stream.codec_tag
    if tag in _UNREAD_SUBTITLES:
        what = f"{_UNREAD_SUBTITLES[tag]} subtitles ({tag}), which ffmpeg cannot read"
        if profile.policies.subtitles == "drop":
            return drop_stream(stream, what)
        return refuse_stream(stream, "policies.subtitles", what)
    if tag in containers.REMADE_TAGS and containers.is_mp4_family(muxer):
        kept = "time code" if tag == "tmcd" else "chapter titles"
        return drop_stream(stream, f"the {kept} track, which is written anew from the file's tags")
    if tag == "text" and info.chapters:
        return drop_stream(stream, "the chapter titles track, which is kept as chapters")
    if tag in containers.DATA_TAGS.get(muxer, frozenset()):
        return _copy(stream)
    what = f"{_CAMERA_DATA.get(tag, 'a data track')} ({tag or stream.codec})"
    if stream.codec == "bin_data" and stream.language and info.format_name in RECORDINGS:
        what = f"data or sound{in_brackets(stream.language)} that ffmpeg cannot read"
    return drop_stream(stream, what)


def _copy(stream: Stream) -> StreamPlan:
    channels = stream.audio.channels if stream.audio is not None else None
    return StreamPlan(
        source_index=stream.index,
        kind=stream.kind,
        action=Action.COPY,
        codec=stream.codec,
        encoder="copy",
        channels=channels,
    )


def drop_stream(stream: Stream, what: str) -> StreamPlan:
    return StreamPlan(
        source_index=stream.index,
        kind=stream.kind,
        action=Action.DROP,
        notice=f"Stream {stream.index} is left out: {what}.",
    )


def refuse_stream(stream: Stream, policy: str, what: str) -> Refuse:
    see = f"; see {policy}" if "." in policy else ""
    return Refuse(policy=policy, detail=f"Stream {stream.index} is {what}{see}.")
