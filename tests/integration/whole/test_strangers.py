"""What somebody may do with a certificate of ours who means no good, or errs: nothing beyond their own."""

import time

import pytest
from paho.mqtt.reasoncodes import ReasonCode

from tests.enrolling import enrol
from tests.system.child import Gnomon
from tests.system.mqtt import V5, V311, Thing, answers, connected, shadow_topic, until

pytestmark = pytest.mark.integration

WISH = b'{"state": {"desired": {"on": true}}}'
NOT_AUTHORIZED = 0x87
COMES_BACK_S = 2.5
"""Who is thrown off tries to come back after a second."""
PROTOCOLS = pytest.mark.parametrize("protocol", [V311, V5], ids=["MQTT 3.1.1", "MQTT 5"])


def value_of(reason: ReasonCode) -> int:
    value: int = reason.value
    return value


@PROTOCOLS
def test_an_update_of_a_foreign_thing_is_without_effect(gnomon: Gnomon, protocol):
    own, foreign = gnomon.new(), gnomon.new()
    with connected(gnomon, own, protocol=protocol) as intruder, connected(gnomon, foreign) as victim:
        victim.listen()
        for operation in ("update", "get", "delete"):
            for shadow in ("", "program"):
                reason = intruder.publish(f"{shadow_topic(foreign, shadow)}/{operation}", WISH)
                # In MQTT 3.1.1 there is no way to say no: only the missing effect tells.
                assert value_of(reason) == (NOT_AUTHORIZED if protocol == V5 else 0)
        assert victim.stays_silent()
    assert gnomon.http.get(f"/things/{foreign}/shadow").status_code == 404


@PROTOCOLS
def test_who_subscribes_to_a_foreign_shadow_hears_nothing(gnomon: Gnomon, protocol):
    own, foreign = gnomon.new(), gnomon.new()
    with connected(gnomon, own, protocol=protocol) as intruder, connected(gnomon, foreign) as victim:
        filters = [*answers(shadow_topic(foreign)), "$aws/things/+/shadow/#", "#", "gnomon/#", "$SYS/#"]
        intruder.subscribe(*filters)
        victim.listen()
        victim.report({"n": 1})
        gnomon.desire(foreign, {"n": 2})
        victim.wait_on(f"{shadow_topic(foreign)}/update/delta")
        assert intruder.stays_silent()


@PROTOCOLS
def test_nobody_can_forge_an_answer_to_a_thing(gnomon: Gnomon, protocol):
    own, foreign = gnomon.new(), gnomon.new()
    with connected(gnomon, own, protocol=protocol) as intruder, connected(gnomon, foreign) as victim:
        victim.listen()
        intruder.listen()
        for thing in (own, foreign):
            for topic in ("update/delta", "update/accepted", "get/accepted"):
                intruder.publish(f"{shadow_topic(thing)}/{topic}", WISH)
        assert victim.stays_silent()
        assert intruder.received == []


def test_another_client_id_does_not_make_another_thing(gnomon: Gnomon):
    own, foreign = gnomon.new(), gnomon.new()
    with connected(gnomon, foreign) as victim, connected(gnomon, own, client_id=foreign) as intruder:
        intruder.publish(f"{shadow_topic(foreign)}/update", WISH)
        time.sleep(0.2)
        assert victim.is_connected, "who takes another's client id must not throw the other off"
    assert gnomon.http.get(f"/things/{foreign}/shadow").status_code == 404


def test_a_will_updates_only_its_own_thing(gnomon: Gnomon):
    own, foreign = gnomon.new(), gnomon.new()
    last_words = b'{"state": {"reported": {"online": false}}}'
    for about in (own, foreign):
        thing = Thing(gnomon, own, will=(f"{shadow_topic(about)}/update", last_words)).connect()
        thing.break_off()
        time.sleep(0.2)
    until(lambda: gnomon.http.get(f"/things/{own}/shadow").status_code == 200, "the own will is applied")
    assert gnomon.shadow(own)["state"] == {"reported": {"online": False}}
    assert gnomon.shadow(own)["version"] == 1
    assert gnomon.http.get(f"/things/{foreign}/shadow").status_code == 404


def test_a_thing_that_is_not_registered_is_told_so(gnomon: Gnomon):
    with connected(gnomon, "not-registered") as thing:
        thing.listen()
        told = thing.ask("update", {"state": {"reported": {"n": 1}}})
        assert told.topic.endswith("/rejected")
        assert (told.json["code"], told.json["message"]) == (404, "Thing not found")


def test_a_revoked_thing_loses_its_session_and_is_let_in_no_more(gnomon: Gnomon):
    # It joins as devices do: only what is recorded as issued comes onto the revocation list.
    name = gnomon.new(certify=False)
    enrol(gnomon, name)
    with connected(gnomon, name) as thing:
        thing.listen()
        thing.report({"n": 1})
        assert gnomon.http.post(f"/v1/things/{name}/revoke").status_code == 200
        since = len(thing.received)
        thing.wait_connected(False)
        thing.send(f"{shadow_topic(name)}/update", b'{"state": {"reported": {"n": 2}}}')
        thing.send(f"{shadow_topic(name)}/get", b"")
        assert thing.stays_silent(since=since, for_s=COMES_BACK_S)
        assert (thing.is_connected, thing.connections) == (False, 1)
    assert gnomon.shadow(name)["state"] == {"reported": {"n": 1}}


@pytest.mark.parametrize("shadow", ["program", "han"])
def test_a_thing_may_not_desire_what_the_utility_desires(gnomon: Gnomon, shadow):
    with connected(gnomon, gnomon.new("gateway")) as thing:
        thing.listen(shadow)
        refused = thing.ask("update", {"state": {"desired": {"x": 1}}}, shadow=shadow)
        assert refused.topic.endswith("/rejected")
        assert (refused.json["code"], refused.json["message"]) == (403, "Forbidden")
        assert thing.report({"x": 1}, shadow)["version"] == 1, "reporting there is its right"


def test_nobody_desires_firmware(gnomon: Gnomon):
    name = gnomon.new()
    wish = {"state": {"desired": {"fw": {"version": "9"}}}}
    with connected(gnomon, name) as thing:
        thing.listen("firmware")
        assert thing.ask("update", wish, shadow="firmware").json["code"] == 403
    gateway = gnomon.new("gateway")
    gnomon.attach(gateway, name)
    with connected(gnomon, gateway) as relay:
        relay.subscribe(f"gnomon/gateways/{gateway}/down/#")
        assert relay.ask("update", wish, shadow="firmware", tree=gateway, thing=name).json["code"] == 403
    aws = gnomon.http.post(f"/things/{name}/shadow", params={"name": "firmware"}, json=wish)
    own = gnomon.http.patch(
        f"/v1/things/{name}/shadows/firmware",
        json=wish["state"],
        headers={"Content-Type": "application/merge-patch+json"},
    )
    assert (aws.status_code, own.status_code) == (403, 403)
    assert gnomon.http.get(f"/things/{name}/shadow", params={"name": "firmware"}).status_code == 404


@pytest.mark.parametrize("shadow", ["program", "firmware", "config", "han"])
def test_a_thing_deletes_none_of_the_reserved_shadows(gnomon: Gnomon, shadow):
    with connected(gnomon, gnomon.new("gateway")) as thing:
        thing.listen(shadow)
        thing.report({"x": 1}, shadow)
        assert thing.ask("delete", shadow=shadow).json["code"] == 403
        assert thing.ask("get", shadow=shadow).json["state"] == {"reported": {"x": 1}}
