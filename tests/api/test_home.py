"""Devices over HTTP: who sees which, and what becomes of them."""

import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from registry.states import DeviceTrigger
from security.policy import Action, Principal, Role
from tests.api.homes import FOREIGN, OTHER_HOME, SENSOR, SWITCH, furnish
from tests.api.rig import ACCOUNT, HALL, HOME, OPERATOR, Rig, api, client, slug
from tests.covers import covers

STAFF = [Role.REP, Role.INSTALLER]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with api(tmp_path) as rig:
        await furnish(rig)
        yield rig


async def _at(rig: Rig, role: Role, home: str = HOME) -> list[str]:
    answer = await rig.by[role].get(f"/v1/devices?premises={home}")
    assert answer.status_code == 200
    return [item["id"] for item in answer.json()["items"]]


def _without_id(answer: Any) -> dict[str, Any]:
    return {name: value for name, value in answer.json().items() if name != "requestId"}


@covers("A13")
@pytest.mark.parametrize("role", [Role.CUSTOMER, Role.REP, Role.INSTALLER, Role.OPERATOR])
async def test_a_device_of_others_is_answered_as_one_that_is_not_there(rig: Rig, role: Role):
    for path in ("",):
        foreign = await rig.by[role].get(f"/v1/devices/{FOREIGN}{path}")
        absent = await rig.by[role].get(f"/v1/devices/nobody{path}")
        assert (foreign.status_code, slug(foreign)) == (404, "device-not-found")
        assert _without_id(foreign) == _without_id(absent)
    assert await _at(rig, role, OTHER_HOME) == await _at(rig, role, "nowhere") == []


@covers("A3", "S1.4e")
async def test_each_sees_of_a_home_what_is_theirs_to_see(rig: Rig):
    assert await _at(rig, Role.CUSTOMER) == [SENSOR, HALL, SWITCH]
    for role in STAFF:
        assert await _at(rig, role) == [HALL, SWITCH], "what is not registered is nobody's business"
        assert (await rig.by[role].get(f"/v1/devices/{SENSOR}")).status_code == 404
    assert await _at(rig, Role.OPERATOR) == [SWITCH], "the utility's own, while nothing else takes part"
    await rig.services.registry.set_taking_part(HALL, True, OPERATOR)
    assert await _at(rig, Role.OPERATOR) == [HALL, SWITCH]
    for role in (Role.SECURITY, Role.AUDITOR, Role.CCS):
        assert (await rig.by[role].get(f"/v1/devices?premises={HOME}")).status_code == 403


@covers("S1.4e")
async def test_no_page_says_by_where_it_ends_what_else_there_is(rig: Rig):
    await rig.services.registry.set_taking_part(HALL, True, OPERATOR)
    for role in (Role.OPERATOR, *STAFF):
        seen, query = list[str](), f"premises={HOME}&limit=1"
        page = (await rig.by[role].get(f"/v1/devices?{query}")).json()
        while "next" in page:
            assert SENSOR.encode() not in base64.urlsafe_b64decode(page["next"] + "==")
            seen += [one["id"] for one in page["items"]]
            page = (await rig.by[role].get(f"/v1/devices?{query}&cursor={page['next']}")).json()
        seen += [one["id"] for one in page["items"]]
        assert seen == [HALL, SWITCH]


@covers("3.2/8", "O12")
async def test_a_device_shows_its_name_its_model_and_what_it_can_do_also_when_nobody_tried_it_out(rig: Rig):
    shown = (await rig.http.get(f"/v1/devices/{HALL}")).json()
    assert shown == {
        "id": HALL,
        "model": "acme-pct-2",
        "owner": "customer",
        "premises": HOME,
        "lifecycle": "REGISTERED",
        "since": "2026-09-21T14:13:20.000Z",
        "model_name": shown["model_name"],
        "capabilities": shown["capabilities"],
        "categories": [0],
        "validated": True,
        "fw": "1.4.0",
        "name": "Thermostat",
        "location": "hall",
        "eui64": "00124B0014B5D2A1",
        "account": ACCOUNT,
    }
    assert "price" in shown["capabilities"]
    sensor = (await rig.http.get(f"/v1/devices/{SENSOR}")).json()
    assert (sensor["model"], sensor["lifecycle"]) == ("door sensor", "COMMISSIONED")
    assert "validated" not in sensor


@covers("A2")
async def test_of_names_rooms_and_accounts_each_learns_no_more_than_they_need(rig: Rig):
    await rig.services.registry.set_taking_part(HALL, True, OPERATOR)
    by = {role: (await rig.by[role].get(f"/v1/devices/{HALL}")).json() for role in (*STAFF, Role.OPERATOR)}
    assert (by[Role.REP]["name"], by[Role.REP]["account"]) == ("Thermostat", ACCOUNT)
    assert by[Role.INSTALLER]["location"] == "hall"
    assert "account" not in by[Role.INSTALLER]
    private = {"name", "location", "account", "eui64", "serial", "lfdi"}
    assert by[Role.OPERATOR].keys().isdisjoint(private)


