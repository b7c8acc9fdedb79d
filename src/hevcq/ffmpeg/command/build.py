"""Build ffmpeg commands from an encode plan: pure functions, tested as whole lists.

Every stream is mapped and configured by its output number: its encoding, disposition and tags. Nothing is
left to ffmpeg's defaults.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
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
from hevcq.domain.planning.encode_plan import (
    Action,
    EncodePlan,
    StreamPlan,
    VideoTarget,
)
from hevcq.domain.planning.metadata import PROVENANCE_KEY, provenance, tool_mark
from hevcq.domain.planning.streams import caption_language, caption_title
from hevcq.domain.profile import Profile
from hevcq.ffmpeg.command.codecs import encoder_params, hardware_format, marks_range, of_encoder
from hevcq.ffmpeg.command.filters import encoder_filters, steady_options
from hevcq.ffmpeg.command.levels import mixed_for, silent_start, sound_layout, within_scale
from hevcq.ffmpeg.command.thumbnails import made_picture, shared_graphs
from hevcq.ffmpeg.inputs import CAPTION_ENCODERS, DOLBY_OPTION, FfmpegTools, input_options
from hevcq.ports.encoder import EncodeRequest

QUIET = ("-nostdin", "-hide_banner", "-nostats", "-loglevel", "repeat+level+error")
"""Print only errors, each with its level and none folded into "repeated n times"."""
PROGRESS_EVERY_S = 0.5
"""Seconds between two lines of progress that ffmpeg prints."""
PROGRESS = ("-progress", "pipe:1", "-stats_period", f"{PROGRESS_EVERY_S}")
QUEUE_PACKETS = "16384"
"""Packets that a stream may buffer for a sparse one before ffmpeg fails (default 128)."""
WEBVTT_INPUT = (
    "-format_whitelist", "webvtt", "-f", "webvtt", "-protocol_whitelist", "file", "-i"
)  # fmt: skip
CHUNK_MUXER = "mp4"
"""Chunks are MP4: it holds the output of all our encoders, with exact times in any time base."""
CHUNK_DEMUXER = "mov,mp4,m4a,3gp,3g2,mj2"
MIME = {
    "mjpeg": ("jpg", "image/jpeg"),
    "png": ("png", "image/png"),
    "gif": ("gif", "image/gif"),
    "bmp": ("bmp", "image/bmp"),
    "webp": ("webp", "image/webp"),
    "tiff": ("tiff", "image/tiff"),
}
"""File extension and media type of a cover, by codec."""
SPARE = 64
"""Bytes of room beside the boxes: a filling box has at least eight."""
ROOM = "hevcq makes room for metadata here: "
_UNUSED = ("synopsis", "lyrics", "grouping", "network", "show", "keywords", "description", "composer",
           "copyright", "episode_id", "album_artist", "artist", "album", "genre")  # fmt: skip
"""Keys of iTunes' list, of which one that the source does not use may hold the room."""


@dataclass(frozen=True, slots=True)
class JoinedVideo:
    """A video stream that was encoded in chunks: the concat list, and the time of its first frame.

    `offset_s` is in seconds from the source's start time, exact to the microsecond.
    """

    listing: Path
    offset_s: Fraction


def base_command(tools: FfmpegTools, threads: int) -> list[str]:
    """Return the beginning of every encoding command; `threads` 0 leaves the number to ffmpeg."""
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
    """Return the command that encodes `request.output`, or joins it of the chunks of `video`.

    `covers` are the files made by `cover_commands`, in the order of the plan's covers; `captions` are
    WebVTT files, in the order of the plan's.
    """
    plan, info = request.plan, request.info
    threads = request.threads or request.profile.bounds.threads
    command = [*base_command(tools, threads), *_device(plan)]
    command += source_input(request.location, info, plan.mapped if video is not None else ())
    if video is not None:
        command += chunks_input(video)
    command += [word for path in captions for word in (*WEBVTT_INPUT, f"file:{path}")]
    tracks, shared = _mapped(plan), shared_graphs(request) if video is None else {}
    command += [word for graph in shared.values() for word in ("-filter_complex", graph)]
    pictures = {number: made_picture(number) for number in shared}
    if video is not None:
        pictures[plan.main_video.source_index] = "1:0"
    for track in tracks:
        command += ["-map", pictures.get(track.source_index, f"0:{track.source_index}")]
    command += _caption_maps(plan, captions, 1 if video is None else 2)
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
            options = track_options(
                track, source, request.profile, muxer=plan.muxer, threads=threads
            ) + _sound_options(plan, info, track)
        filtered = "-filter" if track.source_index in shared else ""
        command += [w for n, v in options if n != filtered for w in (f"{n}:{place}", v)]
        labels = label_options(
            track, source, muxer=plan.muxer, timecode=_timecode(plan, info, track)
        )
        command += [word for label in labels for word in (f"-metadata:s:{place}", label)]
    command += _caption_options(plan, info, len(tracks))
    command += _attached(plan, info, covers, len(tracks) + len(plan.captions))
    command += [*_global_tags(plan, info), *_room(plan, info), *_muxer(request)]
    return [*command, f"file:{request.output}"]


