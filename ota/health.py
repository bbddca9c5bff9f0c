"""Whether our own service is well: while it is not, nobody is let go on to an image that could not report."""

from typing import Final

from infra.clock import Clock
from ota.models import NEVER

BROKER, STORE = "broker", "store"
PARTS: Final = frozenset({BROKER, STORE})


class Health:
    """Notes which parts of the service are down, and since when."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._down: dict[str, int] = {}

    def note(self, part: str, *, well: bool) -> None:
        """Note how a part is, one of :data:`PARTS`."""
        assert part in PARTS, "nobody asks for the health of anything else"
        if well:
            self._down.pop(part, None)
        else:
            self._down.setdefault(part, self._clock.now_ms())

    @property
    def unhealthy_since_ms(self) -> int:
        """Return since when a part is down; :data:`~ota.models.NEVER`: all are well."""
        return min(self._down.values(), default=NEVER)
