"""Model a rendition's certificate: the proof, stored beside it, that it passed every gate."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from enum import StrEnum
from typing import BinaryIO, Literal

from pydantic import ConfigDict, Field, ValidationError, field_validator

from hevcq.domain.job import Source
from hevcq.domain.model import Frozen
from hevcq.errors import NeedsReview, VerificationFailed
from hevcq.util import signatures
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
    REVIEW = "review"
    OFF = "off"


class Gate(StrEnum):
    """The gates of docs/architecture.md; G9 to G11 belong to placing and swapping."""

    G0 = "G0 source unchanged"
    G1 = "G1 clean encode"
    G2 = "G2 fresh probe as promised"
    G3 = "G3 stream ledger"
    G4 = "G4 full decode"
    G5 = "G5 measured times"
    G6 = "G6 smaller"
    G7 = "G7 sanity"
    G8 = "G8 picture"
    G9 = "G9 placed bytes"
    G10 = "G10 swap"
    G11 = "G11 original retained"


REQUIRED = (Gate.G0, Gate.G1, Gate.G2, Gate.G3, Gate.G4, Gate.G5, Gate.G6, Gate.G7, Gate.G8)
"""Gates that a certificate must contain before a rendition is published."""
NEVER_OFF = frozenset({Gate.G0, Gate.G1, Gate.G2, Gate.G3, Gate.G4, Gate.G5})


class GateResult(Frozen):
    """The result of one gate."""

    gate: Gate
    outcome: Outcome
    detail: str = ""
    seconds: float = 0.0
    digest: str = Field(
        default="",
        description="G8: SHA-256 of the thumbnails of all frames of the main video, as decoded",
    )


class Signature(Frozen):
    """The signature of a certificate; see `util.signatures` for both formats."""

    key: str = Field(description="public key, `<algorithm>:<base64>`")
    value: str = Field(description="base64")


class Standing(StrEnum):
    """How far a certificate's word counts. Only TRUSTED counts without looking at the files."""

    TRUSTED = "trusted"
    UNKNOWN = "unknown"
    FORGED = "forged"


class Certificate(Frozen):
    """The certificate stored beside a rendition. Times are seconds since the Unix epoch.

    Fields of a later release are kept, so that writing the certificate again keeps its signature.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    hevcq_certificate: Literal[1] = 1
    job_id: str
    fence: int
    source: Source
    source_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    rendition_key: str
    rendition_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    rendition_size: int = Field(ge=1, description="bytes")
    profile: str
    revision: str
    ffmpeg: str = Field(description="first line of `ffmpeg -version`")
    arguments: tuple[str, ...]
    gates: tuple[GateResult, ...]
    notices: tuple[str, ...] = ()
    losses: tuple[str, ...] = Field(
        default=(), description="metadata whose loss forbids that the rendition replaces its source"
    )
    hevcq_version: str
    made_at: float
    encode_s: float = 0.0
    verify_s: float = 0.0
    cpu_s: float = Field(default=0.0, description="CPU seconds of the encode")
    signature: Signature | None = None

    @field_validator("arguments", "notices", "losses", mode="after")
    @classmethod
    def _printable(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        """Escape bytes of file names that are not UTF-8 as `\\xNN`, because JSON cannot hold them."""
        return tuple(encodable(word) for word in words)

    def to_json(self) -> str:
        """Return the certificate as indented JSON."""
        return self.model_dump_json(indent=2)

    def signed_content(self) -> bytes:
        """Return the bytes that a signature covers: everything but the signature itself.

        Fields with their default value are left out, so that a field added by a later release does
        not break the signatures of before.
        """
        content = self.model_dump(mode="json", exclude={"signature"}, exclude_defaults=True)
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return b"hevcq certificate 1\n" + text.encode()

    def standing(self, trusted: Collection[str]) -> Standing:
        """Return TRUSTED if one of the public keys `trusted` signed exactly this certificate.

        FORGED if it names such a key and the signature does not fit; UNKNOWN if it is unsigned, as
        those of earlier releases are, or signed by another key.
        """
        if self.signature is None or self.signature.key not in trusted:
            return Standing.UNKNOWN
        fits = signatures.verify(self.signature.key, self.signed_content(), self.signature.value)
        return Standing.TRUSTED if fits else Standing.FORGED

    @classmethod
    def parse(cls, text: str | bytes) -> Certificate:
        """Parse a certificate. Raises VerificationFailed if it is incomplete or invalid."""
        try:
            certificate = cls.model_validate_json(text)
        except ValidationError as error:
            raise VerificationFailed(
                "The certificate is not readable, so nothing is proven."
            ) from error
        require_passed(certificate.gates)
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


def require_passed(results: Iterable[GateResult]) -> None:
    """Require that every required gate passed; a missing gate counts as failed.

    If a gate has several results, all of them count: a pass does not undo a failure. Raises
    VerificationFailed if any required gate did not pass.
    """
    found = tuple(results)
    for gate in REQUIRED:
        mine = [result for result in found if result.gate is gate]
        if not mine:
            raise VerificationFailed(f"{gate.value}: the gate did not run.")
        for result in mine:
            off = result.outcome is Outcome.OFF and gate not in NEVER_OFF
            if not off and result.outcome is not Outcome.PASSED:
                raise VerificationFailed(f"{gate.value}: {result.detail or result.outcome.value}.")


def kept_original(results: Iterable[GateResult]) -> str | None:
    """Return the reason to keep the original if the rendition is not smaller (G6), else None.

    None means only that no gate objects; `require_passed` checks that all gates ran. Raises
    VerificationFailed if a gate failed or was UNKNOWN, which takes precedence over every other
    result, and NeedsReview if a gate asks for a person's review.
    """
    found = tuple(results)
    for result in found:
        if result.outcome in {Outcome.FAILED, Outcome.UNKNOWN}:
            raise VerificationFailed(f"{result.gate.value}: {result.detail or result.outcome}.")
    for result in found:
        if result.outcome is Outcome.NOT_SMALLER:
            return result.detail or "The rendition is not smaller by the profile's minimum."
    for result in found:
        if result.outcome is Outcome.REVIEW:
            raise NeedsReview(
                f"{result.gate.value}: {result.detail or 'too good to be true'}.",
                remedy="Look at the source and the profile, then reprocess or keep the original.",
            )
    return None
