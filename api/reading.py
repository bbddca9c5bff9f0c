"""What the handlers need of a request: header fields, query, body, preconditions. Bytes in, values out.

Nothing is believed before it was checked, and every refusal says which part is wrong.
"""

import asyncio
import base64
import binascii
import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec
from litestar import Request
from litestar.types import Scope

from api.limits import IDEMPOTENCY_KEY_BYTES_MAX, PAGE_MAX, QUERY_BYTES_MAX, QUERY_FIELDS_MAX
from api.problems import (
    INVALID_CURSOR,
    INVALID_REQUEST,
    PRECONDITION_REQUIRED,
    REQUEST_TIMEOUT,
    UNSUPPORTED_ENCODING,
    UNSUPPORTED_MEDIA_TYPE,
    ApiError,
)
from security.audit import Via
from shadow.errors import EncodingError, TooLargeError

VERSION_MAX: Final = 2**53 - 1
BODY: Final = "body"
"""Where the guard leaves a body that it had to read itself."""

HttpRequest = Request[Any, Any, Any]
T = TypeVar("T")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
Instant = Annotated[datetime, msgspec.Meta(tz=True)]
_NAME: Final = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
_DIGITS: Final = re.compile(r"[0-9]{1,16}")
_STRONG_TAG: Final = re.compile(r'"([\x21\x23-\x7e]*)"')
_KEY: Final = re.compile(rf"[\x21-\x7e]{{1,{IDEMPOTENCY_KEY_BYTES_MAX}}}")


def invalid(detail: str) -> ApiError:
    """Return the refusal of a request that is not well formed."""
    return ApiError(INVALID_REQUEST, detail)


def header(scope: Scope, name: bytes) -> str | None:
    """Return the first field called ``name`` (in lower case), if there is one."""
    for field, value in scope["headers"]:
        if field == name:
            return value.decode("latin-1")
    return None


def request_id(scope: Scope) -> str:
    """Return the id that this request's answer carries."""
    id: str = scope["state"]["request_id"]
    return id


def via_of(scope: Scope, body: bytes | None = None) -> Via:
    """Return the way this request came in, for the audit, with the hash of a body that holds no secret."""
    return Via("http", request_id(scope), "" if body is None else hashlib.sha256(body).hexdigest())


def query(scope: Scope, known: Collection[str], *, ignore_others: bool = False) -> Mapping[str, str]:
    """Return the query's fields. One that is not known is refused, so that a slip of the pen is noticed."""
    raw = scope["query_string"]
    if not raw:
        return {}
    if len(raw) > QUERY_BYTES_MAX:
        raise invalid(f"a query may have {QUERY_BYTES_MAX} bytes")
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS_MAX
        )
    except ValueError as error:
        raise invalid(
            f"the query is not percent-encoded UTF-8 of at most {QUERY_FIELDS_MAX} fields"
        ) from error
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise invalid("a query field is given twice")
    if not ignore_others and not fields.keys() <= set(known):
        names = ", ".join(sorted(known)) or "none"
        raise invalid(f"unknown query field; this resource takes: {names}")
    return fields


def whole(text: str, name: str, low: int, high: int) -> int:
    """Return a whole number in its bounds."""
    if _DIGITS.fullmatch(text) and low <= (number := int(text)) <= high:
        return number
    raise invalid(f"{name} must be a whole number from {low} to {high}")


def page_limit(fields: Mapping[str, str]) -> int:
    """Return how many items one page may have."""
    return whole(fields["limit"], "limit", 1, PAGE_MAX) if "limit" in fields else PAGE_MAX


def one_of(fields: Mapping[str, str], name: str, allowed: Iterable[str]) -> str | None:
    """Return a query field that is one of a few words."""
    value = fields.get(name)
    if value is None or value in (words := tuple(allowed)):
        return value
    raise invalid(f"{name} must be one of: {', '.join(words)}")


def a_name(fields: Mapping[str, str], name: str) -> str | None:
    """Return a query field that is a name of ours."""
    value = fields.get(name)
    if value is None or _NAME.fullmatch(value):
        return value
    raise invalid(f"{name} must have 1 to 128 of a-z A-Z 0-9 : _ -")


def instant_ms(fields: Mapping[str, str], name: str) -> int | None:
    """Return a query field that is an RFC 3339 time, as milliseconds since 1970."""
    if name not in fields:
        return None
    try:
        return ms_of(msgspec.convert(fields[name], type=Instant))
    except (msgspec.ValidationError, OverflowError) as error:
        raise invalid(f"{name} must be an RFC 3339 time with its offset, as 2026-09-21T12:00:00Z") from error


def ms_of(instant: datetime) -> int:
    """Return a time as milliseconds since 1970."""
    return (instant - _EPOCH) // _MS


def rfc3339(ms: int) -> str:
    """Spell a time, given in milliseconds since 1970."""
    return (_EPOCH + ms * _MS).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def number_cursor(number: int) -> str:
    """Make an opaque cursor of a number."""
    return base64.urlsafe_b64encode(b"%d" % number).rstrip(b"=").decode()


