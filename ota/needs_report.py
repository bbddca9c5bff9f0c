"""Who needs which firmware: of a release device by device, of all equipment what it runs and is to run.

Of devices that take no part only their number is known. A report is of one moment: its pages too, for as long
as it is kept. (spec: ota, 9.1; I3FR7)
"""

import asyncio
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from infra.clock import Clock
from infra.documents import cursors
from infra.documents.port import PAGE_MAX, InvalidCursorError
from ota import needs
from ota.campaign import Path, Selector
from ota.campaign_ports import Releases, ReleaseView
from ota.data import PRESERVE, RESET
from ota.equipment import Equipment, Kind
from ota.facts import FactReader
from ota.manifest import DataMode, version_text
from ota.needs import DeviceFacts, Need, Reason
from registry.catalogue import ModelCatalogue, Ota

ALL: Final = Selector()
UNKNOWN: Final = ""
"""Stands for a version that nobody knows."""
NEEDED: Final = "NEEDED"
"""Stands beside the reasons for those that have none."""
KEPT_S: Final = 60.0
"""For so long the pages of a report are of one moment."""
KEPT_MAX: Final = 4

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row:
    """A device in a report."""

    thing: str
    kind: Kind
    reason: Reason | None
    """Why it does not need the release; None: it needs it."""
    version: str
    counter: int
    hw: str
    by_way_of: str = ""
    """Of one that runs too old a version: the release that it has to get first, if there is one."""

    @property
    def key(self) -> tuple[str, ...]:
        """Return by what it is ordered."""
        return (self.thing,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Who needs a release."""

    at_ms: int
    needed: int
    not_enrolled: int
    reasons: Mapping[str, int]
    """Why others do not, NOT_ENROLLED left out."""
    versions: Mapping[str, int]
    """Those that need it, by what they run."""
    classes: Mapping[str, int]
    """Those that need it, by hardware class."""
    rows: tuple[Row, ...]
    """All that take part, in the order of their names."""


@dataclass(frozen=True, slots=True)
class Line:
    """Equipment of one kind and model that runs the same version with the same counter."""

    model: str
    kind: Kind
    version: str
    counter: int
    needs: str
    """The newest release that it needs; empty: none."""
    reason: str
    """Why it does not get what is newer than what it runs; empty: it needs it, or there is nothing newer."""
    devices: int

    @property
    def key(self) -> tuple[str, ...]:
        """Return by what it is ordered."""
        return (self.model, self.kind, self.version, f"{self.counter:010}", self.needs, self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class FirmwareReport:
    """What all equipment runs; what is gone for good is left out."""

    at_ms: int
    not_enrolled: int
    lines: tuple[Line, ...]

    @property
    def needed(self) -> int:
        """Return how much equipment needs a release."""
        return sum(line.devices for line in self.lines if line.needs)


class _Keyed(Protocol):
    @property
    def key(self) -> tuple[str, ...]: ...


K = TypeVar("K", bound=_Keyed)


class NeedsService:
    """Makes reports."""

    def __init__(
        self,
        releases: Releases,
        facts: FactReader,
        models: ModelCatalogue,
        equipment: Equipment,
        clock: Clock,
    ) -> None:
        self._releases = releases
        self._facts = facts
        self._models = models
        self._equipment = equipment
        self._clock = clock
        self._of_releases = _Kept(clock, self.needs)
        self._of_models = _Kept(clock, self.report)

    # Pages

    async def page_of_release(
        self, release: str, only: str, limit: int, cursor: str | None
    ) -> tuple[Needs, tuple[Row, ...], str | None]:
        """Return who needs a release, with a page of devices; ``only``: of this reason, or :data:`NEEDED`."""
        found = await self._of_releases.get(release, anew=cursor is None)
        rows = [row for row in found.rows if only in {"", row.reason or NEEDED}]
        return (found, *_page(rows, (release, only), limit, cursor))

    async def page_of_report(
        self, model: str, limit: int, cursor: str | None
    ) -> tuple[FirmwareReport, tuple[Line, ...], str | None]:
        """Return the report of a model, or of all, with a page of its lines."""
        found = await self._of_models.get(model, anew=cursor is None)
        return (found, *_page(found.lines, ("report", model), limit, cursor))

    # Reports

    async def needs(self, release: str, selector: Selector = ALL) -> Needs:
        """Return who needs a release."""
        view = await self._releases.view(release)
        need = await self._need(view)
        others = await self._releases.released(view.model)
        now_ms, not_enrolled = self._clock.now_ms(), 0
        rows: list[Row] = []
        async for some in self._facts.select(view.model, selector):
            kinds = await self._kinds(some)
            for facts in some:
                reason = needs.why_not(facts, need)
                if reason is Reason.NOT_ENROLLED:
                    not_enrolled += 1
                else:
                    rows.append(_row(facts, kinds, reason, others))
        needed = [row for row in rows if row.reason is None]
        return Needs(
            at_ms=now_ms,
            needed=len(needed),
            not_enrolled=not_enrolled,
            reasons=dict(sorted(Counter(str(row.reason) for row in rows if row.reason is not None).items())),
            versions=dict(sorted(Counter(row.version for row in needed).items())),
            classes=dict(sorted(Counter(row.hw for row in needed).items())),
            rows=tuple(sorted(rows, key=lambda row: row.key)),
        )

    async def of_thing(self, thing: str) -> tuple[tuple[ReleaseView, Reason | None], ...]:
        """Return the released firmware of a device's model, each with why the device does not need it."""
        facts = (await self._facts.of([thing])).get(thing)
        if facts is None or facts.model is None:
            return ()
        released = sorted(await self._releases.released(facts.model.id), key=_newness, reverse=True)
        return tuple([(one, needs.why_not(facts, await self._need(one))) for one in released])

    async def report(self, model: str = "") -> FirmwareReport:
        """Return what the equipment of a model, or of all of the catalogue, runs and needs."""
        now_ms, not_enrolled = self._clock.now_ms(), 0
        counts: Counter[tuple[str, Kind, str, int, str, str]] = Counter()
        async for id in self._named(model):
            released = sorted(await self._releases.released(id), key=_newness, reverse=True)
            wanted = [(one.id, await self._need(one)) for one in released]
            async for some in self._facts.select(id, ALL):
                kinds = await self._kinds(some)
                for facts in some:
                    if not facts.in_scope:
                        not_enrolled += 1
                    elif not needs.is_gone(facts):
                        release, reason = needs.outlook(facts, wanted)
                        kind = kinds.get(facts.device.id, Kind.DEVICE)
                        counts[(id, kind, *_runs(facts), release, reason or "")] += 1
        lines = [Line(*key, devices) for key, devices in counts.items()]
        return FirmwareReport(
            at_ms=now_ms, not_enrolled=not_enrolled, lines=tuple(sorted(lines, key=lambda line: line.key))
        )

    async def _named(self, model: str) -> AsyncIterator[str]:
        """Yield the id of a model, or of all: what is not in the catalogue takes no firmware of ours."""
        if model:
            yield (await self._models.model(model)).id
            return
        cursor: str | None = None
        while True:
            page = await self._models.page(PAGE_MAX, cursor)
            for one in page.models:
                yield one.id
            if (cursor := page.next) is None:
                return

    async def _kinds(self, some: Sequence[DeviceFacts]) -> Mapping[str, Kind]:
        return await self._equipment.kinds([one.standing for one in some if one.standing is not None])

    async def _need(self, view: ReleaseView) -> Need:
        """Return the usual way to bring a release: remote where its model can, preserving where it may."""
        model = (await self._models.models([view.model])).get(view.model)
        local = model is not None and model.ota is Ota.LOCAL
        return Need(
            manifest=view.manifest,
            model=view.model,
            path=Path.LOCAL if local else Path.REMOTE,
            data=PRESERVE if view.manifest.allows(DataMode.PRESERVE) else RESET,
        )


class _Kept(Generic[T]):
    """The last few reports. One is made at a time: it looks at a whole fleet."""

    def __init__(self, clock: Clock, make: Callable[[str], Awaitable[T]]) -> None:
        self._clock = clock
        self._make = make
        self._one_at_a_time = asyncio.Lock()
        self._made: OrderedDict[str, tuple[float, T]] = OrderedDict()

    async def get(self, of: str, *, anew: bool) -> T:
        """Return a report; one that was made already unless it is wanted anew, or is too old."""
        now_s = self._clock.elapsed_s()
        kept = self._made.get(of)
        if kept is not None and not anew and now_s - kept[0] < KEPT_S:
            return kept[1]
        async with self._one_at_a_time:
            made = await self._make(of)
        self._made[of] = (now_s, made)
        self._made.move_to_end(of)
        if len(self._made) > KEPT_MAX:
            self._made.popitem(last=False)
        return made


def _page(
    rows: Sequence[K], search: tuple[str, ...], limit: int, cursor: str | None
) -> tuple[tuple[K, ...], str | None]:
    """Return those of ordered rows after a cursor, as many as are wanted, and where to go on."""
    after = () if cursor is None else _position(cursor, search)
    start = bisect_right(rows, after, key=lambda row: row.key)
    page = tuple(rows[start : start + limit])
    return page, cursors.make(search, page[-1].key) if len(rows) > start + limit else None


def _position(cursor: str, search: tuple[str, ...]) -> tuple[str, ...]:
    found = cursors.position(cursor, search)
    if not all(isinstance(one, str) for one in found):
        raise InvalidCursorError("the cursor was not made by this search: start the search again without one")
    return tuple(map(str, found))


def _row(
    facts: DeviceFacts, kinds: Mapping[str, Kind], reason: Reason | None, others: tuple[ReleaseView, ...]
) -> Row:
    version, counter = _runs(facts)
    way = _way(facts, others) if reason is Reason.FROM_TOO_OLD else ""
    id = facts.device.id
    return Row(id, kinds.get(id, Kind.DEVICE), reason, version, counter, facts.hw, way)


def _runs(facts: DeviceFacts) -> tuple[str, int]:
    running = needs.running_of(facts)
    return (UNKNOWN, 0) if running is None else (version_text(running[1]), running[0])


def _way(facts: DeviceFacts, others: tuple[ReleaseView, ...]) -> str:
    """Return the newest release that may be installed over what a device runs."""
    running = needs.running_of(facts)
    if running is None:
        return ""
    counter, version = running
    fit = [
        one
        for one in others
        if one.manifest.min_from <= version
        and facts.hw in one.manifest.hw
        and (one.manifest.counter, one.manifest.version) > (counter, version)
        and one.manifest.counter >= counter
    ]
    return max(fit, key=_newness).id if fit else ""


def _newness(one: ReleaseView) -> tuple[int, int]:
    return one.manifest.counter, one.manifest.version
