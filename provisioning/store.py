"""Sessions to documents and back. No decisions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from infra.documents.port import Collection, DocumentStore, Entry, IndexValue
from infra.documents.records import Kept, Records
from provisioning.session import Session
from provisioning.states import SessionState, WindowState

SESSIONS: Final = Collection("provisioning_sessions", ("premises", "opener", "due_ms", "watched", "over_ms"))
PAGE_MAX: Final = 500
SOON: Final = "soon"
"""Sessions in which something is about to happen outside."""
LATER: Final = "later"
"""Sessions that wait for days."""
_WATCHED: Final[Mapping[SessionState, str]] = {
    SessionState.DISCOVERING: SOON,
    SessionState.PROVISIONING: SOON,
    SessionState.PARTIAL: LATER,
    SessionState.AWAITING_REMEDY: LATER,
}


@dataclass(frozen=True, slots=True)
class SessionPage:
    """Sessions in a fixed order; ``next`` continues after the last, None = no more."""

    sessions: tuple[Session, ...]
    next: str | None


class SessionStore:
    """Sessions by id and by whatever they are found by."""

    def __init__(self, store: DocumentStore) -> None:
        self._records = Records(store, SESSIONS.name, Session, _found_by)

    async def load(self, id: str) -> Kept[Session] | None:
        """Return a session, to be followed by another version of it."""
        return await self._records.load(id)

    async def put(self, session: Session, before: int, entry: Entry | None = None) -> bool:
        """Write a session over revision ``before``; False: somebody was first."""
        return await self._records.put(session.id, session, before, entry)

    async def drop(self, id: str, before: int) -> bool:
        """Delete a session that was never opened; False: somebody was first."""
        return await self._records.take(id, before)

    async def due(self, now_ms: int) -> tuple[str, ...]:
        """Return the ids of sessions that somebody has to look at, the oldest first."""
        return (await self._records.page("due_ms", 1, now_ms, PAGE_MAX)).ids

    async def watched(self, how: str) -> tuple[str, ...]:
        """Return the ids of sessions that wait for something outside."""
        ids: list[str] = []
        cursor: str | None = None
        while True:
            page = await self._records.page("watched", how, how, PAGE_MAX, cursor)
            ids += page.ids
            cursor = page.next
            if cursor is None:
                return tuple(ids)

    async def open_of(self, opener: str, at_most: int) -> int:
        """Return how many sessions somebody has open, as far as ``at_most``."""
        return len((await self._records.page("opener", opener, opener, at_most)).ids)

    async def at(self, premises: str, limit: int, cursor: str | None = None) -> SessionPage:
        """Return a page of the sessions of premises that anybody may know of, by id."""
        page = await self._records.page("premises", premises, premises, limit, cursor)
        return SessionPage(tuple(one for one in page.records if one.is_visible), page.next)

    async def drop_over(self, until_ms: int) -> int:
        """Delete sessions that were over before this; return how many."""
        return await self._records.sweep("over_ms", until_ms, PAGE_MAX)


def _found_by(session: Session) -> dict[str, IndexValue]:
    index: dict[str, IndexValue] = {"premises": session.premises}
    if not session.is_over and session.state is not SessionState.RECORDED:
        index["opener"] = session.opened_by
    if session.due_ms:
        index["due_ms"] = session.due_ms
    if session.window is not None and session.window.is_over and not session.window.settled:
        index["watched"] = SOON
    elif session.state in _WATCHED:
        index["watched"] = LATER if _waits_for_its_window(session) else _WATCHED[session.state]
    if session.is_over and session.released and not session.due_ms:
        index["over_ms"] = session.transitions[-1].at_ms
    return index


def _waits_for_its_window(session: Session) -> bool:
    """Tell whether nothing is about to happen before the window may be asked for, which is when it is due."""
    window = session.window
    return (
        session.state is SessionState.DISCOVERING
        and window is not None
        and window.state is WindowState.SCHEDULED
        and 0 < session.due_ms <= window.not_before_ms
    )
