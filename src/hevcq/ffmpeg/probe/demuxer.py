"""Answer questions about many files in one process, with the libraries that ffprobe itself uses.

A program of its own, run by `inputs.Demuxers` in ffprobe's sandbox: it may open no video, but gets
each as an open descriptor. Debian's ffprobe takes 57 ms of CPU to start, for 215 libraries; here that
is paid once. It returns what `ffprobe -of json` prints of the same file, asked in the same way, because it
calls the same functions of the same libraries in the same order (fftools/ffprobe.c); whatever it has not
been compared on, and whatever any library complains of, it leaves to ffprobe: `Unsure`.

It imports nothing of hevcq, and little of Python, because each start pays for it.
"""

from __future__ import annotations

import _socket
import contextlib
import ctypes
import json
import os
import select
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from ctypes import c_size_t, c_void_p
from typing import Any

from hevcq.ffmpeg.probe.libav import (
    CHEAPLY,
    CODECS,
    CORRUPT,
    DISCARD_ALL,
    DISCARDED,
    ERRORS,
    KEY,
    LAYOUT_OFFSET,
    NO_TIME,
    PACKET_DATA_BYTES,
    READABLE,
    STREAM_DATA,
    VIDEO,
    Chapter,
    Decoders,
    Descriptor,
    Libraries,
    OpenFile,
    PacketData,
    Ratio,
    Unsure,
    memory,
    side_data,
    text,
)

Json = Mapping[str, Any]

IDLE_S = 60.0
"""Seconds without a question after which the process ends by itself."""
SENT_BYTES = 65_536
"""Bytes of packet lines that are sent together."""

HEAD = 4
"""Bytes that hold the length of what follows, the most significant first."""
AUDIO, ATTACHMENT = 1, 4
KINDS = {0: "video", 1: "audio", 2: "data", 3: "subtitle", 4: "attachment"}
FIELD_ORDERS = {1: "progressive", 2: "tt", 3: "bb", 4: "tb", 5: "bt"}
UNKNOWN_PROFILE = -99
DISPOSITIONS = {
    0x1: "default", 0x2: "dub", 0x4: "original", 0x8: "comment", 0x10: "lyrics", 0x20: "karaoke",
    0x40: "forced", 0x80: "hearing_impaired", 0x100: "visual_impaired", 0x200: "clean_effects",
    0x400: "attached_pic", 0x800: "timed_thumbnails", 0x10000: "captions", 0x20000: "descriptions",
    0x40000: "metadata", 0x80000: "dependent", 0x100000: "still_image",
}  # fmt: skip


def _time(ticks: int, base: Ratio) -> str:
    return f"{ticks * (base.num / base.den):f}"


def facts_of(file: OpenFile) -> dict[str, Any]:
    """Return what ffprobe prints of the format, the streams and the chapters."""
    av, form = file.av, file.format
    microseconds = Ratio(1, 1_000_000)
    facts: dict[str, Any] = {
        "format_name": file.name, "nb_programs": form.nb_programs, "size": str(file.size),
        "tags": av.tags(form.metadata),
    }  # fmt: skip
    for name, ticks in (("start_time", form.start_time), ("duration", form.duration)):
        if ticks != NO_TIME:
            facts[name] = _time(ticks, microseconds)
    if form.bit_rate > 0:
        facts["bit_rate"] = str(form.bit_rate)
    chapters = []
    for number in range(form.nb_chapters):
        chapter = Chapter.from_address(form.chapters[number])
        times = {
            "start_time": _time(chapter.start, chapter.time_base),
            "end_time": _time(chapter.end, chapter.time_base),
        }
        chapters.append({**times, "tags": av.tags(chapter.metadata)})
    streams = [_stream(file, index) for index in range(len(file.streams))]
    return {"format": facts, "streams": streams, "chapters": chapters}


