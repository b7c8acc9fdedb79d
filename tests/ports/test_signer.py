"""A signature fits one key and one content, and nothing malformed verifies anything."""

import base64

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hevcq.ports import signer as signatures

PRIVATE = signatures.make_private_key()
KEY = signatures.public_key(PRIVATE)
SIGNED = signatures.sign(PRIVATE, b"content")


def p256(curve: ec.EllipticCurve) -> tuple[str, str]:
    """Return the public key and the signature of b"content", as KMS gives them."""
    private = ec.generate_private_key(curve)
    der = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    value = private.sign(b"content", ec.ECDSA(hashes.SHA256()))
    return (
        signatures.public_text(signatures.ECDSA_P256, der),
        signatures.encoded(value),
    )


def test_a_signature_fits_its_key_and_its_content_only():
    other = signatures.public_key(signatures.make_private_key())

    assert signatures.verify(KEY, b"content", SIGNED)
    assert not signatures.verify(KEY, b"Content", SIGNED)
    assert not signatures.verify(other, b"content", SIGNED)
    assert signatures.problem(KEY) == ""


def test_the_key_of_a_key_service_verifies_too():
    key, value = p256(ec.SECP256R1())

    assert signatures.verify(key, b"content", value)
    assert not signatures.verify(key, b"Content", value)
    assert signatures.problem(key) == ""


def test_a_key_of_another_curve_verifies_nothing():
    key, value = p256(ec.SECP384R1())

    assert not signatures.verify(key, b"content", value)


@pytest.mark.parametrize("key", ["", "ed25519", "ed25519:", "ed25519:!", "rsa:AAAA", "ed25519:ü"])
def test_a_malformed_key_verifies_nothing_and_is_said_to_be_wrong(key: str):
    assert not signatures.verify(key, b"content", SIGNED)
    assert signatures.problem(key)


@pytest.mark.parametrize(
    "key",
    [f"ecdsa-p256:{base64.b64encode(b'x' * 91).decode()}", f"ecdsa-p256:{KEY[8:]}"],
    ids=["no key", "a key of another kind"],
)
def test_a_key_that_is_no_point_of_a_curve_verifies_nothing(key: str):
    assert not signatures.verify(key, b"content", SIGNED)


@pytest.mark.parametrize(
    "value", ["", "AAAA", "not base64", SIGNED[:-4]], ids=["none", "short", "not base64", "cut"]
)
def test_a_malformed_signature_fits_nothing(value: str):
    assert not signatures.verify(KEY, b"content", value)


@pytest.mark.parametrize("encrypted", [False, True])
def test_only_a_plain_ed25519_private_key_signs(encrypted: bool):
    how = (
        serialization.BestAvailableEncryption(b"secret")
        if encrypted
        else serialization.NoEncryption()
    )
    foreign = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how
    )
    for pem in (foreign, b"", b"garbage"):
        with pytest.raises(ValueError, match=r"\w"):
            signatures.sign(pem, b"content")
