"""The walk over every role and route, in a process of its own so that a hole can be planted for it alone.

``python -m tests.attack.walk [--hole=NAME …]`` prints what :func:`tests.api.matrix.walk` found.
"""

import asyncio
import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec.structs import fields

from api.app import all_routes
from api.operations import Route
from security.policy import Role, may_at_all
from tests.api.matrix import BAD_REQUEST, ROLES, Walk, walk
from tests.api.rig import HALL, Rig, api, client
from tests.attack import holes
from tests.system.child import ROOT

HOLE: Final = "--hole="
CALLERS: Final = (Role.CUSTOMER, Role.OPERATOR, Role.SECURITY, *ROLES)
"""Who is asked first whether they may call a route."""
INTRUDING: Final[Mapping[str, Any]] = {
    "role": "security",
    "roles": ["security"],
    "owner": "me",
    "version": 99,
    "serial": "00",
    "revoked_at": None,
    "account": "me",
    "is_admin": True,
    "__proto__": {"role": "security"},
    "_id": "x",
}
"""Members that would give somebody something, if they were taken."""
UNREAD: Final = frozenset({403})
"""Answers to who may not do that to this target: nobody has looked at the body."""
ABSENT: Final = 404
SESSION: Final = "{session:str}"
"""There is none in this walk, so nobody looks at the body: then its type has to be closed."""
PATIENCE_S: Final = 120


class Assigned(msgspec.Struct, frozen=True):
    """What became of bodies with a member more than they may have."""

    bodies: int
    tried: int
    taken: list[str]
    misunderstood: list[str]
    """Bodies that are refused without it, too: with those nothing is proved."""


class Walked(msgspec.Struct, frozen=True):
    """How many calls were made, and which did not go as the table says."""

    tried: int
    found: list[str]
    own: int
    """What a customer hears who reads a thing of theirs: without it nothing is proved."""
    assigned: Assigned

    @property
    def told_apart(self) -> list[str]:
        """Findings that let somebody tell what is foreign from what is absent."""
        return [one for one in self.found if "cost" in one or "or otherwise" in one or "looked it up" in one]


@functools.cache
def in_a_process(planted: tuple[str, ...]) -> Walked:
    """Walk in a child with these holes; what several attacks look at is walked once."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.attack.walk", *(f"{HOLE}{name}" for name in planted)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert not done.returncode, done.stderr.decode()[-1_000:]
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Walked)


async def _walked(directory: Path) -> Walked:
    async with api(directory, url="memory:", compat_http=True) as rig:
        own = (await rig.by[Role.CUSTOMER].get(f"/v1/things/{HALL}")).status_code
        tried, found = await walk(rig)
    async with api(directory / "assigned", url="memory:", compat_http=True) as rig:
        assigned = await _assign(rig)
    return Walked(tried, found, own, assigned)


async def _assign(rig: Rig) -> Assigned:
    """Send every body with each member that nobody may set, as somebody who may call the route."""
    tried, bodies = 0, 0
    taken, misunderstood = list[str](), list[str]()
    async with client(rig.app, {}) as http:
        walking = _Assigning(rig, http)
        for route in all_routes(rig.services):
            if route.operation.aws or not _takes_a_struct(route):
                continue
            bodies += 1
            role, status = await _caller(walking, route)
            if status == BAD_REQUEST or status in UNREAD:
                misunderstood.append(f"{role} {route.method} {route.path}: {status}")
            struct = _struct_of(route)
            for name in sorted(INTRUDING.keys() - {field.encode_name for field in fields(struct)}):
                tried += 1
                refused = await walking.status(role, route, {name: INTRUDING[name]})
                if refused == BAD_REQUEST or (
                    refused == ABSENT and SESSION in route.path and _is_closed(struct)
                ):
                    continue
                taken.append(f"{role} {route.method} {route.path} with {name}: {refused}")
    return Assigned(bodies, tried, taken, misunderstood)


async def _caller(walking: "_Assigning", route: Route) -> tuple[Role, int]:
    """Return somebody whose body is read there, and what they hear for one with nothing added."""
    able = [role for role in CALLERS if may_at_all(role, route.operation.action)] or [Role.CUSTOMER]
    heard = [(role, await walking.status(role, route, {})) for role in able]
    return next((one for one in heard if one[1] not in UNREAD), heard[0])


class _Assigning(Walk):
    """Calls a route about what is the caller's own, with members added to the body."""

    async def status(self, role: Role, route: Route, more: Mapping[str, Any]) -> int:
        content = route.operation.bodies[0]
        example = {**content.example, **more}
        changed = replace(content, example=example)
        operation = replace(route.operation, bodies=(changed, *route.operation.bodies[1:]))
        cell = await self._cell("own", route)
        return (await self._call(role, replace(route, operation=operation), cell)).status


def _is_closed(struct: type) -> bool:
    return bool(getattr(struct, "__struct_config__").forbid_unknown_fields)  # noqa: B009 - a type without it has no bodies


def _takes_a_struct(route: Route) -> bool:
    bodies = route.operation.bodies
    return bool(bodies) and isinstance(bodies[0].schema, type) and isinstance(bodies[0].example, dict)


def _struct_of(route: Route) -> type:
    schema = route.operation.bodies[0].schema
    assert isinstance(schema, type)
    return schema


if __name__ == "__main__":
    for word in sys.argv[1:]:
        holes.plant(word.removeprefix(HOLE))
    with tempfile.TemporaryDirectory(prefix="gnomon-walk-") as name:
        print(msgspec.json.encode(asyncio.run(_walked(Path(name)))).decode())
