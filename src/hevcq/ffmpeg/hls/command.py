"""Build the command that encodes a whole ladder with one decode. Pure: tests compare the whole list.

Each rung has a filter graph over the same decoded stream, and an output. Sounds and subtitles are
further outputs of the same run.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from hevcq.domain.media.facts import MediaInfo, StreamKind
from hevcq.domain.planning.encode_plan import (
    LOW,
    SOUNDS,
    SURROUND,
    Action,
    EncodePlan,
    Ladder,
    Rung,
    StreamPlan,
)
from hevcq.domain.profile import Profile, VideoCodec
from hevcq.ffmpeg.command.build import (
    Options,
    base_command,
    microseconds,
    source_input,
    track_options,
)
from hevcq.ffmpeg.command.filters import picture_filter
from hevcq.ffmpeg.command.levels import clip_filter, downmix_layout, leading_silence, source_levels
from hevcq.ffmpeg.command.thumbnails import RAW_OUTPUT, output_graph, source_graph, split_graph
from hevcq.ffmpeg.inputs import FfmpegTools
from hevcq.ports.encoder import EncodeRequest

FRAGMENTS = "+frag_keyframe+delay_moov+default_base_moof+skip_trailer"
"""One fragment for each key frame. The index is written late, so that its edit list removes the delay of
reordered frames and the sound's priming. Without a trailer the file ends with its last fragment."""
SOUND_FRAGMENTS = "+delay_moov+default_base_moof+skip_trailer"
_AAC_RATES = frozenset({44_100, 48_000})
NO_METADATA = ("-map_metadata", "-1", "-map_chapters", "-1")
BUFFER_S = 2
"""Seconds over which a rung's largest bit rate holds."""


@dataclass(frozen=True, slots=True)
class SetPaths:
    """The paths of a set's files while it is made. All but thumbnails and levels are in one folder."""

    folder: Path
    thumbnail_base: Path

    def rung(self, rung: Rung) -> Path:
        return self.folder / f"{rung.name}.mp4"

    def sound(self, name: str) -> Path:
        return self.folder / f"{name}.mp4"

    def text(self, number: int) -> Path:
        """Return the file of a subtitle track, counted from 1."""
        return self.folder / f"text{number}.vtt"

    def thumbnails(self, rung: Rung) -> Path:
        """Return the file with the thumbnails of the frames that a rung's encoder was given."""
        base = self.thumbnail_base
        return base.with_name(f"{base.name}.thumbnails-{rung.name}")

    def levels(self, name: str) -> Path:
        """Return the file with the levels of a sound that its encoder was given."""
        base = self.thumbnail_base
        return base.with_name(f"{base.name}.levels-{name}")


def set_paths(request: EncodeRequest) -> SetPaths:
    return SetPaths(request.output / request.version, request.output)


def ladder_in(plan: EncodePlan) -> Ladder:
    """Return the plan's ladder. Raises ValueError if the plan is for one file."""
    if plan.ladder is None:
        raise ValueError("the plan has no ladder")
    return plan.ladder


def kept_tracks(plan: EncodePlan, kind: StreamKind) -> list[StreamPlan]:
    """Return the kept tracks of one kind, in output order."""
    return [kept for kept in plan.kept if kept.kind is kind]


def sounds_of(plan: EncodePlan) -> dict[str, StreamPlan]:
    """Return the sounds by file name: first each sound track, then its versions for other groups."""
    tracks = list(enumerate(kept_tracks(plan, StreamKind.AUDIO), 1))
    sounds = {f"{SOUNDS}{number}": track for number, track in tracks}
    for group in (SURROUND, LOW):
        sounds |= {f"{group}{n}": track.also[group] for n, track in tracks if group in track.also}
    return sounds


def encoded_sounds_of(plan: EncodePlan) -> dict[str, StreamPlan]:
    """Return the sounds that are encoded rather than copied."""
    return {n: track for n, track in sounds_of(plan).items() if track.action is not Action.COPY}


def sound_groups(plan: EncodePlan) -> dict[str, list[str]]:
    """Return the names of the sounds in each group. A sound without a version for a group is in it as it is."""
    named = sounds_of(plan)
    plain = [name for name in named if name.startswith(SOUNDS)]
    groups = {SOUNDS: plain} if plain else {}
    for group in (SURROUND, LOW):
        own = {name: name.replace(SOUNDS, group) for name in plain}
        if not named.keys().isdisjoint(own.values()):
            groups[group] = [other if other in named else name for name, other in own.items()]
    return groups


def groups_of_rung(rung: Rung, groups: Collection[str]) -> list[str]:
    """Return the sound groups with which the master playlist lists a rung."""
    low = rung.is_low and LOW in groups
    return [group for group in groups if (group == LOW) == low]


