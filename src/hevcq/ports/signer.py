"""Sign certificates: the signer port, the keyring (who signs here, whose signatures count), ed25519.

A public key is text: `ed25519:` and its 32 raw bytes, or `ecdsa-p256:` and its DER form
(SubjectPublicKeyInfo, as of AWS KMS), both in base64. A signature is base64: the 64 raw bytes of ed25519
(https://www.rfc-editor.org/rfc/rfc8032), or the DER form of ECDSA over SHA-256. The library is loaded
at first use, because most commands sign and verify nothing.
"""

from __future__ import annotations

import base64
import binascii
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hevcq.domain.certificate import Certificate, Signature, Standing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ED25519, ECDSA_P256 = "ed25519", "ecdsa-p256"


class Signer(ABC):
    """Sign content with one private key. Thread-safe."""

    @abstractmethod
    def public_key(self) -> str:
        """Return the public key as text (see above), or "" while there is no key yet.

        Raises ConfigError if there is a key that cannot be used, Unavailable if nobody answers.
        """

    @abstractmethod
    def prepare(self) -> None:
        """Make the key if there is none; raises as `public_key`, before work is spent."""

    @abstractmethod
    def sign(self, content: bytes) -> str:
        """Return the signature of `content`, making the key if there is none; raises as `prepare`."""


@dataclass(frozen=True, slots=True)
class Keyring:
    """The signer of this farm (None: certificates are not signed), and other trusted public keys.

    The signer's own key is always trusted.
    """

    signer: Signer | None = None
    listed: Collection[str] = ()

    def prepare(self) -> None:
        """Make sure that certificates can be signed; raises as `Signer.prepare`."""
        if self.signer is not None:
            self.signer.prepare()

    def signed(self, certificate: Certificate) -> Certificate:
        """Return the certificate with a signature, or as it is where nobody signs."""
        if self.signer is None:
            return certificate
        value = self.signer.sign(certificate.signed_content())
        signature = Signature(key=self.signer.public_key(), value=value)
        return certificate.model_copy(update={"signature": signature})

    def standing(self, certificate: Certificate) -> Standing:
        """Return how far the certificate's word counts here; see `standing`."""
        own = (
            "" if self.signer is None or certificate.signature is None else self.signer.public_key()
        )
        return standing(certificate, {*self.listed, own} - {""})

    def vouches_for(self, certificate: Certificate) -> bool:
        """Return whether a certificate in this farm's own store counts there without its key.

        True if it is TRUSTED, or UNKNOWN where nobody signs. It does not suffice to replace an
        original.
        """
        found = self.standing(certificate)
        return found is Standing.TRUSTED or (found is Standing.UNKNOWN and self.signer is None)


def standing(certificate: Certificate, trusted: Collection[str]) -> Standing:
    """Return TRUSTED if one of the public keys `trusted` signed exactly this certificate.

    FORGED if it names such a key and the signature does not fit; UNKNOWN if it is unsigned, as
    those of earlier releases are, or signed by another key.
    """
    signature = certificate.signature
    if signature is None or signature.key not in trusted:
        return Standing.UNKNOWN
    fits = verify(signature.key, certificate.signed_content(), signature.value)
    return Standing.TRUSTED if fits else Standing.FORGED


def make_private_key() -> bytes:
    """Return a new ed25519 private key in PEM (PKCS 8), not encrypted."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def public_key(private_pem: bytes) -> str:
    """Return the public key of an ed25519 private key in PEM; raise ValueError if it is none."""
    return public_text(ED25519, _private(private_pem).public_key().public_bytes_raw())


def sign(private_pem: bytes, content: bytes) -> str:
    """Return the signature of `content`; raise ValueError if the private key is not ed25519 in PEM."""
    return encoded(_private(private_pem).sign(content))


def verify(key: str, content: bytes, value: str) -> bool:
    """Return whether `value` is the signature of `content` by the private key of `key`.

    A key or signature that cannot be read, or of an unknown algorithm, verifies nothing.
    """
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    algorithm, _, text = key.partition(":")
    try:
        raw, signature = _decoded(text), _decoded(value)
        if algorithm == ED25519:
            _verify_ed25519(raw, signature, content)
        elif algorithm == ECDSA_P256:
            _verify_ecdsa(raw, signature, content)
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True


def problem(key: str) -> str:
    """Return what is wrong with the text of a public key, or ""; loads no library."""
    algorithm, _, text = key.partition(":")
    if algorithm not in {ED25519, ECDSA_P256}:
        return f"must start with {ED25519}: or {ECDSA_P256}:"
    try:
        size = len(_decoded(text))
    except ValueError:
        return "is not base64 after its colon"
    return "" if size == 32 or (algorithm == ECDSA_P256 and size > 32) else "has the wrong length"


def public_text(algorithm: str, raw: bytes) -> str:
    """Return the text of a public key."""
    return f"{algorithm}:{encoded(raw)}"


def encoded(raw: bytes) -> str:
    """Return bytes in base64."""
    return base64.b64encode(raw).decode("ascii")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise ValueError("not base64") from error


def _private(pem: bytes) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (TypeError, UnsupportedAlgorithm) as error:  # TypeError: it is encrypted
        raise ValueError("not a private key without a password") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("not an ed25519 key")  # noqa: TRY004 - the file is wrong, not the caller
    return key


def _verify_ed25519(raw: bytes, signature: bytes, content: bytes) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    Ed25519PublicKey.from_public_bytes(raw).verify(signature, content)


def _verify_ecdsa(der: bytes, signature: bytes, content: bytes) -> None:
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = serialization.load_der_public_key(der)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("not a key of the curve P-256")  # noqa: TRY004 - as above
    key.verify(signature, content, ec.ECDSA(hashes.SHA256()))
