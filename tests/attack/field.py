"""Where attacks happen: one running `gnomon up`, and what every attacker and every witness needs."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final, Self

from tests.attack.attacks import Size
from tests.system.child import Gnomon
from tests.system.mqtt import Thing, connected

if TYPE_CHECKING:
    from tests.attack.firmware_house import House

REFUSALS_WRITTEN_S_MAX: Final = 8.0
"""Refusals are folded, and written every 5 s."""
Row = dict[str, Any]
SETTLED_S: Final = 0.4
"""How long nothing must come to say that nothing comes."""


@dataclass(slots=True)
class Field:
    """The service under attack. Each attack takes things of its own, so that none disturbs another."""

    gnomon: Gnomon
    scratch: Path
    quick: bool = False
    seed: int = 1
    holes: tuple[str, ...] = ()
    """What was planted in the service, for attacks that need processes of their own."""
    rng: Random = field(default_factory=lambda: Random(1))
    house: "House | None" = None
    """What firmware was set up, once an attack has needed some."""

    def size(self, full: int, quick: int) -> int:
        """Return how much to do of something."""
        return Size(full, quick).of(self.quick)

    def things(self, count: int, kind: str = "device", **members: Any) -> list[str]:
        return [self.gnomon.new(kind, **members) for _ in range(count)]

    @contextmanager
    def connected(self, names: Sequence[str], **options: Any) -> Iterator[list[Thing]]:
        """Connect many things for the length of the block."""
        with ExitStack() as open_ones:
            yield [open_ones.enter_context(connected(self.gnomon, name, **options)) for name in names]

    # ------------------------------------------------------------------ what an attack may have changed

    def version(self, thing: str, shadow: str = "@classic") -> int:
        """Return a shadow's version, 0 when there is none."""
        answer = self.gnomon.http.get(f"/v1/things/{thing}/shadows/{shadow}")
        if answer.status_code == 404:
            return 0
        assert answer.status_code == 200, answer.text
        return int(answer.json()["version"])

    def versions(self, names: Sequence[str], shadows: Sequence[str] = ("@classic",)) -> dict[str, int]:
        return {f"{name}/{shadow}": self.version(name, shadow) for name in names for shadow in shadows}

    # ------------------------------------------------------------------ what was written down

    def audit(self, fits: Callable[[Row], bool] = lambda _: True) -> list[Row]:
        """Return the rows of the audit log that fit."""
        rows: list[Row] = []
        span = {"from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z"}
        cursor: str | None = ""
        while cursor is not None:
            page = self.gnomon.http.get("/v1/audit", params=span | ({"cursor": cursor} if cursor else {}))
            assert page.status_code == 200, page.text
            rows += filter(fits, page.json()["items"])
            cursor = page.json().get("next")
        return rows

    def refusals_written(self, count: int, fits: Callable[[Row], bool]) -> int:
        """Return how many refusals the audit log counts, once there are ``count`` or time is up."""
        found = 0

        def enough() -> bool:
            nonlocal found
            rows = self.audit(lambda row: row["decision"] == "refused" and fits(row))
            found = sum(row["count"] for row in rows)
            return found >= count

        happens(enough, REFUSALS_WRITTEN_S_MAX, every_s=0.5)
        return found


def happens(condition: Callable[[], bool], within_s: float, *, every_s: float = 0.02) -> bool:
    """Tell whether a condition comes true in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(every_s)
    return True


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of all values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Bystander:
    """An honest device that goes on reporting while an attack is under way: others must not notice."""

    def __init__(self, gnomon: Gnomon, pause_s: float = 0.02) -> None:
        self.gnomon = gnomon
        self._thing = Thing(gnomon, gnomon.new())
        self._pause_s = pause_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._report, name="bystander", daemon=True)
        self.answered_s: list[float] = []
        self.unanswered = 0

    def __enter__(self) -> Self:
        self._thing.connect().listen()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)
        self._thing.disconnect()

    @property
    def p99_s(self) -> float:
        return percentile(self.answered_s, 0.99)

    @property
    def undisturbed(self) -> bool:
        return bool(self.answered_s) and not self.unanswered and self._thing.connections == 1

    def _report(self) -> None:
        number = 0
        while not self._over.is_set():
            number += 1
            began = time.monotonic()
            try:
                self._thing.ask("update", {"state": {"reported": {"n": number}}})
                self.answered_s.append(time.monotonic() - began)
            except AssertionError:
                self.unanswered += 1
            self._over.wait(self._pause_s)
