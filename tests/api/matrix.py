"""Every role calls every route for what is theirs, somebody else's, nobody's, and what cannot be.

The table of permissions says what should come back, and the walk compares: the status; that somebody else's
and nobody's are one answer for one amount of work; and that nothing changed where nothing was to change.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Final

import httpx
import msgspec

from api.app import all_routes
from api.gate import DEVICE, INSIDE, PREMISES, THINGS
from api.operations import Route
from provisioning.verifications import VERIFICATIONS
from provisioning.work_orders import WORK_ORDERS
from registry.lifecycle import Device
from registry.models import NewThing, Owner, ThingKind
from registry.states import DeviceTrigger
from security.policy import (
    Access,
    Action,
    Principal,
    Role,
    Target,
    may,
    may_access,
    may_at_all,
    needs_step_up,
)
from tests.api.rig import ACCOUNT, OPERATOR, Rig, client, principal_of

OTHER_ACCOUNT: Final = "account-8"
OWN: Final = "own-"
ELSEWHERE: Final = "elsewhere-"
"""Begin the ids of premises: one's own, and those of others."""
TOKEN: Final = "walker"
ROLES: Final = tuple(role for role in Role if role not in {Role.RELAY, Role.SYSTEM})
"""A relay's token is a gateway's, and our own workflows have none."""
STORED: Final = ("get", "find", "find_in", "read", "scan", "commit", "append")
NAMED: Final = frozenset({*THINGS, DEVICE, PREMISES})
"""Parts of a path that name what is somebody's."""
STANDING: Final = frozenset({VERIFICATIONS.name, WORK_ORDERS.name})
"""Read to learn how the caller stands, before anything is looked up for them."""
PLACES: Final = {"model": "acme-pct-2", "shadow": "@classic", "version": "1"}
OK, BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, BROKEN = 200, 400, 401, 403, 404, 500


