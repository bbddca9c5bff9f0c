"""Which campaign is just about to offer something to a device, where several processes may.

A claim is a lease on making one offer: whoever has it makes the offer well before it ends, or not at all. So
by the time another campaign can have it, an offer that was made is seen. Where one process alone writes, its
lane sees to the same without it. (spec: ota, 9.3)
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import msgspec

from infra.documents.port import Collection as StoreCollection
from infra.documents.port import DocumentStore, Write

CLAIMS: Final = StoreCollection("ota_claims", ())
LEASE_MS: Final = 60_000
OFFER_MS_MAX: Final = 20_000
"""After so long no offer is made on a claim any more."""


@dataclass(frozen=True, slots=True)
class _Claim:
    campaign: str
    until_ms: int


_encode: Final = msgspec.json.Encoder(order="deterministic").encode
_decode: Final = msgspec.json.Decoder(_Claim).decode


class Claims:
    """Takes claims by compare-and-set."""

    def __init__(self, store: DocumentStore) -> None:
        self._store = store

    async def take(self, things: Collection[str], campaign: str, now_ms: int) -> frozenset[str]:
        """Return those of these things that this campaign may offer something now."""
        if self._store.exclusive or not things:
            return frozenset(things)
        there = await self._store.get(CLAIMS.name, things)
        claim = _encode(_Claim(campaign, now_ms + LEASE_MS))
        writes: list[Write] = []
        for thing in sorted(things):
            document = there.get(thing)
            if document is not None and _holds_off(_decode(document.body), campaign, now_ms):
                continue
            writes.append(Write(CLAIMS.name, thing, 0 if document is None else document.revision, claim))
        lost = await self._store.commit(writes) if writes else frozenset()
        return frozenset(write.id for position, write in enumerate(writes) if position not in lost)


def _holds_off(claim: _Claim, campaign: str, now_ms: int) -> bool:
    return claim.campaign != campaign and now_ms < claim.until_ms
