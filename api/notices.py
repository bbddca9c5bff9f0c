"""A provisioning session, live: its state and each of its devices, as they change.

What is told is how things are, not what happened, so a reader who was away misses nothing that still holds.
The last event of a round carries as ``id`` what the reader knows now; who comes back with it is told only
what is different.
"""

import hashlib
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from api.guards import STILL_MAY
from api.problems import ApiError
from api.reading import HttpRequest, header
from api.replies import Reply
from api.services import ApiServices
from api.session_gate import SessionGate
from api.session_schemas import SessionDeviceDocument, SessionDocument, Sight, sight_of
from api.streams import EventStream, GoneError, Places, StillMay, event
from infra.documents.port import StoreError
from provisioning.errors import SessionNotFoundError
from provisioning.reconciler import topic
from provisioning.service import SessionService
from provisioning.session import Session

TAG_CHARS: Final = 24
_encode: Final = msgspec.json.Encoder().encode


def watch(
    request: HttpRequest, session: Session, gate: SessionGate, services: ApiServices, places: Places
) -> Reply:
    """Begin a stream of a session; it ends when its reader may not read the session any more."""
    scope = request.scope
    may_call: StillMay = scope["state"][STILL_MAY]

    async def still_may() -> bool:
        if not await may_call():
            return False
        try:
            await gate.require(request)
        except (ApiError, StoreError):
            return False
        return True

    scope["state"][STILL_MAY] = still_may
    sight = sight_of(scope["user"].role)
    known = header(scope, b"last-event-id") or ""
    sessions = services.provisioning.sessions
    return EventStream(places, services, topic(session.id), _Notices(sessions, session.id, sight, known))


class _Notices:
    """What is told of a session to one reader."""

    def __init__(self, sessions: SessionService, id: str, sight: Sight, known: str) -> None:
        self._sessions = sessions
        self._id = id
        self._sight = sight
        self._known = known
        self._told: dict[str, bytes] = {}

    async def opening(self) -> tuple[bytes, ...]:
        rows = await self._rows()
        if _tag(rows) == self._known:
            self._told = rows
        return ()

    async def news(self) -> AsyncIterator[bytes]:
        """Yield the session and those of its devices that are not as they were told."""
        try:
            rows = await self._rows()
        except SessionNotFoundError as error:
            raise GoneError from error
        changed = [key for key in rows if rows[key] != self._told.get(key)]
        for key in changed:
            tag = _tag(rows).encode() if key == changed[-1] else b""
            yield event(b"device" if key else b"session", rows[key], tag)
            self._told[key] = rows[key]

    async def _rows(self) -> dict[str, bytes]:
        """Return what there is to tell, each with its key; the session itself has none."""
        session = await self._sessions.session(self._id)
        devices = {
            key: _encode(SessionDeviceDocument.of(device, self._sight))
            for key, device in sorted(self._sight.devices(session).items())
        }
        return {"": _encode(SessionDocument.of(session, self._sight)), **devices}


def _tag(rows: dict[str, bytes]) -> str:
    return hashlib.sha256(b"\0".join(rows.values())).hexdigest()[:TAG_CHARS]
