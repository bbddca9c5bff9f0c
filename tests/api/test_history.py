"""A shadow's past over HTTP (spec: shadow, 9.2 and E6): versions, times, differences, pages."""

from pathlib import Path

import pytest

from infra.settings.model import ShadowLimits
from tests.api.rig import SHADOW, Rig, api, slug

T0 = "2026-09-21T14:13:20.000Z"


async def test_a_version_is_shown_as_it_was(rig: Rig):
    await rig.desire({"set": 20})
    rig.clock.advance(60)
    await rig.report("hall", {"set": 20})
    answer = await rig.http.get(SHADOW, params={"version": 1})
    assert (answer.status_code, answer.headers["etag"]) == (200, '"1"')
    assert answer.json()["state"] == {"desired": {"set": 20}}
    assert (answer.json()["version"], answer.json()["at"]) == (1, T0)
    assert (await rig.http.get(f"{SHADOW}/history/1")).json() == answer.json()


async def test_a_time_shows_the_newest_version_that_is_not_later(rig: Rig):
    for number in range(5):
        await rig.desire({"n": number})
        rig.clock.advance(60)
    shown = [
        (await rig.http.get(SHADOW, params={"at": at})).json()["version"]
        for at in (T0, "2026-09-21T14:15:20Z", "2026-09-21T16:16:19.999+02:00", "2030-01-01T00:00:00Z")
    ]
    assert shown == [1, 3, 3, 5]


async def test_before_the_first_version_there_is_nothing(rig: Rig):
    await rig.desire({"n": 1})
    for params in ({"at": "2026-09-21T14:13:19.999Z"}, {"at": "0001-01-01T00:00:00Z"}, {"version": "2"}):
        answer = await rig.http.get(SHADOW, params=params)
        assert (answer.status_code, slug(answer)) == (404, "version-not-found")


async def test_what_is_no_longer_kept_is_410(tmp_path: Path):
    limits = ShadowLimits(history_versions_max=8, history_full_every=4)
    async with api(tmp_path, shadow_limits=limits) as rig:
        for number in range(20):
            await rig.desire({"n": number})
            rig.clock.advance(1)
        for answer in (
            await rig.http.get(SHADOW, params={"version": 1}),
            await rig.http.get(SHADOW, params={"at": T0}),
            await rig.http.get(f"{SHADOW}/history/2"),
        ):
            assert (answer.status_code, slug(answer)) == (410, "version-pruned")
        assert (await rig.http.get(SHADOW, params={"version": 20})).status_code == 200


@pytest.mark.parametrize(
    "at",
    [
        "",
        "now",
        "2026-09-21",
        "2026-09-21T12:00:00",
        "1790000000",
        "2026-13-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
    ],
)
async def test_a_time_that_is_not_rfc_3339_is_400(rig: Rig, at: str):
    await rig.desire({"n": 1})
    assert (await rig.http.get(SHADOW, params={"at": at})).status_code == 400


async def test_one_asks_for_a_version_or_for_a_time(rig: Rig):
    await rig.desire({"n": 1})
    assert (await rig.http.get(SHADOW, params={"at": T0, "version": 1})).status_code == 400


async def test_the_history_says_who_changed_what_when_by_which_way(rig: Rig):
    await rig.desire({"set": 20})
    await rig.report("hall", {"set": 20}, clientToken="u-7")
    await rig.http.delete(SHADOW)
    page = (await rig.http.get(f"{SHADOW}/history")).json()
    assert page == {
        "items": [
            {
                "version": 3,
                "at": T0,
                "operation": "delete",
                "actor": "customer",
                "role": "customer",
                "origin": "http",
                "patch": None,
            },
            {
                "version": 2,
                "at": T0,
                "operation": "update",
                "actor": "hall",
                "role": "device",
                "origin": "mqtt",
                "patch": {"reported": {"set": 20}},
                "token": "u-7",
            },
            {
                "version": 1,
                "at": T0,
                "operation": "update",
                "actor": "customer",
                "role": "customer",
                "origin": "http",
                "patch": {"desired": {"set": 20}},
            },
        ]
    }


