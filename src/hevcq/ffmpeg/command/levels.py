"""Let ffmpeg write the levels of every sound that it decodes or encodes anyway: 100 records a second.

A record holds the power of each channel in four bands. For one band it also holds the product of each
channel with the next one, which shows their polarity and what both have in common. Python can compare so
little data.
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
"""Records per second."""
BAND_EDGES_HZ = (60, 400, 1200, 3500, 7000)
"""Encoders at 48 kbit/s a channel keep this range."""
BANDS = len(BAND_EDGES_HZ) - 1
PAIRED_BAND = 2
"""The band, counted from 1, in which channels are multiplied. In higher bands encoders join channels."""
_SAMPLES = 16_000
_TO_RECORD_RATE = f"aresample={RATE}:filter_size=4:cutoff=0.6"
"""Resample power to RATE. The usual longer filter would smear a loud sound over a second."""
_FILTER_DELAY_S = 0.028
"""Seconds of sound inside these filters, which are lost where channels change and ffmpeg restarts the filters.
This delay before each start keeps what follows in time (at most 3 ms early for each change, measured)."""
_NAMED = re.compile(r"^(mono|stereo|quad|[2-7]\.[0-2])(\([a-z]+\))?$")
_BY_COUNT = {1: "mono", 2: "stereo", 3: "2.1", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
_DOWNMIXED = {1: "mono", 2: "stereo"}
"""Layouts by channels; more channels are 5.1."""
_FORMATS = {"libopus": "s16|flt", "libmp3lame": "s32p|fltp|s16p", "flac": "s16|s32"}
"""Sample formats of encoders; the others take fltp. A mix of integers is quieter than one of floats."""


@dataclass(frozen=True, slots=True)
class SoundShape:
    """The number of a sound's channels in the rendition, and the name of their layout."""

    channels: int
    layout: str

    @property
    def record_bytes(self) -> int:
        """The size of a record: for each channel a float for each band, and one for the product."""
        return 4 * self.channels * (BANDS + (self.channels > 1))

    @property
    def bass(self) -> int | None:
        """The number of the LFE channel, of which encoders keep only low frequencies; None without one."""
        return (
            (2 if self.channels == 3 else 3) if self.layout.partition("(")[0][1:] == ".1" else None
        )


def level_outputs(request: EncodeRequest) -> list[str]:
    """Return the options by which an encode or a join writes the levels of the sounds that it encodes."""
    options, plan = [], request.plan
    for track, path in zip(plan.encoded(StreamKind.AUDIO), level_files(request), strict=True):
        options += source_levels(track, plan, request.info, path)
    return options


def source_levels(track: StreamPlan, plan: EncodePlan, info: MediaInfo, path: Path) -> list[str]:
    """Return the options of an output with the levels of a source's sound, mixed as for its encoder."""
    source = info.stream(track.source_index)
    shape = planned_shape(track, source, plan)
    start = leading_silence(source, plan, info)
    graph = _levels_graph(mix_filters(track, source, plan), shape, start, levels_delay_s(source))
    return _levels_output(track.source_index, graph, path)


def levels_delay_s(source: Stream) -> float:
    """Return by how many seconds the levels of a source's sound come later than the sound."""
    return _FILTER_DELAY_S if source.audio is not None and source.audio.changes else 0.0


def mix_filters(track: StreamPlan, source: Stream, plan: EncodePlan) -> str:
    """Return the filters that mix a source's sound as for its encoder."""
    formats = _FORMATS.get(track.encoder, "fltp")
    mixed = ":".join(
        [f"aformat=sample_fmts={formats}", *_layout_option(planned_shape(track, source, plan))]
    )
    return ",".join([*clip_filter(source), mixed])


def output_levels(stream: Stream, path: Path) -> list[str]:
    """Return the options of an output with the levels of a rendition's sound."""
    facts = stream.audio
    shape = SoundShape(facts.channels, facts.layout) if facts is not None else SoundShape(1, "mono")
    mixed = [f"aformat={word}" for word in _layout_option(shape)]
    return _levels_output(stream.index, _levels_graph(",".join(mixed), shape, ":first_pts=0"), path)


