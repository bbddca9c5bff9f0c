"""Devices: what the utility knows of each, and where each is in its life.

A step is one compare-and-set with its audit row; what may follow what is in ``lifecycle``. What a step means
for the *thing* of this name (what it may send and hear) is done here as well: taken away before the step is
written, given back after it, and done again with every repetition, so that a crash between the two leaves a
device with fewer rights than it should have and never with more.
"""

import asyncio
from collections.abc import Collection as SizedIterable
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from infra.clock import Clock
from infra.documents.port import Collection, DocumentStore, IndexValue, StoreBrokenError
from infra.documents.records import Records
from registry import lifecycle
from registry.errors import DeviceNotFoundError, ThingNotFoundError
from registry.lifecycle import Change, Device
from registry.reach import device_target
from registry.service import NOWHERE, RegistryService
from registry.states import DeviceTrigger, Lifecycle
from security.audit import INSIDE, Via
from security.audited import Audited
from security.policy import Principal, Role, Target

__all__ = ["Device", "DevicePage", "DeviceService"]

DEVICES: Final = "devices"
COLLECTION: Final = Collection(DEVICES, ("eui64", "premises", "account", "model", "purge_at_ms"))
COPIES_MAX: Final = 2
"""Devices that one EUI-64 may have: seen by itself, and named otherwise before."""
PURGE_PAGE: Final = 100
PURGE_EVERY_S: Final = 600.0
PURGER: Final = Principal("device purge", Role.SYSTEM)
_STOPPING: Final = frozenset({DeviceTrigger.SUSPEND, DeviceTrigger.REPLACE, DeviceTrigger.RETIRE})
_BOUND: Final = frozenset({Lifecycle.REGISTERED, Lifecycle.SUSPENDED})

_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DevicePage:
    """Devices in a fixed order; ``next`` continues after the last, None = no more."""

    devices: tuple[Device, ...]
    next: str | None


class DeviceService:
    """Looks devices up and takes them through their lives."""

    def __init__(self, store: DocumentStore, clock: Clock, registry: RegistryService) -> None:
        self._records = Records(store, DEVICES, Device, _found_by)
        self._audited = Audited(self._records, clock, "device")
        self._clock = clock
        self._registry = registry

    # Reading

    async def device(self, id: str) -> Device:
        """Return a device."""
        kept = await self._records.load(id)
        if kept is None:
            raise DeviceNotFoundError(id)
        return kept.record

    async def devices(self, ids: SizedIterable[str]) -> dict[str, Device]:
        """Return the devices that are known, by id."""
        return await self._records.load_all(ids)

    async def by_eui64(self, values: SizedIterable[str]) -> dict[str, Device]:
        """Return the devices that are known, by EUI-64; of two the one that is registered."""
        found = await self._records.load_by("eui64", values, len(values) * COPIES_MAX)
        found.sort(key=lambda one: (one.lifecycle in _BOUND, one.id))
        return {one.eui64: one for one in found}

    async def at(self, premises: str, limit: int, cursor: str | None = None) -> DevicePage:
        """Return a page of the devices at premises, those of earlier ownerships too."""
        return await self._page("premises", premises, limit, cursor)

    async def of_account(self, account: str, limit: int, cursor: str | None = None) -> DevicePage:
        """Return a page of the devices that are bound to an account."""
        return await self._page("account", account, limit, cursor)

    async def of_model(self, model: str, limit: int, cursor: str | None = None) -> DevicePage:
        """Return a page of the devices of a model of the catalogue, whatever has become of them."""
        return await self._page("model", model, limit, cursor)

    async def _page(self, field: str, value: str, limit: int, cursor: str | None) -> DevicePage:
        page = await self._records.page(field, value, value, limit, cursor)
        return DevicePage(page.records, page.next)

    async def targets(self, ids: SizedIterable[str]) -> dict[str, Target]:
        """Return the facts about devices for the permission table; one that is not known has none.

        A device that is there, one of somebody else and one that is not cost the same look-ups.
        """
        devices = await self._records.load_all(ids)
        standings = await self._registry.standings(ids)
        homes = await self._registry.homes({one.premises or NOWHERE for one in devices.values()} or {NOWHERE})
        return {
            id: device_target(one, homes.get(one.premises), standings.get(id)) for id, one in devices.items()
        }

    # Writing

    async def apply(
        self,
        id: str,
        trigger: DeviceTrigger,
        by: Principal,
        via: Via = INSIDE,
        *,
        reason: str = "",
        change: Change | None = None,
        new: Device | None = None,
    ) -> Device:
        """Take a device one step on; it stays as it is in a state of ``lifecycle.SETTLED[trigger]``.

        ``change`` is what else becomes of it, in the same write. ``new`` describes one that is not known yet.
        Raises what :func:`registry.lifecycle.step` does, and then nothing has changed.
        """

        def decide(before: Device | None) -> Device:
            return lifecycle.step(
                id,
                before,
                trigger,
                at_ms=self._clock.now_ms(),
                actor=by.name,
                reason=reason,
                change=change,
                new=new,
            )

        if trigger in _STOPPING:
            kept = await self._records.load(id)
            decide(None if kept is None else kept.record)  # raises before anything is taken away
            await self._take_away(id, trigger, by, via, reason)
        device = await self._audited.change(id, decide, f"device.{trigger}", by, via, reason=reason)
        if trigger is DeviceTrigger.LIFT:
            with suppress(ThingNotFoundError):
                await self._registry.resume(id, by, via)
        return device

    async def amend(self, id: str, change: Change, by: Principal, via: Via = INSIDE) -> Device:
        """Change what is known of a device, and nothing of its life."""
        return await self._audited.change(
            id, lambda before: lifecycle.amend(id, before, change), "device.amend", by, via
        )

    async def _take_away(self, id: str, trigger: DeviceTrigger, by: Principal, via: Via, reason: str) -> None:
        # What was seen at most is no thing yet: nothing was ever taken from it or told to it.
        with suppress(ThingNotFoundError):
            if trigger is DeviceTrigger.SUSPEND:
                await self._registry.suspend(id, by, via, reason)
            else:
                await self._registry.revoke(id, by, via)

    # Beside

    async def run(self) -> None:
        """Purge what is due, every few minutes, until cancelled. A broken store alone ends it."""
        while True:
            try:
                await self.purge()
            except StoreBrokenError:
                raise
            except Exception as error:  # noqa: BLE001 - what is left is purged next time, and the service goes on
                _log.warning("devices_not_purged", reason=repr(error))
            await asyncio.sleep(PURGE_EVERY_S)

    async def purge(self) -> int:
        """Forget what sessions learned of devices that were left out a day ago; return of how many."""
        now_ms, purged = self._clock.now_ms(), 0
        while due := (await self._records.page("purge_at_ms", 0, now_ms, PURGE_PAGE)).records:
            for device in due:
                await self._audited.change(
                    device.id, lambda before: _purged(before, now_ms), "device.purge", PURGER
                )
            purged += len(due)
        return purged


def _purged(before: Device | None, now_ms: int) -> Device:
    assert before is not None, "devices are never deleted"
    return lifecycle.purge(before, now_ms)


def _found_by(device: Device) -> Mapping[str, IndexValue]:
    words = {
        "eui64": device.eui64,
        "premises": device.premises,
        "account": device.account,
        "model": device.model,
    }
    index: dict[str, IndexValue] = {field: word for field, word in words.items() if word}
    if device.purge_at_ms is not None:
        index["purge_at_ms"] = device.purge_at_ms
    return index