@pytest.mark.parametrize(("count", "limit"), [(1, 1), (7, 3), (6, 3), (100, 100), (101, 100)])
async def test_every_version_is_listed_once_over_pages_newest_first(tmp_path: Path, count: int, limit: int):
    async with api(tmp_path, url="memory:") as rig:
        for number in range(count):
            await rig.desire({"n": number})
        found: list[int] = []
        params: dict[str, str] = {"limit": str(limit)}
        while True:
            page = (await rig.http.get(f"{SHADOW}/history", params=params)).json()
            found += [item["version"] for item in page["items"]]
            if "next" not in page:
                break
            params["cursor"] = page["next"]
        assert found == list(range(count, 0, -1))


async def test_the_history_of_a_span_of_time(rig: Rig):
    for number in range(5):
        await rig.desire({"n": number})
        rig.clock.advance(60)
    params = {"from": "2026-09-21T14:14:20Z", "to": "2026-09-21T14:16:20Z"}
    page = (await rig.http.get(f"{SHADOW}/history", params=params)).json()
    assert [item["version"] for item in page["items"]] == [4, 3, 2]


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", ""])
async def test_a_bad_limit_is_400(rig: Rig, limit: str):
    await rig.desire({"n": 1})
    assert (await rig.http.get(f"{SHADOW}/history", params={"limit": limit})).status_code == 400


@pytest.mark.parametrize("cursor", ["", "x", "!", "MQ==", "MDE", "LTE"])
async def test_a_cursor_of_ones_own_making_is_400(rig: Rig, cursor: str):
    await rig.desire({"n": 1})
    answer = await rig.http.get(f"{SHADOW}/history", params={"cursor": cursor})
    assert (answer.status_code, slug(answer)) == (400, "invalid-cursor")


async def test_a_difference_is_the_json_patch_from_the_one_to_the_other(rig: Rig):
    await rig.desire({"set": 20, "mode": "eco", "on": 1, "hours": {"from": 6, "to": 18}, "list": [1, 2]})
    await rig.desire(
        {"set": 21, "mode": None, "on": True, "hours": {"to": 20}, "list": [1, True], "a/b~c": {}}
    )
    answer = await rig.http.get(f"{SHADOW}/history/2", params={"diff": 1})
    assert answer.headers["content-type"] == "application/json-patch+json"
    assert answer.json() == [
        {"op": "remove", "path": "/desired/mode"},
        {"op": "replace", "path": "/desired/set", "value": 21},
        {"op": "replace", "path": "/desired/on", "value": True},
        {"op": "replace", "path": "/desired/hours/to", "value": 20},
        {"op": "replace", "path": "/desired/list", "value": [1, True]},
        {"op": "add", "path": "/desired/a~1b~0c", "value": {}},
    ]


@pytest.mark.parametrize(
    "path", ["history/0", "history/x", "history/9", "history/1?diff=9", "history/1?diff=x"]
)
async def test_a_version_that_is_none_is_refused(rig: Rig, path: str):
    await rig.desire({"n": 1})
    assert (await rig.http.get(f"{SHADOW}/{path}")).status_code in {400, 404}


async def test_the_past_of_a_deleted_shadow_stays_readable(rig: Rig):
    await rig.desire({"n": 1})
    await rig.http.delete(SHADOW)
    assert (await rig.http.get(SHADOW, params={"version": 1})).json()["state"] == {"desired": {"n": 1}}
    assert (await rig.http.get(SHADOW, params={"version": 2})).status_code == 404
    assert len((await rig.http.get(f"{SHADOW}/history")).json()["items"]) == 2


async def test_a_shadow_that_never_was_has_no_history(rig: Rig):
    answer = await rig.http.get(f"{SHADOW}/history")
    assert (answer.status_code, slug(answer)) == (404, "shadow-not-found")
