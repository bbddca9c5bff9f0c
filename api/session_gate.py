"""Which provisioning sessions are there for a caller. All others are not there, and cost the same work.

A session belongs to an account for as long as its premises do: who moves in sees none of those before.
"""

from dataclasses import replace
from typing import Final

from api.gate import OutOfReachError
from api.problems import FORBIDDEN, SESSION_NOT_FOUND, ApiError
from api.reading import HttpRequest
from provisioning.errors import SessionNotFoundError, VerificationMissingError
from provisioning.service import SessionService
from provisioning.session import Session
from provisioning.verifications import Verifications
from registry.service import RegistryService
from security.policy import Action, Principal, Role, Target, may

SESSION: Final = "session"
"""The part of a path that names a session."""
NOWHERE: Final = "-"
"""Asked for in the place of what is not there: the work is the same."""


class SessionGate:
    """Stands between a caller and the session that a path names."""

    def __init__(
        self, sessions: SessionService, verifications: Verifications, registry: RegistryService
    ) -> None:
        self._sessions = sessions
        self._verifications = verifications
        self._registry = registry

    async def require(self, request: HttpRequest) -> Session:
        """Return the session in the path; raise unless the caller may do there what the route does."""
        by: Principal = request.scope["user"]
        action: Action = request.scope["route_handler"].opt["action"]
        session = await self._find(request.scope["path_params"][SESSION])
        return await self.admit(by, action, session)

    async def admit(self, by: Principal, action: Action, session: Session | None) -> Session:
        """Return a session that somebody may do this in; raise for one that is not there for them."""
        target = await self._target(session)
        if session is None or not may(by, Action.SESSION_READ, target):
            await self._explain(session, by)
            raise OutOfReachError(SESSION_NOT_FOUND)
        if not may(by, action, target):
            raise ApiError(FORBIDDEN, f"{by.role} may read this, but {action} is not theirs")
        return session

    async def _find(self, id: str) -> Session | None:
        try:
            return await self._sessions.session(id)
        except SessionNotFoundError:
            return None

    async def _target(self, session: Session | None) -> Target:
        place = await self._registry.place(NOWHERE if session is None else session.premises)
        if session is None:
            return place
        theirs = place.account == session.account and session.opened_at_ms >= place.since_ms
        return place if theirs else replace(place, account="")

    async def _explain(self, session: Session | None, by: Principal) -> None:
        """Tell a representative whose own verification of this very session has expired that it has."""
        if by.role is not Role.REP:
            return
        verification, account = (
            (NOWHERE, "") if session is None else (session.verification or NOWHERE, session.account)
        )
        try:
            await self._verifications.require(verification, account, by)
        except VerificationMissingError:
            return
