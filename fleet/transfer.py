"""Fetch one file of a stream by windows: which blocks to ask for, when, and what to do with what comes.

Blocks come at QoS 0: a lost one is a hole, asked for again by bitmap. They may come twice, late, in any
order, or be somebody else's: every one is judged on arrival. Pure: time and chance come in.

    first window   o=0, n=8                    all eight are wanted
    later          o=first hole, n, b=bitmap   only what is still missing
"""

import random
from collections.abc import Callable
from enum import Enum, auto
from itertools import islice
from typing import Any, Final

from ota.verification import BLOCK_FAILURES_MAX

WINDOW: Final = 8
DATA_BYTES_MAX: Final = 131_072
"""The service answers no more with one request."""
ANSWER_S, ANSWER_S_MAX = 10.0, 60.0
BITS: Final = 8

Judge = Callable[[int, bytes], bool]
"""Tells whether this is that block."""


class Verdict(Enum):
    """What became of a block."""

    GOOD = auto()
    USELESS = auto()
    """It is there already, or belongs to nothing that was asked for."""
    BAD = auto()
    """It is asked for again."""
    HOPELESS = auto()
    """It was bad for the last time."""


class Transfer:
    """The state of fetching one file."""

    __slots__ = (
        "_asked",
        "_bad",
        "_block",
        "_chance",
        "_due_at",
        "_judge",
        "_last",
        "_tries",
        "blocks",
        "fails",
        "file",
        "missing",
        "size",
        "unavailable",
    )

    def __init__(
        self, file: int, size: int, block: int, judge: Judge, chance: random.Random, *, have: int = 0
    ) -> None:
        self.file, self.size = file, size
        self.blocks = -(-size // block)
        self.missing = dict.fromkeys(index for index in range(self.blocks) if not have >> index & 1)
        self.fails = self.unavailable = 0
        self._block, self._judge, self._chance = block, judge, chance
        self._bad: dict[int, int] = {}
        self._asked: set[int] = set()
        self._last = -1  # the highest block of the window that is under way
        self._due_at = 0.0
        self._tries = 0

    @property
    def done(self) -> bool:
        """Whether every block is there."""
        return not self.missing

    @property
    def wake_at(self) -> float:
        """Return when ``ask`` has something to say if nothing comes."""
        return self._due_at

    def ask(self, now: float) -> dict[str, Any] | None:
        """Return the next request, if there is something to ask for now; ``b`` are bytes."""
        if self.done or now < self._due_at:
            return None
        if self._asked:  # the last window is overdue
            self.fails += 1
            self._tries += 1
        wanted = list(islice(self.missing, max(1, min(WINDOW, DATA_BYTES_MAX // self._block))))
        self._asked, self._last = set(wanted), wanted[-1]
        self._due_at = now + self._patience_s()
        first = wanted[0]
        request: dict[str, Any] = {"f": self.file, "l": self._block, "o": first, "n": len(wanted)}
        if self._last - first >= len(wanted):
            bits = sum(1 << index - first for index in wanted)
            request["b"] = bits.to_bytes((self._last - first) // BITS + 1, "little")
        return request

    def take(self, index: int, data: bytes, now: float) -> Verdict:
        """Judge a block that came."""
        if index not in self.missing:
            return Verdict.USELESS
        if len(data) != self._length(index) or not self._judge(index, data):
            return self._take_bad(index)
        del self.missing[index]
        self._tries = 0
        self._due_at = now + ANSWER_S
        self._asked.discard(index)
        if not self._asked:
            self._due_at = now
        elif index == self._last:
            # Blocks come in rising order: what is still missing of this window was lost on the way.
            self._asked.clear()
            self._due_at = now
        return Verdict.GOOD

    def refused(self, now: float) -> None:
        """Wait longer: the service cannot answer now."""
        self.unavailable += 1
        self._tries += 1
        self._asked.clear()
        self._due_at = now + self._patience_s()

    def again(self, now: float) -> None:
        """Ask at once: whatever was asked for went down with a connection."""
        self._asked.clear()
        self._due_at = now

    def _take_bad(self, index: int) -> Verdict:
        copies = self._bad[index] = self._bad.get(index, 0) + 1
        if copies >= BLOCK_FAILURES_MAX:
            return Verdict.HOPELESS
        # The next window asks for it again, as the first of its holes.
        if index == self._last or self._asked == {index}:
            self._asked.clear()
            self._due_at = 0.0
        return Verdict.BAD

    def _length(self, index: int) -> int:
        return min(self._block, self.size - index * self._block)

    def _patience_s(self) -> float:
        """Return how long to wait for an answer: 10 s, then longer and spread, up to 60 s."""
        longest = min(ANSWER_S_MAX, ANSWER_S * 2 ** min(self._tries, BITS))
        return self._chance.uniform(ANSWER_S, longest)
