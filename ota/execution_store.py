"""Executions to documents and back, with the things that were used last kept in memory. No decisions.

What is kept is an economy, never a truth: each write is compare-and-set on the stored revision. It is shown
only where nobody else can write (``exclusive``); elsewhere it may be a second old.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec
import structlog

from infra.clock import Clock
from infra.documents.port import PAGE_MAX, Document, DocumentStore, IndexValue, Write
from infra.documents.port import Collection as StoreCollection
from ota.executions import ThingJobs
from ota.models import Execution
from ota.states import FINAL
from security import audit
from security.audit import Via
from security.policy import Principal

EXECUTIONS: Final = StoreCollection("ota_executions", ("campaign", "thing", "open", "pending", "touched"))
OPEN_PER_THING_MAX: Final = 64
"""Executions of one thing that are not final: more campaigns than that do not run at once."""
LOOK_THINGS_MAX: Final = 150
"""Things that one look-up names, so that all they can have fits into its answer."""
THINGS_KEPT_MAX: Final = 20_000
SHOWN_S_MAX: Final = 1.0
"""How old what is shown may be where others write too."""
LAST_MS: Final = 9_999_999_999_999
"""The last time that 13 digits can say: in the year 2286."""
NOUN: Final = "execution"
PENDING: Final = 1
"""The value of the index by which they are found."""

_log = structlog.get_logger(__name__)
_encode: Final = msgspec.json.Encoder(order="deterministic").encode
_decode: Final = msgspec.json.Decoder(Execution).decode


class Held(NamedTuple):
    """An execution with the stored revision that it was read from."""

    execution: Execution
    revision: int


class Act(NamedTuple):
    """What a person did to an execution: the words of its row in the audit trail."""

    by: Principal
    via: Via
    action: str
    reason: str


NO_ACTS: Final[Mapping[str, Act]] = MappingProxyType({})


class ExecutionPage(NamedTuple):
    """Executions in a fixed order; ``next`` continues after the last, None = no more."""

    executions: tuple[Execution, ...]
    next: str | None


class _Kept(NamedTuple):
    held: Mapping[str, Held]
    at_s: float


class ExecutionStore:
    """Loads and saves the executions of things."""

    def __init__(self, documents: DocumentStore, clock: Clock) -> None:
        self._documents = documents
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self._unsure: set[str] = set()
        self._commits = 0

    @property
    def things_kept(self) -> int:
        """How many things are kept in memory."""
        return len(self._kept)

    async def load(self, things: Collection[str], ended: Collection[str]) -> dict[str, dict[str, Held]]:
        """Return what there is of these things, by thing and id: all that is open, and ``ended`` (ids)."""
        found = {thing: dict(self._kept[thing].held) for thing in things if self._usable(thing)}
        found |= await self._look([thing for thing in things if thing not in found])
        missing = [id for id in ended if id not in found[thing_of(id)]]
        if missing:
            documents = await self._documents.get(EXECUTIONS.name, missing)
            for id, held in _held(documents.values()):
                found[thing_of(id)][id] = held
        return found

    async def view(self, thing: str) -> ThingJobs:
        """Return what is open of a thing: what was committed last, as far as others let us know."""
        kept = self._kept.get(thing)
        if kept is None or not (
            self._documents.exclusive or self._clock.elapsed_s() - kept.at_s < SHOWN_S_MAX
        ):
            return jobs_of(thing, (await self._look([thing]))[thing].values())
        return jobs_of(thing, kept.held.values())

    async def current(self, thing: str) -> ThingJobs:
        """Return what is open of a thing now, whoever wrote it."""
        return jobs_of(thing, (await self.load([thing], ()))[thing].values())

    async def save(
        self,
        before: Mapping[str, Mapping[str, Held]],
        after: Sequence[Execution],
        acts: Mapping[str, Act] = NO_ACTS,
    ) -> set[str]:
        """Commit executions in place of loaded ones; return the ids of those that lost their race.

        What people did to them is in the audit trail if and only if it is written. Whatever it raises, it is
        not known then which of them were written.
        """
        writes = [_write(one, _revision(before[one.thing], one.id)) for one in after]
        if acts:
            writes = [self._audited(write, acts.get(write.id)) for write in writes]
        things = {one.thing for one in after}
        self._commits += 1  # what is being read just now may be older than what is written
        try:
            positions = await self._documents.commit(writes)
        except BaseException:
            self._unsure |= things  # it may still land: nothing is remembered of them until one is seen to
            self._forget(things)
            raise
        finally:
            self._commits += 1
        lost = {after[position].id for position in positions}
        won = {
            one.id: Held(one, write.expected + 1)
            for one, write in zip(after, writes, strict=True)
            if one.id not in lost
        }
        self._remember(before, things, lost, won)
        return lost

    async def create(self, executions: Sequence[Execution]) -> list[Execution]:
        """Write executions of which there is nothing yet; return those that were not there."""
        lost = await self.save({one.thing: {} for one in executions}, executions)
        self._forget({one.thing for one in executions})  # of which only these are known now
        return [one for one in executions if one.id not in lost]

    async def of_campaign(self, campaign: str, cursor: str | None = None) -> ExecutionPage:
        """Return a page of the executions of a campaign."""
        return await self._page("campaign", campaign, campaign, PAGE_MAX, cursor)

    async def of_thing(self, thing: str, limit: int, cursor: str | None = None) -> ExecutionPage:
        """Return a page of the executions a thing has and had."""
        return await self._page("thing", thing, thing, limit, cursor)

    async def touched_since(self, campaign: str, ms: int, cursor: str | None = None) -> ExecutionPage:
        """Return a page of the executions of a campaign that changed then or later, in that order."""
        return await self._page(
            "touched", _touched(campaign, ms), _touched(campaign, LAST_MS), PAGE_MAX, cursor
        )

    async def pending(self, cursor: str | None = None) -> ExecutionPage:
        """Return a page of the executions of which somebody is still to be told something."""
        return await self._page("pending", PENDING, PENDING, PAGE_MAX, cursor)

    async def _page(
        self, field: str, low: IndexValue, high: IndexValue, limit: int, cursor: str | None
    ) -> ExecutionPage:
        page = await self._documents.find(EXECUTIONS.name, field, low, high, limit=limit, cursor=cursor)
        return ExecutionPage(tuple(held.execution for _, held in _held(page.documents)), page.next)

    async def _look(self, things: Sequence[str]) -> dict[str, dict[str, Held]]:
        """Ask the store what is open of these things, and keep it."""
        found: dict[str, dict[str, Held]] = {thing: {} for thing in things}
        commits, at_s = self._commits, self._clock.elapsed_s()
        for first in range(0, len(things), LOOK_THINGS_MAX):
            portion = things[first : first + LOOK_THINGS_MAX]
            limit = len(portion) * OPEN_PER_THING_MAX
            documents = await self._documents.find_in(EXECUTIONS.name, "open", portion, limit=limit)
            for id, held in _held(documents):
                found[thing_of(id)][id] = held
        if commits == self._commits:
            for thing in things:
                self._keep(thing, found[thing], at_s)
        return found

    def _audited(self, write: Write, act: Act | None) -> Write:
        if act is None:
            return write
        before, after = write.expected, write.expected + 1
        target, at_ms = f"{NOUN}/{write.id}", self._clock.now_ms()
        row = audit.act(
            act.by, act.via, act.action, target, at_ms=at_ms, before=before, after=after, reason=act.reason
        )
        # Never deleted, so that revisions never start again.
        return replace(write, entries=(audit.entry(row, after, life=0),))

    def _remember(
        self,
        before: Mapping[str, Mapping[str, Held]],
        things: set[str],
        lost: set[str],
        won: Mapping[str, Held],
    ) -> None:
        beaten = {thing_of(id) for id in lost}
        self._forget(beaten)
        self._unsure -= things
        after: dict[str, dict[str, Held]] = {}
        for id, held in won.items():
            after.setdefault(thing_of(id), dict(before[thing_of(id)]))[id] = held
        now_s = self._clock.elapsed_s()
        for thing, of_it in after.items():
            if thing not in beaten:
                self._keep(thing, of_it, now_s)

    def _keep(self, thing: str, held: Mapping[str, Held], at_s: float) -> None:
        self._kept.pop(thing, None)  # the newest stands last
        if thing in self._unsure:
            return
        open = {id: one for id, one in held.items() if one.execution.state not in FINAL}
        self._kept[thing] = _Kept(open, at_s)
        if len(self._kept) > THINGS_KEPT_MAX:
            del self._kept[next(iter(self._kept))]

    def _forget(self, things: Iterable[str]) -> None:
        for thing in things:
            self._kept.pop(thing, None)

    def _usable(self, thing: str) -> bool:
        """Tell whether what is kept is the truth."""
        return self._documents.exclusive and thing in self._kept


def jobs_of(thing: str, held: Iterable[Held]) -> ThingJobs:
    """Return the executions of a thing as rules want them."""
    executions = [one.execution for one in held]
    return ThingJobs(
        thing,
        tuple(one for one in executions if one.state not in FINAL),
        tuple(one for one in executions if one.state in FINAL),
    )


def thing_of(id: str) -> str:
    """Return the thing of the id of a document; the campaign before it has no colon."""
    return id.partition(":")[2]


def _held(documents: Iterable[Document]) -> Iterator[tuple[str, Held]]:
    """Yield what can be read: what cannot is logged, and stops no other."""
    for document in documents:
        try:
            yield document.id, Held(_decode(document.body), document.revision)
        except msgspec.DecodeError as error:
            _log.error("execution_unreadable", execution=document.id, reason=str(error))


def _revision(held: Mapping[str, Held], id: str) -> int:
    return held[id].revision if id in held else 0


def _touched(campaign: str, ms: int) -> str:
    return f"{campaign}|{ms:013d}"


def _write(execution: Execution, expected: int) -> Write:
    index: dict[str, IndexValue] = {
        "campaign": execution.campaign,
        "thing": execution.thing,
        "touched": _touched(execution.campaign, execution.updated_at_ms),
    }
    if execution.state not in FINAL:
        index["open"] = execution.thing
    if execution.untold:
        index["pending"] = PENDING
    return Write(EXECUTIONS.name, execution.id, expected, _encode(execution), index)
