"""The signer port, and the keyring: who signs certificates here, and whose signatures count."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass

from hevcq.domain.certificate import Certificate, Signature, Standing


class Signer(ABC):
    """Sign content with one private key. Thread-safe."""

    @abstractmethod
    def public_key(self) -> str:
        """Return the public key (see `util.signatures`), or "" while there is no key yet.

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
        """Return how far the certificate's word counts here; see `Certificate.standing`."""
        own = (
            "" if self.signer is None or certificate.signature is None else self.signer.public_key()
        )
        return certificate.standing({*self.listed, own} - {""})

    def vouches_for(self, certificate: Certificate) -> bool:
        """Return whether a certificate in this farm's own store counts there without its key.

        True if it is TRUSTED, or UNKNOWN where nobody signs. It does not suffice to replace an
        original.
        """
        standing = self.standing(certificate)
        return standing is Standing.TRUSTED or (
            standing is Standing.UNKNOWN and self.signer is None
        )