def audio_only_group(groups: Collection[str]) -> str | None:
    """Return the group whose default sound is also listed without video; None if the set has no sound."""
    return next((group for group in (LOW, SOUNDS) if group in groups), None)


def output_files(request: EncodeRequest) -> list[Path]:
    """Return the files that the command of a set, or of its join, writes."""
    plan, paths = request.plan, set_paths(request)
    rungs = ladder_in(plan).rungs
    files = [paths.rung(rung) for rung in rungs]
    files += [paths.sound(name) for name in sounds_of(plan)]
    files += [paths.text(n) for n, _ in enumerate(kept_tracks(plan, StreamKind.SUBTITLE), 1)]
    files += [paths.thumbnails(rung) for rung in rungs]
    return [*files, *map(paths.levels, encoded_sounds_of(plan))]


def set_command(tools: FfmpegTools, request: EncodeRequest) -> list[str]:
    """Return the command that encodes every rung, sound and subtitle track of the plan."""
    plan, info, paths = request.plan, request.info, set_paths(request)
    threads = request.threads or request.profile.bounds.threads
    rungs, video = ladder_in(plan).rungs, plan.main_video.source_index
    command = base_command(tools, threads)
    if not any(rung.target.deinterlace or rung.target.tone_map for rung in rungs):
        # Handing out slices of small frames and thumbnails costs more than to filter them: with a
        # thread for each core thumbnails take twice the CPU.
        command += ["-filter_complex_threads", "1"]
    command += source_input(request.location, info)
    command += feed_options(rungs, video, [_rung_graph(rung) for rung in rungs])
    for rung in rungs:
        command += ["-map", f"[{rung.name}]", *_start_option(request)]
        command += [w for n, v in rung_options(request, rung, threads) for w in (f"{n}:0", v)]
        command += [*NO_METADATA, "-movflags", FRAGMENTS, "-f", "mp4", f"file:{paths.rung(rung)}"]
    return [*command, *side_outputs(request)]


def _start_option(request: EncodeRequest) -> list[str]:
    """Return the output option that starts the video at 0 if it begins later than the file.

    Browsers ignore an edit list that delays it, so the delay is written into the fragments afterwards.
    The video's start is its first measured frame: a recording's header names the first key frame, and
    other frames may be shown before that. Not by `setpts`: see chunking.chunk_input.
    """
    plan, info = request.plan, request.info
    track = request.measured.track(plan.main_video.source_index)
    begins = (track.first_pts_s if track is not None else None) or 0.0
    late_us = round((begins - info.origin_s(plan.mapped)) * 1_000_000)
    # One microsecond less, because times are rounded and a frame before this point would be dropped.
    return ["-ss", microseconds(Fraction(late_us - 1, 1_000_000))] if late_us > 1 else []


def side_outputs(request: EncodeRequest) -> list[str]:
    """Return the outputs besides the rungs: sounds, subtitles, levels, and thumbnails from the rungs' graphs."""
    plan, info, paths = request.plan, request.info, set_paths(request)
    command: list[str] = []
    length_us = str(round(ladder_in(plan).segment_s * 1_000_000))
    for name, track in sounds_of(plan).items():
        command += [
            "-map",
            f"0:{track.source_index}",
            *_sound_options(track, plan, info),
            *NO_METADATA,
        ]
        command += ["-movflags", SOUND_FRAGMENTS, "-frag_duration", length_us]
        command += ["-f", "mp4", f"file:{paths.sound(name)}"]
    for number, track in enumerate(kept_tracks(plan, StreamKind.SUBTITLE), 1):
        command += ["-map", f"0:{track.source_index}", "-c:0", "webvtt", *NO_METADATA]
        command += ["-f", "webvtt", f"file:{paths.text(number)}"]
    for rung in ladder_in(plan).rungs:
        command += [
            "-map",
            f"[{_thumbnail_label(rung)}]",
            *RAW_OUTPUT,
            f"file:{paths.thumbnails(rung)}",
        ]
    for name, track in encoded_sounds_of(plan).items():
        command += source_levels(track, plan, info, paths.levels(name))
    return command


def feed_options(rungs: Sequence[Rung], stream: int, graphs: Sequence[str]) -> list[str]:
    """Return the options that feed a stream to the rungs' `graphs`, which have no input label.

    It is one graph where a rung makes two frames of one; see thumbnails.shared_graphs.
    """
    if any(rung.target.field_rate for rung in rungs):
        graphs = [split_graph(f"0:{stream}", graphs)]
    else:
        graphs = [f"[0:{stream}]{graph}" for graph in graphs]
    return [word for graph in graphs for word in ("-filter_complex", graph)]


