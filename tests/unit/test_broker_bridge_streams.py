"""Requests for files on their way through the bridge: who is answered, where, in which order, what waits."""

import asyncio
import random

import cbor2
import pytest
import structlog

from broker_bridge import fairness, streams
from broker_bridge.fairness import Pace
from infra.documents.port import StoreBrokenError, StoreUnavailableError
from registry.models import ThingKind
from security import audit
from tests.bridge_rig import ANNA, Acked, Sent, make_rig, running, settled, turns
from tests.faulty_store import EVERYTHING
from tests.stream_rig import FW, KEYS, Loader, make_files, numbered, read

Q = f"$aws/things/hall/streams/{FW}"
FAST = Pace(bytes_per_s=2**40, burst_bytes=2**40)
ASK = cbor2.dumps({"c": "t-1", "f": 0, "l": 4096})


@pytest.fixture
def files():
    made = make_files()
    made.allow("hall")
    return made


@pytest.fixture
def rig(tmp_path, files):
    return make_rig(tmp_path, streams=files.service, pace=FAST)


def up(thing="hall", *, gateway=None, stream=FW, operation="get", format="cbor"):
    tree = f"gnomon/gateways/{gateway}/up" if gateway else "$aws"
    return f"{tree}/things/{thing}/streams/{stream}/{operation}/{format}"


async def quiet(rig):
    """Return when every request that came is settled."""
    await settled(lambda: not len(rig.bridge.streams))
    await turns(20)


def said(rig, topic=None):
    """What was said as (last levels of the topic, payload decoded)."""
    return [(one.topic, read(one.payload, one.topic.rsplit("/", 1)[1])) for one in rig.session.sent
            if topic in (None, one.topic)]  # fmt: skip


# ---------------------------------------------------------------------- answers


async def test_blocks_come_on_the_data_topic_and_the_acknowledgement_behind_them_in_one_write(rig):
    async with running(rig):
        await rig.register("hall")
        packet_id = rig.deliver(up(), ASK)
        await quiet(rig)
        assert [topic for topic, _ in said(rig)] == [f"{Q}/data/cbor"] * 3
        assert [block["i"] for _, block in said(rig)] == [0, 1, 2]
        assert len({one.writes for one in rig.session.sent}) == 1
        assert rig.session.log[-1] == Acked(packet_id)


@pytest.mark.parametrize("format", ["cbor", "json"])
async def test_a_device_loads_a_file_in_windows_through_the_bridge(rig, files, format):
    files.add("fw-big", f0=(image := numbered(200_000)))
    files.allow("hall", "fw-big")
    async with running(rig):
        await rig.register("hall")
        loader = Loader(len(image), 4_096, format=format)
        while loader.holes:
            rig.session.log.clear()
            rig.deliver(up(stream="fw-big", format=format), loader.ask())
            await quiet(rig)
            for one in rig.session.sent:
                loader.hear(one.payload)
        assert loader.content == image


async def test_what_there_is_is_described_and_what_is_wrong_is_refused_on_topics_of_their_own(rig):
    async with running(rig):
        await rig.register("hall")
        rig.deliver(up(operation="describe", format="json"), b"{}")
        rig.deliver(up(format="json"), b"{")
        rig.deliver(up(format="xml"), b"{}")
        await quiet(rig)
        assert [one.topic for one in rig.session.sent] == [
            f"{Q}/description/json",
            f"{Q}/rejected/json",
            f"{Q}/rejected/xml",
        ]
        assert rig.session.acked == [1, 2, 3]
        assert rig.metrics.rejections.values == {"InvalidJson": 1, "InvalidTopic": 1}


async def test_a_request_without_acknowledgement_is_answered_too(rig):
    async with running(rig):
        await rig.register("hall")
        rig.deliver(up(), ASK, qos=0)
        await quiet(rig)
        assert len(rig.session.sent) == 3
        assert rig.session.acked == []


async def test_a_list_of_keys_reaches_a_device_without_a_job(rig):
    async with running(rig):
        await rig.register("attic")
        rig.deliver(up("attic", stream=KEYS), ASK)
        await quiet(rig)
        assert [block["p"] for _, block in said(rig)] == [b"keys"]


async def test_a_thing_that_asks_for_blocks_is_heard(rig):
    heard: list[str] = []
    rig.bridge.catch_up.heard = heard.append
    async with running(rig):
        rig.deliver(up(), ASK)
        rig.deliver(up(gateway="meter"), ASK)
        assert heard == ["hall", "meter"]


# ---------------------------------------------------------------------- who may ask


