"""What is found when a session is looked at: facts of other services, as values. No decisions.

``advance`` takes nothing else for true. The names of states come from their own tables, so that a state that
is renamed there is a type error or a failing test here, and no silent difference.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from provisioning.han import NO_HAN, Han
from registry.gateways import GatewayKind
from registry.states import Lifecycle

ModelKey = tuple[str, str, int]
"""Maker, model and hardware version, as a device says them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A gateway of the premises, and what its ``han`` shadow says."""

    gateway: str
    kind: GatewayKind
    priority: int
    technologies: frozenset[str]
    """None: it has no HAN."""
    online: bool
    han: Han = NO_HAN

    @property
    def has_han(self) -> bool:
        """Whether equipment can join there at all."""
        return bool(self.technologies)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A device model of the catalogue."""

    id: str
    name: str
    technologies: frozenset[str]
    capabilities: frozenset[str]
    validated: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A device that the registry knows."""

    thing: str
    lifecycle: Lifecycle | None
    """None: it is a thing of these premises, and nobody has looked at it yet."""
    premises: str
    model_id: str
    has_wan: bool = False
    """It has a certificate and speaks for itself."""
    proved: bool = False
    """A certificate was given out for it: that is its proof."""
    attached: frozenset[str] = frozenset()
    """Gateways that may speak for it now."""
    kept_key: str = ""
    """Its sealed link key, as it lies in the credential store."""


@dataclass(frozen=True, slots=True)
class Enrolled:
    """An enrolment of a device in a program."""

    id: str
    state: str
    rev: int
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything that one look at a session finds."""

    holder: str = ""
    """The session that the premises are taken by."""
    routes: tuple[Route, ...] = ()
    """By priority."""
    models: Mapping[ModelKey, Model | None] = field(default_factory=dict)
    catalogue: Mapping[str, Model] = field(default_factory=dict)
    """The models of the devices here, by id."""
    devices: Mapping[str, Known] = field(default_factory=dict)
    """By EUI-64, or by thing where there is none."""
    enrolments: Mapping[str, Enrolled] = field(default_factory=dict)
    """By thing and program (``session.pair``)."""
    consents: frozenset[str] = frozenset()
    """Pairs of a thing and a program for which consent is on record outside of the session."""
    copied: frozenset[str] = frozenset()
    """Keys of records that the outbox has."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """What the last try said about a device: it will not work, and why."""

    def route(self, gateway: str) -> Route | None:
        """Return one of the routes."""
        return next((one for one in self.routes if one.gateway == gateway), None)

    @property
    def technologies(self) -> frozenset[str]:
        """What any route of these premises can carry."""
        return frozenset().union(*(one.technologies for one in self.routes))
