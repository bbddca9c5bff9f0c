"""The audit trail over HTTP: sealed or not it reads as one, and a step of a verification is bounded."""

import hashlib
from typing import Any

import msgspec

from infra.documents.port import Write
from security.blocks import BLOCKS, id_of
from security.policy import Role
from security.sealer import Sealer
from tests.api.rig import HALL, Rig

NEW = {"name": "attic", "kind": "device", "model": "acme-pct-2", "premises": "home-7"}


async def seal(rig: Rig, *, publish: bool = True) -> None:
    """Do what the sealer's task does, for what is there now."""
    sealer = Sealer(rig.store, rig.clock, rig.services.heads if publish else None)
    await sealer.seal_and_publish(rig.services.refusals.keys)


async def register(rig: Rig, *names: str) -> None:
    for name in names:
        rig.clock.advance(1)
        assert (await rig.http.post("/v1/things", json=NEW | {"name": name})).status_code == 201


async def entries(rig: Rig, **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        answer = await rig.by[Role.AUDITOR].get("/v1/audit", params=params)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["items"]
        if "next" not in page:
            return found
        params["cursor"] = page["next"]


async def verify(rig: Rig) -> dict[str, Any]:
    params: dict[str, str] = {}
    while True:
        answer = await rig.by[Role.AUDITOR].get("/v1/audit/verify", params=params)
        assert answer.status_code == 200, answer.text
        said: dict[str, Any] = answer.json()
        if "next" not in said:
            return said
        params["cursor"] = said["next"]


async def test_sealed_entries_say_where_they_are_and_the_others_follow(rig: Rig):
    rows = len(await entries(rig))
    await register(rig, "a", "b")
    await seal(rig)
    await register(rig, "c")
    found = [(one["target"], one.get("block"), one.get("position")) for one in await entries(rig, limit="2")]
    first = [("thing/a", 1, rows + 1), ("thing/b", 1, rows + 2)]
    assert found[rows:] == [*first, ("thing/c", None, None)]


async def test_pages_of_one_reading_belong_together_while_time_goes_on(rig: Rig):
    await register(rig, "a", "b")
    before = {"limit": "1", "from": "2026-09-21T14:13:21Z"}
    page = (await rig.by[Role.AUDITOR].get("/v1/audit", params=before)).json()
    rig.clock.advance(5)
    again = await rig.by[Role.AUDITOR].get("/v1/audit", params=before | {"cursor": page["next"]})
    assert [one["target"] for one in again.json()["items"]] == ["thing/b"]


async def test_a_chain_that_holds_is_verified_against_its_published_heads(rig: Rig):
    rows = len(await entries(rig))
    for names in (("a",), ("b", "c"), ("d",)):
        await register(rig, *names)
        await seal(rig)
    said = await verify(rig)
    assert (said["block"], said["entries"], said["agreed"]) == (3, rows + 4, 3)
    assert "bad" not in said
    head = (await rig.by[Role.AUDITOR].get("/v1/audit/head")).json()
    assert (head["block"], head["entries"], head["hash"]) == (3, rows + 4, said["hash"])
    assert head["published"]["hash"] == said["hash"]
    assert head["public_key"].startswith("-----BEGIN PUBLIC KEY-----")


async def test_a_long_chain_is_verified_in_steps(rig: Rig):
    rows = len(await entries(rig))
    for number in range(70):
        act = "resume" if number % 2 else "suspend"
        assert (await rig.http.post(f"/v1/things/{HALL}/{act}")).is_success
        await seal(rig, publish=number % 9 == 0)
    first = (await rig.by[Role.AUDITOR].get("/v1/audit/verify")).json()
    assert first["block"] == 64
    assert "next" in first
    assert await verify(rig) == {**await verify(rig), "block": 70, "entries": rows + 70, "agreed": 64}


async def test_a_changed_block_is_named(rig: Rig):
    rows = len(await entries(rig))
    await register(rig, "a", "b")
    await seal(rig)
    (document,) = (await rig.store.get(BLOCKS.name, [id_of(1)])).values()
    body = document.body.replace(b'"target":"thing/a"', b'"target":"thing/z"')
    assert body != document.body
    await rig.store.commit([Write(BLOCKS.name, document.id, 1, body, document.index)])
    bad = (await verify(rig))["bad"]
    assert (bad["block"], bad["position"], bad["entry"]) == (1, rows + 1, "thing/a:1")


async def test_a_cut_chain_is_found_by_the_published_head(rig: Rig):
    for name in ("a", "b"):
        await register(rig, name)
        await seal(rig)
    await rig.store.commit([Write(BLOCKS.name, id_of(2), 1, None)])
    said = await verify(rig)
    assert (said["bad"]["block"], said["bad"]["position"]) == (2, 0)
    assert "published" in said["bad"]["problem"]


async def test_a_head_that_was_not_signed_by_us_is_said(rig: Rig):
    await register(rig, "a")
    await seal(rig)
    file = rig.services.settings.directory / "elsewhere" / "heads.jsonl"
    line = msgspec.json.decode(file.read_bytes())
    file.write_bytes(msgspec.json.encode(line | {"entries": 1}) + b"\n")
    assert "signature" in (await verify(rig))["bad"]["problem"]


async def test_only_an_auditor_verifies(rig: Rig):
    for role in Role:
        answer = await rig.by[role].get("/v1/audit/verify")
        assert answer.status_code == (200 if role is Role.AUDITOR else 403), role


async def test_a_made_up_cursor_of_a_verification_is_refused(rig: Rig):
    for cursor in ("x", "kZKmdmVyaWZ5"):
        answer = await rig.by[Role.AUDITOR].get("/v1/audit/verify", params={"cursor": cursor})
        assert answer.status_code == 400
        assert answer.json()["type"].endswith("invalid-cursor")


async def test_an_entry_has_every_field_of_an_act_over_http(rig: Rig):
    sent = msgspec.json.encode(NEW)
    answer = await rig.http.post("/v1/things", content=sent, headers={"Content-Type": "application/json"})
    (entry,) = [one for one in await entries(rig) if one["target"] == "thing/attic"]
    entry.pop("at")
    by = await rig.services.bearer.principal(rig.token)
    assert by is not None
    assert entry == {
        "actor": by.name,
        "role": by.role,
        "action": "thing.register",
        "target": "thing/attic",
        "via": "http",
        "decision": "allowed",
        "count": 1,
        "request_id": answer.headers["x-request-id"],
        "version_before": 0,
        "version_after": 1,
        "sha256": hashlib.sha256(sent).hexdigest(),
    }
