"""Carries out what sessions want. Dull on purpose: each effect is "see to it that …", and may come again.

What cannot be done now (busy, the store is silent) raises, and is wanted again at the next look. What will
never work is noted for the device it concerns (:attr:`Outcome.refused`), which then has failed.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from infra.lanes import LaneFullError
from infra.machines import IllegalTransitionError
from programs.errors import ProgramsBusyError
from provisioning import han
from provisioning.effects import (
    Alarm,
    AttachDevice,
    CopyRecords,
    DetachDevice,
    Effect,
    EndEnrolment,
    Enrol,
    GiveConsent,
    GiveGrant,
    KeepKey,
    PatchHan,
    RegisterDevice,
    ReleasePremises,
    RetryEnrolment,
    TakePremises,
    TellLeftOut,
    TellProved,
    TellSeen,
)
from provisioning.grants import BadSealKeyError, LinkKeys, info
from provisioning.hans import HanRefusedError, Hans
from provisioning.ports import Outgoing, Programs, WillNotWorkError
from provisioning.routes import RouteKeeper, RoutesBusyError
from provisioning.session import Session, SessionDevice
from provisioning.store import SessionStore
from provisioning.tidying import DONE
from registry.catalogue import ModelCatalogue
from registry.devices import Device, DeviceService
from registry.errors import (
    AttachmentNotFoundError,
    ConflictError,
    DeviceNotFoundError,
    GatewayNotFoundError,
    RegistryBusyError,
    RegistryError,
    ThingExistsError,
)
from registry.gateways import Gateway, GatewayService, capacity_refusal
from registry.models import NewThing, ThingKind
from registry.service import RegistryService
from registry.states import DeviceTrigger, Lifecycle
from security.audited import RecordBusyError
from security.policy import Principal, Role
from security.trust.issued import IssuedStore
from shadow.errors import ShadowError
from shadow.service import ShadowService

SYSTEM: Final = Principal("provisioning", Role.SYSTEM)
GATEWAY_CAPACITY: Final = "GATEWAY_CAPACITY"
IN_USE: Final = "IN_USE"
ATTACHED_MAX: Final = 64
BOUND: Final = frozenset({Lifecycle.REGISTERED, Lifecycle.SUSPENDED})
LATER: Final = (
    HanRefusedError,
    LaneFullError,
    ProgramsBusyError,
    RecordBusyError,
    RegistryBusyError,
    RoutesBusyError,
    ShadowError,
)
"""What may be done at another time."""
CONTROLS_LOAD: Final = "load."

_log: Final = structlog.get_logger(__name__)


@dataclass(slots=True)
class Outcome:
    """What came of a list of effects."""

    refused: dict[str, str] = field(default_factory=dict)
    copied: set[str] = field(default_factory=set)


class Executor:
    """Carries out effects."""

    def __init__(
        self,
        *,
        sessions: SessionStore,
        registry: RegistryService,
        gateways: GatewayService,
        devices: DeviceService,
        models: ModelCatalogue,
        shadows: ShadowService,
        hans: Hans,
        routes: RouteKeeper,
        keys: LinkKeys,
        issued: IssuedStore,
        programs: Programs,
        outgoing: Outgoing,
    ) -> None:
        self._sessions = sessions
        self._registry = registry
        self._gateways = gateways
        self._devices = devices
        self._models = models
        self._shadows = shadows
        self._hans = hans
        self._routes = routes
        self._keys = keys
        self._issued = issued
        self._programs = programs
        self._outgoing = outgoing

    async def carry_out(self, session: Session, effects: Sequence[Effect], outcome: Outcome) -> None:
        """Carry out effects in their order, as far as it goes; note in ``outcome`` what came of it."""
        for effect in effects:
            try:
                await self._do(session, effect)
                if isinstance(effect, CopyRecords):
                    outcome.copied |= {one.key for one in effect.records}
            except LATER as error:
                _log.warning("effect_put_off", session=session.id, effect=_name(effect), reason=str(error))
            except (WillNotWorkError, RegistryError, IllegalTransitionError, BadSealKeyError) as error:
                _log.warning("effect_refused", session=session.id, effect=_name(effect), reason=repr(error))
                code = error.code if isinstance(error, WillNotWorkError) else type(error).__name__
                match effect:
                    case AttachDevice(device) | RegisterDevice(device) | Enrol(device):
                        outcome.refused[device.eui64] = code
                    case GiveConsent(_, consent):
                        outcome.refused[consent.device] = code
                    case _:
                        pass  # it concerns no device; wanted again at the next look

    async def _do(self, session: Session, effect: Effect) -> None:
        match effect:
            case TakePremises():
                await self._registry.take_session(session.premises, session.id, self.is_finished)
            case ReleasePremises():
                await self._registry.release_session(session.premises, session.id)
            case PatchHan(gateway, patch):
                await self._hans.patch(gateway, patch)
            case GiveGrant():
                await self._give(effect)
            case KeepKey(eui64, sealed):
                await self._keys.keep(eui64, sealed, SYSTEM)
            case TellSeen(device):
                await self._tell_seen(session, device)
            case TellProved(thing):
                await self._devices.apply(thing, DeviceTrigger.PROVED, SYSTEM)
            case TellLeftOut(thing):
                with suppress(DeviceNotFoundError):
                    await self._devices.apply(thing, DeviceTrigger.LEFT_OUT, SYSTEM)
            case AttachDevice(device, gateway):
                await self._attach(session, device, gateway)
            case DetachDevice(thing, gateway):
                with suppress(AttachmentNotFoundError):
                    await self._registry.detach(gateway, thing, SYSTEM)
                await self._routes.reconcile(thing)
            case RegisterDevice(device):
                await self._register(session, device)
            case Alarm(gateway):
                _log.warning("join_window_left_open", session=session.id, gateway=gateway)
            case _:
                await self._beyond(session, effect)

    async def _beyond(self, session: Session, effect: Effect) -> None:
        """Do what programs and the outbox do."""
        match effect:
            case GiveConsent(thing, consent):
                await self._programs.give(thing, consent, session.account)
            case Enrol(device, program):
                params = device.programs[program]
                await self._programs.enrol(device.thing, program, session.account, session.premises, params)
            case RetryEnrolment(id):
                await self._programs.retry(id)
            case EndEnrolment(id):
                await self._programs.end(id, "session ended")
            case CopyRecords(records):
                await self._outgoing.put(session.premises, records)
            case _:
                raise AssertionError(f"nobody carries out {effect}")

    async def is_finished(self, id: str) -> bool:
        """Tell whether a session holds nobody up."""
        kept = await self._sessions.load(id)
        return kept is None or kept.record.state in DONE

    async def _give(self, effect: GiveGrant) -> None:
        grant = effect.grant
        bound_to = info(grant.id, grant.eui64, effect.until_s)
        sealed = self._keys.for_window(grant.eui64, grant.sealed_key, effect.seal_key, bound_to)
        patch = han.grant(grant.eui64, grant.id, grant.proof, sealed, effect.until_s)
        await self._hans.patch(effect.gateway, patch)

    async def _tell_seen(self, session: Session, device: SessionDevice) -> None:
        epoch = (await self._registry.premises(session.premises)).epoch

        def described(before: Device) -> Device:
            return replace(
                before,
                model=device.model_id,
                maker=device.maker or before.maker,
                hw=device.hw,
                fw=device.fw,
                premises=session.premises,
                premises_epoch=epoch,
            )

        eui64 = device.eui64 if han.is_eui64(device.eui64) else ""
        new = Device(id=device.thing, eui64=eui64)
        await self._devices.apply(
            device.thing, DeviceTrigger.SEEN, SYSTEM, reason=session.id, change=described, new=new
        )

    async def _attach(self, session: Session, device: SessionDevice, gateway: str) -> None:
        await self.make_thing(device.thing, device.model_id, session.premises)
        standing = (await self._registry.standings([device.thing], fresh=True)).get(device.thing)
        if standing is None:
            raise RegistryBusyError(device.thing)  # somebody has taken it away again
        if gateway not in standing.gateways:
            try:
                await self.check_room(gateway, device.thing, device.caps)
            except WillNotWorkError:
                if standing.gateways:
                    return  # another one speaks for it: that is enough
                raise
            await self._registry.attach(gateway, device.thing, SYSTEM)
        await self._routes.ensure(device.thing, device.eui64)

    async def make_thing(self, thing: str, model: str, premises: str) -> None:
        """Let a device be a thing, which its gateway vouches for; one that is left of another home goes."""
        new = NewThing(thing, ThingKind.DEVICE, model, premises, has_certificate=False)
        # Fresh: who else looks at this session may have made it since, and it was not there a moment ago.
        standing = (await self._registry.standings([thing], fresh=True)).get(thing)
        if standing is not None and standing.thing.premises != premises:
            known = (await self._devices.devices([thing])).get(thing)
            bound = known is not None and known.lifecycle in BOUND
            if bound or standing.thing.has_certificate:
                raise WillNotWorkError(IN_USE)
            await self._shadows.forget(thing)
            await self._registry.remove(thing, SYSTEM)
            await self._shadows.forget(thing)
        with suppress(ThingExistsError):
            await self._registry.register(new, SYSTEM)

    async def check_room(
        self, gateway: str, thing: str, caps: Sequence[str], *, grants: int = 0, load_control: int = 0
    ) -> None:
        """Raise :class:`WillNotWorkError` unless a gateway can take a device more, and so many grants.

        ``load_control`` says how many of what the grants let in control loads, where that is known.
        """
        try:
            known = await self._gateways.gateway(gateway)
        except GatewayNotFoundError:
            return  # nobody has said how much it takes: it says so itself
        attached = [
            one.thing for one in (await self._registry.attached_to(gateway, ATTACHED_MAX)).attachments
        ]
        others = [name for name in attached if name != thing]
        load_control += await self.controlling(others) + any(cap.startswith(CONTROLS_LOAD) for cap in caps)
        refusal = capacity_refusal(
            _as_reported(known, await self._hans.of(gateway)),
            attached=len(others) + bool(thing),
            grants=grants,
            load_control=load_control,
        )
        if refusal is not None:
            raise WillNotWorkError(f"{GATEWAY_CAPACITY}: {refusal}")

    async def controlling(self, things: Sequence[str]) -> int:
        """Return how many of these can control loads, as far as their models are known."""
        standings = await self._registry.standings(things)
        ids = [one.thing.model for one in standings.values()]
        models = await self._models.models(set(ids))
        return sum(
            any(cap.startswith(CONTROLS_LOAD) for cap in models[id].capabilities)
            for id in ids
            if id in models
        )

    async def _register(self, session: Session, device: SessionDevice) -> None:
        epoch = (await self._registry.premises(session.premises)).epoch
        issued = await self._issued.not_revoked(device.thing) if not device.gateways else ()
        lfdi = issued[-1].lfdi if issued else ""

        def bound(before: Device) -> Device:
            return replace(
                before,
                account=session.account,
                premises=session.premises,
                premises_epoch=epoch,
                name=device.name,
                location=device.location,
                lfdi=lfdi or before.lfdi,
            )

        try:
            await self._devices.apply(
                device.thing, DeviceTrigger.REGISTER, SYSTEM, reason=session.id, change=bound
            )
        except ConflictError as error:
            raise WillNotWorkError(IN_USE) from error


def _as_reported(gateway: Gateway, said: han.Han) -> Gateway:
    """Return the gateway with what it says itself that it takes, where that is less."""
    devices = min(gateway.devices_max, said.room.devices or gateway.devices_max)
    load_control = min(gateway.load_control_max, said.room.load_control or gateway.load_control_max, devices)
    return replace(gateway, devices_max=devices, load_control_max=load_control)


def _name(effect: Effect) -> str:
    return type(effect).__name__
