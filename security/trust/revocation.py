"""Revocation: four acts in this order, and one durable record that says which are done on which broker.

::

    act       why it is not enough alone
    1 bar     the row in the registry: our services drop its messages, but TLS still lets it in
    2 list    the revocation list: the broker reads it only when it reloads
    3 reload  refuses new connections; the live one stays, and what it says is delivered
    4 kick    ends the session; before 2 and 3 it would simply come back

The record is written first. What a crash, a full disk or a broker that is away leaves undone is repeated at
the next start and every minute: every act may be done again. Many revocations at once make one list.

An expired list locks out everybody, revoked or not, so it is made anew long before; that it was not is one of
the authority's alarms. (spec: security, 4.5)
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Protocol

import msgspec
import structlog

from infra.clock import MS_PER_S, Clock
from infra.documents.port import (
    PAGE_MAX,
    Collection,
    Document,
    DocumentStore,
    Entry,
    StoreBrokenError,
    StoreError,
    StoreUnavailableError,
    Write,
)
from security import audit
from security.audit import INSIDE, Via
from security.policy import Principal, Role
from security.private_files import DamagedFileError
from security.trust.crl import CrlTooSoonError, Revoked

REVOCATIONS: Final = Collection("revocations", ("open",))
RECONCILE_S: Final = 60.0
RETRY_S: Final = 1.0
"""After something failed that may go by itself: a store that is away, a list made a moment ago."""
ANSWER_S_MAX: Final = 4.0
"""How long a caller waits for all four acts; the record sees to the rest."""
SAVE_ATTEMPTS_MAX: Final = 5
KICKS_AT_ONCE_MAX: Final = 256
SYSTEM: Final = Principal("gnomon.revocation", Role.SYSTEM)
ACTION: Final = "certificate.revoke"
DONE_ACTION: Final = "certificate.revoke.done"
_OPEN: Final = 1

_log = structlog.get_logger(__name__)


class Act(StrEnum):
    """What has to be done."""

    BAR = "bar"
    LIST = "list"
    RELOAD = "reload"
    KICK = "kick"


class Stage(StrEnum):
    """How far a revocation is on one broker."""

    ASKED = "asked"
    BARRED = "barred"
    LISTED = "listed"
    RELOADED = "reloaded"
    DONE = "done"


NEXT: Final[Mapping[tuple[Stage, Act], Stage]] = MappingProxyType(
    {
        (Stage.ASKED, Act.BAR): Stage.BARRED,
        (Stage.BARRED, Act.LIST): Stage.LISTED,
        (Stage.LISTED, Act.RELOAD): Stage.RELOADED,
        (Stage.RELOADED, Act.KICK): Stage.DONE,
    }
)
FINAL: Final = frozenset(Stage) - {stage for stage, _ in NEXT}
DUE: Final[Mapping[Stage, Act]] = MappingProxyType(dict(NEXT.keys()))
_UNLISTED: Final = frozenset({Stage.ASKED, Stage.BARRED})


class RevocationError(Exception):
    """It is written down, and under way, but not yet so far that the certificate is known to be out."""


class BrokerControlError(Exception):
    """A broker did not do what it was told; the act is to be repeated."""


class BrokerControl(Protocol):
    """A broker, as seen from here."""

    async def reload(self) -> None:
        """Have it read the revocation list; return when it has. Raise :class:`BrokerControlError` if not."""
        ...

    async def kick(self, name: str) -> None:
        """End all sessions of this name; raise :class:`BrokerControlError` when that is not certain."""
        ...


class Certificates(Protocol):
    """What was issued, and what of it counts no more."""

    async def revoke_all(self, thing: str, reason: str, by: Principal, via: Via) -> None:
        """Revoke every certificate of a thing; those that are revoked stay as they are."""
        ...

    async def revoked(self) -> Sequence[Revoked]:
        """Return all that are revoked and have not expired."""
        ...


class CrlWriter(Protocol):
    """The authority, as seen from here."""

    def write_crl(self, revoked: Iterable[Revoked]) -> None: ...
    @property
    def crl_is_due(self) -> bool: ...
    @property
    def crl_next_update(self) -> datetime: ...


Bar = Callable[[str, Principal, Via], Awaitable[None]]
"""Make a thing count for nothing in the registry; nothing to do where it is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """The record: of one name, of all the certificates it had when it was asked for."""

    thing: str
    reason: str
    by: str
    role: str
    asked_at_ms: int
    stages: Mapping[str, Stage]
    done_at_ms: int | None = None

    def after(self, act: Act, brokers: Iterable[str]) -> "Revocation":
        """Return the record once an act is done on these brokers; where it is not due nothing changes."""
        done = frozenset(brokers)
        moved = {
            broker: NEXT.get((stage, act), stage) if broker in done else stage
            for broker, stage in self.stages.items()
        }
        return replace(self, stages=moved)

    def due(self, act: Act) -> tuple[str, ...]:
        """Return the brokers on which this act is the next."""
        return tuple(broker for broker, stage in self.stages.items() if DUE.get(stage) is act)

    @property
    def done(self) -> bool:
        return all(stage in FINAL for stage in self.stages.values())

    @property
    def listed(self) -> bool:
        return not _UNLISTED.intersection(self.stages.values())


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Revocation).decode