@dataclass(frozen=True, slots=True)
class Cell:
    """What one call is about: a thing with its gateway and premises, or something without either."""

    relation: str
    thing: str
    gateway: str
    premises: str
    target: Target | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of one call."""

    status: int
    body: Any
    work: tuple[tuple[str, str], ...]
    """Calls of the store, in order."""

    @property
    def is_barred(self) -> bool:
        """Whether the table said no; that a verification is missing is another thing."""
        return self.status == UNAUTHORIZED or (self.status == FORBIDDEN and "#forbidden" in str(self.body))


@dataclass
class Walk:
    """One walk over the whole table; ``found`` holds what was not as the table says."""

    rig: Rig
    http: httpx.AsyncClient
    tried: int = 0
    found: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _work: list[tuple[str, str]] = field(default_factory=list)

    async def everything(self) -> None:
        for route in all_routes(self.rig.services):
            if route.operation.action is not Action.OPEN:
                for role in ROLES:
                    await self._route(role, route)

    async def _route(self, role: Role, route: Route) -> None:
        parts = set(_parts(route))
        if parts - {*NAMED, *INSIDE}:
            await self._elsewhere(role, route)
            return
        none = await self._call(role, route, await self._cell("none", route))
        other_cell = await self._cell("other", route)
        before = await self._kept(other_cell)
        other = await self._call(role, route, other_cell)
        self._judge_other(role, route, none, other, other_cell.target)
        if self._is_refused(role, route, other_cell.target) and await self._kept(other_cell) != before:
            self._note(role, route, "other", "changed what is somebody else's")
        if parts & NAMED:
            self._judge_odd(role, route, await self._call(role, route, _odd()))
        if not route.operation.stream:
            cell = await self._cell("own", route)
            self._judge_own(role, route, await self._call(role, route, cell), cell.target)

    async def _elsewhere(self, role: Role, route: Route) -> None:
        """Call a route whose handler looks its object up itself: the role alone is judged here."""
        seen = await self._call(role, route, _odd("x"))
        if not may_at_all(role, route.operation.action):
            self._expect(role, route, "none", seen, {FORBIDDEN})
        elif seen.status >= BROKEN:
            self._note(role, route, "none", f"answered {seen.status}")

    # What should come back

    def _judge_other(self, role: Role, route: Route, none: Seen, other: Seen, target: Target | None) -> None:
        action = route.operation.action
        if not may_at_all(role, action):
            for relation, seen in (("none", none), ("other", other)):
                self._expect(role, route, relation, seen, {FORBIDDEN})
                if seen.work:
                    self._note(role, route, relation, f"refused after looking it up: {seen.work}")
        elif self._is_refused(role, route, target) and not _may_read(role, target, route):
            if (other.status, other.body) != (none.status, none.body):
                self._note(
                    role, route, "other", f"answered {other.status} and not {none.status}, or otherwise"
                )
            if other.work != none.work:
                self._note(role, route, "other", f"cost {other.work} and not {none.work}")
        elif self._is_refused(role, route, target):
            self._expect(role, route, "other", other, {FORBIDDEN})
        elif not _named(route) and action is Action.THING_READ and not _may_read(role, target, route):
            if any(word in str(other.body) for word in ("THING", "PREMISES", ELSEWHERE)):
                self._note(role, route, "other", "lists what is somebody else's")
        elif other.is_barred and self._may_touch(role, route):
            self._note(role, route, "other", f"refused with {other.status}, though the table allows it")

    def _judge_own(self, role: Role, route: Route, own: Seen, target: Target | None) -> None:
        if self._is_refused(role, route, target):
            self._expect(role, route, "own", own, {FORBIDDEN, NOT_FOUND} if _named(route) else {FORBIDDEN})
        elif own.is_barred and self._may_touch(role, route):
            self._note(role, route, "own", f"refused with {own.status}, though the table allows it")
        elif own.status >= BROKEN:
            self._note(role, route, "own", f"answered {own.status}")

    def _judge_odd(self, role: Role, route: Route, odd: Seen) -> None:
        expected = {BAD_REQUEST} if may_at_all(role, route.operation.action) else {FORBIDDEN}
        self._expect(role, route, "unknown", odd, expected)
        if odd.work:
            self._note(role, route, "unknown", f"looked it up: {odd.work}")

    def _is_refused(self, role: Role, route: Route, target: Target | None) -> bool:
        action = route.operation.action
        if not _named(route):
            return not may_at_all(role, action)
        return target is None or not may(_principal(role, target), action, target)

    def _may_touch(self, role: Role, route: Route) -> bool:
        """Tell whether the table of shadows allows it as well; it is asked behind the guard."""
        access = {
            Action.SHADOW_DESIRE: Access.DESIRE,
            Action.SHADOW_DELETE: Access.DELETE,
            Action.SHADOW_READ: Access.READ,
        }.get(route.operation.action)
        if route.operation.id == "restoreShadow" and not may_at_all(role, Action.SHADOW_HISTORY):
            return False
        return access is None or may_access(role, access, "")

    def _expect(self, role: Role, route: Route, relation: str, seen: Seen, statuses: set[int]) -> None:
        if seen.status not in statuses:
            self._note(role, route, relation, f"answered {seen.status}, expected {sorted(statuses)}")

    def _note(self, role: Role, route: Route, relation: str, what: str) -> None:
        self.found.append(f"{role} {route.method} {route.path} ({relation}): {what}")

    # Calling

    async def _call(self, role: Role, route: Route, cell: Cell) -> Seen:
        self.tried += 1
        who = _principal(role, cell.target)
        self.rig.tokens.holders[TOKEN] = who
        path, (media, body) = _path(route, cell), _body(route, cell)
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": media, "If-Match": '"1"'}
        if needs_step_up(role, route.operation.action):
            target = f"{route.method} {path}"
            headers["Gnomon-Step-Up"] = self.rig.confirmations.confirm(
                who, route.operation.action, target, body
            )
        self._work.clear()
        with self._watching():
            answer = await self.http.request(route.method, path, content=body, headers=headers)
        return Seen(answer.status_code, _told(answer, cell), tuple(self._work))

    def _watching(self) -> "_Watching":
        return _Watching(self.rig.store, self._work)

    async def _cell(self, relation: str, route: Route) -> Cell:
        """Return what nobody else uses; ``none`` is registered nowhere."""
        number = next(self._numbers)
        thing, gateway = f"t-{number}", f"g-{number}"
        if relation == "none":
            return Cell(relation, thing, gateway, f"nowhere-{number}", None)
        registry = self.rig.services.registry
        # Each in a home of its own: one holds only so many.
        home, account, owner = f"{OWN}{number}", ACCOUNT, Owner.UTILITY
        if relation == "other":
            home, account, owner = f"{ELSEWHERE}{number}", OTHER_ACCOUNT, Owner.CUSTOMER
        await registry.hand_over(home, account, OPERATOR)
        for name, kind in ((thing, ThingKind.DEVICE), (gateway, ThingKind.GATEWAY)):
            await registry.register(NewThing(name, kind, "m", home, owner=owner), OPERATOR)
        if DEVICE in _parts(route):
            await self._make_device(thing, home, account, owner)
        if relation == "own":
            await self.rig.report(thing, {"on": True})
        facts = Target(
            thing,
            frozenset(),
            account,
            home,
            enrolled=owner is Owner.UTILITY,
            bound=True,
            customers=owner is Owner.CUSTOMER,
            liftable=True,
        )
        return Cell(relation, thing, gateway, home, facts)

    async def _make_device(self, id: str, premises: str, account: str, owner: Owner) -> None:
        new = Device(id=id, owner=owner, account=account, premises=premises, premises_epoch=1)
        for trigger in (DeviceTrigger.SEEN, DeviceTrigger.PROVED, DeviceTrigger.REGISTER):
            await self.rig.services.devices.apply(id, trigger, OPERATOR, new=new)

    async def _kept(self, cell: Cell) -> Mapping[str, Any]:
        store, names = self.rig.store, [cell.thing, cell.gateway]
        pair = f"{cell.gateway}/{cell.thing}"
        return {
            "things": await store.get("things", names),
            "premises": await store.get("premises", [cell.premises]),
            "devices": await store.get("devices", [cell.thing]),
            "attachments": await store.get("attachments", [pair]),
            "shadows": await store.get("shadows", [f"{name}/" for name in names]),
            "at": [
                one.id
                for one in (
                    await store.find("things", "premises", cell.premises, cell.premises, limit=1_000)
                ).documents
            ],
        }


class _Watching:
    """Notes each call of the store for as long as the block lasts."""

    def __init__(self, store: Any, work: list[tuple[str, str]]) -> None:
        self._store = store
        self._work = work

    def __enter__(self) -> None:
        for name in STORED:
            setattr(self._store, name, self._noting(name))

    def __exit__(self, *_: object) -> None:
        for name in STORED:
            delattr(self._store, name)

    def _noting(self, name: str) -> Any:
        original = getattr(self._store, name)

        def noted(*arguments: Any, **more: Any) -> Any:
            where = arguments[0] if isinstance(arguments[0], str) else ""
            if where not in STANDING:
                self._work.append((name, where))
            return original(*arguments, **more)

        return noted


def _principal(role: Role, target: Target | None) -> Principal:
    """Return somebody for whom their own home is open; a thing is the one that is called about there."""
    own = target if target is not None and target.account == ACCOUNT else None
    if role in {Role.DEVICE, Role.GATEWAY}:
        return Principal("me" if own is None else own.thing, role)
    who = principal_of(role)
    return replace(who, reach=frozenset({own.premises})) if own and role is Role.INSTALLER else who


def _may_read(role: Role, target: Target | None, route: Route) -> bool:
    reading = Action.DEVICE_READ if DEVICE in _parts(route) else Action.THING_READ
    return target is not None and may(_principal(role, target), reading, target)


def _odd(name: str = "no%20body") -> Cell:
    return Cell("unknown", name, name, name, None)


def _parts(route: Route) -> list[str]:
    return [one.name for one in route.operation.parameters if one.place == "path"]


def _named(route: Route) -> bool:
    """Tell whether a call names what it is about, in its path or in its body."""
    return bool(set(_parts(route)) & NAMED) or route.operation.id == "registerThing"


def _path(route: Route, cell: Cell) -> str:
    parts = dict.fromkeys(("thing", DEVICE), cell.thing)
    parts |= {"gateway": cell.gateway, PREMISES: cell.premises, **PLACES}
    path = route.path
    for name in _parts(route):
        path = path.replace(f"{{{name}:str}}", parts.get(name, cell.thing))
    return path


def _body(route: Route, cell: Cell) -> tuple[str, bytes]:
    if not route.operation.bodies:
        return "application/json", b""
    content = route.operation.bodies[0]
    example = content.example
    if route.operation.id == "registerThing":
        example = {**example, "name": f"new-{cell.thing}", "premises": cell.premises}
    return content.media, msgspec.json.encode(example)


def _told(answer: httpx.Response, cell: Cell) -> Any:
    """Return the body without what must differ: the request's id, the time, and the names we chose."""
    try:
        body = answer.json()
    except ValueError:
        return answer.content
    if isinstance(body, dict):
        body = {name: value for name, value in body.items() if name not in {"requestId", "timestamp"}}
    text = msgspec.json.encode(body).decode()
    return (
        text.replace(cell.thing, "THING").replace(cell.gateway, "GATEWAY").replace(cell.premises, "PREMISES")
    )


async def walk(rig: Rig) -> tuple[int, list[str]]:
    """Return how many calls were made, and each that did not go as the table says."""
    async with client(rig.app, {}) as http:
        walking = Walk(rig, http)
        await walking.everything()
    return walking.tried, walking.found