def _rung_graph(rung: Rung) -> str:
    """Return a rung's filters, which scale once for both its encoder and its thumbnails."""
    chain = picture_filter(rung.target) or "null"
    side, seen = f"{rung.name}s", output_graph(name=rung.name)
    return f"{chain},split[{rung.name}][{side}];[{side}]{seen}[{_thumbnail_label(rung)}]"


def thumbnail_only_graph(rung: Rung) -> str:
    """Return the filters for thumbnails of a rung that was encoded in chunks."""
    return f"{source_graph(rung.target, name=rung.name)}[{_thumbnail_label(rung)}]"


def _thumbnail_label(rung: Rung) -> str:
    return f"{rung.name}t"


def rung_profile(profile: Profile, rung: Rung) -> Profile:
    """Return the profile with one rung's codec, quality and key frames."""
    codec = VideoCodec(rung.target.codec)
    own = dict(profile.video.encoder_params) if codec is profile.video.codec else {}
    if codec is VideoCodec.HEVC:
        # With open GOPs a forced key frame is no IDR picture, even with -forced-idr (x265 3.5).
        own["open-gop"] = 0
    video = profile.video.model_copy(
        update={
            "codec": codec,
            "crf": rung.crf,
            "keyframe_s": profile.hls.keyframe_s,
            "encoder_params": own,
        }
    )
    return profile.model_copy(update={"video": video})


def rung_plan(plan: EncodePlan, rung: Rung) -> EncodePlan:
    """Return the plan of one rung's file: the video track, without all other tracks and chapters."""
    video = plan.main_video.model_copy(
        update={
            "codec": rung.target.codec,
            "encoder": rung.target.encoder,
            "video": rung.target,
            "position": 0,
        }
    )
    others = tuple(
        track.model_copy(update={"action": Action.DROP, "position": None})
        for track in plan.streams
        if track.source_index != video.source_index
    )
    update = {"ladder": None, "extension": "mp4", "chapters": 0}
    return plan.model_copy(update={**update, "streams": (video, *others)})


def bare_info(info: MediaInfo, video: int) -> MediaInfo:
    """Return a source's facts without tags, chapters and labels of the stream `video`: a rung has none."""
    plain = {"language": "", "language_tag": "", "title": "", "tags": {}, "dispositions": ()}
    streams = tuple(s.model_copy(update=plain) if s.index == video else s for s in info.streams)
    return info.model_copy(update={"streams": streams, "tags": {}, "chapters": (), "metadata": ()})


def rung_options(request: EncodeRequest, rung: Rung, threads: int) -> Options:
    """Return the options of a rung's stream; the caller appends the stream's number to each name.

    `threads` is the encoder's number of threads; with 0 the encoder decides.
    """
    track = rung_plan(request.plan, rung).main_video
    source = bare_info(request.info, track.source_index)
    stream = source.stream(track.source_index)
    profile = rung_profile(request.profile, rung)
    options = track_options(track, stream, profile, muxer="mp4", threads=threads)
    options = [(name, value) for name, value in options if name != "-filter"]  # it is in the graph
    if rung.target.codec == VideoCodec.HEVC:
        # Without it x265 makes a plain I picture of a forced key frame within min-keyint of a scene cut.
        options.append(("-forced-idr", "1"))
    if not ladder_in(request.plan).b_frames:
        # With B-frames a still passage comes a frame or two later in decoding than in presentation
        # order, and hls.js 1.7 shows everything after it late by the passage's length.
        options.append(("-bf", "0"))
    options.append(("-maxrate", f"{rung.max_kbps}k"))
    return [*options, ("-bufsize", f"{rung.max_kbps * BUFFER_S}k")]


def _sound_options(track: StreamPlan, plan: EncodePlan, info: MediaInfo) -> list[str]:
    """Return the options of a sound. Silence fills gaps and the time before a late start.

    A copied sound begins at 0, as the video does, and is delayed afterwards.
    """
    if track.action is Action.COPY:
        return ["-c:0", "copy", "-bsf:0", "setts=pts=PTS-STARTPTS:dts=DTS-STARTDTS"]
    source = info.stream(track.source_index)
    led_in, layout = leading_silence(source, plan, info), downmix_layout(track)
    steady = f"aresample=async=1:min_hard_comp=0.01{led_in}"
    filters = ",".join([*clip_filter(source), steady, f"aformat=channel_layouts={layout}"])
    options = ["-c:0", track.encoder, "-b:0", str(track.bit_rate), "-filter:0", filters]
    rate = source.audio.sample_rate if source.audio is not None else 0
    return options if rate in _AAC_RATES else [*options, "-ar:0", "48000"]
