"""Images over HTTP: sent by people and vendors, in pieces; loaded by devices that have a job about one."""

import asyncio
import hashlib
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.images import UPLOADS_EACH_MAX
from api.limits import ApiLimits
from ota.envelope import public_of
from ota.keys import parse_key
from ota.manifest import IMAGE_BYTES_MAX
from ota.verification import KeyRole
from registry.models import NewThing, ThingKind
from security.policy import Role
from tests import ota_base as base
from tests.api.device_rig import certified, device, over_tls, trusting, write_pair
from tests.api.rig import HALL, HOME, OPERATOR, Rig, api, slug
from tests.api.served import served
from tests.covers import covers
from tests.release_rig import AUTHOR, FIRMWARE, MODEL, OFFICER, OTHER, new, of_image

IMAGE = base.IMAGE
NAME = hashlib.sha256(IMAGE).hexdigest()
PATH = f"/v1/ota/images/{NAME}"
OCTETS = {"Content-Type": "application/octet-stream"}
GATEWAY = "home-7-gateway"


class Jobs:
    """Says which thing has a job about which image."""

    def __init__(self, *pairs: tuple[str, str]) -> None:
        self.pairs = set(pairs)

    async def uses(self, thing: str, sha256: str) -> bool:
        return (thing, sha256) in self.pairs


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with api(tmp_path) as rig:
        yield rig


async def put(rig: Rig, data: bytes = IMAGE, path: str = PATH, role: Role = Role.OPERATOR, **fields: str):
    headers = OCTETS | {name.replace("_", "-"): value for name, value in fields.items()}
    return await rig.by[role].put(path, content=data, headers=headers)


@covers("X36")
async def test_an_image_is_there_when_all_of_it_came_and_read_back_as_it_was(rig: Rig):
    first = await put(rig)
    assert (first.status_code, first.json()["sha256"], first.json()["size"]) == (201, NAME, 10_000)
    again = await put(rig)
    assert (again.status_code, again.json()) == (200, first.json())
    back = await rig.by[Role.OPERATOR].get(PATH)
    assert back.content == IMAGE
    assert back.headers["etag"] == f'"{NAME}"'
    acts = [one["action"] for one in await rig.audit()]
    assert acts.count("image.upload") == 1, "the second time nothing changed"


async def test_an_image_that_the_disk_has_damaged_is_not_read_back_until_it_is_sent_again(
    rig: Rig, tmp_path: Path
):
    await put(rig)
    stored = tmp_path / "images" / NAME
    stored.chmod(0o600)
    stored.write_bytes(IMAGE[:-1] + b"x")
    damaged = await rig.by[Role.OPERATOR].get(PATH)
    assert (damaged.status_code, slug(damaged)) == (404, "image-not-found")
    assert "damaged" in damaged.json()["detail"]
    assert (await rig.by[Role.OPERATOR].head(PATH)).status_code == 404, "so that a sender sends it"
    await put(rig)
    assert (await rig.by[Role.OPERATOR].get(PATH)).content == IMAGE


async def test_what_does_not_hash_to_its_name_is_not_there(rig: Rig):
    answer = await put(rig, IMAGE[:-1])
    assert (answer.status_code, slug(answer)) == (422, "digest-mismatch")
    assert slug(await rig.by[Role.OPERATOR].get(PATH)) == "image-not-found"


@pytest.mark.parametrize("coding", ["gzip", "identity", ""])
async def test_an_image_with_a_content_encoding_is_not_taken(rig: Rig, coding: str):
    answer = await put(rig, Content_Encoding=coding)
    assert (answer.status_code, slug(answer)) == (415, "unsupported-encoding")


async def test_one_that_is_too_large_is_refused_before_it_comes(rig: Rig):
    length = {"Content-Length": str(IMAGE_BYTES_MAX + 1)}
    answer = await rig.by[Role.OPERATOR].put(PATH, content=b"", headers=OCTETS | length)
    assert (answer.status_code, slug(answer)) == (413, "payload-too-large")


async def test_after_a_cut_the_sender_asks_how_much_came_and_goes_on(rig: Rig):
    half = IMAGE[:5_000]
    upload = rig.services.ota.images
    with upload.receive(NAME, 0) as coming:
        coming.write(half)
    head = await rig.by[Role.OPERATOR].head(PATH)
    assert (head.status_code, head.headers["upload-offset"]) == (204, "5000")
    wrong = await put(rig, IMAGE[4_000:], Content_Range="bytes 4000-9999/10000")
    assert (wrong.status_code, slug(wrong), wrong.json()["offset"]) == (409, "upload-offset", 5_000)
    rest = await put(rig, IMAGE[5_000:], Content_Range="bytes 5000-9999/10000")
    assert rest.status_code == 201
    head = await rig.by[Role.OPERATOR].head(PATH)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "10000", b"")


