"""Build ffmpeg commands from an encode plan. Pure: the tests compare whole argument lists.

Each stream is mapped explicitly, and its encoding, disposition and tags are set by its output number.
ffmpeg's defaults decide nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from hevcq.domain.formats import HARDWARE, encoder_preset
from hevcq.domain.media.containers import (
    AVI,
    EXPERIMENTAL,
    MATROSKA,
    MP4,
    OGG,
    SEAMLESS,
    SUBTITLE_ENCODERS,
    WEBM,
    is_matroska_family,
    is_mp4_family,
)
from hevcq.domain.media.facts import RECORDINGS, SERVICE_TAGS, MediaInfo, Stream, StreamKind
from hevcq.domain.planning import metadata
from hevcq.domain.planning.encode_plan import Action, EncodePlan, StreamPlan, VideoTarget
from hevcq.domain.planning.metadata import PROVENANCE_KEY, provenance, tool_mark
from hevcq.domain.planning.streams import caption_language, caption_title
from hevcq.domain.profile import Profile
from hevcq.ffmpeg.command.codecs import (
    encoder_params,
    encoder_traits,
    needs_range_mark,
    pixel_format_option,
)
from hevcq.ffmpeg.command.filters import encoder_filters, source_options
from hevcq.ffmpeg.command.levels import clip_filter, leading_silence, mix_filters, sound_layout
from hevcq.ffmpeg.command.thumbnails import picture_label, shared_graphs
from hevcq.ffmpeg.inputs import CAPTION_ENCODERS, DOLBY_OPTION, FfmpegTools, input_options
from hevcq.ports.encoder import EncodeRequest

QUIET = ("-nostdin", "-hide_banner", "-nostats", "-loglevel", "repeat+level+error")
"""Print only errors, each with its level, and do not fold repeated lines."""
PROGRESS = ("-progress", "pipe:1", "-stats_period", "0.5")
QUEUE_PACKETS = "16384"
"""Packets of a stream that the muxer buffers while it waits for a sparse stream (ffmpeg's default: 128)."""
WEBVTT_INPUT = (
    "-format_whitelist", "webvtt", "-f", "webvtt", "-protocol_whitelist", "file", "-i"
)  # fmt: skip
CHUNK_MUXER = "mp4"
"""MP4 holds the output of every encoder, with exact timestamps in any time base."""
COVER_TYPES = {
    "mjpeg": ("jpg", "image/jpeg"),
    "png": ("png", "image/png"),
    "gif": ("gif", "image/gif"),
    "bmp": ("bmp", "image/bmp"),
    "webp": ("webp", "image/webp"),
    "tiff": ("tiff", "image/tiff"),
}
"""File extension and media type of a cover, by codec."""
SPARE = 64
"""Extra bytes of room: the `free` box that fills what is left has at least eight."""
ROOM = "hevcq makes room for metadata here: "
_ROOM_KEYS = ("synopsis", "lyrics", "grouping", "network", "show", "keywords", "description", "composer",
           "copyright", "episode_id", "album_artist", "artist", "album", "genre")  # fmt: skip
"""Keys of iTunes' list. The first one that the source does not use holds the room."""


@dataclass(frozen=True, slots=True)
class JoinedVideo:
    """A video stream that was encoded in chunks, as a concat list.

    `offset_s` is the time of its first frame, in seconds from the source's start time, exact to the
    microsecond.
    """

    listing: Path
    offset_s: Fraction


def base_command(tools: FfmpegTools, threads: int) -> list[str]:
    """Return the words with which every encode command begins; with `threads` 0 ffmpeg decides."""
    command = [tools.ffmpeg, *QUIET, "-xerror", "-y", *PROGRESS]
    if threads:
        command += ["-filter_threads", str(threads), "-threads", str(threads)]
    return command


def encode_command(
    tools: FfmpegTools,
    request: EncodeRequest,
    covers: Sequence[Path] = (),
    captions: Sequence[Path] = (),
    video: JoinedVideo | None = None,
) -> list[str]:
    """Return the command that encodes to `request.output`, or joins the chunks of `video` there.

    `covers` are the files that `cover_commands` extracts, `captions` are WebVTT files; both are in
    the order of the plan.
    """
    plan, info, profile = request.plan, request.info, request.profile
    threads, encoder = request.threads or profile.bounds.threads, plan.video.encoder
    command = base_command(tools, threads)
    command += HARDWARE[encoder][0].device_options(plan.video.node) if encoder in HARDWARE else ()
    command += source_input(request.location, info, plan.mapped if video is not None else ())
    shared = shared_graphs(request) if video is None else {}
    pictures = {number: picture_label(number) for number in shared}
    if video is not None:
        command += chunks_input(video)
        pictures[plan.main_video.source_index] = "1:0"
    command += [word for path in captions for word in (*WEBVTT_INPUT, f"file:{path}")]
    tracks = [track for track in plan.kept if track not in _attached_covers(plan)]
    command += [word for graph in shared.values() for word in ("-filter_complex", graph)]
    sources = [track.source_index for track in tracks]
    command += [w for n in sources for w in ("-map", pictures.get(n, f"0:{n}"))]
    texts = enumerate(zip(plan.captions, captions, strict=True), 1 if video is None else 2)
    command += [word for number, _ in texts for word in ("-map", f"{number}:0")]
    # Explicit, because ffmpeg's default copy of the global tags omits the creation time.
    command += ["-map_metadata", "0", "-map_chapters", "0"]
    for place, track in enumerate(tracks):
        if pictures:
            # Mapping one stream's tags turns ffmpeg's default copying off for all streams.
            command += [f"-map_metadata:s:{place}", f"0:s:{track.source_index}"]
        if track.source_index in pictures:
            command += [f"-metadata:s:{place}", f"encoder=Lavc {track.encoder}"]
        source = info.stream(track.source_index)
        if video is not None and track == plan.main_video:
            options = joined_options(track, source, muxer=plan.muxer)
        else:
            options = track_options(track, source, profile, muxer=plan.muxer, threads=threads)
            options += _sound_options(plan, info, track)
        filtered = "-filter" if track.source_index in shared else ""
        command += [w for n, v in options if n != filtered for w in (f"{n}:{place}", v)]
        command += [
            w for label in _labels(plan, info, track) for w in (f"-metadata:s:{place}", label)
        ]
    command += _caption_options(plan, info, len(tracks))
    command += _attachment_options(plan, info, covers, len(tracks) + len(plan.captions))
    command += _global_tag_options(plan, info) + _metadata_room(plan, info)
    return [*command, *_muxer_options(request), f"file:{request.output}"]


def cover_commands(
    tools: FfmpegTools, request: EncodeRequest, folder: Path
) -> list[tuple[list[str], Path]]:
    """Return the command that extracts each attached cover, with the file that it writes.

    Matroska stores covers as attachments. ffmpeg 5.1 would write a mapped cover as a video track.
    """
    commands = []
    for track in _attached_covers(request.plan):
        target = folder / f"{request.output.name}.cover{track.source_index}"
        command = [tools.ffmpeg, *QUIET, "-y", *source_input(request.location, request.info)]
        command += ["-map", f"0:{track.source_index}", "-c", "copy", "-frames:v", "1"]
        commands.append(([*command, "-f", "image2pipe", f"file:{target}"], target))
    return commands


def _metadata_room(plan: EncodePlan, info: MediaInfo) -> list[str]:
    """Return the tag that enlarges the index, so that `run.carry` can later put metadata into it."""
    needed = metadata.index_room(plan.muxer, info, plan.streams)
    if not needed:
        return []
    used = {name.partition("-")[0].lower() for name in info.tags}
    replaced = metadata.replaced_list(plan.muxer, info, covers=plan.has_covers)
    key = next((name for name in _ROOM_KEYS if name not in used), _ROOM_KEYS[0] if replaced else "")
    if metadata.uses_quicktime_keys(plan.muxer, info, covers=plan.has_covers):
        key = "hevcq.room"
    return ["-metadata", f"{key}={ROOM}{'.' * (needed + SPARE)}"] if key else []


def source_input(location: str, info: MediaInfo, kept: Collection[int] = ()) -> list[str]:
    """Return the options that open the source, with only the demuxer that the probe found.

    `kept` see `start_offset_option`.
    """
    steady = source_options(info, kept)
    return [*steady, "-format_whitelist", info.format_name, *input_options(location)[2:]]


def chunks_input(video: JoinedVideo) -> list[str]:
    """Return the options that open the concat list of a video's chunks as one input."""
    offset = ["-itsoffset", microseconds(video.offset_s)] if video.offset_s else []
    demuxers = ["-format_whitelist", "concat,mov,mp4,m4a,3gp,3g2,mj2"]
    protocol = ["-protocol_whitelist", "file", "-f", "concat", "-safe", "0"]
    return [*offset, *demuxers, *protocol, "-i", f"file:{video.listing}"]


def microseconds(seconds: Fraction) -> str:
    """Format seconds as a decimal number with six places: ffmpeg counts in microseconds."""
    ticks = round(seconds * 1_000_000)
    return f"{'-' if ticks < 0 else ''}{abs(ticks) // 1_000_000}.{abs(ticks) % 1_000_000:06d}"


def _sound_options(plan: EncodePlan, info: MediaInfo, track: StreamPlan) -> Options:
    """Return a sound's filters; of a copied sound, the filter that drops hidden packets."""
    source = info.stream(track.source_index)
    if track.kind is not StreamKind.AUDIO:
        return []
    if track.action is Action.COPY:
        edited = info.format_name.startswith("mov,") and is_matroska_family(plan.muxer)
        return [DROP_HIDDEN_PACKETS] if edited else []
    filters = clip_filter(source)
    if plan.muxer in SEAMLESS or info.format_name in RECORDINGS:
        # Sound may overlap at the joins of a recording: the encoder's timestamps would go backwards.
        start = leading_silence(source, plan, info) if plan.muxer in SEAMLESS else ""
        filters.append(f"aresample=async=1:min_hard_comp=0.01{start}")
    layout = sound_layout(track, source)
    if track.gain_db:
        # Mix before `volume`, as for the measurement: that filter outputs floats, which mix louder.
        filters += [mix_filters(track, source, plan), f"volume={track.gain_db:g}dB"]
    elif source.audio is not None and (layout != source.audio.layout or source.audio.changes):
        filters.append(f"aformat=channel_layouts={layout}")
    return [("-filter", ",".join(filters))] if filters else []


def _attached_covers(plan: EncodePlan) -> list[StreamPlan]:
    """Return the covers that are attached as files rather than mapped."""
    if plan.muxer != MATROSKA:
        return []
    return [stream for stream in plan.kept if stream.kind is StreamKind.PICTURE]


def _attachment_options(
    plan: EncodePlan, info: MediaInfo, covers: Sequence[Path], place: int
) -> list[str]:
    options = []
    for offset, (track, path) in enumerate(zip(_attached_covers(plan), covers, strict=True)):
        extension, mime = COVER_TYPES[track.codec]
        name = info.stream(track.source_index).tags.get("filename", f"cover.{extension}")
        where = f"-metadata:s:{place + offset}"
        options += ["-attach", f"file:{path}", where, f"filename={name}", where, f"mimetype={mime}"]
        if title := info.stream(track.source_index).title:
            options += [where, f"title={title}"]
    return options


def _caption_options(plan: EncodePlan, info: MediaInfo, place: int) -> list[str]:
    """Return the options of the text tracks made from captions, which follow the source's streams."""
    options: list[str] = []
    for number, channel in enumerate(plan.captions, place):
        options += [f"-c:{number}", SUBTITLE_ENCODERS[plan.muxer][1]]
        options += [f"-disposition:{number}", "hearing_impaired"]
        labels = {"language": caption_language(info, channel)}
        labels["handler_name" if is_mp4_family(plan.muxer) else "title"] = caption_title(channel)
        for key, value in labels.items():
            options += [f"-metadata:s:{number}", f"{key}={value}"]
    return options


def _timecode_tags(plan: EncodePlan, info: MediaInfo, track: StreamPlan) -> dict[str, str]:
    """Return the tags of the video stream that make the MP4 muxer write a time code track.

    From a global tag the muxer would try one for cover pictures too, and report an error about their rate.
    """
    if not is_mp4_family(plan.muxer) or track != plan.main_video:
        return {}
    every = (info.tags, *(stream.tags for stream in info.streams if stream.codec_tag == "tmcd"))
    names = {"timecode", "reel_name"}
    return {name: value for tags in every for name, value in tags.items() if name in names}


def _global_tag_options(plan: EncodePlan, info: MediaInfo) -> list[str]:
    tags = dict.fromkeys((name for name in info.tags if name.lower() in metadata.BRANDS), "")
    # ffmpeg copies a file's tags, but not those of a broadcast programme.
    tags |= {name: info.tags[name] for name in SERVICE_TAGS if name in info.tags}
    if is_mp4_family(plan.muxer) and "timecode" in info.tags:
        tags["timecode"] = ""
    if plan.muxer == MP4 and not metadata.uses_quicktime_keys(
        plan.muxer, info, covers=plan.has_covers
    ):
        tags["encoding_tool"] = tool_mark(plan.profile, plan.revision)
    elif plan.muxer == AVI:
        tags["encoded_by"] = tool_mark(plan.profile, plan.revision)
    else:
        tags[PROVENANCE_KEY] = provenance(plan.profile, plan.revision)
    return [word for name, value in tags.items() for word in ("-metadata", f"{name}={value}")]


def dolby_vision_option(plan: EncodePlan) -> list[str]:
    """Return the option that MP4 needs to be marked as Dolby Vision; nothing for other videos."""
    kept = any(each.video is not None and each.video.dolby_vision for each in plan.kept)
    return ["-strict", "unofficial"] if kept else []


def _muxer_options(request: EncodeRequest) -> list[str]:
    plan = request.plan
    options = ["-max_muxing_queue_size", QUEUE_PACKETS]
    if any((plan.muxer, stream.codec) in EXPERIMENTAL for stream in plan.kept):
        options += ["-strict", "experimental"]
    options += dolby_vision_option(plan)
    flags = ["faststart"]  # the index at the front, so that it streams
    if metadata.uses_quicktime_keys(plan.muxer, request.info, covers=plan.has_covers):
        flags.append("use_metadata_tags")
    if plan.muxer == AVI:
        # Sound that begins before 0 (encoder delay) would make ffmpeg shift the picture by empty chunks.
        options += ["-avoid_negative_ts", "disabled"]
    if plan.muxer == WEBM:
        options += ["-cues_to_front", "1"]
    if is_mp4_family(plan.muxer):
        options += ["-movflags", "+".join(["", *flags])]
    return [*options, "-f", plan.muxer]


VORBIS_QUALITY = "5"
"""About 80 kbit/s a channel at 44.1 kHz. A fixed bit rate fails at sample rates that do not suit it."""
MIN_RATE = 32_000
"""Samples per second. MP3 below it has frames of half the length, which AVI's readers count as whole."""
XVID = "XVID"
"""The codec tag by which old players know MPEG-4 Part 2 in AVI."""
DISPOSITIONS = frozenset(
    {
        "default", "dub", "original", "comment", "lyrics", "karaoke", "forced", "hearing_impaired",
        "visual_impaired", "clean_effects", "attached_pic", "timed_thumbnails", "captions",
        "descriptions", "metadata", "dependent", "still_image",
    }
)  # fmt: skip
"""Values of `-disposition` that ffmpeg 5.1 accepts; newer versions report more."""
_STATISTICS = re.compile(
    r"^((BPS|DURATION|NUMBER_OF_FRAMES|NUMBER_OF_BYTES)(-|$)|_STATISTICS_)", re.IGNORECASE
)
"""mkvmerge's statistics tags: they describe the source's stream and are wrong for an encoded one."""
Options = list[tuple[str, str]]
FRAME_DURATIONS = (
    "-bsf",
    r"setts=pts=PTS:dts=DTS:duration=if(DURATION\,DURATION\,if(N\,DTS-PREV_INDTS\,0))",
)
"""Give a frame without a duration that of the frame before it. `setpts` of ffmpeg 6.1 to 7 removes
durations, and in an MP4 a last frame without one is hidden."""
DROP_HIDDEN_PACKETS = ("-bsf", r"noise=drop=lt(pts+3*d\,0)")
"""Drop copied sound packets from before the start, except those that the decoder needs: Matroska has no
edit list to hide them. Measured in packet durations, because ffmpeg 5.1 gives this filter another time base."""
RISING_DTS = ("-bsf", r"setts=pts=PTS:dts=if(eq(N\,0)\,DTS\,max(DTS\,PREV_OUTDTS+1))")
"""Keep decoding times rising where chunks meet. A chunk's decoding times begin earlier than its frames are
shown, by the durations of its own first frames. Where long frames follow short ones, they would begin
before the end of the chunk before, and the muxer would fail."""


def track_options(
    track: StreamPlan, source: Stream, profile: Profile, *, muxer: str, threads: int
) -> Options:
    """Return the options of one output stream; the caller appends the stream's number to each name.

    `threads` is the encoder's number of threads; with 0 the encoder decides.
    """
    if track.action is Action.COPY:
        options: Options = [("-c", "copy")]
    elif track.video is not None:
        options = _video_options(track.video, profile, threads, track.video.tick(source))
        if is_mp4_family(muxer):
            options.append(("-tag", track.video.tag))
        elif muxer == AVI:
            options.append(("-tag", XVID))
    else:
        options = _conversion_options(track, source, muxer)
    return [*options, _disposition_option(source)]


def joined_options(track: StreamPlan, source: Stream, *, muxer: str) -> Options:
    """Return the options of a video stream that is copied from encoded chunks."""
    options: Options = [("-c", "copy"), RISING_DTS]
    if track.video is not None and is_mp4_family(muxer):
        options.append(("-tag", track.video.tag))
    return [*options, _disposition_option(source)]


def chunk_options(
    target: VideoTarget, profile: Profile, *, tick: Fraction, threads: int, trim: str
) -> Options:
    """Return the options of one chunk's video: those of a whole encode behind the filter `trim`.

    `tick` is the source's time base in seconds; with `threads` 0 the encoder decides.
    """
    options = _video_options(target, profile, threads, tick)
    filters = dict(options).get("-filter")
    chain = f"{trim},{filters}" if filters else trim
    options = [pair for pair in options if pair[0] != "-filter"]
    return [*options, ("-filter", chain), ("-tag", target.tag)]


def _disposition_option(source: Stream) -> tuple[str, str]:
    flags = [name for name in source.dispositions if name in DISPOSITIONS]
    return "-disposition", "+".join(flags) or "0"


def _labels(plan: EncodePlan, info: MediaInfo, track: StreamPlan) -> list[str]:
    """Return the tags of one output stream as `key=value`. An empty value removes the tag."""
    muxer, source, tags = plan.muxer, info.stream(track.source_index), dict[str, str]()
    if source.title and "title" not in map(str.lower, source.tags):
        tags["title"] = source.title  # an MP4's track name, which ffmpeg does not read
    elif source.title and is_mp4_family(muxer):
        # ffmpeg writes an MP4 track's title but does not read it; players show the handler name.
        tags["handler_name"] = source.title
    if language := metadata.plain_language(muxer, source):
        tags["language"] = language
    if muxer == OGG:
        # Ogg has one list of comments: the stream's title would replace the file's.
        tags["title"] = ""
    tags |= _timecode_tags(plan, info, track)
    if track.action is not Action.COPY:
        tags |= {name: "" for name in source.tags if _STATISTICS.match(name)}
    return [f"{name}={value}" for name, value in tags.items()]


def _video_options(target: VideoTarget, profile: Profile, threads: int, tick: Fraction) -> Options:
    video, codec = profile.video, encoder_traits(target.encoder)
    crf = video.crf if target.crf is None else target.crf
    options = [
        ("-c", target.encoder),
        *codec.quality(encoder_preset(video.codec, video.preset), f"{crf:g}"),
        *pixel_format_option(target),
        # Keep timestamps in the source's time base. A number, because the name for it is "-1" until
        # ffmpeg 8 and "demux" from ffmpeg 7 on.
        ("-fps_mode", "passthrough"),
        ("-enc_time_base", str(1 / Fraction(target.rate) if target.rate else tick)),
    ]
    if needs_range_mark(target):
        options.append(("-color_range", "pc"))
    if encoder_filters(target):
        options.append(("-filter", encoder_filters(target)))
    if target.retimed:
        options.append(FRAME_DURATIONS)
    if (step_s := video.keyframe_s) is not None:
        # The first frame of each step from time 0 is a key frame.
        is_next = f"gt(floor(t/{step_s:g}),floor(prev_forced_t/{step_s:g}))"
        options.append(("-force_key_frames", f"expr:isnan(prev_forced_t)+{is_next}"))
    if target.captions is not None and target.encoder in CAPTION_ENCODERS:
        options.append(("-a53cc", "1" if target.captions else "0"))
    if target.dolby_vision:
        options.append((DOLBY_OPTION, "1"))
    if threads:
        options += codec.threads(threads)[1]
    params = encoder_params(target, video.encoder_params, threads)
    if params and not codec.option:
        # Without an option for a parameter list, each parameter is an ffmpeg option.
        options += [(f"-{name}", value) for name, value in params.items()]
    elif params:
        words = ":".join(f"{name}={value}" for name, value in params.items())
        options.append((codec.option, words))
    return options


def _conversion_options(track: StreamPlan, source: Stream, muxer: str) -> Options:
    options = [("-c", track.encoder)]
    if track.bit_rate is not None:
        options.append(("-b", str(track.bit_rate)))
    elif track.encoder == "libvorbis":
        options.append(("-q", VORBIS_QUALITY))
    if muxer == AVI and source.audio is not None and source.audio.sample_rate < MIN_RATE:
        options.append(("-ar", str(MIN_RATE)))
    return options
