"""The firmware reports: which meters, gateways and devices need an upgrade, told to operators alone."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ota import needs_report
from registry.gateways import Gateway, GatewayKind
from registry.models import NewThing, Owner, ThingKind
from security.policy import Role
from tests import ota_base as base
from tests.api.released import release
from tests.api.rig import HOME, OPERATOR, Rig, api, slug
from tests.covers import covers
from tests.fakes import FakeClock
from tests.release_rig import MANIFEST, MODEL, OTHER

OLD = {"sha256": "0123" * 16, "version": "2.3.0.0", "counter": 2}
NEW = {"sha256": MANIFEST.sha256, "version": "2.4.0.0", "counter": 3}
REPORT = "/v1/ota/firmware-report"
METER, HUB, SWITCH = "m:1", "hub:1", "switch:1"


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with api(tmp_path, clock=FakeClock(base.NOW_S * 1_000)) as rig:
        yield rig


async def add(
    rig: Rig, name: str, fw: Any = OLD, *, kind: ThingKind = ThingKind.DEVICE, owner: Owner = Owner.UTILITY
) -> None:
    """Register a thing by hand, as the utility does with its own, and let it say what it runs."""
    await rig.services.registry.register(NewThing(name, kind, MODEL.id, HOME, owner=owner), OPERATOR)
    await rig.report(name, {"fw": fw, "hw": MANIFEST.hw[0], "schema": 5}, "firmware")


@pytest.fixture
async def id(rig: Rig) -> str:
    """A release, and a home with a meter, a hub, a switch that has it, and a customer's own device."""
    await add(rig, METER, kind=ThingKind.GATEWAY)
    await rig.services.gateways.put(Gateway(id=METER, kind=GatewayKind.METER, premises=HOME), OPERATOR)
    await add(rig, HUB, kind=ThingKind.GATEWAY)
    await add(rig, SWITCH, NEW)
    await add(rig, "theirs", owner=Owner.CUSTOMER)
    return await release(rig)


@covers("I3FR7")
async def test_who_needs_it_is_told_with_what_each_runs_and_of_strangers_only_their_number(rig: Rig, id: str):
    answer = await rig.by[Role.OPERATOR].get(f"/v1/ota/releases/{id}/needs")
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert (said["needed"], said["not_enrolled"]) == (2, 1)
    assert said["reasons"] == {"ALREADY_CURRENT": 1}
    assert said["versions"] == {"2.3.0.0": 2}
    assert said["classes"] == {MANIFEST.hw[0]: 2}
    assert [(one["thing"], one["kind"], one["reason"]) for one in said["items"]] == [
        (HUB, "gateway", "NEEDED"),
        (METER, "meter", "NEEDED"),
        (SWITCH, "device", "ALREADY_CURRENT"),
    ]
    assert "theirs" not in answer.text


@covers("I3FR7")
async def test_the_report_says_which_meters_gateways_and_devices_need_an_upgrade(rig: Rig, id: str):
    said = (await rig.by[Role.OPERATOR].get(REPORT)).json()
    assert (said["needed"], said["not_enrolled"]) == (2, 1)
    assert said["items"] == [
        {"model": MODEL.id, "kind": "device", "version": "2.4.0.0", "counter": 3, "devices": 1},
        {
            "model": MODEL.id,
            "kind": "gateway",
            "version": "2.3.0.0",
            "counter": 2,
            "needs": id,
            "devices": 1,
        },
        {"model": MODEL.id, "kind": "meter", "version": "2.3.0.0", "counter": 2, "needs": id, "devices": 1},
    ]
    one = await rig.by[Role.OPERATOR].get(REPORT, params={"model": MODEL.id})
    assert one.json() == said
    await rig.services.models.put(replace(MODEL, id="acme-t2", model="T2"), OTHER)
    other = await rig.by[Role.OPERATOR].get(REPORT, params={"model": "acme-t2"})
    assert other.json()["items"] == []
    none = await rig.by[Role.OPERATOR].get(REPORT, params={"model": "acme-x"})
    assert (none.status_code, slug(none)) == (404, "device-model-not-found")


