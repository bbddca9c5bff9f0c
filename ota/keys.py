"""Which keys may sign what: vendors' images, our campaigns. Kept as one ring, told to devices as one list.

The ring and the list that tells of it are one document, so that no change is without its number. Adding and
revoking take two persons (:class:`KeyActs`); a revoked key counts for nothing from the commit on. The list is
signed by a key of ours that the issuing authority vouches for, and made anew before it ends.
(spec: security, 4.1)
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from infra.clock import MS_PER_S, Clock
from infra.documents.port import Collection, DocumentStore, StoreUnavailableError
from infra.documents.records import Records
from ota import key_list
from ota import order as orders
from ota.envelope import PUBLIC_KEY_BYTES, Typ, kid_of, public_of, seal
from ota.errors import InvalidKeyError, KeyKnownError, KeyNotFoundError, KeysFullError
from ota.key_list import KeyList
from ota.order import Order
from ota.verification import KeyRole, Keys, TrustedKey
from registry.catalogue import VENDOR_CHARS_MAX, slug
from security.audit import INSIDE, Via
from security.audited import Audited, RecordBusyError
from security.people.approvals import Act, Held
from security.people.errors import ActOutdatedError, PeopleBusyError
from security.policy import Action, Principal, Role
from security.secretbox import SecretBox
from security.trust.authority import Authority

SIGNING_KEYS: Final = Collection("ota_signing_keys")
RING: Final = "ring"
KEYS_MAX: Final = 128
"""In the ring, revoked ones too: a list that forgets one would let a device with an older one believe it."""
UTILITY: Final = "utility"
"""Owner of the keys that sign campaigns."""
LIST_LIFE_S: Final = 90 * 86_400
LIST_RENEWAL_S: Final = 30 * 86_400
"""What is left of a list when it is made anew, with the next number."""
LOOK_S: Final = 3_600.0
CAMPAIGN_KEYS_MAX: Final = 64
"""Keys of our own that may have been revoked one after the other."""
P256_BYTES: Final = 65
"""A raw point: the key of a vendor whose devices check an image by themselves (``trust: afr``)."""
OURS: Final = Principal("system", Role.SYSTEM)
ADD_KEY: Final = "signing_key.add"
RENEW_LIST: Final = "signing_key.list"
REVOKE_KEY: Final = "signing_key.revoke"

_log: Final = structlog.get_logger(__name__)


class KeyState(StrEnum):
    """Whether a key counts."""

    ACTIVE = "active"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A key that may sign, or might once."""

    kid: str
    """First 8 bytes of the SHA-256 of the raw key, hex."""
    public: bytes
    role: KeyRole
    owner: str
    state: KeyState = KeyState.ACTIVE
    added_at_ms: int
    revoked_at_ms: int | None = None

    @property
    def is_on_the_list(self) -> bool:
        """Whether devices are told of it; what signs for FreeRTOS agents they have in their firmware."""
        return len(self.public) == PUBLIC_KEY_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """All keys in the order in which they came, and the list that tells of them."""

    number: int = 0
    keys: tuple[SigningKey, ...] = ()
    list: bytes = b""
    """COSE, as it is given out; empty while there is no key."""
    ends_ms: int = 0

    def key(self, kid: str) -> SigningKey | None:
        """Return the key of this name."""
        return next((one for one in self.keys if one.kid == kid), None)


def added(ring: Ring, new: SigningKey) -> Ring:
    """Return the ring with one more key; as it is, if that is there and counts."""
    known = ring.key(new.kid)
    if known is not None:
        if replace(known, added_at_ms=new.added_at_ms) == new:
            return ring
        raise KeyKnownError(new.kid)
    if len(ring.keys) >= KEYS_MAX:
        raise KeysFullError(KEYS_MAX)
    return replace(ring, keys=(*ring.keys, new))


def revoked(ring: Ring, kid: str, now_ms: int) -> Ring:
    """Return the ring in which this key counts for nothing; as it is, if it does not already."""
    known = ring.key(kid)
    if known is None:
        raise KeyNotFoundError(kid)
    if known.state is KeyState.REVOKED:
        return ring
    gone = replace(known, state=KeyState.REVOKED, revoked_at_ms=now_ms)
    return replace(ring, keys=tuple(gone if one.kid == kid else one for one in ring.keys))


