"""The other end of the login: credential files, and tokens kept fresh with them.

A credential file is TOML, readable by its owner only: ``url`` (and ``root``, the file of the root that signs
for it, unless that is a public one), and ``login`` (with ``password`` and ``totp_seed``, or they are asked
for) or ``client_id`` and ``client_secret``. Beside it lies a private file with the session, so that a second
factor is shown once a session.
"""

import ssl
import threading
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import msgspec

from infra.clock import MS_PER_S, Clock
from infra.settings.model import is_loopback
from security import private_files
from security.people import totp
from security.policy import Action
from security.secret import Secret

TIMEOUT_S: Final = 30.0
SPARE_S: Final = 30
"""A token that ends sooner is replaced before it is used."""
LOGINS_MAX: Final = 3
"""A code may have been used by another program in the same half minute: then the next one is shown."""
SESSION_SUFFIX: Final = ".session"
UNAUTHORIZED: Final = 401
UNAVAILABLE: Final = 503
JSON: Final = {"Content-Type": "application/json"}

Ask = Callable[[str], str]
"""Asks a person for something that is not shown while it is typed."""


class AccessError(Exception):
    """The service did not let us in or did not do it; the message says why."""


class UnreachableError(AccessError):
    """The service did not answer, or not now: what was asked may be asked again."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a credential file holds."""

    url: str
    login: str = ""
    password: Secret | None = None
    totp_seed: Secret | None = None
    client_id: str = ""
    client_secret: Secret | None = None
    root: str = ""


class _Session(msgspec.Struct, frozen=True):
    """What is kept beside the credentials."""

    access_token: str
    ends_ms: int
    refresh_token: str = ""
    step: int = 0


def read_credentials(path: Path) -> Credentials:
    """Return what is in a credential file.

    Raises:
        AccessError: it is no such file, or it would send a secret over a network in the open.
        ExposedFileError: others may read it.
    """
    data = private_files.read(path, links=True)
    if data is None:
        raise AccessError(f"{path} is not there")
    try:
        fields = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AccessError(f"{path} is not TOML: {error}") from error
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    if "url" not in texts or not ("login" in texts or "client_id" in texts):
        raise AccessError(f"{path} needs url, and login or client_id")
    check_url(texts["url"])
    return Credentials(
        url=texts["url"],
        login=texts.get("login", ""),
        password=_secret(texts, "password"),
        totp_seed=_secret(texts, "totp_seed"),
        client_id=texts.get("client_id", ""),
        client_secret=_secret(texts, "client_secret"),
        root=texts.get("root", ""),
    )


