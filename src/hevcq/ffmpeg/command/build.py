"""Build ffmpeg commands from an encode plan: pure functions, tested as whole lists.

Every stream is mapped and configured by its output number; nothing is left to ffmpeg's defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from hevcq.domain.formats.hardware import HARDWARE
from hevcq.domain.media.containers import AVI, EXPERIMENTAL, MATROSKA, MP4, WEBM, is_mp4_family
from hevcq.domain.media.facts import MediaInfo, Stream, StreamKind
from hevcq.domain.media.provenance import KEY, mark, tool_mark
from hevcq.domain.planning import metadata
from hevcq.domain.planning.encode_plan import EncodePlan, StreamPlan
from hevcq.ffmpeg.command.streams import joined_options, label_options, track_options
from hevcq.ffmpeg.inputs import FfmpegTools, input_options, is_local_proxy, is_url
from hevcq.ports.encoder import EncodeRequest

QUIET = ("-nostdin", "-hide_banner", "-nostats", "-loglevel", "repeat+level+error")
"""Print only errors, each with its level and none folded into "repeated n times"."""
PROGRESS = ("-progress", "pipe:1", "-stats_period", "0.5")
QUEUE_PACKETS = "16384"
"""Packets that a stream may buffer for a sparse one before ffmpeg fails (default 128)."""
CHUNK_MUXER = "mp4"
"""Chunks are MP4: it holds the output of all our encoders, with exact times in any time base."""
CHUNK_DEMUXER = "mov,mp4,m4a,3gp,3g2,mj2"
RECONNECT_S = "4"
"""Seconds: a broken connection is retried after 0, 1 and 3 s; longer outages are left to the queue."""
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
_UNUSED = ("synopsis", "lyrics", "grouping", "network", "show", "keywords", "description")
"""Keys of iTunes' list, of which one that the source does not use may hold the room."""


@dataclass(frozen=True, slots=True)
class JoinedVideo:
    """A video stream that was encoded in chunks: the concat list, and the time of its first frame.

    `offset_s` is in seconds from the source's start time, exact to the microsecond.
    """

    listing: Path
    offset_s: Fraction


def encode_command(
    tools: FfmpegTools, request: EncodeRequest, covers: Sequence[Path] = ()
) -> list[str]:
    """Return the command that encodes `request.output`.

    `covers` are the files made by `cover_commands`, in the order of the plan's covers.
    """
    return _rendition_command(tools, request, covers, None)


def join_command(
    tools: FfmpegTools, request: EncodeRequest, covers: Sequence[Path], video: JoinedVideo
) -> list[str]:
    """Return the command that writes `request.output` with the picture copied from its chunks.

    All other streams are mapped, encoded and tagged as in `encode_command`.
    """
    return _rendition_command(tools, request, covers, video)


def base_command(tools: FfmpegTools, threads: int) -> list[str]:
    """Return the beginning of every encoding command; `threads` 0 leaves the number to ffmpeg."""
    command = [tools.ffmpeg, *QUIET, "-xerror", "-y", *PROGRESS]
    if threads:
        command += ["-filter_threads", str(threads), "-threads", str(threads)]
    return command


def _rendition_command(
    tools: FfmpegTools, request: EncodeRequest, covers: Sequence[Path], video: JoinedVideo | None
) -> list[str]:
    plan, info = request.plan, request.info
    threads = request.threads or request.profile.bounds.threads
    command = [*base_command(tools, threads), *_device(plan)]
    command += source_input(request.location, info)
    if video is not None:
        command += _chunks_input(video)
    tracks = _mapped(plan)
    for track in tracks:
        joined = video is not None and track == plan.main_video
        command += ["-map", "1:0" if joined else f"0:{track.source_index}"]
    # Explicit, because ffmpeg's default copy of the global tags omits the creation time.
    command += ["-map_metadata", "0", "-map_chapters", "0"]
    for place, track in enumerate(tracks):
        source = _stream(info, track)
        if video is not None:
            # Mapping one stream's tags turns ffmpeg's default copying off for all streams.
            command += [f"-map_metadata:s:{place}", f"0:s:{track.source_index}"]
        if video is not None and track == plan.main_video:
            options = joined_options(track, source, muxer=plan.muxer)
            command += [f"-metadata:s:{place}", f"encoder=Lavc {track.encoder}"]
        else:
            options = track_options(
                track, source, request.profile, muxer=plan.muxer, threads=threads
            )
        for name, value in options:
            command += [f"{name}:{place}", value]
        timecode = _timecode(plan, info, track)
        for label in label_options(track, source, muxer=plan.muxer, timecode=timecode):
            command += [f"-metadata:s:{place}", label]
    command += _attached(plan, info, covers, len(tracks))
    return [
        *command,
        *_global_tags(plan, info),
        *_room(plan, info),
        *_muxer(request),
        f"file:{request.output}",
    ]


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
    covers = plan.has_covers
    needed = metadata.room_for(plan.muxer, info, covers=covers)
    if not needed:
        return []
    used = {name.partition("-")[0].lower() for name in info.tags}
    key = next((name for name in _UNUSED if name not in used), "")
    if metadata.uses_quicktime_keys(plan.muxer, info.tags, covers=covers):
        key = "hevcq.room"
    return ["-metadata", f"{key}={ROOM}{'.' * (needed + SPARE)}"] if key else []