def cover_commands(
    tools: FfmpegTools, request: EncodeRequest, folder: Path
) -> list[tuple[list[str], Path]]:
    """Return, for each cover that must be extracted to a file, the command and the file.

    Matroska stores covers as attachments; ffmpeg 5.1 would write a mapped cover as another video
    track.
    """
    commands = []
    for track in _attached_covers(request.plan):
        target = folder / f"{request.output.name}.cover{track.source_index}"
        command = [tools.ffmpeg, *QUIET, "-y", *source_input(request.location, request.info)]
        command += ["-map", f"0:{track.source_index}", "-c", "copy", "-frames:v", "1"]
        commands.append(([*command, "-f", "image2pipe", f"file:{target}"], target))
    return commands


def _room(plan: EncodePlan, info: MediaInfo) -> list[str]:
    """Return the tag that makes the index large enough for what is carried into it afterwards."""
    needed = metadata.index_room(plan.muxer, info, plan.streams)
    if not needed:
        return []
    used = {name.partition("-")[0].lower() for name in info.tags}
    replaced = metadata.replaced_list(plan.muxer, info, covers=plan.has_covers)
    key = next((name for name in _UNUSED if name not in used), _UNUSED[0] if replaced else "")
    if metadata.uses_quicktime_keys(plan.muxer, info, covers=plan.has_covers):
        key = "hevcq.room"
    return ["-metadata", f"{key}={ROOM}{'.' * (needed + SPARE)}"] if key else []


def source_input(location: str, info: MediaInfo, kept: Collection[int] = ()) -> list[str]:
    """Return the options that open the source with only the demuxer of the probe; see steady_start."""
    steady = steady_options(info, kept)
    return [*steady, "-format_whitelist", info.format_name, *input_options(location)[2:]]


def _device(plan: EncodePlan) -> tuple[str, ...]:
    """Return the options that open the device of a hardware encoder."""
    encoder = plan.video.encoder
    return HARDWARE[encoder][0].device_options(plan.video.node) if encoder in HARDWARE else ()


def chunks_input(video: JoinedVideo) -> list[str]:
    """Return the options that open the list of a video's chunks as one input."""
    offset = ["-itsoffset", microseconds(video.offset_s)] if video.offset_s else []
    whitelists = ["-format_whitelist", f"concat,{CHUNK_DEMUXER}", "-protocol_whitelist", "file"]
    return [*offset, *whitelists, "-f", "concat", "-safe", "0", "-i", f"file:{video.listing}"]


def microseconds(seconds: Fraction) -> str:
    """Return seconds as a decimal string, rounded to ffmpeg's microseconds."""
    ticks = round(seconds * 1_000_000)
    return f"{'-' if ticks < 0 else ''}{abs(ticks) // 1_000_000}.{abs(ticks) % 1_000_000:06d}"


