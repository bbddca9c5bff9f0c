"""What happens to equipment that is in: meters and devices are exchanged, customers move, HANs are cleared.

Each is one document, written before anything is done, and then seen to until it is done: every step is "see
to it that …", begins at the top again after a crash, and does nothing twice. A change that was asked for
under the same key is the same change. (spec: han, 7)
"""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import msgspec
import structlog

from infra.clock import MS_PER_S, Clock
from infra.documents.port import (
    Collection,
    DocumentStore,
    IndexValue,
    StoreBrokenError,
    StoreUnavailableError,
)
from infra.documents.records import Records
from infra.holdoff import HoldOff
from infra.ids import encode
from infra.machines import IllegalTransitionError
from infra.settings.model import ShadowLimits
from provisioning import acts, han, records
from provisioning.asking import Ask
from provisioning.errors import (
    GatewayCapacityError,
    IdempotencyMismatchError,
    InvalidRequestError,
    ProvisioningError,
)
from provisioning.executor import BOUND, SYSTEM, Executor
from provisioning.grants import LinkKeys, info
from provisioning.han import Han
from provisioning.hans import ORIGIN, Hans
from provisioning.ports import Belongings, Outgoing, Programs, WillNotWorkError
from provisioning.routes import RouteKeeper
from provisioning.session import Proof, Record, Session, without_words
from provisioning.store import SessionStore
from provisioning.tidying import DONE
from registry.devices import Device, DeviceService
from registry.errors import AttachmentNotFoundError, MeterExchangedError, ThingNotFoundError
from registry.gateways import GatewayService
from registry.meters import Meter, MeterService
from registry.models import Owner
from registry.service import RegistryService
from registry.states import DeviceTrigger, Lifecycle
from security.audited import Audited
from security.policy import Action
from shadow.commands import update
from shadow.document import ShadowId, Tree
from shadow.errors import NoShadowError, ShadowError, TooManyRequestsError, UnavailableError
from shadow.service import ShadowService

MOVES: Final = Collection("moves", ("due_ms", "premises"))
PAGE: Final = 200
POLL_S: Final = 2.0
RETRY_MS: Final = 5_000
"""After which somebody looks again at what could not be finished."""
JOIN_S: Final = 3_600
"""How long the new meter's gateway lets the devices of the old one join."""
REPLACE_MS: Final = 3_600_000
"""How long a gateway is waited for to speak for a successor."""
OFF_MS: Final = 600_000
"""How long devices of a customer who has moved out are waited for to hear that their programs are over."""
AHEAD_MS_MAX: Final = 400 * 86_400_000
SESSIONS_MAX: Final = 500
THINGS_MAX: Final = 64

_log: Final = structlog.get_logger(__name__)


class MoveKind(StrEnum):
    """What is changed."""

    EXCHANGE = "exchange"
    """A meter comes in place of another, and with it a gateway."""
    REPLACEMENT = "replacement"
    """A device takes the place of another."""
    MOVE_OUT = "move_out"
    """A customer leaves premises."""


class MoveState(StrEnum):
    """Whether it is done."""

    WORKING = "working"
    DONE = "done"
    PARTIAL = "partial"
    """As far as it went: ``missing`` says what did not come along in time."""


class MoveNotFoundError(ProvisioningError):
    """No change of this id."""

    def __init__(self, id: str) -> None:
        super().__init__("there is no change of this id")
        self.id = id


class NotReplaceableError(ProvisioningError):
    """The two devices are not such that one can take the place of the other."""


