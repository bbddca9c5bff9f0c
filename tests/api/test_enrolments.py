"""Taking part in programs, and leaving them, over HTTP."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from programs.enrolments import EnrolmentService
from security.policy import Principal, Role
from tests.api.homes import FOREIGN, OTHER_ACCOUNT, SENSOR, SWITCH, furnish
from tests.api.rig import ACCOUNT, HALL, HOME, OPERATOR, Rig, api, client, slug
from tests.covers import covers

PROGRAM = "pct-comfort"
ID = f"enr-{HALL}-{PROGRAM}"
MINE = {"device": HALL, "program": PROGRAM, "text_version": "1"}
YES = {"given_by": "c-account-7", "relation": "holder", "channel": "phone", "text_version": "1"}


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with api(tmp_path) as rig:
        await furnish(rig)
        await rig.services.programs.catalogue.seed()
        yield rig


def _service(rig: Rig) -> EnrolmentService:
    return rig.services.programs.enrolments


async def _codes(rig: Rig, program: str, device: str = HALL) -> list[str]:
    items = (await rig.http.get(f"/v1/devices/{device}/options")).json()["items"]
    (option,) = [one for one in items if one["program"] == program]
    return [reason["code"] for reason in option["reasons"] if not reason.get("warning")]


@covers("S1.4f", "A13")
async def test_a_customer_says_which_device_takes_part_in_what_and_leaves_when_they_like(rig: Rig):
    made = await rig.http.post("/v1/me/enrolments", json=MINE)
    assert (made.status_code, made.headers["location"]) == (201, f"/v1/enrolments/{ID}")
    assert (made.json()["state"], made.json()["account"]) == ("PROVISIONING", ACCOUNT)
    again = await rig.http.post("/v1/me/enrolments", json=MINE)
    assert (again.status_code, again.json()["rev"]) == (201, 1)
    listed = (await rig.http.get("/v1/me/enrolments")).json()["items"]
    assert [one["id"] for one in listed] == [ID]
    (said,) = (await rig.http.get(f"/v1/me/consents?device={HALL}")).json()["items"]
    assert (said["program"], said["channel"], said["text_version"]) == (PROGRAM, "app", "1")
    others = [one for one in (SENSOR, SWITCH) if await _service(rig).of_device(one)]
    assert others == [], "of what was not named nothing takes part"
    left = await rig.http.delete(f"/v1/me/enrolments/{ID}")
    assert (left.status_code, left.json()["state"]) == (200, "ENDING")
    said = (await rig.http.get(f"/v1/me/consents?device={HALL}")).json()["items"][0]
    assert "withdrawn_at" in said


@covers("3.2/3", "A13", "A5")
async def test_a_customer_sees_what_is_offered_and_which_of_their_devices_take_part(rig: Rig):
    before = (await rig.http.get("/v1/me/programs")).json()["items"]
    assert {one["id"] for one in before} >= {PROGRAM, "cpp-27"}
    assert all(one["devices"] == [] for one in before)
    await rig.http.post("/v1/me/enrolments", json=MINE)
    page = (await rig.http.get("/v1/me/programs?limit=1")).json()
    rest = (await rig.http.get(f"/v1/me/programs?cursor={page['next']}")).json()
    after = page["items"] + rest["items"]
    assert {one["id"]: one["devices"] for one in after if one["devices"]} == {PROGRAM: [HALL]}


@covers("A13")
async def test_a_customer_leaves_from_a_date(rig: Rig):
    await rig.http.post("/v1/me/enrolments", json=MINE)
    left = await rig.http.delete(f"/v1/me/enrolments/{ID}?at=2026-12-31T23:00:00Z")
    assert (left.json()["state"], left.json()["until"]) == ("PROVISIONING", "2026-12-31T23:00:00.000Z")
    assert slug(await rig.http.delete(f"/v1/me/enrolments/{ID}?at=tomorrow")) == "invalid-request"


@covers("S1.4b", "S1.4f")
async def test_who_does_not_fit_is_told_every_reason_and_has_agreed_to_nothing(rig: Rig):
    before = await rig.services.programs.consents.standing(SENSOR)
    answer = await rig.http.post("/v1/me/enrolments", json=MINE | {"device": SENSOR})
    assert (answer.status_code, slug(answer)) == (422, "ineligible")
    assert "NOT_REGISTERED" in answer.json()["reasons"]
    assert len(answer.json()["reasons"]) > 1
    assert await rig.services.programs.consents.standing(SENSOR) == before
    assert await _service(rig).of_device(SENSOR) == ()
    assert slug(await rig.http.post("/v1/me/enrolments", json=MINE | {"program": "no-such"})) == (
        "program-not-found"
    )


@covers("O12")
async def test_a_device_shows_what_it_fits_and_why_not_the_rest(rig: Rig):
    options = (await rig.http.get(f"/v1/devices/{HALL}/options")).json()["items"]
    fits = {one["program"]: one["eligible"] for one in options}
    assert fits[PROGRAM] is True
    assert await _codes(rig, PROGRAM) == ["NO_CONSENT"]
    await rig.http.post("/v1/me/enrolments", json=MINE)
    assert "ALREADY_ENROLLED" in await _codes(rig, PROGRAM)
    assert "NOT_REGISTERED" in await _codes(rig, PROGRAM, SENSOR)


async def test_a_representative_enrols_within_a_case_with_a_yes_or_waits_for_it(rig: Rig):
    rep = rig.by[Role.REP]
    waiting = await rep.post("/v1/enrolments", json={"device": HALL, "program": PROGRAM})
    assert (waiting.status_code, waiting.json()["state"]) == (201, "PENDING_CONSENT")
    begun = await rig.http.post("/v1/me/consents", json=MINE)
    assert begun.status_code == 200
    assert (await rep.get(f"/v1/enrolments/{ID}")).json()["state"] == "PROVISIONING"
    other = await rep.post("/v1/enrolments", json={"device": SWITCH, "program": "dlc-ac", "consent": YES})
    assert other.status_code == 201, other.text
    assert other.json()["state"] == "PROVISIONING"
    (said,) = (await rep.get(f"/v1/consents?device={SWITCH}")).json()["items"]
    assert (said["given_by"], said["channel"]) == ("c-account-7", "phone")
    named = YES | {"given_by": "Ann Other"}
    refused = await rep.post("/v1/enrolments", json={"device": HALL, "program": PROGRAM, "consent": named})
    assert refused.status_code == 400


@covers("A13")
@pytest.mark.parametrize("role", [Role.CUSTOMER, Role.REP])
async def test_nobody_enrols_or_reads_what_is_somebody_elses(rig: Rig, role: Role):
    rig.tokens.holders["olaf"] = Principal("olaf", Role.CUSTOMER, OTHER_ACCOUNT)
    foreign = f"enr-{FOREIGN}-{PROGRAM}"
    async with client(rig.app, {"Authorization": "Bearer olaf"}) as olaf:
        assert (await olaf.post("/v1/me/enrolments", json=MINE | {"device": FOREIGN})).status_code == 201
    caller = rig.by[role]
    for id in (foreign, "enr-nobody-cpp-27"):
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/retry")):
            answer = await caller.request(method, f"/v1/enrolments/{id}{path}")
            assert (answer.status_code, slug(answer)) == (404, "enrolment-not-found"), (id, method, path)
    for device in (FOREIGN, "nobody"):
        asked = await caller.post("/v1/enrolments", json={"device": device, "program": PROGRAM})
        assert (asked.status_code, slug(asked)) == (404, "device-not-found")
        for path in (f"enrolments?device={device}", f"consents?device={device}", f"devices/{device}/options"):
            assert slug(await caller.get(f"/v1/{path}")) == "device-not-found"
    assert (await caller.get("/v1/enrolments?premises=home-8")).json() == {"items": []}
    assert (await _service(rig).enrolment(foreign)).is_live


async def test_the_operator_sees_what_takes_part_and_changes_nothing_of_it(rig: Rig):
    operator = rig.by[Role.OPERATOR]
    assert (await operator.get(f"/v1/enrolments?device={HALL}")).status_code == 404
    await rig.http.post("/v1/me/enrolments", json=MINE)
    (one,) = (await operator.get(f"/v1/enrolments?premises={HOME}")).json()["items"]
    assert one["id"] == ID
    assert "account" not in one
    for method, path in (("DELETE", ""), ("POST", "/pause"), ("POST", "/retry"), ("POST", "/lift")):
        assert (await operator.request(method, f"/v1/enrolments/{ID}{path}")).status_code == 403
    assert (await operator.get(f"/v1/consents?device={HALL}")).status_code == 403
    assert (await _service(rig).enrolment(ID)).is_live


async def test_a_yes_of_ones_own_is_given_by_nobody_else(rig: Rig):
    for role in (Role.REP, Role.OPERATOR, Role.INSTALLER):
        for method, path in (
            ("POST", "/v1/me/enrolments"),
            ("POST", "/v1/me/consents"),
            ("GET", "/v1/me/enrolments"),
            ("GET", f"/v1/me/consents?device={HALL}"),
            ("DELETE", f"/v1/me/enrolments/{ID}"),
        ):
            body = MINE if method == "POST" else None
            assert (await rig.by[role].request(method, path, json=body)).status_code == 403, (role, path)


@covers("S1.4f")
async def test_a_yes_to_new_firmware_lets_the_utility_see_a_device_and_taking_it_back_hides_it(rig: Rig):
    said = await rig.http.post("/v1/me/consents", json=MINE | {"program": "ota"})
    assert (said.status_code, said.json()["program"]) == (200, "ota")
    assert (await rig.by[Role.OPERATOR].get(f"/v1/devices/{HALL}")).status_code == 200
    old = await rig.http.post("/v1/me/consents", json=MINE | {"program": "ota", "text_version": "0"})
    assert slug(old) == "invalid-consent"
    for _ in range(2):
        back = await rig.http.delete(f"/v1/me/consents?device={HALL}&program=ota")
        assert (back.status_code, back.content) == (204, b"")
    assert (await rig.by[Role.OPERATOR].get(f"/v1/devices/{HALL}")).status_code == 404


async def test_a_held_device_pauses_and_a_retired_one_has_left_everything(rig: Rig):
    await rig.http.post("/v1/me/enrolments", json=MINE)
    assert (await rig.http.post(f"/v1/enrolments/{ID}/pause")).json()["paused"] is True
    assert "paused" not in (await rig.http.post(f"/v1/enrolments/{ID}/lift")).json()
    await rig.http.post(f"/v1/devices/{HALL}/retire", json={"reason": "broken"})
    ended: Any = await _service(rig).enrolment(ID)
    assert not ended.is_live


@covers("O17")
async def test_who_moves_in_reads_nothing_of_what_was_agreed_before(rig: Rig):
    rig.tokens.holders["nora"] = Principal("nora", Role.CUSTOMER, "account-9")
    await rig.by[Role.REP].post(
        "/v1/enrolments", json={"device": SWITCH, "program": "dlc-ac", "consent": YES}
    )
    await rig.services.registry.hand_over(HOME, "account-9", OPERATOR)
    async with client(rig.app, {"Authorization": "Bearer nora"}) as nora:
        assert (await nora.get(f"/v1/devices/{SWITCH}")).status_code == 200
        assert (await nora.get(f"/v1/enrolments/enr-{SWITCH}-dlc-ac")).status_code == 404
        assert (await nora.get(f"/v1/enrolments?device={SWITCH}")).json() == {"items": []}
        assert (await nora.get(f"/v1/me/consents?device={SWITCH}")).json() == {"items": []}
    assert (await rig.http.get(f"/v1/enrolments/enr-{SWITCH}-dlc-ac")).status_code == 404


async def test_a_list_says_of_what(rig: Rig):
    for path in ("/v1/enrolments", f"/v1/enrolments?device={HALL}&premises={HOME}", "/v1/me/consents"):
        assert slug(await rig.http.get(path)) == "invalid-request"
    assert slug(await rig.http.delete(f"/v1/me/consents?device={HALL}")) == "invalid-request"
