"""What each role gets to see and to do over HTTP; what is somebody else's does not exist."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api.limits import ApiLimits
from api.operations import Operation
from api.things import RESUME_THING, REVOKE_THING, SUSPEND_THING
from broker_bridge.warden import WATCH
from registry.models import NewThing, Owner, ThingKind
from security.audit import INSIDE
from security.policy import Action, Principal, Role, may
from shadow.commands import Channel, Origin, parse_update
from shadow.document import ShadowId
from tests.api.rig import (
    ACCOUNT,
    HOME,
    JSON_PATCH,
    MERGE,
    OPERATOR,
    SHADOW,
    Rig,
    api,
    client,
    principal_of,
    slug,
)
from tests.api.streams import stream
from tests.covers import covers

METER = "meter-7"
"""The utility's own, at home 7."""
OTHER = "other"
"""Somebody else's thing at other premises."""
CONFIG = f"/v1/things/{METER}/shadows/config"
PEOPLE = [Role.CUSTOMER, Role.REP, Role.INSTALLER]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with api(tmp_path) as rig:
        registry = rig.services.registry
        await registry.hand_over("home-8", "account-8", OPERATOR)
        await registry.register(NewThing(OTHER, ThingKind.DEVICE, "m", "home-8"), OPERATOR)
        await registry.register(NewThing(METER, ThingKind.GATEWAY, "m", HOME, owner=Owner.UTILITY), OPERATOR)
        yield rig


def _things(answer: Any) -> list[str]:
    return [item["name"] for item in answer.json()["items"]]


@covers("A13")
@pytest.mark.parametrize("role", PEOPLE)
async def test_a_thing_of_others_is_answered_as_one_that_is_not_there(rig: Rig, role: Role):
    for path in ("", "/shadows", "/shadows/@classic", "/gateways"):
        foreign = await rig.by[role].get(f"/v1/things/{OTHER}{path}")
        absent = await rig.by[role].get(f"/v1/things/nobody{path}")
        assert (foreign.status_code, slug(foreign)) == (404, "thing-not-found")
        assert _without_id(foreign) == _without_id(absent)
        assert (await rig.by[role].get(f"/v1/things/hall{path}")).status_code in {200, 404}
    rows = [row for row in await rig.audit() if row["decision"] == "refused"]
    assert {(row["actor"], row["reason"]) for row in rows} == {(role, "not there, or not theirs")}
    assert {row["target"].partition("/")[0] for row in rows} == {OTHER, "nobody"}


def _without_id(answer: Any) -> dict[str, Any]:
    return {name: value for name, value in answer.json().items() if name != "requestId"}


@covers("S1.4e")
async def test_everybody_lists_what_is_theirs_and_no_word_of_the_rest(rig: Rig):
    for role in PEOPLE:
        assert sorted(_things(await rig.by[role].get("/v1/things"))) == ["hall", METER]
        assert _things(await rig.by[role].get("/v1/things?premises=home-8")) == []
        assert _things(await rig.by[role].get("/v1/things?premises=nowhere")) == []
    assert _things(await rig.by[Role.OPERATOR].get("/v1/things")) == [METER]
    assert (await rig.by[Role.SECURITY].get("/v1/things")).status_code == 403


async def test_the_security_officer_revokes_what_she_cannot_read(rig: Rig):
    assert (await rig.by[Role.SECURITY].get("/v1/things/hall")).status_code == 403
    path = "/v1/things/hall/revoke"
    missing = await rig.by[Role.SECURITY].post(path)
    assert (missing.status_code, slug(missing)) == (401, "insufficient-user-authentication")
    assert "confirm certificate.revoke at POST /v1/step-up" in missing.json()["detail"]
    answer = await rig.confirmed(Role.SECURITY, Action.CERTIFICATE_REVOKE, "POST", path)
    assert (answer.status_code, answer.content) == (204, b"")
    gone = await rig.confirmed(Role.SECURITY, Action.CERTIFICATE_REVOKE, "POST", "/v1/things/nobody/revoke")
    assert slug(gone) == "thing-not-found"


