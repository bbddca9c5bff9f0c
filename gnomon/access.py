"""The other end of the login: tokens kept fresh with a credential file.

Beside that file lies a private one with the session, so that a second factor is shown once a session.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from gnomon.credentials import Credentials, trust
from gnomon.refusals import AccessError, refusal, unreachable
from gnomon.told import harmless
from infra.clock import MS_PER_S, Clock
from security import private_files
from security.people import totp
from security.policy import Action, Role, needs_step_up
from security.secret import Secret

TIMEOUT_S: Final = 30.0
SPARE_S: Final = 30
"""A token that ends sooner is replaced before it is used."""
LOGINS_MAX: Final = 3
"""A code may have been used by another program in the same half minute: then the next one is shown."""
UNAUTHORIZED: Final = 401
PRECONDITION_FAILED: Final = 412
CHANGES_MAX: Final = 5
"""Tries more at what others change at the same time."""
JSON: Final = {"Content-Type": "application/json"}
MERGE_PATCH: Final = {"Content-Type": "application/merge-patch+json"}
CODE: Final = "code of the second factor"
MAYBE_CODE: Final = f"{CODE} (just Enter if the account has none)"
NOT_TAKEN: Final = "that one was not taken; "
_ONCE: Final = f"A code counts once: wait for the next one, at most {totp.STEP_S} s."
NO_LOGIN: Final = f"Login name, password or code is wrong; which of them is told to nobody. {_ONCE}"
NO_STEP_UP: Final = f"This code is wrong, or was used. {_ONCE} A recovery code does not do here."
NO_CLIENT: Final = "client_id or client_secret is wrong, or the client waits for an approval or is disabled."

Ask = Callable[[str], str]
"""Asks a person for something that is not shown while it is typed."""


class NoTerminalError(AccessError):
    """There is nobody to ask."""

    def __init__(self, remedy: str) -> None:
        super().__init__(f"there is no terminal to ask at: {remedy}")


@dataclass(frozen=True, slots=True)
class Notice:
    """What the service had to tell at the login."""

    notice: str
    at: str


class _Session(msgspec.Struct, frozen=True):
    """What is kept beside the credentials."""

    access_token: str
    ends_ms: int
    refresh_token: str = ""
    step: int = 0
    """The last 30 seconds whose code was shown: it counts once."""


class Access:
    """Holds the credentials of one account and a token for it, fresh whenever it is asked for."""

    def __init__(
        self,
        credentials: Credentials,
        clock: Clock,
        ask: Ask,
        *,
        session_file: Path | None = None,
        wait: Callable[[float], None] | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """``tell`` takes what a person should know who would else wonder why nothing happens."""
        self._tell = tell
        self._credentials = credentials
        self._wait = wait or _sleep
        self._clock = clock
        self._ask = ask
        self._session_file = session_file
        self._session = self._kept()
        self.notices: list[Notice] = []
        self._http = httpx.Client(
            base_url=credentials.url, verify=trust(credentials.root), timeout=TIMEOUT_S, trust_env=False
        )

    def close(self) -> None:
        """Let go of connections."""
        self._http.close()

    def token(self) -> str:
        """Return an access token that lasts a while yet."""
        session = self._session
        if session is None or session.ends_ms - self._clock.now_ms() < SPARE_S * MS_PER_S:
            session = self._renewed()
        return session.access_token

    def forget(self) -> None:
        """Take it that the token is worth nothing any more."""
        if self._session is not None:
            self._session = _with_end(self._session, 0)

    def log_in(self, password: Secret, *, factor: bool) -> None:
        """Open a new session, whatever is kept, with a password that the service has just taken.

        ``factor``: the account has a second one. So only its code can be wrong, and is asked for again.
        """
        self._logged_in(password, CODE if factor else "", typed_max=LOGINS_MAX)

    def begin(self, path: str, body: Any, unproved: str) -> Any:  # noqa: ANN401 - JSON
        """Return what the service answers to somebody who has no account yet.

        Raises:
            AccessError: it was refused; for want of a proof, ``unproved`` says what to do.
        """
        answer = self._ask_service("POST", path, json=body)
        if not answer.is_success:
            raise refusal(answer, unproved)
        return harmless(answer.json())

    def wait(self, seconds: float) -> None:
        """Let time pass before the next try."""
        self._wait(seconds)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,  # noqa: ANN401 - JSON
        *,
        confirms: Action | None = None,
        key: str = "",
        fields: Mapping[str, str] | None = None,
    ) -> Any:  # noqa: ANN401 - JSON
        """Return what the service answers; ``confirms`` shows the second factor for it, if this role must.

        The same request under the same ``key`` has its effect once.

        Raises:
            AccessError: it was refused.
        """
        if confirms is not None and not self._must_confirm(confirms):
            confirms = None
        more = dict(fields or {}) | ({"Idempotency-Key": key} if key else {})
        answer = self._request(method, path, body, more, confirms)
        if not answer.is_success:
            raise refusal(answer)
        return harmless(answer.json()) if answer.content else None

    def look(self, path: str) -> httpx.Response:
        """Return what the service answers to HEAD, refusals too."""
        return self._request("HEAD", path, None, {}, None)

    def put(self, path: str, content: Iterable[bytes], fields: dict[str, str]) -> httpx.Response:
        """Send what is too long to be held; return what the service answers, refusals too."""
        return self._send("PUT", path, content, fields)

    @contextmanager
    def stream(self, path: str, fields: Mapping[str, str], *, silence_s: float) -> Iterator[httpx.Response]:
        """Open an answer that is read as it comes; it broke off when nothing came for so long.

        Raises:
            AccessError: it was refused, or broke off.
        """
        bearer = {"Authorization": f"Bearer {self.token()}"}
        try:
            with self._http.stream(
                "GET", path, headers=bearer | dict(fields), timeout=httpx.Timeout(TIMEOUT_S, read=silence_s)
            ) as answer:
                if not answer.is_success:
                    answer.read()
                    raise refusal(answer)
                yield answer
        except httpx.HTTPError as error:
            raise unreachable(self._credentials.url, error) from error

    def download(self, path: str, to: Path) -> None:
        """Write what the service has at ``path`` to a file: all of it, or the file stays as it was.

        Raises:
            AccessError: it was refused, or broke off.
        """
        part = to.with_name(f"{to.name}.part")
        try:
            with self.stream(path, {}, silence_s=TIMEOUT_S) as answer, part.open("wb") as file:
                for piece in answer.iter_bytes():
                    file.write(piece)
            part.replace(to)
        finally:
            part.unlink(missing_ok=True)

    def change(self, method: str, path: str, body: Any, seen: str) -> Any:  # noqa: ANN401 - JSON
        """Change what is at ``seen``, or a part of it, as it is now; return what the service answers.

        Raises:
            AccessError: it was refused, or others kept changing it.
        """
        answer = self._changed(method, path, body, seen)
        for _ in range(CHANGES_MAX):
            if answer.status_code != PRECONDITION_FAILED:
                break
            answer = self._changed(method, path, body, seen)
        if not answer.is_success:
            raise refusal(answer)
        return harmless(answer.json()) if answer.content else None

    def _changed(self, method: str, path: str, body: Any, seen: str) -> httpx.Response:  # noqa: ANN401 - JSON
        read = self._request("GET", seen, None, {}, None)
        if not read.is_success:
            raise refusal(read)
        fields = {"If-Match": read.headers["etag"]} | (MERGE_PATCH if method == "PATCH" else {})
        return self._request(method, path, body, fields, None)

    def step_up(self, action: Action, target: str, content: bytes) -> str:
        """Return a token for one act, by a fresh code.

        Raises:
            AccessError: it was refused.
        """
        digest = sha256(content).hexdigest()
        # First, so that a person is asked for the password before the code.
        self.token()

        def show(code: str) -> httpx.Response:
            asked = {"code": code, "action": action.value, "target": target, "body_sha256": digest}
            answer = self._send("POST", "/v1/step-up", msgspec.json.encode(asked), dict(JSON))
            if answer.status_code == UNAUTHORIZED:
                self.forget()
            return answer

        answer = self._with_code(show, CODE, typed_max=LOGINS_MAX)
        if not answer.is_success:
            raise refusal(answer, NO_STEP_UP)
        shown: str = answer.json()["step_up"]
        return shown

    def _request(
        self,
        method: str,
        path: str,
        body: Any,  # noqa: ANN401 - JSON
        fields: Mapping[str, str],
        confirms: Action | None,
    ) -> httpx.Response:
        content = b"" if body is None else msgspec.json.encode(body)
        answer = self._confirmed(method, path, content, fields, confirms)
        if answer.status_code == UNAUTHORIZED:
            # The session may have been ended elsewhere.
            self.forget()
            answer = self._confirmed(method, path, content, fields, confirms)
        return answer

    def _confirmed(
        self, method: str, path: str, content: bytes, fields: Mapping[str, str], confirms: Action | None
    ) -> httpx.Response:
        sent = (JSON if content else {}) | dict(fields)
        if confirms is not None:
            sent["Gnomon-Step-Up"] = self.step_up(confirms, f"{method} {path}", content)
        return self._send(method, path, content, sent)

    def _must_confirm(self, action: Action) -> bool:
        """Tell whether this account shows a second factor for it. Systems have none.

        Asked of the table before the act: to be refused first would stand in the audit as somebody's try.
        """
        if self._credentials.client_id:
            return False
        return needs_step_up(Role(self.request("GET", "/v1/me")["role"]), action)

    # ------------------------------------------------------------------ tokens

    def _send(
        self, method: str, path: str, content: bytes | Iterable[bytes], fields: dict[str, str]
    ) -> httpx.Response:
        bearer = {"Authorization": f"Bearer {self.token()}"}
        return self._ask_service(method, path, content=content, headers=fields | bearer)

    def _renewed(self) -> _Session:
        if self._session is not None and self._session.refresh_token:
            answer = self._ask_service(
                "POST", "/v1/token/refresh", json={"refresh_token": self._session.refresh_token}
            )
            if answer.is_success:
                return self._keep(answer, self._session.step)
        if self._credentials.client_id:
            return self._client_token()
        password = self._credentials.password or Secret(self._asked("password", "password"))
        return self._logged_in(password, MAYBE_CODE, typed_max=1)

    def _client_token(self) -> _Session:
        secret = self._credentials.client_secret
        shown = self._asked("client secret", "client_secret") if secret is None else secret.reveal()
        answer = self._ask_service(
            "POST",
            "/v1/token",
            data={"grant_type": "client_credentials"},
            auth=(self._credentials.client_id, shown),
        )
        return self._keep(answer, 0, NO_CLIENT)

    def _logged_in(self, password: Secret, question: str, *, typed_max: int) -> _Session:
        def log_in(code: str) -> httpx.Response:
            body = {"login": self._credentials.login, "password": password.reveal(), "code": code}
            return self._ask_service("POST", "/v1/login", json=body)

        answer = self._with_code(log_in, question, typed_max=typed_max)
        return self._keep(answer, self._step, NO_LOGIN)

    def _keep(self, answer: httpx.Response, step: int, unproved: str = "") -> _Session:
        if not answer.is_success:
            raise refusal(answer, unproved)
        told = answer.json()
        self.notices += [Notice(one["notice"], one["at"]) for one in told.get("notices", ())]
        ends_ms = self._clock.now_ms() + told["expires_in"] * MS_PER_S
        return self._write(_Session(told["access_token"], ends_ms, told.get("refresh_token", ""), step))

    def _write(self, session: _Session) -> _Session:
        self._session = session
        if self._session_file is not None:
            private_files.replace(self._session_file, msgspec.json.encode(session))
        return session

    def _kept(self) -> _Session | None:
        data = None if self._session_file is None else private_files.read(self._session_file)
        try:
            return None if data is None else msgspec.json.decode(data, type=_Session)
        except msgspec.DecodeError:
            return None

    # ------------------------------------------------------------------ the second factor

    @property
    def _step(self) -> int:
        return 0 if self._session is None else self._session.step

    def _with_code(
        self, show: Callable[[str], httpx.Response], question: str, *, typed_max: int
    ) -> httpx.Response:
        """Return the answer to a code; to the next one, if the first may have been shown already.

        One that is typed is asked for so often at most; without a ``question`` there is none.
        """
        if not question:
            return show("")
        answer = show(self._code(question))
        for _ in range((typed_max if self._credentials.totp_seed is None else LOGINS_MAX) - 1):
            if answer.status_code != UNAUTHORIZED:
                break
            answer = show(self._code(NOT_TAKEN + question))
        return answer

    def _code(self, question: str) -> str:
        """Return a code that was not shown before from here; wait for it if need be."""
        seed = self._credentials.totp_seed
        if seed is None:
            return self._typed_code(question)
        step = max(self._step + 1, self._step_now)
        left_s = (step - totp.STEPS_AROUND) * totp.STEP_S - self._clock.now_ms() // MS_PER_S
        if left_s > 0:
            if self._tell is not None:
                self._tell(f"A code counts once: this waits {left_s} s for the next one.")
            self._wait(left_s)
        self._shown(step)
        return totp.code_at(seed.reveal(), step)

    def _typed_code(self, question: str) -> str:
        if self._step >= self._step_now:
            left_s = totp.STEP_S - self._clock.now_ms() // MS_PER_S % totp.STEP_S
            question += f" (a code counts once: the next one comes in {left_s} s)"
        code = self._asked(question, "totp_seed")
        if code:
            self._shown(self._step_now)
        return code

    @property
    def _step_now(self) -> int:
        return totp.step_of(self._clock.now_ms())

    def _shown(self, step: int) -> None:
        """Remember whose code was shown, also for the next program."""
        session = self._session or _Session("", 0)
        self._write(_Session(session.access_token, session.ends_ms, session.refresh_token, step))

    def _asked(self, what: str, key: str) -> str:
        """Return what is typed; ``key`` of the credential file would spare the question."""
        try:
            return self._ask(what)
        except NoTerminalError as error:
            raise NoTerminalError(f"set {key} in the credential file") from error

    def _ask_service(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 - httpx's
        try:
            return self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise unreachable(self._credentials.url, error) from error


def _sleep(seconds: float) -> None:
    threading.Event().wait(seconds)


def _with_end(session: _Session, ends_ms: int) -> _Session:
    return _Session(session.access_token, ends_ms, session.refresh_token, session.step)
