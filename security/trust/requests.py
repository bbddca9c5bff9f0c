"""Certificate requests (PKCS#10) as they come from strangers: read, bounded, and proved to be theirs.

Only the key counts. Names and wishes in a request are not even looked at: the name is that of the claim, and
the profile is ours. The same holds for what goes back: certificates alone, as PKCS#7.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs7

REQUEST_BYTES_MAX: Final = 8_192
RSA_BITS_MIN: Final = 2_048
RSA_BITS_MAX: Final = 4_096
RSA_EXPONENT: Final = 65_537
"""Others are refused: small ones are weak, large ones make us compute."""

_CURVES: Final = (ec.SECP256R1, ec.SECP384R1)
_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_PEM: Final = b"-----BEGIN "
_DER: Final = b"\x30"

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
"""Keys that a certificate of ours may name."""


class Flaw(StrEnum):
    """What is wrong with a request."""

    TOO_LARGE = "too_large"
    UNREADABLE = "unreadable"
    KEY_KIND = "key_kind"
    ALGORITHM = "algorithm"
    NOT_THE_OWNER = "not_the_owner"


_SAID: Final = {
    Flaw.TOO_LARGE: f"a certificate request has at most {REQUEST_BYTES_MAX} bytes",
    Flaw.UNREADABLE: "this is no PKCS#10 certificate request (DER, base64 of it, or PEM)",
    Flaw.KEY_KIND: "the key is none of: EC P-256, EC P-384, RSA of 2048 to 4096 bits with exponent 65537",
    Flaw.ALGORITHM: "the request is signed with something else than SHA-256, SHA-384 or SHA-512",
    Flaw.NOT_THE_OWNER: "the request is not signed with the key that it brings",
}


class InvalidRequestError(Exception):
    """The request gets no certificate; the message may be said to whoever sent it."""

    def __init__(self, reason: Flaw) -> None:
        super().__init__(_SAID[reason])
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Request:
    """A key whose owner asked for a certificate. ``spki_sha256`` is the same for all spellings of one key."""

    public_key: PublicKey
    spki_sha256: str


def parse_request(data: bytes) -> Request:
    """Return the key of a request whose sender has proved to hold it.

    Raises :class:`InvalidRequestError` for every other request.
    """
    if len(data) > REQUEST_BYTES_MAX:
        raise InvalidRequestError(Flaw.TOO_LARGE)
    request = _read(data)
    # The kind comes first: it bounds what the signature may cost.
    key = _key(request)
    _check_signature(request)
    return Request(key, spki_sha256(key))


def spki_sha256(key: PublicKey) -> str:
    """Return the SHA-256 of a public key, in hexadecimal digits."""
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(encoding, form)).hexdigest()


def certs_only(chain: Sequence[bytes]) -> bytes:
    """Return PEM certificates as PKCS#7 "certs-only" (DER), the form in which EST hands them out."""
    certificates = [one for pem in chain for one in x509.load_pem_x509_certificates(pem)]
    return pkcs7.serialize_certificates(certificates, serialization.Encoding.DER)


def _read(data: bytes) -> x509.CertificateSigningRequest:
    try:
        if data.startswith(_PEM):
            return x509.load_pem_x509_csr(data)
        if not data.startswith(_DER):
            data = base64.b64decode(b"".join(data.split()), validate=True)
        return x509.load_der_x509_csr(data)
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm) as error:
        raise InvalidRequestError(Flaw.UNREADABLE) from error


def _key(request: x509.CertificateSigningRequest) -> PublicKey:
    try:
        key = request.public_key()
    except UnsupportedAlgorithm as error:
        raise InvalidRequestError(Flaw.KEY_KIND) from error
    except (ValueError, TypeError) as error:
        raise InvalidRequestError(Flaw.UNREADABLE) from error
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return key
    if isinstance(key, rsa.RSAPublicKey) and _is_usual(key):
        return key
    raise InvalidRequestError(Flaw.KEY_KIND)


def _is_usual(key: rsa.RSAPublicKey) -> bool:
    return RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX and key.public_numbers().e == RSA_EXPONENT


def _check_signature(request: x509.CertificateSigningRequest) -> None:
    try:
        algorithm = request.signature_hash_algorithm
        proved = isinstance(algorithm, _HASHES) and request.is_signature_valid
    except (UnsupportedAlgorithm, ValueError, TypeError) as error:
        raise InvalidRequestError(Flaw.ALGORITHM) from error
    if not isinstance(algorithm, _HASHES):
        raise InvalidRequestError(Flaw.ALGORITHM)
    if not proved:
        raise InvalidRequestError(Flaw.NOT_THE_OWNER)
