"""Things, gateways, audit and status over HTTP."""

from typing import Any

import pytest

from registry.rules import THINGS_PER_PREMISES_MAX
from security.policy import Role
from security.trust.revocation import RevocationError
from tests.api.rig import ACCOUNT, OPERATOR, SHADOW, Rig, slug

NEW = {"name": "attic", "kind": "device", "model": "acme-pct-2", "premises": "home-7"}
GATEWAY = {"name": "gw-7", "kind": "gateway", "model": "acme-gw", "premises": "home-7"}


async def _register(rig: Rig, body: dict[str, Any], **headers: str):
    return await rig.http.post("/v1/things", json=body, headers=headers)


async def test_a_thing_is_registered_and_found(rig: Rig):
    answer = await _register(rig, NEW)
    assert (answer.status_code, answer.headers["location"]) == (201, "/v1/things/attic")
    expected = NEW | {
        "has_certificate": True,
        "owner": "customer",
        "registered_at": "2026-09-21T14:13:20.000Z",
    }
    assert answer.json() == expected
    assert (await rig.http.get("/v1/things/attic")).json() == expected


async def test_a_name_is_given_once(rig: Rig):
    await _register(rig, NEW)
    answer = await _register(rig, NEW | {"model": "other"})
    assert (answer.status_code, slug(answer)) == (409, "thing-exists")
    assert (await rig.http.get("/v1/things/attic")).json()["model"] == "acme-pct-2"


async def test_a_full_home_takes_no_more_and_says_so(rig: Rig):
    key = {"Idempotency-Key": "k-1"}
    there = len((await rig.http.get("/v1/things?premises=home-7")).json()["items"])
    for number in range(THINGS_PER_PREMISES_MAX - there):
        assert (await _register(rig, NEW | {"name": f"d{number}"}, **key)).status_code == 201
    answer = await _register(rig, NEW)
    assert (answer.status_code, slug(answer)) == (409, "premises-full")
    assert answer.json()["detail"] == "premises have at most 64 things: remove one that is no more"
    assert (await rig.http.get("/v1/things/attic")).status_code == 404
    assert (await _register(rig, NEW | {"name": "d0"}, **key)).status_code == 201


async def test_a_repeat_under_a_key_is_answered_as_the_first(rig: Rig):
    key = {"Idempotency-Key": "k-1"}
    first = await _register(rig, NEW, **key)
    rig.clock.advance(60)
    again = await _register(rig, NEW, **key)
    assert (again.status_code, again.json()) == (201, first.json())
    assert (await _register(rig, NEW | {"model": "other"}, **key)).status_code == 409


@pytest.mark.parametrize(
    "change",
    [
        {"name": "a b"},
        {"name": ""},
        {"name": "x" * 65},
        {"name": None},
        {"kind": "meter"},
        {"model": ""},
        {"premises": "x" * 129},
        {"has_certificate": 1},
        {"extra": 1},
    ],
)
async def test_what_cannot_be_a_thing_is_400_and_nothing_is_registered(rig: Rig, change: dict[str, Any]):
    answer = await _register(rig, NEW | change)
    assert (answer.status_code, slug(answer)) == (400, "invalid-request")
    assert len((await rig.http.get("/v1/things")).json()["items"]) == 1


async def test_a_body_without_json_type_is_415(rig: Rig):
    answer = await rig.http.post("/v1/things", content=b"{}", headers={"Content-Type": "text/plain"})
    assert (answer.status_code, slug(answer)) == (415, "unsupported-media-type")


async def test_a_body_of_a_thing_is_bounded(rig: Rig):
    bound = rig.services.limits.body_bytes_max
    headers = {"Content-Type": "application/json"}
    for length, status in ((bound, 201), (bound + 1, 413)):
        name = f"t{length}"
        body = b'{"name":"%b","kind":"device","model":"m","premises":"home-7"}' % name.encode()
        answer = await rig.http.post("/v1/things", content=body.ljust(length), headers=headers)
        assert answer.status_code == status