def _stream(file: OpenFile, index: int) -> dict[str, Any]:
    av, stream, known = file.av, file.streams[index], file.parameters[index]
    fourcc = ctypes.create_string_buffer(32)
    av.av_fourcc_make_string(fourcc, known.codec_tag)
    facts: dict[str, Any] = {
        "index": index, "codec_tag_string": fourcc.value.decode(),
        "time_base": _ratio(stream.time_base), "r_frame_rate": _ratio(stream.r_frame_rate),
        "avg_frame_rate": _ratio(stream.avg_frame_rate), "tags": av.tags(stream.metadata),
        "disposition": {
            name: int(bool(stream.disposition & bit)) for bit, name in DISPOSITIONS.items()
        },
    }  # fmt: skip
    if stream.disposition & ~sum(DISPOSITIONS):
        raise Unsure("a disposition is not known")
    descriptor = av.avcodec_descriptor_get(known.codec_id)
    if descriptor:
        facts["codec_name"] = Descriptor.from_address(descriptor).name.decode()
    if known.codec_type in KINDS:
        facts["codec_type"] = KINDS[known.codec_type]
    profile = av.avcodec_profile_name(known.codec_id, known.profile)
    if profile or known.profile != UNKNOWN_PROFILE:
        facts["profile"] = profile.decode() if profile else str(known.profile)
    facts.update(_sizes(stream, known))
    if known.codec_type == VIDEO:
        facts.update(_video(file, index, str(facts.get("codec_name", ""))))
    elif known.codec_type == AUDIO:
        facts.update(_audio(file, known))
    elif known.codec_type == ATTACHMENT and known.extradata_size > 0:
        import hashlib

        held = ctypes.string_at(known.extradata, known.extradata_size)
        facts["extradata_hash"] = f"SHA256:{hashlib.sha256(held).hexdigest()}"
    side = [_side_data(av, stream.side_data, number) for number in range(stream.nb_side_data)]
    return {**facts, "side_data_list": side} if side else facts


def _sizes(stream: Any, known: Any) -> dict[str, Any]:
    facts = {
        name: _time(ticks, stream.time_base)
        for name, ticks in (("start_time", stream.start_time), ("duration", stream.duration))
        if ticks != NO_TIME
    }
    if stream.nb_frames:
        facts["nb_frames"] = str(stream.nb_frames)
    if known.bit_rate > 0:
        facts["bit_rate"] = str(known.bit_rate)
    return facts


def _ratio(ratio: Ratio) -> str:
    return f"{ratio.num}/{ratio.den}"


def _side_data(av: Libraries, first: int, number: int) -> dict[str, Any]:
    data = PacketData.from_address(first + number * PACKET_DATA_BYTES)
    named = {"side_data_type": text(av.av_packet_side_data_name(data.type))}
    return {**named, **side_data(av, STREAM_DATA.get(data.type), data)}


def _video(file: OpenFile, index: int, codec: str) -> dict[str, Any]:
    av, known = file.av, file.parameters[index]
    if codec not in CODECS:
        raise Unsure(f"the codec {codec} was not compared")
    pixels = av.av_get_pix_fmt_name(known.format)
    if not pixels or not known.width:
        raise Unsure("the picture's format is not known")
    facts: dict[str, Any] = {
        "width": known.width,
        "height": known.height,
        "pix_fmt": pixels.decode(),
    }
    if known.field_order in FIELD_ORDERS:
        facts["field_order"] = FIELD_ORDERS[known.field_order]
    aspect = file.shape(index, None)
    if aspect:
        facts["sample_aspect_ratio"] = aspect
    for name, value, unspecified, naming in (
        ("color_range", known.color_range, 0, av.av_color_range_name),
        ("color_space", known.color_space, 2, av.av_color_space_name),
        ("color_transfer", known.color_transfer, 2, av.av_color_transfer_name),
        ("color_primaries", known.color_primaries, 2, av.av_color_primaries_name),
        ("chroma_location", known.chroma_location, 0, av.av_chroma_location_name),
    ):
        named = naming(value)
        if named and value != unspecified:
            facts[name] = named.decode()
    return facts