async def test_a_gateway_loads_for_what_is_attached_to_it_in_its_own_tree(rig):
    async with running(rig):
        await rig.register("meter", ThingKind.GATEWAY)
        await rig.register("hall", has_certificate=False, gateways=("meter",))
        rig.deliver(up(gateway="meter"), ASK)
        await quiet(rig)
        down = f"gnomon/gateways/meter/down/things/hall/streams/{FW}/data/cbor"
        assert [topic for topic, _ in said(rig)] == [down] * 3
        assert [block["i"] for _, block in said(rig)] == [0, 1, 2]


async def test_a_gateway_hears_403_for_what_is_not_attached_to_it_known_or_not(rig, files):
    files.allow("nobody")
    async with running(rig):
        await rig.register("meter", ThingKind.GATEWAY)
        await rig.register("hall")
        for thing in ("hall", "nobody"):
            rig.deliver(up(thing, gateway="meter"), ASK)
        await quiet(rig)
        down = f"gnomon/gateways/meter/down/things/{{}}/streams/{FW}/rejected/cbor"
        refusal = {"o": "Forbidden", "m": "this thing is not attached to this gateway", "c": "t-1"}
        assert said(rig) == [(down.format("hall"), refusal), (down.format("nobody"), refusal)]
        assert len(rig.session.acked) == 2
        await rig.refusals.flush()
        page = await audit.read(rig.store, 0, 2**62, 100)
        rows = [row for row in page.entries if row.decision is audit.Decision.REFUSED]
        assert {(row.actor, row.action, row.target) for row in rows} == {
            ("meter", "image.read", "thing/hall"),
            ("meter", "image.read", "thing/nobody"),
        }


async def test_who_is_not_registered_hears_what_everybody_hears_who_may_not_have_it(rig, files):
    async with running(rig):
        await rig.register("attic")
        files.allow("nobody")
        rig.deliver(up("nobody"), ASK)
        rig.deliver(up("attic"), ASK)
        await quiet(rig)
        (_, one), (_, other) = said(rig)
        assert one == other == {"o": "ResourceNotFound", "m": one["m"], "c": "t-1"}


async def test_a_revoked_thing_hears_nothing_and_its_request_is_acknowledged(rig):
    async with running(rig):
        await rig.register("hall")
        await rig.registry.revoke("hall", ANNA)
        packet_id = rig.deliver(up(), ASK)
        await quiet(rig)
        assert rig.session.sent == []
        assert rig.session.acked == [packet_id]
        assert rig.dropped("revoked") == 1


async def test_a_retained_request_and_one_on_a_topic_we_would_not_repeat_are_dropped(rig):
    async with running(rig):
        await rig.register("hall")
        rig.deliver(up(), ASK, retain=True)
        rig.deliver(up(stream="fw 1"), ASK)
        rig.deliver(up(format="cb\u0001or"), ASK)
        await quiet(rig)
        assert rig.session.sent == []
        assert rig.session.acked == [1, 2, 3]
        assert (rig.dropped("retained"), rig.dropped("unknown_topic")) == (1, 2)


# ---------------------------------------------------------------------- failures


async def test_a_store_that_is_down_is_an_answer_and_no_dead_letter(rig, files):
    async with running(rig):
        await rig.register("hall")
        files.jobs.error = StoreUnavailableError("down")
        packet_id = rig.deliver(up(), ASK)
        rig.store.refuses = EVERYTHING
        other = rig.deliver(up("stranger"), ASK)
        await quiet(rig)
        assert [refusal["o"] for _, refusal in said(rig)] == ["InternalError"] * 2
        assert sorted(rig.session.acked) == [packet_id, other]
        rig.store.refuses = frozenset()
        assert await rig.dead_letters() == []


async def test_a_broken_disk_ends_the_bridge_and_nothing_is_said_or_acknowledged(rig, files):
    async def live():
        async with running(rig):
            await rig.register("hall")
            files.jobs.error = StoreBrokenError("fsync failed")
            rig.deliver(up(), ASK)
            await settled(lambda: False)

    with pytest.raises(ExceptionGroup) as ended:
        await live()
    assert ended.group_contains(StoreBrokenError)
    assert rig.session.log == []
    assert await rig.dead_letters() == []