async def test_who_may_read_but_not_do_this_is_told_why(rig: Rig):
    answer = await rig.by[Role.OPERATOR].delete(f"/v1/things/{METER}")
    assert (answer.status_code, slug(answer)) == (403, "forbidden")
    answer = await rig.by[Role.INSTALLER].get(f"{SHADOW}/history")
    assert (answer.status_code, slug(answer)) == (403, "forbidden")
    await rig.desire({"a": 1})
    answer = await rig.by[Role.REP].get(f"{SHADOW}?version=1")
    assert answer.json()["detail"] == "rep may read this, but shadow.history is not theirs"


# Registering


async def _register(rig: Rig, by: Role, **members: Any) -> Any:
    body = {"name": "new", "kind": "device", "model": "m", "premises": HOME} | members
    return await rig.by[by].post("/v1/things", json=body)


@pytest.mark.parametrize("role", PEOPLE)
async def test_people_register_at_premises_of_theirs_only_and_always_for_the_customer(rig: Rig, role: Role):
    foreign, absent = [await _register(rig, role, premises=id) for id in ("home-8", "nowhere")]
    assert (foreign.status_code, slug(foreign)) == (404, "premises-not-found")
    assert _without_id(foreign) == _without_id(absent)
    assert (await _register(rig, role, owner="utility")).status_code == 400
    made = await _register(rig, role)
    assert (made.status_code, made.json()["owner"]) == (201, "customer")


async def test_the_security_officer_registers_at_all_premises_that_are_known_and_says_whose_it_is(rig: Rig):
    absent = await _register(rig, Role.SECURITY, premises="nowhere-yet", owner="utility")
    assert (absent.status_code, slug(absent)) == (404, "premises-not-found")
    assert (await rig.by[Role.SECURITY].delete("/v1/things/new")).status_code == 404
    assert (await rig.by[Role.CCS].put("/v1/premises/nowhere-yet", json={"account": None})).status_code == 200
    made = await _register(rig, Role.SECURITY, premises="nowhere-yet", owner="utility")
    assert (made.status_code, made.json()["owner"]) == (201, "utility")
    assert (await rig.by[Role.OPERATOR].get("/v1/things/new")).status_code == 200


@pytest.mark.parametrize(
    "member",
    ["role", "account", "version", "serial", "registration", "registered_at", "revoked_at", "epoch", "id"],
)
async def test_no_body_takes_a_member_that_is_not_its_own(rig: Rig, member: str):
    for value in (1, "x", None):
        assert (await _register(rig, Role.CUSTOMER, **{member: value})).status_code == 400
        assert (await _register(rig, Role.SECURITY, **{member: value})).status_code == 400
        body = {"version": 1} | {f"{member}_": value}
        restored = await rig.http.post(f"{SHADOW}/restore", json=body, headers={"If-Match": '"1"'})
        assert restored.status_code in {400, 404}
        if member != "account":
            put = await rig.by[Role.CCS].put(f"/v1/premises/{HOME}", json={"account": ACCOUNT, member: value})
            assert put.status_code == 400
    assert "new" not in _things(await rig.by[Role.CUSTOMER].get("/v1/things"))


async def test_both_ends_of_an_attachment_must_be_theirs(rig: Rig):
    await rig.services.registry.register(NewThing("gw", ThingKind.GATEWAY, "m", HOME), OPERATOR)
    customer = rig.by[Role.CUSTOMER]
    assert (await customer.put("/v1/gateways/gw/things/hall")).status_code == 200
    for gateway, thing in (("gw", OTHER), ("gw", "nobody"), (OTHER, "hall"), ("nobody", "hall")):
        for method in ("PUT", "DELETE"):
            answer = await customer.request(method, f"/v1/gateways/{gateway}/things/{thing}")
            assert (answer.status_code, slug(answer)) == (404, "thing-not-found")
    assert (await customer.get("/v1/gateways/gw/things")).json()["items"][0]["thing"] == "hall"


async def test_a_customer_never_detaches_the_utilitys_gateway_or_device(rig: Rig):
    await rig.services.registry.register(NewThing("gw", ThingKind.GATEWAY, "m", HOME), OPERATOR)
    customer = rig.by[Role.CUSTOMER]
    for gateway, thing in ((METER, "hall"), ("gw", METER), ("gw", "hall")):
        path = f"/v1/gateways/{gateway}/things/{thing}"
        assert (await customer.put(path)).status_code == 200
        refused = await customer.delete(path)
        if METER in (gateway, thing):
            assert (refused.status_code, slug(refused)) == (403, "forbidden")
            assert len((await customer.get(f"/v1/gateways/{gateway}/things")).json()["items"]) == 1
            assert (await rig.by[Role.SECURITY].delete(path)).status_code == 204
        else:
            assert refused.status_code == 204


