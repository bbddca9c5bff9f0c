"""Releases and signing keys over HTTP: who may what, and what is told of a refusal."""

import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ota import key_list
from ota.envelope import public_of
from security.policy import Action, Principal, Role
from tests import ota_base as base
from tests.api.device_rig import device
from tests.api.released import provide
from tests.api.rig import Rig, api, slug
from tests.covers import covers
from tests.fakes import FakeClock
from tests.release_rig import MANIFEST, OFFICER, OTHER, sealed

RELEASES = "/v1/ota/releases"
KEYS = "/v1/ota/keys"
LIST = "/.well-known/gnomon/keys"
SECOND = "token-second"


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with api(tmp_path, clock=FakeClock(base.NOW_S * 1_000)) as rig:
        yield rig


@pytest.fixture
async def ready(rig: Rig) -> Rig:
    """Register the vendor's key, describe the model, send the image; have a second operator and officer."""
    await provide(rig)
    await rig.by[Role.OPERATOR].put(f"/v1/ota/images/{MANIFEST.sha256}", content=base.IMAGE)
    return rig


def body(manifest: Any = MANIFEST) -> dict[str, str]:
    return {"image": manifest.sha256, "manifest": base64.b64encode(sealed(manifest)).decode()}


async def act(rig: Rig, who: Principal, action: Action, path: str, sent: Any = None):
    """Post as somebody who has confirmed it by a fresh second factor."""
    data = b"" if sent is None else msgspec.json.encode(sent)
    rig.tokens.holders[SECOND] = who
    token = rig.confirmations.confirm(who, action, f"POST {path}", data)
    headers = {"Authorization": f"Bearer {SECOND}", "Gnomon-Step-Up": token}
    if sent is not None:
        headers["Content-Type"] = "application/json"
    return await rig.stranger.post(path, content=data, headers=headers)


@covers("S3.1-s")
async def test_a_release_is_brought_by_one_let_out_by_another_and_taken_back_by_either(ready: Rig):
    http = ready.by[Role.OPERATOR]
    made = await http.post(RELEASES, json=body(), headers={"Idempotency-Key": "k"})
    assert made.status_code == 201
    release = made.json()
    assert (release["state"], release["manifest"]["version"], release["author"]) == (
        "verified",
        "2.4.0.0",
        "operator",
    )
    again = await http.post(RELEASES, json=body(), headers={"Idempotency-Key": "k"})
    assert again.json() == release
    path = f"{RELEASES}/{release['id']}"
    own = await act(ready, Principal("operator", Role.OPERATOR), Action.IMAGE_RELEASE, f"{path}/release")
    assert (own.status_code, slug(own)) == (409, "same-person")
    out = await act(ready, OTHER, Action.IMAGE_RELEASE, f"{path}/release")
    assert (out.status_code, out.json()["state"]) == (200, "released")
    listed = (await http.get(RELEASES, params={"state": "released"})).json()["items"]
    assert listed == [out.json()] == [(await http.get(path)).json()]
    gone = await act(ready, OTHER, Action.IMAGE_RELEASE, f"{path}/withdraw", {"reason": "bad"})
    assert gone.json()["state"] == "withdrawn"
    late = await act(ready, OTHER, Action.IMAGE_RELEASE, f"{path}/release")
    assert (late.status_code, slug(late)) == (409, "illegal-transition")


async def test_without_a_fresh_second_factor_nothing_is_let_out(ready: Rig):
    made = (await ready.by[Role.OPERATOR].post(RELEASES, json=body())).json()
    answer = await ready.by[Role.OPERATOR].post(f"{RELEASES}/{made['id']}/release")
    assert (answer.status_code, slug(answer)) == (401, "insufficient-user-authentication")


async def test_all_failed_checks_are_told(ready: Rig):
    wrong = replace(MANIFEST, size=9_999, config_schema=9)
    answer = await ready.by[Role.OPERATOR].post(RELEASES, json=body(wrong))
    assert (answer.status_code, slug(answer)) == (422, "release-refused")
    assert [(one["step"], one["code"]) for one in answer.json()["checks"]] == [
        ("U6", "size"),
        ("U7", "config_schema"),
    ]


