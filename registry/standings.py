"""The standings that are known without asking the store: bounded, and never older than they may be.

Two generations instead of a list in order of use: what is asked for lives in the young one; when that is
full it becomes the old one, and what nobody asked for meanwhile goes with the old one before. So a hit is
one look-up and nothing is moved. The cache looks nothing up; absent things are remembered as absent.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Final

from infra.clock import Clock
from registry.models import Standing

STANDINGS_CACHED_MAX: Final = 131_072
STANDING_TTL_S: Final = 5.0
"""How long a standing is believed where other processes can change it (spec: security, 2)."""


class Unknown(Enum):
    """Not known here: ask the store. Not the same as *known to be absent*."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN


class Standings:
    """A cache of standings; ``ttl_s`` None: nobody else can change them."""

    def __init__(self, clock: Clock, ttl_s: float | None, cached_max: int = STANDINGS_CACHED_MAX) -> None:
        self._clock = clock
        self._ttl_s = ttl_s
        self._generation_max = max(1, cached_max // 2)
        self._young: dict[str, tuple[Standing | None, float]] = {}
        self._old: dict[str, tuple[Standing | None, float]] = {}
        self._loads = 0
        self._overtaken: set[str] = set()
        self._all_overtaken = False

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, name: str) -> Standing | Unknown | None:
        """Return a standing, None for a thing known to be absent, UNKNOWN if the store must be asked."""
        kept = self._young.get(name)
        if kept is None:
            kept = self._old.pop(name, None)
            if kept is None:
                return UNKNOWN
            self._put(name, kept)
        if self._ttl_s is not None and kept[1] <= self._clock.elapsed_s():
            return UNKNOWN
        return kept[0]

    def drop(self, name: str) -> None:
        """Forget what is known of a thing, also what a look-up that is under way will find."""
        self._young.pop(name, None)
        self._old.pop(name, None)
        if self._loads:
            self._overtaken.add(name)

    def drop_all(self) -> None:
        """Forget everything, also what look-ups that are under way will find."""
        self._young, self._old = {}, {}
        self._all_overtaken = self._loads > 0

    def begin_load(self) -> float:
        """Note that a look-up starts now; to be given to :meth:`end_load` in any case."""
        self._loads += 1
        return self._clock.elapsed_s()

    def end_load(self, began_s: float, names: Iterable[str], found: Mapping[str, Standing]) -> None:
        """Keep what a look-up found, except for what has changed since it began."""
        self._loads -= 1
        until_s = began_s + (self._ttl_s or 0.0)
        for name in names:
            if not self._all_overtaken and name not in self._overtaken:
                self._old.pop(name, None)
                self._put(name, (found.get(name), until_s))
        if not self._loads:
            self._overtaken.clear()
            self._all_overtaken = False

    def _put(self, name: str, kept: tuple[Standing | None, float]) -> None:
        if len(self._young) >= self._generation_max and name not in self._young:
            self._old, self._young = self._young, {}
        self._young[name] = kept