async def test_an_operator_sees_no_attachment_of_what_is_not_enrolled(rig: Rig):
    await rig.services.registry.register(NewThing("gw", ThingKind.GATEWAY, "m", HOME), OPERATOR)
    for pair in ((METER, "hall"), ("gw", METER)):
        await rig.services.registry.attach(*pair, OPERATOR)
    operator = rig.by[Role.OPERATOR]
    assert (await operator.get(f"/v1/gateways/{METER}/things")).json() == {"items": []}
    assert (await operator.get(f"/v1/things/{METER}/gateways")).json() == {"items": []}
    assert len((await rig.by[Role.CUSTOMER].get(f"/v1/things/{METER}/gateways")).json()["items"]) == 1


# Premises


async def test_premises_are_put_by_the_customer_care_system_and_seen_by_who_has_them(rig: Rig):
    path = f"/v1/premises/{HOME}"
    expected = {"id": HOME, "epoch": 1, "since": "2026-09-21T14:13:20.000Z"}
    for role in (Role.CUSTOMER, Role.REP, Role.CCS):
        assert (await rig.by[role].get(path)).json() == expected | {"account": ACCOUNT}
    assert (await rig.by[Role.INSTALLER].get(path)).json() == expected, "field staff learn no account"
    for role in (*PEOPLE, Role.OPERATOR, Role.SECURITY, Role.AUDITOR):
        assert (await rig.by[role].put(path, json={"account": "mine"})).status_code == 403
    for id in ("home-8", "nowhere"):
        answer = await rig.by[Role.CUSTOMER].get(f"/v1/premises/{id}")
        assert (answer.status_code, slug(answer)) == (404, "premises-not-found")
    assert (await rig.by[Role.CCS].get("/v1/premises/nowhere")).status_code == 404
    rig.clock.advance(60)
    moved = await rig.by[Role.CCS].put(path, json={"account": "account-9"})
    assert (moved.json()["epoch"], moved.json()["since"]) == (2, "2026-09-21T14:14:20.000Z")
    assert (await rig.by[Role.CUSTOMER].get(path)).status_code == 404
    assert (await rig.by[Role.CCS].put(path, json={"account": None})).json()["account"] is None


@covers("O17")
async def test_after_a_move_the_old_owner_sees_nothing_and_the_new_one_nothing_older(rig: Rig):
    await rig.desire({"secret": "old"})
    await rig.desire({"secret": "older"})
    rig.clock.advance(60)
    await rig.by[Role.CCS].put(f"/v1/premises/{HOME}", json={"account": "account-9"})
    rig.tokens.holders["new"] = Principal("nora", Role.CUSTOMER, "account-9")
    old = rig.by[Role.CUSTOMER]
    async with client(rig.app, {"Authorization": "Bearer new"}) as new:
        for path in ("/v1/things/hall", SHADOW, f"{SHADOW}/history", f"{SHADOW}/history/1", f"{SHADOW}/live"):
            answer = await old.get(path)
            assert (answer.status_code, slug(answer)) == (404, "thing-not-found"), path
        assert (await new.get(SHADOW)).status_code == 200
        assert (await new.get(f"{SHADOW}/history")).json() == {"items": []}
        for path in (
            "/history/1",
            "/history/2",
            "/history/2?diff=1",
            "?version=1",
            "?at=2026-09-21T14:13:20Z",
        ):
            answer = await new.get(f"{SHADOW}{path}")
            assert (answer.status_code, slug(answer)) == (404, "version-not-found"), path
        restored = await new.post(f"{SHADOW}/restore", json={"version": 1}, headers={"If-Match": '"2"'})
        assert slug(restored) == "version-not-found"
        for value in ("old", "wrong"):
            test = [{"op": "test", "path": "/desired/secret", "value": value}]
            tried = await new.patch(SHADOW, json=test, headers=JSON_PATCH | {"If-Match": '"1"'})
            assert (tried.status_code, slug(tried)) == (412, "precondition-failed")
        rig.clock.advance(60)
        assert (await new.patch(SHADOW, json={"desired": {"mine": 1}}, headers=MERGE)).status_code == 200
        (row,) = (await new.get(f"{SHADOW}/history")).json()["items"]
        assert (row["version"], row["actor"]) == (3, "nora")
        assert (await new.get(f"{SHADOW}/history/3?diff=2")).status_code == 404
    async with stream(rig.app, f"{SHADOW}/live", "new", last="0") as reader:
        (whole,) = await reader.until(1)
    assert (whole["event"], whole["id"]) == ("shadow", "3"), "what was missed is not theirs: it begins anew"


