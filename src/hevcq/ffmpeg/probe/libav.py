"""Call the libraries of ffmpeg: open a file, read its packets, decode its first pictures.

The structures are those of ffmpeg 5.1 on a 64-bit system; only the fields that are read are described. Within
a major version of a library they stay where they are. It imports nothing of hevcq, like `demuxer`.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import struct
import sys
from collections.abc import Iterator, Mapping
from ctypes import (
    POINTER,
    byref,
    c_char_p,
    c_double,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_ubyte,
    c_uint,
    c_void_p,
)
from typing import Any

from hevcq.ffmpeg.probe.plain_pictures import PlainPictures

LIBRARIES = {"avutil": 57, "avcodec": 59, "avformat": 59}
"""Major versions of the libraries whose structures are described here: those of ffmpeg 5.1."""
OLDEST_CODEC = (59 << 16) | (37 << 8)
"""libavcodec of ffmpeg 5.1.0, the first with `ch_layout` in its place."""
ROOM = 32_768  # bytes of the input buffer, as ffmpeg's file protocol has
NO_TIME = -(2**63)
END_OF_FILE = -int.from_bytes(b"EOF ", "little")
TRY_AGAIN = -11
IO_ERROR = -5
SEEK_SIZE, SEEK_FORCE = 0x10000, 0x20000
KEY, CORRUPT, DISCARDED = 1, 2, 4  # flags of a packet
DISCARD_ALL = 48
ERRORS = 16  # the level of the log
STREAM_DATA = {5: "matrix", 10: "", 20: "mastering", 22: "light", 29: "dolby"}
"""Side data of a stream that may be answered here, and how it is read: the display matrix, the sizes of
buffers, the mastering display, the content's light level, and Dolby Vision's record."""
FRAME_DATA = {6: "matrix", 11: "mastering", 14: "light"} | dict.fromkeys(
    (0, 1, 7, 12, 16, 17, 20, 23, 24), ""
)
"""The same of a frame: also pan and scan, captions, active format, time codes (12, 16), HDR10+ (17), an
encoder's note (20) and Dolby Vision's (23, 24), of which only the name is asked for."""
LEAST = {"matrix": 36, "dolby": 8, "light": 8, "mastering": 88, "": 0}
"""Bytes that are read of each of them: some containers store it as it is, however short."""
PRIMARIES = ("red_x", "red_y", "green_x", "green_y", "blue_x", "blue_y",
             "white_point_x", "white_point_y")  # fmt: skip
FORMATS = frozenset(
    {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flv", "mpegts", "mpeg", "asf"}
)
"""ffmpeg's names of the containers that were compared with ffprobe."""
CODECS = frozenset(
    {"h264", "hevc", "mpeg4", "mpeg2video", "mpeg1video", "vp8", "vp9", "av1", "mjpeg", "png",
     "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2", "wmv3", "vc1", "h263", "flv1", "theora", "prores",
     "dvvideo", "ffv1", "rawvideo", "huffyuv", "bmp", "gif", "svq3", "vp6f", "cinepak"}
)  # fmt: skip
"""The video codecs that were."""


VIDEO = 0  # AVMEDIA_TYPE_VIDEO


CHEAPLY = {"threads": "1", "skip_loop_filter": "all", "skip_idct": "all"}
"""Options of decoders for what a picture is: no fact depends on what is left out of it."""


class Unsure(Exception):
    """Ask ffprobe: the reason is for whoever compares the two."""


def _layout(**fields: tuple[int, Any]) -> Any:
    """Return a structure with these fields at these offsets, and nothing declared between them."""
    described: list[tuple[str, Any]] = []
    at = 0
    for name, (offset, kind) in sorted(fields.items(), key=lambda item: item[1][0]):
        if offset > at:
            described.append((f"_{at}", c_ubyte * (offset - at)))
        described.append((name, kind))
        at = offset + ctypes.sizeof(kind)
    return type("Layout", (ctypes.Structure,), {"_pack_": 1, "_fields_": described})


class Ratio(ctypes.Structure):
    """AVRational."""

    _fields_ = (("num", c_int), ("den", c_int))


