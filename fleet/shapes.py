"""What a load sends: request bodies cut from templates of bytes, the same for the same number. Pure.

No tree is built and no encoder runs: one ``%`` makes a body. A body can always be
made again from its number, so a load need not keep what it has sent.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Mode(StrEnum):
    """What is asked for."""

    REPORTED = "reported"
    DESIRED = "desired"
    GET = "get"


@dataclass(frozen=True, slots=True)
class Shape:
    """A state: the text between its braces, with ``%d`` where ``numbers(n)`` go."""

    text: bytes
    numbers: Callable[[int], tuple[int, ...]]


def _thermostat(n: int) -> tuple[int, ...]:
    return (18 + n % 7, n % 10, 35 + n % 20, n % 4_000, 19 + n % 4)


_THERMOSTAT: Final = (
    b'"temperature_c":%d.%d,"humidity_pct":%d,"hvac":"heating","power_w":%d,'
    b'"mode":"heat","heat_c":%d,"cool_c":25.5,"fan":"auto","online":true'
)
_ZONE: Final = (
    b',"zone":{"name":"upstairs hall, north side","schedule":[6,8,17,22],"away":false,"filter_h":1210}'
)

SHAPES: Final[dict[str, Shape]] = {
    "switch": Shape(b'"on":true,"power_w":%d', lambda n: (n % 4_500,)),
    "thermostat": Shape(_THERMOSTAT, _thermostat),
    "large": Shape(_THERMOSTAT + _ZONE + b',"diagnostics":"' + b"0123456789abcdef" * 64 + b'"', _thermostat),
}


def body_maker(mode: Mode, shape: Shape, token_prefix: str, epoch: int | None) -> Callable[[int], bytes]:
    """Return what makes the body of request ``n``; its token is ``token_prefix`` and ``n``.

    With an epoch, reports carry a sequence.
    """
    prefix = token_prefix.encode()
    if mode is Mode.GET:
        get = b'{"clientToken":"%b%%d"}' % prefix
        return lambda n: get % n
    head = b'{"state":{"%b":{' % mode.value.encode()
    tail = b'}},"clientToken":"%b%%d"' % prefix
    numbers = shape.numbers
    if mode is Mode.DESIRED or epoch is None:
        plain = head + shape.text + tail + b"}"
        return lambda n: plain % (*numbers(n), n)
    ordered = head + shape.text + tail + b',"sequence":{"epoch":%d,"number":%%d}}' % epoch
    return lambda n: ordered % (*numbers(n), n, n)
