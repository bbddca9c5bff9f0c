"""A campaign: what its author wants, what was frozen of it, and what people and the executor do to it. Pure.

Nobody approves what they wrote. Whoever is on duty may stop one; after a pause that no person made, another
person than its author lets it go on. (spec: ota, 9)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from infra.machines import IllegalTransitionError, Transition, remember
from infra.time_zones import is_time_zone
from ota.calendar import MINUTES_PER_DAY, Window
from ota.data import PRESERVE, RESET
from ota.errors import AuthorApprovesError, InvalidCampaignError
from ota.models import NEVER
from ota.pace import Bucket, Ramp
from ota.states import CAMPAIGN, CampaignState, CampaignTrigger
from registry.models import Owner

TARGETS_MAX: Final = 20_000
WAVES_MAX: Final = 20
WINDOWS_MAX: Final = 20
ALL_PERCENT: Final = 100
UNTOUCHED: Final = Bucket()
NAMES_MAX: Final = 20_000
"""Things or premises that a selector names."""
NOTE_CHARS_MAX: Final = 1_000
PRESTAGE_TRANSFER_S: Final = 86_400
PRESTAGE_ACTIVATION_S: Final = 120
ORDER_MS_MAX: Final = 90 * 86_400_000
DEADLINE_S_MIN, DEADLINE_S_MAX = 30, 3_600
WAIT_S_MIN, WAIT_S_MAX = 10, 3_600
"""Of a start, of a new image's own test, of what is said of it."""
SOAK_S_MAX: Final = 604_800
PAUSE_TTL_S_MIN, PAUSE_TTL_S_MAX = 60, 2_592_000
RETRIES_MAX: Final = 10
HAND_MS_MAX: Final = 10_000
"""How long it may take to have a target tried once more that a person asked for."""
RAMP_FACTOR_MAX: Final = 5
"""As AWS has it: a pace that grows faster is soon no number any more."""
RAMP_PER_MIN_MAX: Final = 1_000


class Path(StrEnum):
    """How devices come to the image."""

    REMOTE = "remote"
    LOCAL = "local"
    """Somebody brings it on site."""


@dataclass(frozen=True, slots=True)
class Wave:
    """How many devices may be at it from here on, those of earlier waves included: a number or a share."""

    devices: int = 0
    percent: int = 0


WAVES: Final = (Wave(10), Wave(percent=1), Wave(percent=10), Wave(percent=50), Wave(percent=100))


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Which devices are looked at; empty: all of the release's model."""

    things: tuple[str, ...] = ()
    premises: tuple[str, ...] = ()
    owner: Owner | None = None
    pinned: tuple[str, ...] = ()
    """These stay with what they run, for a reason that people know."""


class Failure(StrEnum):
    """What a criterion counts."""

    FAILED = "FAILED"
    """Rolled back ones too: devices see the same."""
    REJECTED = "REJECTED"
    TIMED_OUT = "TIMED_OUT"
    ALL = "ALL"