FormatContext = _layout(
    iformat=(8, c_void_p), pb=(32, c_void_p), nb_streams=(44, c_uint), streams=(48, POINTER(c_void_p)),
    start_time=(64, c_int64), duration=(72, c_int64), bit_rate=(80, c_int64), nb_programs=(132, c_uint),
    nb_chapters=(164, c_uint), chapters=(168, POINTER(c_void_p)), metadata=(176, c_void_p),
)  # fmt: skip
Stream = _layout(
    index=(0, c_int), time_base=(16, Ratio), start_time=(24, c_int64), duration=(32, c_int64),
    nb_frames=(40, c_int64), disposition=(48, c_int), discard=(52, c_int), metadata=(64, c_void_p),
    avg_frame_rate=(72, Ratio), side_data=(184, c_void_p), nb_side_data=(192, c_int),
    r_frame_rate=(200, Ratio), codecpar=(208, c_void_p),
)  # fmt: skip
Parameters = _layout(
    codec_type=(0, c_int), codec_id=(4, c_int), codec_tag=(8, c_uint), extradata=(16, c_void_p),
    extradata_size=(24, c_int), format=(28, c_int), bit_rate=(32, c_int64), profile=(48, c_int),
    width=(56, c_int), height=(60, c_int), field_order=(72, c_int), color_range=(76, c_int),
    color_primaries=(80, c_int), color_transfer=(84, c_int), color_space=(88, c_int),
    chroma_location=(92, c_int), video_delay=(96, c_int), sample_rate=(116, c_int),
    layout_order=(144, c_int), channels=(148, c_int),
)  # fmt: skip
LAYOUT_OFFSET = 144
Packet = _layout(
    pts=(8, c_int64), dts=(16, c_int64), data=(24, c_void_p), size=(32, c_int), stream_index=(36, c_int),
    flags=(40, c_int), side_data_elems=(56, c_int), duration=(64, c_int64),
)  # fmt: skip
Frame = _layout(
    width=(104, c_int), height=(108, c_int), format=(116, c_int), interlaced=(188, c_int),
    top_first=(192, c_int), side_data=(304, POINTER(c_void_p)), nb_side_data=(312, c_int),
)  # fmt: skip
Chapter = _layout(
    time_base=(8, Ratio), start=(16, c_int64), end=(24, c_int64), metadata=(32, c_void_p)
)
PacketData = _layout(data=(0, c_void_p), size=(8, c_size_t), type=(16, c_int))
PACKET_DATA_BYTES = 24
FrameData = _layout(type=(0, c_int), data=(8, c_void_p), size=(16, c_size_t))
Entry = _layout(key=(0, c_char_p), value=(8, c_char_p))
Named = _layout(name=(0, c_char_p))
Descriptor = _layout(name=(8, c_char_p))

READABLE, WRITABLE = 0x100, 0x200
memory: Any = ctypes.pythonapi.PyMemoryView_FromMemory
"""Return a view of memory at an address: (address, bytes, READABLE or WRITABLE)."""
memory.argtypes, memory.restype = (c_void_p, ctypes.c_ssize_t, c_int), ctypes.py_object

_READ = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)
_SEEK = ctypes.CFUNCTYPE(c_int64, c_void_p, c_int64, c_int)


class Libraries:
    """The functions of the three libraries; an attribute is found in whichever has it."""

    def __init__(self) -> None:
        """Load them. Raises OSError if one is missing, Unsure if it is another version."""
        if struct.calcsize("P") != 8 or sys.byteorder != "little":
            raise Unsure("structures are described for 64 bits")
        self._loaded = [ctypes.CDLL(f"lib{name}.so.{n}") for name, n in LIBRARIES.items()]
        if int(self.avcodec_version()) < OLDEST_CODEC:
            raise Unsure("libavcodec is older than that of ffmpeg 5.1")
        for name, answer in (
            ("av_version_info", c_char_p), ("avformat_configuration", c_char_p),
            ("av_get_pix_fmt_name", c_char_p), ("av_get_sample_fmt_name", c_char_p),
            ("avcodec_profile_name", c_char_p), ("av_color_range_name", c_char_p),
            ("av_color_space_name", c_char_p), ("av_color_primaries_name", c_char_p),
            ("av_color_transfer_name", c_char_p), ("av_chroma_location_name", c_char_p),
            ("av_frame_side_data_name", c_char_p), ("av_packet_side_data_name", c_char_p),
            ("av_display_rotation_get", c_double), ("av_guess_sample_aspect_ratio", Ratio),
            ("avcodec_get_name", c_char_p), ("avio_size", c_int64), ("av_malloc", c_void_p),
            ("avio_alloc_context", c_void_p), ("avformat_alloc_context", c_void_p),
            ("avcodec_find_decoder", c_void_p), ("avcodec_alloc_context3", c_void_p),
            ("avcodec_descriptor_get", c_void_p), ("av_packet_alloc", c_void_p),
            ("av_frame_alloc", c_void_p), ("av_packet_clone", c_void_p), ("av_dict_get", c_void_p),
        ):  # fmt: skip
            getattr(self, name).restype = answer

    def __getattr__(self, name: str) -> Any:
        for library in self._loaded:
            found = getattr(library, name, None)
            if found is not None:
                self.__dict__[name] = found
                return found
        raise Unsure(f"no library has {name}")

    def options(self, wanted: Mapping[str, str]) -> Any:
        """Return an AVDictionary."""
        made = c_void_p()
        for key, value in wanted.items():
            self.av_dict_set(byref(made), key.encode(), value.encode(), 0)
        return made

    def tags(self, metadata: int | None) -> dict[str, str]:
        """Return the entries of an AVDictionary. Raises Unsure if ffprobe may mend one for printing."""
        found: dict[str, str] = {}
        entry = None
        while metadata:
            entry = self.av_dict_get(c_void_p(metadata), b"", c_void_p(entry), 2)
            if not entry:
                break
            pair = Entry.from_address(entry)
            try:
                key, value = pair.key.decode(), pair.value.decode()
            except UnicodeDecodeError as error:
                raise Unsure("a tag is not UTF-8") from error
            if key in found or not all(c.isprintable() or c <= "\x1f" for c in key + value):
                raise Unsure("a tag holds characters that are not printable")
            found[key] = value
        return found


