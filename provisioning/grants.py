"""Link keys: from a label's code to what a gateway can open, and where a key waits for the next exchange.

A link key enters a shadow only as HPKE ciphertext (RFC 9180, base mode: P-256, HKDF-SHA256, AES-128-GCM),
sealed to the key that its gateway made for this one window. At rest it is sealed by our own secret box, for
the device it belongs to. (spec: security, 4.3)
"""

import base64
import binascii
from collections.abc import Collection as SizedIterable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import ec

from infra.clock import Clock
from infra.documents.port import Collection, DocumentStore
from infra.documents.records import Records
from security.audit import INSIDE, Via
from security.audited import Audited
from security.policy import Principal
from security.secret import Secret
from security.secretbox import SecretBox
from security.trust import codes
from security.trust.identifiers import link_key

LINK_KEYS: Final = Collection("link_keys")
SUITE: Final = hpke.Suite(hpke.KEM.P256, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_128_GCM)
SEALED_BYTES: Final = 97
"""Of a link key: an encapsulated point, the key's 16 bytes and their tag."""


class BadSealKeyError(Exception):
    """What the gateway reports is no point of the curve."""

    def __init__(self) -> None:
        super().__init__("the gateway's key for this window is no point of P-256")


@dataclass(frozen=True, slots=True)
class LinkKey:
    """A device's link key. ``sealed`` is base64; empty: it was destroyed."""

    sealed: str


def info(grant: str, eui64: str, until_s: int) -> bytes:
    """Return what a sealed key is bound to."""
    return f"gnomon-grant{grant}{eui64}{until_s}".encode()


def seal_to(seal_key: str, key: bytes, bound_to: bytes) -> str:
    """Return a link key that only the gateway with this window's key opens, as base64url.

    Raises:
        BadSealKeyError: the gateway reports something else.
    """
    try:
        point = base64.urlsafe_b64decode(seal_key + "=" * (-len(seal_key) % 4))
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except (ValueError, binascii.Error) as error:
        raise BadSealKeyError from error
    sealed = SUITE.encrypt(key, public, info=bound_to)
    assert len(sealed) == SEALED_BYTES, "a link key has 16 bytes"
    return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()


class LinkKeys:
    """Seals link keys for us, keeps those whose proof was good, and opens them for a gateway."""

    def __init__(self, store: DocumentStore, clock: Clock, box: SecretBox) -> None:
        self._records = Records(store, LINK_KEYS.name, LinkKey)
        self._audited = Audited(self._records, clock, "link_key")
        self._box = box

    def of_code(self, eui64: str, code: Secret) -> str:
        """Return the link key of a label's code, sealed for us.

        Raises:
            MistypedCodeError: the CRC does not fit; a typing error.
            InvalidCodeError: no install code looks so.
        """
        key = link_key(codes.parse_install_code(code.reveal()))
        return base64.b64encode(self._box.seal(key, _place(eui64))).decode()

    def for_window(self, eui64: str, sealed: str, seal_key: str, bound_to: bytes) -> str:
        """Return a key that is sealed for us, sealed to a window's key instead."""
        key = self._box.open_sealed(base64.b64decode(sealed), _place(eui64))
        return seal_to(seal_key, key, bound_to)

    async def keep(self, eui64: str, sealed: str, by: Principal, via: Via = INSIDE) -> None:
        """Keep the key of a device whose proof was good."""
        kept = LinkKey(sealed)
        await self._audited.change(eui64, lambda _before: kept, "link_key.keep", by, via)

    async def of(self, eui64s: SizedIterable[str]) -> dict[str, str]:
        """Return the sealed keys of those devices that have one, by EUI-64."""
        found = await self._records.load_all(eui64s)
        return {eui64: one.sealed for eui64, one in found.items() if one.sealed}

    async def destroy(self, eui64: str, by: Principal, via: Via = INSIDE) -> None:
        """Destroy the key of a device that has left."""
        if await self._records.load(eui64) is not None:
            await self._audited.change(eui64, lambda _before: LinkKey(""), "link_key.destroy", by, via)


def _place(eui64: str) -> str:
    return f"link_keys/{eui64}"
