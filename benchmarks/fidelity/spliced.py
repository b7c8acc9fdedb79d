"""Clips that one ffmpeg command cannot make: cut recordings, joined ones, old phones, captions."""

import re
from pathlib import Path

from support.avi import pack, rewritten
from support.clips import ffmpeg
from support.rendition import turned

TS_PACKET = 188
_AUDIO_TONE = "sine=frequency=440:sample_rate=48000"
GOPS = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p", "-g", "20",
         "-bf", "2")  # fmt: skip
MPEG2 = ("-c:v", "mpeg2video", "-q:v", "4", "-pix_fmt", "yuv420p", "-g", "12", "-bf", "2")
_VTT = "WEBVTT\n\n00:00.100 --> 00:00.700\none\n\n00:00.900 --> 00:01.500 align:start\ntwo\n"


def video(size: str = "160x120", rate: str = "25", seconds: str = "2") -> tuple[str, ...]:
    """Return the inputs of a moving picture and a tone."""
    picture = f"testsrc2=size={size}:rate={rate}:duration={seconds}"
    return ("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", f"{_AUDIO_TONE}:duration={seconds}")


def cut_without_encoding(path: Path) -> None:
    """A phone's cut: the run-up of seconds since the key frame stays in the file, hidden."""
    whole = path.with_suffix(".whole" + path.suffix)
    ffmpeg(*video(seconds="5"), *GOPS, "-g", "100", "-keyint_min", "100", "-c:a", "aac", whole)
    ffmpeg("-ss", "2.2", "-i", whole, "-c", "copy", path)
    whole.unlink()


def phone_with_amr(path: Path) -> None:
    """An old phone's 3GP: H.263 with AMR speech, here silence (this ffmpeg encodes no AMR)."""
    silence = path.with_suffix(".amr")
    silence.write_bytes(b"#!AMR\n" + (b"\x3c" + bytes(31)) * 100)
    ffmpeg(*video(size="176x144")[:4], "-i", silence, "-c:v", "h263", "-q:v", "4", "-c:a", "copy",
           "-shortest", path)  # fmt: skip
    silence.unlink()


def phone_with_spatial_sound(path: Path) -> None:
    """A phone's sound in stereo, and again in a codec that no ffmpeg knows: a sound renamed here."""
    ffmpeg(
        *video(), *GOPS, "-map", "0", "-map", "1", "-map", "1", "-c:a", "aac", "-ac:a:1", "4", path
    )
    data = path.read_bytes()
    entry = data.rindex(b"mp4a", 0, data.rindex(b"esds"))
    entry = data.rindex(b"stsd", 0, entry) + 16
    tail = data[entry:].replace(b"mp4a", b"apac", 1).replace(b"wave", b"free", 1)
    path.write_bytes(data[:entry] + tail.replace(b"esds", b"dapa", 1))


def with_webvtt(path: Path) -> None:
    """A video with WebVTT subtitles, which have settings that SubRip cannot hold."""
    text = path.with_suffix(".vtt")
    text.write_text(_VTT)
    codec = ("-c:v", "libvpx", "-b:v", "200k", "-deadline", "realtime", "-c:a", "libvorbis")
    coded = codec if path.suffix == ".webm" else (*GOPS, "-c:a", "aac")
    ffmpeg(
        *video(), "-i", text, "-map", "0", "-map", "1", "-map", "2", *coded, "-c:s", "copy", path
    )
    text.unlink()


def empty_second_video(path: Path) -> None:
    """A file whose second video track has no picture at all, as some editors leave it."""
    ffmpeg(*video(), "-map", "0:v", "-map", "1:a", "-map", "0:v", *GOPS, "-c:a", "aac",
           "-frames:v:1", "1", path)  # fmt: skip
    data = bytearray(path.read_bytes())
    track = data.rindex(b"vide")
    for table, count_at in ((b"stts", 8), (b"stss", 8), (b"stsc", 8), (b"stsz", 12), (b"stco", 8)):
        at = data.find(table, track)
        if at >= 0:
            data[at + count_at : at + count_at + 4] = bytes(4)
    path.write_bytes(data)


def with_captions(path: Path) -> None:
    """Closed captions (CEA-608 in A/53 user data) in the SEI of every picture of an H.264 video."""
    bare, captioned = path.with_suffix(".bare.h264"), path.with_suffix(".cc.h264")
    ffmpeg(*video()[:4], *GOPS, "-bf", "0", "-x264-params", "aud=1", bare)
    captioned.write_bytes(_captioned(bare.read_bytes()))
    ffmpeg("-f", "h264", "-r", "25", "-i", captioned, "-i", _tone(path), "-c:v", "copy", "-c:a",
           "aac", "-shortest", path)  # fmt: skip
    for left in (bare, captioned, path.with_suffix(".wav")):
        left.unlink()