class RevocationList:
    """Writes the list of all that is revoked, and knows how long the last one lasts."""

    def __init__(
        self, authority: CrlWriter, certificates: Certificates, clock: Clock, canaries: Sequence[Revoked] = ()
    ) -> None:
        """Prepare; ``canaries`` are certificates that were revoked from their first day, for tests."""
        self._authority = authority
        self._certificates = certificates
        self._clock = clock
        self._canaries = tuple(canaries)
        self._writing = asyncio.Lock()
        self.issued = 0

    async def issue(self) -> None:
        """Write it now.

        Raises:
            CrlTooSoonError: so many were written in a short time that a second must go by.
            OSError: it could not be written; the last one stays.
        """
        async with self._writing:
            rows = [*self._canaries, *await self._certificates.revoked()]
            await asyncio.to_thread(self._authority.write_crl, rows)
            self.issued += 1

    @property
    def due(self) -> bool:
        """Whether it should be written again though nothing was revoked."""
        try:
            return self._authority.crl_is_due
        except DamagedFileError:
            return True

    @property
    def left_s(self) -> float:
        """How long the last one lasts; then nobody gets in any more."""
        now = datetime.fromtimestamp(self._clock.now_ms() / MS_PER_S, UTC)
        try:
            return (self._authority.crl_next_update - now).total_seconds()
        except DamagedFileError:
            return 0.0


@dataclass(frozen=True, slots=True)
class _Kept:
    """A record on its way, and as it lies in the store."""

    record: Revocation
    revision: int
    stored: Revocation


