"""Time and chance for tests: set by hand, the same in every run."""

import random

from infra import ids

NOW_MS = 1_790_000_000_000


class FakeClock:
    """A clock that stands still until it is told to go on."""

    def __init__(self, now_ms: int = NOW_MS) -> None:
        self._now_ms = now_ms
        self._elapsed_s = 0.0

    def now_ms(self) -> int:
        return self._now_ms

    def elapsed_s(self) -> float:
        return self._elapsed_s

    def advance(self, seconds: float) -> None:
        """Let time pass, for both clocks alike."""
        assert seconds >= 0, "time does not run backwards; `jump` moves the wall clock alone"
        self._now_ms += round(seconds * 1_000)
        self._elapsed_s += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an administrator would; elapsed time does not notice."""
        self._now_ms += round(seconds * 1_000)


class SeededIds:
    """Ids that repeat with their seed."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)

    def token(self, bits: int = ids.TOKEN_BITS) -> str:
        return ids.encode(self._random.randbytes(-(-bits // 8)))

    def number(self) -> int:
        return self._random.getrandbits(ids.NUMBER_BITS)


def numbered(number: int) -> str:
    """Return an address of its own for each number."""
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
