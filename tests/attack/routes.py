"""Attacks on the API's edge: open routes, fields too many, operators of a store in names. (B16, B17, B30)"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import httpx

from tests.attack import walk
from tests.attack.attacks import Score, Size, attack
from tests.attack.field import Field

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
OPEN: Final = frozenset(
    {
        ("GET", "/healthz"),
        ("GET", "/"),
        ("GET", "/docs"),
        ("GET", "/docs/problems"),
        ("GET", "/docs/openapi.json"),
        ("GET", "/.well-known/gnomon/keys"),
        ("GET", "/.well-known/jwks.json"),
        ("POST", "/v1/login"),
        ("POST", "/v1/logout"),
        ("POST", "/v1/token"),
        ("POST", "/v1/token/refresh"),
        ("POST", "/v1/invitations/accept"),
        ("POST", "/v1/people/first"),
    }
)
"""Written by hand: what anybody may call. A new open route is a decision, and is added here."""
BAD_BEARERS: Final = (
    "",
    "Bearer",
    "Bearer x",
    "Basic eDp4",
    "Bearer null",
    "bearer undefined",
    "AWS4-HMAC-SHA256 x",
)
SECRET_WORDS: Final = re.compile(
    r"hash|secret|salt|seed|passw|token|private|credential|(?<!request)_id$|revision", re.IGNORECASE
)

SHOWN: Final = {
    "/v1/audit/head": frozenset({"hash"}),
    "/v1/audit/verify": frozenset({"hash"}),
    "/v1/clients": frozenset({"secrets"}),
}
"""Written by hand: what may be told though it is called so. A chain's hash is there to be compared, and of a
client's secrets it is told how many there are."""


@dataclass(frozen=True, slots=True)
class Place:
    """One method of one path of the API document."""

    method: str
    path: str
    operation: dict[str, Any]

    def url(self, **parts: str) -> str:
        return re.sub(r"{(\w+)}", lambda found: parts.get(found[1], "x"), self.path)