class OpenFile:
    """One file that is open for reading, as avformat sees it."""

    def __init__(self, av: Libraries, descriptor: int, question: Mapping[str, Any]) -> None:
        """Open it as ffprobe would by its name. Raises Unsure if avformat does not."""
        self.av, self.descriptor = av, descriptor
        self.size = os.fstat(descriptor).st_size
        self.at, self.failed = 0, False
        self._plain: dict[int, PlainPictures] = {}
        self._name = bytes.fromhex(question["name"])
        self._formats = question["formats"]
        self._callbacks = (_READ(self._read), _SEEK(self._seek))
        self._context = c_void_p()
        self._pb = c_void_p()
        self.packet = c_void_p(av.av_packet_alloc())
        self.frame = c_void_p(av.av_frame_alloc())
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        av = self.av
        self.at = 0
        context = c_void_p(av.avformat_alloc_context())
        buffer = c_void_p(av.av_malloc(c_size_t(ROOM)))
        self._pb = c_void_p(
            av.avio_alloc_context(
                buffer, ROOM, 0, None, self._callbacks[0], None, self._callbacks[1]
            )
        )
        if not self._pb:
            raise MemoryError  # avformat would open the file by its name
        FormatContext.from_address(context.value).pb = self._pb.value
        options = av.options(
            {"format_whitelist": self._formats, "protocol_whitelist": "file", "scan_all_pmts": "1"}
        )
        opened = av.avformat_open_input(byref(context), self._name, None, byref(options))
        av.av_dict_free(byref(options))
        if opened < 0:
            raise Unsure(f"avformat_open_input answered {opened}")
        self._context = context
        self.format = FormatContext.from_address(context.value)
        self.name = str(Named.from_address(self.format.iformat).name.decode())
        if self.name not in FORMATS:
            raise Unsure(f"the container {self.name} was not compared")
        self._find_stream_info()

    def _find_stream_info(self) -> None:
        count = self.format.nb_streams
        each = (c_void_p * max(1, count))()
        for number in range(count):
            each[number] = self.av.options(CHEAPLY).value
        found = self.av.avformat_find_stream_info(self._context, each)
        for number in range(count):
            self.av.av_dict_free(byref(each, number * ctypes.sizeof(c_void_p)))
        if found < 0:
            raise Unsure(f"avformat_find_stream_info answered {found}")
        self.streams = [
            Stream.from_address(self.format.streams[number])
            for number in range(self.format.nb_streams)
        ]
        self.discarded = [stream.discard for stream in self.streams]  # e.g. titles of chapters
        self.parameters = [Parameters.from_address(stream.codecpar) for stream in self.streams]

    def _read(self, _opaque: int | None, buffer: int, size: int) -> int:
        try:
            got = os.preadv(self.descriptor, [memory(buffer, size, WRITABLE)], self.at)
        except OSError:
            self.failed = True
            return IO_ERROR
        self.at += got
        return got or END_OF_FILE

    def _seek(self, _opaque: int | None, offset: int, whence: int) -> int:
        if whence & SEEK_SIZE:
            return self.size
        start = (0, self.at, self.size)[whence & ~SEEK_FORCE]
        if start + offset < 0:
            return -22
        self.at = start + offset
        return self.at

    def close(self) -> None:
        """Free what the libraries hold, and close the descriptor."""
        self._close_input()
        self.av.av_packet_free(byref(self.packet))
        self.av.av_frame_free(byref(self.frame))
        os.close(self.descriptor)

    def _close_input(self) -> None:
        if self._context:
            self.av.avformat_close_input(byref(self._context))
        if self._pb:
            held = c_void_p.from_address((self._pb.value or 0) + 8)
            self.av.av_freep(byref(held))
            self.av.avio_context_free(byref(self._pb))

    def again(self) -> None:
        """Open the file again, as a second ffprobe would."""
        self._close_input()
        self._open()

    def only(self, index: int | None) -> None:
        """Read the packets of this stream only, or of all."""
        for number, stream in enumerate(self.streams):
            others = index is not None and number != index
            stream.discard = DISCARD_ALL if others else self.discarded[number]

    def packets(self) -> Iterator[Any]:
        """Yield each packet, in the same place; it lasts until the next. Raises Unsure on a broken read."""
        packet = Packet.from_address(self.packet.value)
        read, forget = self.av.av_read_frame, self.av.av_packet_unref
        while (answer := read(self._context, self.packet)) >= 0:
            try:
                if packet.stream_index >= len(self.streams):
                    raise Unsure("a stream appeared later")
                yield packet
            finally:
                forget(self.packet)
        if self.failed or answer != END_OF_FILE:
            raise Unsure(f"av_read_frame answered {answer}")

    @contextlib.contextmanager
    def kept(self, stream: int | None, count: int | None) -> Iterator[list[tuple[int, Any]]]:
        """Yield copies of the next packets with the indexes of their streams, as many as ffprobe takes."""
        held: list[tuple[int, Any]] = []
        seen = 0
        try:
            for packet in self.packets():
                if stream is not None and packet.stream_index != stream:
                    continue
                if count is not None and seen >= count:
                    break
                seen += 1
                if self.parameters[packet.stream_index].codec_type == VIDEO:
                    copy = c_void_p(self.av.av_packet_clone(self.packet))
                    if not copy:
                        raise MemoryError
                    held.append((packet.stream_index, copy))
            yield held
        finally:
            for _, copy in held:
                self.av.av_packet_free(byref(copy))

    def is_plain(self, index: int, kept: list[tuple[int, Any]]) -> bool:
        """Whether decoding these packets of a stream would show nothing that its header does not."""
        if index not in self._plain:
            known = self.parameters[index]
            header = (
                ctypes.string_at(known.extradata, known.extradata_size) if known.extradata else b""
            )
            codec = self.av.avcodec_get_name(known.codec_id).decode()
            self._plain[index] = PlainPictures(codec, header)
        return all(
            not packet.side_data_elems
            and packet.size > 0
            and self._plain[index].are_plain(memory(packet.data, packet.size, READABLE))
            for packet in (Packet.from_address(copy.value) for at, copy in kept if at == index)
        )

    def seek(self, microseconds: int) -> None:
        """Seek as ffprobe does for an interval."""
        lowest, highest = c_int64(NO_TIME + 1), c_int64(2**63 - 1)
        at = c_int64(microseconds)
        if self.av.avformat_seek_file(self._context, -1, lowest, at, highest, 0) < 0:
            raise Unsure("seeking failed")

    def shape(self, stream: int, frame: Any | None) -> str:
        """Return the sample aspect of a stream, or of a frame of it, or ""."""
        ratio = self.av.av_guess_sample_aspect_ratio(
            self._context, c_void_p(ctypes.addressof(self.streams[stream])), frame
        )
        return f"{ratio.num}:{ratio.den}" if ratio.num else ""