async def test_devices_come_by_pages_and_by_reason(rig: Rig, id: str):
    http, path = rig.by[Role.OPERATOR], f"/v1/ota/releases/{id}/needs"
    first = (await http.get(path, params={"limit": 2})).json()
    second = (await http.get(path, params={"limit": 2, "cursor": first["next"]})).json()
    assert [one["thing"] for one in (*first["items"], *second["items"])] == [HUB, METER, SWITCH]
    assert "next" not in second
    needed = (await http.get(path, params={"reason": "NEEDED", "limit": 1})).json()
    rest = (await http.get(path, params={"reason": "NEEDED", "cursor": needed["next"]})).json()
    assert [one["thing"] for one in (*needed["items"], *rest["items"])] == [HUB, METER]
    current = (await http.get(path, params={"reason": "ALREADY_CURRENT"})).json()
    assert [one["thing"] for one in current["items"]] == [SWITCH]
    assert current["needed"] == 2, "counted are all"


async def test_pages_are_of_one_moment_for_a_minute(rig: Rig, id: str):
    http, path = rig.by[Role.OPERATOR], f"/v1/ota/releases/{id}/needs"
    first = (await http.get(path, params={"limit": 1})).json()
    await add(rig, "later:1")
    second = (await http.get(path, params={"cursor": first["next"]})).json()
    assert (second["at"], second["needed"]) == (first["at"], 2)
    assert (await http.get(path)).json()["needed"] == 3
    rig.clock.advance(needs_report.KEPT_S)
    third = (await http.get(path, params={"cursor": first["next"]})).json()
    assert third["needed"] == 3
    assert [one["thing"] for one in third["items"]] == ["later:1", METER, SWITCH]


async def test_a_cursor_of_another_search_and_an_unknown_reason_are_refused(rig: Rig, id: str):
    http, path = rig.by[Role.OPERATOR], f"/v1/ota/releases/{id}/needs"
    cursor = (await http.get(path, params={"limit": 1})).json()["next"]
    foreign = await http.get(REPORT, params={"cursor": cursor})
    assert (foreign.status_code, slug(foreign)) == (400, "invalid-cursor")
    other = await http.get(path, params={"cursor": cursor, "reason": "NEEDED"})
    assert slug(other) == "invalid-cursor"
    assert (await http.get(path, params={"reason": "NOT_ENROLLED"})).status_code == 400
    missing = await http.get("/v1/ota/releases/nothing/needs")
    assert slug(missing) == "release-not-found"


async def test_what_is_revoked_is_in_no_line_and_what_is_suspended_says_so(rig: Rig, id: str):
    await rig.services.registry.revoke(HUB, OPERATOR)
    await rig.services.registry.suspend(METER, OPERATOR)
    items = (await rig.by[Role.OPERATOR].get(REPORT)).json()["items"]
    assert {one["kind"]: one.get("reason") for one in items} == {"device": None, "meter": "SUSPENDED"}
    needs = (await rig.by[Role.OPERATOR].get(f"/v1/ota/releases/{id}/needs")).json()
    assert needs["reasons"] == {"ALREADY_CURRENT": 1, "RETIRED": 1, "SUSPENDED": 1}


@pytest.mark.parametrize("role", [Role.VENDOR, Role.CUSTOMER, Role.REP, Role.AUDITOR])
async def test_nobody_else_is_told(rig: Rig, id: str, role: Role):
    for path in (REPORT, f"/v1/ota/releases/{id}/needs"):
        assert (await rig.by[role].get(path)).status_code == 403


@covers("I3FR7")
async def test_a_device_shows_what_is_released_for_it(rig: Rig, id: str):
    for thing, reason in ((METER, None), (SWITCH, "ALREADY_CURRENT")):
        (one,) = (await rig.by[Role.OPERATOR].get(f"/v1/things/{thing}/firmware")).json()["needs"]
        assert (one["release"], one["version"], one["counter"], one.get("reason")) == (
            id,
            "2.4.0.0",
            3,
            reason,
        )
    (own,) = (await rig.by[Role.CUSTOMER].get("/v1/things/theirs/firmware")).json()["needs"]
    assert own["reason"] == "NOT_ENROLLED"
