"""Build the command that encodes a whole ladder with one decode. Pure, tested as a whole list.

Each rung has a filter graph of its own over the same decoded stream, and an output of its own; sounds
and subtitles are further outputs of the same run.
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
from hevcq.ffmpeg.command.levels import set_layout, silent_start, source_levels, within_scale
from hevcq.ffmpeg.command.thumbnails import RAW, fed_together, output_graph, source_graph
from hevcq.ffmpeg.inputs import FfmpegTools
from hevcq.ports.encoder import EncodeRequest

FRAGMENTS = "+frag_keyframe+delay_moov+default_base_moof+skip_trailer"
"""A fragment for each key frame. The index is written late, so that its edit list takes out the delay
of reordered pictures and the sound's priming; without a trailer, fragments fill the file to its end."""
SOUND_FRAGMENTS = "+delay_moov+default_base_moof+skip_trailer"
_AAC_RATES = frozenset({44_100, 48_000})
BARE = ("-map_metadata", "-1", "-map_chapters", "-1")
BUFFER_S = 2
"""Seconds over which the largest rate holds."""


@dataclass(frozen=True, slots=True)
class SetPaths:
    """Where the files of a set are while it is made; all in one folder but the thumbnails."""

    folder: Path
    thumbnail_base: Path

    def rung(self, rung: Rung) -> Path:
        return self.folder / f"{rung.name}.mp4"

    def sound(self, name: str) -> Path:
        return self.folder / f"{name}.mp4"

    def text(self, number: int) -> Path:
        """The file of a subtitle track, counted from 1."""
        return self.folder / f"text{number}.vtt"

    def thumbnails(self, rung: Rung) -> Path:
        """The thumbnails of a rung's pictures as they were encoded."""
        base = self.thumbnail_base
        return base.with_name(f"{base.name}.thumbnails-{rung.name}")

    def levels(self, name: str) -> Path:
        """The levels of a sound as it was encoded."""
        base = self.thumbnail_base
        return base.with_name(f"{base.name}.levels-{name}")


def set_paths(request: EncodeRequest) -> SetPaths:
    """Return where the files of a set go."""
    return SetPaths(request.output / request.version, request.output)


def ladder_in(plan: EncodePlan) -> Ladder:
    """Return the plan's ladder. Raises ValueError if it plans one file."""
    if plan.ladder is None:
        raise ValueError("the plan has no ladder")
    return plan.ladder


def of_kind(plan: EncodePlan, kind: StreamKind) -> list[StreamPlan]:
    """Return the kept tracks of a kind, in output order."""
    return [kept for kept in plan.kept if kept.kind is kind]


def sounds_of(plan: EncodePlan) -> dict[str, StreamPlan]:
    """Return the sounds by the names of their files: each of the source's, then those of other groups."""
    tracks = list(enumerate(of_kind(plan, StreamKind.AUDIO), 1))
    found = {f"{SOUNDS}{number}": track for number, track in tracks}
    for group in (SURROUND, LOW):
        found |= {f"{group}{n}": track.also[group] for n, track in tracks if group in track.also}
    return found


def encoded_sounds_of(plan: EncodePlan) -> dict[str, StreamPlan]:
    """Return those sounds that are encoded rather than copied."""
    return {n: track for n, track in sounds_of(plan).items() if track.action is not Action.COPY}


def sound_groups(plan: EncodePlan) -> dict[str, list[str]]:
    """Return the names of the sounds in each group; a sound without 5.1 is in both alike."""
    named = sounds_of(plan)
    plain = [name for name in named if name.startswith(SOUNDS)]
    groups = {SOUNDS: plain} if plain else {}
    for group in (SURROUND, LOW):
        own = {name: name.replace(SOUNDS, group) for name in plain}
        if not named.keys().isdisjoint(own.values()):
            groups[group] = [other if other in named else name for name, other in own.items()]
    return groups


def groups_beside(rung: Rung, groups: Collection[str]) -> list[str]:
    """Return the groups of sounds that a rung is listed with."""
    low = rung.is_low and LOW in groups
    return [group for group in groups if (group == LOW) == low]


