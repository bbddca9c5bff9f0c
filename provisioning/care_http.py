"""A customer care system over HTTP.

What it is asked, in JSON below one address, with a bearer token or over mutual TLS:

```
POST customer-searches   {by, value, limit}                        200 {customers: […]}, or 404
GET  customers/{ref}                                               200 {…}, or 404
POST records             {key, kind, premises, seq, made_at_ms, body}    2xx {receipt}, or 409 {record}
                         Idempotency-Key: the same for every attempt
```
A search is a POST, so that no name or address gets into a log of URLs. How its answers spell our fields is
data (``care.fields``). Its answers are looked at for these fields only, and never logged or kept: of a
refusal the title remains, which by RFC 9457 names the kind of problem and no person.
"""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote

import httpx
import msgspec

from infra.clock import MS_PER_S, Clock
from infra.outbox import OutboxItem, Receipt
from infra.settings import CareSettings
from provisioning.care import (
    CareAccount,
    CareCustomer,
    CareRefusedError,
    CareUnavailableError,
    SearchBy,
    search_key,
)
from security import private_files
from security.private_files import DamagedFileError, ExposedFileError
from security.secret import Secret

ANSWER_S_MAX: Final = 3.0
"""Somebody is on the telephone."""
ANSWER_BYTES_MAX: Final = 1_048_576
CONNECTIONS_MAX: Final = 32
ACCOUNTS_MAX: Final = 50
TEXT_CHARS_MAX: Final = 500
TITLE_CHARS_MAX: Final = 100
FIELDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "customers": "customers",
        "ref": "ref",
        "name": "name",
        "language": "language",
        "phone": "phone",
        "email": "email",
        "accounts": "accounts",
        "account.id": "id",
        "account.number": "number",
        "account.tariff": "tariff",
        "account.status": "status",
        "account.premises": "premises",
        "account.address": "address",
        "receipt": "receipt",
        "record": "record",
    }
)
"""Our fields, and what they are called unless the settings say otherwise; those of an account stand in it."""
BUSY: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
"""Refusals that are none: a later attempt may succeed. So are all that begin with 5."""

Tree = Any
"""What JSON holds; nobody knows yet what it is."""


class CareSetupError(Exception):
    """A setting of the customer care system is wrong: which, and what is to be done."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    retry_after: str

    @property
    def good(self) -> bool:
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    @property
    def tree(self) -> Tree:
        """Return what it says; None if that is no JSON."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None


class HttpCare:
    """Asks the other system. Made by :func:`connect`."""

    def __init__(self, http: httpx.AsyncClient, fields: Mapping[str, str], clock: Clock) -> None:
        self._http = http
        self._fields = fields
        self._clock = clock

    async def search(self, by: SearchBy, value: str, limit: int) -> tuple[CareCustomer, ...]:
        search_key(by, value)
        asked = {"by": by, "value": value, "limit": limit}
        answer = await self._ask("POST", "customer-searches", asked)
        if answer.status == HTTPStatus.NOT_FOUND:
            return ()
        found = pick(self._good(answer).tree, self._fields["customers"])
        if not isinstance(found, list):
            raise CareUnavailableError("the customer care system answered what cannot be read")
        return tuple(self._customer(one) for one in found[:limit])

    async def customer(self, ref: str) -> CareCustomer | None:
        answer = await self._ask("GET", f"customers/{quote(ref, safe='')}")
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        return self._customer(self._good(answer).tree)

    async def deliver(self, item: OutboxItem) -> Receipt:
        record = {
            "key": item.key,
            "kind": item.kind,
            "premises": item.lane,
            "seq": item.seq,
            "made_at_ms": item.made_at_ms,
            "body": msgspec.Raw(item.body),
        }
        answer = await self._ask("POST", "records", record, {"Idempotency-Key": item.idempotency_key})
        if answer.status == HTTPStatus.CONFLICT and self._has(answer, record):
            return Receipt()
        return Receipt(text(self._good(answer).tree, self._fields["receipt"]))

    async def close(self) -> None:
        await self._http.aclose()

    async def _ask(
        self, method: str, path: str, body: Tree = None, headers: Mapping[str, str] = MappingProxyType({})
    ) -> _Answer:
        content = None if body is None else msgspec.json.encode(body)
        fields = dict(headers) if content is None else {**headers, "Content-Type": "application/json"}
        try:
            # One bound over all of it: the client's own are for each wait.
            async with (
                asyncio.timeout(ANSWER_S_MAX),
                self._http.stream(method, path, content=content, headers=fields) as answer,
            ):
                said = await _bounded(answer)
                return _Answer(answer.status_code, said, answer.headers.get("Retry-After", ""))
        except (TimeoutError, httpx.TimeoutException):
            problem = f"the customer care system did not answer within {ANSWER_S_MAX:.0f} s"
            raise CareUnavailableError(problem) from None
        except (httpx.HTTPError, OSError) as error:
            # OSError: that our certificate is refused comes with TLS 1.3 when we read, and unwrapped.
            problem = f"the customer care system cannot be reached ({type(error).__name__})"
            raise CareUnavailableError(problem) from error

    def _good(self, answer: _Answer) -> _Answer:
        """Return an answer that says yes, or raise what one that does not means."""
        if answer.good:
            return answer
        if answer.status in BUSY or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            problem = f"the customer care system answered {answer.status}"
            raise CareUnavailableError(problem, self._retry_after_s(answer.retry_after))
        raise CareRefusedError(answer.status, _title(answer))

    def _retry_after_s(self, field: str) -> float | None:
        """Return how long it asks to be left alone: seconds, or a date (RFC 9110)."""
        if field.isdecimal():
            return float(field)
        try:
            return parsedate_to_datetime(field).timestamp() - self._clock.now_ms() / MS_PER_S
        except ValueError:
            return None

    def _has(self, answer: _Answer, record: Tree) -> bool:
        """Whether it says that it holds exactly this record."""
        held = pick(answer.tree, self._fields["record"])
        return held is not None and held == msgspec.json.decode(msgspec.json.encode(record))

    def _customer(self, tree: Tree) -> CareCustomer:
        names = self._fields
        ref, accounts = text(tree, names["ref"]), pick(tree, names["accounts"])
        if not ref or not isinstance(accounts, list) or len(accounts) > ACCOUNTS_MAX:
            raise CareUnavailableError("the customer care system answered what cannot be read")
        return CareCustomer(
            ref=ref,
            name=text(tree, names["name"]),
            language=text(tree, names["language"]),
            phone=text(tree, names["phone"]),
            email=text(tree, names["email"]),
            accounts=tuple(self._account(one) for one in accounts),
        )

    def _account(self, tree: Tree) -> CareAccount:
        id, number, tariff, status, premises = (
            text(tree, self._fields[f"account.{name}"])
            for name in ("id", "number", "tariff", "status", "premises")
        )
        address = text(tree, self._fields["account.address"], between=", ")
        if not id:
            raise CareUnavailableError("the customer care system answered what cannot be read")
        return CareAccount(id, number, tariff, status, premises, address)