def source_input(location: str, info: MediaInfo) -> list[str]:
    """Return the options that open the source with only the demuxer that the probe found."""
    ours = not is_url(location) or is_local_proxy(location)
    again = [] if ours else ["-reconnect", "1", "-reconnect_delay_max", RECONNECT_S]
    return [*again, "-format_whitelist", info.format_name, *input_options(location)[2:]]


def _device(plan: EncodePlan) -> tuple[str, ...]:
    """Return the options that open the device of a hardware encoder."""
    encoder = plan.video.encoder
    return HARDWARE[encoder][0].device if encoder in HARDWARE else ()


def _chunks_input(video: JoinedVideo) -> list[str]:
    offset = ["-itsoffset", microseconds(video.offset_s)] if video.offset_s else []
    whitelists = ["-format_whitelist", f"concat,{CHUNK_DEMUXER}", "-protocol_whitelist", "file"]
    return [*offset, *whitelists, "-f", "concat", "-safe", "0", "-i", f"file:{video.listing}"]


def microseconds(seconds: Fraction) -> str:
    """Return seconds as a decimal string, rounded to ffmpeg's microseconds."""
    ticks = round(seconds * 1_000_000)
    return f"{'-' if ticks < 0 else ''}{abs(ticks) // 1_000_000}.{abs(ticks) % 1_000_000:06d}"


def _stream(info: MediaInfo, track: StreamPlan) -> Stream:
    return next(stream for stream in info.streams if stream.index == track.source_index)


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
        name = _stream(info, track).tags.get("filename", f"cover.{extension}")
        where = f"-metadata:s:{place + offset}"
        options += ["-attach", f"file:{path}", where, f"filename={name}", where, f"mimetype={mime}"]
    return options


def _timecode(plan: EncodePlan, info: MediaInfo, track: StreamPlan) -> str:
    """Return the time code that the video stream must carry for the MP4 muxer to write its track.

    With a global tag the muxer would also try cover pictures, and report an error of their rate.
    """
    if not is_mp4_family(plan.muxer) or track != plan.main_video:
        return ""
    return info.tags.get("timecode", "")


def _global_tags(plan: EncodePlan, info: MediaInfo) -> list[str]:
    tags = dict.fromkeys((name for name in info.tags if name.lower() in metadata.BRANDS), "")
    if is_mp4_family(plan.muxer) and "timecode" in info.tags:
        tags["timecode"] = ""
    if plan.muxer == MP4 and not metadata.uses_quicktime_keys(
        plan.muxer, info.tags, covers=plan.has_covers
    ):
        tags["encoding_tool"] = tool_mark(plan.profile, plan.revision)
    elif plan.muxer == AVI:
        tags["encoded_by"] = tool_mark(plan.profile, plan.revision)
    else:
        tags[KEY] = mark(plan.profile, plan.revision)
    return [word for name, value in tags.items() for word in ("-metadata", f"{name}={value}")]


def _muxer(request: EncodeRequest) -> list[str]:
    plan = request.plan
    options = ["-max_muxing_queue_size", QUEUE_PACKETS]
    if any((plan.muxer, stream.codec) in EXPERIMENTAL for stream in plan.kept):
        options += ["-strict", "experimental"]
    flags = ["faststart"] if request.profile.faststart else []
    if metadata.uses_quicktime_keys(plan.muxer, request.info.tags, covers=plan.has_covers):
        flags.append("use_metadata_tags")
    if plan.muxer == AVI:
        # Sound that begins before 0 (an encoder's delay) would shift the picture by empty chunks.
        options += ["-avoid_negative_ts", "disabled"]
    if plan.muxer == WEBM and request.profile.faststart:
        options += ["-cues_to_front", "1"]
    if is_mp4_family(plan.muxer) and flags:
        options += ["-movflags", "+".join(["", *flags])]
    return [*options, "-f", plan.muxer]
