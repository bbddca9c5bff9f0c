"""How many proofs of one device may be entered: in all sessions together, or a new session would begin anew.

A try is counted before what was entered is used, and never taken back: a count that comes after can be left
out by who stops in between.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from infra.clock import MS_PER_S, Clock
from infra.documents.port import Collection, DocumentStore, IndexValue
from infra.documents.records import SAVE_ATTEMPTS_MAX, Records
from provisioning.errors import CredentialLockedError, SessionBusyError
from provisioning.session import HOUR_MS, MINUTE_MS

PROOF_TRIES: Final = Collection("proof_tries", ("over_ms",))
TRY_SPAN_MS: Final = 15 * MINUTE_MS
TRIES_MAX: Final = 5
"""Proofs of one device within :data:`TRY_SPAN_MS`; the one after locks it for :data:`LOCK_MS`."""
LOCK_MS: Final = HOUR_MS
SWEEP_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class Tries:
    """When proofs of a device were entered, lately."""

    at_ms: tuple[int, ...] = ()


def locked_until_ms(tries: Tries, now_ms: int) -> int:
    """Return until when no proof of a device may be entered; a time of the past: one may."""
    lately = [at_ms for at_ms in tries.at_ms if at_ms > now_ms - LOCK_MS]
    spans = (lately[first : first + TRIES_MAX] for first in range(len(lately) - TRIES_MAX + 1))
    full = [span[-1] for span in spans if span[-1] - span[0] < TRY_SPAN_MS]
    return full[-1] + LOCK_MS if full else 0


class ProofTries:
    """Counts the proofs that are entered, by device."""

    def __init__(self, store: DocumentStore, clock: Clock) -> None:
        self._records = Records(store, PROOF_TRIES.name, Tries, _found_by)
        self._clock = clock

    async def take(self, devices: Sequence[str]) -> None:
        """Count one try of each of these; of none, where one of them is locked.

        Raises:
            CredentialLockedError: too many were entered for a device.
        """
        known, now_ms = await self._records.load_all(devices), self._clock.now_ms()
        for device in devices:
            _require(device, known.get(device, Tries()), now_ms)
        for device in devices:
            await self._count(device)

    async def sweep(self) -> int:
        """Forget tries that mean nothing any more; return of how many devices."""
        return await self._records.sweep("over_ms", self._clock.now_ms(), SWEEP_MAX)

    async def _count(self, device: str) -> None:
        for _ in range(SAVE_ATTEMPTS_MAX):
            kept, now_ms = await self._records.load(device), self._clock.now_ms()
            before = Tries() if kept is None else kept.record
            _require(device, before, now_ms)  # others may have entered one meanwhile
            after = Tries((*before.at_ms, now_ms)[-TRIES_MAX:])
            if await self._records.put(device, after, 0 if kept is None else kept.revision):
                return
        raise SessionBusyError


def _require(device: str, tries: Tries, now_ms: int) -> None:
    locked_ms = locked_until_ms(tries, now_ms) - now_ms
    if locked_ms > 0:
        raise CredentialLockedError(device, -(-locked_ms // MS_PER_S))


def _found_by(tries: Tries) -> dict[str, IndexValue]:
    return {"over_ms": tries.at_ms[-1] + LOCK_MS}