def _sound_options(plan: EncodePlan, info: MediaInfo, track: StreamPlan) -> Options:
    """Return what a sound needs besides its codec: what leaves hidden packets out, or its filters."""
    source = info.stream(track.source_index)
    if track.kind is not StreamKind.AUDIO:
        return []
    if track.action is Action.COPY:
        edited = info.format_name.startswith("mov,") and is_matroska_family(plan.muxer)
        return [SHOWN] if edited else []
    filters = within_scale(source)
    if plan.muxer in SEAMLESS or info.format_name in RECORDINGS:
        # Where recordings were joined sound may overlap, and an encoder's times would go backwards.
        start = silent_start(source, plan, info) if plan.muxer in SEAMLESS else ""
        filters.append(f"aresample=async=1:min_hard_comp=0.01{start}")
    if track.gain_db:
        # Mixed as it was measured; behind this filter's floats channels would be mixed louder.
        filters += [mixed_for(track, source, plan), f"volume={track.gain_db:g}dB"]
        return [("-filter", ",".join(filters))]
    layout = sound_layout(track, source)
    if source.audio is not None and (layout != source.audio.layout or source.audio.changes):
        filters.append(f"aformat=channel_layouts={layout}")
    return [("-filter", ",".join(filters))] if filters else []


def _attached_covers(plan: EncodePlan) -> list[StreamPlan]:
    """Return the covers that are attached as files instead of mapped."""
    if plan.muxer != MATROSKA:
        return []
    return [stream for stream in plan.kept if stream.kind is StreamKind.PICTURE]


def _mapped(plan: EncodePlan) -> list[StreamPlan]:
    attached = _attached_covers(plan)
    return [stream for stream in plan.kept if stream not in attached]


def _attached(plan: EncodePlan, info: MediaInfo, covers: Sequence[Path], place: int) -> list[str]:
    pictures = _attached_covers(plan)
    if len(pictures) != len(covers):
        raise ValueError(f"{len(pictures)} covers are planned, {len(covers)} were given")
    options = []
    for offset, (track, path) in enumerate(zip(pictures, covers, strict=True)):
        extension, mime = MIME[track.codec]
        name = info.stream(track.source_index).tags.get("filename", f"cover.{extension}")
        where = f"-metadata:s:{place + offset}"
        options += ["-attach", f"file:{path}", where, f"filename={name}", where, f"mimetype={mime}"]
        if title := info.stream(track.source_index).title:
            options += [where, f"title={title}"]
    return options


def _caption_maps(plan: EncodePlan, captions: Sequence[Path], first: int) -> list[str]:
    if len(plan.captions) != len(captions):
        raise ValueError(
            f"{len(plan.captions)} caption texts are planned, {len(captions)} were given"
        )
    return [w for number, _ in enumerate(captions, first) for w in ("-map", f"{number}:0")]


def _caption_options(plan: EncodePlan, info: MediaInfo, place: int) -> list[str]:
    """Return the options of the text tracks, which follow the source's streams."""
    options: list[str] = []
    for number, channel in enumerate(plan.captions, place):
        options += [f"-c:{number}", SUBTITLE_ENCODERS[plan.muxer][1]]
        options += [f"-disposition:{number}", "hearing_impaired"]
        labels = {"language": caption_language(info, channel)}
        labels["handler_name" if is_mp4_family(plan.muxer) else "title"] = caption_title(channel)
        for key, value in labels.items():
            options += [f"-metadata:s:{number}", f"{key}={value}"]
    return options


def _timecode(plan: EncodePlan, info: MediaInfo, track: StreamPlan) -> dict[str, str]:
    """Return the tags that the video stream must carry for the MP4 muxer to write its time code track.

    With a global tag the muxer would also try cover pictures, and report an error of their rate.
    """
    if not is_mp4_family(plan.muxer) or track != plan.main_video:
        return {}
    every = (info.tags, *(stream.tags for stream in info.streams if stream.codec_tag == "tmcd"))
    wanted = {"timecode", "reel_name"}
    return {name: value for tags in every for name, value in tags.items() if name in wanted}


def _global_tags(plan: EncodePlan, info: MediaInfo) -> list[str]:
    tags = dict.fromkeys((name for name in info.tags if name.lower() in metadata.BRANDS), "")
    # ffmpeg copies the tags of a file, and these are a programme's.
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


def marking(plan: EncodePlan) -> list[str]:
    """Return the option without which an MP4 is not marked as Dolby Vision."""
    kept = any(each.video is not None and each.video.dolby_vision for each in plan.kept)
    return ["-strict", "unofficial"] if kept else []


