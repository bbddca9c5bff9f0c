"""Authorities as files: the encrypted key and the certificate in one text, so that one step makes both.

Two kinds of passphrase: a random one, which nobody can guess and which is cheap to check, and a person's,
which is made dear to try (scrypt). Both are plain PKCS#8, so ``openssl`` opens them without us.
"""

import base64
import secrets
import textwrap
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import padding, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from security.secret import Secret
from security.trust import certificates
from security.trust.certificates import Credentials, ForeignPairError, Pair

PASSPHRASE_CHARS_MIN: Final = 12
"""Of a person's passphrase."""
PASSPHRASE_CHARS_MAX: Final = 1_000
SCRYPT_COST: Final = 16_384
SCRYPT_BLOCK: Final = 8
SCRYPT_LANES: Final = 16
"""Time is bought with lanes: ``openssl`` refuses to open what takes more than 32 MB."""
_SALT_BYTES: Final = 16
_KEY_BYTES: Final = 32
_BLOCK_BYTES: Final = 16

# DER, as far as it takes: tags, and object identifiers with tag and length.
_INTEGER, _OCTETS, _SEQUENCE = 0x02, 0x04, 0x30
_PBES2: Final = bytes.fromhex("06092a864886f70d01050d")
_SCRYPT: Final = bytes.fromhex("06092b06010401da47040b")
_AES_256_CBC: Final = bytes.fromhex("060960864801650304012a")


class WrongPassphraseError(ForeignPairError):
    """The passphrase does not open the key."""


def seal(pair: Pair, passphrase: Secret) -> bytes:
    """Return an authority under a random passphrase."""
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    encryption = serialization.BestAvailableEncryption(passphrase.reveal().encode())
    return pair.key.private_bytes(encoding, form, encryption) + certificates.pem(pair.certificate)


def seal_for_a_person(pair: Pair, passphrase: Secret) -> bytes:
    """Return an authority under a passphrase that a person can remember or write down."""
    return seal_key_for_a_person(pair.key, passphrase) + certificates.pem(pair.certificate)


def seal_key_for_a_person(
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, passphrase: Secret
) -> bytes:
    """Return a key alone under such a passphrase."""
    encoding, form = serialization.Encoding.DER, serialization.PrivateFormat.PKCS8
    plain = key.private_bytes(encoding, form, serialization.NoEncryption())
    return _pem("ENCRYPTED PRIVATE KEY", _encrypted(plain, passphrase))


def parse(text: bytes, passphrase: Secret) -> Pair:
    """Read an authority back, or raise :class:`ForeignPairError`."""
    certificate = parse_certificate(text)
    certificates.check_authority(certificate)
    try:
        key = serialization.load_pem_private_key(text, passphrase.reveal().encode())
    except (ValueError, TypeError) as error:
        raise WrongPassphraseError("the passphrase does not open the key") from error
    return _pair(certificate, key)


def parse_certificate(text: bytes) -> x509.Certificate:
    """Return the certificate of an authority's file, which takes no passphrase."""
    if b"-----BEGIN ENCRYPTED PRIVATE KEY-----" not in text:
        raise ForeignPairError("there is no encrypted key")
    try:
        return x509.load_pem_x509_certificate(text)
    except ValueError as error:
        raise ForeignPairError("there is no certificate") from error


def server_file(credentials: Credentials) -> bytes:
    """Return a server's key and certificates as one text, not encrypted: a broker has to read them alone."""
    return credentials.private_key_pem + credentials.certificate_pem


def parse_server_file(text: bytes) -> tuple[Credentials, tuple[x509.Certificate, ...]]:
    """Read them back, or raise :class:`ForeignPairError`."""
    try:
        key = serialization.load_pem_private_key(text, password=None)
        chain = tuple(x509.load_pem_x509_certificates(text))
    except (ValueError, TypeError) as error:
        raise ForeignPairError("there is no key with a certificate") from error
    key = _pair(chain[0], key).key
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Credentials(certificates.pem(*chain), key.private_bytes(*plain)), chain


def _pair(certificate: x509.Certificate, key: object) -> Pair:
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
        raise ForeignPairError("the key is not the certificate's")
    return Pair(certificate, key)


def _encrypted(plain: bytes, passphrase: Secret) -> bytes:
    """Return PKCS#8 EncryptedPrivateKeyInfo with PBES2, scrypt (RFC 7914) and AES-256-CBC."""
    salt, vector = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_BLOCK_BYTES)
    kdf = Scrypt(salt=salt, length=_KEY_BYTES, n=SCRYPT_COST, r=SCRYPT_BLOCK, p=SCRYPT_LANES)
    key = kdf.derive(passphrase.reveal().encode())
    cost = (_integer(number) for number in (SCRYPT_COST, SCRYPT_BLOCK, SCRYPT_LANES))
    derivation = _der(_SEQUENCE, _SCRYPT, _der(_SEQUENCE, _der(_OCTETS, salt), *cost))
    scheme = _der(_SEQUENCE, _AES_256_CBC, _der(_OCTETS, vector))
    algorithm = _der(_SEQUENCE, _PBES2, _der(_SEQUENCE, derivation, scheme))
    padder = padding.PKCS7(8 * _BLOCK_BYTES).padder()
    cipher = Cipher(algorithms.AES(key), modes.CBC(vector)).encryptor()
    data = cipher.update(padder.update(plain) + padder.finalize()) + cipher.finalize()
    return _der(_SEQUENCE, algorithm, _der(_OCTETS, data))


def _integer(number: int) -> bytes:
    return _der(_INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    length = len(content)
    if length < 0x80:  # noqa: PLR2004 - DER: a length of one byte
        return bytes((tag, length)) + content
    digits = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(digits))) + digits + content


def _pem(label: str, der: bytes) -> bytes:
    lines = textwrap.wrap(base64.b64encode(der).decode(), 64)
    return "\n".join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", "")).encode()
