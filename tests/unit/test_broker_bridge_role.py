"""The bridge as a whole: what a connection's beginning and end do, its stop, and what can be seen of it."""

import asyncio
import random

import pytest
import structlog
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from broker_bridge import role
from broker_bridge.topics import Operation
from infra.telemetry import Journeys
from infra.telemetry.spans import Spans
from registry.models import ThingKind
from security import audit
from shadow.document import ShadowId
from tests.bridge_rig import ANNA, Acked, make_rig, running, settled, turns

OWN = "$aws/things/hall/shadow"


@pytest.fixture
def rig(tmp_path):
    return make_rig(tmp_path)


def held_commit(rig):
    """Hold the next commit back until the event that is returned is set; the other says that it is held."""
    gate, held = asyncio.Event(), asyncio.Event()

    async def hold():
        held.set()
        await gate.wait()

    rig.store.before_commit.append(hold)
    return gate, held


# ---------------------------------------------------------------------- a connection's beginning


async def test_a_session_made_anew_is_saved_and_one_that_is_known_is_not(rig):
    async with running(rig, connect=False):
        await rig.session.connect(session_present=True)
        assert rig.remembered == []
        rig.session.disconnect()
        await rig.session.connect(session_present=False)
        assert rig.remembered == [2]


async def test_what_waited_when_the_connection_broke_is_served_once_as_it_is_delivered_again(rig):
    async with running(rig):
        await rig.register("hall")
        gate, held = held_commit(rig)
        rig.report("hall", {"n": 0}, packet_id=1)
        await held.wait()
        rig.report("hall", {"n": 1}, packet_id=2)
        rig.report("hall", {"n": 2}, packet_id=3)
        rig.session.disconnect()
        rig.session.begin()
        welcome = asyncio.create_task(rig.bridge.connected(session_present=True))
        gate.set()
        await welcome
        # The broker sends all of it again: the first was in hand and has no token, so it counts twice.
        for number in range(3):
            rig.report("hall", {"n": number}, packet_id=number + 1, duplicate=True)
        await rig.quiet()
        assert await rig.version("hall") == 4
        assert rig.session.acked == [1, 2, 3]


async def test_what_waited_is_served_when_the_broker_lost_it(rig):
    async with running(rig):
        await rig.register("hall")
        gate, held = held_commit(rig)
        rig.report("hall", {"n": 0})
        await held.wait()
        rig.report("hall", {"n": 1}, clientToken="t-1")
        rig.session.disconnect()
        rig.session.begin()
        welcome = asyncio.create_task(rig.bridge.connected(session_present=False))
        gate.set()
        await welcome
        await rig.quiet()
        assert await rig.version("hall") == 2
        assert rig.session.acked == []  # packet ids of a session that is gone
        assert "t-1" in [body.get("clientToken") for body in rig.session.on(f"{OWN}/update/accepted")]


async def test_requests_of_a_new_connection_wait_for_the_batch_in_hand(rig):
    """Else a thing with ten requests in hand would hear 429 to the same ten, delivered again."""
    async with running(rig):
        await rig.register("hall")
        gate, held = held_commit(rig)
        packets = [rig.report("hall", {"n": number}, clientToken=f"t-{number}") for number in range(10)]
        await held.wait()
        rig.session.disconnect()
        rig.session.begin()
        welcome = asyncio.create_task(rig.bridge.connected(session_present=True))
        await turns()
        assert not welcome.done()
        gate.set()
        await welcome
        for number, packet in enumerate(packets):
            rig.report("hall", {"n": number}, clientToken=f"t-{number}", packet_id=packet, duplicate=True)
        await rig.quiet()
        assert await rig.version("hall") == 10
        assert f"{OWN}/update/rejected" not in rig.session.topics
        assert rig.session.acked == packets


async def test_an_acknowledgement_of_the_broker_settles_a_version(rig):
    async with running(rig):
        await rig.register("hall")
        await rig.wish("hall", {"heat_c": 21})
        rig.bridge.settled((ShadowId("hall"), 1))
        assert await rig.shadows.unsent_of(ShadowId("hall")) == []


async def test_lines_of_the_brokers_log_are_read_and_nothing_else_on_those_topics_is_a_request(rig):
    async with running(rig):
        line = b"1795558655: New client connected from 127.0.0.1:40668 as hall (p5, c1, k60, u'hall')."
        rig.deliver("$SYS/broker/log/N", line, qos=0)
        rig.deliver("$SYS/broker/log/N", b"\xff\xfe not text", qos=0)
        assert rig.bridge.catch_up.present == 1
        assert rig.dropped("unknown_topic") == 0


async def test_what_the_broker_logged_before_we_listened_is_read_at_each_connect(rig):
    logged = ["1795558655: New client connected from 127.0.0.1:40668 as hall (p5, c0, k60, u'hall')."]
    rig.bridge._logged = lambda: logged
    async with running(rig, connect=False):
        await rig.register("hall")
        await rig.wish("hall", {"heat_c": 21})
        await rig.session.connect()
        await settled(lambda: rig.session.topics.count(f"{OWN}/update/delta") == 2)
        assert rig.bridge.catch_up.present == 1


async def test_a_thing_that_speaks_is_heard_in_the_name_of_who_spoke(rig):
    heard: list[str] = []
    rig.bridge.catch_up.heard = heard.append
    async with running(rig):
        await rig.register("meter", ThingKind.GATEWAY)
        await rig.register("lamp", gateways=("meter",))
        rig.report("lamp", {"on": True}, gateway="meter")
        rig.report("lamp", {"on": False})
        assert heard == ["meter", "lamp"]