# Shadows


async def test_a_customer_reads_all_shadows_and_desires_the_classic_one_only(rig: Rig):
    customer = rig.by[Role.CUSTOMER]
    assert (await customer.patch(SHADOW, json={"desired": {"a": 1}}, headers=MERGE)).status_code == 200
    for name in ("config", "program", "han", "firmware", "own"):
        answer = await customer.patch(
            f"/v1/things/hall/shadows/{name}", json={"desired": {"a": 1}}, headers=MERGE
        )
        assert (answer.status_code, slug(answer)) == (403, "forbidden"), name
    assert (await customer.delete(SHADOW)).status_code == 204


async def test_the_han_shadow_and_its_name_are_the_customers_and_nobody_elses(rig: Rig):
    await rig.services.shadows.submit([_han_report(rig)])
    han = f"/v1/things/{METER}/shadows/han"
    for path in (han, f"{han}/history"):
        assert (await rig.by[Role.CUSTOMER].get(path)).status_code == 200
        for role in (Role.REP, Role.INSTALLER, Role.OPERATOR, Role.VEN, Role.SECURITY, Role.AUDITOR):
            assert (await rig.by[role].get(path)).status_code == 403, (role, path)
    names = f"/v1/things/{METER}/shadows"
    aws = f"/api/things/shadow/ListNamedShadowsForThing/{METER}"
    assert (await rig.by[Role.CUSTOMER].get(names)).json()["items"] == ["han"]
    assert (await rig.by[Role.CUSTOMER].get(aws)).json()["results"] == ["han"]
    for role in (Role.REP, Role.INSTALLER, Role.OPERATOR):
        assert (await rig.by[role].get(names)).json()["items"] == []
        assert (await rig.by[role].get(aws)).json()["results"] == []


def _han_report(rig: Rig) -> Any:
    origin = Origin(METER, Role.GATEWAY, Channel.MQTT)
    payload = msgspec.json.encode({"state": {"reported": {"seen": {}, "net": {"state": "NORMAL"}}}})
    return parse_update(payload, ShadowId(METER, "han"), origin, rig.services.settings.limits)


@covers("O4")
async def test_history_names_no_other_person(rig: Rig):
    rig.tokens.holders["ines"] = Principal("ines", Role.INSTALLER, reach=frozenset({HOME}))
    async with client(rig.app, {"Authorization": "Bearer ines"}) as installer:
        assert (await installer.patch(SHADOW, json={"desired": {"a": 1}}, headers=MERGE)).status_code == 200
    await rig.desire({"a": 2})
    await rig.report("hall", {"a": 2})
    rows = (await rig.http.get(f"{SHADOW}/history")).json()["items"]
    assert [row["actor"] for row in rows] == ["hall", "customer", "installer"]
    assert "ines" not in str(rows)


async def test_a_thing_speaks_for_itself_and_a_gateway_for_what_is_attached(rig: Rig):
    rig.tokens.holders["gw"] = Principal(METER, Role.GATEWAY)
    body = {"state": {"reported": {"a": 1}}}
    async with client(rig.app, {"Authorization": "Bearer gw"}) as gateway:
        assert (await gateway.post(f"/things/{METER}/shadow", json=body)).status_code == 200
        for name in ("hall", OTHER, "nobody"):
            answer = await gateway.post(f"/things/{name}/shadow", json=body)
            assert (answer.status_code, answer.json()) == (404, {"message": "Thing not found"})
        await rig.services.registry.attach(METER, "hall", OPERATOR)
        assert (await gateway.post("/things/hall/shadow", json=body)).status_code == 200
        assert (await gateway.get("/things/hall/shadow?name=han")).status_code == 403
    assert (await rig.by[Role.DEVICE].post("/things/hall/shadow", json=body)).status_code == 200
    assert (await rig.by[Role.DEVICE].get(f"/things/{METER}/shadow")).status_code == 404


