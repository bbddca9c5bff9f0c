"""What travels about campaigns of firmware and their targets.

(spec: ota, 9, 11, 14)
"""

from base64 import b64encode
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from api.reading import Instant, ms_of, rfc3339
from api.schemas import Name, Time
from infra.clock import MS_PER_S
from infra.settings.model import OtaSettings
from ota import order as orders
from ota.calendar import Window
from ota.campaign import (
    DEADLINE_S_MAX,
    DEADLINE_S_MIN,
    NAMES_MAX,
    NOTE_CHARS_MAX,
    RAMP_FACTOR_MAX,
    RAMP_PER_MIN_MAX,
    RETRIES_MAX,
    TARGETS_MAX,
    WAVES,
    WAVES_MAX,
    WINDOWS_MAX,
    Campaign,
    Criterion,
    Failure,
    Path,
    Selector,
    Stop,
    Terms,
    Thresholds,
    Wave,
)
from ota.campaigns import DryRun, order_of
from ota.clocks import Figures, clocks_of
from ota.data import RESET
from ota.envelope import encode
from ota.models import NEVER, Attempt, Execution, job_id
from ota.pace import Ramp
from ota.states import ACTIVE, CampaignState, ExecutionState
from registry.models import Owner

S_PER_DAY: Final = 86_400
MINUTES_PER_HOUR: Final = 60
NAMES_SHOWN_MAX: Final = 1_000
"""Of each list of a selector."""

