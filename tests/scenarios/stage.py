"""Where a scenario is played: a demo utility of its own, a representative, and a line for each step."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from fleet.provisioning import SCENES, Scene
from gnomon.access import Access
from gnomon.credentials import read_credentials
from gnomon.tool import Tool
from infra.clock import SystemClock
from provisioning.care_demo import customers
from security.policy import Role
from tests.system.child import Gnomon

HOMES: Final = 54
"""Enough for all scenes to be in the city."""
Document = dict[str, Any]


Ways = tuple[tuple[str, int, "Callable[[Stage], None]"], ...]
"""Of playing a scenario: what is special about each, the home that it begins with, and the steps."""


class StepFailedError(Exception):
    """A step of a scenario did not come out as the use case says."""


@dataclass
class Stage:
    """A running Gnomon, and the home that calls."""

    gnomon: Gnomon
    number: int
    out: Any = field(default=sys.stdout)
    began_s: float = field(default_factory=time.monotonic)

    @property
    def scene(self) -> Scene:
        return SCENES[self.number]

    @property
    def premises(self) -> str:
        return self.scene.home.premises

    def said(self, step: str, actor: str, what: str) -> None:
        """Print a step, who did it, and what came of it."""
        elapsed = time.monotonic() - self.began_s
        self.out.write(f"{step:<10} {actor:<16} {what}  [{elapsed:.1f} s]\n")
        self.out.flush()

    def must(self, what: str, *, held: bool) -> None:
        """Go on only if it is so."""
        if not held:
            raise StepFailedError(what)

    def grants(self) -> list[Document]:
        """Return what the customer reads from the labels; that of the door sensor nobody asks for."""
        return [
            {"eui64": eui64, "proof": "install_code", "value": label}
            for name, eui64 in self.scene.eui64s.items()
            if name != "door" and (label := self.scene.labels[eui64])
        ]

    @contextmanager
    def tool(self, role: Role = Role.REP) -> Iterator[Tool]:
        """Return the Provisioning Tool in the hands of one of the demo's people."""
        file = self.gnomon.var / "demo" / "credentials" / f"{role}.toml"
        access = Access(read_credentials(file), SystemClock(), _nobody)
        try:
            yield Tool(access, time.sleep)
        finally:
            access.close()

    def account_number(self) -> str:
        """Return what the customer says on the telephone."""
        return next(
            account.number
            for customer in customers()
            for account in customer.accounts
            if account.premises == self.premises
        )


def _nobody(what: str) -> str:
    raise StepFailedError(f"nobody is here to say the {what}")


@contextmanager
def staged(number: int) -> Iterator[Stage]:
    """Start a demo utility in a directory of its own, with this home on the telephone."""
    with TemporaryDirectory(prefix="gnomon-scenario-") as directory:
        gnomon = Gnomon(Path(directory), command=("demo", "--homes", str(HOMES)))
        with gnomon:
            yield Stage(gnomon, number)