class ConfirmationNeededError(ProvisioningError):
    """It was not said twice that everything is to go."""

    def __init__(self) -> None:
        super().__init__("this takes every device away from the gateway: say so again to confirm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One change. ``old`` and ``new`` are meters, devices, or the account that leaves."""

    id: str
    kind: MoveKind
    premises: str
    old: str
    new: str = ""
    meter: Meter | None = None
    """The new one."""
    work_order: str = ""
    gateway: str = ""
    """The new meter's."""
    from_gateway: str = ""
    """The old meter's."""
    account: str = ""
    at_ms: int
    made_by: str
    made_at_ms: int
    digest: str = ""
    state: MoveState = MoveState.WORKING
    things: tuple[str, ...] = ()
    """Who is moved."""
    missing: tuple[str, ...] = ()
    granted: tuple[str, ...] = ()
    """EUI-64 of those whose key the new gateway has."""
    seq: int = 0
    """Of the window in which they join."""
    until_ms: int = 0
    due_ms: int = 0


class Moves:
    """Makes changes and sees them through."""

    def __init__(
        self,
        store: DocumentStore,
        clock: Clock,
        *,
        registry: RegistryService,
        gateways: GatewayService,
        devices: DeviceService,
        meters: MeterService,
        sessions: SessionStore,
        shadows: ShadowService,
        limits: ShadowLimits,
        hans: Hans,
        routes: RouteKeeper,
        keys: LinkKeys,
        executor: Executor,
        programs: Programs,
        belongings: Belongings,
        outgoing: Outgoing,
    ) -> None:
        self._records = Records(store, MOVES.name, Move, _found_by)
        self._audited = Audited(self._records, clock, "move")
        self._held = HoldOff(clock)
        self._clock = clock
        self._registry = registry
        self._gateways = gateways
        self._devices = devices
        self._meters = meters
        self._sessions = sessions
        self._shadows = shadows
        self._limits = limits
        self._hans = hans
        self._routes = routes
        self._keys = keys
        self._executor = executor
        self._programs = programs
        self._belongings = belongings
        self._outgoing = outgoing

    async def move(self, id: str) -> Move:
        """Return a change and how far it is."""
        kept = await self._records.load(id)
        if kept is None:
            raise MoveNotFoundError(id)
        return kept.record

    # Asking

    async def exchange(self, old: str, new: Meter, at_ms: int, work_order: str, ask: Ask) -> Move:
        """Put a meter in place of another: its devices, with their keys, go to the new one's gateway.

        Raises:
            GatewayCapacityError: the new one takes fewer devices than the old one has; nothing was changed.
        """
        before = await self._meters.meter(old)
        await self._check_at(before.premises, before.gateway, new.gateway)
        things = await self._things_of(before.gateway)
        if before.went is not None:
            # Asked for again, because something was missing: what has come along already counts too.
            things = tuple(dict.fromkeys((*things, *await self._things_of(new.gateway))))
        if before.went is not None and before.went.other != new.id:
            raise MeterExchangedError(old, before.went.other)
        await self._check_room(before.gateway, new.gateway, things)
        return await self._begin(
            ask,
            Action.METER_EXCHANGE,
            Move(
                id=ask.id("mx-"),
                kind=MoveKind.EXCHANGE,
                premises=before.premises,
                old=old,
                new=new.id,
                meter=new,
                work_order=work_order,
                gateway=new.gateway,
                from_gateway=before.gateway,
                at_ms=at_ms,
                made_by=ask.by.name,
                made_at_ms=self._clock.now_ms(),
                things=things,
            ),
        )

    async def replace(self, old: str, new: str, ask: Ask) -> Move:
        """Let a device that has proved itself take the place of another one of the same customer.

        Raises:
            NotReplaceableError: they are not such that this can be.
        """
        before, after = await self._devices.device(old), await self._devices.device(new)
        if old == new or before.lifecycle not in (Lifecycle.REGISTERED, Lifecycle.REPLACED):
            raise NotReplaceableError("only a registered device has a place to take")
        if after.premises != before.premises or after.lifecycle not in (
            Lifecycle.AUTHENTICATED,
            Lifecycle.REGISTERED,
        ):
            raise NotReplaceableError(
                "the new device has to be at the same premises, and to have proved itself"
            )
        return await self._begin(
            ask,
            Action.SESSION_WORK,
            Move(
                id=ask.id("rp-"),
                kind=MoveKind.REPLACEMENT,
                premises=before.premises,
                account=before.account,
                old=old,
                new=new,
                at_ms=self._clock.now_ms(),
                made_by=ask.by.name,
                made_at_ms=self._clock.now_ms(),
            ),
        )

    async def move_out(self, premises: str, account: str, at_ms: int, ask: Ask) -> Move:
        """Let a customer leave premises: what is theirs leaves with them, what is the utility's stays."""
        place = await self._registry.premises(premises)
        if place.account not in ("", account):
            raise InvalidRequestError("account: these premises belong to another one")
        now_ms = self._clock.now_ms()
        if at_ms > now_ms + AHEAD_MS_MAX:
            raise InvalidRequestError("at: 400 days ahead at most")
        return await self._begin(
            ask,
            Action.PREMISES_WRITE,
            Move(
                id=ask.id("mo-"),
                kind=MoveKind.MOVE_OUT,
                premises=premises,
                old=account,
                account=account,
                at_ms=at_ms,
                made_by=ask.by.name,
                made_at_ms=now_ms,
                until_ms=max(at_ms, now_ms) + OFF_MS,
                due_ms=max(at_ms, now_ms),
            ),
        )

    async def clear(self, gateway: str, things: Sequence[str], ask: Ask, *, confirmed: bool = False) -> None:
        """Take devices away from a gateway; without any named all of them, if that is said twice."""
        report = await self._hans.of(gateway)
        if not things:
            if not confirmed:
                raise ConfirmationNeededError
            things = sorted({*await self._things_of(gateway), *report.wanted})
        for thing in things:
            asked = report.wanted.get(thing)
            # Known to the keeper first: it sees to it that the gateway forgets.
            await self._routes.ensure(thing, "" if asked is None else asked.eui64)
            with suppress(AttachmentNotFoundError):
                await self._registry.detach(gateway, thing, ask.by, ask.via)
            await self._routes.reconcile(thing)

    # Seeing to it

    async def run(self) -> None:
        """See to whatever is due, until cancelled. A broken store alone ends it."""
        while True:
            try:
                await self.pass_once()
            except StoreBrokenError:
                raise
            except Exception as error:  # noqa: BLE001 - seen to in a moment, and the service goes on
                _log.warning("moves_not_seen_to", reason=repr(error))
            await asyncio.sleep(POLL_S)

    async def pass_once(self) -> None:
        """See once to all that is due."""
        due = await self._records.page("due_ms", 1, self._clock.now_ms(), PAGE)
        for id in self._held.free(due.ids):
            await self.see_to(id)

    async def see_to(self, id: str) -> None:
        """Do what can be done of a change now."""
        kept = await self._records.load(id)
        if kept is None or kept.record.state is not MoveState.WORKING:
            return
        try:
            after = await self._work(kept.record)
        except StoreBrokenError:
            raise
        except Exception as error:  # noqa: BLE001 - the others do not wait for it, and it is seen to again
            _log.warning("move_not_seen_to", move=id, reason=repr(error))
            if not isinstance(error, StoreUnavailableError):  # that is not its fault
                self._held.failed(id)
            after = kept.record
        else:
            self._held.worked(id)
        if after.state is MoveState.WORKING:
            after = replace(after, due_ms=self._clock.now_ms() + RETRY_MS)
        await self._records.put(id, after, kept.revision)

    async def _begin(self, ask: Ask, action: Action, made: Move) -> Move:
        made = replace(made, digest=ask.digest, due_ms=made.due_ms or self._clock.now_ms())
        kept = await self._audited.change(made.id, lambda before: before or made, action, ask.by, ask.via)
        if kept.digest != ask.digest:
            raise IdempotencyMismatchError
        if kept.due_ms <= self._clock.now_ms():
            await self.see_to(kept.id)
        return await self.move(made.id)

    async def _work(self, move: Move) -> Move:
        match move.kind:
            case MoveKind.EXCHANGE:
                return await self._exchange(move)
            case MoveKind.REPLACEMENT:
                return await self._replace(move)
            case MoveKind.MOVE_OUT:
                return await self._move_out(move)

    # A meter

    async def _exchange(self, move: Move) -> Move:
        """Attach all to the new gateway, let them join there, and take the old one's rights away."""
        assert move.meter is not None, "an exchange has a new meter"
        await self._meters.exchange(
            move.old, move.meter, SYSTEM, at_ms=move.at_ms, work_order=move.work_order
        )
        if not move.things or move.gateway == move.from_gateway:
            # Nobody has to go anywhere: the gateway stays as well, or had nobody.
            await self._bar_old_gateway(move)
            await self._tell_exchange(move)
            return _done(move)
        if move.seq == 0:
            return await self._asked_for(move)
        report = await self._hans.of(move.gateway)
        known = await self._devices.devices(move.things)
        keys = await self._keys.of([one.eui64 for one in known.values() if one.eui64])
        for thing in move.things:
            await self._hand_over(move, thing, known.get(thing))
        over = self._clock.now_ms() >= move.until_ms
        if not over:
            move = await self._let_join(move, report, keys)
        # A gateway may say that it speaks for a device which cannot join it yet.
        keyed = {one.id for one in known.values() if one.eui64 in keys and one.eui64 not in move.granted}
        missing = tuple(thing for thing in move.things if thing in keyed or not _is_on(report, thing))
        if missing and not over:
            return replace(move, missing=missing)
        await self._bar_old_gateway(move)
        if not await self._closed(move, await self._hans.of(move.gateway), over):
            return replace(move, missing=missing)
        await self._tell_exchange(move)
        return _done(replace(move, missing=missing))

    async def _bar_old_gateway(self, move: Move) -> None:
        """Take all rights from the gateway that went with the old meter."""
        if move.from_gateway and move.from_gateway != move.gateway:
            with suppress(ThingNotFoundError):
                await self._registry.revoke(move.from_gateway, SYSTEM)

    async def _asked_for(self, move: Move) -> Move:
        """Give the window its number, durably, before it is asked for."""
        report, now_s = await self._hans.of(move.gateway), self._clock.now_ms() // MS_PER_S
        return replace(move, seq=max(report.seq + 1, now_s), until_ms=(now_s + JOIN_S) * MS_PER_S)

    async def _hand_over(self, move: Move, thing: str, device: Device | None) -> None:
        """Let the new gateway speak for a device, then the old one no more."""
        gateways = {one.gateway for one in await self._registry.gateways_of(thing)}
        if move.gateway not in gateways:
            await self._registry.attach(move.gateway, thing, SYSTEM)
        await self._routes.ensure(thing, "" if device is None else device.eui64)
        if move.from_gateway in gateways:
            with suppress(AttachmentNotFoundError):
                await self._registry.detach(move.from_gateway, thing, SYSTEM)
            await self._routes.reconcile(thing)

    async def _let_join(self, move: Move, report: Han, keys: Mapping[str, str]) -> Move:
        """Open the window and give each device whose key we have leave to join in it."""
        until_s = move.until_ms // MS_PER_S
        if not move.granted and (report.wanted_window is None or report.wanted_window.seq < move.seq):
            await self._hans.patch(move.gateway, han.open_window(move.seq, until_s, "grants"))
        window = report.window
        if window is None or window.seq != move.seq or not window.open or not window.seal_key:
            return move
        for eui64, sealed in sorted(keys.items()):
            id = "g-" + encode(hashlib.sha256(f"{move.id}{eui64}".encode()).digest()[:10])
            if report.wanted_grants.get(eui64) != id:
                for_it = self._keys.for_window(eui64, sealed, window.seal_key, info(id, eui64, until_s))
                patch = han.grant(eui64, id, Proof.INSTALL_CODE, for_it, until_s)
                await self._hans.patch(move.gateway, patch)
        return replace(move, granted=tuple(sorted(keys)))

    async def _closed(self, move: Move, report: Han, over: bool) -> bool:
        """End the window; True once it is out of the shadow."""
        wanted = report.wanted_window
        if wanted is None or wanted.seq != move.seq:
            return True
        now_s = self._clock.now_ms() // MS_PER_S
        still_open = report.window is not None and report.window.seq == move.seq and report.window.open
        if wanted.until_s > now_s:
            await self._hans.patch(move.gateway, han.shorten_window(now_s))
        elif over or not still_open:
            await self._hans.patch(move.gateway, han.close_window())
        return False

    async def _tell_exchange(self, move: Move) -> None:
        body = {"old": move.old, "new": move.new, "premises": move.premises, "devices": list(move.things)}
        await self._tell(move, records.METER_EXCHANGED, "exchanged", body)

    async def _check_at(self, premises: str, *gateways: str) -> None:
        """Refuse meters whose gateway is another home's: it would lose its rights, or get devices."""
        known = await self._gateways.gateways([one for one in gateways if one])
        for one in known.values():
            if one.premises != premises:
                raise InvalidRequestError(f"{one.id}: the gateway of a meter is at the meter's premises")

    async def _check_room(self, old: str, new: str, things: Sequence[str]) -> None:
        """Refuse an exchange that would leave devices behind, before anything is changed."""
        if not things:
            return
        if not new:
            raise GatewayCapacityError(
                f"the new meter has no gateway for {len(things)} devices of the old one"
            )
        if old == new:
            return
        await self._gateways.gateway(new)
        load_control = await self._executor.controlling(things)
        try:
            await self._executor.check_room(new, "", (), grants=len(things), load_control=load_control)
        except WillNotWorkError as error:
            raise GatewayCapacityError(error.code.partition(": ")[2]) from error

    # A device

    async def _replace(self, move: Move) -> Move:
        """Bring the successor in, then give it the programs of the old one, then let the old one go."""
        old, new = await self._devices.device(move.old), await self._devices.device(move.new)
        if new.lifecycle is not Lifecycle.REGISTERED and not await self._brought_in(move, old, new):
            late = self._clock.now_ms() >= move.made_at_ms + REPLACE_MS
            return replace(move, state=MoveState.PARTIAL, missing=(move.new,), due_ms=0) if late else move
        if old.lifecycle is not Lifecycle.REPLACED:
            await self._programs.carry_over(move.old, move.new, move.account, move.premises)
            if not await self._programs.end_all(move.old, "replaced"):
                return move
            await self._devices.apply(
                move.old,
                DeviceTrigger.REPLACE,
                SYSTEM,
                reason=move.id,
                change=lambda before: replace(before, successor=move.new),
            )
        await self._carry_over(move)
        await self._let_go(move.old, old.eui64)
        body = {"device": move.old, "successor": move.new, "account": move.account, "why": "replaced"}
        await self._tell(move, records.DEVICE_REMOVED, "removed", body)
        return _done(move)

    async def _carry_over(self, move: Move) -> None:
        """Give the successor the configuration of the old one, as far as it takes it."""
        try:
            await self._belongings.carry_over(move.old, move.new)
        except (UnavailableError, TooManyRequestsError):
            raise  # not now: the move is seen to again
        except ShadowError as error:
            # What does not fit there keeps no successor waiting; a snapshot has it for whoever asks.
            _log.warning("configuration_not_carried_over", move=move.id, reason=str(error))

    async def _brought_in(self, move: Move, old: Device, new: Device) -> bool:
        """Attach the successor where the old one is, and register it once a gateway says so."""
        gateways = [one.gateway for one in await self._registry.gateways_of(move.old)]
        things = await self._registry.standings([move.new])
        if move.new not in things:
            await self._executor.make_thing(move.new, new.model, move.premises)
        for gateway in gateways:
            await self._registry.attach(gateway, move.new, SYSTEM)
        await self._routes.ensure(move.new, new.eui64)
        reports = await self._hans.of_all(gateways)
        if gateways and not any(_is_on(report, move.new) for report in reports.values()):
            return False

        def bound(before: Device) -> Device:
            return replace(
                before,
                account=move.account,
                premises=move.premises,
                premises_epoch=old.premises_epoch,
                name=old.name,
                location=old.location,
                predecessor=move.old,
            )

        await self._devices.apply(move.new, DeviceTrigger.REGISTER, SYSTEM, reason=move.id, change=bound)
        return True

    # A customer

    async def _move_out(self, move: Move) -> Move:
        """End what the customer takes part in, let their devices go with them, and forget their words."""
        await self._end_session(move)
        mine = await self._theirs(move)
        over = self._clock.now_ms() >= move.until_ms
        waiting = [one for one in mine if not await self._programs.end_all(one.id, "moved out")]
        place = await self._registry.premises(move.premises)
        if place.account == move.account:
            # From here on nobody of the old account sees anything here.
            await self._registry.hand_over(move.premises, "", SYSTEM)
        if waiting and not over:
            return replace(move, missing=tuple(one.id for one in waiting))
        for device in mine:
            await self._part_with(move, device)
        await self._let_gateways_go(move)
        await self._forget_words(move)
        return _done(replace(move, missing=tuple(one.id for one in waiting)))

    async def _end_session(self, move: Move) -> None:
        holder = (await self._registry.premises(move.premises)).open_session
        if not holder or await self._executor.is_finished(holder):
            return
        kept = await self._sessions.load(holder)
        if kept is not None and _is_of(kept.record, move):
            now_ms = self._clock.now_ms()
            with suppress(IllegalTransitionError):
                ended = acts.abort(kept.record, "moved out", now_ms, move.made_by)
                await self._sessions.put(replace(ended, due_ms=now_ms), kept.revision)

    async def _theirs(self, move: Move) -> list[Device]:
        """Return the devices that are bound to who leaves, at these premises."""
        found: list[Device] = []
        cursor: str | None = None
        while True:
            page = await self._devices.of_account(move.account, PAGE, cursor)
            found += (one for one in page.devices if one.premises == move.premises and one.lifecycle in BOUND)
            cursor = page.next
            if cursor is None:
                return found

    async def _part_with(self, move: Move, device: Device) -> None:
        await self._reset(device.id)
        await self._belongings.forget(device.id)
        body = {"device": device.id, "account": move.account, "ownership": device.owner, "why": "moved out"}
        await self._tell(move, records.DEVICE_REMOVED, device.id, body)
        if device.owner is not Owner.UTILITY:
            await self._let_go(device.id, device.eui64)
            await self._remove(device.id)
        # Last: until it is so, all of this is done again.
        await self._devices.apply(device.id, DeviceTrigger.DEREGISTER, SYSTEM, reason=move.id)

    async def _let_gateways_go(self, move: Move) -> None:
        """Let the customer's own gateways go with them: who moves in must not be served by another's hub."""
        there = await self._gateways.at(move.premises)
        standings = await self._registry.standings([one.id for one in there])
        for name, standing in standings.items():
            theirs = standing.thing.owner is Owner.CUSTOMER
            if theirs and standing.thing.registered_at_ms <= move.until_ms - OFF_MS:
                await self._remove(name)

    async def _remove(self, thing: str) -> None:
        await self._shadows.forget(thing)
        await self._belongings.forget(thing)
        with suppress(ThingNotFoundError):
            await self._registry.remove(thing, SYSTEM)
        await self._shadows.forget(thing)

    async def _reset(self, thing: str) -> None:
        """Take back what the utility has configured."""
        id = ShadowId(thing, "config")
        with suppress(NoShadowError):
            if (await self._shadows.view(id)).desired.state:
                state: Tree = {"desired": None}
                payload = msgspec.json.encode(state)
                await self._shadows.submit([update(id, ORIGIN, state, self._limits, None, payload)])

    async def _forget_words(self, move: Move) -> None:
        """Take the customer's words out of the sessions that were held here for them."""
        for session in (await self._sessions.at(move.premises, SESSIONS_MAX)).sessions:
            kept = await self._sessions.load(session.id)
            if kept is not None and kept.record.state in DONE and _is_of(kept.record, move):
                bare = without_words(kept.record)
                if bare != kept.record:
                    await self._sessions.put(bare, kept.revision)

    # Parts

    async def _let_go(self, thing: str, eui64: str) -> None:
        """Take a device away from all gateways, and its key out of the world."""
        for pair in await self._registry.gateways_of(thing):
            with suppress(AttachmentNotFoundError):
                await self._registry.detach(pair.gateway, thing, SYSTEM)
        await self._routes.reconcile(thing)
        if eui64:
            await self._keys.destroy(eui64, SYSTEM)

    async def _things_of(self, gateway: str) -> tuple[str, ...]:
        if not gateway:
            return ()
        page = await self._registry.attached_to(gateway, THINGS_MAX)
        return tuple(one.thing for one in page.attachments)

    async def _tell(self, move: Move, kind: str, what: str, body: Mapping[str, object]) -> None:
        record: Record = records.record(f"{move.id}/{what}", kind, move.at_ms, body)
        await self._outgoing.put(move.premises, [record])


def _done(move: Move) -> Move:
    return replace(move, state=MoveState.PARTIAL if move.missing else MoveState.DONE, due_ms=0)


def _is_of(session: Session, move: Move) -> bool:
    """Tell whether a session was held for who moves out: others may have moved in meanwhile."""
    return session.account == move.account


def _is_on(report: Han, thing: str) -> bool:
    said = report.attached.get(thing)
    return said is not None and said.state == han.ON


def _found_by(move: Move) -> dict[str, IndexValue]:
    index: dict[str, IndexValue] = {"premises": move.premises}
    if move.due_ms:
        index["due_ms"] = move.due_ms
    return index
