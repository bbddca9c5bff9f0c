"""Firmware of one thing by REST: what it runs, notes of crews, snapshots taken and given back."""

import asyncio
from typing import Any

import msgspec
import pytest

from api.replies import PiecesReply
from ota import bundle as bundles
from ota.keys import Ring
from ota.models import Execution
from ota.packing import Contents, NoBundleError
from ota.states import ExecutionState
from registry.models import NewThing, Owner, ThingKind
from security.policy import Action, Role
from shadow.document import ShadowId
from tests.api.rig import ACCOUNT, HALL, HOME, OPERATOR, api
from tests.bundles import bundle
from tests.covers import covers
from tests.key_lists import LIST, SEALED
from tests.ota_base import IMAGE, LEAVES, MANIFEST, MANIFEST_COSE, ORDER, ORDER_COSE, THINGS

THING = f"/v1/things/{HALL}"
CAMPAIGN = "6f1c7a52-0d5e-4c5b-9d1e-2f8f6a1b3c4d"
NEW = "6e97" * 16
NOTE: dict[str, Any] = {
    "order": "ab" * 32,
    "manifest": "cd" * 32,
    "sha256": NEW,
    "started_at": "2026-09-21T12:00:00Z",
    "finished_at": "2026-09-21T12:03:20Z",
    "result": "SUCCEEDED",
    "operator": "ines",
}


@pytest.fixture
async def rig(tmp_path):
    async with api(tmp_path) as made:
        yield made


@covers("I3FR6.1", "X40")
async def test_what_a_device_runs_is_shown_beside_what_it_was_asked_to_take(rig):
    await rig.report(
        HALL, {"fw": {"sha256": NEW, "version": "2.4.0.0"}, "healthy": True, "boot": 18}, "firmware"
    )
    await rig.services.ota.lane.create(
        [
            Execution(
                campaign=CAMPAIGN,
                thing=HALL,
                wave=0,
                place=0,
                proof_index=0,
                state=ExecutionState.FAILED,
                reason="image_hash",
                updated_at_ms=rig.services.clock.now_ms(),
            )
        ]
    )
    for role in (Role.CUSTOMER, Role.VEN):
        body = (await rig.by[role].get(f"{THING}/firmware")).json()
        assert body["reported"] == {"sha256": NEW, "version": "2.4.0.0", "healthy": True, "boot": 18}
        (job,) = body["executions"]
        assert (job["job"], job["state"], job["reason"]) == (
            "c-6f1c7a520d5e4c5b9d1e2f8f6a1b3c4d",
            "FAILED",
            "image_hash",
        )


async def test_a_device_that_has_said_nothing_runs_nothing_that_we_know_of(rig):
    body = (await rig.by[Role.CUSTOMER].get(f"{THING}/firmware")).json()
    assert body == {"thing": HALL, "reported": {}, "needs": [], "executions": [], "installed": []}


@covers("I3FR6.1", "X42")
async def test_an_installation_on_site_is_told_of_once_and_not_differently(rig):
    installed = rig.services.ota.installed
    device = rig.by[Role.DEVICE]
    first = await device.put(f"{THING}/installed", json=NOTE)
    assert first.status_code == 200, first.text
    assert first.json()["started_at"] == "2026-09-21T12:00:00.000Z"
    assert (await device.put(f"{THING}/installed", json=NOTE)).json() == first.json()
    other = await device.put(f"{THING}/installed", json=NOTE | {"result": "FAILED"})
    assert (other.status_code, other.json()["type"]) == (409, "/docs/problems#installation-told")
    assert len(await installed.of_thing(HALL)) == 1
    shown = (await rig.by[Role.CUSTOMER].get(f"{THING}/firmware")).json()
    assert [one["sha256"] for one in shown["installed"]] == [NEW]
    rows = [row for row in await rig.audit() if row["action"] == "installed.note"]
    assert len(rows) == 1