def alone(groups: Collection[str]) -> str | None:
    """Return the group whose default sound is listed without a picture; None without a sound."""
    return next((group for group in (LOW, SOUNDS) if group in groups), None)


def written(request: EncodeRequest, paths: SetPaths) -> list[Path]:
    """Return the files that the command writes, the rungs first."""
    plan = request.plan
    rungs = ladder_in(plan).rungs
    found = [paths.rung(rung) for rung in rungs]
    found += [paths.sound(name) for name in sounds_of(plan)]
    found += [paths.text(n) for n, _ in enumerate(of_kind(plan, StreamKind.SUBTITLE), 1)]
    found += [paths.thumbnails(rung) for rung in rungs]
    return [*found, *map(paths.levels, encoded_sounds_of(plan))]


def set_command(tools: FfmpegTools, request: EncodeRequest) -> list[str]:
    """Return the command that encodes every rung, sound and subtitle track of the plan."""
    plan, info, paths = request.plan, request.info, set_paths(request)
    threads = request.threads or request.profile.bounds.threads
    command = [*base_command(tools, threads), *_filter_threads(plan)]
    command += source_input(request.location, info)
    rungs, video = ladder_in(plan).rungs, plan.main_video.source_index
    command += fed(rungs, video, [_graph(rung) for rung in rungs])
    for rung in rungs:
        command += ["-map", f"[{rung.name}]", *_from_zero(request)]
        command += [w for n, v in rung_options(request, rung, threads) for w in (f"{n}:0", v)]
        command += [*BARE, "-movflags", FRAGMENTS, "-f", "mp4", f"file:{paths.rung(rung)}"]
    return [*command, *side_outputs(request, paths)]


def _from_zero(request: EncodeRequest) -> list[str]:
    """Return the option of an output that lets its picture begin at 0 if it begins later than the file.

    By its first picture as measured: a recording's header has the first key frame, before which others
    may be shown. An edit list cannot say otherwise to browsers; the delay is put into the fragments
    afterwards. Not by `setpts`: see chunking.encode.chunk_input.
    """
    plan, info = request.plan, request.info
    track = request.measured.track(plan.main_video.source_index)
    begins = (track.first_pts_s if track is not None else None) or 0.0
    late_us = round((begins - info.origin_s(plan.mapped)) * 1_000_000)
    # Times are rounded, and a picture before this one would be dropped.
    return ["-ss", microseconds(Fraction(late_us - 1, 1_000_000))] if late_us > 1 else []


def side_outputs(request: EncodeRequest, paths: SetPaths) -> list[str]:
    """Return the outputs besides the rungs: sounds, subtitles, and thumbnails, which have graphs."""
    plan, info = request.plan, request.info
    command: list[str] = []
    length_us = str(round(ladder_in(plan).segment_s * 1_000_000))
    for name, track in sounds_of(plan).items():
        command += ["-map", f"0:{track.source_index}", *_sound_options(track, plan, info), *BARE]
        command += ["-movflags", SOUND_FRAGMENTS, "-frag_duration", length_us]
        command += ["-f", "mp4", f"file:{paths.sound(name)}"]
    for number, track in enumerate(of_kind(plan, StreamKind.SUBTITLE), 1):
        command += ["-map", f"0:{track.source_index}", "-c:0", "webvtt", *BARE]
        command += ["-f", "webvtt", f"file:{paths.text(number)}"]
    for rung in ladder_in(plan).rungs:
        command += ["-map", f"[{_thumbs(rung)}]", *RAW, f"file:{paths.thumbnails(rung)}"]
    for name, track in encoded_sounds_of(plan).items():
        command += source_levels(track, plan, info, paths.levels(name))
    return command


def _filter_threads(plan: EncodePlan) -> list[str]:
    """Return how many threads filter: one, unless the pictures are deinterlaced or their tones mapped.

    Slices of thumbnails and of small pictures cost more to hand out than to filter: with a thread for
    each core thumbnails take twice the CPU.
    """
    heavy = any(r.target.deinterlace or r.target.tone_map for r in ladder_in(plan).rungs)
    return [] if heavy else ["-filter_complex_threads", "1"]