def _muxer(request: EncodeRequest) -> list[str]:
    plan = request.plan
    options = ["-max_muxing_queue_size", QUEUE_PACKETS]
    if any((plan.muxer, stream.codec) in EXPERIMENTAL for stream in plan.kept):
        options += ["-strict", "experimental"]
    options += marking(plan)
    flags = ["faststart"]  # the index at the front, so that it streams
    if metadata.uses_quicktime_keys(plan.muxer, request.info, covers=plan.has_covers):
        flags.append("use_metadata_tags")
    if plan.muxer == AVI:
        # Sound that begins before 0 (an encoder's delay) would shift the picture by empty chunks.
        options += ["-avoid_negative_ts", "disabled"]
    if plan.muxer == WEBM:
        options += ["-cues_to_front", "1"]
    if is_mp4_family(plan.muxer):
        options += ["-movflags", "+".join(["", *flags])]
    return [*options, "-f", plan.muxer]


VORBIS_QUALITY = "5"
"""About 80 kbit/s for each channel at 44.1 kHz; a fixed bit rate fails at rates that do not suit it."""
MIN_RATE = 32_000
"""Samples per second below which MP3 has frames of half the length, which AVI's readers count as whole."""
XVID = "XVID"
"""The tag by which every old player knows MPEG-4 Part 2 in AVI."""
DISPOSITIONS = frozenset(
    {
        "default", "dub", "original", "comment", "lyrics", "karaoke", "forced", "hearing_impaired",
        "visual_impaired", "clean_effects", "attached_pic", "timed_thumbnails", "captions",
        "descriptions", "metadata", "dependent", "still_image",
    }
)  # fmt: skip
"""Values of `-disposition` in ffmpeg 5.1; names that only newer versions report are omitted."""
_STATISTICS = re.compile(
    r"^((BPS|DURATION|NUMBER_OF_FRAMES|NUMBER_OF_BYTES)(-|$)|_STATISTICS_)", re.IGNORECASE
)
"""mkvmerge's statistics tags: valid for the source's stream, wrong for an encoded one."""
Options = list[tuple[str, str]]
LASTING = (
    "-bsf",
    r"setts=pts=PTS:dts=DTS:duration=if(DURATION\,DURATION\,if(N\,DTS-PREV_INDTS\,0))",
)
"""Let a picture last as long as the one before it: `setpts` takes durations from ffmpeg 6.1 to 7, and of
an MP4 whose last picture has none it is hidden."""
SHOWN = ("-bsf", r"noise=drop=lt(pts+3*d\,0)")
"""Leave out copied sound before the start, but for the packets that a decoder needs: Matroska has no edit
list that hides it. By packets' lengths, because ffmpeg 5.1 gives this filter another time base."""
RISING = ("-bsf", r"setts=pts=PTS:dts=if(eq(N\,0)\,DTS\,max(DTS\,PREV_OUTDTS+1))")
"""Let decoding times rise where chunks meet. Each chunk is decoded ahead by its own first pictures' lengths:
where long pictures follow short ones it would begin before the one before has ended, and the muxer ends."""


def track_options(
    track: StreamPlan, source: Stream, profile: Profile, *, muxer: str, threads: int
) -> Options:
    """Return the options of one output stream; the caller appends the stream's number to each name.

    `threads` is the encoder's number of threads; 0 leaves it to the encoder.
    """
    if track.action is Action.COPY:
        made: Options = [("-c", "copy")]
    elif track.video is not None:
        made = _picture(track.video, profile, threads, track.video.tick(source))
        if is_mp4_family(muxer):
            made.append(("-tag", track.video.tag))
        elif muxer == AVI:
            made.append(("-tag", XVID))
    else:
        made = _converted(track, source, muxer)
    return [*made, _disposition(source)]


def joined_options(track: StreamPlan, source: Stream, *, muxer: str) -> Options:
    """Return the options of a video stream that is copied from its encoded chunks."""
    made: Options = [("-c", "copy"), RISING]
    if track.video is not None and is_mp4_family(muxer):
        made.append(("-tag", track.video.tag))
    return [*made, _disposition(source)]