async def test_another_body_under_the_same_key_is_refused(ready: Rig):
    http, key = ready.by[Role.OPERATOR], {"Idempotency-Key": "k"}
    await http.post(RELEASES, json=body(), headers=key)
    answer = await http.post(RELEASES, json=body(replace(MANIFEST, label="x")), headers=key)
    assert (answer.status_code, slug(answer)) == (422, "idempotency-mismatch")
    used = await http.post(RELEASES, json=body(replace(MANIFEST, label="x")))
    assert (used.status_code, slug(used)) == (409, "version-used")


async def test_what_is_no_base64_or_no_release_is_refused(ready: Rig):
    http = ready.by[Role.OPERATOR]
    assert (await http.post(RELEASES, json=body() | {"manifest": "*"})).status_code == 400
    assert slug(await http.get(f"{RELEASES}/nothing")) == "release-not-found"


async def test_a_vendor_brings_and_sees_only_its_own(ready: Rig):
    vendor, token = Principal("norland-ci", Role.VENDOR, "norland"), f"token-{Role.VENDOR}"
    ready.tokens.holders[token] = vendor
    http = ready.by[Role.VENDOR]
    assert (await http.post(RELEASES, json=body())).status_code == 403
    made = (await ready.by[Role.OPERATOR].post(RELEASES, json=body())).json()
    assert (await http.get(f"{RELEASES}/{made['id']}")).status_code == 404
    assert (await http.get(RELEASES)).json()["items"] == []
    ready.tokens.holders[token] = replace(vendor, account="acme")
    assert (await http.get(RELEASES)).json()["items"] == [made]
    assert (await http.post(f"{RELEASES}/{made['id']}/release")).status_code == 403


# Keys


def a_key() -> dict[str, str]:
    public = base64.b64encode(public_of(base.UTILITY_KEY)).decode()
    return {"public": public, "role": "campaign", "owner": "utility"}


async def test_a_key_counts_when_a_second_officer_has_approved_it(ready: Rig):
    held = await act(ready, OFFICER, Action.SIGNING_KEY_WRITE, KEYS, a_key())
    assert held.status_code == 202
    assert held.json()["facts"]["owner"] == "utility"
    officer = ready.by[Role.SECURITY]
    before = (await officer.get(KEYS)).json()
    assert len(before["items"]) == 1
    path = f"/v1/approvals/{held.json()['id']}/approve"
    done = await act(ready, Principal("sven", Role.SECURITY), Action.APPROVAL_WRITE, path)
    assert done.status_code == 200, done.text
    after = (await officer.get(KEYS)).json()
    assert after["number"] == before["number"] + 1
    assert after["items"][1]["role"] == "campaign"


async def test_what_cannot_be_done_with_keys_is_refused_at_once(ready: Rig):
    wrong = await act(ready, OFFICER, Action.SIGNING_KEY_WRITE, KEYS, a_key() | {"owner": "acme"})
    assert (wrong.status_code, slug(wrong)) == (400, "invalid-request")
    path = f"{KEYS}/{'0' * 16}/revoke"
    unknown = await act(ready, OFFICER, Action.SIGNING_KEY_WRITE, path, {"reason": "lost"})
    assert (unknown.status_code, slug(unknown)) == (404, "signing-key-not-found")
    path = f"{KEYS}/{base.VENDOR_KID.hex()}/revoke"
    held = await act(ready, OFFICER, Action.SIGNING_KEY_WRITE, path, {"reason": "lost"})
    assert held.status_code == 202
    assert (await ready.by[Role.SECURITY].get(KEYS)).json()["items"][0]["state"] == "active"


async def test_everybody_gets_the_list_on_both_listeners_and_a_device_can_believe_it(ready: Rig):
    people = await ready.stranger.get(LIST)
    assert people.headers["content-type"] == "application/gnomon-keys+cbor"
    found = key_list.verify(people.content, ready.services.trust.authority.roots(), base.NOW_S, 0)
    assert found.by_kid()[base.VENDOR_KID].owner == "acme"
    async with device(ready) as http:
        answer = await http.get(LIST)
        assert answer.content == people.content
        had = await http.get(LIST, headers={"If-None-Match": answer.headers["etag"]})
    assert (had.status_code, had.content) == (304, b"")


async def test_before_there_is_a_key_there_is_no_list(rig: Rig):
    assert (await rig.stranger.get(LIST)).status_code == 204
