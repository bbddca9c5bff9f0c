"""A gateway speaks for what is attached to it, in its own tree, and for nothing else (spec: shadow, E8)."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.system.child import Gnomon
from tests.system.mqtt import Thing, connected, shadow_topic, tree_topic

pytestmark = pytest.mark.integration


@dataclass(frozen=True, slots=True)
class Home:
    """A connected gateway with one attached device without IP and one with."""

    gnomon: Gnomon
    gateway: Thing
    lamp: str
    phone: str

    def ask(self, thing: str, operation: str, body: object = None, shadow: str = ""):
        return self.gateway.ask(operation, body, shadow=shadow, tree=self.gateway.name, thing=thing)

    def report(self, thing: str, fields: object):
        return self.ask(thing, "update", {"state": {"reported": fields}})

    def down(self, thing: str, shadow: str = "") -> str:
        return tree_topic(self.gateway.name, "down", thing, shadow)


@pytest.fixture
def home(gnomon: Gnomon) -> Iterator[Home]:
    name = gnomon.new("gateway")
    lamp, phone = gnomon.new(has_certificate=False), gnomon.new()
    gnomon.attach(name, lamp, phone)
    with connected(gnomon, name) as gateway:
        gateway.subscribe(f"gnomon/gateways/{name}/down/#")
        yield Home(gnomon, gateway, lamp, phone)


def refused_as(answer):
    """Return what a refusal says, but for when and to whom."""
    return {name: value for name, value in answer.json.items() if name not in {"timestamp", "clientToken"}}


def test_an_attached_thing_is_updated_read_and_deleted_in_the_tree_of_its_gateway(home: Home):
    accepted = home.report(home.lamp, {"on": True})
    assert accepted.topic == home.down(home.lamp) + "/update/accepted"
    assert home.ask(home.lamp, "get").json["state"] == {"reported": {"on": True}}
    assert home.ask(home.lamp, "delete").json["version"] == 1
    assert home.ask(home.lamp, "get").json["code"] == 404


def test_named_shadows_of_an_attached_thing_are_in_the_tree_too(home: Home):
    answer = home.ask(home.lamp, "update", {"state": {"reported": {"rev": 1}}}, shadow="config")
    assert answer.topic == home.down(home.lamp, "config") + "/update/accepted"


def test_a_wish_for_a_thing_without_ip_reaches_the_tree_of_its_gateway(home: Home):
    home.gnomon.desire(home.lamp, {"on": True})
    delta = home.gateway.wait_on(home.down(home.lamp) + "/update/delta").json
    assert (delta["state"], delta["version"]) == ({"on": True}, 1)


def test_delta_and_documents_go_to_the_thing_and_to_every_gateway_and_answers_to_who_asked(home: Home):
    other = home.gnomon.new("gateway")
    home.gnomon.attach(other, home.phone)
    with connected(home.gnomon, other) as second, connected(home.gnomon, home.phone) as phone:
        second.subscribe(f"gnomon/gateways/{other}/down/#")
        phone.listen()
        home.ask(home.phone, "update", {"state": {"desired": {"n": 1}}})
        news = {"update/delta", "update/documents"}
        for client, base in (
            (home.gateway, home.down(home.phone)),
            (second, tree_topic(other, "down", home.phone)),
            (phone, shadow_topic(home.phone)),
        ):
            client.wait_on(f"{base}/update/documents")
            heard = {topic.removeprefix(base + "/") for topic in client.topics()}
            assert heard == (news | {"update/accepted"} if client is home.gateway else news)


def test_what_is_detached_is_refused_at_once_in_the_session_that_is_open(home: Home):
    home.report(home.lamp, {"n": 1})
    home.gnomon.detach(home.gateway.name, home.lamp)
    refused = home.report(home.lamp, {"n": 2})
    assert refused.topic == home.down(home.lamp) + "/update/rejected"
    assert (refused.json["code"], refused.json["message"]) == (403, "Forbidden")
    assert home.gnomon.shadow(home.lamp)["state"] == {"reported": {"n": 1}}
    since = len(home.gateway.received)
    home.gnomon.desire(home.lamp, {"n": 3})
    assert home.gateway.stays_silent(since=since), "who is detached hears no more of it"
    home.gnomon.attach(home.gateway.name, home.lamp)
    assert home.report(home.lamp, {"n": 3}).topic.endswith("/accepted"), "and attached again at once"


def test_an_unattached_thing_and_one_that_is_not_there_are_the_same_403(home: Home):
    stranger = home.gnomon.new()
    refusals = [
        refused_as(home.ask(thing, operation, {"state": {}}))
        for thing in (stranger, "not-there")
        for operation in ("update", "get", "delete")
    ]
    assert [one["code"] for one in refusals] == [403] * len(refusals)
    assert all(one == refusals[0] for one in refusals)
    assert home.gnomon.http.get(f"/things/{stranger}/shadow").status_code == 404


def test_a_gateway_cannot_forge_what_the_service_says_to_it(home: Home):
    home.gateway.publish(home.down(home.lamp) + "/update/delta", b'{"state": {"on": true}, "version": 1}')
    assert home.gateway.stays_silent()


def test_a_gateway_cannot_speak_in_the_tree_of_another(home: Home):
    other = home.gnomon.new("gateway")
    home.gnomon.attach(other, home.lamp)
    topic = tree_topic(other, "up", home.lamp) + "/update"
    home.gateway.publish(topic, b'{"state": {"reported": {"n": 1}}}')
    assert home.gateway.stays_silent()
    assert home.gnomon.http.get(f"/things/{home.lamp}/shadow").status_code == 404


def test_a_gateway_speaks_for_a_thing_never_on_the_things_own_topics(home: Home):
    home.gateway.publish(shadow_topic(home.phone) + "/update", b'{"state": {"reported": {"n": 1}}}')
    assert home.gateway.stays_silent()
    assert home.gnomon.http.get(f"/things/{home.phone}/shadow").status_code == 404


def test_a_device_is_no_gateway_even_for_itself(gnomon: Gnomon):
    name = gnomon.new()
    with connected(gnomon, name) as device:
        device.subscribe(f"gnomon/gateways/{name}/down/#")
        refused = device.ask("update", {"state": {}}, tree=name, thing=name)
        assert refused.json["code"] == 403


def test_things_of_other_premises_cannot_be_attached(home: Home):
    elsewhere = home.gnomon.new(premises="home-2")
    answer = home.gnomon.http.put(f"/v1/gateways/{home.gateway.name}/things/{elsewhere}")
    assert answer.status_code == 409
    assert home.report(elsewhere, {"n": 1}).json["code"] == 403


def test_history_names_the_thing_as_actor_and_the_gateway_that_spoke(home: Home):
    home.report(home.lamp, {"n": 1})
    (row,) = home.gnomon.http.get(f"/v1/things/{home.lamp}/shadows/@classic/history").json()["items"]
    assert home.gateway.name in str(row)
