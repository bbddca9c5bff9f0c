"""Meters and devices are exchanged, customers move out, gateways are cleared: asked for by HTTP."""

from dataclasses import replace
from typing import Any

import pytest

from registry.devices import Device
from registry.gateways import GatewayKind
from registry.meters import Meter
from registry.states import DeviceTrigger, Lifecycle
from security.policy import Role
from tests.api.rig import OPERATOR, Rig, slug
from tests.api.test_sessions import BEN, WHO, Call, by, opened, ordered
from tests.covers import covers
from tests.provisioning_rig import ACCOUNT, ADA, IVO, PREMISES, ROSA

NEW = "gw-0007-new"


@pytest.fixture
async def home(rig: Rig) -> Rig:
    """The home of Ada, two of whose devices take part."""
    for who in WHO:
        rig.tokens.holders[who.name] = who
    await rig.home.settle_in()
    known = await rig.home.meters.meter("m-7")
    await rig.home.meters.put(replace(known, gateway="gw-0007-meter"), OPERATOR)
    call = await opened(rig)
    await call.discovered("thermostat", "heater")
    await call.chosen()
    await call.done("PUT", "/consent", call.consent())
    await call.done("POST", "/provision")
    await rig.home.live_on(2)
    await call.look()
    await call.done("POST", "/confirm", {"method": "phone"})
    return rig


def device(rig: Rig, name: str = "thermostat") -> str:
    return rig.home.world.scene.eui64s[name]


async def new_meter(rig: Rig, **fields: Any) -> None:
    await rig.home.bring(NEW, GatewayKind.METER)
    meter = Meter(id="m-8", model="acme-meter", premises=PREMISES, gateway=NEW)
    await rig.home.meters.put(replace(meter, **fields), OPERATOR)


@covers("3.3/6.3", "O9")
async def test_a_meter_is_exchanged_by_one_request_and_its_devices_come_along(home: Rig):
    await new_meter(home)
    ccs = home.by[Role.CCS]
    body = {"new_meter": "m-8", "work_order": "wo-1"}
    key = {"Idempotency-Key": "exchange-1"}
    begun = await ccs.post("/v1/meters/m-7/exchange", json=body, headers=key)
    assert (begun.status_code, begun.json()["devices"]) == (202, 2)
    again = await ccs.post("/v1/meters/m-7/exchange", json=body, headers=key)
    assert again.json()["id"] == begun.json()["id"]
    for _ in range(6):
        await home.home.live_on(6)
    move = (await ccs.get(begun.headers["location"])).json()
    assert (move["state"], move["kind"], move["old"], move["new"]) == ("done", "exchange", "m-7", "m-8")
    for name in ("thermostat", "heater"):
        gateways = await home.services.registry.gateways_of(device(home, name))
        assert [one.gateway for one in gateways] == [NEW]


async def test_a_meter_that_takes_fewer_devices_is_refused_with_both_numbers(home: Rig):
    await new_meter(home)
    known = await home.home.gateways.gateway(NEW)
    await home.home.gateways.put(replace(known, devices_max=1, load_control_max=1), OPERATOR)
    refused = await home.by[Role.OPERATOR].post("/v1/meters/m-7/exchange", json={"new_meter": "m-8"})
    assert (refused.status_code, slug(refused)) == (409, "gateway-capacity")
    assert "1 devices" in refused.json()["detail"]
    assert "number 2" in refused.json()["detail"]
    assert (await home.home.meters.meter("m-7")).went is None


async def test_nobody_exchanges_a_meter_of_others_or_learns_of_one(home: Rig):
    await new_meter(home)
    body = {"new_meter": "m-8"}
    async with by(home, IVO) as ivo, by(home, ADA) as ada:
        theirs = await ivo.post("/v1/meters/m-7/exchange", json=body)
        none = await ivo.post("/v1/meters/m-99/exchange", json=body)
        assert [(one.status_code, slug(one)) for one in (theirs, none)] == [(404, "meter-not-found")] * 2
        assert slug(await ada.post("/v1/meters/m-7/exchange", json=body)) == "forbidden"
    assert (await home.home.meters.meter("m-7")).went is None


async def test_a_device_takes_the_place_of_another(home: Rig):
    old, new = device(home), device(home, "display")
    call = await opened(home)
    await call.discovered("display")
    body = {"new_device": new}
    async with by(home, ROSA) as rosa, by(home, BEN) as ben:
        assert slug(await ben.post(f"/v1/devices/{old}/replacement", json=body)) == "device-not-found"
        begun = await rosa.post(f"/v1/devices/{old}/replacement", json=body)
        assert begun.status_code == 202, begun.text
        for _ in range(6):
            await home.home.live_on(6)
        move = (await rosa.get(begun.headers["location"])).json()
        assert (move["state"], move["old"], move["new"]) == ("done", old, new)
        assert slug(await ben.get(begun.headers["location"])) == "move-not-found"
        unknown = await rosa.post(f"/v1/devices/{new}/replacement", json={"new_device": "nothing"})
        assert slug(unknown) == "device-not-found"
    assert (await home.home.devices.device(old)).lifecycle is Lifecycle.REPLACED


async def test_what_has_not_proved_itself_replaces_nothing(home: Rig):
    old, door = device(home), "door-1"
    await home.home.devices.apply(
        door,
        DeviceTrigger.SEEN,
        OPERATOR,
        new=Device(id=door, premises=PREMISES, premises_epoch=1),
    )
    async with by(home, ROSA) as rosa:
        refused = await rosa.post(f"/v1/devices/{old}/replacement", json={"new_device": door})
    assert (refused.status_code, slug(refused)) == (409, "not-replaceable")


