"""What an attack is, and when it counts as repelled.

An attack is a function that tries to do what it must not be able to, many times, and scores each attempt.
"None succeeded" means nothing by itself: the attempt may have been malformed, or the service dead. So each
attack also does the honest thing in the same way, with the right identity; unless that works, the attack
proves nothing, and that is a failure of the suite. What the defence promises beside refusing (a row in the
audit, an alarm, a kick) is scored as well.
"""

import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tests.attack.field import Field

EXAMPLES_MAX: Final = 5


class Status(StrEnum):
    """How an attack went."""

    REPELLED = "repelled"
    SUCCEEDED = "SUCCEEDED"
    UNNOTICED = "UNNOTICED"
    """No attempt succeeded, but what the defence promises beside that did not happen."""
    PROVES_NOTHING = "PROVES NOTHING"
    """The honest act did not work either, or there were too few attempts."""
    BROKE_OFF = "BROKE OFF"


@dataclass(slots=True)
class Score:
    """What was tried, and what came of it."""

    tried: int = 0
    succeeded: int = 0
    honest_acts: int = 0
    examples: list[str] = field(default_factory=list)
    """The first of what succeeded."""
    failed_acts: list[str] = field(default_factory=list)
    """Honest acts that did not work."""
    missing: list[str] = field(default_factory=list)
    """What a defence should have done beside refusing."""
    measured: dict[str, Any] = field(default_factory=dict)

    def attempt(self, what: str, *, succeeded: bool) -> None:
        """Count one attempt; ``what`` tells it to whoever has to look for the hole."""
        self.attempts(what, 1, int(succeeded))

    def attempts(self, what: str, tried: int, succeeded: int) -> None:
        """Count attempts of one sort."""
        self.tried += tried
        self.succeeded += succeeded
        if succeeded and len(self.examples) < EXAMPLES_MAX:
            self.examples.append(what)

    def honest(self, what: str, *, works: bool) -> None:
        """Score an honest act that must work, or the attempts of this attack say nothing."""
        self.honest_acts += 1
        if not works:
            self.failed_acts.append(what)

    def must(self, what: str, *, held: bool) -> None:
        """Score what the defence promises beside refusing."""
        if not held:
            self.missing.append(what)

    def add(self, other: "Score") -> None:
        """Take over what was scored elsewhere."""
        self.tried += other.tried
        self.succeeded += other.succeeded
        self.honest_acts += other.honest_acts
        self.examples = [*self.examples, *other.examples][:EXAMPLES_MAX]
        self.failed_acts += other.failed_acts
        self.missing += other.missing
        self.measured |= other.measured

    def measure(self, **figures: Any) -> None:
        self.measured.update(figures)

    def status(self, at_least: int) -> Status:
        """Return the verdict; what succeeded outweighs everything else."""
        if self.succeeded:
            return Status.SUCCEEDED
        if self.failed_acts or not self.honest_acts or self.tried < at_least:
            return Status.PROVES_NOTHING
        return Status.UNNOTICED if self.missing else Status.REPELLED


@dataclass(frozen=True, slots=True)
class Size:
    """How much of something is done: in the whole run, and in its quick part."""

    full: int
    quick: int

    def of(self, quick: bool) -> int:
        return self.quick if quick else self.full


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack of the Bad Actor table, or one part of it."""

    id: str
    name: str
    carry_out: "Callable[[Field, Score], None]"
    at_least: Size
    """Fewer attempts prove nothing."""
    quick: bool
    """Whether it belongs to the quick part."""

    @property
    def row(self) -> str:
        """The row of the table it belongs to: B5 for B5 and for B5/race."""
        return self.id.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attack went, with all that a person wants to know."""

    attack: Attack
    status: Status
    score: Score
    seconds: float
    problem: str = ""

    @property
    def repelled(self) -> bool:
        return self.status is Status.REPELLED

    @property
    def noticed(self) -> bool:
        """Whether this would have told somebody of a hole; an attack that merely breaks off does not."""
        return self.status in {Status.SUCCEEDED, Status.UNNOTICED}

    def told(self) -> Iterator[str]:
        """Yield what to look at when it was not repelled."""
        yield from (f"succeeded: {one}" for one in self.score.examples)
        yield from (f"did not happen: {one}" for one in self.score.missing)
        yield from (f"the honest act failed: {one}" for one in self.score.failed_acts)
        if self.status is Status.PROVES_NOTHING and not self.score.failed_acts:
            yield f"{self.score.tried} attempts and {self.score.honest_acts} honest acts are too few"
        if self.problem:
            yield self.problem


_catalogue: list[Attack] = []


def attack(
    id: str, name: str, *, at_least: Size | int, quick: bool = True
) -> "Callable[[Callable[[Field, Score], None]], Callable[[Field, Score], None]]":
    """Register an attack under its row of the table."""
    size = Size(at_least, at_least) if isinstance(at_least, int) else at_least

    def register(carry_out: "Callable[[Field, Score], None]") -> "Callable[[Field, Score], None]":
        _catalogue.append(Attack(id, name, carry_out, size, quick))
        return carry_out

    return register


def registered() -> list[Attack]:
    """Return the attacks of all modules that were imported, by number."""
    return sorted(_catalogue, key=lambda one: (int(one.row.removeprefix("B")), one.id))


def run(attacks: Iterable[Attack], field: "Field") -> Iterator[Outcome]:
    """Carry the attacks out one after another; one that breaks off does not hold up the rest."""
    for one in attacks:
        # Each from the same seed: --only repeats what the whole run did.
        field.rng = Random(f"{field.seed}/{one.id}")
        field.gnomon.move()
        yield _carried_out(one, field)


def _carried_out(one: Attack, field: "Field") -> Outcome:
    score, began = Score(), time.monotonic()
    try:
        one.carry_out(field, score)
        status, problem = score.status(one.at_least.of(field.quick)), ""
    except Exception as error:  # noqa: BLE001 - whatever it was, this attack did not end
        status, problem = Status.BROKE_OFF, _where(error)
    if score.succeeded:
        status = Status.SUCCEEDED
    return Outcome(one, status, score, time.monotonic() - began, problem)


def _where(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "attack" in frame.filename.rpartition("tests")[2]] or frames
    line = f" (line {ours[-1].lineno} of {ours[-1].filename.rpartition('/')[2]})" if ours else ""
    return f"{type(error).__name__}: {error}{line}"
