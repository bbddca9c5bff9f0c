"""What a session becomes, and what it wants done, on what was observed. Pure: no clock, no I/O, no chance.

A transition is taken only on an observed fact; an effect is what is wanted and not yet observed. So the same
look taken twice, by two processes, or after a crash between any two steps, does no harm: it wants again what
is not there yet. (spec: han, 2.3)
"""

from dataclasses import dataclass, replace
from typing import Final

from provisioning import discovering, sending, tidying
from provisioning.effects import Effect
from provisioning.look import Look
from provisioning.observed import Observed, Route
from provisioning.remedies import RemedyKind, cures
from provisioning.session import Session, treat
from provisioning.states import RemedyState, RemedyTrigger, SessionState, SessionTrigger

NOBODY_LOOKS: Final = 0


@dataclass(frozen=True, slots=True)
class Advance:
    """The session after, and what is to be done once it is durable."""

    session: Session
    effects: tuple[Effect, ...]


def advance(session: Session, observed: Observed, now_ms: int) -> Advance:
    """Return what becomes of a session."""
    look = Look(session, observed, now_ms)
    tidying.open_up(look)
    discovering.advance(look)
    _await_remedy(look)
    sending.advance(look)
    tidying.expire(look)
    tidying.tidy(look)
    discovering.watch_closing(look)
    tidying.copy_records(look)
    tidying.purge(look)
    return Advance(replace(look.session, due_ms=_due(look)), tuple(look.effects))


def _await_remedy(look: Look) -> None:
    """Go on once a gateway has come that is what the customer was told of."""
    session = look.session
    if session.state is not SessionState.AWAITING_REMEDY:
        return
    new = [route for route in look.observed.routes if route.gateway not in session.routes_before]
    remedies = tuple(
        treat(one, RemedyTrigger.DONE)
        if one.state in (RemedyState.ACCEPTED, RemedyState.ORDERED) and _is_there(one.kind, new)
        else one
        for one in session.remedies
    )
    if remedies != session.remedies:
        look.change(remedies=remedies, cause=None)
        look.move(SessionTrigger.REMEDY_DONE, "a new gateway is on line")


def _is_there(kind: str, new: list[Route]) -> bool:
    return any(route.online and cures(RemedyKind(kind), route) for route in new)


def _due(look: Look) -> int:
    """Return when somebody has to look again: at once, while something is wanted that was not observed.

    What was due before stays due: a document must not change because time passes.
    """
    if look.effects:
        before = look.session.due_ms
        return before if NOBODY_LOOKS < before <= look.now_ms else look.now_ms
    return min(look.deadlines, default=NOBODY_LOOKS)
