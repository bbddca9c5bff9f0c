"""The AWS-shaped routes (spec: shadow, 9.1), line by line."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infra.settings.model import ShadowLimits
from security.policy import Role
from tests.api.rig import AWS, HALL, Rig, api
from tests.fakes import NOW_MS

NAMES = "/api/things/shadow/ListNamedShadowsForThing"


async def test_an_update_is_answered_with_the_documents_own_sections(rig: Rig):
    answer = await rig.by[Role.DEVICE].post(
        AWS, json={"state": {"desired": {"set": 21.5}}, "clientToken": "app-3"}
    )
    seconds = NOW_MS // 1_000
    assert answer.status_code == 200
    assert answer.json() == {
        "state": {"desired": {"set": 21.5}},
        "metadata": {"desired": {"set": {"timestamp": seconds}}},
        "version": 1,
        "timestamp": seconds,
        "clientToken": "app-3",
    }


@pytest.mark.parametrize("media", [None, "text/plain", "application/x-amz-json-1.0", "nonsense"])
async def test_any_content_type_is_taken(rig: Rig, media: str | None):
    headers = {"Content-Type": media} if media else {}
    answer = await rig.by[Role.DEVICE].post(
        AWS, content=b'{"state":{"desired":{"on":true}}}', headers=headers
    )
    assert answer.status_code == 200


async def test_a_thing_may_report_here_too(rig: Rig):
    answer = await rig.by[Role.DEVICE].post(AWS, json={"state": {"reported": {"set": 20}}})
    assert answer.status_code == 200
    row = (await rig.http.get("/v1/things/hall/shadows/@classic/history")).json()["items"][0]
    assert row["role"] == "device"


async def test_get_shows_state_delta_metadata_and_version(rig: Rig):
    await rig.by[Role.DEVICE].post(AWS, json={"state": {"desired": {"set": 21.5}, "reported": {"set": 20}}})
    shown = (await rig.by[Role.DEVICE].get(AWS)).json()
    assert shown["state"] == {"desired": {"set": 21.5}, "reported": {"set": 20}, "delta": {"set": 21.5}}
    assert shown["metadata"].keys() == {"desired", "reported", "delta"}
    assert shown["version"] == 1


async def test_named_and_classic_shadows_share_nothing(rig: Rig):
    await rig.by[Role.DEVICE].post(AWS, json={"state": {"desired": {"a": 1}}})
    await rig.by[Role.DEVICE].post(AWS, params={"name": "diag"}, json={"state": {"desired": {"b": 2}}})
    assert (await rig.by[Role.DEVICE].get(AWS)).json()["state"] == {"desired": {"a": 1}, "delta": {"a": 1}}
    assert (await rig.by[Role.DEVICE].get(AWS, params={"name": "diag"})).json()["state"]["desired"] == {
        "b": 2
    }


async def test_delete_answers_with_the_version_it_deleted(rig: Rig):
    await rig.by[Role.DEVICE].post(AWS, json={"state": {"desired": {"a": 1}}})
    answer = await rig.by[Role.DEVICE].delete(AWS)
    assert (answer.status_code, answer.json()) == (200, {"version": 1, "timestamp": NOW_MS // 1_000})
    assert (await rig.by[Role.DEVICE].get(AWS)).status_code == 404


async def test_a_repeat_with_the_same_token_has_its_effect_once_and_the_same_bytes(rig: Rig):
    body = b'{"state":{"desired":{"a":1}},"clientToken":"once"}'
    first = await rig.by[Role.DEVICE].post(AWS, content=body)
    rig.clock.advance(5)
    again = await rig.by[Role.DEVICE].post(AWS, content=body)
    assert again.content == first.content
    assert (await rig.by[Role.DEVICE].get(AWS)).json()["version"] == 1


# ------------------------------------------------------------------ the list


async def test_the_list_has_named_shadows_only_sorted_and_without_deleted_ones(rig: Rig):
    for name in ("diag", "cfg", "gone"):
        await rig.by[Role.DEVICE].post(AWS, params={"name": name}, json={"state": {}})
    await rig.by[Role.DEVICE].post(AWS, json={"state": {}})
    await rig.by[Role.DEVICE].delete(AWS, params={"name": "gone"})
    answer = await rig.by[Role.DEVICE].get(f"{NAMES}/{HALL}")
    assert answer.json() == {"results": ["cfg", "diag"], "timestamp": NOW_MS // 1_000}


async def test_an_unknown_thing_has_an_empty_list(rig: Rig):
    answer = await rig.by[Role.DEVICE].get(f"{NAMES}/nobody")
    assert (answer.status_code, answer.json()["results"]) == (200, [])


@pytest.mark.parametrize("count", [1, 25, 26, 100, 101])
async def test_every_name_is_listed_once_over_pages(tmp_path: Path, count: int):
    limits = ShadowLimits(named_shadows_max=200)
    async with api(tmp_path, url="memory:", shadow_limits=limits) as rig:
        names = [f"n{number:03}" for number in range(count)]
        for name in names:
            await rig.by[Role.DEVICE].post(AWS, params={"name": name}, json={"state": {}})
        for size in ({}, {"pageSize": "1"}, {"pageSize": "100"}):
            assert await _all_names(rig, size) == names


async def _all_names(rig: Rig, size: dict[str, str]) -> list[str]:
    found: list[str] = []
    following: dict[str, str] = {}
    while True:
        page = (await rig.by[Role.DEVICE].get(f"{NAMES}/{HALL}", params=size | following)).json()
        assert len(page["results"]) <= int(size.get("pageSize", 25))
        found += page["results"]
        if "nextToken" not in page:
            return found
        following = {"nextToken": page["nextToken"]}


@pytest.mark.parametrize("size", ["0", "101", "-1", "ten", "", "1.0", "٣"])
async def test_a_bad_page_size_is_refused(rig: Rig, size: str):
    answer = await rig.by[Role.DEVICE].get(f"{NAMES}/{HALL}", params={"pageSize": size})
    assert answer.status_code == 400
    assert answer.headers["x-amzn-errortype"] == "InvalidRequestException"


@pytest.mark.parametrize("token", ["", "x", "!!", "Y2Zn=", "/w=="])
async def test_a_bad_next_token_is_refused(rig: Rig, token: str):
    answer = await rig.by[Role.DEVICE].get(f"{NAMES}/{HALL}", params={"nextToken": token})
    assert answer.status_code == 400


# ------------------------------------------------------------------ refusals


async def _refused(rig: Rig, body: bytes, status: int, type: str, message: str, **headers: str) -> None:
    before = (await rig.by[Role.DEVICE].get(AWS)).content
    answer = await rig.by[Role.DEVICE].post(AWS, content=body, headers=headers)
    assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (status, type)
    assert answer.json()["message"] == message
    assert (await rig.by[Role.DEVICE].get(AWS)).content == before, "a refused request changes nothing"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Invalid JSON"),
        (b"[]", "Invalid JSON"),
        (b'{"state":{"desired":{"a":NaN}}}', "Invalid JSON"),
        (b'{"state":{"desired":{"a":[null]}}}', "Invalid JSON"),
        (b"{}", "Missing required node: state"),
        (b'{"state":[]}', "State node must be an object"),
        (b'{"state":{"delta":{}}}', "State contains an invalid node"),
        (b'{"state":{"desired":[]}}', "Desired node must be an object"),
        (b'{"state":{"reported":"x"}}', "Reported node must be an object"),
        (b'{"state":{},"version":true}', "Invalid version"),
        (b'{"state":{},"clientToken":7}', "Invalid clientToken"),
        (b'{"state":{"desired":{}},"sequence":{"epoch":1,"number":1}}', "Invalid sequence"),
        (
            b'{"state":{"desired":{"a":{"b":{"c":{"d":{"e":{"f":{"g":1}}}}}}}}}',
            "JSON contains too many levels of nesting; maximum is 6",
        ),
    ],
)
async def test_what_is_not_a_request_document_is_400(rig: Rig, body: bytes, message: str):
    await _refused(rig, body, 400, "InvalidRequestException", message)


async def test_what_is_not_utf_8_is_415(rig: Rig):
    message = "Unsupported documented encoding; supported encoding is UTF-8"
    await _refused(rig, b'{"state":"\xff"}', 415, "UnsupportedDocumentEncodingException", message)


async def test_a_compressed_body_is_415(rig: Rig):
    message = "Unsupported documented encoding; supported encoding is UTF-8"
    headers = {"Content-Encoding": "gzip"}
    await _refused(rig, b'{"state":{}}', 415, "UnsupportedDocumentEncodingException", message, **headers)


async def test_a_body_at_the_bound_is_taken_and_one_byte_more_is_413(rig: Rig):
    bound = rig.services.settings.limits.request_bytes_max
    body = b'{"state":{"desired":{"a":1}}}'
    assert (await rig.by[Role.DEVICE].post(AWS, content=body.ljust(bound))).status_code == 200
    message = "The payload exceeds the maximum size allowed"
    await _refused(rig, body.ljust(bound + 1), 413, "RequestEntityTooLargeException", message)


async def test_a_stale_version_is_409_and_says_what_was_written_since(rig: Rig):
    await rig.by[Role.DEVICE].post(AWS, json={"state": {"desired": {"set": 1, "mode": "eco"}}})
    await rig.by[Role.DEVICE].post(AWS, json={"state": {"desired": {"set": 2}}})
    answer = await rig.by[Role.DEVICE].post(
        AWS, json={"state": {"desired": {"set": 3, "mode": "x"}}, "version": 1}
    )
    assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (409, "ConflictException")
    told = answer.json()
    assert told["message"] == "Version conflict"
    assert (told["currentVersion"], told["conflicts"]) == (2, ["/desired/set"])


async def test_a_stale_sequence_is_409_and_says_the_newest(rig: Rig):
    report = {"state": {"reported": {"a": 1}}, "sequence": {"epoch": 3, "number": 9}}
    await rig.by[Role.DEVICE].post(AWS, json=report)
    answer = await rig.by[Role.DEVICE].post(AWS, json=report)
    assert (answer.status_code, answer.json()["message"]) == (409, "Stale sequence")
    assert answer.json()["currentSequence"] == {"epoch": 3, "number": 9}


async def test_there_is_no_shadow_before_the_first_update(rig: Rig):
    answer = await rig.by[Role.DEVICE].get(AWS)
    assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (404, "ResourceNotFoundException")
    assert answer.json()["message"] == "No shadow exists with name: 'hall'"
    named = await rig.by[Role.DEVICE].get(AWS, params={"name": "diag"})
    assert named.json()["message"] == "No shadow exists with name: 'diag'"


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_an_unknown_thing_is_404_before_its_body_is_looked_at(rig: Rig, method: str):
    answer = await rig.by[Role.DEVICE].request(method, "/things/nobody/shadow", content=b"not JSON")
    assert (answer.status_code, answer.json()["message"]) == (404, "Thing not found")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/things/a%20b/shadow", "Invalid thing name"),
        (f"/things/{'x' * 129}/shadow", "Invalid thing name"),
        (f"{AWS}?name=$x", "Invalid shadow name"),
        (f"{AWS}?name={'x' * 65}", "Invalid shadow name"),
        (f"{AWS}?name=", "Invalid shadow name"),
        ("/things/%00/shadow", "Invalid thing name"),
        ("/things/%ED%A0%80/shadow", "Invalid thing name"),
    ],
)
async def test_a_bad_name_is_400(rig: Rig, path: str, message: str):
    answer = await rig.by[Role.DEVICE].get(path)
    assert (answer.status_code, answer.json()["message"]) == (400, message)


@pytest.mark.parametrize("name", ["program", "han", "firmware"])
async def test_what_a_reserved_shadow_wants_is_not_for_this_caller_and_is_audited(rig: Rig, name: str):
    answer = await rig.by[Role.DEVICE].post(AWS, params={"name": name}, json={"state": {"desired": {"a": 1}}})
    assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (403, "ForbiddenException")
    assert answer.json()["message"] == "Forbidden"
    refused = [entry for entry in await rig.audit() if entry["decision"] == "refused"]
    assert [(entry["actor"], entry["action"]) for entry in refused] == [("hall", "shadow.desire")]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "HEAD", "OPTIONS"])
async def test_another_method_is_405_and_says_which_are_taken(rig: Rig, method: str):
    answer = await rig.by[Role.DEVICE].request(method, AWS)
    assert answer.status_code == 405
    assert answer.headers["x-amzn-errortype"] == "MethodNotAllowedException"


async def test_more_named_shadows_than_allowed_is_413(tmp_path: Path):
    async with api(tmp_path, shadow_limits=ShadowLimits(named_shadows_max=2)) as rig:
        statuses = [
            (await rig.by[Role.DEVICE].post(AWS, params={"name": name}, json={"state": {}})).status_code
            for name in ("a", "b", "c")
        ]
        assert statuses == [200, 200, 413]


async def test_things_cannot_be_made_this_way_without_compat(rig: Rig):
    assert (await rig.by[Role.DEVICE].post("/things/new", json={})).status_code == 404
    assert (await rig.by[Role.DEVICE].get("/v1/things/new")).status_code == 404


async def test_a_thing_that_is_removed_while_a_body_comes_leaves_no_shadow(rig: Rig):
    async def body() -> AsyncIterator[bytes]:
        yield b'{"state":{"desired":'
        assert (await rig.http.delete("/v1/things/hall")).status_code == 204
        yield b'{"set":1}}}'

    answer = await rig.by[Role.DEVICE].post(AWS, content=body())
    assert (answer.status_code, answer.json()["message"]) == (404, "Thing not found")
    assert await rig.services.shadows.shadows_of("hall") == []