# A second factor


async def test_an_operator_confirms_each_wish_with_a_second_factor_of_now(rig: Rig):
    wish = msgspec.json.encode({"desired": {"limit": 3}})
    plain = await rig.by[Role.OPERATOR].patch(CONFIG, content=wish, headers=MERGE)
    assert (plain.status_code, slug(plain)) == (401, "insufficient-user-authentication")
    assert plain.headers["www-authenticate"] == (
        'Bearer realm="gnomon", error="insufficient_user_authentication", acr_values="step-up", max_age="120"'
    )
    media = {"Content_Type": MERGE["Content-Type"]}
    done = await rig.confirmed(Role.OPERATOR, Action.SHADOW_DESIRE, "PATCH", CONFIG, wish, **media)
    assert (done.status_code, done.json()["state"]) == (200, {"desired": {"limit": 3}})


@pytest.mark.parametrize("change", ["body", "path", "method", "query", "action", "person", "again", "none"])
async def test_what_was_confirmed_is_what_runs_and_nothing_else(rig: Rig, change: str):
    wish, other = (msgspec.json.encode({"desired": {"limit": limit}}) for limit in (3, 4))
    operator = principal_of(Role.OPERATOR)
    token = rig.confirmations.confirm(
        replace(operator, name="somebody") if change == "person" else operator,
        Action.EVENT_CREATE if change == "action" else Action.SHADOW_DESIRE,
        f"PATCH {CONFIG}?x=1" if change == "query" else f"PATCH {CONFIG}",
        wish,
    )
    headers = MERGE | {"Gnomon-Step-Up": "made-up" if change == "none" else token}
    if change == "again":
        assert (await rig.by[Role.OPERATOR].patch(CONFIG, content=wish, headers=headers)).status_code == 200
    before = await rig.store.get("shadows", [f"{METER}/config"])
    answer = await rig.by[Role.OPERATOR].request(
        "POST" if change == "method" else "PATCH",
        f"/v1/things/{METER}/shadows/{'@classic' if change == 'path' else 'config'}"
        + ("/restore" if change == "method" else ""),
        content=other if change == "body" else wish,
        headers=headers,
    )
    assert (answer.status_code, slug(answer)) == (401, "insufficient-user-authentication")
    assert await rig.store.get("shadows", [f"{METER}/config"]) == before


async def test_a_second_factor_that_is_missing_or_made_up_is_refused_in_the_audit(rig: Rig):
    wish = msgspec.json.encode({"desired": {"limit": 3}})
    for token in ({}, {"Gnomon-Step-Up": "made-up"}):
        await rig.by[Role.OPERATOR].patch(CONFIG, content=wish, headers=MERGE | token)
    (row,) = [row for row in await rig.audit() if row["decision"] == "refused"]
    assert (row["actor"], row["action"], row["count"]) == (
        principal_of(Role.OPERATOR).name,
        Action.SHADOW_DESIRE,
        2,
    )
    assert row["reason"].startswith("a fresh second factor is needed")


async def test_a_confirmation_does_not_help_where_there_is_no_right(rig: Rig):
    wish = msgspec.json.encode({"desired": {"limit": 3}})
    media = {"Content_Type": MERGE["Content-Type"]}
    for name in ("hall", OTHER, "nobody"):
        path = f"/v1/things/{name}/shadows/config"
        answer = await rig.confirmed(Role.OPERATOR, Action.SHADOW_DESIRE, "PATCH", path, wish, **media)
        assert (answer.status_code, slug(answer)) == (404, "thing-not-found")


