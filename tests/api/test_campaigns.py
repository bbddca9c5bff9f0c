"""Campaigns over HTTP: two persons, what is told of them, live progress, and what is told to nobody."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api import campaigns as under_test
from ota import order as orders
from ota.envelope import Typ, decode, seal
from ota.states import ExecutionTrigger as Do
from security.policy import Action, Principal, Role
from tests import ota_base as base
from tests.api.campaigns import CAMPAIGNS, MERGE, SECOND, THIRD, Fleet, fleet
from tests.api.rig import api, principal_of, slug
from tests.api.streams import stream
from tests.covers import covers
from tests.fakes import FakeClock

NAMES = ["han-a", "han-b", "han-c"]
NOBODY = "00000000-0000-0000-0000-000000000000"
TOKEN = f"token-{Role.OPERATOR}"


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with api(tmp_path, clock=FakeClock(base.NOW_S * 1_000)) as rig:
        one = await fleet(rig)
        await one.add(NAMES)
        yield one


def near(value: float) -> Any:
    return pytest.approx(value)


# From the draft to the end


@covers("S3.1-s", "I3FR7", "X37")
async def test_a_campaign_is_drafted_looked_at_frozen_and_started_by_another_person(made: Fleet):
    draft = await made.draft(notes="the spring one", data="reset")
    assert (draft["state"], draft["targets"], draft["author"]) == ("DRAFT", 0, "operator")
    path = f"{CAMPAIGNS}/{draft['id']}"
    looked = (await made.http.post(f"{path}/dry-run")).json()
    assert (looked["included"], looked["excluded"], looked["waves"]) == (3, {}, [3])
    assert looked["forecast_end"] > "2026"
    frozen = (await made.http.post(f"{path}/submit", json={"note": "as agreed"})).json()
    assert (frozen["state"], frozen["targets"], frozen["counts"]["waiting"]) == ("FROZEN", 3, 0)
    own = await made.act(
        principal_of(Role.OPERATOR), Action.CAMPAIGN_APPROVE, f"{path}/approve", {"note": "mine"}
    )
    assert (own.status_code, slug(own)) == (409, "same-person")
    begun = await made.act(SECOND, Action.CAMPAIGN_APPROVE, f"{path}/approve", {"note": "tried at home"})
    assert (begun.status_code, begun.json()["approver"]) == (200, "otto")
    for _ in range(3):
        await made.tick()
    seen = await made.seen(draft["id"])
    assert (seen["state"], seen["counts"]["waiting"], sum(seen["counts"].values())) == ("RUNNING", 3, 3)
    assert (seen["job"], seen["data"], seen["notes"]) == (
        f"c-{draft['id'].replace('-', '')}",
        "reset",
        "the spring one",
    )
    assert await made.targets(draft["id"]) == dict.fromkeys(NAMES, "QUEUED")
    assert sorted(await made.acts()) == [
        ("campaigns", "campaign.start", ""),
        ("operator", "campaign.create", ""),
        ("operator", "campaign.dry_run", ""),
        ("operator", "campaign.submit", "as agreed"),
        ("otto", "campaign.approve", "tried at home"),
    ]


async def test_without_a_fresh_second_factor_nothing_starts_and_everything_stops(made: Fleet):
    id = await made.submitted()
    refused = await made.http.post(f"{CAMPAIGNS}/{id}/approve", json={})
    assert (refused.status_code, slug(refused)) == (401, "insufficient-user-authentication")
    running = await made.running(selector={"things": []})
    paused = await made.rig.by[Role.SECURITY].post(f"{CAMPAIGNS}/{running}/pause", json={"note": "a look"})
    assert paused.json()["state"] == "PAUSED"
    assert paused.json()["stop"]["reason"] == "a look"
    again = await made.http.post(f"{CAMPAIGNS}/{running}/resume", json={"note": "looked"})
    assert slug(again) == "insufficient-user-authentication"
    resumed = await made.act(
        principal_of(Role.OPERATOR),
        Action.CAMPAIGN_RESUME,
        f"{CAMPAIGNS}/{running}/resume",
        {"note": "looked"},
    )
    assert resumed.json()["state"] == "RUNNING"
    ended = await made.rig.by[Role.SECURITY].post(f"{CAMPAIGNS}/{running}/abort", json={"note": "it beeps"})
    assert ended.json()["state"] == "ABORTED"
    await made.tick()
    seen = await made.seen(running)
    assert (seen["counts"]["CANCELED"], seen["counts"]["waiting"]) == (3, 0)
    assert [act for act in await made.acts() if act[2]] == [
        ("security", "campaign.pause", "a look"),
        ("operator", "campaign.resume", "looked"),
        ("security", "campaign.abort", "it beeps"),
    ]


async def test_after_an_automatic_pause_its_author_may_not_let_it_go_on(made: Fleet):
    id = await made.running(retries=0)
    made.rig.clock.advance(1)
    await made.step(id, NAMES[:1], Do.START, Do.FAIL, reason="self_test")
    await made.tick()
    seen = await made.seen(id)
    assert (seen["state"], seen["stop"]["reason"], seen["stop"]["automatic"]) == (
        "PAUSED",
        "canary_bad",
        True,
    )
    path, why = f"{CAMPAIGNS}/{id}/resume", {"note": "only that one"}
    own = await made.act(principal_of(Role.OPERATOR), Action.CAMPAIGN_RESUME, path, why)
    assert (own.status_code, slug(own)) == (409, "same-person")
    assert (await made.act(THIRD, Action.CAMPAIGN_RESUME, path, why)).json()["state"] == "RUNNING"


async def test_an_approver_signs_the_order_with_their_own_key_and_no_other_order(made: Fleet):
    id = await made.submitted()
    path = f"{CAMPAIGNS}/{id}"
    waiting = decode(base64.b64decode((await made.seen(id))["order"]))
    assert isinstance(waiting, dict)
    order = orders.read(waiting)
    assert (order.campaign, order.count) == (id, 3)

    async def approved(payload: Any) -> Any:
        signed = base64.b64encode(seal(payload, Typ.ORDER, base.UTILITY_KEY)).decode()
        return signed, await made.act(SECOND, Action.CAMPAIGN_APPROVE, f"{path}/approve", {"order": signed})

    _, refused = await approved(waiting | {11: 20_000})
    assert (refused.status_code, slug(refused)) == (422, "campaign-unfit")
    assert refused.json()["checks"] == ["V6 order_field: it says other things than what was submitted"]
    signed, begun = await approved(waiting)
    assert begun.status_code == 200, begun.text
    assert begun.json()["order"] == signed
    noise = await made.act(SECOND, Action.CAMPAIGN_APPROVE, f"{path}/approve", {"order": "*"})
    assert noise.status_code == 400


# Drafts


async def test_the_same_request_under_one_key_makes_one_draft_and_another_body_is_refused(made: Fleet):
    key, body = {"Idempotency-Key": "k"}, {"release": made.release}
    first = await made.http.post(CAMPAIGNS, json=body, headers=key)
    assert first.headers["location"] == f"{CAMPAIGNS}/{first.json()['id']}"
    assert (await made.http.post(CAMPAIGNS, json=body, headers=key)).json() == first.json()
    other = await made.http.post(CAMPAIGNS, json=body | {"retries": 0}, headers=key)
    assert (other.status_code, slug(other)) == (422, "idempotency-mismatch")
    assert (await made.acts()) == [("operator", "campaign.create", "")]


async def test_a_change_says_only_what_is_other_and_unfreezes(made: Fleet):
    things = {"things": ["han-a"], "pinned": ["han-b"]}
    wishes: dict[str, Any] = {
        "ramp": {"per_min": 60, "factor": 1.5, "every": 500},
        "windows": [{"start": "22:00", "end": "06:00", "days": ["fri", "sat"]}],
        "thresholds": {"extras": [{"failure": "TIMED_OUT", "percent": 5, "least": 10}]},
        "start_at": "2026-09-22T20:00:00Z",
        "time_zone": "Europe/Zurich",
        "selector": things,
        "per_hour": 3_600,
    }
    id = await made.submitted(**wishes)
    before = await made.http.get(f"{CAMPAIGNS}/{id}")
    patch = {"retries": 0, "per_hour": None, "selector": {"things": ["han-a", "han-c"]}}
    blind = await made.http.patch(f"{CAMPAIGNS}/{id}", json=patch, headers=MERGE)
    assert slug(blind) == "precondition-required"
    seen = MERGE | {"If-Match": before.headers["etag"]}
    after = await made.http.patch(f"{CAMPAIGNS}/{id}", content=msgspec.json.encode(patch), headers=seen)
    assert after.status_code == 200, after.text
    assert (after.json()["state"], after.json()["targets"]) == ("DRAFT", 0)
    same = ("ramp", "windows", "thresholds", "start_at", "waves", "release", "path", "soak_s")
    assert {name: after.json()[name] for name in same} == {name: before.json()[name] for name in same}
    assert after.json()["ramp"] == wishes["ramp"]
    assert after.json()["windows"] == wishes["windows"]
    assert after.json()["time_zone"] == "Europe/Zurich"
    assert after.json()["thresholds"]["extras"] == wishes["thresholds"]["extras"]
    assert (after.json()["retries"], after.json()["per_hour"]) == (0, 10_000)
    assert after.json()["selector"] == {"things": ["han-a", "han-c"], "pinned": ["han-b"]}
    late = await made.http.patch(f"{CAMPAIGNS}/{id}", content=b"{}", headers=seen)
    assert (late.status_code, slug(late)) == (412, "precondition-failed")
    current = MERGE | {"If-Match": after.headers["etag"]}
    wrong = await made.http.patch(f"{CAMPAIGNS}/{id}", content=b'{"retries":11}', headers=current)
    assert (wrong.status_code, slug(wrong)) == (400, "invalid-request")
    unknown = await made.http.patch(f"{CAMPAIGNS}/{id}", content=b'{"color":1}', headers=current)
    assert unknown.status_code == 400
    plain = await made.http.patch(f"{CAMPAIGNS}/{id}", json={}, headers={"If-Match": '"1"'})
    assert slug(plain) == "unsupported-media-type"


async def test_what_a_second_person_approves_is_what_they_have_seen(made: Fleet):
    id = await made.submitted()
    seen = (await made.http.get(f"{CAMPAIGNS}/{id}")).headers["etag"]
    patch = MERGE | {"If-Match": seen}
    await made.http.patch(f"{CAMPAIGNS}/{id}", content=b'{"data":"reset"}', headers=patch)
    stale = await made.http.post(f"{CAMPAIGNS}/{id}/submit", headers={"If-Match": seen})
    assert slug(stale) == "precondition-failed"
    await made.http.post(f"{CAMPAIGNS}/{id}/submit")
    path = f"{CAMPAIGNS}/{id}/approve"
    late = await made.act(SECOND, Action.CAMPAIGN_APPROVE, path, {}, If_Match=seen)
    assert (late.status_code, slug(late)) == (412, "precondition-failed")
    current = (await made.http.get(f"{CAMPAIGNS}/{id}")).headers["etag"]
    assert (await made.act(SECOND, Action.CAMPAIGN_APPROVE, path, {}, If_Match=current)).status_code == 200


async def test_a_draft_is_deleted_and_what_was_started_is_not(made: Fleet):
    draft, started = (await made.draft())["id"], await made.running()
    assert (await made.http.delete(f"{CAMPAIGNS}/{draft}")).status_code == 204
    assert slug(await made.http.get(f"{CAMPAIGNS}/{draft}")) == "campaign-not-found"
    refused = await made.http.delete(f"{CAMPAIGNS}/{started}")
    assert (refused.status_code, slug(refused)) == (409, "illegal-transition")
    edited = await made.http.patch(
        f"{CAMPAIGNS}/{started}", content=b"{}", headers=MERGE | {"If-Match": '"3"'}
    )
    assert edited.status_code in {409, 412}
    assert [act for _, act, _ in await made.acts()].count("campaign.delete") == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"waves": [{"devices": 1, "percent": 2}]},
        {"activation_windows": [{"start": "22:00", "end": "06:00"}]},
        {"time_zone": "Europe/Nowhere"},
    ],
)
async def test_what_no_campaign_can_be_is_told_in_full(made: Fleet, wrong: dict[str, Any]):
    answer = await made.http.post(CAMPAIGNS, json={"release": made.release} | wrong)
    assert (answer.status_code, slug(answer)) == (422, "invalid-campaign")
    assert len(answer.json()["problems"]) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"per_hour": 0},
        {"windows": [{"start": "24:00", "end": "06:00"}]},
        {"start_at": "tomorrow"},
        {"selector": {"things": ["no body"]}},
        {"data": "forget"},
        {"release": "x"},
        {"colour": "red"},
    ],
)
async def test_what_is_no_campaign_is_not_taken(made: Fleet, wrong: dict[str, Any]):
    answer = await made.http.post(CAMPAIGNS, json={"release": made.release} | wrong)
    assert (answer.status_code, slug(answer)) == (400, "invalid-request")


async def test_what_does_not_fit_is_told_before_anybody_approves(made: Fleet):
    unknown = await made.http.post(CAMPAIGNS, json={"release": NOBODY})
    assert (unknown.status_code, slug(unknown)) == (404, "release-not-found")
    id = (await made.draft(selector={"things": ["han-x"]}, per_hour=1_000_000))["id"]
    unfit = await made.http.post(f"{CAMPAIGNS}/{id}/submit")
    assert (unfit.status_code, slug(unfit)) == (422, "campaign-unfit")
    assert [one.partition(":")[0] for one in unfit.json()["checks"]] == ["targets", "per_hour"]
    early = await made.act(SECOND, Action.CAMPAIGN_APPROVE, f"{CAMPAIGNS}/{id}/approve", {})
    assert (early.status_code, slug(early)) == (409, "illegal-transition")


async def test_a_selector_may_name_thousands(made: Fleet):
    names = [f"somebody-somewhere-{number:05d}" for number in range(20_000)]
    id = (await made.draft(selector={"things": names}))["id"]
    assert (await made.seen(id))["selector"] == {"unnamed": 20_000}
    large = {"release": made.release, "notes": "x" * under_test.CAMPAIGN_BYTES_MAX}
    assert (await made.http.post(CAMPAIGNS, json=large)).status_code == 413


async def test_lists_are_paged_and_picked_by_state(made: Fleet):
    drafts = {(await made.draft())["id"] for _ in range(3)}
    running = await made.running()
    first = (await made.http.get(CAMPAIGNS, params={"limit": 3})).json()
    rest = (await made.http.get(CAMPAIGNS, params={"cursor": first["next"]})).json()
    assert {one["id"] for one in first["items"] + rest["items"]} == drafts | {running}
    assert "next" not in rest
    (one,) = (await made.http.get(CAMPAIGNS, params={"state": "RUNNING"})).json()["items"]
    assert (one["id"], one["targets"], one["done"]) == (running, 3, 0)
    await made.http.post(f"{CAMPAIGNS}/{running}/abort", json={"note": "enough"})
    await made.tick()
    (over,) = (await made.http.get(CAMPAIGNS, params={"state": "ABORTED"})).json()["items"]
    assert (over["done"], over["stop"]["reason"]) == (3, "enough")
    assert (await made.http.get(CAMPAIGNS, params={"state": "OVER"})).status_code == 400
    assert slug(await made.http.get(CAMPAIGNS, params={"cursor": "?"})) == "invalid-cursor"


# Targets


@covers("I3NFR4")
async def test_a_target_shows_its_times_its_attempts_and_why_it_failed(made: Fleet):
    id, clock = await made.running(retries=1), made.rig.clock
    await made.step(id, NAMES[:1], Do.START)
    clock.advance(7)
    await made.step(id, NAMES[:1], Do.FAIL, reason="block_hash", details={"fs": "3"})
    path = f"{CAMPAIGNS}/{id}/executions/han-a"
    failed = (await made.http.get(path)).json()
    assert (failed["state"], failed["reason"], failed["details"]) == ("FAILED", "block_hash", {"fs": "3"})
    assert (failed["seconds"], failed["transfer_s"], failed["activation_s"]) == (near(7), near(7), near(0))
    again = await made.http.post(f"{path}/retry", json={"note": "its link was bad"})
    assert again.status_code == 200, again.text
    assert (again.json()["attempt"], again.json()["state"]) == (2, "PLANNED")
    (past,) = again.json()["attempts"]
    assert (past["number"], past["state"], past["reason"]) == (1, "FAILED", "block_hash")
    out = await made.http.post(f"{path}/cancel")
    assert (out.json()["state"], out.json()["reason"]) == ("CANCELED", "canceled")
    twice = await made.http.post(f"{path}/cancel")
    assert (twice.status_code, slug(twice)) == (409, "illegal-transition")
    assert (await made.acts())[-2:] == [
        ("operator", "campaign.retry_target", "its link was bad"),
        ("operator", "campaign.cancel_target", ""),
    ]
    seen = await made.seen(id)
    assert (seen["counts"]["CANCELED"], sum(seen["counts"].values())) == (1, 3)


async def test_targets_are_picked_by_state_wave_and_reason_and_pages_are_full(made: Fleet):
    await made.add([f"han-{number}" for number in range(9)])
    id = await made.running(retries=0, waves=[{"devices": 11}, {"percent": 100}])
    places = list(await made.targets(id))
    assert len(places) == 12
    failed = [places[1], places[6]]
    await made.step(id, failed, Do.START, Do.FAIL, reason="image_hash")
    assert await made.targets(id, state="FAILED") == dict.fromkeys(failed, "FAILED")
    assert list(await made.targets(id, reason="image_hash", limit=1)) == failed[:1]
    assert list(await made.targets(id, wave=1)) == places[11:]
    page = (await made.http.get(f"{CAMPAIGNS}/{id}/executions", params={"limit": 5, "wave": 0})).json()
    found = [one["thing"] for one in page["items"]]
    while "next" in page:
        query = {"limit": 5, "wave": 0, "cursor": page["next"]}
        page = (await made.http.get(f"{CAMPAIGNS}/{id}/executions", params=query)).json()
        found += [one["thing"] for one in page["items"]]
    assert found == places[:11]
    for wrong in ({"state": "GONE"}, {"wave": "x"}, {"cursor": "?"}, {"limit": 0}, {"colour": 1}):
        answer = await made.http.get(f"{CAMPAIGNS}/{id}/executions", params=wrong)
        assert answer.status_code == 400


async def test_a_target_that_takes_part_no_more_is_counted_and_not_named(made: Fleet):
    id = await made.running(selector={"things": NAMES})
    await made.step(id, ["han-a"], Do.START)
    await made.rig.services.registry.set_taking_part("han-a", False, THIRD)
    seen = await made.seen(id)
    assert (seen["targets"], seen["counts"]["active"]) == (3, 1)
    assert seen["selector"] == {"things": ["han-b", "han-c"], "unnamed": 1}
    listed = await made.http.get(f"{CAMPAIGNS}/{id}/executions")
    assert "han-a" not in listed.text
    path = f"{CAMPAIGNS}/{id}/executions/han-a"
    answers = [
        await made.http.get(path),
        await made.http.post(f"{path}/cancel"),
        await made.http.post(f"{path}/retry"),
    ]
    none = await made.http.get(f"{CAMPAIGNS}/{id}/executions/nobody")
    assert {(one.status_code, slug(one)) for one in answers} == {(404, slug(none))}
    assert answers[0].json()["detail"].replace("han-a", "nobody") == none.json()["detail"]
    assert "campaign.cancel_target" not in [act for _, act, _ in await made.acts()]


async def test_what_was_never_there_and_what_takes_no_part_are_one_number(made: Fleet):
    await made.add(["han-x"], taking_part=False)
    for names in (["han-x"], ["nobody"]):
        for where in ({}, {"premises": ["home-of-han-x"]}, {"premises": ["elsewhere"]}, {"owner": "utility"}):
            draft = await made.draft(selector={"things": ["han-a", *names], **where})
            looked = (await made.http.post(f"{CAMPAIGNS}/{draft['id']}/dry-run")).json()
            assert looked["excluded"] == {"NOT_ENROLLED": 1}, (names, where)
            assert looked["included"] == (0 if where else 1)


async def test_an_officer_sees_how_far_it_is_and_no_names(made: Fleet):
    id = await made.running(selector={"things": NAMES, "premises": ["home-of-han-a"]})
    officer = made.rig.by[Role.SECURITY]
    seen = (await officer.get(f"{CAMPAIGNS}/{id}")).json()
    assert (seen["counts"]["waiting"], seen["selector"]) == (1, {"unnamed": 4})
    assert (await officer.get(f"{CAMPAIGNS}/{id}/executions")).json()["items"] == []
    assert (await officer.get(f"{CAMPAIGNS}/{id}/executions/han-a")).status_code == 404


async def test_only_people_on_duty_see_campaigns_and_nobody_else_acts(made: Fleet):
    id = await made.running()
    everybody = set(Role) - {Role.OPERATOR, Role.SECURITY, Role.RELAY, Role.SYSTEM}
    for role in everybody:
        http = made.rig.by[role]
        calls = [
            await http.get(CAMPAIGNS),
            await http.get(f"{CAMPAIGNS}/{id}"),
            await http.get(f"{CAMPAIGNS}/{id}/executions/han-a"),
            await http.post(f"{CAMPAIGNS}/{id}/abort", json={"note": "x"}),
            await http.post(f"{CAMPAIGNS}/{NOBODY}/abort", json={"note": "x"}),
        ]
        assert {one.status_code for one in calls} == {403}, role
    resume = await made.act(
        Principal("olga", Role.SECURITY), Action.CAMPAIGN_RESUME, f"{CAMPAIGNS}/{id}/resume", {"note": "x"}
    )
    assert resume.status_code == 403


async def test_a_campaign_that_there_is_not_is_told_so_everywhere(made: Fleet):
    path = f"{CAMPAIGNS}/{NOBODY}"
    note = {"note": "x"}
    answers = [
        await made.http.get(path),
        await made.http.delete(path),
        await made.http.patch(path, content=b"{}", headers=MERGE | {"If-Match": '"1"'}),
        await made.http.post(f"{path}/dry-run"),
        await made.http.post(f"{path}/submit"),
        await made.act(SECOND, Action.CAMPAIGN_APPROVE, f"{path}/approve", {}),
        await made.http.post(f"{path}/pause", json=note),
        await made.http.post(f"{path}/abort", json=note),
        await made.http.get(f"{path}/live"),
        await made.http.get(f"{path}/executions"),
        await made.http.get(f"{path}/executions/han-a"),
        await made.http.post(f"{path}/executions/han-a/cancel"),
        await made.http.post(f"{path}/executions/han-a/retry"),
    ]
    assert [(one.status_code, slug(one)) for one in answers] == [(404, "campaign-not-found")] * len(answers)


async def test_who_stops_something_says_why(made: Fleet):
    id = await made.running()
    for body in ({}, {"note": ""}, {"note": "x" * 1_001}, {"note": 1}):
        assert (await made.http.post(f"{CAMPAIGNS}/{id}/pause", json=body)).status_code == 400
    assert (await made.http.post(f"{CAMPAIGNS}/{id}/pause")).status_code == 415


# Live


@covers("I3NFR4", "I3NFR5")
async def test_progress_is_told_when_it_changes_and_only_then(made: Fleet, monkeypatch):
    monkeypatch.setattr(under_test, "TELL_S", 0.01)
    id = await made.running()
    async with stream(made.rig.app, f"{CAMPAIGNS}/{id}/live", TOKEN) as reader:
        (first,) = await reader.until(1)
        await made.step(id, NAMES[:1], Do.START)
        made.rig.clock.advance(41)
        await made.step(id, NAMES[:1], Do.CONFIRM, Do.SUCCEED)
        while (told := msgspec.json.decode(reader.events[-1]["data"]))["counts"]["SUCCEEDED"] == 0:
            await reader.until(len(reader.events) + 1)
        other = await made.draft()
        await made.http.delete(f"{CAMPAIGNS}/{other['id']}")
        await asyncio.sleep(0.05)
        count = len(reader.events)
        paused = await made.http.post(f"{CAMPAIGNS}/{id}/pause", json={"note": "lunch"})
        assert paused.status_code == 200
        last = (await reader.until(count + 1))[-1]
    begun = msgspec.json.decode(first["data"])
    assert (first["event"], begun["counts"]["waiting"], begun["targets"]) == ("progress", 3, 3)
    assert "han-" not in str(reader.events)
    assert (told["counts"]["waiting"], told["counts"]["active"]) == (2, 0)
    assert (told["clocks"]["max_s"], told["clocks"]["limit_s"], told["clocks"]["over"]) == (near(41), 300, 0)
    assert (told["clocks"]["per_hour"], told["clocks"]["per_hour_aim"]) == (1, 10_000)
    ended = msgspec.json.decode(last["data"])
    assert (ended["state"], ended["stop"]["reason"]) == ("PAUSED", "lunch")
    assert len({event["id"] for event in reader.events}) == len(reader.events)


async def test_who_comes_back_is_told_nothing_twice_and_misses_no_change(made: Fleet, monkeypatch):
    monkeypatch.setattr(under_test, "TELL_S", 0.01)
    id = await made.running()
    path = f"{CAMPAIGNS}/{id}/live"
    async with stream(made.rig.app, path, TOKEN) as reader:
        (told,) = await reader.until(1)
    async with stream(made.rig.app, path, TOKEN, last=told["id"]) as reader:
        await asyncio.sleep(0.1)
        assert reader.events == []
        await made.step(id, NAMES[:1], Do.START)
        (news,) = await reader.until(1)
    await made.step(id, NAMES[1:2], Do.START)
    async with stream(made.rig.app, path, TOKEN, last=news["id"]) as reader:
        (missed,) = await reader.until(1)
    assert msgspec.json.decode(missed["data"])["counts"]["active"] == 2


async def test_many_who_watch_cost_one_look_a_second(made: Fleet, monkeypatch):
    monkeypatch.setattr(under_test, "TELL_S", 0.2)
    id, looks, progress = await made.running(), 0, under_test._progress

    async def counted(*given: Any) -> Any:
        nonlocal looks
        looks += 1
        return await progress(*given)

    monkeypatch.setattr(under_test, "_progress", counted)
    path = f"{CAMPAIGNS}/{id}/live"
    async with (
        stream(made.rig.app, path, TOKEN) as one,
        stream(made.rig.app, path, TOKEN) as two,
        stream(made.rig.app, path, TOKEN) as three,
    ):
        readers = (one, two, three)
        for reader in readers:
            await reader.until(1)
        for thing in NAMES:
            await made.step(id, [thing], Do.START)
        for reader in readers:
            while '"active":3' not in reader.events[-1]["data"]:
                await reader.until(len(reader.events) + 1)
    assert looks <= 4


async def test_all_streams_of_a_draft_end_when_it_is_deleted(made: Fleet, monkeypatch):
    monkeypatch.setattr(under_test, "TELL_S", 0.01)
    draft = (await made.draft())["id"]
    path = f"{CAMPAIGNS}/{draft}/live"
    async with stream(made.rig.app, path, TOKEN) as one, stream(made.rig.app, path, TOKEN) as two:
        for reader in (one, two):
            await reader.until(1)
        await made.http.delete(f"{CAMPAIGNS}/{draft}")
        for reader in (one, two):
            await reader.until_ended()


async def test_each_act_has_exactly_one_row_with_its_request(made: Fleet):
    id = (await made.draft())["id"]
    path, note = f"{CAMPAIGNS}/{id}", {"note": "why"}
    etag = (await made.http.get(path)).headers["etag"]
    edited = await made.http.patch(
        path, content=b'{"retries":0}', headers=MERGE | {"If-Match": etag, "X-Request-Id": "r-edit"}
    )
    answers = [
        edited,
        await made.http.post(f"{path}/dry-run"),
        await made.http.post(f"{path}/submit", json=note),
        await made.act(SECOND, Action.CAMPAIGN_APPROVE, f"{path}/approve", note),
    ]
    for _ in range(3):
        await made.tick()
    answers += [
        await made.http.post(f"{path}/pause", json=note),
        await made.act(SECOND, Action.CAMPAIGN_RESUME, f"{path}/resume", note),
        await made.http.post(f"{path}/executions/han-a/cancel", json=note),
    ]
    await made.step(id, ["han-b"], Do.FAIL, reason="image_hash")
    answers += [
        await made.http.post(f"{path}/executions/han-b/retry", json=note),
        await made.http.post(f"{path}/abort", json=note),
    ]
    assert [one.status_code for one in answers] == [200] * len(answers), [one.text for one in answers]
    rows = [row for row in await made.rig.audit() if row["decision"] == "allowed"]
    for answer in answers:
        request = answer.headers["x-request-id"]
        assert len([row for row in rows if row.get("request_id") == request]) == 1, request
