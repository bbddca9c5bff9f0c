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
    registration: int = 1
    """Tells it from earlier things of the same name."""
    since_ms: int = 0
    """Since when these premises belong to whoever has them now."""

    @property
    def may_have_certificate(self) -> bool:
        """Whether a certificate may be given out for it, as far as the thing goes."""
        return self.has_certificate and not self.barred

    def is_same(self, other: "Placing") -> bool:
        """Tell whether the other is the same thing, at the same place, in the same hands."""
        mine, theirs = (
            (one.registration, one.premises, one.since_ms, one.is_gateway) for one in (self, other)
        )
        return mine == theirs


class Proofs(Protocol):
    """The registry, as the Trust Center sees it."""

    async def placing(self, thing: str, *, fresh: bool = False) -> Placing | None:
        """Return what is known of a thing; None when none of this name is registered.

        ``fresh``: as it is now, whatever was known a moment ago.
        """
        ...

    async def proof_accepted(self, thing: str, kind: str, serial: str) -> None:
        """Take note that a thing has proved itself. May come again for the same proof."""
        ...
