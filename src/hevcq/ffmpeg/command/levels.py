"""Let ffmpeg write the levels of every sound that it decodes or encodes anyway, a hundred times a second.

A record holds the power of each channel in four bands, and in one of them the product of each channel with
the next one, which tells polarity and what is in both. That is little enough to be compared in Python.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from hevcq.domain.media.facts import MediaInfo, Stream, StreamKind
from hevcq.domain.planning.encode_plan import EncodePlan, StreamPlan
from hevcq.domain.planning.streams import encoded_layout
from hevcq.ffmpeg.command.thumbnails import level_files
from hevcq.ports.encoder import EncodeRequest

RATE = 100
"""Records in a second."""
EDGES = (60, 400, 1200, 3500, 7000)
"""Borders of the bands in Hz: what encoders at 48 kbit/s a channel keep."""
BANDS = len(EDGES) - 1
PAIRED = 2
"""The band, counted from 1, in which channels are multiplied: further up encoders join them."""
_SAMPLES = 16_000
_SUMMED = f"aresample={RATE}:filter_size=4:cutoff=0.6"
"""Brings power to RATE. A short filter, because one as long as usual would smear a loud sound over a second."""
_HELD_S = 0.028
"""Seconds that these filters hold back, and lose where channels change and ffmpeg begins them anew:
put ahead of each beginning, so that what follows a change is not early (at most 3 ms at each, measured)."""
_NAMED = re.compile(r"^(mono|stereo|quad|[2-7]\.[0-2])(\([a-z]+\))?$")
_BY_COUNT = {1: "mono", 2: "stereo", 3: "2.1", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
_FEWER = {1: "mono", 2: "stereo"}
"""Layouts of fewer channels than a source has; the others are 5.1."""
_FORMATS = {"libopus": "s16|flt", "libmp3lame": "s32p|fltp|s16p", "flac": "s16|s32"}
"""Sample formats of encoders, others take fltp. Mixing down of whole numbers is quieter than of floats."""


@dataclass(frozen=True, slots=True)
class SoundShape:
    """The channels of a sound in its rendition, by count and the name of their layout."""

    channels: int
    layout: str

    @property
    def record_bytes(self) -> int:
        """The size of a record: a float for each band, and the product, of each channel."""
        return 4 * self.channels * (BANDS + (self.channels > 1))

    @property
    def bass(self) -> int | None:
        """The place of the channel of low frequencies, of which encoders keep only those; None without one."""
        return (
            (2 if self.channels == 3 else 3) if self.layout.partition("(")[0][1:] == ".1" else None
        )


def level_outputs(request: EncodeRequest) -> list[str]:
    """Return the options that let an encode, or a join, write the levels of the sounds it encodes."""
    options, plan = [], request.plan
    for track, path in zip(plan.encoded(StreamKind.AUDIO), level_files(request), strict=True):
        options += source_levels(track, plan, request.info, path)
    return options


def source_levels(track: StreamPlan, plan: EncodePlan, info: MediaInfo, path: Path) -> list[str]:
    """Return the options of one more output: the levels of a source's sound, mixed as it is encoded."""
    source = info.stream(track.source_index)
    shape = planned_shape(track, source, plan)
    start = silent_start(source, plan, info)
    graph = _graph(mixed_for(track, source, plan), shape, start, levels_late_s(source))
    return _output(track.source_index, graph, path)


def levels_late_s(source: Stream) -> float:
    """Return by how many seconds the levels of a source's sound lie later than the sound."""
    return _HELD_S if source.audio is not None and source.audio.changes else 0.0


def mixed_for(track: StreamPlan, source: Stream, plan: EncodePlan) -> str:
    """Return the filters that mix a source's sound as it is encoded."""
    formats = _FORMATS.get(track.encoder, "fltp")
    mixed = ":".join(
        [f"aformat=sample_fmts={formats}", *_layout(planned_shape(track, source, plan))]
    )
    return ",".join([*within_scale(source), mixed])


