"""The life cycles of the registry as tables: of a device, of a gateway's HAN, of a route. Pure.

Connectivity, ENROLLED, INCOMPATIBLE and OUTDATED are no states: they are derived where they are shown.
(spec: han, 2.1 and 2.4)
"""

from enum import StrEnum
from types import MappingProxyType
from typing import Final

from infra.machines import Machine


class Lifecycle(StrEnum):
    """Where a device is in its life, as the utility sees it."""

    MANUFACTURED = "MANUFACTURED"
    """A vendor has told of it; its credential is loaded."""
    COMMISSIONED = "COMMISSIONED"
    """On the customer's own HAN, without any relation to the utility."""
    DISCOVERED = "DISCOVERED"
    AUTHENTICATED = "AUTHENTICATED"
    """The Trust Center has accepted its proof."""
    REGISTERED = "REGISTERED"
    """Bound to an account: may be enrolled."""
    SUSPENDED = "SUSPENDED"
    DEREGISTERED = "DEREGISTERED"
    REPLACED = "REPLACED"
    """A successor has taken over."""
    RETIRED = "RETIRED"
    """Lost, broken or tampered with: it never comes back."""


class DeviceTrigger(StrEnum):
    """What moves a device on."""

    DELIVERED = "delivered"
    """A vendor's delivery manifest names it."""
    JOINED = "joined"
    """The customer has it on the own HAN."""
    SEEN = "seen"
    """A gateway reports it in an open session."""
    PROVED = "proved"
    """The Trust Center reports that its proof was accepted."""
    REGISTER = "register"
    """Selected, consented to, and reported as attached."""
    LEFT_OUT = "left_out"
    """Not selected when its session closed."""
    SUSPEND = "suspend"
    LIFT = "lift"
    DEREGISTER = "deregister"
    REPLACE = "replace"
    RETIRE = "retire"


_L, _D = Lifecycle, DeviceTrigger

DEVICE: Final[Machine[Lifecycle, DeviceTrigger]] = Machine(
    "device",
    MappingProxyType(
        {
            (None, _D.DELIVERED): _L.MANUFACTURED,
            (None, _D.JOINED): _L.COMMISSIONED,
            (None, _D.SEEN): _L.DISCOVERED,
            (_L.MANUFACTURED, _D.JOINED): _L.COMMISSIONED,
            (_L.MANUFACTURED, _D.SEEN): _L.DISCOVERED,
            (_L.COMMISSIONED, _D.SEEN): _L.DISCOVERED,
            (_L.DEREGISTERED, _D.SEEN): _L.DISCOVERED,
            (_L.DISCOVERED, _D.PROVED): _L.AUTHENTICATED,
            (_L.AUTHENTICATED, _D.REGISTER): _L.REGISTERED,
            (_L.DISCOVERED, _D.LEFT_OUT): _L.COMMISSIONED,
            (_L.AUTHENTICATED, _D.LEFT_OUT): _L.COMMISSIONED,
            (_L.REGISTERED, _D.SUSPEND): _L.SUSPENDED,
            (_L.SUSPENDED, _D.LIFT): _L.REGISTERED,
            (_L.REGISTERED, _D.DEREGISTER): _L.DEREGISTERED,
            (_L.SUSPENDED, _D.DEREGISTER): _L.DEREGISTERED,
            (_L.REGISTERED, _D.REPLACE): _L.REPLACED,
            (_L.MANUFACTURED, _D.RETIRE): _L.RETIRED,
            (_L.COMMISSIONED, _D.RETIRE): _L.RETIRED,
            (_L.DISCOVERED, _D.RETIRE): _L.RETIRED,
            (_L.AUTHENTICATED, _D.RETIRE): _L.RETIRED,
            (_L.REGISTERED, _D.RETIRE): _L.RETIRED,
            (_L.SUSPENDED, _D.RETIRE): _L.RETIRED,
            (_L.DEREGISTERED, _D.RETIRE): _L.RETIRED,
        }
    ),
)


class HanState(StrEnum):
    """How the network of a gateway is, as the gateway reports it."""

    ABSENT = "ABSENT"
    FORMING = "FORMING"
    FIND_PENDING = "FIND_PENDING"
    """Formed, and still looking for what belongs to it."""
    NORMAL = "NORMAL"
    LOST = "LOST"


class HanTrigger(StrEnum):
    """What moves a gateway's HAN on."""

    INSTALLED = "installed"
    FORM = "form"
    FORMED = "formed"
    FOUND = "found"
    LOST = "lost"


_H, _W = HanState, HanTrigger

GATEWAY_HAN: Final[Machine[HanState, HanTrigger]] = Machine(
    "gateway's HAN",
    MappingProxyType(
        {
            (None, _W.INSTALLED): _H.ABSENT,
            (_H.ABSENT, _W.FORM): _H.FORMING,
            (_H.FORMING, _W.FORMED): _H.FIND_PENDING,
            (_H.FIND_PENDING, _W.FOUND): _H.NORMAL,
            (_H.NORMAL, _W.LOST): _H.LOST,
            (_H.LOST, _W.FOUND): _H.NORMAL,
        }
    ),
)


class RouteStanding(StrEnum):
    """What a route is good for now."""

    STANDBY = "STANDBY"
    ACTIVE = "ACTIVE"
    """The one by which the device is reached; there is never a second."""
    DOWN = "DOWN"


class RouteTrigger(StrEnum):
    """What moves a route on."""

    ATTACHED = "attached"
    PREFER = "prefer"
    YIELD = "yield"
    FAIL = "fail"
    RECOVER = "recover"


_R, _C = RouteStanding, RouteTrigger

ROUTE: Final[Machine[RouteStanding, RouteTrigger]] = Machine(
    "route",
    MappingProxyType(
        {
            (None, _C.ATTACHED): _R.STANDBY,
            (_R.STANDBY, _C.PREFER): _R.ACTIVE,
            (_R.ACTIVE, _C.YIELD): _R.STANDBY,
            (_R.STANDBY, _C.FAIL): _R.DOWN,
            (_R.ACTIVE, _C.FAIL): _R.DOWN,
            (_R.DOWN, _C.RECOVER): _R.STANDBY,
        }
    ),
)
