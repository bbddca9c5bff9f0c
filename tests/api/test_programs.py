"""The catalogue over HTTP: read by everybody, written by two."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from security.policy import Action, Principal, Role
from tests.api.rig import Rig, api, client, slug
from tests.covers import covers

PEOPLE = [Role.CUSTOMER, Role.REP, Role.INSTALLER, Role.OPERATOR, Role.SECURITY, Role.AUDITOR]
NEW = {"name": "Cool nights", "type": "PCT", "requires": [["load.offset", "load.setpoint"]]}
PATH = "/v1/programs/cool-nights"
FLAT = {
    "kind": "tariff",
    "schema": {"type": "object", "properties": {"price": {"type": "string"}}, "additionalProperties": False},
}


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with api(tmp_path) as rig:
        await rig.services.programs.catalogue.seed()
        yield rig


async def _ask(rig: Rig, method: str, path: str, body: Any = None, **headers: str) -> Any:
    """Have the operator ask for something that takes two."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return await rig.by[Role.OPERATOR].request(method, path, json=body, headers=fields)


async def _approve(rig: Rig, asked: Any) -> Any:
    """Have another operator approve it."""
    assert asked.status_code == 202, asked.text
    path = f"/v1/approvals/{asked.json()['id']}/approve"
    other = Principal("olga", Role.OPERATOR)
    rig.tokens.holders["olga"] = other
    token = rig.confirmations.confirm(other, Action.APPROVAL_WRITE, f"POST {path}")
    async with client(rig.app, {"Authorization": "Bearer olga", "Gnomon-Step-Up": token}) as olga:
        return await olga.post(path)