def fed(rungs: Sequence[Rung], stream: int, graphs: Sequence[str]) -> list[str]:
    """Return the options that feed a stream to each rung's graph, which begins without a label.

    Together where a graph makes two frames of one; see thumbnails.shared_graphs.
    """
    if any(rung.target.field_rate for rung in rungs):
        graphs = [fed_together(f"0:{stream}", graphs)]
    else:
        graphs = [f"[0:{stream}]{graph}" for graph in graphs]
    return [word for graph in graphs for word in ("-filter_complex", graph)]


def _graph(rung: Rung) -> str:
    """Return the filters of a rung: scaled once, for its encoder and for its thumbnails."""
    chain = picture_filter(rung.target) or "null"
    side, seen = f"{rung.name}s", output_graph(name=rung.name)
    return f"{chain},split[{rung.name}][{side}];[{side}]{seen}[{_thumbs(rung)}]"


def thumbnail_graph(rung: Rung) -> str:
    """Return the filters of a rung that is only looked at: it was encoded before."""
    return f"{source_graph(rung.target, name=rung.name)}[{_thumbs(rung)}]"


def _thumbs(rung: Rung) -> str:
    return f"{rung.name}t"


def rung_profile(profile: Profile, rung: Rung) -> Profile:
    """Return the profile of one rung: its codec, quality and key frames."""
    codec = VideoCodec(rung.target.codec)
    own = dict(profile.video.encoder_params) if codec is profile.video.codec else {}
    if codec is VideoCodec.HEVC:
        # With open GOP a forced key frame is no IDR picture, even with -forced-idr (x265 3.5).
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
    """Return the plan of a rung's file alone: one video track, and nothing else of the source."""
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
    """Return the facts of a source without what a rung does not hold: its tags, chapters and labels.

    `video` is the number of the stream that is encoded.
    """
    plain = {"language": "", "language_tag": "", "title": "", "tags": {}, "dispositions": ()}
    streams = tuple(s.model_copy(update=plain) if s.index == video else s for s in info.streams)
    return info.model_copy(update={"streams": streams, "tags": {}, "chapters": (), "metadata": ()})


def rung_options(request: EncodeRequest, rung: Rung, threads: int) -> Options:
    """Return the options of a rung's stream; the caller appends the stream's number to each name.

    `threads` is the encoder's; 0 leaves the number to it.
    """
    track = rung_plan(request.plan, rung).main_video
    source = bare_info(request.info, track.source_index)
    stream = source.stream(track.source_index)
    profile = rung_profile(request.profile, rung)
    options = track_options(track, stream, profile, muxer="mp4", threads=threads)
    made = [(name, value) for name, value in options if name != "-filter"]  # it is in the graph
    if rung.target.codec == VideoCodec.HEVC:
        # Else x265 makes a plain I picture of a key frame that follows a scene cut by min-keyint.
        made.append(("-forced-idr", "1"))
    if not ladder_in(request.plan).b_frames:
        # With them a still passage lies a picture or two later in decoding times than in presentation
        # times, and hls.js 1.7 shows all that follows late by its length.
        made.append(("-bf", "0"))
    return [*made, ("-maxrate", f"{rung.max_kbps}k"), ("-bufsize", f"{rung.max_kbps * BUFFER_S}k")]


def _sound_options(track: StreamPlan, plan: EncodePlan, info: MediaInfo) -> list[str]:
    """Return the options of a sound: silence fills what it begins later, and gaps on the way.

    A copied one begins at 0, as the picture does, and is delayed afterwards.
    """
    if track.action is Action.COPY:
        return ["-c:0", "copy", "-bsf:0", "setts=pts=PTS-STARTPTS:dts=DTS-STARTDTS"]
    source = info.stream(track.source_index)
    led_in, layout = silent_start(source, plan, info), set_layout(track)
    steady = f"aresample=async=1:min_hard_comp=0.01{led_in}"
    filters = ",".join([*within_scale(source), steady, f"aformat=channel_layouts={layout}"])
    options = ["-c:0", track.encoder, "-b:0", str(track.bit_rate), "-filter:0", filters]
    rate = source.audio.sample_rate if source.audio is not None else 0
    return options if rate in _AAC_RATES else [*options, "-ar:0", "48000"]
