"""Let ffmpeg write a thumbnail of every picture that it decodes or encodes anyway.

A thumbnail begins with four planes of 16x9 bytes: luma and both chroma planes of the whole picture,
and the sharp detail in one sixteenth of it. The sixteenth moves on with every frame, so that all of
the picture is looked at without filtering all of it. A wrong picture is wrong at 16x9 as well; the
noise that encoders remove is not there, because each value is the mean of many pixels.

What is wrong in a small place is looked for in the mean of 16 pictures, in 128x64 cells: of 1080
lines a cell is 15x17 pixels. A sixteenth of these means is in each thumbnail, which thus grows by
little: three planes, chroma with half the rows. The last two planes are the even and the odd lines
of the sixteenth whose detail is measured: means of lines that were swapped are the same.
"""

from collections.abc import Sequence
from pathlib import Path

from hevcq.domain.media.facts import StreamKind
from hevcq.domain.planning.encode_plan import VideoTarget
from hevcq.ffmpeg.command.filters import encoder_filters, picture_filter
from hevcq.ffmpeg.inputs import SAME_RANGE
from hevcq.ports.encoder import EncodeRequest

WIDTH, HEIGHT = 16, 9
CELLS = WIDTH * HEIGHT
"""Values in a plane of a thumbnail."""
FRAMES = 16
"""Pictures of which the cells are means, and blocks into which the cells are cut: one a thumbnail."""
ACROSS, DOWN = 8, 2
"""Blocks of cells beside and below each other."""
BLOCK_ROWS, CHROMA_ROWS = 32, 16
"""Rows of cells in a block; it has as many columns as the other planes."""
LUMA_CELLS, CHROMA_CELLS = WIDTH * BLOCK_ROWS, WIDTH * CHROMA_ROWS
RECORD_BYTES = 4 * CELLS + LUMA_CELLS + 2 * CHROMA_CELLS + 2 * CELLS
"""Bytes of a thumbnail: the planes Y, U and V, detail, a block of cells in Y, U and V, and the two
fields of the part whose detail was measured."""
MAX_RATE = 240
"""Frames per second up to which a file of thumbnails is not called too large."""
_TILES = 4
MEANS = "area+accurate_rnd"
"""Flags of swscale for means of many pixels. By `area` alone it drops the fraction of each line's share:
of 1080 lines 120 becomes 114 to 120, and a slow fade jumps by 5 steps in one frame and rests in the next."""
_FULL = "in_range=full:out_range=full"
RAW = (
    "-fps_mode", "passthrough", "-enc_time_base", "1:1000", "-flush_packets", "0", "-f", "rawvideo",
)  # fmt: skip
"""Options of an output of thumbnails. Its times are frame numbers: ffmpeg complains of equal ones. It is
written in pieces of many thumbnails: reading each by itself costs as much as comparing it."""


def thumbnail_files(request: EncodeRequest) -> tuple[Path, ...]:
    """Return the files of thumbnails beside the output, one for each encoded video."""
    return _beside(request, StreamKind.VIDEO, "thumbnails")


def level_files(request: EncodeRequest) -> tuple[Path, ...]:
    """Return the files of levels beside the output, one for each encoded sound.

    () where channels change: ffmpeg would lose more of them than if it did nothing else, so G8 makes them.
    """
    if any(s.audio is not None and s.audio.changes for s in request.info.streams):
        return ()
    return _beside(request, StreamKind.AUDIO, "levels")


def _beside(request: EncodeRequest, kind: StreamKind, suffix: str) -> tuple[Path, ...]:
    places = range(len(request.plan.encoded(kind)))
    return tuple(request.output.with_name(f"{request.output.name}.{suffix}{n}") for n in places)


def thumbnail_outputs(request: EncodeRequest) -> list[str]:
    """Return the options that let the encode write the thumbnails of the pictures it encodes."""
    options, shared = [], shared_graphs(request)
    for kept, path in zip(
        request.plan.encoded(StreamKind.VIDEO), thumbnail_files(request), strict=False
    ):
        if kept.source_index in shared:
            options += ["-map", f"[thumbnails{kept.source_index}]", *RAW, f"file:{path}"]
        else:
            graph = source_graph(kept.video or request.plan.video)
            options += thumbnail_output(kept.source_index, graph, f"file:{path}")
    return options