async def test_who_sends_slowly_keeps_nobody_else_away(rig: Rig):
    over = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield IMAGE[:1]
        await over.wait()
        yield IMAGE[1:]

    def name(number: int) -> str:
        return f"/v1/ota/images/{number:064x}"

    vendor = rig.by[Role.VENDOR]
    async with asyncio.TaskGroup() as sending:
        slow = [
            sending.create_task(vendor.put(name(number), content=slowly(), headers=OCTETS))
            for number in range(UPLOADS_EACH_MAX)
        ]
        await asyncio.sleep(0.05)
        one_more = await put(rig, path=name(99), role=Role.VENDOR)
        assert (one_more.status_code, slug(one_more)) == (503, "overloaded")
        assert (await put(rig)).status_code == 201
        over.set()
    assert {slug(task.result()) for task in slow} == {"digest-mismatch"}
    assert slug(await put(rig, path=name(99), role=Role.VENDOR)) == "digest-mismatch", "there is room again"


async def test_a_vendor_learns_nothing_of_what_others_are_sending_and_does_not_go_on_with_it(rig: Rig):
    holder = rig.tokens.holders[f"token-{Role.VENDOR}"]
    rig.tokens.holders[f"token-{Role.VENDOR}"] = replace(holder, account="norland")
    images = rig.services.ota.images
    for by in (OPERATOR, replace(holder, account="acme")):
        with images.receive(NAME, 0, by) as coming:
            coming.write(IMAGE[:9_999])
    assert (await rig.by[Role.VENDOR].head(PATH)).status_code == 404
    last = await put(rig, IMAGE[9_999:], role=Role.VENDOR, Content_Range="bytes 9999-9999/10000")
    assert (last.status_code, slug(last), last.json()["offset"]) == (409, "upload-offset", 0)
    assert (await rig.by[Role.OPERATOR].head(PATH)).headers["upload-offset"] == "9999"


@pytest.mark.parametrize(
    "text",
    [
        "bytes 5-9",
        "bytes 5-9/*",
        "bytes 5-8/10000",
        "bytes 9-5/10",
        "bytes=0-9/10",
        "bytes 0-9999/10001",
        "x",
    ],
)
async def test_a_content_range_that_is_not_all_the_rest_is_refused(rig: Rig, text: str):
    answer = await put(rig, Content_Range=text)
    assert (answer.status_code, slug(answer)) == (400, "invalid-request")


@pytest.mark.parametrize("name", ["a" * 63, NAME.upper(), "..%2F" + NAME[3:]])
async def test_nothing_but_a_hash_is_a_name(rig: Rig, name: str):
    for method in ("PUT", "GET", "HEAD"):
        answer = await rig.by[Role.OPERATOR].request(method, f"/v1/ota/images/{name}", content=b"x")
        assert answer.status_code in {400, 404}


async def test_a_vendor_sees_only_what_it_has_sent_itself(rig: Rig):
    await put(rig)
    assert (await rig.by[Role.VENDOR].get(PATH)).status_code == 404
    rig.tokens.holders[f"token-{Role.VENDOR}"] = replace(
        rig.tokens.holders[f"token-{Role.VENDOR}"], account="acme"
    )
    assert (await put(rig, role=Role.VENDOR)).status_code == 200, "it has the bytes, so it may"
    assert (await rig.by[Role.VENDOR].get(PATH)).content == IMAGE


async def test_a_sender_who_falls_silent_is_not_waited_for_and_may_go_on(tmp_path: Path):
    async with api(tmp_path, limits=ApiLimits(body_timeout_s=0.05)) as rig:

        async def slow() -> AsyncIterator[bytes]:
            yield IMAGE[:100]
            await asyncio.sleep(1)
            yield IMAGE[100:]

        answer = await rig.by[Role.OPERATOR].put(PATH, content=slow(), headers=OCTETS)
        assert (answer.status_code, slug(answer)) == (408, "request-timeout")


# What devices load