class Decoders:
    """The decoders of an open file, for one kind of streams."""

    def __init__(self, file: OpenFile, kind: int, wanted: Mapping[str, str]) -> None:
        self.file, self.av = file, file.av
        self.kind, self.wanted = kind, {"threads": "1", **wanted}
        self.open: dict[int, Any] = {}

    def _decoder(self, index: int) -> Any:
        if index not in self.open:
            known = self.file.parameters[index]
            codec = self.av.avcodec_find_decoder(known.codec_id)
            if not codec:
                raise Unsure("no decoder")
            context = c_void_p(self.av.avcodec_alloc_context3(c_void_p(codec)))
            self.open[index] = context
            self.av.avcodec_parameters_to_context(context, c_void_p(ctypes.addressof(known)))
            options = self.av.options(self.wanted)
            answer = self.av.avcodec_open2(context, c_void_p(codec), byref(options))
            self.av.av_dict_free(byref(options))
            if answer < 0:
                raise Unsure("the decoder cannot be opened")
        return self.open[index]

    def close(self) -> None:
        """Free the decoders."""
        for context in self.open.values():
            self.av.avcodec_free_context(byref(context))

    def feed(self, index: int, packet: Any) -> Iterator[int]:
        """Yield the stream's index for each frame that a packet completes; None for a packet flushes."""
        if self.file.parameters[index].codec_type != self.kind:
            return
        decoder, frame, new = self._decoder(index), self.file.frame, True
        while True:
            answer = 0
            if new:
                answer = self.av.avcodec_send_packet(decoder, packet)
                if answer >= 0 or answer == END_OF_FILE:
                    new = False
                elif answer != TRY_AGAIN:
                    raise Unsure("a packet cannot be decoded")
            answer = self.av.avcodec_receive_frame(decoder, frame)
            if answer < 0 and answer not in {TRY_AGAIN, END_OF_FILE}:
                raise Unsure("a frame cannot be decoded")
            if answer >= 0:
                yield index
            elif not new:
                return

    def flush(self) -> Iterator[int]:
        """Yield the indexes of the frames that the decoders still hold, and let them start anew."""
        for index in range(len(self.file.streams)):
            if index in self.open:
                yield from self.feed(index, None)
                self.av.avcodec_flush_buffers(self.open[index])

    def picture(self, index: int) -> dict[str, Any]:
        """Return what ffprobe prints of the picture that was decoded last."""
        frame = Frame.from_address(self.file.frame.value)
        facts: dict[str, Any] = {
            "media_type": "video", "stream_index": index, "width": frame.width, "height": frame.height,
            "pix_fmt": text(self.av.av_get_pix_fmt_name(frame.format)),
            "interlaced_frame": frame.interlaced, "top_field_first": frame.top_first,
        }  # fmt: skip
        aspect = self.file.shape(index, self.file.frame)
        if aspect:
            facts["sample_aspect_ratio"] = aspect
        side = []
        for number in range(frame.nb_side_data):
            data = FrameData.from_address(frame.side_data[number])
            named = {"side_data_type": text(self.av.av_frame_side_data_name(data.type))}
            side.append({**named, **side_data(self.av, FRAME_DATA.get(data.type), data)})
        return {**facts, "side_data_list": side} if side else facts