def parse_key(public: bytes, role: KeyRole, owner: str, now_ms: int) -> SigningKey:
    """Return a key as it will be kept; raises :class:`~ota.errors.InvalidKeyError` for what can be none."""
    if role is KeyRole.CAMPAIGN and owner != UTILITY:
        raise InvalidKeyError(f"campaigns are signed by {UTILITY} alone")
    if role is KeyRole.IMAGE and (owner == UTILITY or not _is_vendor(owner)):
        raise InvalidKeyError("the owner of an image key is the id of a vendor")
    if role not in {KeyRole.IMAGE, KeyRole.CAMPAIGN}:
        raise InvalidKeyError("a key signs images or campaigns")
    try:
        if len(public) == P256_BYTES and role is KeyRole.IMAGE:
            ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public)
        else:
            Ed25519PublicKey.from_public_bytes(public)
    except ValueError as error:
        raise InvalidKeyError(
            "a key is a raw Ed25519 one; that of a vendor may be a point of P-256"
        ) from error
    return SigningKey(kid=kid_of(public).hex(), public=public, role=role, owner=owner, added_at_ms=now_ms)


def _is_vendor(owner: str) -> bool:
    return owner == slug(owner) and 0 < len(owner) <= VENDOR_CHARS_MAX


class SigningKeys:
    """Keeps the ring, and signs orders by the key of our own."""

    def __init__(
        self, store: DocumentStore, clock: Clock, *, box: SecretBox, authority: Authority, directory: Path
    ) -> None:
        self._records = Records(store, SIGNING_KEYS.name, Ring)
        self._audited = Audited(self._records, clock, "signing_keys")
        self._clock = clock
        self._box = box
        self._authority = authority
        self._directory = directory

    # ------------------------------------------------------------------ reading

    async def ring(self) -> Ring:
        """Return all keys, with the list that devices get."""
        kept = await self._records.load(RING)
        return Ring() if kept is None else kept.record

    async def keys(self) -> Keys:
        """Return the keys that devices are told of, by their kid."""
        return {bytes.fromhex(one.kid): _told(one) for one in (await self.ring()).keys if one.is_on_the_list}

    async def number(self) -> int:
        """Return the number of the list that devices are to have."""
        return (await self.ring()).number

    async def key_list(self, number: int) -> bytes | None:
        """Return the list as devices get it, if this is its number: an older one is of no use any more."""
        ring = await self.ring()
        return ring.list if ring.list and ring.number == number else None

    async def signs_image(self, vendor: str, image: memoryview, signature: bytes) -> bool:
        """Tell whether the vendor signed an image as FreeRTOS agents check it: ECDSA, P-256, SHA-256."""
        return any(
            _is_signed(one.public, image, signature)
            for one in (await self.ring()).keys
            if one.owner == vendor and one.state is KeyState.ACTIVE and not one.is_on_the_list
        )

    # ------------------------------------------------------------------ writing

    async def add(self, key: SigningKey, by: Principal, via: Via = INSIDE) -> SigningKey:
        """Let a key count; nothing changes if it does."""
        ring = await self._change(lambda before: added(before, key), ADD_KEY, by, via, key.kid)
        return _there(ring, key.kid)

    async def revoke(self, kid: str, by: Principal, via: Via = INSIDE, reason: str = "") -> SigningKey:
        """Let a key count no longer."""
        now_ms = self._clock.now_ms()
        ring = await self._change(
            lambda before: revoked(before, kid, now_ms), REVOKE_KEY, by, via, f"{kid} {reason}".strip()
        )
        return _there(ring, kid)

    async def sign(self, order: Order) -> bytes:
        """Return an order in an envelope of our campaign key; the first use makes and registers the key."""
        key = await self._campaign_key()
        new = parse_key(public_of(key), KeyRole.CAMPAIGN, UTILITY, self._clock.now_ms())
        await self.add(new, OURS)
        return seal(orders.write(order), Typ.ORDER, key)

    async def renew(self) -> None:
        """Make the next list if the one there is will end."""
        ring, now_ms = await self.ring(), self._clock.now_ms()
        if ring.list and ring.ends_ms - now_ms < LIST_RENEWAL_S * MS_PER_S:
            await self._change(lambda before: replace(before, list=b""), RENEW_LIST, OURS)

    async def run(self) -> None:
        """See that there is a list that counts, until cancelled."""
        while True:
            try:
                await self.renew()
            except (StoreUnavailableError, RecordBusyError) as error:
                _log.warning("key_list_not_renewed", reason=str(error))
            await asyncio.sleep(LOOK_S)

    # ------------------------------------------------------------------ details

    async def _change(
        self, decide: Callable[[Ring], Ring], action: str, by: Principal, via: Via = INSIDE, reason: str = ""
    ) -> Ring:
        key = await asyncio.to_thread(self._own_key, "key-list")
        vouching = await asyncio.to_thread(self._authority.sign_list_key, key.public_key())

        def decided(before: Ring | None) -> Ring:
            start = before or Ring()
            after = decide(start)
            if after == start:
                return start
            return self._listed(after, key, vouching)

        return await self._audited.change(RING, decided, action, by, via, reason=reason)

    def _listed(self, ring: Ring, key: Ed25519PrivateKey, vouching: tuple[bytes, bytes]) -> Ring:
        """Return a ring with the next number, and the list that says so."""
        now_s = self._clock.now_ms() // MS_PER_S
        # By the clock, so that a store that was put back goes on above the numbers that devices hold.
        number = max(ring.number + 1, now_s)
        keys = tuple(_told(one) for one in ring.keys if one.is_on_the_list)
        if not keys:
            return replace(ring, number=number)  # no list is empty
        told = KeyList(number=number, issued=now_s, expires=now_s + LIST_LIFE_S, keys=keys)
        return replace(
            ring,
            number=told.number,
            list=key_list.write(told, key, vouching),
            ends_ms=told.expires * MS_PER_S,
        )

    async def _campaign_key(self) -> Ed25519PrivateKey:
        """Return the first of our keys that nobody has revoked."""
        ring = await self.ring()
        for number in range(1, CAMPAIGN_KEYS_MAX + 1):
            key = await asyncio.to_thread(self._own_key, f"campaign-{number:02}")
            known = ring.key(kid_of(public_of(key)).hex())
            if known is None or known.state is KeyState.ACTIVE:
                return key
        raise KeysFullError(CAMPAIGN_KEYS_MAX)

    def _own_key(self, name: str) -> Ed25519PrivateKey:
        """Return a key of ours, sealed in a file; made when it is needed first."""
        path, place = self._directory / f"{name}.key", f"keys/{name}"
        kept = self._box.read(path, place)
        if kept is None:
            self._box.write(path, Ed25519PrivateKey.generate().private_bytes_raw(), place)
            kept = self._box.read(path, place)  # another process may have been first
            assert kept is not None, "made a moment ago"
        return Ed25519PrivateKey.from_private_bytes(kept)


