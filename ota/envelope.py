"""The envelope of what is signed: COSE_Sign1 by Ed25519, in exactly one encoding. Pure.

Bytes either are an envelope to the last bit or raise :class:`~ota.errors.EncodingError`; that a signature is
good, and whose it is, is asked after that. What the payload says is read elsewhere. (spec: ota, 2.2, V1)

    18([ << {1: -8, 4: kid, 16: typ} >>, {}, << payload >>, signature ])
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ota.errors import EncodingError

ENVELOPE_BYTES_MAX: Final = 4_096
KEY_LIST_BYTES_MAX: Final = 65_536
CERTIFICATES_MAX: Final = 2
"""Of a list key, and of what issued it."""
KID_BYTES: Final = 8
PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
UINT64_MAX: Final = 2**64 - 1
_DEPTH_MAX: Final = 5
"""Containers in one another: none of ours comes near it."""
_TAG: Final = b"\xd2"
"""Tag 18, before what is tagged."""
_PARTS: Final = 4
_EDDSA: Final = -8
_ALG, _KID, _TYP, _CERTIFICATES = 1, 4, 16, 33
"""Labels of the protected header."""


class Typ(StrEnum):
    """What a payload is: signed too, so that nothing is taken for something else."""

    MANIFEST = "application/gnomon-manifest+cbor"
    ORDER = "application/gnomon-order+cbor"
    KEYS = "application/gnomon-keys+cbor"


BYTES_MAX: Final[Mapping[Typ, int]] = MappingProxyType(
    {Typ.MANIFEST: ENVELOPE_BYTES_MAX, Typ.ORDER: ENVELOPE_BYTES_MAX, Typ.KEYS: KEY_LIST_BYTES_MAX}
)


Plain = Any
"""Integers, byte strings, texts, arrays and maps of them: all that may be in what is signed."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """An envelope taken apart. Whether its signature is good has not been asked."""

    typ: Typ
    kid: bytes
    """First 8 bytes of the SHA-256 of the public key that is said to have signed."""
    payload: Mapping[Plain, Plain]
    signature: bytes
    signed: bytes
    """What the signature is over."""
    certificates: tuple[bytes, ...] = ()
    """Of a key list: the certificate of the key that signs it, and those that lead to the root, DER."""


def kid_of(public: bytes) -> bytes:
    """Return the name of a raw Ed25519 public key."""
    return hashlib.sha256(public).digest()[:KID_BYTES]


def public_of(key: Ed25519PrivateKey) -> bytes:
    """Return the raw public key of a private one."""
    return key.public_key().public_bytes_raw()


def seal(
    payload: Mapping[int, Plain], typ: Typ, key: Ed25519PrivateKey, certificates: Sequence[bytes] = ()
) -> bytes:
    """Return the payload in an envelope that this key has signed; raises :class:`EncodingError` as below."""
    header: dict[int, Plain] = {_ALG: _EDDSA, _KID: kid_of(public_of(key)), _TYP: str(typ)}
    if certificates:
        # RFC 9360: one stands there itself, more are an array.
        header[_CERTIFICATES] = list(certificates) if len(certificates) > 1 else certificates[0]
    protected, body = encode(header), encode(payload)
    signature = key.sign(_to_sign(protected, body))
    sealed = _TAG + encode([protected, {}, body, signature])
    open_envelope(sealed, typ)
    return sealed


def open_envelope(data: bytes, typ: Typ) -> Envelope:
    """Take apart an envelope of this kind (V1)."""
    if len(data) > BYTES_MAX[typ]:
        raise EncodingError(f"an envelope has at most {BYTES_MAX[typ]} bytes")
    protected, unprotected, body, signature = _parts(data)
    if unprotected != {}:
        raise EncodingError("there is a header that nobody has signed")
    header = decode(protected)
    kid, certificates = _header(header, typ)
    if len(signature) != SIGNATURE_BYTES:
        raise EncodingError(f"a signature has {SIGNATURE_BYTES} bytes")
    return Envelope(typ, kid, payload_of(body), signature, _to_sign(protected, body), certificates)


def payload_of(body: bytes) -> dict[Plain, Plain]:
    """Return the payload that an envelope holds, or is to hold."""
    payload = decode(body)
    if type(payload) is not dict:
        raise EncodingError("the payload is no map")
    return payload


def is_signed(envelope: Envelope, public: bytes) -> bool:
    """Tell whether the owner of this raw public key has signed it."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(envelope.signature, envelope.signed)
    except (InvalidSignature, ValueError):
        return False
    return True