def places(field: Field) -> list[Place]:
    """Return every operation that the service says it has."""
    document = field.gnomon.http.get("/docs/openapi.json").json()
    return [
        Place(method.upper(), path, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if method.upper() in METHODS
    ]


@attack("B16", "a route without a guard", at_least=Size(200, 200))
def unguarded_routes(field: Field, score: Score) -> None:
    """Call every path with every method and no token, or a bad one."""
    found = places(field)
    paths = sorted({place.path for place in found} | {path for _, path in OPEN})
    declared = {(place.method, place.path) for place in found} | OPEN
    with httpx.Client(base_url=field.gnomon.api_url, timeout=10) as nobody:
        for path in paths:
            url = Place("", path, {}).url()
            for method in METHODS:
                for bearer in BAD_BEARERS if (method, path) in declared else ("",):
                    fields = {"Authorization": bearer} if bearer else {}
                    answer = nobody.request(
                        method, url, headers=fields, content=b"{}" if method != "GET" else None
                    )
                    opened = answer.status_code < 400 or answer.status_code >= 500
                    score.attempt(
                        f"{method} {path} with {bearer!r}: {answer.status_code}",
                        succeeded=opened and (method, path) not in OPEN,
                    )
    reads = [place for place in found if place.method == "GET" and "{" not in place.path]
    works = all(_ends(field, place) for place in reads)
    score.honest("with a good token they answer", works=works and bool(reads))
    score.measure(paths=len(paths), operations=len(found), open=len(OPEN))


def _ends(field: Field, place: Place) -> bool:
    """Tell whether it lets us in; what it asks for beside that is another matter."""
    return field.gnomon.http.get(place.path).status_code not in {401, 404, 405}


@attack("B17", "mass assignment, and answers that tell too much", at_least=Size(100, 100))
def mass_assignment(field: Field, score: Score) -> None:
    """Add a field that nobody may set to every body; and look for fields that nobody may see."""
    assigned = walk.in_a_process(field.holes).assigned
    score.attempts(f"taken: {assigned.taken[:3]}", assigned.tried, len(assigned.taken))
    score.honest(
        f"the same bodies without it are understood: {assigned.misunderstood}",
        works=assigned.bodies > 0 and not assigned.misunderstood,
    )
    _over_exposure(field, score)
    score.measure(bodies=assigned.bodies, fields=len(walk.INTRUDING))


def _over_exposure(field: Field, score: Score) -> None:
    """Read everything there is to read, and look for members that the API document does not name."""
    thing, gateway = field.gnomon.new(), field.gnomon.new("gateway")
    field.gnomon.attach(gateway, thing)
    for place in places(field):
        if place.method != "GET" or place.path.endswith("/live") or "{version}" in place.path:
            continue
        answer = field.gnomon.http.get(place.url(thing=thing, gateway=gateway, shadow="@classic"))
        if (
            answer.headers.get("content-type", "").startswith("application/json")
            and place.path != "/docs/openapi.json"
        ):
            told = sorted(
                {name for name in _members(answer.json()) if SECRET_WORDS.search(name)}
                - SHOWN.get(place.path, frozenset())
            )
            score.attempt(f"{place.path} tells {told}", succeeded=bool(told))


def _members(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _members(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _members(inner)


KEYS: Final = (
    "$ne", "$gt", "$where", "$regex", "$or", "$set", "$unset", "a.b", "a.$.b", ".", "..", "$", "a$b", "_id",
    "*", "__proto__", "constructor", "' OR 1=1 --", '"; DROP TABLE documents; --', "%00", "\u0000", "\ud800",
    "${7*7}", "{{7*7}}", "`id`", "$(id)", "../../etc/passwd", "\u202e", "a" * 600,
)  # fmt: skip


@attack("B30", "operators of a store in keys, names and queries", at_least=Size(100, 100))
def operator_injection(field: Field, score: Score) -> None:
    """Each must be taken literally or be refused; none may reach another document or fail inside."""
    gnomon = field.gnomon
    thing, other = field.things(2)
    gnomon.desire(other, {"keep": 1})
    before = field.version(other)
    for key in KEYS:
        for state in ({"desired": {key: 1}}, {"desired": {"x": {key: {"$gt": ""}}}}):
            _write(field, score, thing, key, state)
        _ask(field, score, key)
    score.attempt("another document changed", succeeded=field.version(other) != before)
    gnomon.desire(thing, {"plain": 1})
    score.honest("a plain key is kept", works=gnomon.shadow(thing)["state"]["desired"].get("plain") == 1)
    score.measure(keys=len(KEYS))


def _write(field: Field, score: Score, thing: str, key: str, state: dict[str, Any]) -> None:
    answer = field.gnomon.http.patch(
        f"/v1/things/{thing}/shadows/@classic",
        content=_encoded(state),
        headers={"Content-Type": "application/merge-patch+json"},
    )
    if answer.status_code == 400:
        score.attempt("", succeeded=False)
        return
    kept = field.gnomon.shadow(thing)["state"]["desired"]
    inner = next(iter(state["desired"].values()))
    literal = kept.get(key) == 1 if inner == 1 else kept.get("x", {}).get(key) == {"$gt": ""}
    score.attempt(f"{key!r}: {answer.status_code}, kept {str(kept)[:80]}", succeeded=not literal)


def _encoded(state: dict[str, Any]) -> bytes:
    return json.dumps(state).encode()  # it writes lone surrogates, as an attacker would


def _ask(field: Field, score: Score, key: str) -> None:
    gnomon = field.gnomon
    quoted = "".join(f"%{byte:02x}" for byte in key.encode(errors="surrogatepass"))
    for url in (
        f"/v1/things/{quoted}",
        f"/v1/things?premises={quoted}",
        f"/v1/things?premises[$ne]={quoted}",
        f"/v1/things?cursor={quoted}",
        f"/v1/things/x/shadows/{quoted}",
        f"/v1/audit?cursor={quoted}",
    ):
        answer = gnomon.http.get(url)
        found = answer.status_code == 200 and bool(answer.json().get("items"))
        score.attempt(f"GET {url}: {answer.status_code}", succeeded=answer.status_code >= 500 or found)
