"""Find from the headers of coded pictures whether decoding them would show nothing new: H.264 and HEVC.

Decoding pictures of 1080p takes 5 to 20 ms each. They are plain if they belong to the one progressive
sequence of the container's header, and hold no messages but those without a fact about the picture. A list
of what is allowed: whatever else there is, is decoded. ITU-T H.264 7.3 and annex D, ITU-T H.265 7.3
and annex D, ISO/IEC 14496-15 5.3 and 8.3.
"""

from __future__ import annotations

from collections.abc import Iterator

HIGH_PROFILES = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
"""Profiles of H.264 whose sequence header has the chroma format."""
H264_SLICES, H264_MESSAGE, H264_SEQUENCE, H264_PICTURE = frozenset({1, 5}), 6, 7, 8
H264_SILENT = frozenset({9, 12})  # where a picture begins, and filling
H264_PLAIN_MESSAGES = frozenset({0, 5, 6})
"""Buffering, an encoder's note about itself, and where decoding may begin."""
HEVC_SLICES = frozenset({*range(10), *range(16, 22)})
HEVC_HEADERS, HEVC_MESSAGES = frozenset({32, 33, 34}), frozenset({39, 40})
HEVC_SILENT = frozenset({35, 38})
HEVC_PLAIN_MESSAGES = frozenset({0, 5, 6, 129, 132})
"""As above, and which headers are in use, and the digest of the picture."""


class Bits:
    """Reads numbers of a header bit by bit. Raises IndexError at its end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data.replace(b"\x00\x00\x03", b"\x00\x00"), 0

    def bit(self) -> int:
        """Return the next bit."""
        found = self._data[self._at >> 3] >> (7 - (self._at & 7)) & 1
        self._at += 1
        return found

    def bits(self, count: int) -> int:
        """Return the next bits as a number."""
        number = 0
        for _ in range(count):
            number = number << 1 | self.bit()
        return number

    def golomb(self) -> int:
        """Return the next number in Exp-Golomb code."""
        zeros = 0
        while not self.bit():
            zeros += 1
        return (1 << zeros) - 1 + self.bits(zeros)


class PlainPictures:
    """Tells plain pictures of one stream."""

    def __init__(self, codec: str, header: bytes) -> None:
        """Read the container's header of the stream; nothing is plain if it is not as expected."""
        self._hevc = codec == "hevc"
        self._length = 0
        self._known: frozenset[bytes] = frozenset()
        try:
            if codec == "h264" and header[0] == 1:
                self._read_avc(header)
            elif codec == "hevc" and header[0] == 1:
                self._read_hevc(header)
        except IndexError:
            self._length = 0

    def _read_avc(self, header: bytes) -> None:
        units: list[bytes] = []
        at = 5
        for mask in (0x1F, 0xFF):
            count, at = header[at] & mask, at + 1
            for _ in range(count):
                size = int.from_bytes(header[at : at + 2], "big")
                units.append(header[at + 2 : at + 2 + size])
                at += 2 + size
        sequences = [unit for unit in units if unit[0] & 0x1F == H264_SEQUENCE]
        if len(sequences) == 1 and is_progressive(sequences[0]):
            self._length, self._known = (header[4] & 3) + 1, frozenset(units)

    def _read_hevc(self, header: bytes) -> None:
        units: list[bytes] = []
        arrays, at = header[22], 23
        for _ in range(arrays):
            count, at = int.from_bytes(header[at + 1 : at + 3], "big"), at + 3
            for _ in range(count):
                size = int.from_bytes(header[at : at + 2], "big")
                units.append(header[at + 2 : at + 2 + size])
                at += 2 + size
        self._known = frozenset(units)
        sequences = [unit for unit in units if unit[0] >> 1 & 0x3F == 33]
        if len(sequences) == 1 and all(self._is_plain_unit(unit) for unit in units):
            self._length = (header[21] & 3) + 1

    def are_plain(self, packet: memoryview) -> bool:
        """Whether decoding the packet would show nothing that the container's header does not."""
        if not self._length or not packet:
            return False
        try:
            return all(self._is_plain_unit(unit) for unit in self._units(packet))
        except IndexError:
            return False

    def _units(self, packet: memoryview) -> Iterator[memoryview]:
        at = 0
        while at < len(packet):
            size = int.from_bytes(packet[at : at + self._length], "big")
            at += self._length
            if not size or at + size > len(packet):
                raise IndexError
            yield packet[at : at + size]
            at += size

    def _is_plain_unit(self, unit: bytes | memoryview) -> bool:
        if self._hevc:
            kind, layer = unit[0] >> 1 & 0x3F, (unit[0] & 1) << 5 | unit[1] >> 3
            if layer:
                return False
            if kind in HEVC_MESSAGES:
                return _kinds(unit[2:]) <= HEVC_PLAIN_MESSAGES
            headers = kind in HEVC_HEADERS and bytes(unit) in self._known
            return kind in HEVC_SLICES or kind in HEVC_SILENT or headers
        kind = unit[0] & 0x1F
        if kind == H264_MESSAGE:
            return _kinds(unit[1:]) <= H264_PLAIN_MESSAGES
        headers = kind in {H264_SEQUENCE, H264_PICTURE} and bytes(unit) in self._known
        return kind in H264_SLICES or kind in H264_SILENT or headers


def _kinds(unit: bytes | memoryview) -> set[int]:
    """Return the kinds of the messages in a unit. Raises IndexError if they are cut off."""
    body = bytes(unit).replace(b"\x00\x00\x03", b"\x00\x00")
    found: set[int] = set()
    at = 0
    while len(body) - at > 1:
        numbers = [0, 0]
        for place in (0, 1):
            while body[at] == 0xFF:
                numbers[place], at = numbers[place] + 0xFF, at + 1
            numbers[place], at = numbers[place] + body[at], at + 1
        found.add(numbers[0])
        at += numbers[1]
    return found


def is_progressive(sequence: bytes) -> bool:
    """Whether H.264's sequence header says that all pictures are whole frames (frame_mbs_only_flag)."""
    read = Bits(sequence[1:])
    profile = read.bits(8)
    read.bits(16)
    read.golomb()
    if profile in HIGH_PROFILES:
        if read.golomb() == 3:
            read.bit()
        read.golomb()
        read.golomb()
        read.bit()
        if read.bit():
            return False  # scaling lists, which are long
    read.golomb()
    order = read.golomb()
    if order == 0:
        read.golomb()
    elif order == 1:
        return False
    read.golomb()
    read.bit()
    read.golomb()
    read.golomb()
    return bool(read.bit())
