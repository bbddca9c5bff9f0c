"""What the job service asks of the parts that know campaigns, releases and data."""

from dataclasses import dataclass
from typing import Final, Protocol

from ota.models import Execution


@dataclass(frozen=True, slots=True)
class Go:
    """The device may activate: the point of no return once it is committed."""

    snapshot: str = ""
    """Id of what was stored of its shadows."""
    boot: int = 0
    """The boot counter that it had reported."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Not now: ask again."""

    reason: str
    """``window``, ``dr_event``, ``paused`` or ``service_health``."""
    retry_after_s: int


@dataclass(frozen=True, slots=True)
class Never:
    """Not any more: the execution will end."""


Permit = Go | Hold | Never


class Gate(Protocol):
    """Decides whether a device that has all it needs may activate it now."""

    async def decide(self, execution: Execution) -> Permit:
        """Return what it is told; a :class:`Go` only once the snapshot is stored."""
        ...


@dataclass(frozen=True, slots=True)
class Uses:
    """What the things of a campaign may fetch."""

    images: frozenset[str] = frozenset()
    """SHA-256, 64 lower-case hex."""
    streams: frozenset[str] = frozenset()


class Documents(Protocol):
    """Knows what devices are given for a campaign."""

    async def document(self, execution: Execution) -> bytes:
        """Return the job document: a JSON object."""
        ...

    async def uses(self, campaign: str) -> Uses:
        """Return what may be fetched for it; it never changes."""
        ...


JOB_DOCUMENT_BYTES_MAX: Final = 32_768