@covers("3.2/3")
@pytest.mark.parametrize("role", [*PEOPLE, Role.CCS, Role.BL])
async def test_everybody_reads_the_catalogue_before_any_commitment(rig: Rig, role: Role):
    listed = (await rig.by[role].get("/v1/programs")).json()["items"]
    assert {"cpp-27", "tou-res"} <= {one["id"] for one in listed}
    first = (await rig.by[role].get("/v1/programs?limit=2")).json()
    rest = (await rig.by[role].get(f"/v1/programs?cursor={first['next']}")).json()
    assert first["items"] + rest["items"] == listed
    assert "next" not in rest
    one = await rig.by[role].get("/v1/programs/cpp-27")
    assert one.json() in listed
    assert (await rig.by[role].get("/v1/tariffs")).json()["items"]
    assert (await rig.by[role].get("/v1/shapes/tou/1")).json()["id"] == "tou/1"
    same = await rig.by[role].get("/v1/programs/cpp-27", headers={"If-None-Match": one.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")


async def test_a_program_is_written_and_published_by_two_and_seen_by_others_once_it_is_published(rig: Rig):
    asked = await _ask(rig, "PUT", PATH, NEW, If_None_Match="*")
    assert asked.json()["decision"] == "waiting"
    assert (await rig.by[Role.OPERATOR].get(PATH)).status_code == 404, "nothing is there before"
    own = await rig.confirmed(
        Role.OPERATOR, Action.APPROVAL_WRITE, "POST", f"/v1/approvals/{asked.json()['id']}/approve"
    )
    assert own.status_code == 403, "nobody approves what they asked for"
    assert (await _approve(rig, asked)).json()["decision"] == "done"
    draft = await rig.by[Role.OPERATOR].get(PATH)
    assert (draft.json()["state"], draft.headers["etag"]) == ("DRAFT", '"1"')
    for role in (Role.CUSTOMER, Role.REP, Role.SECURITY):
        assert slug(await rig.by[role].get(PATH)) == "program-not-found"
    await _approve(rig, await _ask(rig, "POST", f"{PATH}/publish"))
    assert (await rig.http.get(PATH)).json()["state"] == "PUBLISHED"
    await _approve(rig, await _ask(rig, "POST", f"{PATH}/close"))
    assert (await rig.http.get(PATH)).json()["state"] == "CLOSED"
    refused = await _ask(rig, "POST", f"{PATH}/publish")
    assert (refused.status_code, slug(refused)) == (409, "illegal-transition")


async def test_what_has_changed_before_the_second_person_came_is_not_done(rig: Rig):
    await _approve(rig, await _ask(rig, "PUT", PATH, NEW, If_None_Match="*"))
    late = await _ask(rig, "POST", f"{PATH}/publish")
    changed = NEW | {"name": "Colder nights"}
    await _approve(rig, await _ask(rig, "PUT", PATH, changed, If_Match='"1"'))
    answer = await _approve(rig, late)
    assert (answer.status_code, slug(answer)) == (409, "act-outdated")
    assert (await rig.by[Role.OPERATOR].get(PATH)).json()["state"] == "DRAFT"
    held = await rig.by[Role.OPERATOR].get(f"/v1/approvals/{late.json()['id']}")
    assert held.json()["decision"] == "failed"
    stale = await _ask(rig, "PUT", PATH, NEW, If_Match='"1"')
    assert (stale.status_code, stale.json()["currentVersion"]) == (412, 2)


async def test_what_is_approved_is_what_was_read(rig: Rig):
    asked = await _ask(rig, "PUT", PATH, NEW, If_None_Match="*")
    facts = asked.json()["facts"]
    assert facts["version"] == "0"
    assert msgspec.json.decode(facts["body"])["requires"] == NEW["requires"]
    assert "state" not in msgspec.json.decode(facts["body"])


@pytest.mark.parametrize(
    "change",
    [{"exclusive_with": ["cool-nights"]}, {"window": {"days": "8"}}, {"params_shape": "tou/1"}],
)
async def test_what_no_program_can_be_like_is_refused_when_it_is_asked_for(rig: Rig, change: dict[str, Any]):
    answer = await _ask(rig, "PUT", PATH, NEW | change, If_None_Match="*")
    assert (answer.status_code, slug(answer)) == (422, "invalid-entry")
    assert answer.json()["problems"]
    assert (await rig.by[Role.OPERATOR].get("/v1/approvals")).json()["items"] == []


@pytest.mark.parametrize(
    "change", [{"override": {"mode": "free", "x": 1}}, {"state": "PUBLISHED"}, {"id": "x"}]
)
async def test_a_program_takes_no_member_that_is_not_its_own(rig: Rig, change: dict[str, Any]):
    assert (await _ask(rig, "PUT", PATH, NEW | change, If_None_Match="*")).status_code == 400


@pytest.mark.parametrize("role", [Role.CUSTOMER, Role.REP, Role.INSTALLER, Role.SECURITY, Role.AUDITOR])
async def test_nobody_else_writes_the_catalogue(rig: Rig, role: Role):
    for method, path in (("PUT", PATH), ("POST", f"{PATH}/publish"), ("PUT", "/v1/tariffs/t9")):
        assert (await rig.by[role].request(method, path, json={})).status_code == 403


@covers("O16")
async def test_a_new_kind_of_tariff_needs_no_code(rig: Rig):
    await _approve(rig, await _ask(rig, "PUT", "/v1/shapes/flat/1", FLAT))
    other = await _ask(rig, "PUT", "/v1/shapes/flat/1", FLAT | {"kind": "params"})
    assert (other.status_code, slug(other)) == (409, "shape-fixed")
    wrong = await _ask(
        rig, "PUT", "/v1/tariffs/night", {"shape": "flat/1", "body": {"price": 1}}, If_None_Match="*"
    )
    assert (wrong.status_code, slug(wrong)) == (422, "invalid-entry")
    tariff = {"shape": "flat/1", "body": {"price": "0.21"}}
    await _approve(rig, await _ask(rig, "PUT", "/v1/tariffs/night", tariff, If_None_Match="*"))
    read = await rig.http.get("/v1/tariffs/night")
    assert (read.json(), read.headers["etag"]) == (tariff | {"id": "night", "rev": 1}, '"1"')


async def test_business_logic_writes_at_once(rig: Rig):
    made = await rig.by[Role.BL].put(PATH, json=NEW, headers={"If-None-Match": "*"})
    assert (made.status_code, made.json()["state"], made.headers["etag"]) == (200, "DRAFT", '"1"')
    published = await rig.by[Role.BL].post(f"{PATH}/publish")
    assert published.json()["state"] == "PUBLISHED"