def _audio(file: OpenFile, known: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {"sample_rate": str(known.sample_rate), "channels": known.channels}
    samples = file.av.av_get_sample_fmt_name(known.format)
    if samples:
        facts["sample_fmt"] = samples.decode()
    if known.layout_order:
        text = ctypes.create_string_buffer(512)
        place = c_void_p(ctypes.addressof(known) + LAYOUT_OFFSET)
        file.av.av_channel_layout_describe(place, text, c_size_t(len(text)))
        facts["channel_layout"] = text.value.decode()
    return facts


def frames_of(
    file: OpenFile, places: Sequence[Sequence[int | None]], stream: int | None, *, nokey: bool
) -> list[dict[str, Any]]:
    """Return the facts of the first pictures at each place, (microseconds, packets), of the video.

    Without microseconds it is read on from where it is. `nokey` decodes key frames only.
    """
    found: list[dict[str, Any]] = []
    decoders = Decoders(file, VIDEO, {**CHEAPLY, **({"skip_frame": "nokey"} if nokey else {})})
    file.only(stream)
    try:
        for start, count in places:
            if start is not None:
                file.seek(start)
            with file.kept(stream, count) as kept:
                plain = {index for index, _ in kept if file.is_plain(index, kept)}
                found.extend(header_picture(file, index) for index in sorted(plain))
                for index, packet in kept:
                    if index not in plain:
                        found.extend(decoders.picture(n) for n in decoders.feed(index, packet))
                found.extend(decoders.picture(index) for index in decoders.flush())
    finally:
        decoders.close()
    return found


def header_picture(file: OpenFile, index: int) -> dict[str, Any]:
    """Return what ffprobe prints of a picture of which only the header is known."""
    known = file.parameters[index]
    facts: dict[str, Any] = {
        "media_type": "video", "stream_index": index, "width": known.width, "height": known.height,
        "pix_fmt": text(file.av.av_get_pix_fmt_name(known.format)),
        "interlaced_frame": 0, "top_field_first": 0,
    }  # fmt: skip
    aspect = file.shape(index, None)
    return {**facts, "sample_aspect_ratio": aspect} if aspect else facts


def packet_lines(file: OpenFile, question: Json, send: Callable[[bytes], None]) -> int:
    """Send a line of each packet as ffprobe prints it in CSV, and return the number of lines."""
    stream, named, hashed = question["stream"], question["named"], question["hashed"]
    file.only(stream)
    lines: list[str] = []
    size = count = 0
    for packet in file.packets():
        if stream is not None and packet.stream_index != stream:
            continue
        pts, dts = packet.pts, packet.dts
        line = (
            f"{named or packet.stream_index},{'N/A' if pts == NO_TIME else pts},"
            f"{'N/A' if dts == NO_TIME else dts},{packet.duration or 'N/A'},{packet.size},"
            f"{'K' if packet.flags & KEY else '_'}{'D' if packet.flags & DISCARDED else '_'}"
        )
        if hashed:
            data = memory(packet.data, packet.size, READABLE) if packet.size else b""
            line += f",CRC32:{zlib.crc32(data):08x}"
        lines.append(line)
        count += 1
        size += len(line) + 1
        if size >= SENT_BYTES:
            send("\n".join([*lines, ""]).encode())
            lines, size = [], 0
    if named and stream is not None:
        lines.append(f"stream,{file.parameters[stream].video_delay}")
        count += 1
    send("\n".join([*lines, ""]).encode() if lines else b"")
    return count


def decode_sound(file: OpenFile) -> int:
    """Decode all audio tracks, and return the number of their packets. Raises Unsure at anything odd."""
    decoders = Decoders(file, AUDIO, {})
    for number, stream in enumerate(file.streams):
        if file.parameters[number].codec_type != AUDIO:
            stream.discard = DISCARD_ALL
    count = 0
    last: dict[int, int] = {}
    try:
        for packet in file.packets():
            index, dts = packet.stream_index, packet.dts
            if dts == NO_TIME or dts < last.get(index, dts) or packet.flags & CORRUPT:
                raise Unsure("a packet is corrupt, or not in the order of times")
            last[index] = dts
            count += file.parameters[index].codec_type == AUDIO
            for _ in decoders.feed(index, file.packet):
                pass
        for _ in decoders.flush():
            pass
    finally:
        decoders.close()
    if len(decoders.open) < sum(known.codec_type == AUDIO for known in file.parameters):
        raise Unsure("a track holds no sound")
    return count


class Server:
    """Answers the questions that come by a socket, one after another, about one file at a time."""

    def __init__(self, channel: _socket.socket, complaints: int) -> None:
        """Answer on this socket; `complaints` is where the libraries' error lines can be read."""
        self.channel, self.complaints = channel, complaints
        self.av = Libraries()
        self.av.av_log_set_level(ERRORS)
        self.file: OpenFile | None = None

    def introduce(self) -> None:
        """Tell of which build the libraries are."""
        facts = {
            "version": self.av.av_version_info().decode(),
            "configuration": self.av.avformat_configuration().decode(),
        }
        self.send(b"A", json.dumps(facts).encode())

    def serve(self) -> None:
        """Answer until nobody asks any more."""
        while select.select([self.channel], [], [], IDLE_S)[0]:
            question, descriptors = self.receive()
            if question is None:
                return
            try:
                answer = self.answer(question, descriptors)
                if self.complained():
                    raise Unsure("a library complained")
            except Unsure as error:  # any other error ends this process, whatever state it is in
                answer = {"unsure": str(error)}
                self.close_file()
            self.complained()
            self.send(b"A", json.dumps(answer).encode())

    def answer(self, question: Json, descriptors: list[int]) -> dict[str, Any]:
        """Return the answer to one question. Raises Unsure."""
        if question["ask"] == "close":
            self.close_file()
            return {}
        if descriptors:
            self.close_file()
            self.file = OpenFile(self.av, descriptors[0], question)
        if self.file is None:
            raise Unsure("no file is open")
        if question["ask"] == "look":
            frames = frames_of(self.file, [(None, question["packets"])], None, nokey=False)
            return {**facts_of(self.file), "frames": frames}
        if question["ask"] == "frames":
            if question["again"]:
                self.file.again()
            places, stream = question["places"], question["stream"]
            return {"frames": frames_of(self.file, places, stream, nokey=question["nokey"])}
        if question["ask"] == "sound":
            return {"packets": decode_sound(self.file)}
        return {"packets": packet_lines(self.file, question, lambda lines: self.send(b"L", lines))}

    def close_file(self) -> None:
        """Close the file that is open."""
        held, self.file = self.file, None
        if held is not None:
            held.close()

    def complained(self) -> bool:
        """Whether a library printed an error since the last time."""
        is_noted = False
        while select.select([self.complaints], [], [], 0)[0] and os.read(self.complaints, 65_536):
            is_noted = True
        return is_noted

    def receive(self) -> tuple[Json | None, list[int]]:
        """Return the next question with the descriptors that came with it; None if there is none."""
        descriptors: list[int] = []
        data = b""
        length = HEAD
        while len(data) < length:
            piece, extra, _, _ = self.channel.recvmsg(length - len(data), _socket.CMSG_SPACE(4))
            for _, _, held in extra:
                descriptors += struct.unpack(f"{len(held) // 4}i", held[: len(held) // 4 * 4])
            if not piece:
                return None, descriptors
            data += piece
            if len(data) == HEAD == length:
                length += int.from_bytes(data, "big")
        question = json.loads(data[HEAD:])
        return (question if isinstance(question, dict) else None), descriptors

    def send(self, kind: bytes, content: bytes) -> None:
        """Send a piece of an answer: `L` lines, `A` the end of it."""
        if kind == b"A" or content:
            self.channel.sendall(kind + len(content).to_bytes(HEAD, "big") + content)


def main() -> None:
    """Answer on the socket that is the standard input; print why if that is not possible."""
    channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, 0)
    complaints, written = os.pipe()
    os.set_blocking(written, False)
    server = Server(channel, complaints)
    server.introduce()
    os.dup2(written, 2)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        server.serve()