def packed_divx(path: Path) -> None:
    """DivX whose P and B pictures share packets, copied from its AVI into another container."""
    plain, packed = path.with_suffix(".plain.avi"), path.with_suffix(".packed.avi")
    ffmpeg(*video(), "-shortest", "-c:v", "mpeg4", "-q:v", "3", "-bf", "1", "-vtag", "DX50", "-c:a",
           "libmp3lame", plain)  # fmt: skip
    rewritten(plain, packed, pack)
    ffmpeg("-fflags", "+genpts", "-i", packed, "-c", "copy", path)
    for left in (plain, packed):
        left.unlink()


def _tone(path: Path) -> Path:
    wav = path.with_suffix(".wav")
    ffmpeg("-f", "lavfi", "-i", f"{_AUDIO_TONE}:duration=2", wav)
    return wav


def _captioned(stream: bytes) -> bytes:
    """Insert an SEI with caption pairs in front of the first slice of each picture."""
    words = [b"\x94\x20", b"\x94\x70", b"HE", b"LL", b"O\x80", b"\x94\x2f"]
    parts = (part for part in re.split(rb"\x00\x00\x00?\x01", stream) if part)
    made, shown, waits = [], 0, False
    for part in parts:
        waits = waits or part[0] & 0x1F == 9
        if waits and part[0] & 0x1F in {1, 5}:
            pair = _with_parity(words[shown]) if shown < len(words) else b"\x80\x80"
            made.append(_caption_unit(pair))
            shown, waits = shown + 1, False
        made.append(part)
    return b"".join(b"\x00\x00\x00\x01" + part for part in made)


def _with_parity(pair: bytes) -> bytes:
    return bytes(b & 0x7F | (0x80 if (b & 0x7F).bit_count() % 2 == 0 else 0) for b in pair)


def _caption_unit(pair: bytes) -> bytes:
    """Return a NAL unit: SEI payload 4 (ITU-T T.35), A/53 `GA94`, one CEA-608 pair of field 1."""
    payload = b"\xb5\x00\x31GA94\x03\xc1\xff\xfc" + pair + b"\xff"
    return b"\x06\x04" + bytes([len(payload)]) + payload + b"\x80"


def recorded(path: Path, coded: tuple[str, ...], *more: str, seconds: str = "4") -> bytes:
    whole = path.with_suffix(".whole.ts")
    # A broadcaster sends its tables and the clock often; a receiver may begin anywhere.
    ffmpeg(*video(seconds=seconds), *coded, "-c:a", "mp2", *more, "-f", "mpegts",
           "-pat_period", "0.1", whole)  # fmt: skip
    data = whole.read_bytes()
    whole.unlink()
    return data


def _cut(data: bytes, begin: float, end: float) -> bytes:
    packets = len(data) // TS_PACKET
    return data[int(packets * begin) * TS_PACKET : int(packets * end) * TS_PACKET]


def recording_cut(path: Path) -> None:
    """A recording that begins between key frames and ends inside a picture."""
    path.write_bytes(_cut(recorded(path, GOPS), 0.17, 0.83))


def recording_cut_mpeg2(path: Path) -> None:
    """The same of standard-definition television: MPEG-2 with open groups of pictures."""
    path.write_bytes(_cut(recorded(path, MPEG2), 0.17, 0.83))