async def test_so_many_installations_of_a_device_are_kept_and_no_more(rig, monkeypatch):
    monkeypatch.setattr("ota.installed.NOTES_MAX", 1)
    device = rig.by[Role.DEVICE]
    assert (await device.put(f"{THING}/installed", json=NOTE)).status_code == 200
    another = await device.put(f"{THING}/installed", json=NOTE | {"order": "b" * 64})
    assert (another.status_code, another.json()["type"]) == (409, "/docs/problems#installations-full")


@covers("I3FR3.1", "X41")
async def test_a_customer_takes_a_snapshot_and_gives_it_back(rig):
    await rig.report(HALL, {"setpoint_c": 21})
    customer = rig.by[Role.CUSTOMER]
    key = {"Idempotency-Key": "k-1"}
    taken = await customer.post(f"{THING}/snapshots", headers=key)
    assert taken.status_code == 201, taken.text
    assert (await customer.post(f"{THING}/snapshots", headers=key)).json() == taken.json()
    listed = (await customer.get(f"{THING}/snapshots")).json()["items"]
    assert listed == [taken.json()]
    assert (listed[0]["why"], listed[0]["versions"]) == ("person", {"classic": 1})
    restore = f"{THING}/snapshots/{listed[0]['id']}/restore"
    done = await customer.post(restore, json={"parts": ["classic"]})
    assert done.json() == {"written": ["/classic/setpoint_c"], "dropped": []}
    shadow = await rig.services.shadows.view(ShadowId(HALL))
    assert shadow.desired.state == {"setpoint_c": 21}
    rows = [row["action"] for row in await rig.audit()]
    assert rows.count("snapshot.take") == 1


async def test_configuration_is_not_a_customers_to_give_back(rig):
    await rig.report(HALL, {"lang": "en"}, "config")
    taken = (await rig.by[Role.CUSTOMER].post(f"{THING}/snapshots")).json()
    restore = f"{THING}/snapshots/{taken['id']}/restore"
    refused = await rig.by[Role.CUSTOMER].post(restore, json={"parts": ["config"]})
    assert refused.status_code == 403
    with_nothing = await rig.by[Role.CUSTOMER].post(restore, json={"parts": []})
    assert with_nothing.status_code == 400
    assert (await rig.services.shadows.view(ShadowId(HALL, "config"))).desired.state == {}


@covers("I3FR3.1")
async def test_an_operator_who_confirms_it_gives_configuration_back_to_equipment_of_the_utility(rig):
    new = NewThing("switch", ThingKind.DEVICE, "acme-lcs-1", HOME, owner=Owner.UTILITY)
    await rig.services.registry.register(new, OPERATOR)
    await rig.report("switch", {"lang": "en"}, "config")
    taken = await rig.confirmed(Role.OPERATOR, Action.SHADOW_DESIRE, "POST", "/v1/things/switch/snapshots")
    assert taken.status_code == 201, taken.text
    restore = f"/v1/things/switch/snapshots/{taken.json()['id']}/restore"
    body = msgspec.json.encode({"parts": ["config"]})
    unconfirmed = await rig.by[Role.OPERATOR].post(restore, json={"parts": ["config"]})
    assert unconfirmed.status_code == 401
    done = await rig.confirmed(
        Role.OPERATOR, Action.SHADOW_DESIRE, "POST", restore, body, content_type="application/json"
    )
    assert done.json() == {"written": ["/config/lang"], "dropped": []}
    assert (await rig.services.shadows.view(ShadowId("switch", "config"))).desired.state == {"lang": "en"}
    assert (await rig.by[Role.OPERATOR].post(f"{THING}/snapshots")).status_code in {401, 404}


