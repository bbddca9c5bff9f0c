"""What the shadow clients of the AWS IoT Device SDK must find (spec: shadow, 14, conformance).

Expected values are those of the specification; none is taken from a run.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import msgspec
from awscrt import mqtt, mqtt5
from awscrt.exceptions import AwsCrtError
from awsiot import V2ServiceException

from tests.conformance.cases import WAIT_S, Bench, Catalogue, MissedError, Way, expect
from tests.conformance.sdk import MQTT_5, MQTT_311, V1, V2, Connection, connection, state

CATALOGUE: Final = Catalogue()
V1_WAYS: Final = tuple(
    Way("V1", protocol, shadow) for protocol in (MQTT_311, MQTT_5) for shadow in ("classic", "named")
)
V2_WAYS: Final = tuple(Way("V2", way.protocol, way.shadow) for way in V1_WAYS)
CLOCK_S: Final = 30
"""How far a timestamp may be from now."""
IN_FLIGHT_MAX: Final = 10
FOREIGN_S: Final = 2

v1_case = CATALOGUE.case(*V1_WAYS)
v2_case = CATALOGUE.case(*V2_WAYS)


@contextmanager
def _listening(bench: Bench) -> Iterator[V1]:
    """Connect a fresh thing with a V1 client that hears everything about its shadow."""
    thing = bench.thing()
    with connection(bench.gnomon, thing, bench.way.protocol) as opened:
        client = V1(opened, thing, bench.shadow_name)
        client.subscribe(*V1.TOPICS)
        yield client


# ---------------------------------------------------------------------- V1


@v1_case
def every_subscription_is_granted(bench: Bench) -> None:
    thing = bench.thing()
    with connection(bench.gnomon, thing, bench.way.protocol) as opened:
        V1(opened, thing, bench.shadow_name).subscribe(*V1.TOPICS)


@v1_case
def a_get_of_an_absent_shadow_is_rejected_404(bench: Bench) -> None:
    with _listening(bench) as client:
        client.publish("get", client_token="g-1")
        error = client.heard.expect("get_rejected")
        expect(error.code, 404, "code")
        named = bench.shadow_name or client.thing
        expect(error.message, f"No shadow exists with name: '{named}'", "message")
        expect(error.client_token, "g-1", "client token")


@v1_case
def a_delete_of_an_absent_shadow_is_rejected_404(bench: Bench) -> None:
    with _listening(bench) as client:
        client.publish("delete", client_token="d-1")
        error = client.heard.expect("delete_rejected")
        expect((error.code, error.client_token), (404, "d-1"), "refusal")


@v1_case
def the_first_update_creates_version_1_and_is_told_as_delta_then_documents_then_accepted(
    bench: Bench,
) -> None:
    with _listening(bench) as client:
        client.publish("update", state=state(desired={"on": True}, reported={"rssi": -61}), client_token="u1")
        delta = client.heard.expect("delta")
        documents = client.heard.expect("documents")
        accepted = client.heard.expect("update_accepted")

        expect((delta.state, delta.version, delta.client_token), ({"on": True}, 1, "u1"), "delta")
        expect(delta.metadata, {"on": {"timestamp": _s(delta.timestamp)}}, "metadata of the delta")
        expect(documents.previous, None, "previous document")
        expect(documents.current.version, 1, "version of the current document")
        expect(documents.current.state.desired, {"on": True}, "desired of the current document")
        expect(documents.current.state.reported, {"rssi": -61}, "reported of the current document")
        expect(accepted.version, 1, "version")
        expect(accepted.client_token, "u1", "client token")
        expect(accepted.state.desired, {"on": True}, "desired")
        expect(accepted.state.reported, {"rssi": -61}, "reported")
        stamp = {"timestamp": _s(accepted.timestamp)}
        expect(accepted.metadata.desired, {"on": stamp}, "metadata of desired")
        _expect_now(accepted.timestamp)


@v1_case
def a_get_shows_both_sections_and_the_delta(bench: Bench) -> None:
    with _listening(bench) as client:
        client.publish("update", state=state(desired={"set": 21.5, "mode": "eco"}, reported={"mode": "eco"}))
        for topic in ("delta", "documents", "update_accepted"):
            client.heard.expect(topic)
        client.publish("get", client_token="g-2")
        document = client.heard.expect("get_accepted")
        expect(document.state.desired, {"set": 21.5, "mode": "eco"}, "desired")
        expect(document.state.reported, {"mode": "eco"}, "reported")
        expect(document.state.delta, {"set": 21.5}, "delta")
        expect((document.version, document.client_token), (1, "g-2"), "version and token")
        _expect_now(document.timestamp)


@v1_case
def reporting_what_is_desired_ends_the_delta(bench: Bench) -> None:
    with _listening(bench) as client:
        client.publish("update", state=state(desired={"valve": {"open": True}}))
        for topic in ("delta", "documents", "update_accepted"):
            client.heard.expect(topic)
        client.publish("update", state=state(reported={"valve": {"open": True}}))
        documents = client.heard.expect("documents")
        accepted = client.heard.expect("update_accepted")
        client.heard.expect_nothing()
        expect(documents.previous.version, 1, "previous version")
        expect(documents.previous.state.reported, None, "previous reported")
        expect(documents.current.state.reported, {"valve": {"open": True}}, "current reported")
        expect(accepted.version, 2, "version")
        expect(accepted.state.desired, None, "desired, which was not asked for")


@v1_case
def null_removes_a_field_and_a_section(bench: Bench) -> None:
    with _listening(bench) as client:
        client.publish("update", state=state(reported={"a": 1, "b": 2}, desired={"b": 2}))
        client.heard.expect("documents")
        client.heard.expect("update_accepted")
        client.publish("update", state=state(reported={"a": None}))
        expect(client.heard.expect("documents").current.state.reported, {"b": 2}, "reported without a")
        accepted = client.heard.expect("update_accepted")
        expect(accepted.state.reported, {"a": None}, "the request's own section")
        stamp = {"timestamp": _s(accepted.timestamp)}
        expect(accepted.metadata.reported, {"a": stamp}, "stamp in place of null")
        client.publish("update", state=state(desired=None))
        expect(client.heard.expect("documents").current.state.desired, None, "desired when removed")
        accepted = client.heard.expect("update_accepted")
        expect(accepted.state.desired_is_nullable, True, "null for desired in the answer")


@v1_case
def an_update_with_another_version_is_rejected_409_and_changes_nothing(bench: Bench) -> None:
    with _listening(bench) as client:
        client.publish("update", state=state(reported={"n": 1}))
        client.heard.expect("documents")
        client.heard.expect("update_accepted")
        client.publish("update", state=state(reported={"n": 2}), version=7, client_token="u-7")
        error = client.heard.expect("update_rejected")
        expect((error.code, error.message), (409, "Version conflict"), "refusal")
        expect(error.client_token, "u-7", "client token")
        client.publish("update", state=state(reported={"n": 3}), version=1)
        client.heard.expect("documents")
        expect(client.heard.expect("update_accepted").version, 2, "version with the right one given")


@v1_case
def an_array_with_null_is_rejected_400(bench: Bench) -> None:
    with _listening(bench) as client:
        client.publish("update", state=state(desired={"hours": [6, None]}), client_token="u-8")
        error = client.heard.expect("update_rejected")
        expect((error.code, error.message), (400, "Invalid JSON"), "refusal")
        expect(error.client_token, "u-8", "client token")


@v1_case
def a_deleted_shadow_answers_404_and_comes_back_with_versions_that_go_on(bench: Bench) -> None:
    with _listening(bench) as client:
        client.publish("update", state=state(reported={"n": 1}))
        client.heard.expect("documents")
        client.heard.expect("update_accepted")
        client.publish("delete", client_token="d-2")
        deleted = client.heard.expect("delete_accepted")
        expect((deleted.version, deleted.client_token), (1, "d-2"), "deleted version and token")
        _expect_now(deleted.timestamp)
        client.publish("get")
        expect(client.heard.expect("get_rejected").code, 404, "code")
        client.publish("update", state=state(reported={"n": 2}))
        expect(client.heard.expect("documents").previous, None, "previous after a deletion")
        expect(client.heard.expect("update_accepted").version, 3, "version after deletion was the second")


@CATALOGUE.case(*(Way("V1", protocol, "classic") for protocol in (MQTT_311, MQTT_5)))
def an_update_of_a_foreign_thing_is_without_effect(bench: Bench) -> None:
    own, foreign = bench.thing(), bench.thing()
    with (
        connection(bench.gnomon, own, bench.way.protocol) as intruder,
        connection(bench.gnomon, foreign, bench.way.protocol) as victim,
    ):
        theirs = V1(victim, foreign, "")
        theirs.subscribe(*V1.TOPICS)
        _publish_raw(intruder, f"$aws/things/{foreign}/shadow/update", {"state": {"desired": {"on": True}}})
        theirs.heard.expect_nothing()
        theirs.publish("get")
        expect(theirs.heard.expect("get_rejected").code, 404, "code of the victim's own get")


@CATALOGUE.case(*(Way("V1", protocol, "classic") for protocol in (MQTT_311, MQTT_5)))
def who_listens_to_a_foreign_thing_hears_nothing(bench: Bench) -> None:
    own, foreign = bench.thing(), bench.thing()
    with (
        connection(bench.gnomon, own, bench.way.protocol) as intruder,
        connection(bench.gnomon, foreign, bench.way.protocol) as victim,
    ):
        theirs = V1(victim, foreign, "")
        theirs.subscribe(*V1.TOPICS)
        listening = V1(intruder, foreign, "")
        # The session ends as soon as this is seen, with or without a word on the subscription before.
        with suppress(AwsCrtError, TimeoutError):
            listening.subscribe("update_accepted")
        theirs.publish("update", state=state(reported={"on": True}))
        theirs.heard.expect("documents")
        listening.heard.expect_nothing()


# ---------------------------------------------------------------------- V2


@v2_case
def get_and_delete_of_an_absent_shadow_fail_with_the_modeled_404(bench: Bench) -> None:
    thing = bench.thing()
    with connection(bench.gnomon, thing, bench.way.protocol) as opened:
        client = V2(opened, thing, bench.shadow_name)
        for operation in ("get", "delete"):
            error = client.refusal(operation)
            expect(error.code, 404, f"code of {operation}")
            named = bench.shadow_name or thing
            expect(error.message, f"No shadow exists with name: '{named}'", f"message of {operation}")


@v2_case
def update_get_and_delete_are_answered(bench: Bench) -> None:
    thing = bench.thing()
    with connection(bench.gnomon, thing, bench.way.protocol) as opened:
        client = V2(opened, thing, bench.shadow_name)
        updated = client.call("update", state=state(desired={"on": True}, reported={"rssi": -61}))
        expect(updated.version, 1, "version")
        expect((updated.state.desired, updated.state.reported), ({"on": True}, {"rssi": -61}), "state")
        _expect_now(updated.timestamp)
        document = client.call("get")
        expect(document.state.delta, {"on": True}, "delta")
        expect(document.metadata.desired, {"on": {"timestamp": _s(updated.timestamp)}}, "metadata")
        deleted = client.call("delete")
        expect(deleted.version, 1, "deleted version")
        expect(client.refusal("get").code, 404, "code after deletion")
        expect(client.call("update", state=state(desired={"on": False})).version, 3, "version when back")


@v2_case
def an_update_with_another_version_fails_with_the_modeled_409(bench: Bench) -> None:
    thing = bench.thing()
    with connection(bench.gnomon, thing, bench.way.protocol) as opened:
        client = V2(opened, thing, bench.shadow_name)
        expect(client.call("update", state=state(desired={"n": 1}), version=0).version, 1, "created version")
        error = client.refusal("update", state=state(desired={"n": 2}), version=0)
        expect((error.code, error.message), (409, "Version conflict"), "refusal")
        expect(client.call("update", state=state(desired={"n": 2}), version=1).version, 2, "version")


@v2_case
def a_section_that_is_null_is_removed(bench: Bench) -> None:
    thing = bench.thing()
    with connection(bench.gnomon, thing, bench.way.protocol) as opened:
        client = V2(opened, thing, bench.shadow_name)
        client.call("update", state=state(desired={"on": True}, reported={"on": False}))
        removed = client.call("update", state=state(desired=None))
        expect((removed.version, removed.state.desired_is_nullable), (2, True), "answer")
        document = client.call("get")
        expect(document.state.desired, None, "desired")
        expect(document.state.delta, None, "delta")
        expect(document.state.reported, {"on": False}, "reported")


@v2_case
def as_many_updates_at_once_as_may_be_in_flight_all_count(bench: Bench) -> None:
    thing = bench.thing()
    with connection(bench.gnomon, thing, bench.way.protocol) as opened:
        client = V2(opened, thing, bench.shadow_name)
        # Over MQTT 3.1.1 this client now and then never sends what is asked of it before it has subscribed:
        # the broker sees nothing of it, and it times out. So let it subscribe first.
        client.call("update", state=state(reported={"first": True}))
        begun = [client.begin("update", state=state(reported={f"n{n}": n})) for n in range(IN_FLIGHT_MAX)]
        versions = sorted(one.result(WAIT_S).version for one in begun)
        expect(versions, list(range(2, IN_FLIGHT_MAX + 2)), "versions")
        wanted = {"first": True} | {f"n{n}": n for n in range(IN_FLIGHT_MAX)}
        expect(client.call("get").state.reported, wanted, "reported")


@v2_case
def the_stream_of_deltas_tells_each_wish_and_nothing_else(bench: Bench) -> None:
    thing = bench.thing()
    with connection(bench.gnomon, thing, bench.way.protocol) as opened:
        client = V2(opened, thing, bench.shadow_name)
        client.open_stream("delta")
        client.call("update", state=state(desired={"set": 20, "mode": "eco"}))
        event = client.heard.expect("delta")
        expect((event.state, event.version), ({"set": 20, "mode": "eco"}, 1), "first delta")
        client.call("update", state=state(reported={"mode": "eco"}))
        event = client.heard.expect("delta")
        expect((event.state, event.version), ({"set": 20}, 2), "delta of what is left")
        client.call("update", state=state(reported={"set": 20}))
        client.heard.expect_nothing()


@v2_case
def the_stream_of_documents_tells_before_and_after(bench: Bench) -> None:
    thing = bench.thing()
    with connection(bench.gnomon, thing, bench.way.protocol) as opened:
        client = V2(opened, thing, bench.shadow_name)
        client.open_stream("documents")
        client.call("update", state=state(reported={"n": 1}))
        event = client.heard.expect("documents")
        expect(event.previous, None, "previous")
        expect((event.current.version, event.current.state.reported), (1, {"n": 1}), "current")
        client.call("update", state=state(reported={"n": 2}))
        event = client.heard.expect("documents")
        expect((event.previous.version, event.previous.state.reported), (1, {"n": 1}), "previous")
        expect((event.current.version, event.current.state.reported), (2, {"n": 2}), "current")
        stamp = {"timestamp": _s(event.timestamp)}
        expect(event.current.metadata.reported, {"n": stamp}, "metadata")


@v2_case
def a_wish_over_http_reaches_the_stream_of_deltas(bench: Bench) -> None:
    thing = bench.thing()
    with connection(bench.gnomon, thing, bench.way.protocol) as opened:
        client = V2(opened, thing, bench.shadow_name)
        client.open_stream("delta")
        version = bench.gnomon.desire(thing, {"set": 19}, bench.shadow_name or "@classic")
        event = client.heard.expect("delta")
        expect((event.state, event.version), ({"set": 19}, version), "delta")


@CATALOGUE.case(*(Way("V2", protocol, "classic") for protocol in (MQTT_311, MQTT_5)))
def a_call_about_a_foreign_thing_times_out_without_effect(bench: Bench) -> None:
    own, foreign = bench.thing(), bench.thing()
    with connection(bench.gnomon, own, bench.way.protocol) as opened:
        intruder = V2(opened, foreign, "", operation_s=FOREIGN_S)
        try:
            intruder.call("update", state=state(desired={"on": True}))
        except V2ServiceException as error:
            expect(error.modeled_error, None, "modeled error")
        else:
            raise MissedError("a foreign update was accepted")
    answer = bench.gnomon.http.get(f"/v1/things/{foreign}/shadows/@classic")
    expect(answer.status_code, 404, "status of the foreign shadow")


# ---------------------------------------------------------------------- details


def _publish_raw(opened: Connection, topic: str, body: object) -> None:
    """Publish past the shadow client. In MQTT 3.1.1 even a forbidden publish gets an ordinary PUBACK."""
    payload = msgspec.json.encode(body)
    if isinstance(opened, mqtt5.Client):
        packet = mqtt5.PublishPacket(topic=topic, payload=payload, qos=mqtt5.QoS.AT_LEAST_ONCE)
        opened.publish(packet).result(WAIT_S)
    else:
        sent, _ = opened.publish(topic, payload, mqtt.QoS.AT_LEAST_ONCE)
        sent.result(WAIT_S)


def _s(moment: Any) -> int:
    """Return the seconds of the SDK's datetime, which it makes of the wire's whole seconds."""
    return int(moment.timestamp())


def _expect_now(moment: Any) -> None:
    if abs(moment.timestamp() - time.time()) > CLOCK_S:
        raise MissedError(f"the time is given as {moment}: milliseconds where seconds belong?")