def check_url(url: str) -> None:
    """Refuse an address at which a password would be read on the way."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        raise AccessError(f"{url} is neither https nor on this machine: a password is not sent there")


def trust(root: str) -> ssl.SSLContext:
    """Return whom to believe: the root in this file alone, or (empty) the public ones.

    Raises:
        AccessError: the file holds no certificate.
    """
    try:
        return ssl.create_default_context(cafile=root or None)
    except (OSError, ssl.SSLError) as error:
        raise AccessError(f"{root} holds no root certificate: {error}") from error


def write_credentials(path: Path, fields: dict[str, str]) -> None:
    """Write a credential file. The values hold no quote, backslash or line end."""
    private_files.make_directory(path.parent)
    text = "".join(f'{name} = "{value}"\n' for name, value in fields.items())
    private_files.replace(path, text.encode())


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
    ) -> None:
        self._credentials = credentials
        self._wait = wait or _sleep
        self._clock = clock
        self._ask = ask
        self._session_file = session_file
        self._session = self._kept()
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

    def request(self, method: str, path: str, body: Any = None, *, confirms: Action | None = None) -> Any:  # noqa: ANN401 - JSON
        """Return what the service answers; ``confirms`` shows the second factor for exactly this.

        Raises:
            AccessError: it was refused.
        """
        content = b"" if body is None else msgspec.json.encode(body)
        answer = self._request(method, path, content, confirms)
        if answer.status_code == UNAUTHORIZED:
            # The session may have been ended elsewhere.
            self.forget()
            answer = self._request(method, path, content, confirms)
        if not answer.is_success:
            raise _refusal(answer)
        return answer.json() if answer.content else None

    def step_up(self, action: Action, target: str, content: bytes) -> str:
        """Return a token for one act, by a fresh code.

        Raises:
            AccessError: it was refused.
        """
        digest = sha256(content).hexdigest()

        def show(code: str) -> httpx.Response:
            asked = {"code": code, "action": action.value, "target": target, "body_sha256": digest}
            answer = self._send("POST", "/v1/step-up", msgspec.json.encode(asked), dict(JSON))
            if answer.status_code == UNAUTHORIZED:
                self.forget()
            return answer

        answer = self._with_code(show)
        if not answer.is_success:
            raise _refusal(answer)
        shown: str = answer.json()["step_up"]
        return shown

    def _request(self, method: str, path: str, content: bytes, confirms: Action | None) -> httpx.Response:
        fields = dict(JSON) if content else {}
        if confirms is not None:
            fields["Gnomon-Step-Up"] = self.step_up(confirms, f"{method} {path}", content)
        return self._send(method, path, content, fields)

    # ------------------------------------------------------------------ tokens

    def _send(self, method: str, path: str, content: bytes, fields: dict[str, str]) -> httpx.Response:
        bearer = {"Authorization": f"Bearer {self.token()}"}
        return self._ask_service(method, path, content=content, headers=fields | bearer)

    def _renewed(self) -> _Session:
        if self._session is not None and self._session.refresh_token:
            answer = self._ask_service(
                "POST", "/v1/token/refresh", json={"refresh_token": self._session.refresh_token}
            )
            if answer.is_success:
                return self._keep(answer, self._session.step)
        return self._client_token() if self._credentials.client_id else self._logged_in()

    def _client_token(self) -> _Session:
        secret = self._credentials.client_secret
        shown = self._ask("client secret") if secret is None else secret.reveal()
        answer = self._ask_service(
            "POST",
            "/v1/token",
            data={"grant_type": "client_credentials"},
            auth=(self._credentials.client_id, shown),
        )
        return self._keep(answer, 0)

    def _logged_in(self) -> _Session:
        password = self._credentials.password or Secret(self._ask("password"))

        def log_in(code: str) -> httpx.Response:
            body = {"login": self._credentials.login, "password": password.reveal(), "code": code}
            return self._ask_service("POST", "/v1/login", json=body)

        return self._keep(self._with_code(log_in), self._step)

    def _keep(self, answer: httpx.Response, step: int) -> _Session:
        if not answer.is_success:
            raise _refusal(answer)
        told = answer.json()
        ends_ms = self._clock.now_ms() + told["expires_in"] * MS_PER_S
        self._session = _Session(told["access_token"], ends_ms, told.get("refresh_token", ""), step)
        if self._session_file is not None:
            private_files.replace(self._session_file, msgspec.json.encode(self._session))
        return self._session

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

    def _with_code(self, show: Callable[[str], httpx.Response]) -> httpx.Response:
        """Return the answer to a code; to the next one, if another program may have shown the first."""
        answer = show(self._code())
        for _ in range(LOGINS_MAX - 1):
            if answer.status_code != UNAUTHORIZED or self._credentials.totp_seed is None:
                break
            answer = show(self._code())
        return answer

    def _code(self) -> str:
        """Return a code that this program has not shown before; wait for it if need be."""
        seed = self._credentials.totp_seed
        if seed is None:
            return self._ask("code of the second factor (empty: none)")
        step = max(self._step + 1, totp.step_of(self._clock.now_ms()))
        while step > totp.step_of(self._clock.now_ms()) + totp.STEPS_AROUND:
            self._wait(1)
        session = self._session or _Session("", 0)
        self._session = _Session(session.access_token, session.ends_ms, session.refresh_token, step)
        return totp.code_at(seed.reveal(), step)

    def _ask_service(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 - httpx's
        try:
            return self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise UnreachableError(f"{self._credentials.url} does not answer: {error}") from error


def _sleep(seconds: float) -> None:
    threading.Event().wait(seconds)


def _with_end(session: _Session, ends_ms: int) -> _Session:
    return _Session(session.access_token, ends_ms, session.refresh_token, session.step)


def _secret(texts: dict[str, str], name: str) -> Secret | None:
    return Secret(texts[name]) if name in texts else None


def _refusal(answer: httpx.Response) -> AccessError:
    unavailable = answer.status_code == UNAVAILABLE
    return (UnreachableError if unavailable else AccessError)(_said(answer))


def _said(answer: httpx.Response) -> str:
    """Return a refusal in words."""
    try:
        told = answer.json()
    except ValueError:
        told = {}
    words = [str(told[name]) for name in ("title", "detail", "error") if told.get(name)]
    return f"refused ({answer.status_code}): " + (": ".join(words) or "no reason given")
