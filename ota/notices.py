"""Tells customers, by the customer care system, that equipment has to be replaced: it takes no firmware.

The notice is owed from the commit that made its target REPLACEMENT_REQUIRED, and is copied to the outbox
under the key of device and release: whatever crashes in between, and however many campaigns bring that
release, the customer hears of it once. (spec: ota, 3.4, 10)
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Final

import msgspec
import structlog

from infra.clock import Clock
from infra.documents.port import StoreUnavailableError
from infra.lanes import LaneFullError
from infra.outbox import Item, Outbox
from ota.executions import Tell, ThingJobs, told
from ota.lane import Change, Commit, Decision, ExecutionLane, Failed
from ota.models import Execution
from ota.watcher import Orders
from registry.devices import Device, DeviceService

NOTIFY: Final = "notify.customer"
TEMPLATE: Final = "replacement_required"
KNOWN_TO_CARE: Final = "customer"
"""Language and channel: those that the customer care system knows the customer to prefer."""
WAITING_MAX: Final = 20_000
"""Targets that are owed a notice and known here; what is more is found in the store."""
LOOK_S: Final = 600.0
"""How often the store is asked what is owed: after a crash, and for what another process left."""
RETRY_S: Final = 5.0

_log: Final = structlog.get_logger(__name__)
_encode: Final = msgspec.json.Encoder(order="sorted").encode


class Notices:
    """Runs until cancelled."""

    def __init__(
        self, lane: ExecutionLane, orders: Orders, outbox: Outbox, devices: DeviceService, clock: Clock
    ) -> None:
        self._lane = lane
        self._orders = orders
        self._outbox = outbox
        self._devices = devices
        self._clock = clock
        self._owed: dict[str, Execution] = {}
        self._told = asyncio.Event()
        lane.listen(self._moved)

    async def run(self) -> None:
        """Put what is owed into the outbox, until cancelled. A broken store alone ends it."""
        looked_s: float | None = None
        while True:
            try:
                if looked_s is None or self._clock.elapsed_s() - looked_s >= LOOK_S:
                    await self.recover()
                    looked_s = self._clock.elapsed_s()
                await self.send()
            except (StoreUnavailableError, LaneFullError) as error:
                _log.warning("replacement_notices_wait", reason=str(error))
                await asyncio.sleep(RETRY_S)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._told.wait()

    async def recover(self) -> None:
        """Find in the store what is owed."""
        cursor: str | None = None
        while True:
            page = await self._lane.pending(cursor)
            self._note(page.executions)
            cursor = page.next
            if cursor is None:
                return

    async def send(self) -> None:
        """Copy what is owed to the outbox, and note that it is there.

        Raises:
            StoreUnavailableError: some of it may still be owed.
            LaneFullError: so much waits for some premises that theirs is still owed; all others have theirs.
        """
        self._told.clear()
        if not self._owed:
            return
        wanted = await self._orders.wanted({one.campaign for one in self._owed.values()})
        owed = [one for one in self._owed.values() if one.campaign in wanted]
        devices = await self._devices.devices({one.thing for one in owed})
        by_premises = defaultdict[str, list[Execution]](list)
        for one in owed:
            by_premises[devices[one.thing].premises if one.thing in devices else ""].append(one)
        full: LaneFullError | None = None
        there: list[Execution] = []
        for some in by_premises.values():
            items = [
                _item(one, wanted[one.campaign].release, devices[one.thing], self._clock.now_ms())
                for one in some
                if one.thing in devices and devices[one.thing].account
            ]
            try:
                await self._outbox.put(items)
            except LaneFullError as error:
                full = error  # others do not wait for it
            else:
                there += some
        await self._note_there(there)
        if full is not None:
            raise full

    async def _note_there(self, told: Sequence[Execution]) -> None:
        answers = await self._lane.submit([_done(one) for one in told])
        for one, answer in zip(told, answers, strict=True):
            if isinstance(answer, Failed):
                raise StoreUnavailableError(str(answer.error)) from answer.error
            del self._owed[one.id]

    def _moved(self, commits: Sequence[Commit]) -> None:
        self._note([after for _, after in commits])

    def _note(self, executions: Collection[Execution]) -> None:
        for one in executions:
            if one.untold & Tell.NOTICE and len(self._owed) < WAITING_MAX:
                self._owed[one.id] = one
                self._told.set()


def _item(execution: Execution, release: str, device: Device, now_ms: int) -> Item:
    """Return the notice to a customer: names only, no ids of things and no address."""
    body = {
        "template": TEMPLATE,
        "language": KNOWN_TO_CARE,
        "channel": KNOWN_TO_CARE,
        "account": device.account,
        "devices": [{"name": device.name, "location": device.location}],
    }
    made_at_ms = execution.updated_at_ms or now_ms
    return Item(f"replacement/{device.id}/{release}", device.premises, NOTIFY, _encode(body), made_at_ms)


def _done(execution: Execution) -> Change[None]:
    def decide(now: ThingJobs, now_ms: int) -> Decision[None]:  # noqa: ARG001 - the lane's signature
        there = now.find(execution.campaign)
        if there is None or not there.untold & Tell.NOTICE:
            return Decision(None)
        return Decision(None, (told(there, Tell.NOTICE),))

    return Change(execution.thing, decide, (execution.campaign,))
