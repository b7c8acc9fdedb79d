"""Model a rendition's certificate, the stored proof that it passed every gate."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Literal

from pydantic import Field, ValidationError, field_validator

from hevcq.domain.job import Source
from hevcq.domain.keys import check_key
from hevcq.domain.model import Frozen
from hevcq.domain.quality import Aim
from hevcq.errors import BadKey, VerificationFailed
from hevcq.util.file_io import sha256_bytes
from hevcq.util.text import encodable

MAX_BYTES = 1 << 24
"""Largest certificate that is read, in bytes. A typical one has a few KiB, one with the arguments and
notices of 1,000 streams some hundred KiB. A larger object is not hevcq's and must not fill the memory."""


class Outcome(StrEnum):
    """The outcome of a gate. UNKNOWN counts as failed."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"
    NOT_SMALLER = "not_smaller"
    OFF = "off"


class Gate(StrEnum):
    """The gates of docs/architecture.md; G9 to G11 belong to placing and swapping, H1 to H5 to sets."""

    G0 = "G0 source unchanged"
    G1 = "G1 clean encode"
    G2 = "G2 fresh probe as promised"
    G3 = "G3 stream ledger"
    G4 = "G4 full decode"
    G5 = "G5 measured times"
    G6 = "G6 smaller"
    G8 = "G8 picture"
    G9 = "G9 placed bytes"
    G10 = "G10 swap"
    G11 = "G11 original retained"
    H1 = "H1 byte ranges"
    H2 = "H2 segments start independently"
    H3 = "H3 rungs aligned"
    H4 = "H4 declared codecs and rates"
    H5 = "H5 playlists read"
    T1 = "T1 subtitles beside"


REQUIRED = (Gate.G0, Gate.G1, Gate.G2, Gate.G3, Gate.G4, Gate.G5, Gate.G6, Gate.G8)
"""Gates that a certificate must contain before a rendition is published."""
OF_SETS = (Gate.H1, Gate.H2, Gate.H3, Gate.H4, Gate.H5)
REQUIRED_OF_SETS = (*REQUIRED, *OF_SETS)
"""Gates that the certificate of a rendition of several files must contain."""
NEVER_OFF = frozenset({Gate.G0, Gate.G1, Gate.G2, Gate.G3, Gate.G4, Gate.G5, *OF_SETS, Gate.T1})


class GateResult(Frozen):
    gate: Gate
    outcome: Outcome
    detail: str = ""
    seconds: float = 0.0
    digest: str = Field(
        default="",
        description="G8: SHA-256 of the thumbnails of all frames of the main video, as decoded",
    )
    file: str = Field(default="", description="the rung of a set that was checked, by its file")

    @property
    def has_failed(self) -> bool:
        return self.outcome in {Outcome.FAILED, Outcome.UNKNOWN}


class CertifiedFile(Frozen):
    """A file of a set other than its master playlist; `name` is relative to the playlist's folder."""

    name: str
    size: int = Field(ge=0, description="bytes")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @field_validator("name", mode="after")
    @classmethod
    def _inside(cls, name: str) -> str:
        """Refuse a name that leads out of the set's folder, whoever wrote the certificate."""
        try:
            check_key(name)
        except BadKey as error:
            raise ValueError(str(error)) from error
        if "\\" in name:
            raise ValueError(f"{name!r} is no name of a file in a set")
        return name


class Sidecar(Frozen):
    """A text track of the source as a file beside the rendition."""

    marks: str = Field(
        pattern=r"^([A-Za-z0-9-]+(\.[a-z0-9]+)*)?$",
        description="language and kind, as in en.forced",
    )
    cues: int = Field(ge=1)
    text: str = Field(description="SubRip, as it is in the file")

    def path(self, video: Path) -> Path:
        return video.with_name(".".join(filter(None, (video.stem, self.marks, "srt"))))