async def test_a_successor_of_another_home_is_none_and_learns_nothing(rig):
    await rig.services.registry.register(NewThing("far", ThingKind.DEVICE, "acme-pct-2", "home-9"), OPERATOR)
    customer = rig.by[Role.CUSTOMER]
    taken = (await customer.post(f"{THING}/snapshots")).json()
    restore = f"{THING}/snapshots/{taken['id']}/restore"
    for to in ("far", "nowhere"):
        answer = await customer.post(restore, json={"parts": ["classic"], "to": to})
        assert (answer.status_code, answer.json()["type"]) == (404, "/docs/problems#thing-not-found")
    await rig.services.registry.register(NewThing("attic", ThingKind.DEVICE, "acme-pct-2", HOME), OPERATOR)
    answer = await customer.post(restore, json={"parts": ["classic"], "to": "attic"})
    assert (answer.status_code, answer.json()["type"]) == (409, "/docs/problems#not-its-successor")


class Packed:
    """A campaign and its image, as those who keep them would give them."""

    view = memoryview(IMAGE)

    async def contents(self, campaign: str) -> Contents:
        if campaign != ORDER.campaign:
            raise NoBundleError(campaign)
        return Contents(
            manifest=MANIFEST_COSE,
            order=ORDER_COSE,
            names=THINGS,
            targets=THINGS,
            sha256=MANIFEST.sha256,
            block=4_096,
        )

    async def blob(self, _sha256: str) -> "Packed":
        return self

    async def leaves(self, _sha256: str, _block: int) -> bytes:
        return LEAVES

    async def ring(self) -> Ring:
        return Ring(number=LIST.number, list=SEALED)


@covers("I3FR6.1")
async def test_a_campaign_is_fetched_as_one_file(rig):
    packing: Any = rig.services.ota.packing
    packing._campaigns = packing._images = packing._keys = Packed()
    path = f"/v1/ota/campaigns/{ORDER.campaign}/bundle"
    answer = await rig.by[Role.OPERATOR].get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, bundles.MEDIA)
    assert int(answer.headers["content-length"]) == len(answer.content)
    found = bundles.opened(bundles.read(memoryview(answer.content)))
    assert found.bundle == bundle()
    assert found.keys == LIST
    nobody = await rig.by[Role.OPERATOR].get("/v1/ota/campaigns/other/bundle")
    assert (nobody.status_code, nobody.json()["type"]) == (404, "/docs/problems#bundle-not-found")
    for role in (Role.CUSTOMER, Role.REP, Role.SECURITY):
        assert (await rig.by[role].get(path)).status_code == 403


async def test_a_snapshot_of_another_time_or_thing_is_not_there(rig):
    customer = rig.by[Role.CUSTOMER]
    answer = await customer.post(f"{THING}/snapshots/s-none/restore", json={"parts": ["classic"]})
    assert (answer.status_code, answer.json()["type"]) == (404, "/docs/problems#snapshot-not-found")


async def test_who_comes_after_sees_no_snapshot_of_who_was_there_before(rig):
    await rig.report(HALL, {"setpoint_c": 21})
    customer = rig.by[Role.CUSTOMER]
    taken = (await customer.post(f"{THING}/snapshots")).json()
    rig.clock.advance(10)
    await rig.services.registry.hand_over(HOME, "", OPERATOR)
    rig.clock.advance(10)
    await rig.services.registry.hand_over(HOME, ACCOUNT, OPERATOR)
    assert (await customer.get(f"{THING}/snapshots")).json() == {"items": []}
    answer = await customer.post(f"{THING}/snapshots/{taken['id']}/restore", json={"parts": ["classic"]})
    assert answer.status_code == 404


async def test_who_takes_nothing_of_a_large_answer_is_let_go():
    sent = list[Any]()

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) > 2:  # the head and the first piece go out
            await asyncio.Event().wait()

    reply = PiecesReply(200, [(b"content-length", b"3")], [b"a", memoryview(b"b"), b"c"], timeout_s=0.01)
    asgi: Any = reply
    await asgi({}, None, send)
    assert [message.get("body") for message in sent] == [None, b"a", b"b"]
