"""Certificates signed by a KMS key: the private key stays there, and anyone can verify."""

import pytest
from botocore.exceptions import ClientError

from hevcq.backends.aws.clients import make_kms_client
from hevcq.backends.aws.kms_signer import KmsSigner
from hevcq.domain.certificate import Certificate, Standing
from hevcq.errors import ConfigError, Unavailable
from hevcq.ports import signer as signatures
from hevcq.ports.signer import Keyring
from hevcq.settings.model import AwsSettings, Settings
from hevcq.wiring.app import open_app
from support.aws.emulator import KEYS, REGION
from support.aws.moto_server import endpoint
from support.library import certificate

pytestmark = pytest.mark.aws


@pytest.fixture
def kms(monkeypatch: pytest.MonkeyPatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    return make_kms_client(AwsSettings(region=REGION, endpoint_url=endpoint()))


def make_key(kms, **how: str) -> str:
    wanted = {"KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY"} | how
    return kms.create_key(**wanted)["KeyMetadata"]["KeyId"]


def test_what_kms_signs_is_trusted_here_and_wherever_its_public_key_is_listed(kms, tmp_path):
    signer = KmsSigner(kms, make_key(kms))
    (tmp_path / "a.mp4").write_bytes(b"original")
    plain = certificate(tmp_path / "a.mp4", b"original", b"small")
    long = plain.model_copy(update={"notices": ("a notice",) * 1000})  # more than KMS takes

    Keyring(signer).prepare()
    signed = Keyring(signer).signed(long)

    again = Certificate.parse(signed.to_json())
    assert Keyring(signer).standing(again) is Standing.TRUSTED
    assert Keyring(None, [signer.public_key()]).standing(again) is Standing.TRUSTED
    assert Keyring().standing(again) is Standing.UNKNOWN
    edited = again.model_copy(update={"rendition_sha256": "0" * 64})
    assert Keyring(signer).standing(edited) is Standing.FORGED
    assert signatures.problem(signer.public_key()) == ""


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"KeySpec": "SYMMETRIC_DEFAULT", "KeyUsage": "ENCRYPT_DECRYPT"}, "not asymmetric|cannot"),
        ({"KeySpec": "RSA_2048"}, "cannot make ECDSA_SHA_256 signatures.*ECC_NIST_P256"),
    ],
)
def test_a_key_that_cannot_sign_is_a_setting_to_correct(kms, how, said):
    with pytest.raises((ConfigError, Unavailable), match=said):
        KmsSigner(kms, make_key(kms, **how)).prepare()


def test_a_key_that_is_not_there_is_a_setting_to_correct(kms):
    with pytest.raises(ConfigError, match="KMS key alias/none: there is no such key"):
        KmsSigner(kms, "alias/none").prepare()


def test_a_role_that_may_not_sign_is_seen_before_any_work(kms):
    class Denied:
        get_public_key = kms.get_public_key

        def sign(self, **_asked: object) -> None:
            raise ClientError({"Error": {"Code": "AccessDeniedException"}}, "Sign")

    with pytest.raises(Unavailable, match=r"could not sign .* access is denied"):
        KmsSigner(Denied(), make_key(kms)).prepare()


@pytest.mark.parametrize("signs", [True, False])
def test_the_settings_say_who_signs_and_whom_to_trust(kms, tmp_path, signs: bool):
    key = make_key(kms) if signs else ""
    other = signatures.public_key(signatures.make_private_key())
    aws = AwsSettings(region=REGION, endpoint_url=endpoint(), signing_key=key)
    settings = Settings(backend="aws", data_dir=tmp_path / "data", aws=aws, trusted_keys=(other,))
    (tmp_path / "a.mp4").write_bytes(b"original")

    ring = open_app(settings).keyring
    made = ring.signed(certificate(tmp_path / "a.mp4", b"original", b"small"))

    assert ring.standing(made) is (Standing.TRUSTED if signs else Standing.UNKNOWN)
    assert ring.vouches_for(made)
    assert other in ring.listed
    assert not (tmp_path / "data").exists(), "no key of this machine beside the farm's"
