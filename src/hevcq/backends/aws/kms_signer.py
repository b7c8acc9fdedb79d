"""Sign certificates with an asymmetric KMS key (ECC_NIST_P256): no worker ever holds the private key.

Needs kms:Sign and kms:GetPublicKey in a worker, kms:GetPublicKey where renditions are collected
(https://docs.aws.amazon.com/kms/latest/developerguide/symmetric-asymmetric.html).
"""

from __future__ import annotations

import hashlib
import threading
from typing import Any

from hevcq.backends.aws.errors import translate_errors
from hevcq.errors import ConfigError
from hevcq.ports import signer
from hevcq.ports.signer import Signer

ALGORITHM = "ECDSA_SHA_256"
MISSING = {
    "NotFoundException": (ConfigError, "there is no such key"),
    "DisabledException": (ConfigError, "the key is disabled"),
    "KMSInvalidStateException": (ConfigError, "the key is disabled or being deleted"),
    "InvalidKeyUsageException": (ConfigError, "the key is not one for signing"),
    "UnsupportedOperationException": (ConfigError, "the key is not asymmetric"),
    "ValidationException": (ConfigError, "the key is not an ECC_NIST_P256 key for signing"),
}


class KmsSigner(Signer):
    """Sign with the KMS key `key_id` (id, ARN or alias); `kms` is a boto3 client."""

    def __init__(self, kms: Any, key_id: str) -> None:
        self._kms, self._key_id = kms, key_id
        self._lock = threading.Lock()
        self._public = ""

    def public_key(self) -> str:
        """Ask KMS once; the key of an id does not change."""
        with self._lock:
            if not self._public:
                self._public = self._ask()
            return self._public

    def prepare(self) -> None:
        """Ask for the public key, and make one signature: the role may lack kms:Sign."""
        self.public_key()
        self.sign(b"hevcq")

    def sign(self, content: bytes) -> str:
        """Send the SHA-256 of the content only: KMS takes at most 4096 bytes."""
        with translate_errors(f"sign with the KMS key {self._key_id}", MISSING):
            answer = self._kms.sign(
                KeyId=self._key_id,
                Message=hashlib.sha256(content).digest(),
                MessageType="DIGEST",
                SigningAlgorithm=ALGORITHM,
            )
        return signer.encoded(answer["Signature"])

    def _ask(self) -> str:
        with translate_errors(f"read the public key of the KMS key {self._key_id}", MISSING):
            answer = self._kms.get_public_key(KeyId=self._key_id)
        if ALGORITHM not in answer.get("SigningAlgorithms", ()):
            raise ConfigError(
                f"The KMS key {self._key_id} cannot make {ALGORITHM} signatures.",
                remedy="Use a key with key usage SIGN_VERIFY and key spec ECC_NIST_P256.",
            )
        return signer.public_text(signer.ECDSA_P256, answer["PublicKey"])
