"""The service dies at the worst moments and comes back: nothing promised is lost, nothing happens twice."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.backends.servers import spawn_emulator
from tests.system.child import Gnomon
from tests.system.faults import DIE_AFTER_COMMIT, DIE_BEFORE_ROWS, LOSE_THE_LINK, POISON
from tests.system.mqtt import Thing, connected, shadow_topic, until

pytestmark = [
    pytest.mark.integration,
    # paho leaks a socket whose handshake its broker does not live to answer.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket"),
]

DEDUP_RECORDS_MAX = 32
SAVED_S = 0.3
TRIES_MAX = 3
STARTS_MAX = 8
LIVES_S = 2.0
"""Who lives so long after a start has served what was redelivered."""


@contextmanager
def patient(gnomon: Gnomon, name: str) -> Iterator[Thing]:
    """Connect a device for which the broker keeps what comes while it is away."""
    thing = Thing(gnomon, name, clean=False).connect().listen()
    try:
        yield thing
    finally:
        thing.disconnect()


def body(token: str, reported: Any) -> bytes:
    return msgspec.json.encode({"state": {"reported": reported}, "clientToken": token})


def history(gnomon: Gnomon, thing: str) -> list[Any]:
    answer = gnomon.http.get(f"/v1/things/{thing}/shadows/@classic/history")
    items: list[Any] = answer.json()["items"]
    return items


def dies(gnomon: Gnomon) -> bool:
    """Tell whether it dies of what is delivered to it."""
    try:
        gnomon.wait_dead(LIVES_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def test_a_kill_between_commit_and_publish_is_made_good_by_the_next_start(own_gnomon: Callable[..., Gnomon]):
    gnomon = own_gnomon(faults=[DIE_AFTER_COMMIT])
    name = gnomon.new()
    topic = f"{shadow_topic(name)}/update"
    gnomon.desire(name, {"n": 1})
    with patient(gnomon, name) as device:
        device.wait_on(f"{topic}/delta")
        request = body("once", {DIE_AFTER_COMMIT: True})
        since = len(device.received)
        device.send(topic, request)
        gnomon.wait_dead()
        assert device.topics(since) == []
        gnomon.start()
        accepted = device.wait_on(f"{topic}/accepted", since=since)
        told = {one.topic.removeprefix(topic): one.json for one in device.received[since:]}
        assert accepted.json["version"] == 2
        assert told["/documents"]["current"]["version"] == 2
        assert told["/documents"]["previous"]["version"] == 1
        assert (told["/delta"]["version"], told["/delta"]["state"]) == (2, {"n": 1})
        again = device.ask_bytes("update", request, "once")
        assert again.payload == accepted.payload, "recovery and replay make the same bytes"
    assert [row["version"] for row in history(gnomon, name)] == [2, 1]


def test_a_kill_between_a_document_and_its_row_of_history_is_made_good_by_the_next_start(
    own_gnomon: Callable[..., Gnomon], tmp_path: Path
):
    pytest.importorskip("nx_27017")
    store = spawn_emulator(tmp_path / "mongodb")
    try:
        url = f"mongodb://127.0.0.1:{store.port}/gnomon"
        gnomon = own_gnomon({"store.url": url}, faults=[DIE_BEFORE_ROWS])
        name = gnomon.new()
        topic = f"{shadow_topic(name)}/update"
        with patient(gnomon, name) as device:
            device.report({"n": 1})
            since = len(device.received)
            device.send(topic, body("once", {DIE_BEFORE_ROWS: True}))
            gnomon.wait_dead()
            assert device.topics(since) == []
            gnomon.start()
            assert device.wait_on(f"{topic}/accepted", since=since).json["version"] == 2
        rows = history(gnomon, name)
        assert [row["version"] for row in rows] == [2, 1]
        assert rows[0]["token"] == "once"
    finally:
        store.stop()


def test_a_request_that_is_delivered_again_is_answered_as_before_and_applied_once(
    own_gnomon: Callable[..., Gnomon],
):
    gnomon = own_gnomon(faults=[LOSE_THE_LINK])
    name = gnomon.new()
    topic = f"{shadow_topic(name)}/update"
    with connected(gnomon, name) as device:
        device.listen()
        device.send(topic, body("twice", {LOSE_THE_LINK: True}))
        first, second = device.wait_count(f"{topic}/accepted", 2)[:2]
        assert first.payload == second.payload
        assert device.report({"n": 1})["version"] == 2
    assert gnomon.metric("gnomon_updates_replayed_total") >= 1
    assert gnomon.metric("gnomon_broker_connections_total") == 2
    assert [row["version"] for row in history(gnomon, name)] == [2, 1]


def test_a_broker_that_was_killed_delivers_nothing_that_was_answered_long_ago(
    own_gnomon: Callable[..., Gnomon],
):
    gnomon = own_gnomon()
    name = gnomon.new()
    topic = f"{shadow_topic(name)}/update"
    with connected(gnomon, name) as device:
        device.listen()
        with gnomon.frozen():
            device.publish(topic, body("old", {"n": "old"}))
            broker = gnomon.broker_pid
            assert broker is not None
            os.kill(broker, signal.SIGUSR1)  # it saves what it holds: the request that nobody has read yet
            time.sleep(SAVED_S)
        device.wait_on(f"{topic}/accepted")
        for number in range(DEDUP_RECORDS_MAX + 1):
            device.report({"n": number})
        with device.cut_off():
            killed = gnomon.kill_broker()
            until(lambda: gnomon.has_broker(other_than=killed), "the service starts a broker again")
        device.listen()
        device.report({"m": 1})
    assert [row["token"] for row in history(gnomon, name)].count("old") == 1
    assert gnomon.shadow(name)["state"]["reported"] == {"n": DEDUP_RECORDS_MAX, "m": 1}


def test_a_request_that_is_sent_again_after_a_restart_is_a_replay(own_gnomon: Callable[..., Gnomon]):
    gnomon = own_gnomon()
    name = gnomon.new()
    request = body("again", {"n": 1})
    with connected(gnomon, name) as device:
        device.listen()
        first = device.ask_bytes("update", request, "again")
        with device.cut_off():
            gnomon.kill()
            gnomon.start()
        device.listen()
        second = device.ask_bytes("update", request, "again")
        assert second.payload == first.payload
        assert device.stays_silent("/documents", since=len(device.received) - 1)
    assert [row["version"] for row in history(gnomon, name)] == [1]


def test_a_request_that_kills_the_process_becomes_a_dead_letter_and_its_neighbours_count_once(
    own_gnomon: Callable[..., Gnomon],
):
    gnomon = own_gnomon(faults=[POISON])
    name, other = gnomon.new(), gnomon.new()
    topic = f"{shadow_topic(name)}/update"
    with patient(gnomon, name) as device, patient(gnomon, other) as bystander:
        with gnomon.frozen():  # so that they are read together
            device.publish(topic, body("before", {"n": 1}))
            device.publish(topic, body("killer", {POISON: True}))
            device.publish(topic, body("after", {"m": 2}))
            bystander.publish(f"{shadow_topic(other)}/update", body("bystander", {"n": 1}))
        deaths = 0
        while deaths < STARTS_MAX and dies(gnomon):
            deaths += 1
            gnomon.start_if_it_lives()
        # Not counted is the first death: who dies for the first time has written nothing down.
        assert deaths <= 1 + TRIES_MAX
        refused = device.wait_for(lambda one: one.topic == f"{topic}/rejected").json
        assert (refused["code"], refused["message"]) == (500, "Internal service failure")
        until(lambda: gnomon.http.get(f"/things/{other}/shadow").status_code == 200, "the bystander counts")
        assert gnomon.metric("gnomon_dead_letters_total") == 1
        device.wait_connected()
        answer = device.ask("get").json
    assert answer["state"]["reported"] == {"n": 1, "m": 2}
    assert [row["token"] for row in history(gnomon, name)] == ["after", "before"]
    assert [row["token"] for row in history(gnomon, other)] == ["bystander"]