def output_levels(stream: Stream, path: Path) -> list[str]:
    """Return the options of one more output: the levels of a rendition's sound."""
    facts = stream.audio
    shape = SoundShape(facts.channels, facts.layout) if facts is not None else SoundShape(1, "mono")
    mixed = [f"aformat={word}" for word in _layout(shape)]
    return _output(stream.index, _graph(",".join(mixed), shape, ":first_pts=0"), path)


def planned_shape(track: StreamPlan, source: Stream, plan: EncodePlan) -> SoundShape:
    """Return the channels that a sound is to have in its rendition."""
    channels = track.channels or (source.audio.channels if source.audio is not None else 1)
    layout = sound_layout(track, source) if plan.ladder is None else set_layout(track)
    return SoundShape(channels, layout)


def sound_layout(track: StreamPlan, source: Stream) -> str:
    """Return the layout of channels in which a sound is encoded, "" if it is unknown."""
    facts = source.audio
    if facts is None:
        return ""
    if track.channels is not None and track.channels < facts.channels:
        return set_layout(track)
    return encoded_layout(facts)


def within_scale(source: Stream) -> list[str]:
    """Return the filter that clips floats beyond full scale as players do; AAC would lower all around them."""
    return ["aformat=sample_fmts=s32"] if source.codec.startswith("pcm_f") else []


def set_layout(track: StreamPlan) -> str:
    """Return the layout of channels of a sound of a set, or of one with fewer than its source."""
    return _FEWER.get(track.channels or 2, "5.1")


def silent_start(source: Stream, plan: EncodePlan, info: MediaInfo) -> str:
    """Return the option of `aresample` that puts silence before a sound that begins later than the file.

    Where the channels of a recording change, ffmpeg begins its filters anew, and with them this silence.
    """
    earliest = info.format_name == "mpegts" and source.start_s == info.origin_s(plan.mapped)
    return "" if earliest else ":first_pts=0"


def _layout(shape: SoundShape) -> list[str]:
    return [f"channel_layouts={shape.layout}"] if _NAMED.match(shape.layout) else []


def _output(stream: int, graph: str, path: Path) -> list[str]:
    options = ["-map", f"0:{stream}", "-filter:a", graph, "-c:a", "pcm_f32le"]
    return [*options, "-bsf:a", "setts=ts=N", "-f", "f32le", f"file:{path}"]


def _graph(mixed: str, shape: SoundShape, start: str, held_s: float = 0.0) -> str:
    """Return the filters of a sound's levels; they fill gaps with silence, as players do."""
    count = shape.channels
    layout = _BY_COUNT[count]
    places = range(count)
    # By number: pan would mix channels that the layout lacks, as it takes its names for places.
    own = "|".join(map(str, places))
    turned = "|".join(f"c{place}=c{(place + 1) % count}" for place in places)
    steady = f"aresample={_SAMPLES}:async=1:min_hard_comp=0.005{start},aformat=sample_fmts=fltp"
    if held_s:
        steady += f",adelay={held_s * 1000:.0f}:all=1"
    split = f"acrossover=split={' '.join(map(str, EDGES))}:order=4th"
    bands = [f"[b{number}]" for number in range(BANDS + 2)]
    ahead = ",".join(filter(None, [mixed, f"channelmap={own}:{layout}", steady, split]))
    parts = [ahead + "".join(bands), f"{bands[0]}anullsink", f"{bands[-1]}anullsink"]
    made = [f"[p{number}]" for number in range(1, BANDS + 1)]
    summed = f"amultiply,{_SUMMED},aformat=channel_layouts={layout}"
    for number, power in enumerate(made, 1):
        more = "[u][v]" if number == PAIRED and count > 1 else ""
        parts.append(f"{bands[number]}asplit={4 if more else 2}[x{number}][y{number}]{more}")
        parts.append(f"[x{number}][y{number}]{summed}{power}")
    if count > 1:
        parts += [f"[v]pan={layout}|{turned}[w]", f"[u][w]{summed}[q]"]
        made.append("[q]")
    parts.append(f"{''.join(made)}amerge=inputs={len(made)},aformat=sample_fmts=flt")
    return ";".join(parts)
