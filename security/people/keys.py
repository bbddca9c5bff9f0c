"""The keys that sign access tokens: Ed25519, one algorithm a key, rotated without a gap.

A new key is published first, signs once everybody can have seen it, and the one before is kept for as long as
a token it signed may live. ``rotate`` and its neighbours are rules; :class:`TokenKeys` keeps what they say.
"""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from infra.clock import MS_PER_S, Clock
from infra.documents.port import DocumentStore
from infra.ids import Ids
from security import audit
from security.audit import INSIDE, Via
from security.people.errors import PeopleBusyError
from security.people.persons import decided
from security.people.records import SAVE_ATTEMPTS_MAX, SIGNING_KEYS, Kept, Records
from security.policy import Principal, Role
from security.secretbox import SecretBox

ALGORITHM: Final = "EdDSA"
LIFE_S_MAX: Final = 600
"""How long an access token may live, at most."""
PUBLISHED_S: Final = 300
"""A key is published for so long before it signs."""
SPARE_S: Final = 60
"""A key stays so much longer than the last token it signed."""
ROTATION_D: Final = 30
FRESH_S: Final = 4.0
"""What other processes changed is seen after this at the latest."""
KEYS_MAX: Final = 8
KID_BITS: Final = 40
_RING: Final = "ring"
_SYSTEM: Final = Principal("system", Role.SYSTEM)
_MS_PER_DAY: Final = 86_400 * MS_PER_S


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One key; ``sealed`` is the private half."""

    kid: str
    public: bytes
    sealed: bytes
    signs_from_ms: int
    ends_ms: int | None = None
    """Tokens of this key are nothing from then on; None = it is not known yet."""


@dataclass(frozen=True, slots=True)
class Ring:
    """All keys, the newest last."""

    keys: tuple[KeyRecord, ...]
    decisions: tuple[str, ...] = ()
    """Held acts that rotated it, so that none does so twice."""


def rotate(ring: Ring, new: KeyRecord, now_ms: int) -> Ring:
    """Return the ring with a new key that is published now and signs later."""
    signs_ms = now_ms + PUBLISHED_S * MS_PER_S
    ends_ms = signs_ms + (LIFE_S_MAX + SPARE_S) * MS_PER_S
    older = [
        key if key.ends_ms is not None else replace(key, ends_ms=ends_ms)
        for key in ring.keys
        if is_alive(key, now_ms)
    ]
    return replace(ring, keys=(*older, replace(new, signs_from_ms=signs_ms))[-KEYS_MAX:])


def start_over(ring: Ring, new: KeyRecord, now_ms: int) -> Ring:
    """Return a ring of one new key: no token signed before counts any more."""
    return replace(ring, keys=(replace(new, signs_from_ms=now_ms),))


def is_alive(key: KeyRecord, now_ms: int) -> bool:
    """Tell whether tokens of this key can still count."""
    return key.ends_ms is None or now_ms < key.ends_ms


def signer(ring: Ring, now_ms: int) -> KeyRecord:
    """Return the key that signs now: the newest one that has been published long enough."""
    ready = [key for key in ring.keys if key.signs_from_ms <= now_ms and is_alive(key, now_ms)]
    # With a clock that went back none is ready; the oldest is then known best.
    return ready[-1] if ready else ring.keys[0]


def is_due(ring: Ring, now_ms: int) -> bool:
    """Tell whether it is time for a new key."""
    return now_ms - ring.keys[-1].signs_from_ms >= ROTATION_D * _MS_PER_DAY


class TokenKeys:
    """The ring as this process knows it; after ``refresh`` it is never older than :data:`FRESH_S`."""

    def __init__(self, store: DocumentStore, box: SecretBox, clock: Clock, ids: Ids) -> None:
        self._records = Records(store, SIGNING_KEYS, Ring)
        self._box = box
        self._clock = clock
        self._ids = ids
        self._ring = Ring(())
        self._loaded_s: float | None = None
        self._private: dict[str, Ed25519PrivateKey] = {}
        self._public: dict[str, Ed25519PublicKey] = {}

    async def open(self) -> None:
        """Load the keys; make the first one where there is none."""
        if await self._records.load(_RING) is None:
            await self._write(None, Ring((self._make(signs_from_ms=self._clock.now_ms()),)), _SYSTEM, INSIDE)
        await self._load()

    async def refresh(self) -> None:
        """Load the keys again if what is known may be outdated."""
        if self._loaded_s is None or (
            not self._records.exclusive and self._clock.elapsed_s() - self._loaded_s > FRESH_S
        ):
            await self._load()

    async def rotate(
        self,
        by: Principal = _SYSTEM,
        via: Via = INSIDE,
        *,
        at_once: bool = False,
        decision: str = "",
    ) -> None:
        """Make a new key; the same ``decision`` again makes none.

        ``at_once``: no token of the old ones counts any more.
        """
        await self._change(start_over if at_once else rotate, by, via, decision)

    async def rotate_if_due(self) -> bool:
        """Make a new key if it is time; tell whether one was made."""
        await self._load()
        if not is_due(self._ring, self._clock.now_ms()):
            return False
        await self.rotate()
        return True

    def sign_with(self) -> tuple[str, Ed25519PrivateKey]:
        """Return the key to sign with, and its id."""
        kid = signer(self._ring, self._clock.now_ms()).kid
        return kid, self._private[kid]

    def verify_with(self, kid: str) -> Ed25519PublicKey | None:
        """Return the one key of this id, None when there is none (any more)."""
        now_ms = self._clock.now_ms()
        if not any(key.kid == kid and is_alive(key, now_ms) for key in self._ring.keys):
            return None
        return self._public.get(kid)

    def jwks(self) -> Mapping[str, Any]:
        """Return the public halves (RFC 7517, 8037)."""
        now_ms = self._clock.now_ms()
        return {"keys": [_jwk(key) for key in self._ring.keys if is_alive(key, now_ms)]}

    async def _change(
        self, rule: Callable[[Ring, KeyRecord, int], Ring], by: Principal, via: Via, decision: str
    ) -> None:
        new = self._make(signs_from_ms=0)
        for _ in range(SAVE_ATTEMPTS_MAX):
            kept = await self._records.load(_RING)
            assert kept is not None, "made when the service opened"
            if decision in kept.record.decisions:
                return
            after = rule(kept.record, new, self._clock.now_ms())
            after = replace(after, decisions=decided(after.decisions, decision))
            if await self._write(kept, after, by, via):
                await self._load()
                return
        raise PeopleBusyError

    async def _write(self, kept: Kept[Ring] | None, after: Ring, by: Principal, via: Via) -> bool:
        before = 0 if kept is None else kept.revision
        row = audit.act(
            by,
            via,
            "signing_key.write",
            f"signing_key/{after.keys[-1].kid}",
            at_ms=self._clock.now_ms(),
            before=before,
            after=before + 1,
        )
        return await self._records.put(_RING, after, before, audit.entry(row, before + 1, life=0))

    async def _load(self) -> None:
        began_s = self._clock.elapsed_s()
        kept = await self._records.load(_RING)
        assert kept is not None, "made when the service opened"
        self._private = {key.kid: self._opened(key) for key in kept.record.keys}
        self._public = {kid: key.public_key() for kid, key in self._private.items()}
        self._ring, self._loaded_s = kept.record, began_s

    def _opened(self, key: KeyRecord) -> Ed25519PrivateKey:
        known = self._private.get(key.kid)
        if known is not None:
            return known
        return Ed25519PrivateKey.from_private_bytes(self._box.open_sealed(key.sealed, _place(key.kid)))

    def _make(self, *, signs_from_ms: int) -> KeyRecord:
        private, kid = Ed25519PrivateKey.generate(), self._ids.token(KID_BITS)
        secret = private.private_bytes(
            serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
        )
        public = private.public_key().public_bytes_raw()
        return KeyRecord(kid, public, self._box.seal(secret, _place(kid)), signs_from_ms)


def _place(kid: str) -> str:
    return f"{SIGNING_KEYS}/{kid}/private"


def _jwk(key: KeyRecord) -> dict[str, str]:
    x = base64.urlsafe_b64encode(key.public).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": key.kid, "alg": ALGORITHM, "use": "sig"}
