"""People and systems of a running Gnomon, out of the credential files of its demo accounts.

Whoever tests as one role takes ``Accounts.auth(role)``. ``Accounts.whoever()`` sends each request as somebody
whose business it is, as the people around one home would: no account may do everything.
"""

import re
import threading
from collections.abc import Generator
from pathlib import Path

import httpx

from gnomon.access import Access
from gnomon.credentials import read_credentials
from gnomon.demo_people import ACCOUNT
from gnomon.refusals import UnreachableError
from infra.clock import SystemClock
from security.policy import Action, Role

CUSTOMER = ACCOUNT
"""Whose account it is that ``Role.CUSTOMER`` logs in for."""

_BUSINESS: tuple[tuple[str, Role], ...] = (
    (r"GET /v1/(metrics|health|status)\b", Role.OPERATOR),
    (r"GET /v1/audit\b", Role.AUDITOR),
    (r"\w+ /v1/premises/", Role.CCS),
    (r"POST /v1/things$", Role.SECURITY),
    (r"PUT /v1/things/[^/]+/pin$", Role.SECURITY),
    (r"POST /v1/install-codes$", Role.SECURITY),
    (r"(PUT|DELETE) /v1/gateways/", Role.SECURITY),
    (r"\w+ /v1/(people|clients|approvals)\b", Role.SECURITY),
)
"""Everything else is the customer's."""


class Accounts:
    """One login a role, made when it is first needed; usable from many threads."""

    def __init__(self, var: Path) -> None:
        self._directory = var / "demo" / "credentials"
        self._opened: dict[tuple[Role, int], Access] = {}
        self._lock = threading.RLock()

    def token(self, role: Role) -> str:
        """Return an access token that lasts a while."""
        with self._lock:
            return self._access(role).token()

    def bearer(self, role: Role) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(role)}"}

    def step_up(
        self, role: Role, action: Action, method: str, path: str, body: bytes = b""
    ) -> dict[str, str]:
        """Return the header that confirms exactly this request. A code a half minute: it may have to wait."""
        with self._lock:
            return {"Gnomon-Step-Up": self._access(role).step_up(action, f"{method} {path}", body)}

    def auth(self, role: Role) -> httpx.Auth:
        """Return what sends every request as this role."""
        return _As(self, role)

    def whoever(self) -> httpx.Auth:
        """Return what sends each request as somebody whose business it is."""
        return _As(self, None)

    def forget(self, role: Role) -> None:
        """Take it that a token is worth nothing any more."""
        with self._lock:
            self._access(role).forget()

    def close(self) -> None:
        with self._lock:
            for access in self._opened.values():
                access.close()
            self._opened.clear()

    def file(self, role: Role, number: int = 1) -> Path:
        """Return the credential file of a role; ``number`` 2 is that of its second person."""
        return self._directory / (f"{role}.toml" if number == 1 else f"{role}-{number}.toml")

    def access(self, role: Role, number: int = 1) -> Access:
        """Return what a program of this person holds; for one thread at a time."""
        with self._lock:
            return self._access(role, number)

    def _access(self, role: Role, number: int = 1) -> Access:
        if (role, number) not in self._opened:
            credentials = read_credentials(self.file(role, number))
            self._opened[role, number] = Access(credentials, SystemClock(), _nobody)
        return self._opened[role, number]


class _As(httpx.Auth):
    def __init__(self, accounts: Accounts, role: Role | None) -> None:
        self._accounts = accounts
        self._role = role

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        if "Authorization" in request.headers:
            yield request  # the test sends it as somebody else
            return
        role = self._role or _business_of(request)
        request.headers.update(self._bearer(role, request))
        answer = yield request
        if answer.status_code == 401 and "error=" not in answer.headers.get("www-authenticate", ""):
            self._accounts.forget(role)
            request.headers.update(self._bearer(role, request))
            yield request

    def _bearer(self, role: Role, request: httpx.Request) -> dict[str, str]:
        """Return the header; a service that is away is so for the login as for the request."""
        try:
            return self._accounts.bearer(role)
        except UnreachableError as error:
            raise httpx.ConnectError(str(error), request=request) from error


def _business_of(request: httpx.Request) -> Role:
    line = f"{request.method} {request.url.path}"
    return next((role for pattern, role in _BUSINESS if re.match(pattern, line)), Role.CUSTOMER)


def _nobody(what: str) -> str:
    raise AssertionError(f"the credential file of a demo account lacks the {what}")
