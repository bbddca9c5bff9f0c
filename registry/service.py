"""The registry: things, and which gateways speak for them.

Every act is one compare-and-set per record, with its audit row in the same write, and is answered when it is
durable. What may become of a record is decided in ``rules``; who may call, by the caller's table of actions:
here ``by`` is only written down.

Removing a thing takes its attachments along, but not its shadows: this package and ``shadow`` do not know
each other. Whoever removes a thing also calls ``ShadowService.forget``, before and after, so that a crash
leaves a thing without shadows and never shadows without a thing.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from infra.clock import Clock
from infra.documents.port import PAGE_MAX, DocumentStore, Entry, StoreError
from registry import rules
from registry.errors import (
    PremisesFullError,
    PremisesNotFoundError,
    RegistryBusyError,
    ThingNotFoundError,
    TooManyAttachmentsError,
)
from registry.listing import Listing
from registry.models import (
    Attachment,
    AttachmentPage,
    Location,
    NewThing,
    Premises,
    Standing,
    Thing,
    ThingKind,
    ThingPage,
)
from registry.rules import THINGS_PER_PREMISES_MAX, AttachmentRecord, ThingRecord
from registry.standings import STANDING_TTL_S, STANDINGS_CACHED_MAX, UNKNOWN, Standings, Unknown
from registry.store import GATEWAYS_PER_THING_MAX, Kept, RegistryStore
from security import audit
from security.audit import INSIDE, Via
from security.policy import Action, Principal, Target

__all__ = ["UNKNOWN", "RegistryService", "Unknown"]

SAVE_ATTEMPTS_MAX: Final = 5
THINGS_PER_GATEWAY_MAX: Final = PAGE_MAX
STANDINGS_LOADED_MAX: Final = 1_000
"""Things of one look-up; more are asked for in several."""
SWEEPS_MAX: Final = 100
"""Pages of attachments that one removal ends."""

NOWHERE: Final = "-"
"""Premises to look up where there is no thing that could be anywhere."""

Listener = Callable[[str], None]
"""Is told the name of a thing whose standing has changed, once that is durable. Must not raise or wait."""


class RegistryService:
    """Registers, attaches and answers for things."""

    def __init__(
        self, store: DocumentStore, clock: Clock, *, standings_max: int = STANDINGS_CACHED_MAX
    ) -> None:
        self._store = RegistryStore(store)
        self._clock = clock
        self.listing = Listing(self._store)
        self._standings = Standings(clock, None if store.exclusive else STANDING_TTL_S, standings_max)
        self.listeners: list[Listener] = []

    # Things

    async def register(self, new: NewThing, by: Principal, via: Via = INSIDE) -> Thing:
        """Register a thing under a free name, where there is room for it."""
        rules.check(new)
        now_ms, there = self._clock.now_ms(), await self._things_at(new.premises)
        thing = await self._change(
            new.name,
            lambda before: rules.register(before, new, now_ms, there=there),
            "thing.register",
            by,
            via,
        )
        # Others may have come in meanwhile. Whoever is written last sees all of them, so that no more stay
        # than may; of two that come for the last place both may be sent away.
        if await self._things_at(new.premises) > THINGS_PER_PREMISES_MAX:
            await self._withdraw(thing, by, via)
            raise PremisesFullError(THINGS_PER_PREMISES_MAX)
        return thing

    async def thing(self, name: str) -> Thing:
        """Return a registered thing."""
        return rules.live(name, (await self._store.thing(name)).record)

    async def things(
        self,
        *,
        premises: str | None = None,
        kind: ThingKind | None = None,
        limit: int,
        cursor: str | None = None,
    ) -> ThingPage:
        """Return a page of things, by premises, by kind, or all."""
        page = await self._store.things_by(premises, kind, limit, cursor)
        things = (one.record.thing for one in page.kept if one.record is not None)
        return ThingPage(tuple(thing for thing in things if kind in (None, thing.kind)), page.next)

    async def of_model(self, model: str, limit: int, cursor: str | None = None) -> ThingPage:
        """Return a page of the things of a model of the catalogue, revoked and suspended ones too."""
        page = await self._store.things_of_model(model, limit, cursor)
        return ThingPage(tuple(one.record.thing for one in page.kept if one.record is not None), page.next)

    async def revoke(self, name: str, by: Principal, via: Via = INSIDE) -> Thing:
        """Make a thing count for nothing, whatever its certificate says; there is no way back but removal."""
        now_ms = self._clock.now_ms()
        thing = await self._change(
            name, lambda before: rules.revoke(name, before, now_ms), "thing.revoke", by, via
        )
        await self._tell_attached(name)
        return thing

    async def suspend(self, name: str, by: Principal, via: Via = INSIDE, reason: str = "") -> Thing:
        """Take nothing from a thing and tell it nothing, until :meth:`resume`."""
        now_ms = self._clock.now_ms()
        thing = await self._change(
            name,
            lambda before: rules.suspend(name, before, now_ms, by.role),
            "thing.suspend",
            by,
            via,
            reason,
        )
        await self._tell_attached(name)
        return thing

    async def resume(self, name: str, by: Principal, via: Via = INSIDE) -> Thing:
        """Let a suspended thing go on; a customer only what a customer has suspended."""
        thing = await self._change(
            name, lambda before: rules.resume(name, before, by.role), "thing.resume", by, via
        )
        await self._tell_attached(name)
        return thing

    async def set_taking_part(self, name: str, taking_part: bool, by: Principal, via: Via = INSIDE) -> Thing:
        """Let the utility see a thing of a customer's that takes part in something, or no more."""
        return await self._change(
            name, lambda before: rules.take_part(name, before, taking_part), "thing.take_part", by, via
        )

    async def remove(self, name: str, by: Principal, via: Via = INSIDE) -> None:
        """Detach a thing everywhere and remove it; its name may be registered again."""
        await self.thing(name)
        await self._detach_everywhere(name, by, via)
        await self._change(name, lambda before: rules.remove(name, before), "thing.remove", by, via)
        # Again, for an attach that was under way: its row no longer counts, but a standing may have seen it.
        await self._detach_everywhere(name, by, via)

    # Premises

    async def premises(self, id: str) -> Premises:
        """Return premises that are known."""
        known = (await self._store.premises([id])).get(id)
        if known is None:
            raise PremisesNotFoundError(id)
        return known

    async def homes(self, ids: Collection[str]) -> dict[str, Premises]:
        """Return those of these premises that are known."""
        return await self._store.premises(ids)

    async def premises_of(self, account: str, limit: int) -> tuple[Premises, ...]:
        """Return the premises of an account by id, so many at most."""
        return tuple(await self._store.premises_of(account, limit))

    async def hand_over(self, id: str, account: str, by: Principal, via: Via = INSIDE) -> Premises:
        """Let premises belong to an account (empty: to nobody); from then on the one before sees nothing."""
        return await self._change_premises(
            id, lambda before: rules.hand_over(before, id, account, self._clock.now_ms()), by, via
        )

    async def describe_premises(self, id: str, at: Location, by: Principal, via: Via = INSIDE) -> Premises:
        """Say where premises lie, in the utility's terms; they need not be known before."""
        now_ms = self._clock.now_ms()
        return await self._change_premises(id, lambda before: rules.describe(before, id, at, now_ms), by, via)

    async def take_session(
        self, premises: str, session: str, is_finished: Callable[[str], Awaitable[bool]]
    ) -> str:
        """Let a session be the one that works at premises; return which one is, this or an earlier one.

        A session that is finished holds nobody up. Its own document has the row of the audit.
        """
        for _ in range(SAVE_ATTEMPTS_MAX):
            kept = await self._store.kept_premises(premises)
            if kept.record is None:
                raise PremisesNotFoundError(premises)
            holder = kept.record.open_session
            if holder == session or (holder and not await is_finished(holder)):
                return holder
            if await self._put_premises(replace(kept.record, open_session=session), kept.revision, None):
                return session
        raise RegistryBusyError("these premises")

    async def release_session(self, premises: str, session: str) -> None:
        """Let others work at premises, if it is this session that does."""
        for _ in range(SAVE_ATTEMPTS_MAX):
            kept = await self._store.kept_premises(premises)
            if kept.record is None or kept.record.open_session != session:
                return
            if await self._put_premises(replace(kept.record, open_session=""), kept.revision, None):
                return
        raise RegistryBusyError("these premises")

    async def place(self, id: str) -> Target:
        """Return the facts about premises for the permission table, known or not."""
        return rules.place(id, (await self._store.premises([id])).get(id))

    # Attachments

    async def attach(self, gateway: str, thing: str, by: Principal, via: Via = INSIDE) -> Attachment:
        """Let a gateway speak for a thing of the same premises; what is attached stays as it is."""
        for _ in range(SAVE_ATTEMPTS_MAX):
            ends = await self._store.things({gateway, thing})
            kept = await self._store.attachment(gateway, thing)
            after = rules.attach(
                kept.record,
                rules.live(gateway, ends.get(gateway)),
                rules.live(thing, ends.get(thing)),
                self._clock.now_ms(),
            )
            if after is kept.record:
                return after.attachment
            await self._check_room(gateway, thing)
            if await self._put_attachment(after, kept.revision, by, via):
                return after.attachment
        raise RegistryBusyError("this attachment")

    async def detach(self, gateway: str, thing: str, by: Principal, via: Via = INSIDE) -> None:
        """Take a gateway's right to speak for a thing away; it holds from the next message on."""
        for _ in range(SAVE_ATTEMPTS_MAX):
            kept = await self._store.attachment(gateway, thing)
            after = rules.detach(gateway, thing, kept.record)
            if await self._put_attachment(after, kept.revision, by, via):
                return
        raise RegistryBusyError("this attachment")

    async def gateways_of(self, thing: str) -> tuple[Attachment, ...]:
        """Return the attachments of a thing by gateway name; none if there is no such thing."""
        records = (await self._store.attachments_of([thing])).get(thing, [])
        found = await self._counting(records)
        return tuple(sorted(found, key=lambda pair: pair.gateway))

    async def attached_to(self, gateway: str, limit: int, cursor: str | None = None) -> AttachmentPage:
        """Return a page of the things a gateway may speak for; none if there is no such gateway."""
        page = await self._store.attachments_by("gateway", gateway, limit, cursor)
        records = [one.record for one in page.kept if one.record is not None]
        return AttachmentPage(tuple(await self._counting(records)), page.next)

    # Standings

    def standing(self, name: str) -> Standing | Unknown | None:
        """Return what is known of a thing without asking the store; None = known to be absent."""
        return self._standings.get(name)

    async def standings(self, names: Collection[str], *, fresh: bool = False) -> dict[str, Standing]:
        """Return the standings of those that are registered; asks the store for what is not known.

        ``fresh``: asks for all of them, as another process may have changed what is known here.
        """
        known: dict[str, Standing] = {}
        missing: list[str] = []
        for name in dict.fromkeys(names):
            standing = UNKNOWN if fresh else self._standings.get(name)
            if isinstance(standing, Unknown):
                missing.append(name)
            elif standing is not None:
                known[name] = standing
        for first in range(0, len(missing), STANDINGS_LOADED_MAX):
            known |= await self._load(missing[first : first + STANDINGS_LOADED_MAX])
        return known

    async def targets(self, names: Collection[str]) -> dict[str, Target]:
        """Return the facts about things for the permission table; what is not registered has none.

        A thing that is there, one of somebody else and one that is not cost the same look-ups.
        """
        return {name: rules.target(one) for name, one in (await self.standings(names)).items()}

    async def _load(self, names: Sequence[str]) -> dict[str, Standing]:
        began_s = self._standings.begin_load()
        found: dict[str, Standing] = {}
        loaded: Sequence[str] = ()
        try:
            found = await self._find(names)
            loaded = names
        finally:
            # After a failure nothing is known: a thing that was not found is not a thing that is absent.
            self._standings.end_load(began_s, loaded, found)
        return found

    async def _find(self, names: Sequence[str]) -> dict[str, Standing]:
        # Rows before things: a row whose ends have gone since is found out, the other way it would not be.
        rows = await self._store.attachments_of(names)
        gateways = {record.attachment.gateway for records in rows.values() for record in records}
        things = await self._registered({*names, *gateways})
        # Asked for also when nothing is there: how long an answer takes tells nothing.
        homes = await self._store.premises({thing.premises for thing in things.values()} or {NOWHERE})
        return {
            name: rules.standing(thing, rows.get(name, ()), things, homes.get(thing.premises))
            for name in names
            if (thing := things.get(name)) is not None
        }

    async def _registered(self, names: Collection[str]) -> dict[str, Thing]:
        records = await self._store.things(names)
        return {name: record.thing for name, record in records.items() if not record.removed}

    async def _counting(self, records: Sequence[AttachmentRecord]) -> list[Attachment]:
        """Return the attachments among these records whose both ends are still the same."""
        pairs = [record.attachment for record in records]
        things = await self._registered({name for pair in pairs for name in (pair.gateway, pair.thing)})
        return [
            pair
            for record, pair in zip(records, pairs, strict=True)
            if rules.counts(record, things.get(pair.gateway), things.get(pair.thing))
        ]

    async def _tell_attached(self, gateway: str) -> None:
        """The things a gateway speaks for must not go on believing it, or may believe it again."""
        async for pair in self._attached("gateway", gateway):
            self._standings.drop(pair.thing)
            self._changed(pair.thing)

    async def _attached(self, field: str, name: str) -> AsyncIterator[Attachment]:
        cursor: str | None = None
        for _ in range(SWEEPS_MAX):
            page = await self._store.attachments_by(field, name, PAGE_MAX, cursor)
            for kept in page.kept:
                if kept.record is not None:
                    yield kept.record.attachment
            cursor = page.next
            if cursor is None:
                return

    # Writing

    async def _change_premises(
        self, id: str, decide: Callable[[Premises | None], Premises], by: Principal, via: Via
    ) -> Premises:
        for _ in range(SAVE_ATTEMPTS_MAX):
            kept = await self._store.kept_premises(id)
            after = decide(kept.record)
            if after == kept.record:
                return after
            entry = self._entry(by, via, Action.PREMISES_WRITE, f"premises/{id}", kept.revision)
            if await self._put_premises(after, kept.revision, entry):
                return after
        raise RegistryBusyError("these premises")

    async def _put_premises(self, after: Premises, before: int, entry: Entry | None) -> bool:
        try:
            return await self._store.put_premises(after, before, entry)
        finally:
            # Also after a failure: the write may have reached the disk.
            await self._forget_at(after.id)

    async def _forget_at(self, premises: str) -> None:
        """Forget the standings of all things at these premises, and tell who listens."""
        try:
            names = [
                kept.record.thing.name
                async for kept in self._everything_at(premises)
                if kept.record is not None
            ]
        except StoreError:
            self._standings.drop_all()
            raise
        for name in names:
            self._standings.drop(name)
            self._changed(name)

    async def _everything_at(self, premises: str) -> AsyncIterator[Kept[ThingRecord]]:
        cursor: str | None = None
        for _ in range(SWEEPS_MAX):
            page = await self._store.things_by(premises, None, PAGE_MAX, cursor)
            for kept in page.kept:
                yield kept
            cursor = page.next
            if cursor is None:
                return
        self._standings.drop_all()

    async def _change(
        self,
        name: str,
        decide: Callable[[ThingRecord | None], ThingRecord],
        action: str,
        by: Principal,
        via: Via,
        reason: str = "",
    ) -> Thing:
        """Put what ``decide`` makes of a thing in its place; nothing is written when it stays the same."""
        for _ in range(SAVE_ATTEMPTS_MAX):
            kept = await self._store.thing(name)
            after = decide(kept.record)
            if after == kept.record:
                return after.thing
            entry = self._entry(by, via, action, f"thing/{name}", kept.revision, reason)
            try:
                won = await self._store.put_thing(after, kept.revision, entry)
            finally:
                # Also after a failure: the write may have reached the disk.
                self._standings.drop(name)
            if won:
                self._changed(name)
                return after.thing
        raise RegistryBusyError("this thing")

    async def _put_attachment(self, after: AttachmentRecord, before: int, by: Principal, via: Via) -> bool:
        return await self._put_attachments([(after, before)], by, via) == 1

    async def _put_attachments(
        self, rows: Sequence[tuple[AttachmentRecord, int]], by: Principal, via: Via, reason: str = ""
    ) -> int:
        """Write attachment records over their revisions; return how many won."""
        written = [
            (after, before, self._attachment_entry(after, before, by, via, reason)) for after, before in rows
        ]
        try:
            lost = await self._store.put_attachments(written)
        finally:
            for after, _ in rows:
                self._standings.drop(after.attachment.thing)
        for position, (after, _) in enumerate(rows):
            if position not in lost:
                self._changed(after.attachment.thing)
        return len(rows) - len(lost)

    async def _detach_everywhere(self, name: str, by: Principal, via: Via) -> None:
        for field in ("gateway", "thing"):
            for _ in range(SWEEPS_MAX):
                page = await self._store.attachments_by(field, name, PAGE_MAX)
                if not page.kept:
                    break
                rows = [(_ended(kept), kept.revision) for kept in page.kept]
                await self._put_attachments(rows, by, via, reason="removal")
            else:
                raise RegistryBusyError("this thing's attachments")

    async def _things_at(self, premises: str) -> int:
        """Count the things there; one more than there may be is enough to know."""
        page = await self._store.things_by(premises, None, THINGS_PER_PREMISES_MAX + 1, None)
        return len(page.kept)

    async def _withdraw(self, thing: Thing, by: Principal, via: Via) -> None:
        with suppress(ThingNotFoundError):
            await self._change(
                thing.name, lambda before: rules.withdraw(thing, before), "thing.remove", by, via, "no room"
            )

    async def _check_room(self, gateway: str, thing: str) -> None:
        of_thing = await self._store.attachments_by("thing", thing, GATEWAYS_PER_THING_MAX)
        if len(of_thing.kept) >= GATEWAYS_PER_THING_MAX:
            raise TooManyAttachmentsError(
                f"a thing is attached to at most {GATEWAYS_PER_THING_MAX} gateways: detach it from one"
            )
        of_gateway = await self._store.attachments_by("gateway", gateway, THINGS_PER_GATEWAY_MAX)
        if len(of_gateway.kept) >= THINGS_PER_GATEWAY_MAX:
            raise TooManyAttachmentsError(
                f"a gateway speaks for at most {THINGS_PER_GATEWAY_MAX} things: attach it to another one"
            )

    def _changed(self, name: str) -> None:
        for listener in self.listeners:
            listener(name)

    def _attachment_entry(
        self, after: AttachmentRecord, before: int, by: Principal, via: Via, reason: str
    ) -> Entry:
        action = "thing.attach" if after.attached else "thing.detach"
        target = f"attachment/{after.attachment.gateway}/{after.attachment.thing}"
        return self._entry(by, via, action, target, before, reason)

    def _entry(
        self, by: Principal, via: Via, action: str, target: str, before: int, reason: str = ""
    ) -> Entry:
        at_ms = self._clock.now_ms()
        row = audit.act(by, via, action, target, at_ms=at_ms, before=before, after=before + 1, reason=reason)
        # Records are never deleted, so their revisions never start again.
        return audit.entry(row, before + 1, life=0)


def _ended(kept: Kept[AttachmentRecord]) -> AttachmentRecord:
    record = kept.record
    assert record is not None, "found by its index"
    pair = record.attachment
    return rules.detach(pair.gateway, pair.thing, record)