@covers("A13")
async def test_a_customer_lists_what_takes_part_by_their_account_page_by_page(rig: Rig):
    first = (await rig.http.get("/v1/me/devices?limit=1")).json()
    second = (await rig.http.get(f"/v1/me/devices?cursor={first['next']}")).json()
    assert [item["id"] for page in (first, second) for item in page["items"]] == [HALL, SWITCH]
    assert "next" not in second
    assert (await rig.http.get("/v1/me/devices?limit=101")).status_code == 400
    assert (await rig.by[Role.REP].get("/v1/me/devices")).status_code == 403


async def test_a_list_says_where(rig: Rig):
    assert slug(await rig.http.get("/v1/devices")) == "invalid-request"


async def test_a_customer_names_a_device_and_its_room(rig: Rig):
    path = f"/v1/devices/{HALL}/label"
    named = await rig.http.put(path, json={"name": "Warm", "location": "attic"})
    assert (named.json()["name"], named.json()["location"]) == ("Warm", "attic")
    long = await rig.http.put(path, json={"name": "x" * 129, "location": ""})
    assert (long.status_code, (await rig.http.get(f"/v1/devices/{HALL}")).json()["name"]) == (400, "Warm")
    assert (await rig.by[Role.OPERATOR].put(path, json={"name": "", "location": ""})).status_code == 403
    foreign = await rig.http.put(f"/v1/devices/{FOREIGN}/label", json={"name": "mine", "location": ""})
    assert foreign.status_code == 404
    assert (await rig.services.devices.device(FOREIGN)).name == ""


async def test_a_held_device_loses_its_access_at_once_and_staff_lift_what_staff_have_held(rig: Rig):
    path = f"/v1/devices/{HALL}"
    held = await rig.by[Role.SECURITY].post(f"{path}/suspend", json={"reason": "odd traffic"})
    assert (held.status_code, held.content) == (204, b""), "who may not read it hears nothing of it"
    assert (await rig.http.get(path)).json()["lifecycle"] == "SUSPENDED"
    assert "suspended_at" in (await rig.http.get(f"/v1/things/{HALL}")).json()
    assert (await rig.http.post(f"{path}/lift", json={})).status_code == 403
    body = b'{"reason":"explained"}'
    lifted = await rig.confirmed(
        Role.SECURITY, Action.THING_RESUME, "POST", f"{path}/lift", body, Content_Type="application/json"
    )
    assert lifted.status_code == 204
    assert (await rig.http.get(path)).json()["lifecycle"] == "REGISTERED"


async def test_a_customer_holds_and_lifts_their_own_and_nothing_of_the_utilitys(rig: Rig):
    path = f"/v1/devices/{HALL}"
    for act, state in (("suspend", "SUSPENDED"), ("suspend", "SUSPENDED"), ("lift", "REGISTERED")):
        assert (await rig.http.post(f"{path}/{act}", json={})).json()["lifecycle"] == state
    for act in ("suspend", "lift", "retire"):
        assert (await rig.http.post(f"/v1/devices/{SWITCH}/{act}", json={})).status_code == 403
    assert (await rig.services.devices.device(SWITCH)).lifecycle == "REGISTERED"


async def test_what_does_not_follow_is_a_conflict_and_changes_nothing(rig: Rig):
    before = await rig.services.devices.device(SENSOR)
    answer = await rig.http.post(f"/v1/devices/{SENSOR}/suspend", json={})
    assert (answer.status_code, slug(answer)) == (409, "illegal-transition")
    assert await rig.services.devices.device(SENSOR) == before


@covers("O17")
async def test_a_lost_device_is_retired_for_good(rig: Rig):
    path = f"/v1/devices/{HALL}"
    for _ in range(2):
        gone = await rig.http.post(f"{path}/retire", json={"reason": "lost"})
        assert (gone.status_code, gone.json()["lifecycle"]) == (200, "RETIRED")
        assert "name" not in gone.json()
    assert "revoked_at" in (await rig.http.get(f"/v1/things/{HALL}")).json()
    assert slug(await rig.http.post(f"{path}/lift", json={})) == "illegal-transition"


@covers("O17")
async def test_who_moves_in_sees_nothing_of_what_moved_out(rig: Rig):
    await rig.services.registry.hand_over(HOME, "account-9", OPERATOR)
    assert await _at(rig, Role.CUSTOMER) == []
    assert (await rig.http.get(f"/v1/devices/{HALL}")).status_code == 404
    rig.tokens.holders["nora"] = Principal("nora", Role.CUSTOMER, "account-9")
    async with client(rig.app, {"Authorization": "Bearer nora"}) as nora:
        found = (await nora.get(f"/v1/devices?premises={HOME}")).json()["items"]
        assert [item["id"] for item in found] == [SWITCH], "the utility's stays at the premises"
        assert (await nora.get(f"/v1/devices/{HALL}")).status_code == 404


async def test_what_a_session_has_not_proved_yet_is_not_shown_to_staff_outside_of_it(rig: Rig):
    device = await rig.services.devices.device(SENSOR)
    await rig.services.devices.apply(
        SENSOR, DeviceTrigger.SEEN, OPERATOR, change=lambda one: replace(one, fw="2")
    )
    assert SENSOR not in await _at(rig, Role.REP)
    assert device.id in await _at(rig, Role.CUSTOMER)
