"""What the Trust Center asks of whoever knows the things, and what it reports there.

It changes no life cycle itself: it says *proof accepted*, and what becomes of the thing is decided elsewhere.
"""

from dataclasses import dataclass
from typing import Final, Protocol

IN_PERSON: Final = "person"
"""The kind of proof of a thing that somebody of ours answers for."""


@dataclass(frozen=True, slots=True)
class Placing:
    """What is known of a thing that wants a certificate."""

    premises: str
    is_gateway: bool
    model: str
    has_certificate: bool = True
    """False for a thing without IP: its gateway vouches for it, and it gets none."""
    barred: bool = False
    """Revoked or suspended."""
    waiting: bool = False
    """A person must approve first."""


class Proofs(Protocol):
    """The registry, as the Trust Center sees it."""

    async def placing(self, thing: str) -> Placing | None:
        """Return what is known of a thing now; None when none of this name is registered."""
        ...

    async def things_at(self, premises: str, at_most: int) -> int:
        """Return how many things there are at these premises; counting ends at ``at_most``."""
        ...

    async def proof_accepted(self, thing: str, kind: str, serial: str) -> None:
        """Take note that a thing has proved itself. May come again for the same proof."""
        ...
