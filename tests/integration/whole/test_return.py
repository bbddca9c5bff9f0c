"""Who comes back is told what is still to be done, without asking (spec: shadow, E2)."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import pytest

from tests.system.child import Gnomon
from tests.system.mqtt import V5, V311, Message, Thing, connected, shadow_topic, tree_topic, until

pytestmark = [
    pytest.mark.integration,
    # paho leaks a socket whose handshake its broker does not live to answer.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket"),
]

SOON_S = 5.0
INTERVAL_S = 1
HERD, RATE = 40, 40
QUICK_ONES = 4


@pytest.fixture(scope="module")
def quick(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gnomon]:
    """A service that reminds again soon, and slowly enough to be watched."""
    request.getfixturevalue("broker_program")
    settings = {
        "limits.catchup_interval_s": INTERVAL_S,
        "limits.catchup_rate_max": RATE,
        "api.compat_http": "true",
    }
    with Gnomon(tmp_path_factory.mktemp("quick"), settings) as running:
        yield running


def delta_of(thing: Thing, shadow: str = "") -> str:
    return shadow_topic(thing.name, shadow) + "/update/delta"


@pytest.mark.parametrize("protocol", [V311, V5], ids=["MQTT 3.1.1", "MQTT 5"])
def test_a_thing_that_subscribes_is_told_what_was_wished_while_it_was_away(gnomon: Gnomon, protocol):
    name = gnomon.new()
    gnomon.desire(name, {"set": 18, "mode": "eco"})
    version = gnomon.desire(name, {"set": 21})
    with connected(gnomon, name, protocol=protocol) as device:
        device.subscribe(delta_of(device))
        told = device.wait_on(delta_of(device), timeout_s=SOON_S).json
        assert (told["state"], told["version"]) == ({"set": 21, "mode": "eco"}, version)
        assert "clientToken" not in told


def test_every_shadow_with_a_delta_is_told_and_no_other(quick: Gnomon):
    name = quick.new()
    for shadow in ("config", "free"):
        quick.desire(name, {"n": 1}, shadow)
    with connected(quick, name) as device:
        device.listen("free").report({"n": 1}, "free")
    with connected(quick, name) as device:
        device.subscribe(f"$aws/things/{name}/shadow/name/+/update/delta", delta_of(device))
        told = device.wait_on(delta_of(device, "config"), timeout_s=SOON_S).json
        assert told["state"] == {"n": 1}
        assert device.stays_silent("name/free/update/delta", for_s=2 * INTERVAL_S)
        assert set(device.topics()) == {delta_of(device, "config")}


def test_what_is_reported_is_not_told_again(quick: Gnomon):
    name = quick.new()
    quick.desire(name, {"n": 1})
    with connected(quick, name) as device:
        device.listen()
        device.wait_on(delta_of(device), timeout_s=SOON_S)
        device.report({"n": 1})
    with connected(quick, name) as device:
        device.listen()
        assert device.stays_silent(for_s=2 * INTERVAL_S)


def test_a_gateway_that_subscribes_is_told_what_its_things_have_still_to_do(gnomon: Gnomon):
    gateway, lamp = gnomon.new("gateway"), gnomon.new(has_certificate=False)
    gnomon.attach(gateway, lamp)
    gnomon.desire(lamp, {"on": True})
    with connected(gnomon, gateway) as relay:
        relay.subscribe(f"gnomon/gateways/{gateway}/down/#")
        told = relay.wait_on(tree_topic(gateway, "down", lamp) + "/update/delta", timeout_s=SOON_S).json
        assert told["state"] == {"on": True}


def test_a_wish_made_while_the_broker_was_dead_arrives_after_its_return(quick: Gnomon):
    name = quick.new()
    with connected(quick, name) as device:
        device.subscribe(delta_of(device))
        time.sleep(INTERVAL_S)
        with device.cut_off():
            killed = quick.kill_broker()
            version = quick.desire(name, {"n": 1})
            until(lambda: quick.has_broker(other_than=killed), "the service starts a broker again")
        device.subscribe(delta_of(device))
        told = device.wait_for(lambda one: one.topic == delta_of(device), timeout_s=SOON_S).json
        assert (told["state"], told["version"]) == ({"n": 1}, version)
        assert device.listen().report({"n": 1})["version"] == version + 1, "and it is heard again"


def test_things_that_are_quicker_back_than_the_bridge_are_told_all_the_same(quick: Gnomon):
    names = [quick.new() for _ in range(QUICK_ONES)]
    for name in names:
        quick.desire(name, {"n": 1})
    killed = quick.kill_broker()
    with ThreadPoolExecutor(QUICK_ONES) as hands:
        devices = list(hands.map(partial(connect_at_once, quick), names))
    until(lambda: quick.has_broker(other_than=killed), "the service starts a broker again")
    for device in devices:
        told = device.wait_on(delta_of(device), timeout_s=SOON_S).json
        assert told["state"] == {"n": 1}
        device.disconnect()


def connect_at_once(gnomon: Gnomon, name: str) -> Thing:
    """Connect and subscribe as soon as the broker listens, with nothing that polite clients do."""
    deadline = time.monotonic() + SOON_S
    while True:
        device = Thing(gnomon, name)
        try:
            return device.connect().subscribe(delta_of(device))
        except OSError:
            assert time.monotonic() < deadline, "the broker does not come back"
            time.sleep(0.005)


def test_a_herd_that_returns_is_told_at_the_rate_that_is_set(quick: Gnomon):
    names = [quick.new() for _ in range(HERD)]
    for name in names:
        quick.desire(name, {"n": 1})
    with ExitStack() as stack:
        herd = [stack.enter_context(connected(quick, name)) for name in names]
        for device in herd:
            device.subscribe(delta_of(device))
        told: list[Message] = [
            device.wait_on(delta_of(device), timeout_s=HERD / RATE + SOON_S) for device in herd
        ]
    times = sorted(one.at_s for one in told)
    assert times[-1] - times[0] >= 0.8 * (HERD - 1) / RATE
    within_a_second = max(sum(1 for at_s in times if start <= at_s < start + 1) for start in times)
    assert within_a_second <= 1.2 * RATE