_LIMITS: Final = Thresholds()

Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Percent = Annotated[float, Meta(gt=0, le=100)]
Clock = Annotated[str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", examples=["22:00"])]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: Final[tuple[Day, ...]] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Id = Annotated[str, Meta(pattern="^[0-9a-f-]{36}$", examples=["6f1c7a52-0d5e-4c5b-9d1e-2f8f6a1b3c4d"])]
Data = Literal["preserve", "reset"]
Names = Annotated[list[Name], Meta(max_length=NAMES_MAX)]


class SelectorBody(Struct, forbid_unknown_fields=True):
    """Which devices are looked at; of the release's model all, where nothing is said."""

    things: Names = []
    premises: Names = []
    owner: Owner | None = None
    pinned: Annotated[Names, Meta(description="These keep what they run")] = []

    def value(self) -> Selector:
        return Selector(
            things=tuple(self.things),
            premises=tuple(self.premises),
            owner=self.owner,
            pinned=tuple(self.pinned),
        )

    @classmethod
    def of(cls, selector: Selector) -> "SelectorBody":
        return cls(list(selector.things), list(selector.premises), selector.owner, list(selector.pinned))


class WaveBody(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A share of the targets, those of earlier waves included: a number of devices, or percent of all."""

    devices: Annotated[int, Meta(ge=0, le=TARGETS_MAX)] = 0
    percent: Annotated[int, Meta(ge=0, le=100)] = 0


class HoursBody(Struct, forbid_unknown_fields=True):
    """Hours of the day at the premises; one that ends before it begins goes on into the next day."""

    start: Clock
    end: Clock
    days: Annotated[list[Day], Meta(max_length=7, description="On which it begins; every day if empty")] = []

    def value(self) -> Window:
        return Window(_minutes(self.start), _minutes(self.end), frozenset(map(DAYS.index, self.days)))

    @classmethod
    def of(cls, window: Window) -> "HoursBody":
        days = [DAYS[day] for day in sorted(window.days)]
        return cls(_clock(window.start_min), _clock(window.end_min), days)


class CriterionBody(Struct, forbid_unknown_fields=True):
    """A reason to abort, as in AWS ``abortConfig``."""

    failure: Failure
    percent: Percent
    least: Count


class ThresholdsBody(Struct, forbid_unknown_fields=True):
    """When a campaign stops by itself: shares of the targets that have ended, in percent."""

    pause_percent: Percent = _LIMITS.pause_percent
    abort_percent: Percent = _LIMITS.abort_percent
    rejected_percent: Percent = _LIMITS.rejected_percent
    least: Annotated[Count, Meta(description="Nothing counts before so many ended")] = _LIMITS.least
    extras: Annotated[list[CriterionBody], Meta(max_length=8)] = []

    def value(self) -> Thresholds:
        return Thresholds(
            pause_percent=self.pause_percent,
            abort_percent=self.abort_percent,
            rejected_percent=self.rejected_percent,
            least=self.least,
            extras=tuple(Criterion(one.failure, one.percent, one.least) for one in self.extras),
        )

    @classmethod
    def of(cls, limits: Thresholds) -> "ThresholdsBody":
        return cls(
            limits.pause_percent,
            limits.abort_percent,
            limits.rejected_percent,
            limits.least,
            [CriterionBody(one.failure, one.percent, one.least) for one in limits.extras],
        )


class RampBody(Struct, forbid_unknown_fields=True):
    """A pace that grows: ``per_min`` at first, ``factor`` times as much with every ``every`` offers."""

    per_min: Annotated[int, Meta(ge=1, le=RAMP_PER_MIN_MAX)] = 50
    factor: Annotated[float, Meta(ge=1, le=RAMP_FACTOR_MAX)] = 2.0
    every: Count = 1_000

    def value(self) -> Ramp:
        return Ramp(self.per_min, self.factor, self.every)

    @classmethod
    def of(cls, ramp: Ramp) -> "RampBody":
        return cls(ramp.per_min, ramp.factor, ramp.every)


class CampaignBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """What its author wants of a campaign; what is left out is as the settings ``ota.*`` say."""

    release: Id
    selector: SelectorBody = field(default_factory=SelectorBody)
    path: Path = Path.REMOTE
    data: Data = "preserve"
    waves: Annotated[list[WaveBody], Meta(max_length=WAVES_MAX)] = []
    per_hour: Count | None = None
    max_in_flight: Annotated[int, Meta(ge=1, le=TARGETS_MAX)] | None = None
    ramp: RampBody | None = None
    windows: Annotated[list[HoursBody], Meta(max_length=WINDOWS_MAX)] = []
    activation_windows: Annotated[list[HoursBody], Meta(max_length=WINDOWS_MAX)] = []
    time_zone: (
        Annotated[
            str, Meta(max_length=64, description="Of these hours, where premises have none of their own")
        ]
        | None
    ) = None
    blackout: Annotated[bool, Meta(description="Disturb nobody around an event")] = True
    thresholds: ThresholdsBody = field(default_factory=ThresholdsBody)
    prestage: Annotated[bool, Meta(description="Load ahead, activate later")] = False
    start_at: Instant | None = None
    activate_at: Instant | None = None
    deadline_s: Annotated[int, Meta(ge=DEADLINE_S_MIN, le=DEADLINE_S_MAX)] | None = None
    soak_s: Annotated[int, Meta(ge=0, le=604_800)] | None = None
    retries: Annotated[int, Meta(ge=0, le=RETRIES_MAX)] | None = None
    retry_rolled_back: bool = False
    notes: Annotated[str, Meta(max_length=NOTE_CHARS_MAX)] = ""

    def terms(self, settings: OtaSettings) -> Terms:
        """Return what is wanted, with what the settings say of the rest."""
        return Terms(
            release=self.release,
            selector=self.selector.value(),
            path=self.path,
            data=self.data,
            waves=tuple(Wave(one.devices, one.percent) for one in self.waves) or WAVES,
            per_hour=_or(self.per_hour, settings.devices_per_hour),
            max_in_flight=_or(self.max_in_flight, settings.in_flight),
            ramp=None if self.ramp is None else self.ramp.value(),
            windows=tuple(one.value() for one in self.windows),
            activation=tuple(one.value() for one in self.activation_windows),
            time_zone=settings.time_zone if self.time_zone is None else self.time_zone,
            blackout=self.blackout,
            thresholds=self.thresholds.value(),
            prestage=self.prestage,
            start_at_ms=NEVER if self.start_at is None else ms_of(self.start_at),
            activate_at_ms=NEVER if self.activate_at is None else ms_of(self.activate_at),
            lasts_ms=settings.order_days * S_PER_DAY * MS_PER_S,
            deadline_s=_or(self.deadline_s, settings.deadline_s),
            start_grace_s=settings.start_grace_s,
            confirm_s=settings.confirm_s,
            health_s=settings.health_s,
            soak_s=_or(self.soak_s, settings.soak_s),
            pause_ttl_s=settings.pause_ttl_s,
            retries=_or(self.retries, settings.retries),
            retry_rolled_back=self.retry_rolled_back,
            notes=self.notes,
        )

    @classmethod
    def of(cls, terms: Terms) -> "CampaignBody":
        """Return the body that says these terms: what a change of them is made to."""
        return cls(
            release=terms.release,
            selector=SelectorBody.of(terms.selector),
            path=terms.path,
            data="reset" if terms.data == RESET else "preserve",
            waves=[WaveBody(one.devices, one.percent) for one in terms.waves],
            per_hour=terms.per_hour,
            max_in_flight=terms.max_in_flight,
            ramp=None if terms.ramp is None else RampBody.of(terms.ramp),
            windows=[HoursBody.of(one) for one in terms.windows],
            activation_windows=[HoursBody.of(one) for one in terms.activation],
            time_zone=terms.time_zone,
            blackout=terms.blackout,
            thresholds=ThresholdsBody.of(terms.thresholds),
            prestage=terms.prestage,
            start_at=_instant(terms.start_at_ms),
            activate_at=_instant(terms.activate_at_ms),
            deadline_s=terms.deadline_s,
            soak_s=terms.soak_s,
            retries=terms.retries,
            retry_rolled_back=terms.retry_rolled_back,
            notes=terms.notes,
        )


class StopDocument(Struct):
    """Why it stands still, or ended."""

    reason: str
    automatic: Annotated[bool, Meta(description="No person did it: another than its author lets it go on")]
    at: Time

    @classmethod
    def of(cls, stop: Stop) -> "StopDocument":
        return cls(stop.reason, stop.automatic, rfc3339(stop.at_ms))


class ClocksDocument(Struct, kw_only=True):
    """How long devices take, beside what they may; null while nobody is done."""

    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    max_s: float | None
    limit_s: float
    over: Annotated[int, Meta(description="Devices that took longer, or whose time ran out")]
    per_hour: Annotated[int, Meta(description="Done within the last 60 minutes")]
    per_hour_aim: int
    in_flight: int

    @classmethod
    def of(cls, figures: Figures, settings: OtaSettings) -> "ClocksDocument":
        return cls(
            p50_s=_seconds(figures.p50_ms),
            p95_s=_seconds(figures.p95_ms),
            p99_s=_seconds(figures.p99_ms),
            max_s=_seconds(figures.p100_ms),
            limit_s=figures.limit_ms / MS_PER_S,
            over=figures.over,
            per_hour=figures.last_hour,
            per_hour_aim=settings.devices_per_hour,
            in_flight=figures.in_flight,
        )


class ProgressDocument(Struct, kw_only=True, omit_defaults=True):
    """How far it is: every target is in exactly one of ``counts``."""

    state: CampaignState
    wave: int
    targets: int
    counts: dict[str, int]
    clocks: ClocksDocument
    stop: StopDocument | None = None

    @classmethod
    def of(cls, campaign: Campaign, counts: Mapping[str, int], clocks: ClocksDocument) -> "ProgressDocument":
        return cls(
            state=campaign.state,
            wave=campaign.wave,
            targets=_targets(campaign),
            counts=dict(counts),
            clocks=clocks,
            stop=_stop(campaign),
        )


class SelectorDocument(SelectorBody, omit_defaults=True):
    """Which devices are looked at; names are those of equipment that takes part, of each list the first."""

    unnamed: Annotated[int, Meta(description="So many more are in it that are not named here")] = 0

    @classmethod
    def seen(cls, selector: Selector, in_sight: Collection[str], *, places: bool) -> "SelectorDocument":
        """Return a selector as somebody sees it for whom these things are there."""
        things = _seen(selector.things, in_sight)
        pinned = _seen(selector.pinned, in_sight)
        premises = list(selector.premises[:NAMES_SHOWN_MAX]) if places else []
        shown = len(things) + len(pinned) + len(premises)
        there = len(selector.things) + len(selector.pinned) + len(selector.premises)
        return cls(things, premises, selector.owner, pinned, there - shown)


class CampaignDocument(ProgressDocument, kw_only=True, omit_defaults=True):
    """A campaign as it is."""

    id: Id
    version: Annotated[int, Meta(description="As its ETag")]
    job: Annotated[str, Meta(description="What devices call it")]
    release: Id
    selector: SelectorDocument
    path: Path
    data: Data
    waves: list[WaveBody]
    per_hour: int
    max_in_flight: int
    ramp: RampBody | None = None
    windows: list[HoursBody] = []
    activation_windows: list[HoursBody] = []
    time_zone: Annotated[str, Meta(description="Of these hours at premises that have none of their own")]
    blackout: bool
    thresholds: ThresholdsBody
    prestage: bool
    start_at: Time | None = None
    activate_at: Time | None = None
    deadline_s: int
    soak_s: int
    retries: int
    retry_rolled_back: bool
    notes: str = ""
    author: str
    approver: str = ""
    revision: Annotated[int, Meta(description="Of the order: rises with each submit")]
    order: Annotated[
        str,
        Meta(description="Frozen: what an approver's own key signs, CBOR, base64. Later: what was signed"),
    ] = ""
    excluded: dict[str, int]
    warnings: dict[str, int]
    started_at: Time | None = None
    ended_at: Time | None = None

    @classmethod
    def whole(
        cls, campaign: Campaign, progress: ProgressDocument, selector: SelectorDocument
    ) -> "CampaignDocument":
        terms, frozen, said = campaign.terms, campaign.frozen, CampaignBody.of(campaign.terms)
        return cls(
            state=progress.state,
            wave=progress.wave,
            targets=progress.targets,
            counts=progress.counts,
            clocks=progress.clocks,
            stop=progress.stop,
            id=campaign.id,
            version=campaign.version,
            job=job_id(campaign.id),
            release=terms.release,
            selector=selector,
            path=terms.path,
            data=said.data,
            waves=said.waves,
            per_hour=terms.per_hour,
            max_in_flight=terms.max_in_flight,
            ramp=said.ramp,
            windows=said.windows,
            activation_windows=said.activation_windows,
            time_zone=terms.time_zone,
            blackout=terms.blackout,
            thresholds=said.thresholds,
            prestage=terms.prestage,
            start_at=_time(terms.start_at_ms),
            activate_at=_time(terms.activate_at_ms),
            deadline_s=terms.deadline_s,
            soak_s=terms.soak_s,
            retries=terms.retries,
            retry_rolled_back=terms.retry_rolled_back,
            notes=terms.notes,
            author=campaign.author,
            approver=campaign.approver,
            revision=campaign.revision,
            order=_order(campaign),
            excluded={} if frozen is None else dict(frozen.excluded),
            warnings={} if frozen is None else dict(frozen.warnings),
            started_at=_time(campaign.started_at_ms),
            ended_at=_time(campaign.ended_at_ms),
        )


class CampaignSummary(Struct, kw_only=True, omit_defaults=True):
    """A campaign in a list."""

    id: Id
    state: CampaignState
    release: Id
    path: Path
    data: Data
    targets: int
    done: Annotated[int, Meta(description="Targets that are neither waiting nor active")]
    notes: str = ""
    author: str
    approver: str = ""
    stop: StopDocument | None = None
    started_at: Time | None = None
    ended_at: Time | None = None

    @classmethod
    def of(cls, campaign: Campaign, done: int) -> "CampaignSummary":
        terms = campaign.terms
        return cls(
            id=campaign.id,
            state=campaign.state,
            release=terms.release,
            path=terms.path,
            data="reset" if terms.data == RESET else "preserve",
            targets=_targets(campaign),
            done=done,
            notes=terms.notes,
            author=campaign.author,
            approver=campaign.approver,
            stop=_stop(campaign),
            started_at=_time(campaign.started_at_ms),
            ended_at=_time(campaign.ended_at_ms),
        )


class CampaignList(Struct, omit_defaults=True):
    """A page of campaigns."""

    items: list[CampaignSummary]
    next: str | None = None


class DryRunDocument(Struct):
    """Who would get it: ``included`` and ``excluded`` together are all devices that were looked at."""

    included: int
    replaced: Annotated[int, Meta(description="They take no firmware: their customers are told")]
    excluded: Annotated[dict[str, int], Meta(description="By reason, each device under one")]
    waves: Annotated[list[int], Meta(description="Devices of each wave, earlier ones included")]
    warnings: Annotated[dict[str, int], Meta(description="They get it, and somebody should know")]
    forecast_end: Annotated[Time, Meta(description="If it started now and all went well")] | None = None

    @classmethod
    def of(cls, found: DryRun) -> "DryRunDocument":
        return cls(
            found.included,
            found.replaced,
            dict(found.excluded),
            list(found.waves),
            dict(found.warnings),
            _time(found.forecast_end_ms),
        )


Note = Annotated[str, Meta(max_length=NOTE_CHARS_MAX)]


class ApproveBody(Struct, forbid_unknown_fields=True):
    """An order that was signed elsewhere; without one the service signs with its own key."""

    order: Annotated[str, Meta(max_length=5_464, description="COSE_Sign1, base64")] = ""
    note: Note = ""


class NoteBody(Struct, forbid_unknown_fields=True):
    """Why: it stands in the audit trail."""

    note: Annotated[str, Meta(min_length=1, max_length=NOTE_CHARS_MAX)]


class RemarkBody(Struct, forbid_unknown_fields=True):
    """Why, if there is something to say."""

    note: Note = ""


class AttemptDocument(Struct, omit_defaults=True, kw_only=True):
    """One try that is over."""

    number: int
    state: ExecutionState
    reason: str = ""
    queued_at: Time | None = None
    started_at: Time | None = None
    ended_at: Time | None = None
    late: bool = False

    @classmethod
    def of(cls, attempt: Attempt) -> "AttemptDocument":
        return cls(
            number=attempt.number,
            state=attempt.state,
            reason=attempt.reason,
            queued_at=_time(attempt.queued_at_ms),
            started_at=_time(attempt.started_at_ms),
            ended_at=_time(attempt.ended_at_ms),
            late=attempt.late,
        )


class ExecutionDocument(Struct, omit_defaults=True, kw_only=True):
    """One target of a campaign and what became of it."""

    thing: Name
    campaign: Id
    state: ExecutionState
    wave: int
    attempt: int
    reason: str = ""
    how: Annotated[
        str, Meta(description="Of a success: by this job if empty, else late, on_site, elsewhere")
    ] = ""
    queued_at: Time | None = None
    started_at: Time | None = None
    staged_at: Time | None = None
    go_at: Time | None = None
    ended_at: Time | None = None
    seconds: Annotated[float, Meta(description="What counts of its clocks")] | UnsetType = UNSET
    transfer_s: float | UnsetType = UNSET
    idle_s: float | UnsetType = UNSET
    activation_s: float | UnsetType = UNSET
    details: dict[str, str] = {}
    snapshot: str = ""
    attempts: list[AttemptDocument] = []

    @classmethod
    def of(cls, one: Execution, now_ms: int, *, prestage: bool) -> "ExecutionDocument":
        document = cls(
            thing=one.thing,
            campaign=one.campaign,
            state=one.state,
            wave=one.wave,
            attempt=one.attempt,
            reason=one.reason,
            how=one.how,
            queued_at=_time(one.queued_at_ms),
            started_at=_time(one.started_at_ms),
            staged_at=_time(one.staged_at_ms),
            go_at=_time(one.go_at_ms),
            ended_at=_time(one.ended_at_ms),
            details=dict(one.details),
            snapshot=one.snapshot,
            attempts=[AttemptDocument.of(attempt) for attempt in one.past],
        )
        if one.started_at_ms and (one.state in ACTIVE or not one.how):
            clocks = clocks_of(one, now_ms, prestage=prestage)
            document.seconds = clocks.sum_ms / MS_PER_S
            document.transfer_s = clocks.transfer_ms / MS_PER_S
            document.idle_s = clocks.idle_ms / MS_PER_S
            document.activation_s = clocks.activation_ms / MS_PER_S
        return document


class ExecutionList(Struct, omit_defaults=True):
    """A page of targets."""

    items: list[ExecutionDocument]
    next: str | None = None


def _minutes(clock: str) -> int:
    hours, _, minutes = clock.partition(":")
    return int(hours) * MINUTES_PER_HOUR + int(minutes)


def _clock(minutes: int) -> str:
    return f"{minutes // MINUTES_PER_HOUR:02d}:{minutes % MINUTES_PER_HOUR:02d}"


def _targets(campaign: Campaign) -> int:
    return 0 if campaign.frozen is None else campaign.frozen.targets


def _stop(campaign: Campaign) -> StopDocument | None:
    return None if campaign.stop is None else StopDocument.of(campaign.stop)


def _seen(names: tuple[str, ...], in_sight: Collection[str]) -> list[str]:
    return [name for name in names[:NAMES_SHOWN_MAX] if name in in_sight]


def _order(campaign: Campaign) -> str:
    """Return the order that was signed, or the one that waits for it."""
    frozen = campaign.frozen
    if campaign.order or frozen is None or not frozen.ordered:
        return b64encode(campaign.order).decode()
    return b64encode(encode(orders.write(order_of(campaign, frozen)))).decode()


def _or(given: int | None, default: int) -> int:
    return default if given is None else given


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / MS_PER_S


def _instant(ms: int) -> datetime | None:
    return datetime.fromtimestamp(ms / MS_PER_S, UTC) if ms else None


def _time(ms: int | None) -> str | None:
    return rfc3339(ms) if ms else None
