"""Models, gateways, meters, accounts and where premises lie, over HTTP."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from registry.models import NewThing, Owner, ThingKind
from security.policy import Action, Role
from tests.api.homes import OTHER_ACCOUNT, OTHER_HOME, furnish
from tests.api.rig import ACCOUNT, HOME, OPERATOR, Rig, api, principal_of, slug
from tests.covers import covers

PEOPLE = [Role.CUSTOMER, Role.REP, Role.INSTALLER, Role.OPERATOR, Role.SECURITY, Role.AUDITOR]
MODEL = {"maker": "New", "model": "Box 1", "name": "A new box", "capabilities": ["price"], "validated": False}
PATH = "/v1/models/new-box-1"
METER = {"model": "norland-t1", "premises": HOME, "comms_seen_at": "2026-09-21T12:00:00Z"}


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with api(tmp_path) as rig:
        await furnish(rig)
        for name, home in (("gw-7", HOME), ("gw-8", OTHER_HOME)):
            new = NewThing(name, ThingKind.GATEWAY, "norland-t1", home, owner=Owner.CUSTOMER)
            await rig.services.registry.register(new, OPERATOR)
        new = NewThing("gw-u", ThingKind.GATEWAY, "norland-t1", HOME, owner=Owner.UTILITY)
        await rig.services.registry.register(new, OPERATOR)
        yield rig


# Models


async def _put_model(rig: Rig, body: dict[str, Any], **headers: str) -> Any:
    return await rig.confirmed(
        Role.OPERATOR,
        Action.MODEL_WRITE,
        "PUT",
        PATH,
        msgspec.json.encode(body),
        Content_Type="application/json",
        **headers,
    )


@covers("3.2/1", "O12")
@pytest.mark.parametrize("role", [*PEOPLE, Role.CCS])
async def test_everybody_reads_what_each_model_can_do_validated_or_not(rig: Rig, role: Role):
    listed = (await rig.by[role].get("/v1/models")).json()["items"]
    assert {item["id"] for item in listed} >= {"acme-pct-2", "kestrel-plug-5"}
    assert {item["validated"] for item in listed} == {True, False}
    first = (await rig.by[role].get("/v1/models?limit=1")).json()
    rest = (await rig.by[role].get(f"/v1/models?cursor={first['next']}")).json()
    assert first["items"] + rest["items"] == listed


async def test_a_model_is_put_by_an_operator_with_a_fresh_factor_and_has_versions(rig: Rig):
    assert slug(await _put_model(rig, MODEL)) == "precondition-required"
    made = await _put_model(rig, MODEL, If_None_Match="*")
    assert (made.status_code, made.headers["etag"]) == (200, '"1"')
    again = await _put_model(rig, MODEL, If_None_Match="*")
    assert (again.status_code, slug(again), again.json()["currentVersion"]) == (412, "precondition-failed", 1)
    changed = await _put_model(rig, MODEL | {"validated": True}, If_Match='"1"')
    assert (changed.json()["version"], changed.json()["validated"]) == (2, True)
    stale = await _put_model(rig, MODEL, If_Match='"1"')
    assert (stale.status_code, stale.json()["currentVersion"]) == (412, 2)
    read = await rig.http.get(PATH)
    assert (read.json(), read.headers["etag"]) == (changed.json(), '"2"')
    assert (await rig.http.get(PATH, headers={"If-None-Match": '"2"'})).status_code == 304
    plain = await rig.by[Role.OPERATOR].put(PATH, json=MODEL, headers={"If-Match": '"2"'})
    assert slug(plain) == "insufficient-user-authentication"


@pytest.mark.parametrize("tag", ['"1", "2"', "*", '"x"', 'W/"1"'])
async def test_a_change_is_for_one_version(rig: Rig, tag: str):
    await _put_model(rig, MODEL, If_None_Match="*")
    answer = await _put_model(rig, MODEL | {"name": "other"}, If_Match=tag)
    assert answer.status_code in {400, 412}
    assert (await rig.http.get(PATH)).json()["name"] == "A new box"


async def test_a_model_is_called_by_its_maker_and_its_model(rig: Rig):
    answer = await _put_model(rig, MODEL | {"model": "Box 2"}, If_None_Match="*")
    assert (answer.status_code, slug(answer)) == (400, "invalid-request")
    assert slug(await rig.http.get(PATH)) == "device-model-not-found"


# Gateways


@covers("A6", "A7")
async def test_what_a_gateway_is_and_takes_is_said_by_operators_and_read_by_who_has_it(rig: Rig):
    facts = {"kind": "meter", "wan": "ami", "devices_max": 10, "load_control_max": 8}
    put = await rig.by[Role.OPERATOR].put("/v1/gateways/gw-u", json=facts)
    expected = facts | {"id": "gw-u", "premises": HOME, "rank": 10}
    assert (put.status_code, put.json()) == (200, expected)
    installed = await rig.by[Role.INSTALLER].put(
        "/v1/gateways/gw-7", json={"kind": "bridge", "parent": "gw-u", "technologies": ["wifi"]}
    )
    assert installed.json()["rank"] == 30
    for role in (Role.CUSTOMER, Role.REP, Role.INSTALLER):
        listed = (await rig.by[role].get(f"/v1/gateways?premises={HOME}")).json()["items"]
        assert [item["id"] for item in listed] == ["gw-u", "gw-7"]
    assert (await rig.http.get("/v1/gateways/gw-u")).json() == expected
    seen = (await rig.by[Role.OPERATOR].get(f"/v1/gateways?premises={HOME}")).json()["items"]
    assert [item["id"] for item in seen] == ["gw-u"], "a customer's own is not the operator's to see"
    assert (await rig.by[Role.OPERATOR].put("/v1/gateways/gw-7", json=facts)).status_code == 404


async def test_a_parent_elsewhere_is_answered_as_one_that_is_not_there(rig: Rig):
    answers = [
        await rig.by[Role.INSTALLER].put("/v1/gateways/gw-7", json={"kind": "bridge", "parent": parent})
        for parent in ("gw-8", "nobody")
    ]
    assert [(one.status_code, slug(one)) for one in answers] == [(404, "thing-not-found")] * 2
    assert slug(await rig.http.get("/v1/gateways/gw-7")) == "gateway-not-found"


# Meters


@covers("A14c")
async def test_when_the_network_heard_of_a_meter_is_said_by_the_utility_and_seen_by_who_has_it(rig: Rig):
    put = await rig.by[Role.CCS].put("/v1/meters/meter-7", json=METER)
    expected = METER | {"id": "meter-7", "comms_seen_at": "2026-09-21T12:00:00.000Z"}
    assert (put.status_code, put.json()) == (200, expected)
    for role in (Role.CUSTOMER, Role.REP, Role.INSTALLER, Role.OPERATOR):
        assert (await rig.by[role].get("/v1/meters/meter-7")).json() == expected
        listed = await rig.by[role].get(f"/v1/meters?premises={HOME}")
        assert listed.json() == {"items": [expected]}
    assert (await rig.by[Role.CUSTOMER].put("/v1/meters/meter-7", json=METER)).status_code == 403


@covers("A13")
async def test_a_meter_of_others_is_answered_as_one_that_is_not_there(rig: Rig):
    await rig.by[Role.OPERATOR].put("/v1/meters/meter-8", json=METER | {"premises": OTHER_HOME})
    for role in (Role.CUSTOMER, Role.REP, Role.INSTALLER):
        for id in ("meter-8", "nothing"):
            answer = await rig.by[role].get(f"/v1/meters/{id}")
            assert (answer.status_code, slug(answer)) == (404, "meter-not-found")
        assert (await rig.by[role].get(f"/v1/meters?premises={OTHER_HOME}")).json() == {"items": []}


async def test_a_meter_stands_where_there_is_something(rig: Rig):
    answer = await rig.by[Role.OPERATOR].put("/v1/meters/meter-7", json=METER | {"premises": "nowhere"})
    assert (answer.status_code, slug(answer)) == (404, "premises-not-found")
    naive = METER | {"installed_at": "2026-09-21T12:00:00"}
    assert (await rig.by[Role.OPERATOR].put("/v1/meters/meter-7", json=naive)).status_code == 400


# Accounts and premises


async def test_an_account_is_said_by_the_customer_care_system_and_read_by_whose_it_is(rig: Rig):
    path = f"/v1/accounts/{ACCOUNT}"
    body = {"customer": "cust-0007", "tariff": "res-flat"}
    put = await rig.by[Role.CCS].put(path, json=body)
    expected = body | {"id": ACCOUNT, "status": "active"}
    assert put.json() == expected
    for role in (Role.CUSTOMER, Role.REP, Role.CCS):
        assert (await rig.by[role].get(path)).json() == expected
    for role in (Role.INSTALLER, Role.OPERATOR, Role.SECURITY, Role.AUDITOR):
        assert (await rig.by[role].get(path)).status_code == 403
        assert (await rig.by[role].put(path, json=body)).status_code == 403
    for id in (OTHER_ACCOUNT, "nothing"):
        answer = await rig.http.get(f"/v1/accounts/{id}")
        assert (answer.status_code, slug(answer)) == (404, "account-not-found")
    assert (await rig.by[Role.CCS].put(path, json=body | {"customer": "Ann Other"})).status_code == 400


async def test_where_premises_lie_is_said_by_the_customer_care_system(rig: Rig):
    path, place = f"/v1/premises/{HOME}", {"zone": "north", "feeder": "f-12", "service_point": ""}
    assert (await rig.http.put(f"{path}/description", json=place)).status_code == 403
    described = await rig.by[Role.CCS].put(f"{path}/description", json=place)
    assert (described.json()["zone"], described.json()["epoch"]) == ("north", 1)
    assert (await rig.http.get(path)).json()["feeder"] == "f-12"
    assert "time_zone" not in described.json()
    berlin = await rig.by[Role.CCS].put(f"{path}/description", json=place | {"time_zone": "Europe/Berlin"})
    assert berlin.json()["time_zone"] == "Europe/Berlin"
    nowhere = await rig.by[Role.CCS].put(f"{path}/description", json=place | {"time_zone": "Mars/Base"})
    assert (nowhere.status_code, slug(nowhere)) == (400, "invalid-request")


@covers("A13")
async def test_a_customer_lists_their_own_premises(rig: Rig):
    await rig.services.registry.hand_over("cottage", ACCOUNT, OPERATOR)
    listed = (await rig.http.get("/v1/me/premises")).json()["items"]
    assert [item["id"] for item in listed] == ["cottage", HOME]
    rig.tokens.holders["bare"] = principal_of(Role.REP)
    assert (await rig.by[Role.REP].get("/v1/me/premises")).status_code == 403
