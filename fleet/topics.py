"""The topics of the shadow protocol as a device maker reads them: strings, nothing else.

Written from the protocol's description and not shared with the service, so
that a wrong topic there is met by a right one here.
"""

from dataclasses import dataclass
from typing import Final

# What a client wants to hear of a shadow; never `#`, since the service may add topics,
# and not `update/documents`, which no device needs.
ANSWERS: Final = (
    "get/accepted",
    "get/rejected",
    "update/accepted",
    "update/rejected",
    "update/delta",
)


@dataclass(frozen=True, slots=True)
class Route:
    """A way by which a thing is reached: where it asks, and where it is answered."""

    gateway: str | None
    requests: str
    answers: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a message from the service is about; ``event`` is one of ``ANSWERS``."""

    thing: str
    shadow: str
    event: str


def own_route(thing: str) -> Route:
    """Return the route of a thing with its own certificate."""
    base = f"$aws/things/{thing}/shadow"
    return Route(None, base, base)


def relayed_route(gateway: str, thing: str) -> Route:
    """Return the route of a thing that a gateway speaks for."""
    tree = f"gnomon/gateways/{gateway}"
    return Route(
        gateway,
        requests=f"{tree}/up/things/{thing}/shadow",
        answers=f"{tree}/down/things/{thing}/shadow",
    )


def request_topic(route: Route, shadow: str, operation: str) -> str:
    """Return where to send a request; ``shadow`` is empty for the classic one."""
    middle = f"/name/{shadow}" if shadow else ""
    return f"{route.requests}{middle}/{operation}"


def own_filters(thing: str, shadows: tuple[str, ...]) -> tuple[str, ...]:
    """Return what a thing subscribes to for these shadows of its own."""
    return tuple(_filters(own_route(thing).answers, shadows))


def relayed_filters(gateway: str) -> tuple[str, ...]:
    """Return what a gateway subscribes to for whatever is attached to it, now or later."""
    base = f"gnomon/gateways/{gateway}/down/things/+/shadow"
    return tuple(_filters(base, ("", "+")))


def parse_answer(topic: str) -> Answer | None:
    """Return what ``topic`` speaks of, or None for what a device does not understand."""
    match topic.split("/"):
        case ["$aws", "things", thing, "shadow", *rest]:
            pass
        case ["gnomon", "gateways", _, "down", "things", thing, "shadow", *rest]:
            pass
        case _:
            return None
    shadow = ""
    if len(rest) > 2 and rest[0] == "name":  # noqa: PLR2004 - name/<shadow>/<event>
        shadow, rest = rest[1], rest[2:]
    event = "/".join(rest)
    return Answer(thing, shadow, event) if event in ANSWERS else None


def _filters(base: str, shadows: tuple[str, ...]) -> list[str]:
    middles = [f"/name/{shadow}" if shadow else "" for shadow in shadows]
    return [f"{base}{middle}/{event}" for middle in middles for event in ANSWERS]
