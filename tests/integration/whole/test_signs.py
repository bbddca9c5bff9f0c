"""What only a real broker shows of the bridge: QoS 0, attaching on a live session, the first word."""

import pytest

from tests.system.child import Gnomon
from tests.system.mqtt import connected

pytestmark = pytest.mark.integration

CONNECTIONS = "gnomon_broker_connections_total"


def test_a_request_with_qos_0_is_answered_and_the_bridge_keeps_its_session(gnomon: Gnomon):
    """An acknowledgement of what has no packet id ends the session of who sends it."""
    name = gnomon.new()
    before = gnomon.metric(CONNECTIONS)
    with connected(gnomon, name) as device:
        device.listen()
        base = f"$aws/things/{name}/shadow"
        device.send(f"{base}/update", '{"state": {"reported": {"n": 1}}}', qos=0)
        device.wait_on(f"{base}/update/accepted")
        device.send(f"{base}/unheard-of", "{}", qos=0)
        device.send(f"{base}/get", "", qos=0)
        device.wait_on(f"{base}/get/accepted")
        assert device.ask("update", {"state": {"reported": {"n": 2}}}).json["version"] == 2
    assert gnomon.metric(CONNECTIONS) == before


def test_a_gateway_is_told_what_a_thing_has_to_do_when_it_is_attached_to_it(gnomon: Gnomon):
    gateway, lamp = gnomon.new("gateway"), gnomon.new(has_certificate=False)
    gnomon.desire(lamp, {"on": True})
    with connected(gnomon, gateway) as relay:
        relay.subscribe(f"gnomon/gateways/{gateway}/down/#")
        gnomon.attach(gateway, lamp)
        delta = relay.wait_on(f"gnomon/gateways/{gateway}/down/things/{lamp}/shadow/update/delta")
        assert delta.json["state"] == {"on": True}


def test_what_is_answered_before_a_stop_counts_once_and_what_is_not_comes_again(own_gnomon):
    gnomon = own_gnomon()
    name = gnomon.new()
    base = f"$aws/things/{name}/shadow"
    with connected(gnomon, name) as device:
        device.listen()
        for number in range(10):
            device.send(f"{base}/update", f'{{"state": {{"reported": {{"n": {number}}}}}}}')
        device.wait_on(f"{base}/update/accepted")
        gnomon.stop()
        answered = [one for one in device.received if one.topic == f"{base}/update/accepted"]
    gnomon.start()
    with connected(gnomon, name) as device:
        device.listen()
        device.ask("get")
        # They have no token: had one of them been served twice, there would be more versions than requests.
        assert len(answered) <= gnomon.shadow(name)["version"] <= 10