async def test_a_request_that_fails_is_answered_and_kept_and_stops_no_other(rig, files):
    async with running(rig):
        await rig.register("hall")
        files.shelf.error = RuntimeError("a bug")
        with structlog.testing.capture_logs() as logs:
            rig.deliver(up(), ASK)
            await quiet(rig)
        files.shelf.error = None
        rig.deliver(up(), ASK)
        await quiet(rig)
        (_, refusal), *blocks = said(rig)
        assert (refusal["o"], refusal["c"], len(blocks)) == ("InternalError", "t-1", 3)
        assert rig.session.acked == [1, 2]
        (letter,) = await rig.dead_letters()
        assert (letter["operation"], letter["reason"]) == ("StreamRequest.get", refusal["m"])
        assert [log["event"] for log in logs] == ["request_failed", "dead_letter"]


async def test_what_may_have_killed_the_last_run_is_not_tried_again(tmp_path, files):
    make_rig(tmp_path)  # a run that never ends in good order
    rig = make_rig(tmp_path, streams=files.service)
    async with running(rig):
        await rig.register("hall")
        packet_id = rig.deliver(up(), ASK, duplicate=True)
        await quiet(rig)
        assert rig.session.sent == []
        assert rig.session.acked == [packet_id]
        rig.deliver(up(), ASK)
        await quiet(rig)
        assert len(rig.session.sent) == 3


async def test_what_is_delivered_again_after_a_good_run_is_answered(rig):
    async with running(rig):
        await rig.register("hall")
        rig.deliver(up(), ASK, duplicate=True)
        await quiet(rig)
        assert len(rig.session.sent) == 3


# ---------------------------------------------------------------------- how much waits


async def test_while_the_way_to_the_broker_is_full_nothing_is_prepared_and_little_waits(rig, files):
    async with running(rig):
        await rig.register("hall")
        rig.session.fill()
        for number in range(20):
            rig.deliver(up(), cbor2.dumps({"c": f"t-{number}", "f": 0, "l": 4096, "n": 1}))
            await turns(5)
        assert len(rig.bridge.streams) == fairness.REQUESTS_PER_SHARE_MAX
        assert rig.session.sent == []
        assert files.shelf.asked == []
        assert rig.session.acked == list(range(1, 17))
        assert rig.dropped("too_many_block_requests") == 16
        rig.session.make_room()
        await quiet(rig)
        assert [block["c"] for _, block in said(rig)] == ["t-16", "t-17", "t-18", "t-19"]
        assert rig.session.acked == list(range(1, 21))


async def test_an_answer_for_which_the_way_was_filled_meanwhile_waits_and_is_not_lost(
    rig, files, monkeypatch
):
    streams_of = files.jobs.streams_of

    async def filling(thing):
        rig.session.fill()
        return await streams_of(thing)

    async with running(rig):
        await rig.register("hall")
        monkeypatch.setattr(files.jobs, "streams_of", filling)
        packet_id = rig.deliver(up(), ASK)
        await turns(20)
        assert (rig.session.sent, rig.session.acked) == ([], [])
        rig.session.make_room()
        await quiet(rig)
        assert (len(rig.session.sent), rig.session.acked) == (3, [packet_id])
        assert rig.dropped("no_room_for_answer") == 0


async def test_a_thing_that_asks_without_end_keeps_nobody_waiting(rig, files):
    async with running(rig):
        for thing in ("hall", "attic"):
            await rig.register(thing)
        files.allow("attic")
        rig.session.fill()
        for _ in range(50):
            rig.deliver(up(), ASK)
        rig.deliver(up("attic"), ASK)
        rig.session.make_room()
        await quiet(rig)
        first = [one.topic.split("/")[2] for one in rig.session.sent][:6]
        assert first == ["hall"] * 3 + ["attic"] * 3


async def test_a_thing_gets_its_burst_and_then_its_pace_and_others_are_served_meanwhile(tmp_path, files):
    rig = make_rig(tmp_path, streams=files.service, pace=Pace(bytes_per_s=20_000, burst_bytes=10_500))
    async with running(rig):
        for thing in ("hall", "attic"):
            await rig.register(thing)
        files.allow("attic")
        began_s = asyncio.get_running_loop().time()
        for _ in range(3):
            rig.deliver(up(), ASK)
        await turns(50)
        assert len(rig.session.sent) == 6  # 10 kB, and one more answer on credit
        rig.deliver(up("attic"), ASK)
        await settled(lambda: len(rig.session.sent) == 9)
        assert rig.session.sent[-1].topic.startswith("$aws/things/attic/")
        await settled(lambda: len(rig.session.sent) == 12)
        assert asyncio.get_running_loop().time() - began_s >= (20_000 - 10_500) / 20_000
        assert sorted(rig.session.acked) == [1, 2, 3, 4]


