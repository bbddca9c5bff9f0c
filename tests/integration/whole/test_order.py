"""What is said after an update, to whom, in which order, and when nothing is said."""

import threading
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import httpx
import msgspec
import pytest

from tests.system.child import Gnomon
from tests.system.mqtt import Thing, connected, shadow_topic

pytestmark = pytest.mark.integration

IN_FLIGHT_MAX = 10
KINDS = ("delta", "documents", "accepted")


@pytest.fixture
def device(gnomon: Gnomon) -> Iterator[Thing]:
    """A connected device that hears everything about its classic shadow."""
    with connected(gnomon, gnomon.new()) as thing:
        yield thing.listen()


def update_topic(device: Thing) -> str:
    return shadow_topic(device.name) + "/update"


def body(token: str, state: object, **members: object) -> bytes:
    return msgspec.json.encode({"state": state, "clientToken": token, **members})


def said(device: Thing, since: int = 0) -> list[tuple[int, str]]:
    """Return (version, kind) of all messages about updates, in order of arrival."""
    return [
        ((one.json["current"] if one.topic.endswith("documents") else one.json)["version"], kind)
        for one in device.received[since:]
        for kind in KINDS
        if one.topic.endswith(f"/update/{kind}")
    ]


def test_delta_comes_before_documents_and_documents_before_accepted(device: Thing):
    device.update({"desired": {"set": 21}, "reported": {"set": 20}})
    assert said(device) == [(1, "delta"), (1, "documents"), (1, "accepted")]


def test_all_of_one_version_comes_before_anything_of_the_next(device: Thing):
    for number in range(IN_FLIGHT_MAX):
        device.send(update_topic(device), body(f"t{number}", {"desired": {"n": number}}))
    device.wait_count(update_topic(device) + "/accepted", IN_FLIGHT_MAX)
    expected = [(version, kind) for version in range(1, IN_FLIGHT_MAX + 1) for kind in KINDS]
    assert said(device) == expected


def test_a_wish_over_http_sends_delta_and_documents_and_no_accepted(gnomon: Gnomon, device: Thing):
    version = gnomon.desire(device.name, {"set": 19})
    delta = device.wait_on(update_topic(device) + "/delta").json
    assert (delta["state"], delta["version"]) == ({"set": 19}, version)
    assert not device.stays_silent()
    assert said(device) == [(1, "delta"), (1, "documents")]


def test_a_refusal_over_http_says_nothing_over_mqtt(gnomon: Gnomon, device: Thing):
    aws = f"/things/{device.name}/shadow"
    for content in (b"not json", b'{"state": {"desired": {}}, "version": 7}', b'{"state": 1}'):
        assert gnomon.http.post(aws, content=content).status_code in {400, 409}
    assert gnomon.http.delete(aws).status_code == 404
    assert device.stays_silent()


def test_a_request_with_retain_is_ignored_and_counted(gnomon: Gnomon, device: Thing):
    ignored = 'gnomon_messages_dropped_total{reason="retained"}'
    before = gnomon.metric(ignored)
    device.publish(update_topic(device), body("r", {"reported": {"n": 1}}), retain=True)
    assert device.stays_silent()
    assert gnomon.http.get(f"/things/{device.name}/shadow").status_code == 404
    assert gnomon.metric(ignored) == before + 1
    device.publish(update_topic(device), b"", retain=True)


def test_the_eleventh_unanswered_request_is_refused_429_and_the_ten_before_it_count(
    gnomon: Gnomon, device: Thing
):
    with gnomon.frozen():
        for number in range(IN_FLIGHT_MAX + 1):
            device.publish(update_topic(device), body(f"t{number}", {"reported": {"n": number}}))
    refused = device.wait_on(update_topic(device) + "/rejected").json
    accepted = device.wait_count(update_topic(device) + "/accepted", IN_FLIGHT_MAX)
    assert (refused["code"], refused["message"]) == (429, "Too many requests")
    assert refused["clientToken"] == f"t{IN_FLIGHT_MAX}"
    assert [one.json["clientToken"] for one in accepted] == [f"t{n}" for n in range(IN_FLIGHT_MAX)]


