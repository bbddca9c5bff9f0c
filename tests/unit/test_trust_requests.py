"""Certificate requests from strangers: which are taken, and why the others are not."""

import base64
import subprocess
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from security.trust import keys
from security.trust.requests import (
    REQUEST_BYTES_MAX,
    Flaw,
    InvalidRequestError,
    parse_request,
    spki_sha256,
)

DER, PEM = serialization.Encoding.DER, serialization.Encoding.PEM
KEY = keys.make_key()
REQUEST = keys.request(KEY, "lamp")


@cache
def rsa_key(bits: int = 2_048, exponent: int = 65_537) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(exponent, bits)


def csr(key, algorithm=hashes.SHA256(), encoding=DER, common_name="lamp", **options):  # noqa: B008
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, algorithm, **options)
    return request.public_bytes(encoding)


def refused(data: bytes) -> Flaw:
    with pytest.raises(InvalidRequestError) as caught:
        parse_request(data)
    return caught.value.reason


@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP256R1()),
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: rsa_key(2_048),
        lambda: rsa_key(4_096),
    ],
    ids=["p256", "p384", "rsa2048", "rsa4096"],
)
def test_the_kinds_of_the_specification_are_taken(make):
    key = make()
    request = parse_request(csr(key))
    assert request.public_key == key.public_key()
    assert request.spki_sha256 == spki_sha256(key.public_key())


@pytest.mark.parametrize(
    "spell",
    [
        bytes,
        base64.b64encode,
        base64.encodebytes,
        lambda der: (
            b"-----BEGIN CERTIFICATE REQUEST-----\n"
            + base64.encodebytes(der)
            + b"-----END CERTIFICATE REQUEST-----\n"
        ),
    ],
    ids=["der", "base64", "base64 in lines", "pem"],
)
def test_every_usual_spelling_is_read(spell):
    assert parse_request(spell(REQUEST)).public_key == KEY.public_key()


def test_requests_with_rsa_pss_and_longer_hashes_are_taken():
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    assert parse_request(csr(rsa_key(), rsa_padding=pss)).public_key == rsa_key().public_key()
    assert parse_request(csr(KEY, hashes.SHA512())).public_key == KEY.public_key()


@pytest.mark.parametrize(
    "make",
    [
        lambda: csr(ec.generate_private_key(ec.SECP521R1())),
        lambda: csr(ec.generate_private_key(ec.SECP256K1())),
        lambda: csr(ec.generate_private_key(ec.SECP224R1())),
        lambda: csr(rsa_key(1_024)),
        lambda: csr(rsa_key(2_048, 3)),
        lambda: csr(ed25519.Ed25519PrivateKey.generate(), None),
        lambda: csr(dsa.generate_private_key(2_048)),
    ],
    ids=["p521", "k256", "p224", "rsa1024", "exponent 3", "ed25519", "dsa"],
)
def test_other_kinds_are_not(make):
    assert refused(make()) is Flaw.KEY_KIND


def test_an_rsa_key_of_more_than_4096_bits_is_not_even_verified(tmp_path):
    command = ["openssl", "req", "-new", "-newkey", "rsa:4104", "-nodes", "-subj", "/CN=x", "-outform", "DER"]
    command += ["-keyout", str(tmp_path / "key")]
    made = subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert refused(made.stdout) is Flaw.KEY_KIND


@pytest.mark.parametrize("digest", ["sha1", "md5"])
def test_weak_hashes_are_refused(tmp_path, digest):
    command = ["openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-outform", "DER"]
    command += ["-keyout", str(tmp_path / "key"), f"-{digest}"]
    made = subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert refused(made.stdout) is Flaw.ALGORITHM


def test_a_request_signed_with_another_key_is_refused():
    # The victim's key in place of the sender's: both are points of one curve, so the lengths stay.
    point = (serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    mine, victims = KEY.public_key().public_bytes(*point), keys.make_key().public_key().public_bytes(*point)
    assert refused(REQUEST.replace(mine, victims)) is Flaw.NOT_THE_OWNER


def test_a_request_changed_after_it_was_signed_is_refused():
    assert refused(REQUEST.replace(b"lamp", b"hall")) is Flaw.NOT_THE_OWNER


def test_a_point_off_the_curve_is_refused():
    point = (serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    mine = KEY.public_key().public_bytes(*point)
    with pytest.raises(InvalidRequestError):
        parse_request(REQUEST.replace(mine, mine[:-1] + bytes([mine[-1] ^ 1])))


def test_size_is_bounded_before_anything_is_read():
    assert refused(b"A" * REQUEST_BYTES_MAX) is Flaw.UNREADABLE
    assert refused(b"A" * (REQUEST_BYTES_MAX + 1)) is Flaw.TOO_LARGE


@pytest.mark.parametrize(
    "data",
    [b"", b"\x30", b"-----BEGIN CERTIFICATE REQUEST-----", REQUEST[:-1], REQUEST + b"\0", b"\xff\xfe", b"=="],
    ids=range(7),
)
def test_what_is_no_request_is_refused(data):
    assert refused(data) is Flaw.UNREADABLE


@given(
    st.binary(max_size=300) | st.integers(0, len(REQUEST) - 1).map(lambda n: REQUEST[:n] + REQUEST[n + 1 :])
)
def test_nothing_else_than_a_refusal_comes_of_nonsense(data):
    with pytest.raises(InvalidRequestError):
        parse_request(data)


UNUSED_BITS = len(REQUEST) - len(x509.load_der_x509_csr(REQUEST).signature) - 1
"""Where the signature says how many of its bits do not count: none do, if the last one is 0."""


@given(st.integers(0, 8 * len(REQUEST) - 1).filter(lambda bit: bit // 8 != UNUSED_BITS))
def test_no_request_survives_a_changed_bit(bit):
    changed = bytearray(REQUEST)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(InvalidRequestError):
        parse_request(bytes(changed))


def test_one_key_has_one_fingerprint_however_it_is_spelled():
    compressed = KEY.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
    )
    again = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), compressed)
    assert spki_sha256(again) == parse_request(REQUEST).spki_sha256


def test_openssl_takes_our_requests():
    command = ["openssl", "req", "-inform", "DER", "-verify", "-noout", "-subject"]
    said = subprocess.run(command, input=REQUEST, capture_output=True, timeout=20, check=True)
    assert b"CN = lamp" in said.stdout


# The device's key


def test_keys_come_back_from_their_file():
    assert keys.parse_key(keys.key_pem(KEY)).public_key() == KEY.public_key()


@pytest.mark.parametrize("pem", [b"", b"nonsense"])
def test_what_is_no_key_is_refused(pem):
    with pytest.raises(keys.ForeignKeyError):
        keys.parse_key(pem)


def test_an_rsa_key_is_not_one_of_ours():
    form = (PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with pytest.raises(keys.ForeignKeyError, match="elliptic"):
        keys.parse_key(rsa_key().private_bytes(*form))
