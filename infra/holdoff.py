"""What failed is left alone for a while, so that one that always fails takes little from the others.

The wait doubles with each failure in a row: what failed by a coincidence is tried again in a moment. It is
kept by this process alone, as a hint; a process that starts anew tries everything once.
"""

from collections.abc import Iterable
from typing import Final

from infra.clock import Clock

HELD_S_MIN: Final = 1.0
HELD_S_MAX: Final = 60.0
HELD_MAX: Final = 10_000
"""Keys that are held; above it one that fails is tried again at once."""


class HoldOff:
    """Remembers what failed, and until when it is left alone."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: dict[str, tuple[float, float]] = {}
        """By key: until when, and how long that was."""

    def failed(self, key: str) -> None:
        """Leave this one alone, longer each time."""
        _, last_s = self._held.get(key, (0.0, 0.0))
        if key in self._held or len(self._held) < HELD_MAX:
            wait_s = min(max(2 * last_s, HELD_S_MIN), HELD_S_MAX)
            self._held[key] = (self._clock.elapsed_s() + wait_s, wait_s)

    def worked(self, key: str) -> None:
        """Forget that it ever failed."""
        self._held.pop(key, None)

    def free(self, keys: Iterable[str]) -> list[str]:
        """Return those that may be tried now, in their order."""
        now_s = self._clock.elapsed_s()
        # What nobody has tried again for so long is gone.
        self._held = {key: held for key, held in self._held.items() if held[0] + HELD_S_MAX > now_s}
        return [key for key in keys if key not in self._held or self._held[key][0] <= now_s]