async def test_things_are_listed_by_premises_and_kind_over_pages(rig: Rig):
    await rig.services.registry.hand_over("home-8", ACCOUNT, OPERATOR)
    for number in range(5):
        await _register(rig, NEW | {"name": f"d{number}", "premises": "home-8"})
    await _register(rig, GATEWAY | {"name": "gw-8", "premises": "home-8"})
    found: list[str] = []
    params = {"premises": "home-8", "kind": "device", "limit": "2"}
    while True:
        page = (await rig.http.get("/v1/things", params=params)).json()
        found += [item["name"] for item in page["items"]]
        if "next" not in page:
            break
        params["cursor"] = page["next"]
    assert sorted(found) == [f"d{number}" for number in range(5)]
    kinds = (await rig.http.get("/v1/things", params={"kind": "gateway"})).json()["items"]
    assert [item["name"] for item in kinds] == ["gw-8"]


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("kind=meter", "invalid-request"),
        ("limit=0", "invalid-request"),
        ("limit=101", "invalid-request"),
        ("cursor=nonsense", "invalid-cursor"),
        ("premises=", "invalid-request"),
        ("color=red", "invalid-request"),
    ],
)
async def test_a_bad_query_for_things_is_400(rig: Rig, query: str, word: str):
    answer = await rig.http.get(f"/v1/things?{query}")
    assert (answer.status_code, slug(answer)) == (400, word)


async def test_a_thing_goes_with_its_shadows_and_their_history(rig: Rig):
    await rig.desire({"a": 1})
    assert (await rig.http.delete("/v1/things/hall")).status_code == 204
    assert slug(await rig.http.get("/v1/things/hall")) == "thing-not-found"
    assert slug(await rig.http.get(SHADOW)) == "thing-not-found"
    await _register(rig, NEW | {"name": "hall"})
    assert slug(await rig.http.get(SHADOW)) == "shadow-not-found"
    assert slug(await rig.http.get(f"{SHADOW}/history")) == "shadow-not-found"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/revoke"),
        ("POST", "/suspend"),
        ("POST", "/resume"),
        ("GET", "/gateways"),
        ("GET", "/shadows"),
    ],
)
async def test_a_thing_that_is_not_there_is_404_and_a_bad_name_400(rig: Rig, method: str, path: str):
    assert slug(await rig.http.request(method, f"/v1/things/nobody{path}")) == "thing-not-found"
    assert slug(await rig.http.request(method, f"/v1/things/no%20body{path}")) == "invalid-request"


async def test_a_revoked_thing_stays_revoked_from_the_first_time_on(rig: Rig):
    first = (await rig.http.post("/v1/things/hall/revoke")).json()
    rig.clock.advance(60)
    again = (await rig.http.post("/v1/things/hall/revoke")).json()
    assert first["revoked_at"] == again["revoked_at"] == "2026-09-21T14:13:20.000Z"


async def test_a_suspended_thing_goes_on_when_it_is_let(rig: Rig):
    suspended = (await rig.http.post("/v1/things/hall/suspend")).json()
    assert suspended["suspended_at"] == "2026-09-21T14:13:20.000Z"
    assert (await rig.http.post("/v1/things/hall/suspend")).json() == suspended
    resumed = await rig.http.post("/v1/things/hall/resume")
    assert "suspended_at" not in resumed.json()
    assert (await rig.http.post("/v1/things/hall/resume")).json() == resumed.json()
    acts = [row["action"] for row in await rig.audit() if row["target"] == "thing/hall"]
    assert sorted(acts) == ["thing.register", "thing.resume", "thing.suspend"]


async def test_what_could_prove_the_name_of_a_removed_thing_is_revoked_before(rig: Rig):
    await rig.http.delete("/v1/things/hall")
    after = {row["action"]: row.get("version_after", 0) for row in await rig.audit()}
    assert 0 < after["thing.revoke"] < after["thing.remove"]


async def test_a_name_is_not_given_away_while_its_certificates_are_not_on_the_list(rig: Rig):
    async def fails(*_: Any) -> bool:
        raise RevocationError("ask again")

    object.__setattr__(rig.services, "revoke", fails)
    for method, path in (("DELETE", ""), ("POST", "/revoke")):
        answer = await rig.http.request(method, f"/v1/things/hall{path}")
        assert slug(answer) == "service-unavailable"
    assert (await rig.http.get("/v1/things/hall")).status_code == 200