# ---------------------------------------------------------------------- refusals, stop


async def test_refusals_are_written_now_and_then_and_wait_for_a_store_that_is_down(rig, monkeypatch):
    monkeypatch.setattr(role, "REFUSALS_FLUSH_S", 0.01)
    async with running(rig):
        await rig.register("hall")
        await rig.registry.revoke("hall", ANNA)
        rig.store.refuses = ("append",)
        rig.report("hall", {"n": 1})
        await rig.quiet()
        with structlog.testing.capture_logs() as logs:
            await settled(lambda: bool(logs))
        assert logs[0]["event"] == "refusals_wait_for_the_store"
        rig.store.refuses = ()
        await asyncio.sleep(0.05)
        page = await audit.read(rig.store, 0, 2**62, 100)
        assert [row.reason for row in page.entries if row.decision is audit.Decision.REFUSED] == ["revoked"]


async def test_a_stop_settles_what_is_in_hand_and_takes_nothing_new(rig):
    async with running(rig):
        await rig.register("hall")
        gate, held = held_commit(rig)
        first = rig.report("hall", {"n": 0})
        await held.wait()
        rig.report("hall", {"n": 1})
        stop = asyncio.create_task(_stop())
        await turns()
        gate.set()
        await stop
        assert rig.session.log[-1] == Acked(first)
        assert await rig.version("hall") == 1


async def _stop():
    bridge = next(task for task in asyncio.all_tasks() if task.get_name() == "bridge")
    bridge.cancel()
    await asyncio.wait({bridge})


async def test_a_stop_does_not_wait_for_ever_for_a_store_that_is_silent(rig, monkeypatch):
    monkeypatch.setattr(role, "FINISH_S_MAX", 0.05)
    async with running(rig):
        await rig.register("hall")
        gate, held = held_commit(rig)
        rig.report("hall", {"n": 0})
        await held.wait()
        with structlog.testing.capture_logs() as logs:
            async with asyncio.timeout(2):
                await _stop()
        assert [event["event"] for event in logs] == ["bridge_stopped_in_mid_batch"]
        assert rig.session.acked == []
        gate.set()


async def test_a_part_that_fails_ends_the_whole_bridge(rig):
    async def broken(_max):
        raise ZeroDivisionError

    rig.bridge.inbox.take = broken

    async def live():
        async with running(rig):
            await settled(lambda: False)

    with pytest.raises(ExceptionGroup) as ended:
        await live()
    assert ended.group_contains(ZeroDivisionError)


# ---------------------------------------------------------------------- journeys


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def traced(tmp_path, exporter):
    def journeys(clock):
        return Journeys(clock, random.Random(1), Spans(SimpleSpanProcessor(exporter)), sample_ratio=1.0)

    return make_rig(tmp_path, journeys=journeys)


async def test_a_request_is_traced_from_its_arrival_over_queue_and_commit_to_its_answer(traced, exporter):
    async with running(traced) as rig:
        await rig.register("hall")

        async def slow_commit():
            rig.clock.advance(0.003)

        rig.store.before_commit.append(slow_commit)
        rig.report("hall", {"n": 1})
        rig.clock.advance(0.010)
        await rig.quiet()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    lasted = {name: (span.end_time - span.start_time) // 10**6 for name, span in spans.items()}
    assert lasted == {"request": 13, "queue": 10, "commit": 3, "publish": 0}
    assert spans["request"].attributes == {
        "operation": Operation.UPDATE, "thing": "hall", "shadow": "", "gateway": "",
    }  # fmt: skip


async def test_what_is_refused_read_or_has_qos_0_leaves_no_journey_open(traced, exporter):
    async with running(traced) as rig:
        await rig.register("hall")
        rig.send("hall", b"{nonsense")
        rig.send("hall", operation="get")
        rig.report("hall", {"n": 1}, qos=0)
        for number in range(12):
            rig.report("stranger", {"n": number})
        await rig.quiet()
        assert not rig.bridge._journeys.open
    names = [span.name for span in exporter.get_finished_spans()]
    assert names.count("request") == names.count("answer") == 12  # QoS 0 and the two too many are not traced


async def test_a_journey_ends_with_the_connection_and_begins_anew_with_the_next(traced, exporter):
    async with running(traced) as rig:
        await rig.register("hall")
        gate, held = held_commit(rig)
        rig.report("hall", {"n": 0}, packet_id=1)
        await held.wait()
        rig.report("hall", {"n": 1}, packet_id=2)
        rig.session.disconnect()
        rig.session.begin()
        welcome = asyncio.create_task(rig.bridge.connected(session_present=True))
        gate.set()
        await welcome
        assert not rig.bridge._journeys.open
        rig.report("hall", {"n": 1}, packet_id=2, duplicate=True)
        await rig.quiet()
        assert not rig.bridge._journeys.open
    assert [span.name for span in exporter.get_finished_spans()].count("request") == 2


async def test_without_traces_no_journey_is_ever_begun(rig):
    async with running(rig):
        await rig.register("hall")
        begun = []
        rig.bridge._journeys.received = lambda *journey: begun.append(journey)
        rig.report("hall", {"n": 1})
        await rig.quiet()
        assert begun == []
