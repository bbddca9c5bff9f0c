"""Which things somebody sees: pages whose every item is theirs, because the query says so.

Nothing is fetched to be left out afterwards, so neither an item nor the length of a page, nor the time it
takes, tells of what somebody else has.
"""

from collections.abc import Iterable
from typing import Final

from infra.documents.port import InvalidCursorError
from registry import rules
from registry.models import Thing, ThingKind, ThingPage
from registry.rules import ThingRecord
from registry.store import Page, RegistryStore
from security.policy import Action, Principal, Scope, covers, scope_of

PREMISES_LISTED_MAX: Final = 1_000
"""Premises of one person whose things are listed; further ones are reached by their ids."""
SEARCHES_MAX: Final = 32
"""Searches for one page: where many premises are empty a page is shorter, and goes on."""
_BETWEEN: Final = "."
"""Between premises and the rest of a cursor; no id holds it."""


class Listing:
    """Lists things for a principal."""

    def __init__(self, store: RegistryStore) -> None:
        self._store = store

    async def page(
        self,
        reader: Principal,
        *,
        premises: str | None,
        kind: ThingKind | None,
        limit: int,
        cursor: str | None,
    ) -> ThingPage:
        """Return a page of the things that ``reader`` may read, by premises, by kind, or all of them."""
        scope = scope_of(reader.role, Action.THING_READ)
        if scope in {Scope.ANY, Scope.ENROLLED}:
            only_enrolled = scope is Scope.ENROLLED
            page = await self._store.things_by(premises, kind, limit, cursor, only_enrolled=only_enrolled)
            return ThingPage(tuple(_things(page, kind)), page.next)
        if scope in {Scope.ACCOUNT, Scope.CASE, Scope.ORDER}:
            homes = await (
                self._all_homes(reader, scope) if premises is None else self._home(reader, scope, premises)
            )
            return await self._at(homes, kind, limit, cursor)
        return ThingPage((), None)

    async def _home(self, reader: Principal, scope: Scope, id: str) -> list[str]:
        known = (await self._store.premises([id])).get(id)
        return [id] if covers(scope, reader, rules.place(id, known)) else []

    async def _all_homes(self, reader: Principal, scope: Scope) -> list[str]:
        """Return the ids of the premises that are open to somebody, sorted."""
        if scope is Scope.ORDER:
            return sorted(reader.reach)[:PREMISES_LISTED_MAX]
        accounts = sorted(reader.reach) if scope is Scope.CASE else [reader.account]
        found = {
            home.id
            for account in accounts
            if account
            for home in await self._store.premises_of(account, PREMISES_LISTED_MAX)
        }
        return sorted(found)[:PREMISES_LISTED_MAX]

    async def _at(
        self, homes: list[str], kind: ThingKind | None, limit: int, cursor: str | None
    ) -> ThingPage:
        """Return a page over several premises, one after the other; it ends early, but never in between."""
        place, inner = _parse(homes, cursor)
        things: list[Thing] = []
        for _ in range(SEARCHES_MAX):
            if place >= len(homes) or len(things) >= limit:
                break
            page = await self._store.things_by(homes[place], kind, limit - len(things), inner)
            things += _things(page, kind)
            if page.next is None:
                place, inner = place + 1, None
            else:
                inner = page.next
        return ThingPage(tuple(things), _cursor(homes, place, inner))


def _things(page: Page[ThingRecord], kind: ThingKind | None) -> Iterable[Thing]:
    found = (one.record.thing for one in page.kept if one.record is not None)
    return (thing for thing in found if kind in (None, thing.kind))


def _cursor(homes: list[str], place: int, inner: str | None) -> str | None:
    return None if place >= len(homes) else f"{homes[place]}{_BETWEEN}{inner or ''}"


def _parse(homes: list[str], cursor: str | None) -> tuple[int, str | None]:
    if cursor is None:
        return 0, None
    home, between, inner = cursor.partition(_BETWEEN)
    if not between or home not in homes:
        raise InvalidCursorError("this cursor was not made by this list")
    return homes.index(home), inner or None
