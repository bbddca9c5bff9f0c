"""Life cycles as tables: what may follow, what is refused, what is kept of it, and how it is drawn. Pure.

A package writes its tables in ``states.py``; nothing else in it decides what may follow what. ``None`` as
the state before stands for what is not there yet. A pair without a row is refused and changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Generic, TypeVar

TRANSITIONS_MAX: Final = 200
"""Transitions kept of one document; of more the oldest leave, but for the first ones."""
FIRST_TRANSITIONS_KEPT: Final = 10
"""How something came to be here is told for as long as it is here."""

S = TypeVar("S", bound=StrEnum)
T = TypeVar("T", bound=StrEnum)


class IllegalTransitionError(Exception):
    """The table has no row for this: nothing changed."""

    def __init__(self, machine: str, state: StrEnum | None, trigger: StrEnum) -> None:
        stands = "is not there yet" if state is None else f"is {state}"
        super().__init__(f"a {machine} that {stands} does not take {trigger}")
        self.machine = machine
        self.state = state
        self.trigger = trigger


@dataclass(frozen=True, slots=True)
class Machine(Generic[S, T]):
    """A life cycle. ``name`` is the noun of what lives it.

    Written as ``DEVICE: Final[Machine[Lifecycle, DeviceTrigger]] = Machine("device", …)``: on Python 3.11 a
    frozen class with slots cannot be called by its subscripted name.
    """

    name: str
    table: Mapping[tuple[S | None, T], S]

    def after(self, state: S | None, trigger: T) -> S:
        """Return the state that follows, or raise :class:`IllegalTransitionError`."""
        following = self.table.get((state, trigger))
        if following is None:
            raise IllegalTransitionError(self.name, state, trigger)
        return following

    def takes(self, state: S | None, trigger: T) -> bool:
        """Tell whether there is a row for this."""
        return (state, trigger) in self.table

    @property
    def states(self) -> frozenset[S]:
        """Every state that something can come to be in."""
        return frozenset(self.table.values())

    @property
    def final(self) -> frozenset[S]:
        """The states that nothing leaves any more."""
        return self.states - {state for state, _ in self.table}


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of a life: when, by whom, why, and what it was. ``before`` is empty for the first one."""

    at_ms: int
    actor: str
    reason: str
    before: str
    trigger: str
    after: str


def remember(kept: tuple[Transition, ...], new: Transition) -> tuple[Transition, ...]:
    """Return the transitions with one more: at most :data:`TRANSITIONS_MAX`, the first and the newest."""
    together = (*kept, new)
    if len(together) <= TRANSITIONS_MAX:
        return together
    newest = TRANSITIONS_MAX - FIRST_TRANSITIONS_KEPT
    return together[:FIRST_TRANSITIONS_KEPT] + together[-newest:]


def drawing(machine: Machine[S, T]) -> str:
    """Return a life cycle as a Mermaid state diagram, its rows in the order of the table."""
    lines = ["stateDiagram-v2"]
    lines += [
        f"    {state or '[*]'} --> {after}: {trigger}" for (state, trigger), after in machine.table.items()
    ]
    lines += [f"    {state} --> [*]" for state in sorted(machine.final)]
    return "\n".join(lines) + "\n"