def shared_graphs(request: EncodeRequest) -> dict[int, str]:
    """Return, by the stream, the graphs that make both the picture to encode and its thumbnails.

    A graph that makes two frames of one waits in ffmpeg 9 while an output of another graph is behind it.
    An encoder's lookahead is, and the frames it needs would then reach neither graph: a deadlock. The
    thumbnails keep filters of their own, so that a frame that the picture's filters lose is seen.
    """
    if not thumbnail_files(request):
        return {}
    found = {}
    for kept in request.plan.encoded(StreamKind.VIDEO):
        number, target = kept.source_index, kept.video or request.plan.video
        if target.field_rate:
            ends = made_picture(number), f"[thumbnails{number}]"
            graphs = [encoder_filters(target) + ends[0], source_graph(target) + ends[1]]
            found[number] = fed_together(f"0:{number}", graphs)
    return found


def made_picture(stream: int) -> str:
    """Return the label of the picture in a stream's shared graph."""
    return f"[picture{stream}]"


def fed_together(stream: str, graphs: Sequence[str]) -> str:
    """Return one graph that feeds a stream to each of `graphs`, which begin without a label."""
    inputs = [f"[source{number}]" for number, _ in enumerate(graphs)]
    parts = [f"{name}{graph}" for name, graph in zip(inputs, graphs, strict=True)]
    return ";".join([f"[{stream}]split={len(graphs)}{''.join(inputs)}", *parts])


def thumbnail_output(stream: int, graph: str, target: str) -> list[str]:
    """Return the options of one more output: the thumbnails of a stream of the first input."""
    return ["-map", f"0:{stream}", "-filter:v", graph, *RAW, target]


def source_graph(target: VideoTarget, *, name: str = "") -> str:
    """Return the filters that turn decoded source pictures into the thumbnails of what is encoded.

    The pictures are scaled as those that are encoded: what scaling changes is no fault of the encode.
    """
    return _graph(picture_filter(target), name)


def output_graph(rate: str = "", *, name: str = "") -> str:
    """Return the filters that turn the rendition's decoded pictures into thumbnails.

    `rate` fills in the repeated pictures of a rendition that leaves them out; `name` tells the labels
    of several such graphs in one apart.
    """
    return _graph(f"fps={rate}" if rate else "", name)


def _graph(ahead: str, name: str = "") -> str:
    side = f"max(4\\,floor({{}}/{4 * _TILES})*4)"
    width, height = side.format("iw"), side.format("ih")
    across, down = f"mod(n\\,{_TILES})*ow", f"mod(floor(n/{_TILES})\\,{_TILES})*oh"
    tile = [f"crop={width}:{height}:{across}:{down}"]
    tile += ["format=yuv444p", SAME_RANGE, "extractplanes=y"]
    halved = f"scale=iw/2:ih/2:flags=bicubic:{_FULL}"
    small = f"scale={WIDTH}:{HEIGHT}:flags={MEANS}"
    cells = f"scale={WIDTH * ACROSS}:{BLOCK_ROWS * DOWN}:flags={MEANS},format=yuv440p,{SAME_RANGE}"
    block = f"crop={WIDTH}:{BLOCK_ROWS}:mod(n\\,{ACROSS})*ow:mod(floor(n/{ACROSS})\\,{DOWN})*oh"
    a, b, c, m, s, t, d, f, g = (f"[{name}{label}]" for label in "abcmstdfg")
    planes = [f"[{name}{label}]" for label in "yuvelhkop"]
    y, u, v, e, luma, blue, red, even, odd = planes
    return ";".join(
        [
            ",".join(filter(None, [ahead, "settb=1/1000", "setpts=N", f"split{a}{b}"])),
            f"{a}{cells},split{c}{m}",
            f"{c}{small}:{_FULL},format=yuv444p,{SAME_RANGE},extractplanes=y+u+v{y}{u}{v}",
            f"{m}tmix=frames={FRAMES},{block},extractplanes=y+u+v{luma}{blue}{red}",
            f"{b}{','.join(tile)},split=4{t}{s}{f}{g}",
            f"{s}{halved},scale=iw*2:ih*2:flags=bicubic:{_FULL}{d}",
            f"{t}{d}blend=all_mode=difference,lut=y=val*val/4,{small}:{_FULL}{e}",
            f"{f}field=top,{small}:{_FULL}{even}",
            f"{g}field=bottom,{small}:{_FULL}{odd}",
            f"{''.join(planes)}vstack=inputs={len(planes)}",
        ]
    )