# ---------------------------------------------------------------------------- encoding


def encode(value: Plain) -> bytes:
    """Return a value in its one encoding: shortest integers, definite lengths, sorted keys."""
    return cbor2.dumps(value, canonical=True)


def decode(data: bytes) -> Plain:
    """Return what is encoded, if it is in its one encoding and of plain types."""
    value = _loaded(data)
    _check_plain(value, _DEPTH_MAX)
    # Also refuses bytes after the end, and every tag: what it stands for is encoded without it.
    if encode(value) != data:
        raise EncodingError("it is not in deterministic encoding")
    return value


def _parts(data: bytes) -> tuple[bytes, Plain, bytes, bytes]:
    if not data.startswith(_TAG):
        raise EncodingError("it is no COSE_Sign1 with its tag")
    parts = decode(data[len(_TAG) :])
    if type(parts) is not list or len(parts) != _PARTS:
        raise EncodingError(f"it has not {_PARTS} parts")
    protected, unprotected, body, signature = parts
    if type(protected) is not bytes or type(body) is not bytes or type(signature) is not bytes:
        raise EncodingError("header, payload and signature are byte strings")
    return protected, unprotected, body, signature


def _header(header: Plain, typ: Typ) -> tuple[bytes, tuple[bytes, ...]]:
    labels = {_ALG, _KID, _TYP} | ({_CERTIFICATES} if typ is Typ.KEYS else set())
    if type(header) is not dict or set(header) != labels:
        raise EncodingError("the protected header has other members than it should")
    kid = header[_KID]
    if header[_ALG] != _EDDSA or header[_TYP] != typ:
        raise EncodingError(f"it is signed by another algorithm, or is no {typ}")
    if type(kid) is not bytes or len(kid) != KID_BYTES:
        raise EncodingError(f"a kid has {KID_BYTES} bytes")
    return kid, _certificates(header[_CERTIFICATES]) if typ is Typ.KEYS else ()


def _certificates(given: Plain) -> tuple[bytes, ...]:
    if type(given) is bytes:
        return (given,)
    if type(given) is not list or not 1 < len(given) <= CERTIFICATES_MAX:
        raise EncodingError(f"there are 1 to {CERTIFICATES_MAX} certificates")
    if any(type(one) is not bytes for one in given):
        raise EncodingError("a certificate is bytes")
    return tuple(given)


def _loaded(data: bytes) -> Plain:
    try:
        return cbor2.loads(data, max_depth=_DEPTH_MAX + 1, allow_indefinite=False, allow_duplicate_keys=False)
    except (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise EncodingError("it is not CBOR as it should be") from error


def _check_plain(value: Plain, depth: int) -> None:
    """Refuse floats, tags and simple values; a depth, because a tag can make a list that holds itself."""
    if depth == 0:
        raise EncodingError("it is nested too deep")
    kind = type(value)
    if kind is dict:
        for key, member in value.items():
            if type(key) not in {int, str}:
                raise EncodingError("a key is a number or a text")
            _check_plain(key, depth - 1)
            _check_plain(member, depth - 1)
    elif kind is list:
        for member in value:
            _check_plain(member, depth - 1)
    elif kind is int:
        if not -UINT64_MAX - 1 <= value <= UINT64_MAX:
            raise EncodingError("an integer has at most 64 bits")
    elif kind not in {bytes, str}:
        raise EncodingError("there is something else than integers, bytes, texts, arrays and maps")


def _to_sign(protected: bytes, body: bytes) -> bytes:
    return encode(["Signature1", protected, b"", body])
