"""Whether our own service is well: while it is not, nobody is let go on to an image that could not report."""

from collections.abc import Iterable
from enum import Enum

from infra.clock import Clock
from ota.models import NEVER


class Part(Enum):
    """What everything else hangs on."""

    BROKER = "broker"
    STORE = "store"


class Health:
    """Notes which parts of the service are down, and since when."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._down: dict[Part, int] = {}
        self._astray: frozenset[str] = frozenset()

    def note(self, part: Part, *, well: bool) -> None:
        """Note how a part is."""
        if well:
            self._down.pop(part, None)
        else:
            self._down.setdefault(part, self._clock.now_ms())

    def note_astray(self, campaigns: Iterable[str]) -> None:
        """Note which campaigns nobody could look after just now."""
        self._astray = frozenset(campaigns)

    def looks_after(self, campaign: str) -> bool:
        """Tell whether somebody would stop this campaign if it had to be."""
        return campaign not in self._astray

    @property
    def unhealthy_since_ms(self) -> int:
        """Return since when a part is down; :data:`~ota.models.NEVER`: all are well."""
        return min(self._down.values(), default=NEVER)