def test_who_keeps_ten_requests_open_and_waits_for_an_answer_before_the_next_is_never_refused(
    device: Thing,
):
    total = 40 * IN_FLIGHT_MAX
    for number in range(total):
        if number >= IN_FLIGHT_MAX:
            device.wait_answers(update_topic(device), number - IN_FLIGHT_MAX + 1)
        device.send(update_topic(device), body(f"t{number}", {"reported": {"n": number}}))
    device.wait_answers(update_topic(device), total)
    refused = [one.json for one in device.received if one.topic.endswith("/rejected")]
    assert refused == []


def test_of_two_writers_with_one_version_one_is_refused_with_help(gnomon: Gnomon, device: Thing):
    device.report({"a": 1, "b": 1})
    device.report({"a": 2})
    answer = device.ask("update", {"state": {"reported": {"a": 3, "b": 3}}, "version": 1})
    assert answer.topic.endswith("/update/rejected")
    told = answer.json
    assert (told["code"], told["message"]) == (409, "Version conflict")
    assert (told["currentVersion"], told["conflicts"]) == (2, ["/reported/a"])
    free = device.ask("update", {"state": {"reported": {"b": 3}}, "version": 1}).json
    assert (free["code"], free["conflicts"]) == (409, [])
    assert gnomon.shadow(device.name)["state"]["reported"] == {"a": 2, "b": 1}


class Counter:
    """Fifty hands on one number: each reads it, adds one, and writes it back for the version it has read."""

    WRITERS, INCREMENTS = 50, 4
    BUSY_S = 0.01

    def __init__(self, gnomon: Gnomon, thing: str) -> None:
        self._gnomon, self._thing = gnomon, thing
        self._lock = threading.Lock()
        self.codes: Tally[int] = Tally()
        self.problems: list[BaseException] = []

    def count_over_rest(self) -> None:
        path = f"/things/{self._thing}/shadow"
        with httpx.Client(base_url=self._gnomon.api_url, auth=self._gnomon.auth, timeout=20) as http:
            self._count(lambda: http.get(path).json(), lambda wish: http.post(path, json=wish).status_code)

    def count_over_mqtt(self, client: Thing, tree: str | None) -> None:
        def ask(operation: str, body: object = None) -> Any:
            return client.ask(operation, body, tree=tree, thing=self._thing).json

        self._count(lambda: ask("get"), lambda wish: ask("update", wish).get("code", 200))

    def run(self, *work: Callable[[], None]) -> None:
        threads = [threading.Thread(target=self._guarded, args=(one,)) for one in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _count(self, read: Callable[[], Any], write: Callable[[object], int]) -> None:
        done = 0
        while done < self.INCREMENTS:
            document = read()
            if "version" not in document:
                time.sleep(self.BUSY_S)  # 429: the thing has ten requests open already
                continue
            wish = {"desired": {"n": document["state"]["desired"]["n"] + 1}}
            code = write({"state": wish, "version": document["version"]})
            with self._lock:
                self.codes[code] += 1
            done += code == 200

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - shown by the test
            self.problems.append(error)


def test_fifty_writers_over_rest_and_mqtt_lose_no_increment(gnomon: Gnomon):
    thing = gnomon.new()
    gateways = [gnomon.new("gateway") for _ in range(4)]
    gnomon.desire(thing, {"n": 0})
    counter = Counter(gnomon, thing)
    with ExitStack() as stack:
        device = stack.enter_context(connected(gnomon, thing)).listen()
        hands = [lambda: counter.count_over_mqtt(device, None)]
        for gateway in gateways:
            gnomon.attach(gateway, thing)
            relay = stack.enter_context(connected(gnomon, gateway))
            relay.subscribe(f"gnomon/gateways/{gateway}/down/#")
            hands.append(partial(counter.count_over_mqtt, relay, gateway))
        hands += [counter.count_over_rest] * (counter.WRITERS - len(hands))
        counter.run(*hands)
    assert counter.problems == []
    total = counter.WRITERS * counter.INCREMENTS
    shadow = gnomon.shadow(thing)
    assert (shadow["version"], shadow["state"]["desired"]["n"]) == (total + 1, total)
    assert counter.codes[200] == total
    assert counter.codes.keys() <= {200, 409, 429}
    assert counter.codes[409], "fifty writers never met: this test shows nothing"
