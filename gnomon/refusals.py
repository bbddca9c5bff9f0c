"""What a command says when the service said no, or nothing: the reason, and what to do about it.

What to do is the column of the page of problems; a command that knows better for its own case says so.
Nothing that was sent is ever repeated here: it may have been a secret.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import httpx
import msgspec

from api.problems import INTERNAL, KINDS, UNAUTHORIZED
from gnomon.told import harmless

REMEDIES: Final[Mapping[str, str]] = {kind.slug: kind.remedy for kind in KINDS}
_UNPROVED: Final = frozenset({UNAUTHORIZED.slug, "invalid_client"})
"""Of a proof that failed; the second is the token endpoint's (RFC 6749, 5.2)."""
_SPANS: Final = ((86_400, "days"), (3_600, "hours"), (60, "minutes"))
_UNAVAILABLE: Final = 503
_FOREIGN_ROOT: Final = (
    "this root did not sign for it: name the one that did by --root, or `root` in the credential file;"
    " of a Gnomon it is var/ca/root.crt"
)
_OTHER_NAME: Final = (
    "its certificate is for other names: use one of those, or add this one to the service's broker.hosts"
)
_SPEAKS_TLS: Final = "if it serves with TLS, write https:// and name its root"
_NO_TLS: Final = "it does not speak TLS there: check the port, or write http:// if it is on this machine"


class AccessError(Exception):
    """The service did not let us in or did not do it; the message says why."""


class UnreachableError(AccessError):
    """The service did not answer, or not now: what was asked may be asked again."""


class NotProvedError(AccessError):
    """Whoever asked did not prove who they are."""


def refusal(answer: httpx.Response, unproved: str = "") -> AccessError:
    """Return what a refusal means; ``unproved`` says what to do when it was a proof that failed.

    The service says of that no more than 401, so that nobody learns what was wrong; here it is known what
    was shown.
    """
    said = _said(answer)
    message = words(answer.status_code, said, answer.headers.get("retry-after", ""), unproved)
    if answer.status_code == _UNAVAILABLE:
        return UnreachableError(message)
    return NotProvedError(message) if _slug(said) in _UNPROVED else AccessError(message)


def words(status: int, said: Mapping[str, Any], retry_after: str = "", unproved: str = "") -> str:
    """Return a refusal in words: the reason, how long to wait, and what to do."""
    slug = _slug(said)
    wait = f" (wait {span(retry_after)})" if retry_after else ""
    remedy = unproved if unproved and slug in _UNPROVED else REMEDIES.get(slug, "")
    lines = [f"refused ({status}): {_reason(said)}{wait}", *_checks(said), remedy]
    if slug == INTERNAL.slug:
        lines.append(f"request id {_text(said, 'requestId')}")
    return "\n".join(line for line in lines if line)


def span(seconds: str) -> str:
    """Return a time as a person says it, rounded up; what is no number as it came."""
    if not seconds.isdecimal():
        return seconds or "a while"
    for unit_s, name in _SPANS:
        if int(seconds) > unit_s:
            return f"{math.ceil(int(seconds) / unit_s)} {name}"
    return f"{seconds} s"


def unreachable(url: str, error: httpx.HTTPError) -> UnreachableError:
    """Return why nothing came back, as far as it can be told from here."""
    if isinstance(error, httpx.LocalProtocolError):
        # Its text repeats the header, which may be a token.
        return UnreachableError(f"{url}: what would be sent is no HTTP: log in anew")
    text = str(error) or type(error).__name__
    lines = (f"{url} does not answer: {text}", _guess(url, error))
    return UnreachableError("\n".join(line for line in lines if line))


def _guess(url: str, error: httpx.HTTPError) -> str:
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return _OTHER_NAME if "mismatch" in text else _FOREIGN_ROOT
    if url.startswith("http:"):
        return _SPEAKS_TLS if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError) else ""
    return _NO_TLS if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER_FAILURE" in text else ""


def _said(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        said: Mapping[str, Any] = harmless(msgspec.json.decode(answer.content, type=dict[str, Any]))
    except msgspec.DecodeError:
        return {}
    return said


def _slug(said: Mapping[str, Any]) -> str:
    return _text(said, "type").rpartition("#")[2] or _text(said, "error")


def _text(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name)
    return value if isinstance(value, str) else ""


def _checks(said: Mapping[str, Any]) -> list[str]:
    """Return all that failed, of what is checked in steps or all at once."""
    found = [one for name in ("checks", "problems") for one in _list(said, name)]
    return [f"  {_check(one)}" for one in found if isinstance(one, str | dict)]


def _check(one: str | Mapping[str, Any]) -> str:
    if isinstance(one, str):
        return one
    return f"{_text(one, 'step')} {_text(one, 'code')}: {_text(one, 'detail')}"


def _list(said: Mapping[str, Any], name: str) -> list[Any]:
    value = said.get(name)
    return value if isinstance(value, list) else []


def _reason(said: Mapping[str, Any]) -> str:
    title, detail = _text(said, "title"), _text(said, "detail")
    if detail.lower().startswith(title.lower()):
        title = ""
    return ": ".join(text for text in (title, detail, _text(said, "error")) if text) or "no reason given"
