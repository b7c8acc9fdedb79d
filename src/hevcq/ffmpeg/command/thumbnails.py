"""Let ffmpeg write a thumbnail of every frame that it decodes or encodes anyway.

A thumbnail begins with four planes of 16x9 bytes: luma and both chroma planes of the whole frame, and
the sharp detail in one sixteenth of it. The sixteenth moves with every frame, so that in time all of the
picture is measured without filtering every frame whole. A wrong picture is wrong at 16x9 as well. The
noise that encoders remove is averaged out, because each value is the mean of many pixels.

Small faults are looked for in the mean of 16 frames, in 128x64 cells: in 1080p a cell is 15x17 pixels.
Each thumbnail holds one sixteenth of these means in three planes, chroma with half the rows, and so
grows by little. The last two planes are the even and the odd lines of the sixteenth whose detail is
measured, because swapped lines have the same mean.
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
"""Frames that a cell averages. Also the blocks into which the cells are divided: each thumbnail holds one."""
ACROSS, DOWN = 8, 2
"""Columns and rows of blocks in a picture."""
BLOCK_ROWS, CHROMA_ROWS = 32, 16
"""Rows of cells in a block of luma and of chroma; each row has WIDTH cells."""
LUMA_CELLS, CHROMA_CELLS = WIDTH * BLOCK_ROWS, WIDTH * CHROMA_ROWS
RECORD_BYTES = 4 * CELLS + LUMA_CELLS + 2 * CHROMA_CELLS + 2 * CELLS
"""Bytes of a thumbnail: the planes Y, U, V and detail, a block of cells in Y, U and V, and the even and
the odd lines of the part whose detail is measured."""
MAX_RATE = 240
"""Frames per second; bounds the size of a file of thumbnails."""
_TILES = 4
MEAN_FLAGS = "area+accurate_rnd"
"""swscale's flags for means of many pixels. With `area` alone it truncates each line's share: in 1080p the
value 120 becomes 114 to 120, and a slow fade jumps by 5 steps in one frame and rests in the next."""
_FULL_RANGE = "in_range=full:out_range=full"
RAW_OUTPUT = (
    "-fps_mode", "passthrough", "-enc_time_base", "1:1000", "-flush_packets", "0", "-f", "rawvideo",
)  # fmt: skip
"""Options of a thumbnail output. Its timestamps are frame numbers, because ffmpeg complains of equal ones.
ffmpeg writes many thumbnails at once, because reading them one by one costs as much as comparing them."""


def thumbnail_files(request: EncodeRequest) -> tuple[Path, ...]:
    """Return the thumbnail files beside the output, one for each encoded video."""
    return _files_beside_output(request, StreamKind.VIDEO, "thumbnails")


def level_files(request: EncodeRequest) -> tuple[Path, ...]:
    """Return the level files beside the output, one for each encoded sound.

    () where channels change: ffmpeg loses more sound at a change while it also encodes, so gate G8
    measures the levels in a run of its own.
    """
    if any(s.audio is not None and s.audio.changes for s in request.info.streams):
        return ()
    return _files_beside_output(request, StreamKind.AUDIO, "levels")


def _files_beside_output(request: EncodeRequest, kind: StreamKind, suffix: str) -> tuple[Path, ...]:
    places = range(len(request.plan.encoded(kind)))
    return tuple(request.output.with_name(f"{request.output.name}.{suffix}{n}") for n in places)


def thumbnail_outputs(request: EncodeRequest) -> list[str]:
    """Return the options by which an encode writes thumbnails of the frames that it encodes."""
    options, shared = [], shared_graphs(request)
    for kept, path in zip(
        request.plan.encoded(StreamKind.VIDEO), thumbnail_files(request), strict=False
    ):
        if kept.source_index in shared:
            options += ["-map", f"[thumbnails{kept.source_index}]", *RAW_OUTPUT, f"file:{path}"]
        else:
            graph = source_graph(kept.video or request.plan.video)
            options += thumbnail_output(kept.source_index, graph, f"file:{path}")
    return options


def shared_graphs(request: EncodeRequest) -> dict[int, str]:
    """Return, by stream number, the graphs that make both the frames to encode and their thumbnails.

    In ffmpeg 9 a graph that makes two frames of one waits for outputs of other graphs that are behind it.
    An encoder with lookahead is behind, and the frames that it needs would reach neither graph: a
    deadlock. The thumbnails still have filters of their own, so that a frame that the encoder's filters
    lose is noticed.
    """
    if not thumbnail_files(request):
        return {}
    shared = {}
    for kept in request.plan.encoded(StreamKind.VIDEO):
        number, target = kept.source_index, kept.video or request.plan.video
        if target.field_rate:
            ends = picture_label(number), f"[thumbnails{number}]"
            graphs = [encoder_filters(target) + ends[0], source_graph(target) + ends[1]]
            shared[number] = split_graph(f"0:{number}", graphs)
    return shared


def picture_label(stream: int) -> str:
    """Return the label of a stream's frames to encode in its shared graph."""
    return f"[picture{stream}]"