class Revocations:
    """Carries revocations out. :meth:`run` has to run for anything after the first act."""

    def __init__(
        self,
        store: DocumentStore,
        clock: Clock,
        *,
        bar: Bar,
        certificates: Certificates,
        list: RevocationList,
        brokers: Mapping[str, BrokerControl],
    ) -> None:
        self._store = store
        self._clock = clock
        self._bar = bar
        self._certificates = certificates
        self._list = list
        self._brokers = dict(brokers)
        self._news = asyncio.Event()
        self._relist = False
        self._unread: set[str] = set()
        """Brokers that have not read the last list though nobody was revoked."""
        self._waiting: dict[str, asyncio.Event] = {}
        """Who waits for which thing; no more than are open."""
        self.open = 0
        """How many were not done when last looked at."""
        self.done = 0

    # ------------------------------------------------------------------ for callers

    async def revoke(self, thing: str, by: Principal, via: Via = INSIDE, reason: str = "") -> bool:
        """Revoke a thing and every certificate it has; return whether all four acts are done.

        When this returns, its messages are dropped and its certificates are on the list, so its name may be
        given to another. False: a broker could not be told yet, and will be.

        Raises:
            RevocationError: the list could not be written yet; the name must stay taken. It is repeated.
        """
        done = self._waiting.setdefault(thing, asyncio.Event())
        await self._ask(thing, by, via, reason)
        await self._bar(thing, by, via)
        self._news.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_S_MAX):
                await done.wait()
        if done.is_set():
            return True
        found = (await self._store.get(REVOCATIONS.name, [thing])).get(thing)
        if found is None or not _decode(found.body).listed:
            raise RevocationError("the revocation is under way but not done: ask again in a moment")
        return _decode(found.body).done

    def relist(self) -> None:
        """Have the list written anew soon, and read: some certificate was revoked, its thing was not."""
        self._relist = True
        self._news.set()

    # ------------------------------------------------------------------ carrying out

    async def run(self) -> None:
        """Carry out what is asked, repeat what is missing, keep the list young, until cancelled.

        Whatever goes wrong is tried again; a broken store alone ends it.
        """
        while True:
            self._news.clear()
            pause_s = RECONCILE_S
            try:
                await self.reconcile()
            except StoreBrokenError:
                raise
            except (StoreUnavailableError, CrlTooSoonError, OSError) as error:
                _log.warning("revocation_waits", reason=str(error))
                pause_s = RETRY_S
            except Exception as error:  # noqa: BLE001 - what is left open is tried again, and the service goes on
                _log.error("revocation_failed", reason=repr(error))
                pause_s = RETRY_S
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._news.wait()

    async def reconcile(self) -> None:
        """Do what is missing of every revocation that is open; make the list anew when it is time."""
        if self._relist or self._list.due:
            self._relist = False  # before: what is asked for meanwhile is asked for again
            try:
                await self._list.issue()
            except BaseException:
                self._relist = True
                raise
            self._unread |= self._brokers.keys()
        for name in sorted(self._unread):
            await self._reload(name)
        await self._carry_out_open()

    async def _carry_out_open(self) -> None:
        cursor: str | None = None
        left = 0
        while True:
            page = await self._store.find(
                REVOCATIONS.name, "open", _OPEN, _OPEN, limit=PAGE_MAX, cursor=cursor
            )
            records = [self._kept(document) for document in page.documents]
            if records:
                left += await self._carry_out(records)
            cursor = page.next
            if cursor is None:
                break
        self.open = left

    async def _carry_out(self, records: Sequence[_Kept]) -> int:
        """Take these through the acts; return how many are still open."""
        asked = len(records)
        records = [kept for kept in records if await self._take_worth(kept.record)]
        left_out = asked - len(records)
        records = self._after(records, Act.BAR)
        if any(kept.record.due(Act.LIST) for kept in records):
            await self._list.issue()
            records = await self._save(self._after(records, Act.LIST))
        due_on = {name for kept in records for name in kept.record.due(Act.RELOAD)}
        done_on = [name for name in sorted(due_on) if await self._reload(name)]
        records = self._after(records, Act.RELOAD, done_on)
        records = await self._save(await self._kick_all(records))
        return left_out + sum(not kept.record.done for kept in records)

    async def _take_worth(self, record: Revocation) -> bool:
        """Bar a thing and revoke what it has; tell whether that is done. One alone stops no other."""
        by = _asker(record)
        try:
            if record.due(Act.BAR):
                await self._bar(record.thing, by, INSIDE)
            if not record.listed:
                await self._certificates.revoke_all(record.thing, record.reason, by, INSIDE)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - each can fail only for itself
            _log.error("revocation_failed", thing=record.thing, reason=repr(error))
            return False
        return True

    async def _kick_all(self, records: Sequence[_Kept]) -> list[_Kept]:
        room = asyncio.Semaphore(KICKS_AT_ONCE_MAX)
        kicked: list[frozenset[str]] = [frozenset()] * len(records)

        async def kick(position: int, record: Revocation) -> None:
            async with room:
                kicked[position] = frozenset(
                    [name for name in record.due(Act.KICK) if await self._kick(name, record.thing)]
                )

        async with asyncio.TaskGroup() as kicks:
            for position, kept in enumerate(records):
                kicks.create_task(kick(position, kept.record), name="revocation kick")
        return [
            replace(kept, record=kept.record.after(Act.KICK, brokers))
            for kept, brokers in zip(records, kicked, strict=True)
        ]

    async def _reload(self, broker: str) -> bool:
        try:
            await self._brokers[broker].reload()
        except BrokerControlError as error:
            _log.warning("revocation_waits", broker=broker, reason=str(error))
            return False
        self._unread.discard(broker)
        return True

    async def _kick(self, broker: str, thing: str) -> bool:
        try:
            await self._brokers[broker].kick(thing)
        except BrokerControlError as error:
            _log.warning("session_not_ended", thing=thing, broker=broker, reason=str(error))
            return False
        return True

    def _after(self, records: Iterable[_Kept], act: Act, brokers: Iterable[str] | None = None) -> list[_Kept]:
        done_on = tuple(self._brokers if brokers is None else brokers)
        return [replace(kept, record=kept.record.after(act, done_on)) for kept in records]

    # ------------------------------------------------------------------ records

    async def _ask(self, thing: str, by: Principal, via: Via, reason: str) -> None:
        """Write down that it is to be done. One that is not listed yet will do for both."""
        for _ in range(SAVE_ATTEMPTS_MAX):
            found = (await self._store.get(REVOCATIONS.name, [thing])).get(thing)
            before = 0 if found is None else found.revision
            if found is not None and not _decode(found.body).listed:
                return
            record = Revocation(
                thing=thing,
                reason=reason,
                by=by.name,
                role=by.role,
                asked_at_ms=self._clock.now_ms(),
                stages=dict.fromkeys(self._brokers, Stage.ASKED),
            )
            row = audit.act(
                by,
                via,
                ACTION,
                f"revocation/{thing}",
                at_ms=record.asked_at_ms,
                before=before,
                after=before + 1,
                reason=reason,
            )
            write = self._write(_Kept(record, before, record), audit.entry(row, before + 1, life=0))
            if not await self._store.commit([write]):
                return
        raise RevocationError("too many ask for this at once: ask again in a moment")

    async def _save(self, records: Sequence[_Kept]) -> list[_Kept]:
        """Write records that have moved; one that lost its race was asked for anew, and comes again."""
        moved = [self._finished(kept) for kept in records if kept.record != kept.stored]
        if not moved:
            return list(records)
        lost = await self._store.commit([self._write(kept, *self._rows(kept)) for kept in moved])
        if lost:
            self._news.set()
        saved = [kept for kept in records if kept.record == kept.stored]
        for position, kept in enumerate(moved):
            if position not in lost:
                saved.append(_Kept(kept.record, kept.revision + 1, kept.record))
                self._tell(kept.record)
        return saved

    def _finished(self, kept: _Kept) -> _Kept:
        if not kept.record.done:
            return kept
        return replace(kept, record=replace(kept.record, done_at_ms=self._clock.now_ms()))

    def _rows(self, kept: _Kept) -> Sequence[Entry]:
        record, revision = kept.record, kept.revision
        if record.done_at_ms is None:
            return ()
        row = audit.act(
            SYSTEM,
            INSIDE,
            DONE_ACTION,
            f"revocation/{record.thing}",
            at_ms=record.done_at_ms,
            before=revision,
            after=revision + 1,
            reason=record.reason,
        )
        return (audit.entry(replace(row, cause=record.by), revision + 1, life=0),)

    def _write(self, kept: _Kept, *entries: Entry) -> Write:
        index = {} if kept.record.done else {"open": _OPEN}
        body = _encode(kept.record)
        return Write(REVOCATIONS.name, kept.record.thing, kept.revision, body, index, entries=entries)

    def _kept(self, document: Document) -> _Kept:
        record = _decode(document.body)
        # A broker that is gone needs nothing more, one that is new everything.
        stages = {name: record.stages.get(name, Stage.ASKED) for name in self._brokers}
        return _Kept(replace(record, stages=stages), document.revision, record)

    def _tell(self, record: Revocation) -> None:
        if record.done:
            self.done += 1
            waiting = self._waiting.pop(record.thing, None)
            if waiting is not None:
                waiting.set()


def _asker(record: Revocation) -> Principal:
    return Principal(record.by, Role(record.role))
