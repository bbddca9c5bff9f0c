"""Ends the sessions of things whose certificates have all run out: a broker looks at one only at the connect.

Which certificates have run out is one bounded search a sweep; each is settled once nothing of it is left to
end, so that a crash or a silent broker in between has it found again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from infra.clock import Clock
from infra.documents.port import StoreBrokenError
from security.trust.issued import IssuedRecord, IssuedStore
from security.trust.revocation import BrokerControlError

SWEEP_S: Final = 300.0
"""How long a session may outlive the last certificate of its thing, beside what a silent broker adds."""

_log: Final = structlog.get_logger(__name__)

Kick = Callable[[str], Awaitable[None]]
"""Ends every session of a thing, or raises :class:`BrokerControlError`."""


class Expiry:
    """Looks for what has run out. Belongs beside the broker whose sessions it ends."""

    def __init__(self, issued: IssuedStore, clock: Clock, kick: Kick) -> None:
        self._issued = issued
        self._clock = clock
        self._kick = kick

    async def run(self) -> None:
        """Sweep until cancelled; a broken store alone ends it."""
        while True:
            try:
                await self.sweep()
            except StoreBrokenError:
                raise
            except Exception as error:  # noqa: BLE001 - found again next time, and the service goes on
                _log.warning("expired_sessions_wait", reason=repr(error))
            await asyncio.sleep(SWEEP_S)

    async def sweep(self) -> None:
        """Do that once, for a page of certificates; one whose session may be left comes again."""
        for record in await self._issued.ran_out():
            try:
                if not await self._has_another(record):
                    await self._kick(record.thing)
            except BrokerControlError as error:
                _log.warning("session_not_ended", thing=record.thing, reason=str(error))
                continue
            await self._issued.settle(record.serial)

    async def _has_another(self, record: IssuedRecord) -> bool:
        now_ms = self._clock.now_ms()
        return any(one.is_good(now_ms) for one in await self._issued.not_revoked(record.thing))
