"""The device's side: its key, and the request with which it asks for a certificate.

For ``gnomon enrol``, which runs where the device is, and for fleets of our own (demo, tests, benchmarks).
The service makes no key for anybody.
"""

from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

CURVE: Final = ec.SECP256R1()


class ForeignKeyError(Exception):
    """These bytes are not a private key of a kind we make."""


def make_key() -> ec.EllipticCurvePrivateKey:
    """Return a new key (P-256), from the operating system's generator."""
    return ec.generate_private_key(CURVE)


def request(key: ec.EllipticCurvePrivateKey, name: str) -> bytes:
    """Return a certificate request (PKCS#10, DER). The name is a courtesy: the claim decides."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return csr.public_bytes(serialization.Encoding.DER)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the key as it is kept in a file: PKCS#8, PEM, not encrypted."""
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())


def parse_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Read a kept key back, or raise :class:`ForeignKeyError`."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise ForeignKeyError("there is no private key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ForeignKeyError("the private key is not one of an elliptic curve")
    return key
