"""What can be done when nothing is recognised, and which of it fits. Pure; prices are data.

(spec: han, 5.3; use case 3.3, steps 6.1 and 6.2)
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from typing import Final

import msgspec

from provisioning.observed import Route
from provisioning.session import Cause
from registry.gateways import GatewayKind

REMEDIES_MAX: Final = 32


class RemedyKind(StrEnum):
    """What a remedy is."""

    NEW_METER = "new_meter"
    BRIDGE = "bridge"
    BROADBAND_GATEWAY = "broadband_gateway"
    REPLACE_DEVICE = "replace_device"


@dataclass(frozen=True, slots=True)
class Remedy:
    """Something a customer can have done, and what it costs."""

    id: str
    kind: RemedyKind
    price_minor: int
    """In hundredths of the currency, or whatever its smallest unit is."""
    currency: str
    available: bool
    lead_days: int
    technologies: frozenset[str]
    """What equipment it can carry."""


@dataclass(frozen=True, slots=True)
class Fitting:
    """A remedy that fits, and why."""

    remedy: Remedy
    why: str


_K = RemedyKind
_ROUTES: Final = (_K.NEW_METER, _K.BRIDGE, _K.BROADBAND_GATEWAY)
_OF_CAUSE: Final[Mapping[Cause, tuple[RemedyKind, ...]]] = {
    Cause.NO_HAN_ROUTE: _ROUTES,
    Cause.HAN_NOT_READY: _ROUTES,
    Cause.NOTHING_SEEN: (_K.BRIDGE, _K.REPLACE_DEVICE),
    Cause.UNKNOWN_MODEL: (_K.REPLACE_DEVICE,),
    Cause.WRONG_TECHNOLOGY: (*_ROUTES, _K.REPLACE_DEVICE),
}
_WHY: Final[Mapping[Cause, str]] = {
    Cause.NO_HAN_ROUTE: "nothing at these premises connects a home area network",
    Cause.HAN_NOT_READY: "the home area network at these premises did not come up",
    Cause.NOTHING_SEEN: "nothing was heard by what is at these premises",
    Cause.UNKNOWN_MODEL: "the equipment that was heard is of no model in the catalogue",
    Cause.WRONG_TECHNOLOGY: "the equipment uses a technology that nothing at these premises speaks",
}
_GATEWAYS: Final[Mapping[RemedyKind, GatewayKind]] = {
    _K.NEW_METER: GatewayKind.METER,
    _K.BRIDGE: GatewayKind.BRIDGE,
    _K.BROADBAND_GATEWAY: GatewayKind.CUSTOMER_BROADBAND,
}


def built_in() -> tuple[Remedy, ...]:
    """Return the remedies that come with the software."""
    text = resources.files("provisioning").joinpath("remedies.json").read_bytes()
    return msgspec.json.decode(text, type=tuple[Remedy, ...])


def fitting(
    cause: Cause, routes: Sequence[Route], wanted: Collection[str], offers: Sequence[Remedy]
) -> tuple[Fitting, ...]:
    """Return the offers that would cure it, the cheapest first; those that cannot be had are told too.

    ``wanted`` names the technologies of the equipment, as far as they are known: if they are, an offer that
    carries none of them is no help.
    """
    kinds = _OF_CAUSE[cause]
    fits = (offer for offer in offers if offer.kind in kinds and _helps(offer, cause, routes, set(wanted)))
    ordered = sorted(fits, key=lambda offer: (not offer.available, offer.price_minor, offer.id))
    return tuple(Fitting(offer, _WHY[cause]) for offer in ordered[:REMEDIES_MAX])


def _helps(offer: Remedy, cause: Cause, routes: Sequence[Route], wanted: set[str]) -> bool:
    if offer.kind is RemedyKind.REPLACE_DEVICE:
        return True
    if wanted:
        return bool(wanted & offer.technologies)
    there = {technology for route in _working(cause, routes) for technology in route.technologies}
    # Without knowing the equipment: whatever adds something to what is there.
    return not offer.technologies <= there


def _working(cause: Cause, routes: Sequence[Route]) -> Iterator[Route]:
    """Yield the routes that an offer need not take the place of."""
    if cause is not Cause.HAN_NOT_READY:
        yield from routes


def cures(kind: RemedyKind, route: Route) -> bool:
    """Tell whether a gateway that is new here is what such a remedy brings."""
    return route.has_han and _GATEWAYS.get(kind) in (route.kind, None)
