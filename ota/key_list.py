"""How devices learn which keys may sign what: a numbered list, signed by a key that a root vouches for. Pure.

A list is believed as a whole or not at all, and none takes the place of one with a higher number: what was
revoked stays so. (spec: security, 4.1)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID

from ota.envelope import (
    KID_BYTES,
    PUBLIC_KEY_BYTES,
    Envelope,
    Plain,
    Typ,
    is_signed,
    kid_of,
    open_envelope,
    seal,
)
from ota.errors import EncodingError, FieldError, KeyListError
from ota.fields import SCHEMA, TIME_MAX, UINT32_MAX, Fields
from ota.verification import KeyRole, Keys, TrustedKey
from security.trust.certificates import ForeignPairError, check_authority, check_issuer, is_alive

PATH: Final = "/.well-known/gnomon/keys"
"""Where it is fetched by HTTP: of us, or of a field tool."""
KEYS_MAX: Final = 256
OWNER_CHARS_MAX: Final = 64
ROLE_CHARS_MAX: Final = 16
STATE_CHARS_MAX: Final = 16
_KEYS: Final = 5
_ACTIVE, _REVOKED = "active", "revoked"
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
)


@dataclass(frozen=True, slots=True)
class KeyList:
    """Which keys may sign what. Times are seconds."""

    number: int
    """Rises with every change."""
    issued: int
    expires: int
    keys: tuple[TrustedKey, ...]

    def by_kid(self) -> Keys:
        """Return the keys as those who verify look for them."""
        return {kid_of(key.public): key for key in self.keys}


def write(list: KeyList, key: Ed25519PrivateKey, certificates: Sequence[bytes]) -> bytes:
    """Return a list as it travels, signed; ``certificates`` lead from the list key to the root, DER."""
    payload: dict[int, Plain] = {
        1: SCHEMA,
        2: list.number,
        3: list.issued,
        4: list.expires,
        _KEYS: [_entry(one) for one in list.keys],
    }
    _read(payload)
    return seal(payload, Typ.KEYS, key, certificates)


def read(data: bytes) -> KeyList:
    """Return what a list says that was verified before; whoever keeps one need not do so again."""
    return _read(open_envelope(data, Typ.KEYS).payload)


def verify(data: bytes, roots: Sequence[x509.Certificate], now_s: int, held: int) -> KeyList:
    """Return a list that may take the place of the one with the number ``held`` (0: there is none).

    Raises :class:`~ota.errors.KeyListError` otherwise.
    """
    try:
        sealed = open_envelope(data, Typ.KEYS)
        _check_signed(sealed, roots, datetime.fromtimestamp(now_s, UTC))
        found = _read(sealed.payload)
    except (EncodingError, FieldError, ForeignPairError) as error:
        raise KeyListError(str(error)) from error
    except _UNREADABLE as error:
        raise KeyListError("a certificate cannot be read") from error
    if found.number < held:
        raise KeyListError(f"number {found.number} comes before {held}, which is held")
    if not found.issued <= now_s < found.expires:
        raise KeyListError("it is not, or no longer, good")
    return found


def _check_signed(sealed: Envelope, roots: Sequence[x509.Certificate], now: datetime) -> None:
    chain = [x509.load_der_x509_certificate(one) for one in sealed.certificates]
    signer, *authorities = chain
    _check_signer(signer)
    if not all(is_alive(one, now) for one in chain):
        raise KeyListError("a certificate is not, or no longer, good")
    below = signer
    for above in authorities:
        check_authority(above)
        check_issuer(below, above)
        below = above
    if not any(_issued(below, root) for root in roots):
        raise KeyListError("no root that is known vouches for it")
    public = signer.public_key()
    if not isinstance(public, Ed25519PublicKey):
        raise KeyListError("a list key is an Ed25519 key")
    raw = public.public_bytes_raw()
    if sealed.kid != kid_of(raw) or not is_signed(sealed, raw):
        raise KeyListError("the list key has not signed it")


def _check_signer(certificate: x509.Certificate) -> None:
    # A thing's certificate comes of the same root, and must not make lists.
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    if list(usage) != [ExtendedKeyUsageOID.CODE_SIGNING]:
        raise KeyListError("its certificate is not one for a list key")


def _issued(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    try:
        check_issuer(certificate, root)
    except ForeignPairError:
        return False
    return True


def _entry(key: TrustedKey) -> dict[int, Plain]:
    state = _REVOKED if key.revoked else _ACTIVE
    return {1: kid_of(key.public), 2: key.public, 3: key.role.value, 4: key.owner, 5: state}


def _read(payload: Plain) -> KeyList:
    fields = Fields(payload, range(1, 6))
    fields.uint(1, SCHEMA, SCHEMA)
    found = KeyList(
        number=fields.uint(2, 1, UINT32_MAX),
        issued=fields.uint(3, most=TIME_MAX),
        expires=fields.uint(4, most=TIME_MAX),
        keys=tuple(_keys(fields.array(_KEYS, KEYS_MAX))),
    )
    if len(found.by_kid()) != len(found.keys):
        raise FieldError(_KEYS, "a key is there twice")
    return found


def _keys(entries: Sequence[Plain]) -> Iterator[TrustedKey]:
    for entry in entries:
        if type(entry) is not dict:
            raise FieldError(_KEYS, "a key is a map")
        fields = Fields(entry, range(1, 6))
        public = fields.octets(2, PUBLIC_KEY_BYTES)
        if fields.octets(1, KID_BYTES) != kid_of(public):
            raise FieldError(_KEYS, "a kid is that of another key")
        state = fields.text(5, STATE_CHARS_MAX)
        if state not in {_ACTIVE, _REVOKED}:
            raise FieldError(_KEYS, f"a key is {_ACTIVE} or {_REVOKED}")
        yield TrustedKey(public, _role(fields), fields.text(4, OWNER_CHARS_MAX), state == _REVOKED)


def _role(fields: Fields) -> KeyRole:
    role = fields.text(3, ROLE_CHARS_MAX)
    try:
        return KeyRole(role)
    except ValueError as error:
        raise FieldError(_KEYS, "no key has that role") from error
