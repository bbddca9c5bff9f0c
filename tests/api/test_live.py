"""Live streams: every version once, resumable without gaps, bounded, and no obstacle to a shutdown."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from api.limits import ApiLimits
from infra.documents.port import StoreUnavailableError
from infra.settings.model import ShadowLimits
from security.policy import Role
from shadow.document import ShadowId
from tests.api.rig import HALL, SHADOW, Rig, api
from tests.api.streams import stream
from tests.covers import covers

LIVE = f"{SHADOW}/live"


@covers("A5")
async def test_a_stream_begins_with_the_shadow_and_goes_on_with_each_version(rig: Rig):
    await rig.desire({"set": 20})
    async with stream(rig.app, LIVE, rig.token) as reader:
        (whole,) = await reader.until(1)
        await rig.report("hall", {"set": 20})
        await rig.http.delete(SHADOW)
        _, reported, deleted = await reader.until(3)
    assert (reader.status, reader.headers[b"content-type"]) == (200, b"text/event-stream; charset=utf-8")
    assert reader.headers[b"cache-control"] == b"no-store"
    assert (whole["event"], whole["id"]) == ("shadow", "1")
    assert msgspec.json.decode(whole["data"])["state"]["desired"] == {"set": 20}
    assert (reported["event"], reported["id"]) == ("version", "2")
    assert msgspec.json.decode(reported["data"])["patch"] == {"reported": {"set": 20}}
    assert (deleted["id"], msgspec.json.decode(deleted["data"])["operation"]) == ("3", "delete")


@pytest.mark.parametrize("last", [0, 1, 60, 119, 120])
async def test_a_stream_resumes_after_the_last_event_without_a_gap(rig: Rig, last: int):
    for number in range(120):
        await rig.desire({"n": number})
    async with stream(rig.app, LIVE, rig.token, last=str(last)) as reader:
        await reader.until(120 - last)
        await rig.desire({"n": "new"})
        await reader.until(121 - last)
    assert reader.ids == list(range(last + 1, 122))
    assert {event["event"] for event in reader.events} == {"version"}


async def test_no_version_is_missed_while_many_write_and_the_reader_is_slow(rig: Rig):
    await rig.desire({"n": 0})
    async with stream(rig.app, LIVE, rig.token) as reader:
        await reader.until(1)
        reader.takes.clear()
        for number in range(100):
            await rig.desire({"n": number})
        reader.takes.set()
        await reader.until(101)
    assert reader.ids == list(range(1, 102))


async def test_where_history_no_longer_reaches_the_stream_begins_anew_and_says_so(tmp_path: Path):
    limits = ShadowLimits(history_versions_max=8, history_full_every=4)
    async with api(tmp_path, shadow_limits=limits) as rig:
        for number in range(20):
            await rig.desire({"n": number})
        async with stream(rig.app, LIVE, rig.token, last="1") as reader:
            await reader.until(1)
            await rig.desire({"n": "new"})
            await reader.until(2)
    assert [(event["event"], event["id"]) for event in reader.events] == [("shadow", "20"), ("version", "21")]


async def test_a_version_that_never_was_begins_anew(rig: Rig):
    await rig.desire({"n": 1})
    async with stream(rig.app, LIVE, rig.token, last="9") as reader:
        await reader.until(1)
    assert [(event["event"], event["id"]) for event in reader.events] == [("shadow", "1")]


@pytest.mark.parametrize("last", ["x", "-1", "1.0", "1" * 17])
async def test_a_last_event_that_is_no_version_is_400(rig: Rig, last: str):
    await rig.desire({"n": 1})
    assert (await rig.http.get(LIVE, headers={"Last-Event-ID": last})).status_code == 400


async def test_there_is_no_stream_of_what_is_not_there(rig: Rig):
    assert (await rig.http.get(LIVE)).status_code == 404
    assert (await rig.http.get("/v1/things/nobody/shadows/@classic/live")).status_code == 404


async def test_a_silent_stream_says_that_it_is_alive(tmp_path: Path):
    async with api(tmp_path, limits=ApiLimits(heartbeat_s=0.01)) as rig:
        await rig.desire({"n": 1})
        async with stream(rig.app, LIVE, rig.token) as reader:
            await reader.until_comment()
        assert reader.ids == [1]


async def test_a_stream_that_is_woken_for_nothing_says_that_it_is_alive(tmp_path: Path):
    async with api(tmp_path, limits=ApiLimits(heartbeat_s=0.05)) as rig:
        await rig.desire({"n": 1})
        async with stream(rig.app, LIVE, rig.token) as reader:
            await reader.until(1)
            for _ in range(20):
                rig.services.live.announce(ShadowId(HALL).key)
                await asyncio.sleep(0.01)
            assert reader.comments
        assert reader.ids == [1]


async def test_what_another_process_wrote_is_seen_at_the_next_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with api(tmp_path, limits=ApiLimits(heartbeat_s=0.01)) as rig:
        await rig.desire({"n": 1})
        async with stream(rig.app, LIVE, rig.token) as reader:
            await reader.until(1)
            monkeypatch.setattr(rig.services.live, "announce", lambda _: None)
            await rig.desire({"n": 2})
            await reader.until(2)
        assert reader.ids == [1, 2]


async def test_streams_are_bounded_and_a_place_is_free_again_when_a_reader_leaves(tmp_path: Path):
    async with api(tmp_path, limits=ApiLimits(streams_max=2)) as rig:
        await rig.desire({"n": 1})
        async with stream(rig.app, LIVE, rig.token) as first:
            async with stream(rig.app, LIVE, rig.token) as second:
                await first.until(1)
                await second.until(1)
                answer = await rig.http.get(LIVE)
                assert answer.status_code == 503
                assert answer.json()["type"].endswith("#too-many-streams")
                assert answer.headers["retry-after"] == "1"
            async with stream(rig.app, LIVE, rig.token) as third:
                await third.until(1)
        text = (await rig.by[Role.OPERATOR].get("/v1/metrics")).text
        assert "gnomon_http_requests_in_flight 1.0" in text


async def test_a_shutdown_ends_every_stream_and_those_that_come_later(rig: Rig):
    await rig.desire({"n": 1})
    async with stream(rig.app, LIVE, rig.token) as reader:
        await reader.until(1)
        rig.services.live.close()
        await reader.until_ended()
        async with stream(rig.app, LIVE, rig.token) as late:
            await late.until_ended()


async def test_a_reader_that_takes_nothing_is_let_go(tmp_path: Path):
    async with api(tmp_path, limits=ApiLimits(send_timeout_s=0.01, streams_max=1)) as rig:
        await rig.desire({"n": 1})
        async with stream(rig.app, LIVE, rig.token) as stuck:
            await stuck.until(1)
            stuck.takes.clear()
            await rig.desire({"n": 2})
            await asyncio.sleep(0.05)
            stuck.takes.set()
            await stuck.until_ended()
        async with stream(rig.app, LIVE, rig.token, last="1") as again:
            await again.until(1)
        assert again.ids == [2]


async def test_a_store_that_goes_away_ends_the_stream_so_that_the_reader_comes_back(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    await rig.desire({"n": 1})

    async def gone(*_: object, **__: object) -> object:
        raise StoreUnavailableError("disk")

    async with stream(rig.app, LIVE, rig.token) as reader:
        await reader.until(1)
        monkeypatch.setattr(rig.services.shadows.archive, "history", gone)
        rig.services.live.announce("hall/")
        await reader.until_ended()


async def test_a_removed_thing_ends_its_streams(rig: Rig):
    await rig.desire({"n": 1})
    async with stream(rig.app, LIVE, rig.token) as reader:
        await reader.until(1)
        await rig.http.delete("/v1/things/hall")
        rig.services.live.announce("hall/")
        await reader.until_ended()
