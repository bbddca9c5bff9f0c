"""The firmware report: which equipment runs what, and what of it needs which release.

Of devices that take no part only their number is known. (spec: ota, 9.1; I3FR7)
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ota import needs
from ota.campaign import Path, Selector
from ota.campaign_ports import Releases, ReleaseView
from ota.data import PRESERVE, RESET
from ota.facts import FactReader
from ota.manifest import DataMode, version_text
from ota.needs import DeviceFacts, Need, Reason
from registry.catalogue import ModelCatalogue, Ota

ALL: Final = Selector()
UNKNOWN: Final = ""
"""Stands for a version that nobody knows."""


@dataclass(frozen=True, slots=True)
class Row:
    """A device in a report."""

    thing: str
    reason: Reason | None
    """Why it does not need the release; None: it needs it."""
    version: str
    counter: int
    hw: str
    by_way_of: str = ""
    """Of one that runs too old a version: the release that it has to get first, if there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Who needs a release."""

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
    """Devices of a model that run the same version with the same counter."""

    model: str
    version: str
    counter: int
    devices: int
    needs: str
    """The newest release that they need; empty: none."""


class NeedsService:
    """Reads reports."""

    def __init__(self, releases: Releases, facts: FactReader, models: ModelCatalogue) -> None:
        self._releases = releases
        self._facts = facts
        self._models = models

    async def needs(self, release: str, selector: Selector = ALL) -> Needs:
        """Return who needs a release."""
        view = await self._releases.view(release)
        need = await self._need(view)
        others = await self._releases.released(view.model)
        rows: list[Row] = []
        not_enrolled = 0
        async for some in self._facts.select(view.model, selector):
            for facts in some:
                reason = needs.why_not(facts, need)
                if reason is Reason.NOT_ENROLLED:
                    not_enrolled += 1
                else:
                    rows.append(_row(facts, reason, others))
        needed = [row for row in rows if row.reason is None]
        return Needs(
            needed=len(needed),
            not_enrolled=not_enrolled,
            reasons=dict(sorted(Counter(str(row.reason) for row in rows if row.reason is not None).items())),
            versions=dict(sorted(Counter(row.version for row in needed).items())),
            classes=dict(sorted(Counter(row.hw for row in needed).items())),
            rows=tuple(sorted(rows, key=lambda row: row.thing)),
        )

    async def of_thing(self, thing: str) -> tuple[tuple[str, Reason | None], ...]:
        """Return the released firmware of a device's model, each with why the device does not need it."""
        facts = (await self._facts.of([thing])).get(thing)
        if facts is None or facts.model is None:
            return ()
        return tuple(
            [
                (one.id, needs.why_not(facts, await self._need(one)))
                for one in await self._releases.released(facts.model.id)
            ]
        )

    async def report(self, model: str) -> tuple[Line, ...]:
        """Return what the devices of a model run, and what of it needs an upgrade."""
        released = sorted(await self._releases.released(model), key=_newness, reverse=True)
        wanted = [(one.id, await self._need(one)) for one in released]
        lines: Counter[tuple[str, int, str]] = Counter()
        async for some in self._facts.select(model, ALL):
            for facts in some:
                if not facts.in_scope:
                    continue
                needed = next((id for id, need in wanted if needs.why_not(facts, need) is None), "")
                lines[(*_runs(facts), needed)] += 1
        return tuple(Line(model, *key[:2], count, key[2]) for key, count in sorted(lines.items()))

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


def _row(facts: DeviceFacts, reason: Reason | None, others: tuple[ReleaseView, ...]) -> Row:
    version, counter = _runs(facts)
    way = _way(facts, others) if reason is Reason.FROM_TOO_OLD else ""
    return Row(facts.device.id, reason, version, counter, facts.hw, way)


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
