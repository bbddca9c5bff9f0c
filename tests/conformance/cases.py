"""What a conformance case is, and how it is told whether it held.

A case is a function that takes a :class:`Bench` and raises when the service does not do as specified. Cases
are registered by a decorator, once for each way in which they are to be run.
"""

import itertools
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from tests.system.child import Gnomon

WAIT_S: Final = 10.0


class MissedError(Exception):
    """The service did not do what is specified."""


@dataclass(frozen=True, slots=True)
class Way:
    """By which client a case is run: columns of the table."""

    client: str
    protocol: str = ""
    shadow: str = ""

    def __str__(self) -> str:
        return f"{self.client:<5} {self.protocol:<11} {self.shadow:<8}"


@dataclass(slots=True)
class Bench:
    """A running service, and things that no other case has touched."""

    gnomon: Gnomon
    way: Way
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def shadow_name(self) -> str:
        """Name of the shadow that this way is about, ``""`` for the classic one."""
        return "settings" if self.way.shadow == "named" else ""

    def thing(self) -> str:
        """Register a new thing and return its name."""
        name = f"sdk-{next(_things)}"
        # Its certificate it gets from the Trust Center, as any device does, when it first connects.
        self.gnomon.register(name, premises=f"home-of-{name}", certify=False)
        return name


@dataclass(frozen=True, slots=True)
class Case:
    """One promise of the specification, by one way."""

    way: Way
    title: str
    check: Callable[[Bench], None]

    @property
    def line(self) -> str:
        """Return what the table says of it."""
        return f"{self.way} {self.title}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a case went; ``problem`` is empty when it held."""

    line: str
    """Which case, by which way."""
    seconds: float
    problem: str


_things = itertools.count(1)


class Catalogue:
    """Cases in the order in which they were written."""

    def __init__(self) -> None:
        self.cases: list[Case] = []

    def case(self, *ways: Way) -> Callable[[Callable[[Bench], None]], Callable[[Bench], None]]:
        """Register a check for each way; its name is the promise, in words."""

        def register(check: Callable[[Bench], None]) -> Callable[[Bench], None]:
            title = check.__name__.replace("_", " ")
            self.cases += [Case(way, title, check) for way in ways]
            return check

        return register


def run(cases: Iterable[Case], gnomon: Gnomon) -> Iterator[Verdict]:
    """Run the cases one after another; one that fails does not hold up the rest."""
    for case in cases:
        yield judge(case.line, partial(case.check, Bench(gnomon, case.way)))


def judge(line: str, check: Callable[[], None]) -> Verdict:
    """Run one case; whatever it raises, it did not hold."""
    began, problem = time.monotonic(), ""
    try:
        check()
    except Exception as error:  # noqa: BLE001 - see above
        problem = _told(error)
    return Verdict(line, time.monotonic() - began, problem)


def expect(actual: object, wanted: object, what: str) -> None:
    """Raise unless both are equal; ``what`` says of what."""
    if actual != wanted or isinstance(actual, bool) is not isinstance(wanted, bool):
        raise MissedError(f"{what} is {actual!r}, not {wanted!r}")


def _told(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in where if "conformance" in frame.filename]
    line = f" (line {ours[-1].lineno} of {ours[-1].filename.rpartition('/')[2]})" if ours else ""
    return f"{type(error).__name__}: {error}{line}"
