"""The load generator against a real broker, with the stand-in answering."""

import asyncio
import json
from collections import Counter

import pytest

from fleet.connection import Certificates, Endpoint, plain_identity
from fleet.history import History
from fleet.load import Load, NotConnectedError
from fleet.shapes import Mode
from fleet.worker import Order
from infra.clock import SystemClock
from tests.fleet_broker import Broker, served, until
from tests.shadow_stand_in import StandIn

pytestmark = pytest.mark.integration

THINGS = ("load-0", "load-1", "load-2")


@pytest.fixture
def broker(tmp_path):
    broker = Broker(tmp_path)
    broker.issue(*THINGS)
    broker.start()
    yield broker
    broker.stop()


def loaded(broker, order, history=None, tls=True):
    port, identities = broker.port, Certificates(broker.certificates).identity
    if not tls:
        port, identities = broker.plain_port, plain_identity
    return Load(
        order,
        THINGS,
        endpoint=Endpoint("127.0.0.1", port),
        identities=identities,
        clock=SystemClock(),
        run_id="run",
        history=history,
    )


@pytest.mark.parametrize("mode", list(Mode))
async def test_an_open_loop_asks_at_its_rate_and_gets_every_answer(broker, mode):
    async with served(broker, StandIn()) as service:
        if mode is Mode.GET:
            for thing in THINGS:
                service.stand_in.wish(thing, {"on": True})
        load = loaded(broker, Order(seconds=1, rate=200, mode=mode))
        await load.run()
    assert 140 <= load.statistics.sent <= 260
    assert load.statistics.accepted == load.statistics.sent
    figures = load.summary()
    assert figures["unanswered"] == figures["unknown"] == figures["shed"] == 0
    assert load.statistics.latency.count == load.statistics.accepted
    assert figures["connections"] == 3


async def test_a_closed_loop_on_a_plain_listener_never_has_more_open_than_its_window(broker):
    async with served(broker, StandIn()) as service:
        load = loaded(broker, Order(seconds=0.5, window=2, is_sequenced=True), tls=False)
        await load.run()
    assert load.statistics.accepted == load.statistics.sent > 20
    versions = [service.stand_in.document(thing).version for thing in THINGS]
    assert sum(versions) == load.statistics.accepted
    assert not load.statistics.rejected


async def test_requests_lost_with_the_broker_are_repeated_and_take_effect_once(broker, tmp_path):
    path = tmp_path / "history.jsonl"
    with History(path, SystemClock()) as history:
        load = loaded(broker, Order(seconds=3, rate=150), history)
        async with served(broker, StandIn()) as service, asyncio.TaskGroup() as tasks:
            loading = tasks.create_task(load.run(), name="load")
            await until(lambda: load.statistics.accepted > 50)
            service.silence = 5
            await until(lambda: service.silence == 0)
            broker.stop()
            await until(lambda: load.statistics.connected == 0)
            broker.start()
            await loading
    assert load.statistics.repeated >= 5
    assert load.statistics.accepted == load.statistics.sent
    steps = [json.loads(line) for line in path.read_text().splitlines()]
    phases = Counter(step["phase"] for step in steps)
    assert phases["invoke"] == load.statistics.sent
    assert phases["ok"] >= phases["invoke"]
    applied = [request["clientToken"] for request in service.stand_in.applied]
    assert sorted(applied) == sorted({step["token"] for step in steps if step["phase"] == "invoke"})


async def test_what_is_never_answered_ends_as_maybe(broker, tmp_path):
    path = tmp_path / "history.jsonl"
    with History(path, SystemClock()) as history:
        load = loaded(broker, Order(seconds=0.2, rate=50, drain_s=0.2), history)
        await load.run()  # nobody answers
    steps = [json.loads(line) for line in path.read_text().splitlines()]
    invoked = {step["token"] for step in steps if step["phase"] == "invoke"}
    assert invoked == {step["token"] for step in steps if step["phase"] == "maybe"}
    assert load.summary()["unknown"] == len(invoked) > 0


async def test_a_load_that_cannot_connect_says_so(broker, monkeypatch):
    monkeypatch.setattr("fleet.load.CONNECT_S_MAX", 0.3)
    broker.stop()
    load = loaded(broker, Order(seconds=1))
    with pytest.raises(ExceptionGroup) as failure:
        await load.run()
    [error] = failure.value.exceptions
    assert isinstance(error, NotConnectedError)
    assert "0 of 3 connected" in str(error)