def cursor_number(fields: Mapping[str, str]) -> int | None:
    """Return the number in a cursor that :func:`number_cursor` made."""
    cursor = fields.get("cursor")
    if cursor is None:
        return None
    try:
        digits = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise ApiError(INVALID_CURSOR) from error
    if not _DIGITS.fullmatch(digits) or number_cursor(int(digits)) != cursor:
        raise ApiError(INVALID_CURSOR)
    return int(digits)


def unpacked(text: str, name: str) -> bytes:
    """Return what base64 says."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(f"{name} must be base64") from error


async def read_body(request: HttpRequest, bytes_max: int, timeout_s: float) -> bytes:
    """Read the whole body; one that is larger, or says that it will be, is not read to its end."""
    scope = request.scope
    if (kept := scope["state"].get(BODY)) is not None:
        if len(kept) > bytes_max:
            raise _too_large(bytes_max)
        return bytes(kept)
    if (coding := header(scope, b"content-encoding")) is not None and coding.strip().lower() != "identity":
        raise ApiError(
            UNSUPPORTED_ENCODING, "a body must not be compressed: send it without Content-Encoding"
        )
    announced = header(scope, b"content-length")
    if announced is not None and announced.isdecimal() and int(announced) > bytes_max:
        raise _too_large(bytes_max)
    try:
        async with asyncio.timeout(timeout_s):
            return await _collect(request, bytes_max)
    except TimeoutError as error:
        raise ApiError(REQUEST_TIMEOUT, f"a body must come within {timeout_s:g} s") from error


async def _collect(request: HttpRequest, bytes_max: int) -> bytes:
    body = b""
    while True:
        message = await request.receive()
        if message["type"] != "http.request":
            raise invalid("the connection was closed before the whole body came")
        body += message["body"]
        if len(body) > bytes_max:
            raise _too_large(bytes_max)
        if not message["more_body"]:
            return body


def _too_large(bytes_max: int) -> TooLargeError:
    return TooLargeError(f"a body may have {bytes_max} bytes")


def media_type(scope: Scope) -> str:
    """Return the body's media type without its parameters; a charset other than UTF-8 is refused."""
    essence, *parameters = (header(scope, b"content-type") or "").split(";")
    for parameter in parameters:
        name, _, value = parameter.strip().partition("=")
        if name.lower() == "charset" and value.strip('"').lower() not in {"utf-8", "utf8", "us-ascii"}:
            raise EncodingError
    return essence.strip().lower()


def require_json(scope: Scope) -> None:
    """Refuse a body that does not say it is JSON."""
    if media_type(scope) != "application/json":
        raise ApiError(UNSUPPORTED_MEDIA_TYPE, "send Content-Type: application/json")


def decode(body: bytes, type: type[T]) -> T:
    """Return a body as a value; a member that the type does not know is refused."""
    try:
        if not body.isascii():
            body.decode()
        return msgspec.json.decode(body, type=type)
    except UnicodeDecodeError as error:
        raise EncodingError from error
    except RecursionError as error:
        raise invalid("the body is nested too deeply") from error
    except msgspec.DecodeError as error:
        raise invalid(str(error)) from error


def idempotency_key(scope: Scope) -> str | None:
    """Return the key under which a repeat of this request is known again."""
    key = header(scope, b"idempotency-key")
    if key is None or _KEY.fullmatch(key):
        return key
    raise invalid(f"Idempotency-Key must have 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters")


ANY: Final = "*"


def entity_tags(value: str) -> frozenset[str]:
    """Return the strong tags that a precondition lists, or ``{ANY}``; weak ones never match a change."""
    if value.strip() == ANY:
        return frozenset({ANY})
    tags = [tag.strip() for tag in value.split(",")]
    if any(not _STRONG_TAG.fullmatch(tag.removeprefix("W/")) for tag in tags):
        raise invalid('a precondition lists entity tags, as "41", or is *')
    return frozenset(tag[1:-1] for tag in tags if tag.startswith('"'))


def is_current(scope: Scope, version: int) -> bool:
    """Tell whether the caller has this version already (If-None-Match; weak comparison, RFC 9110 13.1.2)."""
    value = header(scope, b"if-none-match")
    if value is None:
        return False
    tags = (tag.strip().removeprefix("W/") for tag in value.split(","))
    return any(tag in {ANY, f'"{version}"'} for tag in tags)


def expected_version(scope: Scope) -> int:
    """Return the version that a change is made for; 0 for what shall be new (``If-None-Match: *``)."""
    if (absent := header(scope, b"if-none-match")) is not None:
        if absent.strip() == ANY:
            return 0
        raise invalid("If-None-Match of a change is *, for what shall be new")
    match = header(scope, b"if-match")
    if match is None:
        raise ApiError(PRECONDITION_REQUIRED, "send If-Match with the ETag of what you have read")
    versions = [version_of(tag) for tag in entity_tags(match)]
    if len(versions) != 1:
        raise invalid('If-Match names one version, as "41"')
    # A tag that can be no version of ours is one that there is not.
    return VERSION_MAX if versions[0] is None else versions[0]


def version_of(tag: str) -> int | None:
    """Return the version that a tag names; None when it cannot be one of ours."""
    if _DIGITS.fullmatch(tag) and tag == str(number := int(tag)) and number <= VERSION_MAX:
        return number
    return None
