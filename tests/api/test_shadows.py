"""Our own shadow resource (spec: shadow, 9.2): reading and changing, preconditions, repeats."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from registry.models import NewThing, ThingKind
from security.policy import Role
from shadow.commands import Channel, Origin, parse_update
from shadow.document import ShadowId
from tests.api.rig import JSON_PATCH, MERGE, OPERATOR, SHADOW, Rig, api, slug
from tests.fakes import NOW_MS


async def _unchanged(rig: Rig, before: bytes) -> None:
    assert (await rig.http.get(SHADOW)).content == before, "a refused request changes nothing"


# ------------------------------------------------------------------ reading


async def test_get_is_the_protocols_document_with_its_version_as_etag(rig: Rig):
    await rig.desire({"set": 21.5})
    await rig.report("hall", {"set": 20})
    answer = await rig.http.get(SHADOW)
    assert answer.headers["etag"] == '"2"'
    assert answer.json()["state"] == {
        "desired": {"set": 21.5},
        "reported": {"set": 20},
        "delta": {"set": 21.5},
    }


@pytest.mark.parametrize("tags", ['"2"', 'W/"2"', '"1", "2"', "*"])
async def test_who_has_the_current_version_gets_304(rig: Rig, tags: str):
    await rig.desire({"a": 1})
    await rig.desire({"a": 2})
    answer = await rig.http.get(SHADOW, headers={"If-None-Match": tags})
    assert (answer.status_code, answer.headers["etag"], answer.content) == (304, '"2"', b"")


@pytest.mark.parametrize("tags", ['"1"', '"02"', "2", '"x"', ""])
async def test_who_has_another_version_gets_the_document(rig: Rig, tags: str):
    await rig.desire({"a": 1})
    await rig.desire({"a": 2})
    assert (await rig.http.get(SHADOW, headers={"If-None-Match": tags})).status_code == 200


async def test_a_shadow_that_was_never_made_is_404(rig: Rig):
    answer = await rig.http.get(SHADOW)
    assert (answer.status_code, slug(answer)) == (404, "shadow-not-found")


async def test_a_shadow_of_a_thing_that_is_not_registered_is_404(rig: Rig):
    answer = await rig.http.get("/v1/things/nobody/shadows/@classic")
    assert (answer.status_code, slug(answer)) == (404, "thing-not-found")


@pytest.mark.parametrize("name", ["@other", "a b", "x" * 65, "$x"])
async def test_a_bad_shadow_name_is_400(rig: Rig, name: str):
    answer = await rig.http.get(f"/v1/things/hall/shadows/{name}")
    assert (answer.status_code, slug(answer)) == (400, "invalid-request")


async def test_what_is_in_a_home_is_not_for_staff_to_read(rig: Rig):
    await rig.report("hall", {"a": 1}, name="config")
    for path in ("", "/history", "/history/1", "/live"):
        answer = await rig.by[Role.REP].get(f"/v1/things/hall/shadows/han{path}")
        assert (answer.status_code, slug(answer)) == (403, "forbidden")


async def test_what_staff_may_not_read_no_change_of_theirs_gives_away(rig: Rig):
    await rig.services.registry.register(NewThing("meter", ThingKind.GATEWAY, "m", "home"), OPERATOR)
    origin = Origin("system", Role.SYSTEM, Channel.SYSTEM)
    limits = rig.services.settings.limits
    update = parse_update(b'{"state":{"desired":{"open":true}}}', ShadowId("meter", "han"), origin, limits)
    await rig.services.shadows.submit([update])
    han = "/v1/things/meter/shadows/han"
    answers = [
        await rig.by[Role.STAND_IN].patch(
            han,
            json=[{"op": "test", "path": "/desired/open", "value": guess}],
            headers=JSON_PATCH | {"If-Match": match},
        )
        for guess in (True, False)
        for match in ('"1"', '"7"', "*")
    ]
    answers += [await rig.by[Role.STAND_IN].delete(han, headers={"If-Match": '"7", "8"'})]
    assert {(answer.status_code, slug(answer)) for answer in answers} == {(403, "forbidden")}


async def test_the_shadows_of_a_thing_are_listed_the_classic_one_first(rig: Rig):
    assert (await rig.http.get("/v1/things/hall/shadows")).json() == {"items": []}
    await rig.report("hall", {"a": 1}, name="diag")
    await rig.desire({"a": 1})
    assert (await rig.http.get("/v1/things/hall/shadows")).json() == {"items": ["@classic", "diag"]}
    assert (await rig.http.get("/v1/things/nobody/shadows")).status_code == 404


@pytest.mark.parametrize(
    "query", ["versoin=1", "version=1&version=2", "version=%ff", "version=0", "version=x"]
)
async def test_a_slip_in_the_query_is_refused_not_ignored(rig: Rig, query: str):
    await rig.desire({"a": 1})
    answer = await rig.http.get(f"{SHADOW}?{query}")
    assert (answer.status_code, slug(answer)) == (400, "invalid-request")


# ------------------------------------------------------------------ merge patch


async def test_a_merge_patch_changes_named_fields_and_null_removes(rig: Rig):
    await rig.desire({"set": 20, "mode": "eco", "hours": {"from": 6, "to": 18}})
    answer = await rig.desire({"mode": None, "hours": {"to": 20}})
    assert (answer.status_code, answer.headers["etag"]) == (200, '"2"')
    assert answer.json()["state"] == {"desired": {"mode": None, "hours": {"to": 20}}}
    shown = (await rig.http.get(SHADOW)).json()["state"]["desired"]
    assert shown == {"set": 20, "hours": {"from": 6, "to": 20}}


async def test_the_answer_comes_after_the_commit(rig: Rig):
    await rig.desire({"a": 1})
    assert len(await rig.store.get("shadows", ["hall/"])) == 1


async def test_people_write_desired_only(rig: Rig):
    await rig.desire({"a": 1})
    before = (await rig.http.get(SHADOW)).content
    for body in ({"reported": {"a": 1}}, {"desired": {"a": 2}, "reported": {"a": 2}}, None):
        answer = await rig.by[Role.CUSTOMER].patch(SHADOW, content=msgspec.json.encode(body), headers=MERGE)
        assert (answer.status_code, slug(answer)) == (403, "forbidden")
    await _unchanged(rig, before)


@pytest.mark.parametrize(
    "body",
    [
        b'{"desired":{"a":2}},"version":1,"x":{}',
        b'{"desired":{"a":2}} {}',
        b"{}}",
        b"",
        b"{",
        b'{"desired":{"a":[null]}}',
        b'{"delta":{}}',
        b"[]",
        b'"x"',
        b"\xef\xbb\xbf{}",
    ],
)
async def test_a_merge_patch_cannot_reach_out_of_its_place(rig: Rig, body: bytes):
    await rig.desire({"a": 1})
    before = (await rig.http.get(SHADOW)).content
    answer = await rig.http.patch(SHADOW, content=body, headers=MERGE)
    assert (answer.status_code, slug(answer)) == (400, "invalid-request")
    await _unchanged(rig, before)


@pytest.mark.parametrize("levels", [1_000, 16_000])
async def test_a_body_nested_beyond_reason_is_400(rig: Rig, levels: int):
    body = b'{"desired":' + b'{"a":' * (levels // 4) + b"1" + b"}" * (levels // 4) + b"}"
    answer = await rig.http.patch(SHADOW, content=body, headers=MERGE)
    assert answer.status_code == 400


async def test_a_body_at_the_bound_is_taken_and_one_byte_more_is_413(rig: Rig):
    bound = rig.services.settings.limits.request_bytes_max
    body = b'{"desired":{"a":1}}'
    assert (await rig.http.patch(SHADOW, content=body.ljust(bound), headers=MERGE)).status_code == 200
    answer = await rig.http.patch(SHADOW, content=body.ljust(bound + 1), headers=MERGE)
    assert (answer.status_code, slug(answer), answer.headers["connection"]) == (
        413,
        "payload-too-large",
        "close",
    )
    assert (await rig.http.get(SHADOW)).headers["etag"] == '"1"'


@pytest.mark.parametrize("media", ["application/json", "text/plain", "", "application/merge-patch+xml"])
async def test_another_media_type_is_415_and_says_which_are_taken(rig: Rig, media: str):
    answer = await rig.http.patch(SHADOW, content=b"{}", headers={"Content-Type": media})
    assert (answer.status_code, slug(answer)) == (415, "unsupported-media-type")
    assert "application/merge-patch+json" in answer.headers["accept-patch"]


async def test_another_charset_is_415(rig: Rig):
    headers = {"Content-Type": "application/merge-patch+json; charset=latin-1"}
    answer = await rig.http.patch(SHADOW, content=b"{}", headers=headers)
    assert (answer.status_code, slug(answer)) == (415, "unsupported-encoding")


# ------------------------------------------------------------------ preconditions


async def test_if_match_lets_exactly_one_of_two_writers_win(rig: Rig):
    await rig.desire({"set": 20})
    both = await asyncio.gather(*(rig.desire({"set": 21 + n}, **{"If-Match": '"1"'}) for n in range(2)))
    assert sorted(answer.status_code for answer in both) == [200, 412]
    assert (await rig.http.get(SHADOW)).headers["etag"] == '"2"'


async def test_a_failed_precondition_says_what_was_written_since(rig: Rig):
    await rig.desire({"set": 20, "mode": "eco"})
    await rig.desire({"set": 21})
    before = (await rig.http.get(SHADOW)).content
    answer = await rig.desire({"set": 22, "mode": "x"}, **{"If-Match": '"1"'})
    assert (answer.status_code, slug(answer)) == (412, "precondition-failed")
    told = answer.json()
    assert (told["currentVersion"], told["conflicts"]) == (2, ["/desired/set"])
    await _unchanged(rig, before)


async def test_nobody_touched_your_fields_is_an_empty_list(rig: Rig):
    await rig.desire({"set": 20})
    await rig.desire({"mode": "eco"})
    answer = await rig.desire({"set": 22}, **{"If-Match": '"1"'})
    assert answer.json()["conflicts"] == []


@pytest.mark.parametrize("tags", ['"1"', '"7", "1"', "*"])
async def test_a_precondition_that_holds_lets_the_change_pass(rig: Rig, tags: str):
    await rig.desire({"set": 20})
    assert (await rig.desire({"set": 21}, **{"If-Match": tags})).status_code == 200


@pytest.mark.parametrize("tags", ['"2"', '"01"', 'W/"1"', '"x"', '"7", "8"', f'"{2**53}"', '""'])
async def test_a_precondition_that_does_not_hold_is_412(rig: Rig, tags: str):
    await rig.desire({"set": 20})
    before = (await rig.http.get(SHADOW)).content
    answer = await rig.desire({"set": 21}, **{"If-Match": tags})
    assert (answer.status_code, answer.json()["currentVersion"]) == (412, 1)
    await _unchanged(rig, before)


@pytest.mark.parametrize("tags", ["1", "x", '"1', '"1" "2"', ""])
async def test_a_precondition_that_is_no_tag_is_400(rig: Rig, tags: str):
    await rig.desire({"set": 20})
    answer = await rig.desire({"set": 21}, **{"If-Match": tags})
    assert (answer.status_code, slug(answer)) == (400, "invalid-request")


async def test_if_match_on_a_shadow_that_is_not_there_is_412(rig: Rig):
    for tags in ('"1"', "*"):
        answer = await rig.desire({"set": 21}, **{"If-Match": tags})
        assert (answer.status_code, answer.json()["currentVersion"]) == (412, 0)


async def test_if_none_match_any_makes_only(rig: Rig):
    only_make = {"If-None-Match": "*"}
    assert (await rig.desire({"a": 1}, **only_make)).headers["etag"] == '"1"'
    assert (await rig.desire({"a": 2}, **only_make)).status_code == 412
    await rig.http.delete(SHADOW)
    assert (await rig.desire({"a": 3}, **only_make)).headers["etag"] == '"3"'


@pytest.mark.parametrize("headers", [{"If-None-Match": '"1"'}, {"If-None-Match": "*", "If-Match": '"1"'}])
async def test_preconditions_that_make_no_sense_are_400(rig: Rig, headers: dict[str, str]):
    assert (await rig.desire({"a": 1}, **headers)).status_code == 400
    assert (await rig.http.get(SHADOW)).status_code == 404


# ------------------------------------------------------------------ JSON patch


async def _json_patch(rig: Rig, operations: object, match: str | None = '"1"', **headers: str):
    precondition = {} if match is None else {"If-Match": match}
    return await rig.http.patch(SHADOW, json=operations, headers=JSON_PATCH | precondition | headers)


async def test_a_json_patch_is_one_new_version(rig: Rig):
    await rig.desire({"set": 20, "mode": "eco", "list": [1, 2]})
    answer = await _json_patch(
        rig,
        [
            {"op": "test", "path": "/desired/mode", "value": "eco"},
            {"op": "replace", "path": "/desired/set", "value": 21.5},
            {"op": "remove", "path": "/desired/mode"},
            {"op": "add", "path": "/desired/list/-", "value": 3},
            {"op": "copy", "from": "/desired/set", "path": "/desired/copied"},
            {"op": "move", "from": "/desired/copied", "path": "/desired/moved"},
        ],
    )
    assert (answer.status_code, answer.headers["etag"]) == (200, '"2"')
    shown = (await rig.http.get(SHADOW)).json()["state"]["desired"]
    assert shown == {"set": 21.5, "list": [1, 2, 3], "moved": 21.5}


@pytest.mark.parametrize(
    "last",
    [
        {"op": "test", "path": "/desired/set", "value": 19},
        {"op": "test", "path": "/desired/on", "value": 1},
        {"op": "remove", "path": "/desired/missing"},
        {"op": "replace", "path": "/desired/missing/below", "value": 1},
        {"op": "add", "path": "/desired/set/below", "value": 1},
    ],
)
async def test_a_json_patch_that_does_not_fit_changes_nothing_at_all(rig: Rig, last: object):
    await rig.desire({"set": 20, "on": True})
    before = (await rig.http.get(SHADOW)).content
    answer = await _json_patch(rig, [{"op": "add", "path": "/desired/new", "value": 1}, last])
    assert (answer.status_code, slug(answer)) == (409, "patch-not-applicable")
    assert "20" not in answer.json()["detail"], "a value of the state never stands in an error"
    await _unchanged(rig, before)


@pytest.mark.parametrize(
    "operations",
    [
        {},
        ["x"],
        [{"op": "append", "path": "/desired/a", "value": "x"}],
        [{"op": "add", "path": "/desired/a"}],
        [{"op": "add", "path": "no-slash", "value": 1}],
        [{"op": "add", "path": "/desired/~2", "value": 1}],
        [{"op": "copy", "path": "/desired/a"}],
        [{"op": "add", "path": "/reported", "value": {}}],
        [{"op": "replace", "path": "", "value": []}],
        [{"op": "replace", "path": "/desired", "value": 1}],
        [{"op": "add", "path": "/desired/a", "value": [None]}],
        [{"op": "add", "path": "/desired/a", "value": 2**70}],
        [{"op": "add", "path": "/desired/a", "value": {"b": {"c": {"d": {"e": {"f": {"g": 1}}}}}}}],
    ],
)
async def test_a_json_patch_that_is_not_well_formed_is_400(rig: Rig, operations: object):
    await rig.desire({"set": 20})
    before = (await rig.http.get(SHADOW)).content
    answer = await _json_patch(rig, operations)
    assert answer.status_code == 400, answer.text
    await _unchanged(rig, before)


async def test_copies_of_the_whole_into_itself_are_stopped_before_they_fill_the_memory(rig: Rig):
    await rig.desire({"set": "x" * 100})
    operations = [{"op": "copy", "from": "/desired", "path": f"/desired/{n}"} for n in range(60)]
    answer = await _json_patch(rig, operations)
    assert answer.status_code in {400, 413}


async def test_null_added_is_nothing_added(rig: Rig):
    await rig.desire({"set": 20})
    assert (await _json_patch(rig, [{"op": "add", "path": "/desired/a", "value": None}])).status_code == 200
    assert (await rig.http.get(SHADOW)).json()["state"]["desired"] == {"set": 20}


async def test_a_json_patch_without_if_match_is_428(rig: Rig):
    await rig.desire({"set": 20})
    answer = await _json_patch(rig, [], match=None)
    assert (answer.status_code, slug(answer)) == (428, "precondition-required")


async def test_a_json_patch_on_what_one_saw_before_says_which_fields_collide(rig: Rig):
    await rig.desire({"set": 20, "mode": "eco"})
    await rig.desire({"set": 21})
    operations = [
        {"op": "replace", "path": "/desired/set", "value": 22},
        {"op": "remove", "path": "/desired/mode"},
    ]
    answer = await _json_patch(rig, operations)
    assert (answer.status_code, answer.json()["currentVersion"]) == (412, 2)
    assert answer.json()["conflicts"] == ["/desired/set"]


async def test_a_json_patch_needs_a_shadow(rig: Rig):
    assert (await _json_patch(rig, [])).status_code == 404


async def test_a_json_patch_on_a_version_that_never_was_is_412(rig: Rig):
    await rig.desire({"set": 20})
    assert (await _json_patch(rig, [], match='"9"')).status_code == 412


# ------------------------------------------------------------------ delete


async def test_delete_leaves_a_tombstone_and_versions_go_on(rig: Rig):
    await rig.desire({"a": 1})
    answer = await rig.http.delete(SHADOW)
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await rig.http.get(SHADOW)).status_code == 404
    assert (await rig.http.delete(SHADOW)).status_code == 404
    assert (await rig.desire({"a": 2})).headers["etag"] == '"3"'


async def test_delete_with_an_outdated_version_deletes_nothing(rig: Rig):
    await rig.desire({"a": 1})
    answer = await rig.http.delete(SHADOW, headers={"If-Match": '"9"'})
    assert (answer.status_code, answer.json()["currentVersion"]) == (412, 1)
    assert (await rig.http.get(SHADOW)).status_code == 200
    assert (await rig.http.delete(SHADOW, headers={"If-Match": '"1"'})).status_code == 204


@pytest.mark.parametrize("name", ["program", "firmware", "config", "han"])
async def test_a_reserved_shadow_is_not_deleted(rig: Rig, name: str):
    answer = await rig.http.delete(f"/v1/things/hall/shadows/{name}")
    assert (answer.status_code, slug(answer)) == (403, "forbidden")


# ------------------------------------------------------------------ repeats

KEY = {"Idempotency-Key": "6f1c0a52"}


async def test_a_repeat_under_the_same_key_has_its_effect_once_and_the_same_answer(rig: Rig):
    first = await rig.desire({"a": 1}, **KEY)
    await rig.desire({"a": 2})
    rig.clock.advance(60)
    again = await rig.desire({"a": 1}, **KEY)
    assert (again.content, again.headers["etag"]) == (first.content, first.headers["etag"])
    assert (await rig.http.get(SHADOW)).json()["state"]["desired"] == {"a": 2}


async def test_another_body_under_the_same_key_is_422_and_changes_nothing(rig: Rig):
    await rig.desire({"a": 1}, **KEY)
    before = (await rig.http.get(SHADOW)).content
    answer = await rig.desire({"a": 2}, **KEY)
    assert (answer.status_code, slug(answer)) == (422, "idempotency-mismatch")
    await _unchanged(rig, before)


async def test_a_delete_under_the_key_of_an_update_is_422(rig: Rig):
    await rig.desire({"a": 1}, **KEY)
    answer = await rig.http.delete(SHADOW, headers=KEY)
    assert (answer.status_code, slug(answer)) == (422, "idempotency-mismatch")
    assert (await rig.http.get(SHADOW)).status_code == 200


async def test_a_repeated_delete_is_answered_as_the_first(rig: Rig):
    await rig.desire({"a": 1})
    assert (await rig.http.delete(SHADOW, headers=KEY)).status_code == 204
    assert (await rig.http.delete(SHADOW, headers=KEY)).status_code == 204
    assert (await rig.desire({"a": 2})).headers["etag"] == '"3"'


async def test_a_repeated_json_patch_is_answered_as_the_first_though_the_version_has_moved(rig: Rig):
    await rig.desire({"a": 1})
    operations = [{"op": "replace", "path": "/desired/a", "value": 2}]
    first = await _json_patch(rig, operations, **KEY)
    await rig.desire({"b": 1})
    again = await _json_patch(rig, operations, **KEY)
    assert (first.status_code, again.status_code, again.content) == (200, 200, first.content)
    assert (await rig.http.get(SHADOW)).headers["etag"] == '"3"'


@pytest.mark.parametrize(("key", "status"), [("k" * 64, 200), ("k" * 65, 400), ("a b", 400), ("", 400)])
async def test_a_key_has_1_to_64_visible_characters(rig: Rig, key: str, status: int):
    assert (await rig.desire({"a": 1}, **{"Idempotency-Key": key})).status_code == status


# ------------------------------------------------------------------ restore


async def _restore(rig: Rig, version: object, **headers: str):
    return await rig.http.post(f"{SHADOW}/restore", json={"version": version}, headers=headers)


async def test_restore_makes_a_new_version_with_the_old_desired_and_the_reported_of_now(rig: Rig):
    await rig.desire({"set": 20, "old": True})
    await rig.report("hall", {"set": 20})
    await rig.desire({"set": 25, "old": None, "new": 1})
    answer = await _restore(rig, 1, **{"If-Match": '"3"'})
    assert (answer.status_code, answer.headers["etag"]) == (200, '"4"')
    shown = (await rig.http.get(SHADOW)).json()["state"]
    assert shown["desired"] == {"set": 20, "old": True}
    assert shown["reported"] == {"set": 20}


async def test_restore_needs_to_know_what_it_replaces(rig: Rig):
    await rig.desire({"set": 20})
    await rig.desire({"set": 21})
    before = (await rig.http.get(SHADOW)).content
    assert (await _restore(rig, 1)).status_code == 428
    assert (await _restore(rig, 1, **{"If-Match": '"1"'})).status_code == 412
    await _unchanged(rig, before)


async def test_restore_brings_a_deleted_shadow_back(rig: Rig):
    await rig.desire({"set": 20})
    await rig.http.delete(SHADOW)
    answer = await _restore(rig, 1, **{"If-None-Match": "*"})
    assert (answer.status_code, answer.headers["etag"]) == (200, '"3"')
    assert (await rig.http.get(SHADOW)).json()["state"]["desired"] == {"set": 20}


@pytest.mark.parametrize(
    ("version", "status"), [(9, 404), (2, 404), (0, 400), (-1, 400), ("1", 400), (1.5, 400), (True, 400)]
)
async def test_restore_of_what_never_was_is_refused(rig: Rig, version: object, status: int):
    await rig.desire({"set": 20})
    await rig.http.delete(SHADOW)
    await rig.desire({"set": 21})
    assert (await _restore(rig, version, **{"If-Match": '"3"'})).status_code == status


async def test_an_unknown_member_in_a_body_of_ours_is_refused(rig: Rig):
    await rig.desire({"set": 20})
    body = {"version": 1, "reported": True}
    answer = await rig.http.post(f"{SHADOW}/restore", json=body, headers={"If-Match": '"1"'})
    assert (answer.status_code, slug(answer)) == (400, "invalid-request")


# ------------------------------------------------------------------ many at once


async def test_fifty_writers_that_try_again_lose_no_change_and_leave_no_gap(rig: Rig):
    async def write(name: str) -> int:
        for pause in range(1_000):
            answer = await rig.desire({name: 1})
            if answer.status_code != 429:
                return int(answer.headers["etag"].strip('"'))
            await asyncio.sleep(pause / 1_000)
        raise AssertionError("never had a turn")

    names = [f"f{number}" for number in range(50)]
    assert sorted(await asyncio.gather(*map(write, names))) == list(range(1, 51))
    assert (await rig.http.get(SHADOW)).json()["state"]["desired"] == dict.fromkeys(names, 1)


async def test_the_eleventh_unanswered_request_about_a_thing_is_429_and_other_things_go_on(tmp_path: Path):
    async with api(tmp_path, things=("hall", "attic")) as rig:
        answers = await asyncio.gather(*(rig.desire({"a": n}) for n in range(11)))
        statuses = [answer.status_code for answer in answers]
        assert statuses == [200] * 10 + [429]
        assert slug(answers[-1]) == "too-many-requests"
        assert answers[-1].headers["retry-after"] == "1"
        assert (await rig.desire({"a": 1}, "/v1/things/attic/shadows/@classic")).status_code == 200
        assert (await rig.http.get(SHADOW)).headers["etag"] == '"10"'


async def test_the_time_is_told_in_seconds_where_the_protocol_does(rig: Rig):
    await rig.desire({"a": 1})
    assert (await rig.http.get(SHADOW)).json()["timestamp"] == NOW_MS // 1_000


async def test_who_writes_classic_for_the_classic_shadow_is_told_its_name(rig: Rig):
    for send in (
        rig.http.patch("/v1/things/hall/shadows/classic", json={"desired": {"x": 1}}, headers=MERGE),
        rig.http.delete("/v1/things/hall/shadows/classic"),
    ):
        answer = await send
        assert (answer.status_code, slug(answer)) == (403, "forbidden")
        assert answer.json()["detail"].endswith("the shadow without a name is @classic")
    other = await rig.http.patch("/v1/things/hall/shadows/other", json={"desired": {"x": 1}}, headers=MERGE)
    assert "@classic" not in other.json()["detail"]
