"""The walk over every role and route finds nothing, and would find something."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from litestar.types import Scope

from api.gate import Gate, OutOfReachError
from api.problems import FORBIDDEN, ApiError
from registry.listing import Listing
from security.policy import Target
from tests.api.matrix import walk
from tests.api.rig import api

CALLS_MIN = 1_000
Admit = Callable[[Gate, Scope], Awaitable[None]]


async def test_every_role_gets_at_every_route_what_the_table_says(tmp_path: Path):
    async with api(tmp_path, url="memory:", compat_http=True) as rig:
        tried, found = await walk(rig)
    assert found == []
    assert tried >= CALLS_MIN


def _with(after: Callable[[Gate, Scope, Target, OutOfReachError], Awaitable[None]], honest: Admit) -> Admit:
    """Return a gate that does something else about a thing that is there and not the caller's."""

    async def admit(self: Gate, scope: Scope) -> None:
        try:
            await honest(self, scope)
        except OutOfReachError as error:
            name = scope["path_params"].get("thing")
            known = [] if name is None else [*(await self._registry.targets([name])).values()]
            if not known:
                raise
            await after(self, scope, known[0], error)

    return admit


async def _no_owner_check(_: Gate, scope: Scope, target: Target, __: OutOfReachError) -> None:
    scope["state"]["target"] = target


async def _403_for_404(_: Gate, __: Scope, ___: Target, error: OutOfReachError) -> None:
    raise ApiError(FORBIDDEN) from error


async def _one_look_up_more(gate: Gate, _: Scope, target: Target, error: OutOfReachError) -> None:
    await gate._registry.place(target.premises)
    raise error


@pytest.mark.parametrize("hole", [_no_owner_check, _403_for_404, _one_look_up_more])
async def test_a_hole_in_the_gate_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hole):
    """A suite that finds nothing proves something only when it can."""
    monkeypatch.setattr(Gate, "admit", _with(hole, Gate.admit))
    async with api(tmp_path, url="memory:") as rig:
        _, found = await walk(rig)
    assert found


async def test_a_list_that_says_too_much_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async def everything(self: Listing, *_: object, limit: int, cursor: str | None, **__: object) -> object:
        page = await self._store.things_by(None, None, limit, cursor)
        return type(
            "Page", (), {"things": [one.record.thing for one in page.kept if one.record], "next": None}
        )

    monkeypatch.setattr(Listing, "page", everything)
    async with api(tmp_path, url="memory:") as rig:
        _, found = await walk(rig)
    assert any("lists what is somebody else's" in one for one in found)


async def test_looking_up_before_refusing_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("api.guards.may_at_all", lambda *_: True)
    async with api(tmp_path, url="memory:") as rig:
        _, found = await walk(rig)
    assert any("refused after looking it up" in one or "expected [403]" in one for one in found)