def planned_shape(track: StreamPlan, source: Stream, plan: EncodePlan) -> SoundShape:
    """Return the channels that the plan gives a sound in the rendition."""
    channels = track.channels or (source.audio.channels if source.audio is not None else 1)
    layout = sound_layout(track, source) if plan.ladder is None else downmix_layout(track)
    return SoundShape(channels, layout)


def sound_layout(track: StreamPlan, source: Stream) -> str:
    """Return the channel layout in which a sound is encoded; "" if it is unknown."""
    facts = source.audio
    if facts is None:
        return ""
    if track.channels is not None and track.channels < facts.channels:
        return downmix_layout(track)
    return encoded_layout(facts)


def clip_filter(source: Stream) -> list[str]:
    """Return the filter that clips floats beyond full scale, as players do, for sound that has floats.

    AAC would make everything around such a peak quieter.
    """
    return ["aformat=sample_fmts=s32"] if source.codec.startswith("pcm_f") else []


def downmix_layout(track: StreamPlan) -> str:
    """Return the channel layout of a set's sound, or of a sound with fewer channels than its source."""
    return _DOWNMIXED.get(track.channels or 2, "5.1")


def leading_silence(source: Stream, plan: EncodePlan, info: MediaInfo) -> str:
    """Return the option of `aresample` that fills the time before a late sound with silence.

    Not for the earliest sound of a recording: where its channels change ffmpeg restarts the filters, and
    they would add the silence again.
    """
    earliest = info.format_name == "mpegts" and source.start_s == info.origin_s(plan.mapped)
    return "" if earliest else ":first_pts=0"


def _layout_option(shape: SoundShape) -> list[str]:
    return [f"channel_layouts={shape.layout}"] if _NAMED.match(shape.layout) else []


def _levels_output(stream: int, graph: str, path: Path) -> list[str]:
    options = ["-map", f"0:{stream}", "-filter:a", graph, "-c:a", "pcm_f32le"]
    return [*options, "-bsf:a", "setts=ts=N", "-f", "f32le", f"file:{path}"]


def _levels_graph(mixed: str, shape: SoundShape, start: str, held_s: float = 0.0) -> str:
    """Return the filters that measure a sound's levels. They fill gaps with silence, as players do."""
    count = shape.channels
    layout = _BY_COUNT[count]
    places = range(count)
    # By number, because pan takes names for positions and would mix channels that the layout lacks.
    own = "|".join(map(str, places))
    turned = "|".join(f"c{place}=c{(place + 1) % count}" for place in places)
    steady = f"aresample={_SAMPLES}:async=1:min_hard_comp=0.005{start},aformat=sample_fmts=fltp"
    if held_s:
        steady += f",adelay={held_s * 1000:.0f}:all=1"
    split = f"acrossover=split={' '.join(map(str, BAND_EDGES_HZ))}:order=4th"
    bands = [f"[b{number}]" for number in range(BANDS + 2)]
    ahead = ",".join(filter(None, [mixed, f"channelmap={own}:{layout}", steady, split]))
    parts = [ahead + "".join(bands), f"{bands[0]}anullsink", f"{bands[-1]}anullsink"]
    powers = [f"[p{number}]" for number in range(1, BANDS + 1)]
    summed = f"amultiply,{_TO_RECORD_RATE},aformat=channel_layouts={layout}"
    for number, power in enumerate(powers, 1):
        more = "[u][v]" if number == PAIRED_BAND and count > 1 else ""
        parts.append(f"{bands[number]}asplit={4 if more else 2}[x{number}][y{number}]{more}")
        parts.append(f"[x{number}][y{number}]{summed}{power}")
    if count > 1:
        parts += [f"[v]pan={layout}|{turned}[w]", f"[u][w]{summed}[q]"]
        powers.append("[q]")
    parts.append(f"{''.join(powers)}amerge=inputs={len(powers)},aformat=sample_fmts=flt")
    return ";".join(parts)
