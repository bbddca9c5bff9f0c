"""The shadow service: take what waits, decide, commit once, then speak.

One lane per process carries out every command, whoever sent it: what waits when the last commit
returns is the next batch, so that one fsync serves the bridge and all REST callers together, and no
two of our own writers ever race. Writers in other processes lose or win by compare-and-set.
(spec: shadow, section 7)
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Final

import structlog

from infra.clock import Clock
from infra.documents.port import Cut, Entry, StoreBrokenError, StoreError, StoreUnavailableError
from infra.ids import Ids
from infra.intake import Intake, settled
from infra.live import Live
from infra.settings.model import ShadowLimits
from infra.telemetry import Metrics
from security.policy import THINGS
from shadow.archive import Archive
from shadow.commands import Command, Update
from shadow.decisions import (
    NEVER_MADE,
    Accepted,
    Circumstances,
    Outcome,
    Rejected,
    Shadow,
    decide,
    reject,
    without_settled,
)
from shadow.document import ShadowId
from shadow.errors import (
    InternalError,
    NoShadowError,
    ShadowError,
    TooManyRequestsError,
    UnavailableError,
    VersionConflictError,
)
from shadow.history import row_of
from shadow.records import HISTORY, HISTORY_HAN, audit_entry, history_entry, history_log
from shadow.store import TOMBSTONES_MAX, Extra, Loaded, Saved, ShadowStore

BATCH_COMMANDS_MAX: Final = 2_048
"""Commands that share one commit; a single submission may be larger than this."""
WAITING_COMMANDS_MAX: Final = 20_000
"""Commands that may wait for the lane; above it a submission is answered 429."""
SWEEP_SHADOWS_MAX: Final = 1_000
"""Outboxes that one sweep commit empties."""
STORE_SILENT: Final = "the store cannot take it now; send again a little later"
ERASE_ATTEMPTS_MAX: Final = 5
RETENTION_EVERY_S: Final = 3_600
MS_PER_DAY: Final = 86_400_000

Listener = Callable[[Sequence[Outcome]], None]

_log = structlog.get_logger(__name__)


class ShadowService:
    """Carries out commands durably and tells its listeners; see :meth:`submit`."""

    def __init__(
        self, store: ShadowStore, clock: Clock, ids: Ids, limits: ShadowLimits, metrics: Metrics, live: Live
    ) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._limits = limits
        self._metrics = metrics
        self._live = live
        self._listeners: list[Listener] = []
        self._intake: Intake[Command, Outcome] = Intake(
            self._serve, batch_max=BATCH_COMMANDS_MAX, waiting_max=WAITING_COMMANDS_MAX
        )
        self._settled: dict[ShadowId, int] = {}
        self.archive = Archive(store, limits)

    def listen(self, listener: Listener) -> None:
        """Call ``listener`` with the outcomes of each batch, in order, right after its commit.

        It must not block and must not raise; what it sends is sent after it is true.
        """
        self._listeners.append(listener)

    async def submit(self, commands: Sequence[Command]) -> list[Outcome]:
        """Return an outcome for each command; those of one shadow keep their order.

        An accepted outcome is durable. Never raises for a bad or an unlucky command; raises
        :class:`infra.documents.port.StoreBrokenError` when the process must stop.
        """
        if not self._intake.has_room(len(commands)):
            return self._refuse(commands, TooManyRequestsError("the service is overloaded; send again later"))
        return await self._intake.put(commands)

    async def run(self) -> None:
        """Serve the lane until cancelled. What was taken is finished, or its callers are told."""
        await self._intake.run()

    async def sweep(self) -> None:
        """Empty delivered outboxes, every ``outbox_sweep_s``, until cancelled."""
        while True:
            await asyncio.sleep(self._limits.outbox_sweep_s)
            try:
                await self.sweep_once()
            except StoreUnavailableError as error:
                _log.warning("outbox_sweep_failed", reason=str(error))

    async def retain(self) -> None:
        """Let history go that is older than it may be, every ``RETENTION_EVERY_S``, until cancelled."""
        while True:
            try:
                await self.retain_once()
            except StoreUnavailableError as error:
                _log.warning("retention_failed", reason=str(error))
            await asyncio.sleep(RETENTION_EVERY_S)

    async def retain_once(self) -> None:
        """Cut each shadow's history to the age it may have; its newest version always stays."""
        for log, days in (
            (HISTORY, self._limits.history_age_d),
            (HISTORY_HAN, self._limits.history_age_d_han),
        ):
            until_ms = self._clock.now_ms() - days * MS_PER_DAY
            cursor: str | None = None
            while True:
                ids, cursor = await self._store.older(log, until_ms, cursor)
                for id in sorted(ids):
                    async with self._intake.serving:
                        await self._trim_carefully(id, until_ms)
                if cursor is None:
                    break

    async def view(self, id: ShadowId) -> Shadow:
        """Return the shadow as it is; raise :class:`NoShadowError` when there is none."""
        shadow = await self._store.current(id)
        if not shadow.exists:
            raise NoShadowError(*id)
        return shadow

    async def views(self, ids: Collection[ShadowId]) -> dict[ShadowId, Shadow]:
        """Return those of these shadows that there are, and that can be read."""
        found = await self._store.readable_all(ids)
        return {id: shadow for id, shadow in found.items() if shadow.exists}

    async def shadows_of(self, thing: str) -> list[ShadowId]:
        """Return the ids of a thing's shadows in order of their names, the classic one first."""
        return (await self._store.ids_of(thing))[0]

    async def forget(self, thing: str) -> None:
        """Remove all shadows of a thing with history and tombstones: it left the registry."""
        async with self._intake.serving:
            live, deleted = await self._store.ids_of(thing)
            for id in (*live, *deleted):
                await self._erase(id)
            for id in [id for id in self._store.unsure if id.thing == thing]:
                del self._store.unsure[id]

    def settle(self, id: ShadowId, version: int) -> None:
        """Note that the broker has everything of this shadow up to ``version``."""
        if version > self._settled.get(id, 0):
            self._settled[id] = version

    def is_settled(self, id: ShadowId, version: int) -> bool:
        """Tell whether the broker is known to have everything up to ``version``, which is in the outbox."""
        return self._settled.get(id, 0) >= version

    async def unsent(self, cursor: str | None) -> tuple[list[Accepted], str | None]:
        """Return a page of what the broker may not have, shadow by shadow, and the next cursor.

        Rows of history that a crash kept from being written are written on the way.
        """
        page, following = await self._store.pending(cursor)
        unsent: list[Accepted] = []
        for id, shadow in page.items():
            unsent += await self._unsent(id, shadow)
        return unsent, following

    async def unsent_of(self, id: ShadowId) -> list[Accepted]:
        """Return what the broker may not have of one shadow; nothing of one that cannot be read."""
        shadow = await self._store.readable(id)
        return [] if shadow is None else await self._unsent(id, shadow)

    async def sweep_once(self) -> None:
        """Settle what is unsure, then empty outboxes whose messages are delivered and nobody adds to now."""
        await self._settle_unsure()
        quiet_since_ms = self._clock.now_ms() - int(self._limits.outbox_sweep_s * 1_000)
        waiting = list(self._settled.items())
        for first in range(0, len(waiting), SWEEP_SHADOWS_MAX):
            async with self._intake.serving:
                await self._sweep(dict(waiting[first : first + SWEEP_SHADOWS_MAX]), quiet_since_ms)

    # ------------------------------------------------------------------ the lane

    async def _serve(self, commands: Sequence[Command]) -> list[Outcome]:
        def failed(position: int, error: Exception) -> Outcome:  # row 17: answered 500, and the lane goes on
            command = commands[position]
            return self._refuse([command], self._failed(command, error))[0]

        outcomes = await settled(len(commands), partial(self._settle, commands), failed)
        self._store.shrink()
        return outcomes

    async def _settle(
        self, commands: Sequence[Command], waiting: Sequence[int], outcomes: dict[int, Outcome]
    ) -> None:
        """Add the outcomes of what waits; each of them is announced."""
        try:
            for _ in range(self._limits.save_attempts_max):
                lost = await self._attempt(commands, waiting, outcomes)
                waiting = [position for position in waiting if commands[position].id in lost]
                if not waiting:
                    return
            reason = "others write this shadow too fast; send again"
        except StoreUnavailableError as error:
            waiting = [position for position in waiting if position not in outcomes]
            self._metrics.store_errors.inc()
            _log.warning("store_unavailable", commands=len(waiting), reason=str(error))
            reason = STORE_SILENT
        refused = self._refuse([commands[position] for position in waiting], UnavailableError(reason))
        outcomes.update(zip(waiting, refused, strict=True))

    def _refuse(self, commands: Sequence[Command], error: ShadowError) -> list[Outcome]:
        now_ms = self._clock.now_ms()
        refused: list[Outcome] = [reject(command, error, now_ms) for command in commands]
        self._announce(refused)
        return refused

    async def _attempt(
        self, commands: Sequence[Command], waiting: Sequence[int], outcomes: dict[int, Outcome]
    ) -> set[ShadowId]:
        """Decide and commit what waits; add the outcomes that stand; return the ids to try again."""
        batch = [commands[position] for position in waiting]
        before = await self._store.load({command.id for command in batch})
        await self._say_what_is_unsure(before)
        circumstances = Circumstances(
            self._clock.now_ms(), self._limits, self._settled, await self._crowded(batch, before)
        )
        after, decided = decide(
            {id: loaded.shadow for id, loaded in before.items()}, batch, circumstances, self._failed
        )
        saved = await self._save(before, after, decided) if after else Saved(set(), set())
        lost = saved.lost | self._store.forget_doubtful(
            {id: before[id] for id in before.keys() - after.keys()}
        )
        stands = {
            position: outcome
            for position, outcome in zip(waiting, decided, strict=True)
            if outcome.command.id not in lost and outcome.command.id not in saved.unsure
        }
        await self._explain(stands, circumstances.now_ms)
        outcomes.update(stands)
        # Commit before send: a lost message is sent again from the document, a lost write is gone.
        self._announce(list(stands.values()))
        if saved.unsure:  # never decided again: it may have been made
            doubted = [position for position in waiting if commands[position].id in saved.unsure]
            refused = self._refuse(
                [commands[position] for position in doubted], UnavailableError(STORE_SILENT)
            )
            outcomes.update(zip(doubted, refused, strict=True))
        return lost

    async def _save(
        self, before: Mapping[ShadowId, Loaded], after: Mapping[ShadowId, Shadow], decided: Sequence[Outcome]
    ) -> Saved:
        extras = _extras(before, after, decided)
        started_s = self._clock.elapsed_s()
        saved = await self._store.save(before, after, extras)
        self._metrics.commit_seconds.observe(self._clock.elapsed_s() - started_s)
        self._metrics.batch_updates.observe(len(decided))
        for id in after.keys() - saved.lost - saved.unsure:
            if after[id].outbox[0].version > self._settled.get(id, 0):
                self._settled.pop(id, None)
        return saved

    async def _say_what_is_unsure(self, before: Mapping[ShadowId, Loaded]) -> None:
        """Say what a commit of unknown fate has left unsaid, before anything newer is."""
        unsure = self._store.unsure
        for id in [id for id in unsure if id in before]:
            shadow = before[id].shadow
            if shadow.version > unsure[id]:
                self._announce(await self._unsent(id, shadow))
                unsure[id] = shadow.version

    async def _crowded(
        self, batch: Sequence[Command], before: Mapping[ShadowId, Loaded]
    ) -> frozenset[ShadowId]:
        """Return the named shadows that this batch may not make, their things having enough."""
        new: dict[str, list[ShadowId]] = {}
        for command in batch:
            loaded = before.get(command.id)
            if command.id.name and type(command) is Update and loaded and not loaded.shadow.exists:
                new.setdefault(command.id.thing, []).append(command.id)
        crowded: set[ShadowId] = set()
        for thing, wanted in new.items():
            live, deleted = await self._store.ids_of(thing)
            named = sum(1 for id in live if id.name)
            free = self._limits.named_shadows_max - named
            unheard_of = free + TOMBSTONES_MAX - len(deleted)
            for id in dict.fromkeys(wanted):
                new_name = id not in deleted
                if free <= 0 or (new_name and unheard_of <= 0):
                    crowded.add(id)
                else:
                    free -= 1
                    unheard_of -= new_name
        return frozenset(crowded)

    async def _explain(self, stands: dict[int, Outcome], now_ms: int) -> None:
        """Add to conflicts which fields they are about (spec 11, E7)."""
        for position, outcome in stands.items():
            if isinstance(outcome, Rejected) and isinstance(outcome.error, VersionConflictError):
                command, error = outcome.command, outcome.error
                if isinstance(command, Update):
                    error.conflicts = await self._conflicts(command, error.current_version)
                stands[position] = reject(command, error, now_ms)

    async def _conflicts(self, update: Update, current: int) -> tuple[str, ...] | None:
        try:
            return await self.archive.conflicts(update, current)
        except StoreBrokenError:
            raise
        except Exception as error:  # noqa: BLE001 - the batch is committed already: it must not be tried again
            _log.warning(
                "conflict_not_explained", thing=update.id.thing, shadow=update.id.name, reason=str(error)
            )
            return None  # the help is a courtesy

    def _announce(self, outcomes: Sequence[Outcome]) -> None:
        for listener in self._listeners:
            listener(outcomes)
        for outcome in outcomes:
            if isinstance(outcome, Rejected):
                self._metrics.rejected(outcome.error.code)
            elif outcome.change is not None:
                self._metrics.changed(outcome.change.converged_after_ms)
                self._live.announce(outcome.command.id.key)
                if outcome.command.id.name:
                    # Whoever watches all shadows of a name, such as `han`, is told by that name.
                    self._live.announce(outcome.command.id.name)
            elif outcome.replayed:
                self._metrics.replays.inc()

    def _failed(self, command: Command, error: Exception) -> ShadowError:
        trace = self._ids.token()
        _log.error(
            "command_failed", trace=trace, thing=command.id.thing, shadow=command.id.name, exc_info=error
        )
        return InternalError(trace)

    # ------------------------------------------------------- outboxes and erasure

    async def _unsent(self, id: ShadowId, shadow: Shadow) -> list[Accepted]:
        entries = without_settled(shadow.outbox, self._settled.get(id, 0)) if shadow.outbox else ()
        try:
            return await self.archive.unsent(id, shadow, entries) if entries else []
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - a past that cannot be read keeps no other shadow waiting
            _log.error("messages_given_up", thing=id.thing, shadow=id.name, exc_info=error)
            self.settle(id, entries[-1].version)
            return []

    async def _settle_unsure(self) -> None:
        """Learn what became of commits of unknown fate, say it, and let none of them land later."""
        waiting = list(self._store.unsure)
        for first in range(0, len(waiting), SWEEP_SHADOWS_MAX):
            async with self._intake.serving:
                some = [id for id in waiting[first : first + SWEEP_SHADOWS_MAX] if id in self._store.unsure]
                before = await self._store.load(some)
                await self._say_what_is_unsure(before)
                # Written again as it is: what is still on its way loses its race from now on.
                await self._store.save(before, {id: loaded.shadow for id, loaded in before.items()}, {})

    async def _sweep(self, settled: Mapping[ShadowId, int], quiet_since_ms: int) -> None:
        before = await self._store.load(settled.keys())
        after: dict[ShadowId, Shadow] = {}
        for id, version in settled.items():
            shadow = before[id].shadow if id in before else NEVER_MADE
            if not shadow.outbox:
                self._settled.pop(id, None)  # erased, or swept by others, while we waited for the lane
            elif shadow.outbox[-1].version <= version and shadow.at_ms <= quiet_since_ms:
                after[id] = shadow.swept()
        if after:
            saved = await self._store.save(before, after, {})
            for id in after.keys() - saved.lost - saved.unsure:
                self._settled.pop(id, None)
        self._store.shrink()

    async def _trim_carefully(self, id: ShadowId, until_ms: int) -> None:
        try:
            await self._trim(id, until_ms)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - a past that cannot be read keeps no other from its age
            _log.error("history_not_trimmed", thing=id.thing, shadow=id.name, exc_info=error)

    async def _trim(self, id: ShadowId, until_ms: int) -> None:
        loaded = (await self._store.load([id])).get(id)
        if loaded is None or loaded.revision == 0 or loaded.shadow.outbox:
            return  # gone, or still at work: the next round sees to it
        shadow = loaded.shadow
        first, row = await self.archive.first_after(id, shadow, until_ms)
        if first.version > shadow.oldest_version:
            log = history_log(id)
            extra = Extra(
                [Entry(log, id.key, first.version, first.at_ms, row)], [Cut(log, id.key, first.version)]
            )
            await self._store.save({id: loaded}, {id: shadow.trimmed(first.version)}, {id: extra})
            self._store.shrink()

    async def _erase(self, id: ShadowId) -> None:
        for _ in range(ERASE_ATTEMPTS_MAX):
            if await self._store.erase(id):
                self._settled.pop(id, None)
                return
        raise StoreUnavailableError(f"shadow {id.key} is being written; remove the thing again")


def _extras(
    before: Mapping[ShadowId, Loaded], after: Mapping[ShadowId, Shadow], decided: Sequence[Outcome]
) -> dict[ShadowId, Extra]:
    """Return the history rows, audit entries and cuts that go with each document."""
    entries: dict[ShadowId, list[Entry]] = {id: [] for id in after}
    for outcome in decided:
        if isinstance(outcome, Accepted) and outcome.change is not None:
            change, command = outcome.change, outcome.command
            id = command.id
            entries[id].append(history_entry(id, change.version, outcome.at_ms, change.row))
            if command.origin.role not in THINGS:
                entries[id].append(audit_entry(id, row_of(change.row)))
    return {
        id: Extra(
            rows,
            (Cut(history_log(id), id.key, after[id].oldest_version),)
            if after[id].oldest_version > before[id].shadow.oldest_version
            else (),
        )
        for id, rows in entries.items()
    }
