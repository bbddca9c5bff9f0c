"""The provisioning session as an application calls it: scenario 3.2, its refusals, and who is shown what."""

from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from infra.documents.port import StoreUnavailableError
from provisioning.care_demo import customers
from registry.meters import Meter
from security.policy import Principal, Role
from tests.api.rig import OPERATOR, Rig, client, slug
from tests.api.streams import stream
from tests.covers import covers
from tests.provisioning_rig import ACCOUNT, ADA, IVO, PREMISES, ROSA

SESSIONS = "/v1/provisioning-sessions"
RITA = Principal("rita", Role.REP)
BEN = Principal("ben", Role.CUSTOMER, account="ac-0008")
WHO = (ROSA, RITA, IVO, ADA, BEN)


@dataclass
class Call:
    """Somebody works with one session by HTTP, and always knows its newest version."""

    rig: Rig
    http: httpx.AsyncClient
    id: str = ""
    tag: str = ""
    keys: int = field(default=0)

    async def do(self, method: str, what: str, body: Any = None, **headers: str) -> httpx.Response:
        self.keys += 1
        fields = {"If-Match": self.tag, "Idempotency-Key": f"{self.id}-{self.keys}"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        path = f"{SESSIONS}/{self.id}{what}"
        answer = await (
            self.http.request(method, path, headers=fields)
            if body is None
            else self.http.request(method, path, headers=fields, json=body)
        )
        if "etag" in answer.headers:
            self.tag = answer.headers["etag"]
        return answer

    async def look(self, what: str = "") -> Any:
        answer = await self.http.get(f"{SESSIONS}/{self.id}{what}")
        assert answer.status_code == 200, answer.text
        self.tag = answer.headers.get("etag", self.tag)
        return answer.json()

    async def done(self, method: str, what: str, body: Any = None) -> Any:
        answer = await self.do(method, what, body)
        assert answer.status_code in {200, 202}, answer.text
        return answer.json()

    def eui64(self, name: str) -> str:
        return self.rig.home.world.scene.eui64s[name]

    def label(self, name: str) -> dict[str, str]:
        eui64 = self.eui64(name)
        return {
            "eui64": eui64,
            "proof": "install_code",
            "value": self.rig.home.world.scene.labels[eui64],
        }

    async def discovered(self, *names: str) -> Any:
        await self.done("POST", "/discovery", {"grants": [self.label(name) for name in names]})
        for _ in range(4):
            await self.rig.home.live_on(2)
        await self.look()
        await self.done("DELETE", "/discovery")
        await self.rig.home.live_on(1)
        return await self.look()

    async def chosen(self) -> None:
        """Choose the thermostat and the water heater, each with a program."""
        devices = [
            {"device": self.eui64(name), "take_part": True, "name": name, "location": "hall"}
            for name in ("thermostat", "heater")
        ]
        await self.done("PUT", "/selection", {"devices": devices})
        pairs = [("thermostat", "cpp-27"), ("heater", "dlc-ac")]
        await self.done(
            "PUT",
            "/programs",
            {"assignments": [{"device": self.eui64(name), "program": program} for name, program in pairs]},
        )

    def consent(self) -> dict[str, Any]:
        pairs = [("thermostat", "cpp-27"), ("heater", "dlc-ac")]
        return {
            "given_by": "cust-0007",
            "relation": "holder",
            "channel": "phone",
            "for": [
                {"device": self.eui64(name), "program": program, "text_version": "1"}
                for name, program in pairs
            ],
        }

    def states(self, devices: Any) -> dict[str, str]:
        names = {eui64: name for name, eui64 in self.rig.home.world.scene.eui64s.items()}
        return {names[one["id"]]: one["state"] for one in devices["items"]}


@pytest.fixture
async def home(rig: Rig) -> Rig:
    """The home of Ada, with its meter, and people who can log in."""
    for who in WHO:
        rig.tokens.holders[who.name] = who
    await rig.home.settle_in()
    return rig


def by(rig: Rig, who: Principal) -> httpx.AsyncClient:
    return client(rig.app, {"Authorization": f"Bearer {who.name}"})


async def opened(rig: Rig, who: Principal = ROSA, **fields: Any) -> Call:
    """Open a session as somebody who may."""
    call = Call(rig, by(rig, who))
    body: dict[str, Any] = {"premises": PREMISES}
    if who.role is Role.REP:
        body |= {"account": ACCOUNT, "verification": await rig.home.verified(who), "case": "c-1"}
    if who.role is Role.INSTALLER:
        body |= {"work_order": await ordered(rig, who)}
    answer = await call.http.post(SESSIONS, json=body | fields)
    assert answer.status_code == 201, answer.text
    call.id, call.tag = answer.json()["id"], answer.headers["etag"]
    assert answer.headers["location"] == f"{SESSIONS}/{call.id}"
    return call


async def ordered(rig: Rig, who: Principal = IVO) -> str:
    answer = await rig.by[Role.OPERATOR].post(
        "/v1/work-orders", json={"premises": PREMISES, "assignee": who.name}
    )
    assert answer.status_code == 201, answer.text
    id: str = answer.json()["id"]
    return id


# ---------------------------------------------------------------------------- scenario 3.2


@covers("3.2/7", "3.2/8", "3.2/9", "3.2/10", "3.2/11", "3.2/12", "3.2/13", "3.2/14", "3.2/15")
async def test_scenario_3_2_is_done_by_http_alone(home: Rig):
    call = await opened(home)
    session = await call.discovered("thermostat", "heater", "upstairs")
    assert (session["state"], session["others"]) == ("DISCOVERED", 1)
    devices = await call.look("/devices")
    assert call.states(devices) == {
        "thermostat": "AUTH_OK",
        "heater": "AUTH_OK",
        "display": "RECOGNIZED",
        "upstairs": "AUTH_FAILED",
    }
    options = (await call.look("/options"))["items"]
    assert {one["device"] for one in options} == {call.eui64("thermostat"), call.eui64("heater")}
    await call.chosen()
    missing = await call.do("POST", "/provision")
    assert slug(missing) == "consent-missing"
    assert len(missing.json()["pairs"]) == 2
    await call.done("PUT", "/consent", call.consent())
    assert (await call.done("POST", "/provision"))["state"] == "PROVISIONING"
    await home.home.live_on(2)
    assert (await call.look())["state"] == "RECORDED"
    ready = call.states(await call.look("/devices"))
    assert (ready["thermostat"], ready["heater"], ready["display"]) == ("READY", "READY", "RECOGNIZED")
    records = (await call.look("/records"))["items"]
    assert [one["kind"] for one in records] == ["han.device.registered", "han.enrolment.changed"] * 2
    assert {one["state"] for one in records} == {"queued"}
    assert (await call.done("POST", "/confirm", {"method": "phone"}))["state"] == "CONFIRMED"


@covers("3.2/8", "O12")
async def test_the_list_says_of_each_device_what_it_is_and_what_it_can(home: Rig):
    call = await opened(home)
    await call.discovered("thermostat")
    listed = {one["id"]: one for one in (await call.look("/devices"))["items"]}
    thermostat = listed[call.eui64("thermostat")]
    assert (thermostat["maker"], thermostat["model"], thermostat["hw"]) == ("Acme", "PCT-2", 3)
    assert thermostat["model_id"] == "acme-pct-2"
    assert "load.offset" in thermostat["capabilities"]
    assert thermostat["gateways"] == ["gw-0007-meter"]


@covers("3.2/10")
async def test_a_selection_is_a_recorded_act_and_may_be_changed_until_it_is_sent(home: Rig):
    call = await opened(home)
    await call.discovered("thermostat")
    device = call.eui64("thermostat")
    named = {"device": device, "take_part": True, "name": "Hall", "location": "first floor"}
    session = await call.done("PUT", "/selection", {"devices": [named]})
    assert (session["steps"][-1]["trigger"], session["state"]) == ("selection", "SELECTED")
    out = {"device": device, "take_part": False}
    await call.done("PUT", "/selection", {"devices": [out]})
    assert call.states(await call.look("/devices"))["thermostat"] == "LEFT_OUT"
    again = await call.done("PUT", "/selection", {"devices": [named]})
    assert len([one for one in again["steps"] if one["trigger"] == "selection"]) == 3


async def test_what_has_not_proved_itself_is_not_chosen_and_all_of_it_is_named(home: Rig):
    call = await opened(home)
    await call.discovered("thermostat", "upstairs")
    wanted = [
        {"device": call.eui64(name), "take_part": True} for name in ("thermostat", "display", "upstairs")
    ]
    refused = await call.do("PUT", "/selection", {"devices": wanted})
    assert (refused.status_code, slug(refused)) == (409, "auth-not-ok")
    assert refused.json()["devices"] == {
        call.eui64("display"): "RECOGNIZED",
        call.eui64("upstairs"): "AUTH_FAILED",
    }
    assert (await call.look())["state"] == "DISCOVERED"


@covers("3.2/11")
async def test_programs_that_do_not_fit_are_refused_with_every_reason_and_nothing_is_kept(home: Rig):
    call = await opened(home)
    await call.discovered("thermostat", "heater")
    devices = [{"device": call.eui64(name), "take_part": True} for name in ("thermostat", "heater")]
    await call.done("PUT", "/selection", {"devices": devices})
    unfit = home.home.world.programs.unfit
    things = {one["id"]: one["thing"] for one in (await call.look("/devices"))["items"]}
    unfit[things[call.eui64("thermostat")], "tou-res"] = ("TARIFF", "ZONE")
    unfit[things[call.eui64("heater")], "cpp-27"] = ("CAPABILITY:price",)
    pairs = [("thermostat", "tou-res"), ("heater", "cpp-27"), ("heater", "dlc-ac")]
    body = {"assignments": [{"device": call.eui64(name), "program": program} for name, program in pairs]}
    refused = await call.do("PUT", "/programs", body)
    assert (refused.status_code, slug(refused)) == (422, "ineligible")
    assert refused.json()["pairs"] == [
        {"device": call.eui64("thermostat"), "program": "tou-res", "reasons": ["TARIFF", "ZONE"]},
        {"device": call.eui64("heater"), "program": "cpp-27", "reasons": ["CAPABILITY:price"]},
    ]
    assert (await call.look())["state"] == "SELECTED"
    unfit.clear()
    unfit[things[call.eui64("heater")], "dlc-ac"] = ("EXCLUSIVE_WITH:cpp-27",)
    assert slug(await call.do("PUT", "/programs", body)) == "exclusive-programs"


# ---------------------------------------------------------------------------- opening


@covers("A12", "3.2/4", "3.2/5")
async def test_a_session_is_refused_before_the_customer_is_verified(home: Rig):
    http = by(home, ROSA)
    body = {"premises": PREMISES, "account": ACCOUNT, "case": "c-1"}
    refused = await http.post(SESSIONS, json=body)
    assert (refused.status_code, slug(refused)) == (403, "verification-missing")
    others = await home.home.verified(RITA)
    assert slug(await http.post(SESSIONS, json=body | {"verification": others})) == "verification-missing"
    mine = await home.home.verified(ROSA)
    home.clock.advance(30 * 60)
    assert slug(await http.post(SESSIONS, json=body | {"verification": mine})) == "verification-expired"
    assert (await home.home.sessions.at(PREMISES, 10)).sessions == ()


@covers("3.2/6")
async def test_of_two_who_open_a_session_one_gets_it_and_the_other_is_told_whose(home: Rig):
    first = await opened(home, ROSA)
    verification = await home.home.verified(RITA)
    body = {"premises": PREMISES, "account": ACCOUNT, "verification": verification, "case": "c-2"}
    async with by(home, RITA) as rita:
        refused = await rita.post(SESSIONS, json=body)
        assert (refused.status_code, slug(refused)) == (409, "session-exists")
        assert refused.json()["session"] == first.id
        taken = await rita.post(SESSIONS, json=body | {"take_over": True})
    assert taken.status_code == 201
    assert (await first.look())["state"] == "ABORTED"


async def test_a_customer_takes_nobodys_session_over(home: Rig):
    await opened(home, ROSA)
    async with by(home, ADA) as ada:
        refused = await ada.post(SESSIONS, json={"premises": PREMISES, "take_over": True})
    assert slug(refused) == "forbidden"


@covers("S3.2-pre", "A14c")
async def test_everything_that_the_premises_lack_is_named(home: Rig):
    await home.home.meters.put(Meter(id="m-7", model="acme-meter", premises=PREMISES), OPERATOR)
    verification = await home.home.verified(ROSA)
    async with by(home, ROSA) as rosa:
        refused = await rosa.post(
            SESSIONS, json={"premises": PREMISES, "account": ACCOUNT, "verification": verification}
        )
    assert (refused.status_code, slug(refused)) == (409, "precondition")
    assert refused.json()["codes"] == ["METER_NOT_COMMUNICATING", "METER_NOT_INSTALLED"]


@covers("S1.4a")
async def test_a_way_in_that_the_utility_does_not_offer_is_refused_with_the_setting(
    home: Rig, monkeypatch: pytest.MonkeyPatch
):
    off = type("Off", (), {"customer_install": False, "utility_install": False, "sessions_open_max": 20})()
    monkeypatch.setattr(home.home.service, "_settings", off)
    verification = await home.home.verified(ROSA)
    body = {"premises": PREMISES, "account": ACCOUNT, "verification": verification}
    async with by(home, ROSA) as rosa, by(home, IVO) as ivo:
        customers_way = await rosa.post(SESSIONS, json=body)
        ours = await ivo.post(SESSIONS, json={"premises": PREMISES, "work_order": await ordered(home)})
    assert [(one.status_code, slug(one)) for one in (customers_way, ours)] == [(409, "policy-off")] * 2
    assert "customer_install" in customers_way.json()["detail"]
    assert "utility_install" in ours.json()["detail"]


async def test_a_session_is_opened_once_under_one_key_whatever_comes_twice(home: Rig):
    verification = await home.home.verified(ROSA)
    body = {"premises": PREMISES, "account": ACCOUNT, "verification": verification, "case": "c-1"}
    key = {"Idempotency-Key": "call-1"}
    async with by(home, ROSA) as rosa:
        one = await rosa.post(SESSIONS, json=body, headers=key)
        two = await rosa.post(SESSIONS, json=body, headers=key)
        other = await rosa.post(SESSIONS, json=body | {"case": "c-2"}, headers=key)
    assert (one.status_code, two.status_code) == (201, 201)
    assert one.json() == two.json()
    assert (other.status_code, slug(other)) == (422, "idempotency-mismatch")


async def test_the_key_under_which_a_session_was_opened_shows_it_no_longer_than_the_right_to_it(home: Rig):
    verification = await home.home.verified(ROSA)
    body: dict[str, Any] = {"premises": PREMISES, "account": ACCOUNT, "verification": verification}
    key = {"Idempotency-Key": "call-1"}
    async with by(home, ROSA) as rosa:
        assert (await rosa.post(SESSIONS, json=body, headers=key)).status_code == 201
        home.clock.advance(30 * 60)
        late = await rosa.post(SESSIONS, json=body, headers=key)
    assert (late.status_code, slug(late)) == (403, "verification-expired")
    order = await ordered(home)
    async with by(home, IVO) as ivo:
        body = {"premises": PREMISES, "work_order": order, "take_over": True}
        assert (await ivo.post(SESSIONS, json=body, headers=key)).status_code == 201
        await home.by[Role.OPERATOR].post(f"/v1/work-orders/{order}/close")
        late = await ivo.post(SESSIONS, json=body, headers=key)
    assert (late.status_code, slug(late)) == (404, "provisioning-session-not-found")


# ---------------------------------------------------------------------------- preconditions and repeats


async def test_a_change_names_the_version_that_was_read(home: Rig):
    call = await opened(home)
    path = f"{SESSIONS}/{call.id}/abort"
    body = {"reason": "no"}
    missing = await call.http.post(path, json=body)
    assert (missing.status_code, slug(missing)) == (428, "precondition-required")
    outdated = await call.http.post(path, json=body, headers={"If-Match": '"0"'})
    assert (outdated.status_code, slug(outdated)) == (412, "precondition-failed")
    assert f'"{outdated.json()["currentVersion"]}"' == call.tag
    assert (await call.look())["state"] == "OPEN"
    assert (await call.do("POST", "/abort", body)).status_code == 200


async def test_a_repeat_has_its_effect_once_also_when_the_version_has_moved_on(home: Rig):
    call = await opened(home)
    await call.discovered("thermostat")
    before = call.tag
    body = {"devices": [{"device": call.eui64("thermostat"), "take_part": True, "name": "Hall"}]}
    first = await call.do("PUT", "/selection", body, Idempotency_Key="k-1", If_Match=before)
    again = await call.do("PUT", "/selection", body, Idempotency_Key="k-1", If_Match=before)
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.headers["etag"] == again.headers["etag"]
    other = {"devices": [{"device": call.eui64("thermostat"), "take_part": False}]}
    assert slug(await call.do("PUT", "/selection", other, Idempotency_Key="k-1")) == "idempotency-mismatch"


async def test_a_mistyped_code_is_told_at_once_and_stands_in_no_answer_and_no_audit(home: Rig):
    call = await opened(home)
    label = call.label("thermostat")
    wrong = label | {"value": label["value"][:-1] + ("0" if label["value"][-1] != "0" else "1")}
    refused = await call.do("POST", "/discovery", {"grants": [wrong]})
    assert (refused.status_code, slug(refused)) == (422, "install-code-crc")
    assert (await call.look())["state"] == "OPEN"
    await call.done("POST", "/discovery", {"grants": [label]})
    session = await call.look()
    assert session["grants"] == [{"device": label["eui64"], "proof": "install_code", "state": "waiting"}]
    rows = [row for row in await home.audit() if row["action"].startswith("session")]
    assert rows
    assert label["value"] not in str((session, rows))
    assert all("body_sha256" not in row or not row["body_sha256"] for row in rows if "discover" in str(row))


async def test_a_grant_needs_an_open_window_and_a_second_discovery_the_end_of_the_first(home: Rig):
    call = await opened(home)
    assert slug(await call.do("POST", "/grants", call.label("heater"))) == "window-closed"
    await call.done("POST", "/discovery", {})
    assert slug(await call.do("POST", "/discovery", {})) == "window-open"
    await home.home.live_on(1)
    await call.look()
    await call.done("POST", "/grants", call.label("heater"))


@covers("O10")
async def test_a_window_is_ten_minutes_or_an_hour_and_may_be_put_ahead(home: Rig):
    call = await opened(home)
    not_before = "2030-01-01T00:00:00Z"
    refused = await call.do("POST", "/discovery", {"not_before": not_before})
    assert slug(refused) == "invalid-request"
    session = await call.done("POST", "/discovery", {"priority": "low"})
    assert session["window"]["priority"] == "low"
    assert session["state"] == "DISCOVERING"


# ---------------------------------------------------------------------------- who sees what


@covers("A2")
async def test_an_installer_provisions_and_is_shown_nothing_of_the_customer(home: Rig):
    call = await opened(home, IVO)
    await call.discovered("thermostat", "heater")
    await call.chosen()
    for what, body in (("/consent", call.consent()), ("/confirm", {"method": "phone"})):
        refused = await call.do("PUT" if what == "/consent" else "POST", what, body)
        assert (refused.status_code, slug(refused)) == (403, "forbidden")
    assert slug(await call.do("POST", "/provision")) == "consent-missing"
    rep = Call(home, by(home, ROSA), call.id)
    verification = await home.home.verified(ROSA)
    await rep.look()
    await rep.done("PUT", "/verification", {"verification": verification})
    await rep.done("PUT", "/consent", rep.consent())
    await call.look()
    await call.done("POST", "/provision")
    await home.home.live_on(2)
    seen = str([await call.look(what) for what in ("", "/devices", "/records", "/options", "/remedies")])
    assert "RECORDED" in seen
    for secret in (ACCOUNT, "c-1", "cust-0007", "holder", "price_minor", "consents"):
        assert secret not in seen
    for path in ("/v1/customer-searches", "/v1/verifications"):
        assert slug(await call.http.post(path, json={})) == "forbidden"


async def test_a_work_order_opens_the_premises_until_it_is_closed(home: Rig):
    call = await opened(home, IVO)
    assert (await call.look())["premises"] == PREMISES
    order = (await home.home.sessions.at(PREMISES, 1)).sessions[0].work_order
    closed = await home.by[Role.OPERATOR].post(f"/v1/work-orders/{order}/close")
    assert (closed.status_code, closed.json()["state"]) == (200, "closed")
    assert slug(await call.http.get(f"{SESSIONS}/{call.id}")) == "provisioning-session-not-found"


async def test_a_verification_opens_the_customer_until_it_expires(home: Rig):
    thing = "/v1/things/gw-0007-meter"
    async with by(home, ROSA) as rosa:
        assert (await rosa.get(thing)).status_code == 404
        await home.home.verified(ROSA)
        assert (await rosa.get(thing)).status_code == 200
        home.clock.advance(30 * 60)
        assert (await rosa.get(thing)).status_code == 404


@covers("3.2/5")
async def test_days_later_any_representative_goes_on_under_a_verification_of_their_own(home: Rig):
    call = await opened(home, ROSA)
    home.clock.advance(30 * 60)
    expired = await call.http.get(f"{SESSIONS}/{call.id}")
    assert (expired.status_code, slug(expired)) == (403, "verification-expired")
    rita = Call(home, by(home, RITA), call.id)
    assert slug(await rita.http.get(f"{SESSIONS}/{call.id}")) == "provisioning-session-not-found"
    verification = await home.home.verified(RITA)
    await rita.look()
    await rita.done("PUT", "/verification", {"verification": verification})
    assert (await rita.discovered("thermostat"))["state"] == "DISCOVERED"


async def test_other_peoples_sessions_are_not_there_and_cost_the_same(home: Rig):
    call = await opened(home, ROSA)
    async with by(home, BEN) as ben, by(home, ADA) as ada:
        for method, what in (("GET", ""), ("GET", "/devices"), ("POST", "/provision"), ("GET", "/notices")):
            theirs = await ben.request(method, f"{SESSIONS}/{call.id}{what}", headers={"If-Match": '"1"'})
            none = await ben.request(method, f"{SESSIONS}/ps-none{what}", headers={"If-Match": '"1"'})
            assert (theirs.status_code, slug(theirs)) == (404, "provisioning-session-not-found")
            strip = {"requestId"}
            assert {k: v for k, v in theirs.json().items() if k not in strip} == {
                k: v for k, v in none.json().items() if k not in strip
            }
        assert (await ada.get(f"{SESSIONS}/{call.id}")).status_code == 200
    await home.services.registry.hand_over(PREMISES, BEN.account, OPERATOR)
    async with by(home, BEN) as ben, by(home, ADA) as ada:
        assert (await ben.get(f"{SESSIONS}/{call.id}")).status_code == 404
        assert (await ada.get(f"{SESSIONS}/{call.id}")).status_code == 404


async def test_an_operator_sees_how_far_it_is_and_ends_it_and_does_nothing_else(home: Rig):
    call = await opened(home)
    await call.discovered("thermostat", "heater")
    await call.chosen()
    operator = Call(home, home.by[Role.OPERATOR], call.id)
    seen = str((await operator.look(), await operator.look("/devices")))
    for secret in (ACCOUNT, "c-1", "'hall'", "'location'", "'name'"):
        assert secret not in seen
    assert slug(await operator.do("POST", "/provision")) == "forbidden"
    assert (await operator.do("POST", "/abort", {"reason": "stopped"})).json()["state"] == "ABORTED"


@covers("A3")
async def test_what_has_no_part_is_a_count_for_staff_unless_they_work_in_the_open_session(
    home: Rig,
):
    call = await opened(home)
    await call.discovered("thermostat", "heater", "upstairs")
    await call.chosen()
    operator = Call(home, home.by[Role.OPERATOR], call.id)
    names = ("thermostat", "heater", "display", "upstairs")

    async def seen(who: Call) -> tuple[str, list[str]]:
        looks = [await who.look(what) for what in ("", "/devices", "/options")]
        shown = str([*looks, await first_notices(who, looks[0]["devices"])])
        return f"{looks[0]['devices']} + {looks[0]['others']}", [
            name for name in names if call.eui64(name) in shown
        ]

    assert await seen(call) == ("4 + 1", list(names))
    assert await seen(operator) == ("0 + 5", [])
    await call.done("PUT", "/consent", call.consent())
    await call.done("POST", "/provision")
    await home.home.live_on(2)
    assert await seen(operator) == ("2 + 3", ["thermostat", "heater"])
    await call.look()
    await call.done("POST", "/confirm", {"method": "phone"})
    assert await seen(call) == ("2 + 3", ["thermostat", "heater"])
    ada = Call(home, by(home, ADA), call.id)
    assert await seen(ada) == ("4 + 1", list(names))
    await home.home.live_on(86_400)
    assert await seen(ada) == ("2 + 1", ["thermostat", "heater"])


async def first_notices(who: Call, devices: int) -> str:
    """Return the first round of what is told live."""
    token = who.http.headers["authorization"].removeprefix("Bearer ")
    async with stream(who.rig.app, f"{SESSIONS}/{who.id}/notices", token) as reader:
        return str(await reader.until(1 + devices))


# ---------------------------------------------------------------------------- finding the customer


@covers("3.2/4", "3.2/5")
async def test_a_search_needs_a_case_and_shows_no_more_than_to_choose_by(home: Rig):
    await home.care.put(customers())
    customer = customers()[6]
    number = customer.accounts[0].number
    async with by(home, ROSA) as rosa:
        no_case = await rosa.post("/v1/customer-searches", json={"by": "account", "value": number})
        assert slug(no_case) == "invalid-request"
        body = {"by": "account", "value": number, "case": "c-1"}
        found = await rosa.post("/v1/customer-searches", json=body)
        assert found.status_code == 200
        assert found.headers["cache-control"] == "no-store"
        assert [one["customer"] for one in found.json()["items"]] == [customer.ref]
        for secret in (customer.name, customer.phone, number, customer.accounts[0].address):
            assert secret not in found.text
        nobody = await rosa.post("/v1/customer-searches", json=body | {"value": "0000-0000-00"})
        assert (nobody.status_code, slug(nobody)) == (404, "customer-not-found")
        short = await rosa.post("/v1/customer-searches", json=body | {"value": "1"})
        assert slug(short) == "invalid-request"


@covers("3.2/5")
async def test_a_verification_records_the_outcome_and_opens_the_accounts_of_who_passed(home: Rig):
    await home.care.put(customers())
    customer = customers()[6]
    body = {"customer": customer.ref, "method": "questions", "outcome": "passed", "case": "c-1"}
    async with by(home, ROSA) as rosa:
        failed = await rosa.post("/v1/verifications", json=body | {"outcome": "failed"})
        assert (failed.status_code, failed.json().get("accounts")) == (201, None)
        assert await home.services.provisioning.reach_of(ROSA) == frozenset()
        made = await rosa.post("/v1/verifications", json=body)
        unknown = await rosa.post("/v1/verifications", json=body | {"customer": "cust-9999"})
    (account,) = made.json()["accounts"]
    assert (account["account"], account["premises"]) == (
        customer.accounts[0].id,
        customer.accounts[0].premises,
    )
    assert await home.services.provisioning.reach_of(ROSA) == {customer.accounts[0].id}
    assert slug(unknown) == "customer-not-found"
    (row, *_) = [row for row in await home.audit() if row["action"] == "verification.create"]
    assert customer.name not in str(row)


async def test_the_search_that_is_too_many_is_told_to_wait(home: Rig):
    body = {"by": "account", "value": "9900-0000-00", "case": "c-1"}
    async with by(home, ROSA) as rosa:
        for _ in range(50):
            assert slug(await rosa.post("/v1/customer-searches", json=body)) == "customer-not-found"
        refused = await rosa.post("/v1/customer-searches", json=body)
        assert (refused.status_code, slug(refused)) == (429, "too-many-searches")
        home.clock.advance(float(refused.headers["retry-after"]))
        assert slug(await rosa.post("/v1/customer-searches", json=body)) == "customer-not-found"


# ---------------------------------------------------------------------------- scenario 3.3


@covers("3.3/6.1", "3.3/6.2", "3.3/6.3")
async def test_scenario_3_3_tells_what_would_help_waits_and_goes_on(home: Rig):
    home.home.lose("gw-0007-meter")
    await home.services.registry.revoke("gw-0007-meter", OPERATOR)
    call = await opened(home)
    await call.done("POST", "/discovery", {"expected": [{"maker": "Acme", "model": "PCT-2"}]})
    session = await call.look()
    assert (session["state"], session["cause"]) == ("NOT_RECOGNIZED", "NO_HAN_ROUTE")
    remedies = (await call.look("/remedies"))["items"]
    assert remedies
    assert all(one["price_minor"] >= 0 and one["currency"] for one in remedies)
    chosen = remedies[0]["id"]
    unknown = {"remedies": ["a-miracle"], "answer": "accepted", "chosen": "a-miracle"}
    assert slug(await call.do("POST", "/remedy-notice", unknown)) == "remedy-not-offered"
    undecided = {"remedies": [chosen], "answer": "undecided"}
    assert (await call.done("POST", "/remedy-notice", undecided))["state"] == "NOT_RECOGNIZED"
    told = await call.done(
        "POST", "/remedy-notice", {"remedies": [chosen], "answer": "accepted", "chosen": chosen}
    )
    assert told["state"] == "AWAITING_REMEDY"
    assert told["remedies"][0]["price_minor"] == remedies[0]["price_minor"]
    assert [one["answer"] for one in told["notices"]] == ["undecided", "accepted"]
    done = await call.done("POST", "/remedy-done", {"remedy": chosen, "evidence": "photo"})
    assert done["state"] == "OPEN"


# ---------------------------------------------------------------------------- live


@covers("3.2/7", "A5")
async def test_rows_come_live_and_who_comes_back_is_told_only_what_is_new(home: Rig):
    call = await opened(home)
    path = f"{SESSIONS}/{call.id}/notices"
    async with stream(home.app, path, ROSA.name) as reader:
        (first,) = await reader.until(1)
        assert (first["event"], '"state":"OPEN"' in first["data"]) == ("session", True)
        await call.discovered("thermostat")
        while not any('"AUTH_OK"' in one["data"] for one in reader.events):
            await reader.until(len(reader.events) + 1)
        kinds = {one["event"] for one in reader.events}
        assert kinds == {"session", "device"}
    async with stream(home.app, path, ROSA.name) as reader:
        await reader.until(4)
        last = reader.events[-1]["id"]
        assert all("id" not in one for one in reader.events[:-1]), "a broken round begins anew"
    async with stream(home.app, path, ROSA.name, last) as reader:
        await call.done(
            "PUT", "/selection", {"devices": [{"device": call.eui64("thermostat"), "take_part": True}]}
        )
        events = await reader.until(2)
        assert [one["event"] for one in events] == ["session", "device"]


async def test_records_say_when_the_outbox_has_not_answered(home: Rig, monkeypatch: pytest.MonkeyPatch):
    call = await opened(home)

    async def gone(*_: object) -> None:
        raise StoreUnavailableError("disk")

    monkeypatch.setattr(home.store, "get", gone, raising=False)
    assert slug(await call.http.get(f"{SESSIONS}/{call.id}/records")) == "service-unavailable"