def _there(ring: Ring, kid: str) -> SigningKey:
    key = ring.key(kid)
    assert key is not None, "written a moment ago"
    return key


def _told(key: SigningKey) -> TrustedKey:
    return TrustedKey(key.public, key.role, key.owner, key.state is KeyState.REVOKED)


def _is_signed(public: bytes, image: memoryview, signature: bytes) -> bool:
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public)
    try:
        point.verify(signature, image, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


# ---------------------------------------------------------------------------- acts that take two persons


@dataclass(frozen=True, slots=True)
class Asked:
    """Something to be done to the ring: what the second person reads is what is done."""

    act: str
    target: str
    facts: Mapping[str, str]


def add_key(key: SigningKey) -> Asked:
    """Let a key count."""
    facts = {"public": key.public.hex(), "role": key.role.value, "owner": key.owner}
    return Asked(ADD_KEY, f"signing_key/{key.kid}", facts)


def revoke_key(kid: str, reason: str) -> Asked:
    """Let it count no longer."""
    return Asked(REVOKE_KEY, f"signing_key/{kid}", {"reason": reason})


class KeyActs:
    """Checks what is asked for, and does it once it is approved."""

    def __init__(self, keys: SigningKeys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock

    async def check(self, asked: Asked) -> None:
        """Raise what doing it would raise now."""
        ring, now_ms = await self._keys.ring(), self._clock.now_ms()
        if asked.act == ADD_KEY:
            added(ring, _key_of(asked.facts, now_ms))
        else:
            revoked(ring, _kid_of(asked.target), now_ms)

    def table(self) -> Mapping[str, Act]:
        """Return the rows for ``Approvals``."""
        return {act: Act(Action.SIGNING_KEY_WRITE, self._approved) for act in (ADD_KEY, REVOKE_KEY)}

    async def _approved(self, held: Held, via: Via, reason: str) -> None:
        try:
            if held.act == ADD_KEY:
                await self._keys.add(_key_of(held.facts, self._clock.now_ms()), held.by, via)
            else:
                await self._keys.revoke(_kid_of(held.target), held.by, via, reason)
        except RecordBusyError as error:
            raise PeopleBusyError from error
        except (KeyKnownError, KeyNotFoundError, KeysFullError) as error:
            raise ActOutdatedError(str(error)) from error


def _key_of(facts: Mapping[str, str], now_ms: int) -> SigningKey:
    return parse_key(bytes.fromhex(facts["public"]), KeyRole(facts["role"]), facts["owner"], now_ms)


def _kid_of(target: str) -> str:
    return target.rpartition("/")[2]
