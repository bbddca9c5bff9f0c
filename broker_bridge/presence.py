"""What the broker's log says about who is there. Pure.

Presence is a hint, never a permission: it only decides when a thing is sent what it may have missed.
The thing is taken from the client id, which the broker has set from the certificate, and never from a
filter: forbidden filters are granted, and logged, too. (spec: shadow, section 13)

What kind a line is, its topic tells: the text does not, for things may be called ``Client`` and ``1``.
"""

import re
from enum import StrEnum
from typing import NamedTuple

from broker_bridge.topics import LOG_OF_SUBSCRIPTIONS


class Sign(StrEnum):
    """What happened to a connection."""

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    SUBSCRIBED = "subscribed"
    TAKEN_OVER = "taken_over"
    """Somebody else came with the same name, and this connection was closed for it."""


class Presence(NamedTuple):
    """One line of the log that concerns a thing."""

    sign: Sign
    thing: str
    fresh: bool = False
    """Connected with a clean session: it has no subscriptions yet."""
    filter: str | None = None
    address: str = ""
    """Connected from there."""


_NAME = r"[a-zA-Z0-9:_-]{1,128}"
_AT = r"\d+: "  # all lines are read from their start: a filter may hold blanks, and what looks like a line
_CONNECTED = re.compile(rf"{_AT}New client connected from (\S+) as ({_NAME}) \(p\d, c([01]),")
_DISCONNECTED = re.compile(
    rf"{_AT}Client ({_NAME}) (?:(?:been )?disconnected|closed its connection|has exceeded timeout)"
)
_TAKEN_OVER = re.compile(rf"{_AT}Client ({_NAME}) already connected, closing old connection")
_SUBSCRIBED = re.compile(rf"{_AT}({_NAME}) [012] (.+)")


def parse_line(text: str, topic: str | None = None) -> Presence | None:
    """Return what a log line says about a thing, or None when it says nothing about one.

    ``topic`` is where the broker said it. None: it stands in the broker's file, which does not tell. There
    ``Client 1 disconnected.`` is the end of ``1``, and never what a thing called ``Client`` subscribed to:
    no topic is called that, so nothing is overlooked.
    """
    if topic is None:
        return _parse_notice(text) or _parse_subscription(text)
    return _parse_subscription(text) if topic == LOG_OF_SUBSCRIPTIONS else _parse_notice(text)


def _parse_subscription(text: str) -> Presence | None:
    found = _SUBSCRIBED.match(text)
    return found and Presence(Sign.SUBSCRIBED, found[1], filter=found[2])


def _parse_notice(text: str) -> Presence | None:
    if found := _CONNECTED.match(text):
        return Presence(Sign.CONNECTED, found[2], fresh=found[3] == "1", address=found[1])
    if found := _DISCONNECTED.match(text):
        return Presence(Sign.DISCONNECTED, found[1])
    if found := _TAKEN_OVER.match(text):
        return Presence(Sign.TAKEN_OVER, found[1])
    return None


def concerns_delta(filter: str, thing: str) -> bool:
    """Tell whether a subscription of ``thing`` can bring it deltas: its own, or of what is attached to it."""
    own = f"$aws/things/{thing}/shadow"
    may_read = (f"{own}/update/delta", f"{own}/name/+/update/delta", f"gnomon/gateways/{thing}/down/#")
    return any(_overlap(filter, other) for other in may_read)


def _overlap(one: str, other: str) -> bool:
    """Tell whether some topic matches both filters."""
    if one[0] in "+#" and other[0] == "$":
        return False  # a wildcard in front does not reach topics that begin with $
    for level, its_level in zip(one.split("/"), other.split("/"), strict=False):
        if "#" in (level, its_level):
            return True
        if level != its_level and "+" not in (level, its_level):
            return False
    return one.count("/") == other.count("/")
