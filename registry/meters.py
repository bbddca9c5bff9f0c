"""Meters: which stands where, since when, and which came in place of which.

A meter that has a HAN radio *has* a gateway, of kind ``meter``; it need not have one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from infra.clock import Clock
from infra.documents.port import Collection, DocumentStore, IndexValue
from infra.documents.records import Records
from registry.errors import InvalidDetailError, MeterElsewhereError, MeterExchangedError, MeterNotFoundError
from registry.rules import check_id, check_premises, check_text
from security.audit import INSIDE, Via
from security.audited import Audited
from security.policy import Principal

METERS: Final = "meters"
COLLECTION: Final = Collection(METERS, ("premises",))
METERS_PER_PREMISES_MAX: Final = 16
TECHNOLOGIES_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class Exchange:
    """One meter came in place of another: ``other`` is the one at the far end."""

    other: str
    at_ms: int
    work_order: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """A meter. It stands at its premises until it ``went``."""

    id: str
    model: str
    premises: str
    fw: str = ""
    installed_at_ms: int | None = None
    """None: known, and not installed yet."""
    technologies: frozenset[str] = frozenset()
    """Of its HAN radio; none without one."""
    comms_seen_at_ms: int | None = None
    """When the metering network heard of it last."""
    gateway: str = ""
    """The thing of its HAN radio."""
    came: Exchange | None = None
    """In place of which it came."""
    went: Exchange | None = None
    """Which one came in its place."""


def check(meter: Meter) -> None:
    """Raise an :class:`~registry.errors.InvalidThingError` unless a meter can be so."""
    check_id(meter.id)
    check_premises(meter.premises)
    check_text(meter.model, meter.fw, *meter.technologies)
    if meter.gateway:
        check_id(meter.gateway)
    if len(meter.technologies) > TECHNOLOGIES_MAX:
        raise InvalidDetailError(f"a meter has at most {TECHNOLOGIES_MAX} technologies")


def taken_out(before: Meter | None, id: str, new: Meter, at_ms: int, work_order: str) -> Meter:
    """Return a meter in whose place another one stands; as it is, if that one does already."""
    if before is None:
        raise MeterNotFoundError(id)
    if new.id == id or before.premises != new.premises:
        raise MeterElsewhereError(new.id)
    if before.went is None:
        return replace(before, went=Exchange(new.id, at_ms, work_order))
    if before.went.other != new.id:
        raise MeterExchangedError(id, before.went.other)
    return before


def put_in(before: Meter | None, new: Meter, came: Exchange) -> Meter:
    """Return the meter that came in place of another; as it is, if it has come already."""
    check_free(before, new)
    if before is not None and before.came == came:
        return before
    return replace(new, came=came, went=None, installed_at_ms=came.at_ms)


def check_free(before: Meter | None, new: Meter) -> None:
    """Raise :class:`MeterElsewhereError` if a meter still stands somewhere else."""
    if before is not None and before.went is None and before.premises != new.premises:
        raise MeterElsewhereError(new.id)


class MeterService:
    """Looks meters up and keeps what is known of them."""

    def __init__(self, store: DocumentStore, clock: Clock) -> None:
        self._records = Records(store, METERS, Meter, _found_by)
        self._audited = Audited(self._records, clock, "meter")

    async def meter(self, id: str) -> Meter:
        """Return a meter, also one that was taken out."""
        kept = await self._records.load(id)
        if kept is None:
            raise MeterNotFoundError(id)
        return kept.record

    async def at(self, premises: str) -> tuple[Meter, ...]:
        """Return the meters that stand at premises, by id."""
        page = await self._records.page("premises", premises, premises, METERS_PER_PREMISES_MAX)
        return page.records

    async def put(self, meter: Meter, by: Principal, via: Via = INSIDE) -> Meter:
        """Keep what is known of a meter. Which came in place of which is said by :meth:`exchange` alone."""
        check(meter)

        def decide(before: Meter | None) -> Meter:
            came, went = (None, None) if before is None else (before.came, before.went)
            return replace(meter, came=came, went=went)

        return await self._audited.change(meter.id, decide, "meter.write", by, via)

    async def exchange(
        self,
        old: str,
        new: Meter,
        by: Principal,
        via: Via = INSIDE,
        *,
        at_ms: int,
        work_order: str = "",
    ) -> Meter:
        """Put a meter in place of another; repeated, it finishes what a crash has left.

        The old one is written first: it decides which of two that come at once is the one.
        """
        check(new)
        check_text(work_order)
        there = await self._records.load(new.id)
        check_free(None if there is None else there.record, new)
        gone = await self._audited.change(
            old, lambda before: taken_out(before, old, new, at_ms, work_order), "meter.exchange", by, via
        )
        assert gone.went is not None, "taken out just now"
        came = replace(gone.went, other=old)
        return await self._audited.change(
            new.id, lambda before: put_in(before, new, came), "meter.exchange", by, via
        )


def _found_by(meter: Meter) -> Mapping[str, IndexValue]:
    return {} if meter.went else {"premises": meter.premises}