def chunk_options(
    target: VideoTarget, profile: Profile, *, tick: Fraction, threads: int, trim: str
) -> Options:
    """Return the options of one chunk's video: those of a whole encode, after a trim filter.

    `tick` is the source's time base in seconds; `threads` 0 leaves the number to the encoder.
    """
    options = _picture(target, profile, threads, tick)
    filters = dict(options).get("-filter")
    chain = f"{trim},{filters}" if filters else trim
    options = [pair for pair in options if pair[0] != "-filter"]
    return [*options, ("-filter", chain), ("-tag", target.tag)]


def _disposition(source: Stream) -> tuple[str, str]:
    flags = [name for name in source.dispositions if name in DISPOSITIONS]
    return "-disposition", "+".join(flags) or "0"


def label_options(
    track: StreamPlan, source: Stream, *, muxer: str, timecode: Mapping[str, str] | None = None
) -> list[str]:
    """Return the tags of one output stream as `key=value`; an empty value removes the tag."""
    tags = {}
    if source.title and "title" not in map(str.lower, source.tags):
        tags["title"] = source.title  # the name of an MP4's track, which ffmpeg does not read
    elif source.title and is_mp4_family(muxer):
        # ffmpeg writes an MP4 track's title but does not read it; players show the handler name.
        tags["handler_name"] = source.title
    if language := metadata.plain_language(muxer, source):
        tags["language"] = language
    if muxer == OGG:
        # A stream's title would take the place of the file's: Ogg has one list of comments for both.
        tags["title"] = ""
    tags |= timecode or {}
    if track.action is not Action.COPY:
        tags |= {name: "" for name in source.tags if _STATISTICS.match(name)}
    return [f"{name}={value}" for name, value in tags.items()]


def _on_grid(step_s: float) -> str:
    """Return ffmpeg's expression for the first picture at or after each step from time 0."""
    return f"isnan(prev_forced_t)+gt(floor(t/{step_s:g}),floor(prev_forced_t/{step_s:g}))"


def _picture(target: VideoTarget, profile: Profile, threads: int, tick: Fraction) -> Options:
    video, codec = profile.video, of_encoder(target.encoder)
    crf = video.crf if target.crf is None else target.crf
    options = [
        ("-c", target.encoder),
        *codec.quality(encoder_preset(video.codec, video.preset), f"{crf:g}"),
        *hardware_format(target),
        # Keep frame times, in the source's time base, a number: its name is "-1" until ffmpeg 8, "demux" from 7.
        ("-fps_mode", "passthrough"),
        ("-enc_time_base", str(1 / Fraction(target.rate) if target.rate else tick)),
    ]
    if marks_range(target):
        options.append(("-color_range", "pc"))
    if encoder_filters(target):
        options.append(("-filter", encoder_filters(target)))
    if target.retimed:
        options.append(LASTING)
    if video.keyframe_s is not None:
        options.append(("-force_key_frames", f"expr:{_on_grid(video.keyframe_s)}"))
    options += _within_pictures(target)
    if threads:
        options += codec.threads(threads)[1]
    params = encoder_params(target, video.encoder_params, threads)
    if params and not codec.option:
        # An encoder without a list of its own parameters has them as options of ffmpeg.
        options += [(f"-{name}", value) for name, value in params.items()]
    elif params:
        words = ":".join(f"{name}={value}" for name, value in params.items())
        options.append((codec.option, words))
    return options


def _within_pictures(target: VideoTarget) -> Options:
    """Return the options for what the encoder writes beside pictures into their stream."""
    told = target.captions is not None and target.encoder in CAPTION_ENCODERS
    return [
        *([("-a53cc", "1" if target.captions else "0")] if told else []),
        *([(DOLBY_OPTION, "1")] if target.dolby_vision else []),
    ]


def _converted(track: StreamPlan, source: Stream, muxer: str) -> Options:
    options = [("-c", track.encoder)]
    if track.bit_rate is not None:
        options.append(("-b", str(track.bit_rate)))
    elif track.encoder == "libvorbis":
        options.append(("-q", VORBIS_QUALITY))
    if muxer == AVI and source.audio is not None and source.audio.sample_rate < MIN_RATE:
        options.append(("-ar", str(MIN_RATE)))
    return options