def side_data(av: Libraries, kind: str | None, data: Any) -> dict[str, Any]:
    """Return what ffprobe prints of side data, as far as it is asked for; `kind` None is unknown."""
    if kind is None or data.size < LEAST[kind]:
        raise Unsure(f"there is side data {data.type}, of {data.size} bytes")
    if kind == "matrix":
        return matrix(av, data.data)
    if kind == "dolby":
        record = (c_ubyte * 8).from_address(data.data)
        return {"dv_bl_signal_compatibility_id": record[7]}
    if kind == "light":
        content, average = (c_uint * 2).from_address(data.data)
        return {"max_content": content, "max_average": average}
    if kind == "mastering":
        known = (c_int * 2).from_address(data.data + 80)
        names = [*PRIMARIES] if known[0] else []
        names += ["min_luminance", "max_luminance"] if known[1] else []
        ratios = (Ratio * 10).from_address(data.data)[0 if known[0] else 8 :]
        return {name: f"{r.num}/{r.den}" for name, r in zip(names, ratios, strict=False)}
    return {}


def matrix(av: Libraries, data: int) -> dict[str, Any]:
    """Return a display matrix as ffprobe prints it."""
    numbers = (c_int32 * 9).from_address(data)
    rows = "".join(
        f"{row:08x}: "
        + "".join(f" {number:11d}" for number in numbers[row * 3 : row * 3 + 3])
        + "\n"
        for row in range(3)
    )
    turned = av.av_display_rotation_get(c_void_p(data))
    return {"displaymatrix": f"\n{rows}", "rotation": 0 if math.isnan(turned) else int(turned)}


def text(found: bytes | None) -> str:
    """Return a name that a library gave."""
    return found.decode() if found else "unknown"