def recording_torn_end(path: Path) -> None:
    """A recorder that lost its power: the last transport packet is not whole."""
    data = recorded(path, GOPS)
    path.write_bytes(data[: int(len(data) * 0.8) // TS_PACKET * TS_PACKET + 77])


def recording_joined(path: Path) -> None:
    """Two recordings in one file: the clock starts anew in the middle."""
    path.write_bytes(b"".join(joined_parts(path)))


def joined_parts(path: Path) -> tuple[bytes, bytes]:
    """The two recordings of `recording_joined`; the sound of the first lasts longer than its picture."""
    first = recorded(path, GOPS, "-af", "apad=pad_dur=0.15", seconds="2")
    return first, recorded(path, GOPS, seconds="1")


def joined_titles(path: Path) -> None:
    """Two titles of a DVD in one file: the clock of the second begins anew."""
    path.write_bytes(b"".join(title(path, seconds) for seconds in ("2", "1")))


def title(path: Path, seconds: str, *more: str) -> bytes:
    """Return a program stream of MPEG-2 with sound that lasts as long."""
    whole = path.with_suffix(".title.vob")
    ffmpeg(*video("176x144", seconds=seconds), *MPEG2, "-c:a", "ac3", *more, whole)
    data = whole.read_bytes()
    whole.unlink()
    return data


def recording_segments(path: Path) -> None:
    """Segments of a broadcast or stream put together: each counts its packets from 0."""
    names = path.with_name(f"{path.stem}.%d.part")
    ffmpeg(*video(seconds="4"), "-map", "0", "-map", "1", *GOPS, "-c:a", "mp2", "-f", "segment",
           "-segment_time", "1.6", "-segment_format", "mpegts", names)  # fmt: skip
    parts = sorted(path.parent.glob(f"{path.stem}.*.part"))
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    for part in parts:
        part.unlink()


def recording_joined_channels(path: Path) -> None:
    """Recordings of two channels in one file: other streams, and a clock that is hours ahead."""
    there = ("-mpegts_start_pid", "0x300", "-mpegts_service_id", "9", "-output_ts_offset", "9000")
    one, other = (recorded(path, GOPS, *more, seconds="2") for more in ((), there))
    path.write_bytes(one + other + one)


def recording_joined_cut(path: Path) -> None:
    """Parts of MPEG-2 that begin between key frames and end inside a picture, where the clock wraps."""
    near = ("-output_ts_offset", str((1 << 33) / 90_000 - 2.5))
    one, other = (
        recorded(path, MPEG2, *more, seconds="3") for more in (near, ("-output_ts_offset", "70"))
    )
    path.write_bytes(_cut(one, 0.1, 0.83) + _cut(other, 0.17, 0.83) + _cut(one, 0.3, 1))


def recording_joined_open(path: Path, keys: str = "20") -> None:
    """Parts of H.264 without an IDR picture but the first, as broadcasts in high definition have."""
    coded = (*GOPS, "-x264-params", f"open-gop=1:keyint={keys}:bframes=2")
    one = recorded(path, coded, seconds="3")
    path.write_bytes(_cut(one, 0, 0.9) + _cut(one, 0.2, 0.7))


def recording_joined_lost(path: Path) -> None:
    """The same where ffmpeg's decoder drops what follows, as the order of the pictures goes back."""
    recording_joined_open(path, keys="12")


def changing(path: Path, *shapes: tuple[str, str], coded: tuple[str, ...] = MPEG2) -> None:
    """One video whose size and sample aspect change on the way, as between programmes and films."""
    parts = [path.with_suffix(f".part{place}.ts") for place in range(len(shapes))]
    for part, (size, aspect) in zip(parts, shapes, strict=True):
        ffmpeg(*video(size, seconds="1"), "-vf", f"setsar={aspect}", *coded, "-c:a", "mp2",
               "-f", "mpegts", part)  # fmt: skip
    listing = path.with_suffix(".txt")
    listing.write_text("".join(f"file '{part}'\n" for part in parts))
    # Each key frame carries its own parameters, as in broadcasts.
    headers = ("-bsf:v", "dump_extra") if coded is GOPS else ()
    ffmpeg("-f", "concat", "-safe", "0", "-i", listing, "-map", "0:v", "-map", "0:a", "-c", "copy",
           *headers, path)  # fmt: skip
    for left in (*parts, listing):
        left.unlink()


def aspect_changes(path: Path) -> None:
    """4:3 and 16:9 in turn, with the same pixels."""
    changing(path, ("176x144", "12/11"), ("176x144", "16/11"), ("176x144", "12/11"))


def size_changes(path: Path) -> None:
    """A narrower picture in between, as channels send to save bits."""
    changing(path, ("176x144", "16/11"), ("128x144", "2/1"))


def size_changes_h264(path: Path) -> None:
    """A call or a stream whose resolution was changed on the way."""
    changing(path, ("160x96", "1/1"), ("192x112", "1/1"), coded=GOPS)


def turned_fields(path: Path) -> None:
    """A camera that was held upright and records fields."""
    weave = "tinterlace=mode=interleave_top,fieldorder=tff,format=yuv420p"
    ffmpeg(*video(rate="50"), "-vf", weave, *GOPS, "-flags", "+ildct+ilme", "-c:a", "aac", path)
    turned(path, 0, 1, -1, 0)


def two_programmes(path: Path) -> None:
    """A multiplex with two programmes; the first is what a person recorded."""
    ffmpeg(*video(), *video(), "-map", "0", "-map", "1", "-map", "2", "-map", "3", *GOPS,
           "-c:a", "mp2", "-program", "title=One:st=0:st=1", "-program", "title=Two:st=2:st=3",
           "-f", "mpegts", path)  # fmt: skip


def clock_wrap(path: Path) -> None:
    """A recording during which the 33-bit clock wraps, as it does every 26.5 hours."""
    ffmpeg(*video(seconds="4"), *GOPS, "-c:a", "mp2", "-output_ts_offset", str((1 << 33) / 90_000 - 3.5),
           "-f", "mpegts", path)  # fmt: skip