async def test_refusals_count_as_well_or_a_thing_could_have_the_store_asked_without_end(tmp_path, files):
    pace = Pace(bytes_per_s=streams.REQUEST_BYTES_MIN, burst_bytes=2 * streams.REQUEST_BYTES_MIN)
    rig = make_rig(tmp_path, streams=files.service, pace=pace)
    async with running(rig):
        await rig.register("hall")
        for number in range(4):
            rig.deliver(up(stream=f"keys-{number}"), ASK)
        await turns(50)
        assert files.shelf.asked == ["keys-0", "keys-1", "keys-2"]
        assert len(rig.bridge.streams) == 1


async def test_so_many_wait_unacknowledged_and_more_are_acknowledged_at_once(rig, monkeypatch):
    monkeypatch.setattr(streams, "UNACKNOWLEDGED_MAX", 3)
    async with running(rig):
        for number in range(5):
            await rig.register(f"thing-{number}")
        rig.session.fill()
        packets = [rig.deliver(up(f"thing-{number}"), ASK) for number in range(5)]
        await turns(20)
        assert rig.session.acked == packets[3:]
        rig.session.make_room()
        await quiet(rig)
        assert rig.session.acked == packets[3:] + packets[:3]
        assert len(rig.session.sent) == 5
        assert rig.bridge.streams._unacknowledged == 0


async def test_when_the_connection_breaks_what_waits_is_forgotten_and_comes_again(rig):
    async with running(rig):
        await rig.register("hall")
        rig.session.fill()
        packet_id = rig.deliver(up(), ASK)
        await turns(20)
        rig.session.disconnect()
        assert len(rig.bridge.streams) == 0
        rig.session.make_room()
        await rig.session.connect()
        rig.deliver(up(), ASK, packet_id=packet_id, duplicate=True)
        await quiet(rig)
        assert len(rig.session.sent) == 3
        assert rig.session.acked == [packet_id]


async def test_an_answer_that_finds_no_room_is_not_kept(rig, files, monkeypatch):
    async with running(rig):
        await rig.register("hall")

        async def looked_up_slowly(_id):
            rig.session.room = 0
            return files.shelf.streams[FW]

        monkeypatch.setattr(files.shelf, "stream", looked_up_slowly)
        packet_id = rig.deliver(up(), ASK)
        await quiet(rig)
        assert rig.session.sent == []
        assert rig.session.acked == [packet_id]
        assert rig.dropped("no_room_for_answer") == 1


async def test_one_portion_is_written_before_the_next_is_prepared(rig, files):
    files.add("fw-big", f0=(image := numbered(10 * 131_072)))
    things = [f"thing-{number}" for number in range(10)]
    async with running(rig):
        for thing in things:
            await rig.register(thing)
            files.allow(thing, "fw-big")
        rig.session.fill()
        for thing in things:
            rig.deliver(up(thing, stream="fw-big"), Loader(len(image), 131_072).ask_from(0))
        rig.session.make_room()
        await quiet(rig)
        writes = [one.writes for one in rig.session.sent]
        assert len(writes) == 10
        assert max(writes.count(number) for number in writes) * 131_072 <= 2 * streams.PORTION_BYTES_MAX


async def test_shadows_are_served_while_blocks_flow(rig, files):
    async with running(rig):
        for number in range(20):
            await rig.register(f"thing-{number}")
            files.allow(f"thing-{number}")
        await rig.register("hall")
        for _ in range(4):
            for number in range(20):
                rig.deliver(up(f"thing-{number}"), ASK)
        rig.report("hall", {"on": True})
        await rig.quiet()
        await quiet(rig)
        kinds = [isinstance(one, Sent) for one in rig.session.log]
        accepted = [one for one in rig.session.said if one.topic.endswith("/update/accepted")]
        assert len(accepted) == 1
        assert kinds.count(True) == 240
        assert not all(kinds[: kinds.index(False) + 1])
        assert kinds.index(False) < len(kinds) - 10


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_comes_has_one_acknowledgement_and_at_most_one_answer(rig, seed):
    rng = random.Random(seed)
    async with running(rig):
        await rig.register("hall")
        for _ in range(300):
            rig.deliver(
                up(
                    rng.choice(["hall", "nobody"]),
                    gateway=rng.choice([None, None, "meter"]),
                    stream=rng.choice([FW, KEYS, "fw-none"]),
                    operation=rng.choice(["get", "describe"]),
                    format=rng.choice(["cbor", "json", "x"]),
                ),
                rng.choice([ASK, b"", b"{}", rng.randbytes(rng.randrange(40))]),
            )
            await turns(rng.randrange(4))
        await quiet(rig)
        assert sorted(rig.session.acked) == list(range(1, 301))
        assert rig.bridge.streams._unacknowledged == 0