async def test_a_body_to_be_confirmed_is_bounded_and_must_come_plain(rig: Rig):
    bound = rig.services.settings.limits.request_bytes_max
    big = b" " * (bound + 1)
    answer = await rig.confirmed(Role.OPERATOR, Action.SHADOW_DESIRE, "PATCH", CONFIG, big)
    assert answer.status_code == 413
    path = f"/v1/things/{METER}/shadows/@classic"
    answer = await rig.confirmed(
        Role.OPERATOR, Action.SHADOW_DESIRE, "PATCH", path, b"{}", Content_Encoding="gzip"
    )
    assert answer.status_code == 415


# Streams


async def _ended_by(tmp_path: Path, act: Any) -> None:
    async with api(tmp_path, limits=ApiLimits(rights_check_s=0.01)) as rig:
        await rig.desire({"a": 1})
        async with stream(rig.app, f"{SHADOW}/live", "token-customer") as reader:
            await reader.until(1)
            await asyncio.sleep(0.05)
            assert not reader.ended.is_set()
            await act(rig)
            await reader.until_ended()


async def test_a_stream_ends_when_its_token_does(tmp_path: Path):
    async def sign_out(rig: Rig) -> None:
        del rig.tokens.holders["token-customer"]

    await _ended_by(tmp_path, sign_out)


async def test_a_stream_ends_when_its_reader_moves_out(tmp_path: Path):
    async def move(rig: Rig) -> None:
        await rig.services.registry.hand_over(HOME, "account-9", OPERATOR)

    await _ended_by(tmp_path, move)


async def test_a_stream_ends_when_the_token_becomes_somebody_elses(tmp_path: Path):
    async def change(rig: Rig) -> None:
        rig.tokens.holders["token-customer"] = principal_of(Role.REP)

    await _ended_by(tmp_path, change)


@pytest.mark.parametrize("act", [REVOKE_THING, SUSPEND_THING, RESUME_THING], ids=lambda act: act.id)
@pytest.mark.parametrize("role", Role)
async def test_who_may_not_read_a_thing_is_told_nothing_of_it_when_they_change_it(
    rig: Rig, role: Role, act: Operation
):
    if role not in rig.by:
        return
    path = f"/v1/things/hall/{act.id.removesuffix('Thing')}"
    answer = await rig.confirmed(role, act.action, "POST", path)
    target = (await rig.services.registry.targets(["hall"]))["hall"]
    if may(principal_of(role), Action.THING_READ, target) and answer.is_success:
        assert (answer.status_code, answer.json()["name"]) == (200, "hall")
    elif answer.is_success:
        assert (answer.status_code, answer.content) == (204, b"")
    else:
        assert answer.status_code in {403, 404}
        assert "acme-pct-2" not in answer.text


async def test_a_quarantine_is_lifted_by_staff_with_a_fresh_factor_and_not_by_whom_it_was_put_on(rig: Rig):
    customer, path = rig.by[Role.CUSTOMER], "/v1/things/hall/resume"
    assert (await customer.post("/v1/things/hall/suspend")).status_code == 200
    await rig.services.registry.suspend("hall", WATCH, INSIDE, "two hold its key")
    (row,) = [row for row in await rig.audit() if row["actor"] == WATCH.name]
    assert (row["action"], row["reason"]) == ("thing.suspend", "two hold its key")
    for _ in range(2):
        refused = await customer.post(path)
        assert (refused.status_code, slug(refused)) == (403, "forbidden")
        assert (await customer.post("/v1/things/hall/suspend")).status_code == 200
    for role in (Role.OPERATOR, Role.SECURITY):
        missing = await rig.by[role].post(path)
        assert slug(missing) == "insufficient-user-authentication"
        assert (await rig.confirmed(role, Action.THING_RESUME, "POST", path)).status_code == 204
        await rig.services.registry.suspend("hall", WATCH)
    await rig.confirmed(Role.SECURITY, Action.THING_RESUME, "POST", path)
    assert "suspended_at" not in (await customer.get("/v1/things/hall")).json()


async def test_a_customer_stops_nothing_of_the_utilitys(rig: Rig):
    customer, path = rig.by[Role.CUSTOMER], f"/v1/things/{METER}"
    before = (await customer.get(path)).json()
    for method, act in (("DELETE", ""), ("POST", "/revoke"), ("POST", "/suspend"), ("POST", "/resume")):
        answer = await customer.request(method, path + act)
        assert (answer.status_code, slug(answer)) == (403, "forbidden")
    assert (await customer.get(path)).json() == before