async def released(rig: Rig, data: bytes) -> None:
    """Let devices have an image that is there."""
    ota, now_s = rig.services.ota, rig.services.clock.now_ms() // 1_000
    vendor = parse_key(public_of(base.VENDOR_KEY), KeyRole.IMAGE, "acme", 0)
    await ota.keys.add(vendor, OFFICER)
    await rig.services.models.put(replace(MODEL, firmware=replace(FIRMWARE, slot_bytes=len(data))), OTHER)
    manifest = of_image(data, version=len(data), issued=now_s, expires=now_s + 864_000)
    release = await ota.releases.create(new(manifest), AUTHOR, key=manifest.sha256)
    await ota.releases.let_out(release.id, OTHER)


@pytest.fixture
async def loading(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """Store the image, and let the thing in the hall have a job about it."""
    await put(rig)
    await released(rig, IMAGE)
    jobs = Jobs((HALL, NAME))
    monkeypatch.setattr(type(rig.services.ota.jobs), "uses", lambda _, thing, sha: jobs.uses(thing, sha))
    return jobs


async def load(rig: Rig, method: str = "GET", path: str = PATH, **fields: str) -> httpx.Response:
    issued, _ = await certified(rig)
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    async with device(rig, issued.serial) as http:
        return await http.request(method, path, headers=headers)


@pytest.mark.usefixtures("loading")
@covers("I3FR6.1")
async def test_a_device_with_a_job_loads_the_image_it_is_about(rig: Rig):
    answer = await load(rig)
    assert (answer.status_code, answer.content) == (200, IMAGE)
    assert answer.headers["content-length"] == "10000"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["etag"] == f'"{NAME}"'
    assert answer.headers["cache-control"] == "private, immutable"
    assert "content-encoding" not in answer.headers
    head = await load(rig, "HEAD", Range="bytes=0-0")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "10000")


@pytest.mark.usefixtures("loading")
@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [("0-0", 0, 0), ("9999-", 9_999, 9_999), ("-4096", 5_904, 9_999), ("5-20000", 5, 9_999)],
)
async def test_a_part_is_loaded_by_a_range(rig: Rig, asked: str, first: int, last: int):
    answer = await load(rig, Range=f"bytes={asked}")
    assert (answer.status_code, answer.content) == (206, IMAGE[first : last + 1])
    assert answer.headers["content-range"] == f"bytes {first}-{last}/10000"


@pytest.mark.usefixtures("loading")
@pytest.mark.parametrize("asked", ["0-1,4-5", "x", "5-4", "0-1;q=1"])
async def test_several_ranges_or_none_that_is_one_are_ignored(rig: Rig, asked: str):
    answer = await load(rig, Range=f"bytes={asked}")
    assert (answer.status_code, len(answer.content)) == (200, 10_000)


@pytest.mark.usefixtures("loading")
async def test_a_range_that_begins_after_the_end_is_416(rig: Rig):
    answer = await load(rig, Range="bytes=10000-")
    assert (answer.status_code, answer.headers["content-range"], answer.content) == (
        416,
        "bytes */10000",
        b"",
    )


@pytest.mark.usefixtures("loading")
async def test_a_part_of_another_image_is_never_glued_to_this_one(rig: Rig):
    assert (await load(rig, Range="bytes=5-9", If_Range='"other"')).status_code == 200
    assert (await load(rig, Range="bytes=5-9", If_Range=f'"{NAME}"')).status_code == 206


@pytest.mark.usefixtures("loading")
async def test_who_has_it_is_told_so(rig: Rig):
    answer = await load(rig, If_None_Match=f'"{NAME}"')
    assert (answer.status_code, answer.content) == (304, b"")


async def test_without_a_job_about_it_there_is_no_such_image(rig: Rig, loading: Jobs):
    loading.pairs.clear()
    missing = await load(rig, path=f"/v1/ota/images/{'0' * 64}")
    other = await load(rig)
    odd = await load(rig, path="/v1/ota/images/odd")
    for answer in (missing, other, odd):
        body = answer.json()
        body.pop("requestId")
        assert (answer.status_code, body["type"]) == (404, "/docs/problems#image-not-found")


@pytest.mark.usefixtures("loading")
async def test_a_device_with_a_job_gets_nothing_of_a_release_that_was_withdrawn(rig: Rig):
    page = await rig.services.ota.releases.page(OPERATOR, None, 10)
    await rig.services.ota.releases.withdraw(page.records[0].id, OTHER)
    answer = await load(rig)
    assert (answer.status_code, slug(answer)) == (404, "image-not-found")


@pytest.mark.usefixtures("loading")
async def test_no_certificate_no_image(rig: Rig):
    async with device(rig) as http:
        assert (await http.get(PATH)).status_code == 401


