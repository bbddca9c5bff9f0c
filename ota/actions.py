"""What a plan consists of: actions as data. Pure."""

from dataclasses import dataclass

from ota.models import NEVER
from ota.states import ExecutionTrigger


@dataclass(frozen=True, slots=True)
class Schedule:
    """The campaign waits for its time."""


@dataclass(frozen=True, slots=True)
class Start:
    """The campaign begins."""


@dataclass(frozen=True, slots=True)
class OpenWave:
    """All waves up to this one are offered."""

    number: int


@dataclass(frozen=True, slots=True)
class Pause:
    """The campaign stops by itself, until people have looked at it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Abort:
    """The campaign ends by itself."""

    reason: str


@dataclass(frozen=True, slots=True)
class Complete:
    """Nothing is left to be done."""


@dataclass(frozen=True, slots=True)
class Move:
    """A target is moved; only in the attempt that it was seen in."""

    thing: str
    attempt: int
    trigger: ExecutionTrigger
    reason: str = ""
    not_before_ms: int = NEVER
    """Of one that is planned again: when it may be offered."""


CampaignAction = Schedule | Start | OpenWave | Pause | Abort | Complete


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done with the campaign, with its targets, and when to look again if nothing happens."""

    campaign: tuple[CampaignAction, ...] = ()
    moves: tuple[Move, ...] = ()
    next_wake_ms: int | None = None

    @property
    def offers(self) -> int:
        """Return how many tokens it takes."""
        return sum(1 for move in self.moves if move.trigger is ExecutionTrigger.OFFER)
