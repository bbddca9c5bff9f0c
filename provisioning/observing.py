"""Looks a session's facts up. No decisions: what they mean is ``advance``'s to say."""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from infra.presence import Presence
from provisioning.grants import LinkKeys
from provisioning.hans import Hans
from provisioning.observed import Known, Model, ModelKey, Observed, Route
from provisioning.ports import Programs
from provisioning.session import Session
from registry.catalogue import DeviceModel, ModelCatalogue
from registry.devices import Device, DeviceService
from registry.gateways import GatewayService
from registry.models import Standing, ThingKind
from registry.rules import THINGS_PER_PREMISES_MAX
from registry.service import RegistryService
from security.trust.issued import IssuedStore

LEFT_MAX: Final = 128
"""Devices of one premises that are looked at, those of earlier ownerships too."""


class Observing:
    """Gathers what one look at a session needs."""

    def __init__(
        self,
        *,
        registry: RegistryService,
        gateways: GatewayService,
        devices: DeviceService,
        models: ModelCatalogue,
        hans: Hans,
        presence: Presence,
        keys: LinkKeys,
        issued: IssuedStore,
        programs: Programs,
    ) -> None:
        self._registry = registry
        self._gateways = gateways
        self._devices = devices
        self._models = models
        self._hans = hans
        self._presence = presence
        self._keys = keys
        self._issued = issued
        self._programs = programs

    async def look(self, session: Session, refused: Mapping[str, str], copied: Collection[str]) -> Observed:
        """Return the facts. ``refused`` and ``copied`` are what came of the last effects."""
        premises = await self._registry.premises(session.premises)
        routes = await self.routes(session.premises)
        names = {*session.devices, *(eui64 for route in routes for eui64 in route.han.seen)}
        devices = await self._known(session, names)
        things = [known.thing for known in devices.values()]
        enrolments, consents = await asyncio.gather(
            self._programs.enrolments(things), self._programs.consents(things, session.account)
        )
        by_id = await self._models.models({one.model_id for one in devices.values() if one.model_id})
        return Observed(
            holder=premises.open_session,
            routes=routes,
            models=await self._recognise(session, routes),
            catalogue={id: _model(one) for id, one in by_id.items()},
            devices=devices,
            enrolments=enrolments,
            consents=frozenset(consents),
            copied=frozenset(copied),
            refused=refused,
        )

    async def routes(self, premises: str) -> tuple[Route, ...]:
        """Return the gateways of premises, by priority, with what they say."""
        there = await self._gateways.at(premises)
        standings = await self._registry.standings([one.id for one in there])
        # A device with a WAN of its own is its own route, and carries nobody else. Some may have gone.
        gateways = [one for one in there if _is_gateway(standings.get(one.id))]
        hans = await self._hans.of_all([one.id for one in gateways])
        return tuple(
            Route(
                gateway=one.id,
                kind=one.kind,
                priority=one.rank,
                technologies=one.technologies,
                online=self._presence.is_here(one.id) or self._presence.is_here(one.parent),
                han=hans[one.id],
            )
            for one in gateways
        )

    async def _known(self, session: Session, names: Collection[str]) -> dict[str, Known]:
        """Return the devices of the session, those that are seen, and those of the premises, by their key."""
        at = (await self._devices.at(session.premises, LEFT_MAX)).devices
        found = {one.id: one for one in at} | await self._devices.devices(names)
        found |= {one.id: one for one in (await self._devices.by_eui64(names)).values()}
        things = await self._registry.things(
            premises=session.premises, kind=ThingKind.DEVICE, limit=THINGS_PER_PREMISES_MAX
        )
        standings = await self._registry.standings({*found, *(one.name for one in things.things)})
        # A gateway may be known as a device too, for its firmware; a session is about what is behind it.
        everything = {name for name in {*found, *standings} if not _is_gateway(standings.get(name))}
        kept = await self._keys.of([one.eui64 for one in found.values() if one.eui64])
        proved = await self._proved(standings.values())
        return {
            (found[name].eui64 if name in found else "") or name: _known(
                name, found.get(name), standings.get(name), kept, proved
            )
            for name in sorted(everything)
        }

    async def _proved(self, standings: Iterable[Standing]) -> frozenset[str]:
        """Return the things with a certificate that was given out: they have shown what they are."""
        own = [one.thing.name for one in standings if one.thing.has_certificate and not one.thing.barred]
        good = [name for name in own if await self._issued.not_revoked(name)]
        return frozenset(good)

    async def _recognise(self, session: Session, routes: Iterable[Route]) -> dict[ModelKey, Model | None]:
        keys: set[ModelKey] = {(one.maker, one.model, 0) for one in session.expected}
        keys |= {(one.maker, one.model, one.hw) for one in session.devices.values() if one.maker}
        for route in routes:
            keys |= {(seen.maker, seen.model, seen.hw) for seen in route.han.seen.values()}
        found = {key: await self._models.recognise(*key) for key in sorted(keys)}
        return {key: None if one is None else _model(one) for key, one in found.items()}


def _is_gateway(standing: Standing | None) -> bool:
    return standing is not None and standing.thing.kind is ThingKind.GATEWAY


def _model(found: DeviceModel) -> Model:
    return Model(
        id=found.id,
        name=found.name,
        technologies=found.technologies,
        capabilities=found.capabilities,
        validated=found.validated,
    )


def _known(
    name: str,
    device: Device | None,
    standing: Standing | None,
    kept: Mapping[str, str],
    proved: frozenset[str],
) -> Known:
    thing = None if standing is None else standing.thing
    model = device.model if device is not None else "" if thing is None else thing.model
    return Known(
        thing=name,
        lifecycle=None if device is None else device.lifecycle,
        premises=device.premises if device is not None else "" if thing is None else thing.premises,
        model_id=model,
        has_wan=thing is not None and thing.has_certificate and not thing.barred,
        proved=name in proved,
        attached=frozenset() if standing is None else standing.gateways,
        kept_key="" if device is None else kept.get(device.eui64, ""),
    )