class Certificate(Frozen):
    """The certificate of a rendition. Times are seconds since the Unix epoch.

    It is trusted if the ledger or the catalog holds its `digest`, which shows that this farm wrote it.
    """

    hevcq_certificate: Literal[1] = 1
    job_id: str
    fence: int
    source: Source
    source_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    rendition_key: str
    rendition_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    rendition_size: int = Field(ge=1, description="bytes")
    files: tuple[CertifiedFile, ...] = Field(
        default=(),
        description="a set's files other than the master playlist, which is the rendition; else none",
    )
    profile: str
    revision: str
    ffmpeg: str = Field(description="first line of `ffmpeg -version`")
    arguments: tuple[str, ...] = Field(description="ffmpeg's; for joined chunks, the join's")
    device: str = Field(default="", description="the hardware encoder; empty: software")
    gates: tuple[GateResult, ...]
    notices: tuple[str, ...] = ()
    personal: tuple[str, ...] | None = Field(
        default=None,
        description="names of metadata about people, places and devices it contains; null: unknown",
    )
    losses: tuple[str, ...] = Field(
        default=(), description="lost metadata that forbids the rendition to replace its source"
    )
    quality: Aim | None = Field(
        default=None, description="the quality that was searched for; null: the profile's CRF"
    )
    sidecars: tuple[Sidecar, ...] = Field(
        default=(), description="subtitles that are placed beside the rendition"
    )
    hevcq_version: str
    made_at: float
    encode_s: float = 0.0
    verify_s: float = 0.0
    cpu_s: float = Field(default=0.0, description="CPU seconds of the encode")

    @field_validator("arguments", "notices", "personal", "losses", mode="after")
    @classmethod
    def _printable(cls, words: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """Escape bytes of file names that are not UTF-8 as `\\xNN`, because JSON cannot hold them."""
        return None if words is None else tuple(encodable(word) for word in words)

    @property
    def total_size(self) -> int:
        """The bytes of the rendition with all its files."""
        return self.rendition_size + sum(each.size for each in self.files)

    def to_json(self) -> str:
        return self.model_dump_json(indent=2)

    @property
    def digest(self) -> str:
        """The SHA-256 of its JSON."""
        return sha256_bytes(self.to_json().encode())

    @classmethod
    def parse(cls, text: str | bytes) -> Certificate:
        """Parse a certificate. Raises VerificationFailed if it is incomplete or invalid."""
        try:
            certificate = cls.model_validate_json(text)
        except ValidationError as error:
            raise VerificationFailed(
                "The certificate is not readable, so nothing is proven."
            ) from error
        require_passed(
            certificate.gates,
            of_set=bool(certificate.files),
            beside=bool(certificate.sidecars),
        )
        return certificate

    @classmethod
    def read(cls, stream: BinaryIO) -> Certificate:
        """Read a certificate from an open stream, at most MAX_BYTES of it; see `parse`.

        Raises VerificationFailed if the stream is longer or holds no valid certificate.
        """
        content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise VerificationFailed("The certificate is too large to be one of hevcq's.")
        return cls.parse(content)


MEANINGS = {
    Gate.G0: "The source changed while it was encoded",
    Gate.G1: "ffmpeg reported an error while it encoded",
    Gate.G2: "The new video does not have the planned format",
    Gate.G3: "The tracks, tags or chapters of the new file are not as planned",
    Gate.G4: "The new file cannot be decoded without errors",
    Gate.G5: "Picture or sound of the new file is not complete, or not in time with the source",
    Gate.G6: "The new file is not smaller",
    Gate.G8: "The new picture or sound is not like the source's",
    Gate.H1: "The playlists do not point at whole segments",
    Gate.H2: "A segment cannot be played by itself",
    Gate.H3: "The sizes are not cut at the same times",
    Gate.H4: "A playlist declares another codec, size or bit rate than the video has",
    Gate.H5: "A playlist cannot be read from start to end",
    Gate.T1: "The subtitles for a file beside the video are not the source's",
}
"""What a failed gate means, for people."""
ORIGINAL_KEPT = (
    "The new file was discarded and the original is unchanged. Try it once more; if it fails again,"
    " keep the original."
)


def require_passed(
    results: Iterable[GateResult], *, of_set: bool = False, beside: bool = False
) -> None:
    """Raise VerificationFailed unless every required gate passed; a missing gate counts as failed.

    A set (`of_set`) also requires the gates of sets, and a rendition with subtitles beside it (`beside`)
    requires T1. If a gate has several results, as of several rungs, every one must pass.
    """
    every = tuple(results)
    required = REQUIRED_OF_SETS if of_set else REQUIRED
    for gate in (*required, Gate.T1) if beside else required:
        mine = [result for result in every if result.gate is gate]
        if not mine:
            raise VerificationFailed(f"The check {gate.value} did not run.")
        for result in mine:
            off = result.outcome is Outcome.OFF and gate not in NEVER_OFF
            if not off and result.outcome is not Outcome.PASSED:
                raise VerificationFailed(failure_sentence(result))


def failure_sentence(result: GateResult) -> str:
    """Return one sentence about a gate that did not pass: its meaning, its name, the file and the detail."""
    what = MEANINGS.get(result.gate, result.gate.value)
    where = f"{result.gate.name}, {result.file}" if result.file else result.gate.name
    return f"{what} ({where}): {result.detail or result.outcome.value}."


def why_keep_original(results: Iterable[GateResult]) -> str | None:
    """Return the reason to keep the original if the rendition is not smaller (G6), else None.

    None means only that no gate objects; `require_passed` checks that all gates ran. Raises
    VerificationFailed if a gate failed or was UNKNOWN, which takes precedence over every other result.
    """
    every = tuple(results)
    for result in every:
        if result.has_failed:
            raise VerificationFailed(failure_sentence(result), remedy=ORIGINAL_KEPT)
    for result in every:
        if result.outcome is Outcome.NOT_SMALLER:
            return result.detail or "The rendition is not smaller by the profile's minimum."
    return None