@dataclass(frozen=True, slots=True)
class Criterion:
    """Of AWS ``abortConfig``: abort when so large a share of at least so many has ended so."""

    failure: Failure
    percent: float
    least: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """When a campaign stops by itself, over the targets that have ended; see ``plan``."""

    pause_percent: float = 3
    abort_percent: float = 10
    rejected_percent: float = 20
    least: int = 20
    extras: tuple[Criterion, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What its author wants of a campaign."""

    release: str
    selector: Selector = Selector()
    path: Path = Path.REMOTE
    data: str = PRESERVE
    waves: tuple[Wave, ...] = WAVES
    per_hour: int
    max_in_flight: int
    ramp: Ramp | None = None
    windows: tuple[Window, ...] = ()
    """When offers may be made, and devices may activate unless ``activation`` says otherwise."""
    activation: tuple[Window, ...] = ()
    """Of pre-staged ones: when devices may activate."""
    time_zone: str = "UTC"
    """Of premises that have none of their own."""
    blackout: bool = True
    """Nobody is disturbed around an event."""
    thresholds: Thresholds = Thresholds()
    prestage: bool = False
    """Devices load ahead, and activate at their hour."""
    start_at_ms: int = NEVER
    activate_at_ms: int = NEVER
    lasts_ms: int
    """So long its order holds."""
    deadline_s: int
    start_grace_s: int
    confirm_s: int
    health_s: int
    soak_s: int
    pause_ttl_s: int
    retries: int
    retry_rolled_back: bool = False
    notes: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """What was counted and built when a campaign was submitted."""

    revision: int
    targets: int
    """All, those that get no order included."""
    ordered: int
    """Those whose names the order holds."""
    root: str
    """Of the tree over these names, hex."""
    manifest: str
    """SHA-256 of the vendor's bytes, hex."""
    image: str
    """SHA-256 of the image, hex."""
    not_before_s: int
    not_after_s: int
    excluded: Mapping[str, int] = field(default_factory=dict)
    warnings: Mapping[str, int] = field(default_factory=dict)
    parts: int = 0
    """Documents that hold the names."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a campaign stands still, or ended."""

    reason: str
    automatic: bool
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """One campaign. ``version`` rises with each act of a person or of its own."""

    id: str
    terms: Terms
    author: str
    hands: frozenset[str]
    """Who wrote or submitted any of it: none of them approves it."""
    state: CampaignState = CampaignState.DRAFT
    version: int = 1
    transitions: tuple[Transition, ...] = ()
    request: str = ""
    """Digest of the request that made it: the same one again makes no second."""
    frozen: Frozen | None = None
    revision: int = 0
    """Of the last order that was built."""
    order: bytes = b""
    """The signed order, COSE."""
    approver: str = ""
    created: bool = False
    """There is a document for each target."""
    wave: int = 0
    """The last one that is open."""
    bucket: Bucket = UNTOUCHED
    offered: int = 0
    """Offers made so far."""
    stop: Stop | None = None
    judged_from_ms: int = NEVER
    """People know of what ended before this, and let it go on."""
    open_until_ms: int = NEVER
    """A person is having a target tried once more: before this it is not over for good."""
    started_at_ms: int = NEVER
    ended_at_ms: int = NEVER
    settled: bool = False
    """It is over, and so is each of its targets."""

    @property
    def is_at_work(self) -> bool:
        """Whether something may have to be carried out."""
        return self.state in LIVE or (self.is_over and not self.settled)

    @property
    def is_over(self) -> bool:
        """Whether nothing is offered any more, ever."""
        return self.state in CAMPAIGN.final


LIVE: Final = frozenset(
    {CampaignState.APPROVED, CampaignState.SCHEDULED, CampaignState.RUNNING, CampaignState.PAUSED}
)

# Acts. Each returns what a campaign is afterwards, or raises and nothing has changed.


def create(id: str, terms: Terms, author: str, now_ms: int, request: str = "") -> Campaign:
    """Return a new draft."""
    check(terms)
    step = Transition(now_ms, author, "", "", CampaignTrigger.CREATE, CampaignState.DRAFT)
    return Campaign(
        id=id, terms=terms, author=author, hands=frozenset({author}), transitions=(step,), request=request
    )


def edit(campaign: Campaign, terms: Terms, by: str, now_ms: int) -> Campaign:
    """Return a draft with other terms: what was frozen is not any more."""
    check(terms)
    after = _stepped(campaign, CampaignTrigger.EDIT, by, now_ms)
    return replace(after, terms=terms, hands=after.hands | {by}, frozen=None)


def submit(campaign: Campaign, frozen: Frozen, by: str, now_ms: int, reason: str = "") -> Campaign:
    """Return a draft that waits for a second person: its targets and its order stand."""
    after = _stepped(campaign, CampaignTrigger.SUBMIT, by, now_ms, reason)
    return replace(after, frozen=frozen, revision=frozen.revision, hands=after.hands | {by})


def approve(campaign: Campaign, order: bytes, by: str, now_ms: int, reason: str = "") -> Campaign:
    """Return a campaign whose order is signed."""
    after = _stepped(campaign, CampaignTrigger.APPROVE, by, now_ms, reason)
    if by in campaign.hands:
        raise AuthorApprovesError
    return replace(after, order=order, approver=by)


def schedule(campaign: Campaign, by: str, now_ms: int) -> Campaign:
    """Return a campaign that waits for its time."""
    return _stepped(campaign, CampaignTrigger.SCHEDULE, by, now_ms)


def start(campaign: Campaign, by: str, now_ms: int) -> Campaign:
    """Return a campaign that is carried out."""
    after = _stepped(campaign, CampaignTrigger.START, by, now_ms)
    return replace(after, started_at_ms=now_ms)


def pause(campaign: Campaign, reason: str, by: str, now_ms: int, *, automatic: bool) -> Campaign:
    """Return a campaign that stands still."""
    after = _stepped(campaign, CampaignTrigger.PAUSE, by, now_ms, reason)
    return replace(after, stop=Stop(reason, automatic, now_ms))


def resume(campaign: Campaign, reason: str, by: str, now_ms: int) -> Campaign:
    """Return a campaign that goes on.

    After an automatic pause what ended so far does not stop it once more: a second person has looked at it.
    After any other nobody has, and what failed meanwhile counts.
    """
    after = replace(_stepped(campaign, CampaignTrigger.RESUME, by, now_ms, reason), stop=None)
    if campaign.stop is None or not campaign.stop.automatic:
        return after
    if by in campaign.hands:
        raise AuthorApprovesError
    return replace(after, judged_from_ms=now_ms)


def abort(campaign: Campaign, reason: str, by: str, now_ms: int, *, automatic: bool = False) -> Campaign:
    """Return a campaign that has ended before its time."""
    after = _stepped(campaign, CampaignTrigger.ABORT, by, now_ms, reason)
    return replace(after, stop=Stop(reason, automatic, now_ms), ended_at_ms=now_ms)


def keep_open(campaign: Campaign, now_ms: int) -> Campaign:
    """Return a campaign that does not end while a target of it is being planned once more.

    Twice as long as that may take, so that the executor sees it planned before it looks for the end.
    """
    if campaign.state not in {CampaignState.RUNNING, CampaignState.PAUSED}:
        raise IllegalTransitionError(CAMPAIGN.name, campaign.state, CampaignTrigger.RESUME)
    return replace(campaign, open_until_ms=max(campaign.open_until_ms, now_ms + 2 * HAND_MS_MAX))


def complete(campaign: Campaign, by: str, now_ms: int) -> Campaign:
    """Return a campaign that has done what it could."""
    after = _stepped(campaign, CampaignTrigger.COMPLETE, by, now_ms)
    return replace(after, ended_at_ms=now_ms, settled=True)


def _stepped(
    campaign: Campaign, trigger: CampaignTrigger, by: str, now_ms: int, reason: str = ""
) -> Campaign:
    following = CAMPAIGN.after(campaign.state, trigger)
    step = Transition(now_ms, by, reason, campaign.state, trigger, following)
    return replace(
        campaign,
        state=following,
        version=campaign.version + 1,
        transitions=remember(campaign.transitions, step),
    )


# Waves


def wave_ends(terms: Terms, ordered: int) -> tuple[int, ...]:
    """Return how many targets each wave comes to, earlier ones included; the last one holds all."""
    ends: list[int] = []
    for wave in terms.waves:
        size = wave.devices or -(-ordered * wave.percent // 100)
        ends.append(min(ordered, max(size, ends[-1] if ends else 0)))
    return (*ends[:-1], ordered)


def wave_of(place: int, ends: tuple[int, ...]) -> int:
    """Return the number of the wave that a target at this place belongs to."""
    return next((number for number, end in enumerate(ends) if place < end), len(ends) - 1)


# Checks


def check(terms: Terms) -> None:
    """Raise :class:`InvalidCampaignError` with all that is wrong with terms."""
    problems = [text for wrong, text in _problems(terms) if wrong]
    if problems:
        raise InvalidCampaignError(tuple(problems))


def _problems(terms: Terms) -> tuple[tuple[bool, str], ...]:
    names = (terms.selector.things, terms.selector.premises, terms.selector.pinned)
    windows = (*terms.windows, *terms.activation)
    waits = (terms.start_grace_s, terms.confirm_s, terms.health_s)
    limits = terms.thresholds
    extras = tuple(extra.percent for extra in limits.extras)
    shares = (limits.pause_percent, limits.abort_percent, limits.rejected_percent, *extras)
    return (
        (not terms.release, "release: names none"),
        (terms.data not in {PRESERVE, RESET}, "data: preserve or reset"),
        (any(len(some) > NAMES_MAX for some in names), f"selector: names at most {NAMES_MAX:,}"),
        (not 1 <= len(terms.waves) <= WAVES_MAX, f"waves: 1 to {WAVES_MAX}"),
        (not all(map(_is_wave, terms.waves)), "waves: each a number of devices, or a share of 1 to 100 %"),
        (terms.per_hour < 1, "per_hour: 1 or more"),
        (terms.max_in_flight < 1, "max_in_flight: 1 or more"),
        (
            terms.ramp is not None and not _is_ramp(terms.ramp),
            f"ramp: grows from 1 to {RAMP_PER_MIN_MAX:,} a minute, by up to {RAMP_FACTOR_MAX} times",
        ),
        (len(windows) > WINDOWS_MAX, f"windows: at most {WINDOWS_MAX}"),
        (not all(map(_is_window, windows)), "windows: times of the day, on days 0 to 6"),
        (not is_time_zone(terms.time_zone), "time_zone: a name of the IANA database, as Europe/Berlin"),
        (bool(terms.activation) and not terms.prestage, "activation: only of those that load ahead"),
        (not all(0 < share <= ALL_PERCENT for share in shares), "thresholds: shares of more than 0 to 100 %"),
        (limits.least < 1 or any(extra.least < 1 for extra in limits.extras), "thresholds: least: 1 or more"),
        (not 0 < terms.lasts_ms <= ORDER_MS_MAX, "lasts: up to 90 days"),
        (not DEADLINE_S_MIN <= terms.deadline_s <= DEADLINE_S_MAX, "deadline_s: 30 to 3,600"),
        (
            not all(WAIT_S_MIN <= one <= WAIT_S_MAX for one in waits),
            "start_grace_s, confirm_s, health_s: 10 to 3,600",
        ),
        (not 0 <= terms.soak_s <= SOAK_S_MAX, f"soak_s: 0 to {SOAK_S_MAX:,}"),
        (not PAUSE_TTL_S_MIN <= terms.pause_ttl_s <= PAUSE_TTL_S_MAX, "pause_ttl_s: 60 to 2,592,000"),
        (not 0 <= terms.retries <= RETRIES_MAX, f"retries: 0 to {RETRIES_MAX}"),
        (len(terms.notes) > NOTE_CHARS_MAX, f"notes: at most {NOTE_CHARS_MAX:,} characters"),
    )


def _is_wave(wave: Wave) -> bool:
    one_of_both = (wave.devices > 0) != (wave.percent > 0)
    return one_of_both and wave.devices >= 0 and 0 <= wave.percent <= ALL_PERCENT


def _is_ramp(ramp: Ramp) -> bool:
    return 1 <= ramp.per_min <= RAMP_PER_MIN_MAX and 1 <= ramp.factor <= RAMP_FACTOR_MAX and ramp.every >= 1


def _is_window(window: Window) -> bool:
    times = all(0 <= one < MINUTES_PER_DAY for one in (window.start_min, window.end_min))
    return times and window.days <= frozenset(range(7))