def connect(settings: CareSettings, clock: Clock) -> HttpCare:
    """Return the adapter; nothing is asked yet.

    Raises:
        CareSetupError: an address or a file cannot be used, or a field is none of ours.
    """
    fields = field_names(settings.fields)
    token = _token(settings.token_file)
    shown = {} if token is None else {"Authorization": f"Bearer {token.reveal()}"}
    try:
        http = httpx.AsyncClient(
            base_url=settings.url,
            verify=_tls(settings),
            headers={"Accept": "application/json", "Accept-Encoding": "identity", **shown},
            timeout=ANSWER_S_MAX,
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX),
            trust_env=False,
        )
    except httpx.InvalidURL as error:
        raise CareSetupError("care.url", f"is no address: {error}") from error
    return HttpCare(http, fields, clock)


def field_names(given: Sequence[str]) -> Mapping[str, str]:
    """Return what each of our fields is called, from ``ours=theirs``.

    Raises:
        CareSetupError: a field is none of ours.
    """
    changed = dict(one.split("=", 1) for one in given)
    unknown = sorted(changed.keys() - FIELDS.keys())
    if unknown:
        raise CareSetupError(
            "care.fields", f"{unknown[0]!r} is no field of ours; there are {', '.join(FIELDS)}"
        )
    return MappingProxyType({**FIELDS, **changed})


def pick(tree: Tree, path: str) -> Tree:
    """Return what is at ``a.b.c``; None where that is nothing."""
    for name in path.split("."):
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def text(tree: Tree, paths: str, between: str = " ") -> str:
    """Return what is there as a text, several paths (``a+b.c``) joined; empty where there is none."""
    found = (pick(tree, path) for path in paths.split("+"))
    texts = (str(one) for one in found if isinstance(one, str | int) and not isinstance(one, bool))
    return between.join(one for one in texts if one)[:TEXT_CHARS_MAX]


async def _bounded(answer: httpx.Response) -> bytes:
    said = bytearray()
    async for part in answer.aiter_bytes():
        said += part
        if len(said) > ANSWER_BYTES_MAX:
            raise CareUnavailableError(
                f"the customer care system answered more than {ANSWER_BYTES_MAX} bytes"
            )
    return bytes(said)


def _title(answer: _Answer) -> str:
    title = pick(answer.tree, "title")
    if isinstance(title, str):
        return " ".join(title.split())[:TITLE_CHARS_MAX]
    try:
        return HTTPStatus(answer.status).phrase
    except ValueError:
        return ""


def _token(file: str) -> Secret | None:
    if not file:
        return None
    try:
        held = private_files.read(Path(file), "have a new token made", links=True)
    except (ExposedFileError, DamagedFileError, OSError) as error:
        raise CareSetupError("care.token_file", str(error)) from error
    token = "" if held is None else held.decode("ascii", errors="replace").strip()
    if not token or not token.isprintable() or not token.isascii():
        raise CareSetupError("care.token_file", f"{file} holds no token: one line of ASCII")
    return Secret(token)


def _tls(settings: CareSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.authorities_file or None)
    except (OSError, ssl.SSLError) as error:
        raise CareSetupError("care.authorities_file", f"cannot be used: {error}") from error
    if settings.certificate_file:
        try:
            if private_files.read(Path(settings.key_file), links=True) is None:
                raise CareSetupError("care.key_file", f"{settings.key_file} is not there")
            context.load_cert_chain(settings.certificate_file, settings.key_file)
        except (ExposedFileError, DamagedFileError, OSError) as error:
            raise CareSetupError("care.key_file", f"cannot be used: {error}") from error
    return context