async def test_a_gateway_is_attached_listed_and_detached(rig: Rig):
    await _register(rig, GATEWAY)
    pair = "/v1/gateways/gw-7/things/hall"
    attached = await rig.http.put(pair)
    expected = {"gateway": "gw-7", "thing": "hall", "epoch": 1, "since": "2026-09-21T14:13:20.000Z"}
    assert (attached.status_code, attached.json()) == (200, expected)
    assert (await rig.http.put(pair)).json() == expected, "what is attached stays as it is"
    assert (await rig.http.get("/v1/gateways/gw-7/things")).json() == {"items": [expected]}
    assert (await rig.http.get("/v1/things/hall/gateways")).json() == {"items": [expected]}
    assert (await rig.http.delete(pair)).status_code == 204
    assert slug(await rig.http.delete(pair)) == "attachment-not-found"
    assert (await rig.http.get("/v1/gateways/gw-7/things")).json() == {"items": []}
    assert (await rig.http.put(pair)).json()["epoch"] == 2


async def test_what_cannot_be_attached_is_refused_with_its_reason(rig: Rig):
    await _register(rig, GATEWAY)
    await rig.services.registry.hand_over("home-8", ACCOUNT, OPERATOR)
    await _register(rig, NEW | {"premises": "home-8"})
    put = rig.http.put
    assert slug(await put("/v1/gateways/gw-7/things/attic")) == "premises-mismatch"
    assert slug(await put("/v1/gateways/hall/things/gw-7")) == "not-a-gateway"
    assert slug(await put("/v1/gateways/gw-7/things/nobody")) == "thing-not-found"
    assert slug(await put("/v1/gateways/nobody/things/hall")) == "thing-not-found"
    assert (await rig.http.get("/v1/gateways/gw-7/things")).json() == {"items": []}
    assert slug(await rig.http.get("/v1/gateways/nobody/things")) == "thing-not-found"


async def test_every_privileged_act_has_one_audit_entry_with_its_request(rig: Rig):
    registered = await _register(rig, NEW)
    desired = await rig.desire({"a": 1})
    await rig.http.get(SHADOW)
    entries = {entry["action"]: entry for entry in await rig.audit() if entry.get("request_id")}
    assert entries.keys() == {"thing.register", "shadow.update"}
    assert entries["thing.register"]["request_id"] == registered.headers["x-request-id"]
    assert entries["shadow.update"]["request_id"] == desired.headers["x-request-id"]
    assert entries["shadow.update"]["target"] == "shadow/hall/"


async def test_the_audit_is_read_by_time_over_pages(rig: Rig):
    for number in range(5):
        rig.clock.advance(60)
        await _register(rig, NEW | {"name": f"d{number}"})
    params = {"from": "2026-09-21T14:15:20Z", "to": "2026-09-21T14:17:20Z", "limit": "2"}
    found: list[str] = []
    while True:
        page = (await rig.by[Role.AUDITOR].get("/v1/audit", params=params)).json()
        found += [item["target"] for item in page["items"]]
        if "next" not in page:
            break
        params["cursor"] = page["next"]
    assert found == ["thing/d1", "thing/d2", "thing/d3"]
    assert slug(await rig.by[Role.AUDITOR].get("/v1/audit?cursor=x")) == "invalid-cursor"


async def test_health_says_why_not(rig: Rig):
    ready = await rig.by[Role.OPERATOR].get("/v1/health")
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "reasons": []})
    rig.reasons.append("the store took no write within 5 s")
    answer = await rig.by[Role.OPERATOR].get("/v1/health")
    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "reasons": ["the store took no write within 5 s"]}
    assert (await rig.http.get("/healthz")).json() == {"status": "alive"}, (
        "liveness says only that the loop turns"
    )


async def test_status_has_the_figures_of_the_fleet(rig: Rig):
    assert (await rig.by[Role.OPERATOR].get("/v1/status")).json() == {
        "version": "0.1.0",
        "figures": {"things": 1, "connected": 0},
    }


async def test_metrics_count_requests_by_route_and_status(rig: Rig):
    await rig.http.get(SHADOW)
    await rig.http.get("/no/such/path")
    text = (await rig.by[Role.OPERATOR].get("/v1/metrics")).text
    route = "/v1/things/{thing}/shadows/{shadow}"
    assert f'gnomon_http_requests_total{{method="GET",route="{route}",status="404"}} 1.0' in text
    assert 'gnomon_http_requests_total{method="GET",route="(none)",status="404"} 1.0' in text
    assert "gnomon_http_requests_in_flight 1.0" in text
