"""A TCP line that fails: connections are reset, nothing passes, or the answers get lost."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

RESET = struct.pack("ii", 1, 0)
AWAY_S = 0.3


class FaultyLine:
    """Carries bytes from a port of this machine to `there`: a socket's path, or host and port."""

    def __init__(self, there: str | tuple[str, int]) -> None:
        self._there = there
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        self._ends = set[socket.socket]()
        self._mute = set[socket.socket]()
        self._word: bytes | None = None
        self._passes, self._answers = threading.Event(), threading.Event()
        self.heal()
        threading.Thread(target=self._serve, daemon=True).start()

    def heal(self) -> None:
        self._passes.set()
        self._answers.set()

    def cut(self) -> None:
        """Reset all connections; what had not passed is lost."""
        self.heal()
        for end in list(self._ends):
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                end.shutdown(socket.SHUT_RDWR)

    def stick(self) -> None:
        """Let nothing pass for a moment, with all connections open, and then cut them."""
        self._passes.clear()
        threading.Event().wait(AWAY_S)
        self.cut()

    def deafen(self, word: bytes = b"") -> None:
        """Let the next request with this word arrive, lose all answers for a moment, and cut."""
        self._word = word

    def swallow(self) -> None:
        """Acknowledge all that the connections of now bring, and pass on none of it."""
        self._mute |= self._ends

    def close(self) -> None:
        self._door.close()
        self.cut()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._door.accept()
                far = socket.socket(socket.AF_UNIX if isinstance(self._there, str) else 2)
                with suppress(OSError):
                    far.connect(self._there)
                self._ends |= {near, far}
                for one, other in ((near, far), (far, near)):
                    carry = threading.Thread(target=self._carry, args=(one, other, one is far))
                    carry.daemon = True
                    carry.start()

    def _carry(self, one: socket.socket, other: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while block := one.recv(1 << 16):
                if one in self._mute:
                    continue
                self._passes.wait()
                if not answers and self._word is not None and self._word in block:
                    self._word = None
                    self._answers.clear()
                    other.sendall(block)
                    threading.Event().wait(AWAY_S)
                    self.cut()
                elif self._answers.is_set() or not answers:
                    other.sendall(block)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._ends.discard(one)
        one.close()


@contextmanager
def faulty_line(there: str | tuple[str, int]) -> Iterator[FaultyLine]:
    line = FaultyLine(there)
    try:
        yield line
    finally:
        line.close()
