"""What a run was: written by the supervisor, read by the checker, so that bodies can be made again."""

from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import msgspec

from fleet.shapes import SHAPES, Mode, body_maker
from tests.chaos.evidence import Line

MANIFEST = "manifest.json"
SHAPE = "thermostat"
FOREVER_S = 86_400
"""No run lasts longer."""


class LoadKind(msgspec.Struct, frozen=True):
    """A load of `fleet.load`: who takes part, and how fast."""

    pattern: str
    connections: int
    rate: float
    is_sequenced: bool

    @property
    def things(self) -> list[str]:
        return [self.pattern % number for number in range(self.connections)]

    def command(self, port: int, certificates: Path, history: Path, seed: int) -> list[object]:
        """Return the arguments that start it; it runs until SIGTERM."""
        return [
            *("-m", "fleet.load", "--port", port, "--certificates", certificates, "--things", self.pattern),
            *("--connections", self.connections, "--rate", self.rate, "--seconds", FOREVER_S),
            *("--shape", SHAPE, "--seed", seed, "--every", 5, "--history", history),
            *(("--sequence",) if self.is_sequenced else ()),
        ]


class Manifest(msgspec.Struct, frozen=True):
    """One run."""

    loads: tuple[LoadKind, ...]
    converging_prefix: str
    cycles: int
    seed: int

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    def converges(self, key: tuple[str, str]) -> bool:
        """Tell of which shadows it is expected that desired gets reported."""
        return key[0].startswith(self.converging_prefix) and not key[1]


class UnknownBodyError(Exception):
    """A step whose bytes cannot be made again: history and load do not belong together."""


def body_of(line: Line) -> bytes:
    """Return the bytes of a request, proved by their digest."""
    if line.body is not None:
        body = line.body.encode()
        if sha256(body).hexdigest() == line.body_sha256:
            return body
        raise UnknownBodyError(f"the body of {line.token} is not the one that was sent")
    prefix, _, number = line.token.rpartition("-")
    body = _maker(f"{prefix}-", _epoch_of(line, f"{prefix}-"))(int(number))
    assert sha256(body).hexdigest() == line.body_sha256, f"{line.token} is of another load than its prefix"
    return body


_epochs: dict[str, int | None] = {}


def _epoch_of(line: Line, prefix: str) -> int | None:
    """Return the epoch in a load's sequences: none, or the second in which it began."""
    if prefix not in _epochs:
        now_s = line.t // 1_000
        number = int(line.token.removeprefix(prefix))
        for epoch in (None, *range(now_s, now_s - FOREVER_S, -1)):
            if sha256(_maker(prefix, epoch)(number)).hexdigest() == line.body_sha256:
                _epochs[prefix] = epoch
                break
        else:
            raise UnknownBodyError(f"the body of {line.token} cannot be made again")
    return _epochs[prefix]


@lru_cache(4_096)
def _maker(prefix: str, epoch: int | None) -> Callable[[int], bytes]:
    return body_maker(Mode.REPORTED, SHAPES[SHAPE], prefix, epoch)
