"""What time it is: wall time to write down, elapsed time to wait by.

The one home of both. A time-out belongs to ``elapsed_s``, which never jumps; ``now_ms`` is written
into documents and never waited on. Rules take the value, services take the :class:`Clock`.
"""

import time
from typing import Protocol

MS_PER_S = 1_000


class Clock(Protocol):
    """Tells the time; tests bring their own."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 in UTC. May jump, also backwards."""
        ...

    def elapsed_s(self) -> float:
        """Seconds since some moment of this process. Never falls, never jumps."""
        ...


class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def elapsed_s(self) -> float:
        return time.monotonic()