@covers("O17")
async def test_who_moves_out_takes_their_devices_along_and_is_a_stranger_from_then_on(home: Rig):
    ccs = home.by[Role.CCS]
    async with by(home, ADA) as ada:
        assert (await ada.get(f"/v1/devices/{device(home)}")).status_code == 200
        begun = await ccs.post(f"/v1/premises/{PREMISES}/move-out", json={"account": ACCOUNT})
        assert (begun.status_code, "old" in begun.json()) == (202, False)
        for _ in range(4):
            await home.home.live_on(300)
        assert (await ccs.get(begun.headers["location"])).json()["state"] == "done"
        assert (await ada.get(f"/v1/devices/{device(home)}")).status_code == 404
        assert (await ada.get(f"/v1/premises/{PREMISES}")).status_code == 404
    gone = await home.home.devices.device(device(home))
    assert (gone.lifecycle, gone.account, gone.name) == (Lifecycle.DEREGISTERED, "", "")


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00Z", "2030-01-01T00:00:00Z"])
async def test_a_time_that_nobody_means_is_refused(home: Rig, at: str):
    await new_meter(home)
    ccs = home.by[Role.CCS]
    exchange = await ccs.post("/v1/meters/m-7/exchange", json={"new_meter": "m-8", "at": at})
    move_out = await ccs.post(f"/v1/premises/{PREMISES}/move-out", json={"account": ACCOUNT, "at": at})
    assert [slug(exchange), slug(move_out)] == ["invalid-request"] * 2
    assert (await home.home.meters.meter("m-7")).went is None


async def test_only_who_has_the_premises_moves_out(home: Rig):
    wrong = await home.by[Role.CCS].post(f"/v1/premises/{PREMISES}/move-out", json={"account": "ac-0008"})
    assert slug(wrong) == "invalid-request"
    async with by(home, ROSA) as rosa:
        assert (
            slug(await rosa.post(f"/v1/premises/{PREMISES}/move-out", json={"account": ACCOUNT}))
            == "forbidden"
        )


@covers("O9")
async def test_a_gateway_is_cleared_of_one_device_or_said_twice_of_all(home: Rig):
    path = "/v1/gateways/gw-0007-meter/clear"
    operator = home.by[Role.OPERATOR]
    attached = home.services.registry.gateways_of
    heater = {"scope": "one", "thing": device(home, "heater")}
    async with by(home, IVO) as ivo:
        await ordered(home)
        assert (await ivo.post(path, json=heater)).status_code == 204
    assert not await attached(device(home, "heater"))
    assert await attached(device(home))
    once = await operator.post(path, json={"scope": "all"})
    assert (once.status_code, slug(once)) == (409, "confirmation-needed")
    assert await attached(device(home))
    assert (await operator.post(path, json={"scope": "all", "confirm": "gw-0007-meter"})).status_code == 204
    assert not await attached(device(home))
    for _ in range(3):
        await home.home.live_on(2)
    assert (await home.home.han("gw-0007-meter"))[0].get("attach", {}) == {}


async def test_nobody_clears_the_utilitys_gateway_or_one_of_others(home: Rig):
    path = "/v1/gateways/gw-0007-meter/clear"
    async with by(home, ADA) as ada, by(home, BEN) as ben, by(home, IVO) as ivo:
        body = {"scope": "all", "confirm": "gw-0007-meter"}
        assert slug(await ada.post(path, json=body)) == "forbidden"
        assert slug(await ben.post(path, json=body)) == "thing-not-found"
        assert slug(await ivo.post(path, json=body)) == "thing-not-found"
    assert await home.services.registry.gateways_of(device(home))


# ---------------------------------------------------------------------------- the outbox


@covers("3.2/14")
async def test_an_operator_sees_what_waits_and_tries_what_is_blocked_again(home: Rig):
    operator = home.by[Role.OPERATOR]
    waiting = (await operator.get("/v1/outbox")).json()["items"]
    assert [one["kind"] for one in waiting][:2] == ["han.device.registered", "han.enrolment.changed"]
    assert ACCOUNT not in str(waiting)
    key = waiting[0]["key"]
    assert (await operator.get(f"/v1/outbox/{key}")).json() == waiting[0]
    retried = await operator.post(f"/v1/outbox/{key}/retry")
    assert (retried.status_code, retried.json()["state"]) == (200, "queued")
    for path in ("/v1/outbox/none", "/v1/outbox/none/retry"):
        answer = await operator.request("POST" if path.endswith("retry") else "GET", path)
        assert slug(answer) == "outbox-item-not-found"
    async with by(home, ROSA) as rosa:
        assert slug(await rosa.get("/v1/outbox")) == "forbidden"
    await home.services.outbox.deliver_due(home.care.deliver)
    told = (await operator.get(f"/v1/outbox/{key}")).json()
    assert (told["state"], bool(told["receipt"])) == ("delivered", True)


async def test_records_of_a_session_say_whether_the_care_system_has_them(home: Rig):
    session = (await home.home.sessions.at(PREMISES, 1)).sessions[0]
    call = Call(home, by(home, ROSA), session.id)
    assert {one["state"] for one in (await call.look("/records"))["items"]} == {"queued"}
    await home.services.outbox.deliver_due(home.care.deliver)
    records = (await call.look("/records"))["items"]
    assert {one["state"] for one in records} == {"delivered"}
    assert records[-1]["kind"] == "notify.customer"