def split_graph(stream: str, graphs: Sequence[str]) -> str:
    """Return one graph that splits a stream and feeds it to each of `graphs`, which have no input label."""
    inputs = [f"[source{number}]" for number, _ in enumerate(graphs)]
    parts = [f"{name}{graph}" for name, graph in zip(inputs, graphs, strict=True)]
    return ";".join([f"[{stream}]split={len(graphs)}{''.join(inputs)}", *parts])


def thumbnail_output(stream: int, graph: str, target: str) -> list[str]:
    """Return the options of an output with the thumbnails of a stream of the first input."""
    return ["-map", f"0:{stream}", "-filter:v", graph, *RAW_OUTPUT, target]


def source_graph(target: VideoTarget, *, name: str = "") -> str:
    """Return the filters that make thumbnails of a source's decoded frames.

    They are scaled as for the encoder: what scaling changes is no fault of the encode.
    """
    return _thumbnail_graph(picture_filter(target), name)


def output_graph(rate: str = "", *, name: str = "") -> str:
    """Return the filters that make thumbnails of a rendition's decoded frames.

    `rate` restores the repeated frames that a rendition leaves out. `name` keeps the labels apart where
    one command holds several such graphs.
    """
    return _thumbnail_graph(f"fps={rate}" if rate else "", name)


def _thumbnail_graph(ahead: str, name: str = "") -> str:
    side = f"max(4\\,floor({{}}/{4 * _TILES})*4)"
    width, height = side.format("iw"), side.format("ih")
    across, down = f"mod(n\\,{_TILES})*ow", f"mod(floor(n/{_TILES})\\,{_TILES})*oh"
    tile = [f"crop={width}:{height}:{across}:{down}"]
    tile += ["format=yuv444p", SAME_RANGE, "extractplanes=y"]
    halved = f"scale=iw/2:ih/2:flags=bicubic:{_FULL_RANGE}"
    small = f"scale={WIDTH}:{HEIGHT}:flags={MEAN_FLAGS}"
    cells = (
        f"scale={WIDTH * ACROSS}:{BLOCK_ROWS * DOWN}:flags={MEAN_FLAGS},format=yuv440p,{SAME_RANGE}"
    )
    block = f"crop={WIDTH}:{BLOCK_ROWS}:mod(n\\,{ACROSS})*ow:mod(floor(n/{ACROSS})\\,{DOWN})*oh"
    a, b, c, m, s, t, d, f, g = (f"[{name}{label}]" for label in "abcmstdfg")
    planes = [f"[{name}{label}]" for label in "yuvelhkop"]
    y, u, v, e, luma, blue, red, even, odd = planes
    return ";".join(
        [
            ",".join(filter(None, [ahead, "settb=1/1000", "setpts=N", f"split{a}{b}"])),
            f"{a}{cells},split{c}{m}",
            f"{c}{small}:{_FULL_RANGE},format=yuv444p,{SAME_RANGE},extractplanes=y+u+v{y}{u}{v}",
            f"{m}tmix=frames={FRAMES},{block},extractplanes=y+u+v{luma}{blue}{red}",
            f"{b}{','.join(tile)},split=4{t}{s}{f}{g}",
            f"{s}{halved},scale=iw*2:ih*2:flags=bicubic:{_FULL_RANGE}{d}",
            f"{t}{d}blend=all_mode=difference,lut=y=val*val/4,{small}:{_FULL_RANGE}{e}",
            f"{f}field=top,{small}:{_FULL_RANGE}{even}",
            f"{g}field=bottom,{small}:{_FULL_RANGE}{odd}",
            f"{''.join(planes)}vstack=inputs={len(planes)}",
        ]
    )