async def test_a_gateway_loads_for_what_is_attached_to_it_and_for_nothing_else(rig: Rig, loading: Jobs):
    registry = rig.services.registry
    await registry.register(NewThing(GATEWAY, ThingKind.GATEWAY, "acme-amg-4", HOME), OPERATOR)
    issued, _ = await certified(rig, GATEWAY)
    async with device(rig, issued.serial) as http:
        assert (await http.get(PATH)).status_code == 404
        await registry.attach(GATEWAY, HALL, OPERATOR)
        assert (await http.get(PATH)).content == IMAGE
        loading.pairs.clear()
        assert (await http.get(PATH)).status_code == 404


@pytest.mark.usefixtures("loading")
async def test_a_gateway_loads_nothing_for_a_thing_that_is_suspended(rig: Rig):
    registry = rig.services.registry
    await registry.register(NewThing(GATEWAY, ThingKind.GATEWAY, "acme-amg-4", HOME), OPERATOR)
    await registry.attach(GATEWAY, HALL, OPERATOR)
    await registry.suspend(HALL, OPERATOR)
    issued, _ = await certified(rig, GATEWAY)
    async with device(rig, issued.serial) as http:
        assert (await http.get(PATH)).status_code == 404
        await registry.resume(HALL, OPERATOR)
        assert (await http.get(PATH)).content == IMAGE


@pytest.mark.usefixtures("loading")
async def test_a_load_writes_nothing_to_the_store(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    issued, _ = await certified(rig)

    async def refuse(*_: Any) -> None:
        raise AssertionError

    async with device(rig, issued.serial) as http:
        monkeypatch.setattr(rig.store, "commit", refuse, raising=False)
        monkeypatch.setattr(rig.store, "append", refuse, raising=False)
        assert (await http.get(PATH, headers={"Range": "bytes=100-199"})).status_code == 206


@covers("X39")
async def test_a_load_that_is_cut_goes_on_by_a_range_over_real_tls(rig: Rig, loading: Jobs, tmp_path: Path):
    data = bytes(range(256)) * 8_192
    name = hashlib.sha256(data).hexdigest()
    await put(rig, data, f"/v1/ota/images/{name}")
    await released(rig, data)
    loading.pairs.add((HALL, name))
    issued, key = await certified(rig)
    files = write_pair(tmp_path, "hall", issued.chain_pem, key)
    context = trusting(rig.services.trust.authority.root_pem, files)
    got = b""
    async with over_tls(rig, tmp_path) as url, httpx.AsyncClient(verify=context, base_url=url) as http:
        while len(got) < len(data):
            fields = {"Range": f"bytes={len(got)}-", "If-Range": f'"{name}"'}
            async with http.stream("GET", f"/v1/ota/images/{name}", headers=fields) as answer:
                assert answer.status_code == 206
                before = len(got)
                async for chunk in answer.aiter_raw():
                    got += chunk
                    if len(got) - before > 700_000:
                        break
    assert hashlib.sha256(got).hexdigest() == name


@covers("X36")
def test_a_connection_that_is_cut_in_mid_upload_leaves_what_came_and_the_rest_is_sent_later(tmp_path: Path):
    data = bytes(range(256)) * 40_960  # ten megabytes: more than any buffer on the way
    name = hashlib.sha256(data).hexdigest()
    with served(tmp_path, role=Role.OPERATOR) as where:
        path, token = f"/v1/ota/images/{name}", {"Authorization": f"Bearer {where.token}"}
        place = httpx.URL(where.url)
        head = (
            f"PUT {path} HTTP/1.1\r\nhost: gnomon\r\nauthorization: Bearer {where.token}\r\n"
            f"content-length: {len(data)}\r\n\r\n"
        )
        with socket.create_connection((place.host, place.port or 0), timeout=30) as connection:
            connection.sendall(head.encode() + data[: len(data) // 2])
        with httpx.Client(base_url=where.url, headers=token) as http:
            came = settled(http, path)
            assert 0 < came <= len(data) // 2
            fields = {"Content-Range": f"bytes {came}-{len(data) - 1}/{len(data)}"}
            assert http.put(path, content=data[came:], headers=fields).status_code == 201
            assert hashlib.sha256(http.get(path).content).hexdigest() == name


def settled(http: httpx.Client, path: str) -> int:
    """Return how much has come once no more of it comes."""
    before = -1
    for _ in range(100):
        head = http.head(path)
        now = int(head.headers.get("upload-offset", 0))
        if now == before > 0:
            return now
        before = now
        time.sleep(0.2)
    raise AssertionError("it never settled")
