"""Stopping is quick and clean, whoever holds on; a second start goes on where the first one ended."""

import threading
from collections.abc import Callable

import httpx
import pytest

from tests.system.child import Gnomon
from tests.system.mqtt import connected, until

pytestmark = pytest.mark.integration

STOP_S_MAX = 3.0


def test_it_stops_within_three_seconds_with_an_open_stream_a_device_and_a_slow_request(
    own_gnomon: Callable[[], Gnomon],
):
    gnomon = own_gnomon()
    name = gnomon.new()
    gnomon.desire(name, {"n": 1})
    heard = threading.Event()
    ended = threading.Event()

    def read_on() -> None:
        with (
            httpx.Client(base_url=gnomon.api_url, headers=gnomon.bearer, timeout=60) as http,
            http.stream("GET", f"/v1/things/{name}/shadows/@classic/live") as stream,
        ):
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    heard.set()
        ended.set()

    reader = threading.Thread(target=read_on)
    reader.start()
    assert heard.wait(5), "the stream told nothing"
    with connected(gnomon, name) as device:
        device.listen()
        device.report({"n": 1})
        seconds = gnomon.stop()
    assert seconds < STOP_S_MAX
    assert gnomon.process is not None
    assert gnomon.process.returncode == 0
    assert ended.wait(5), "the stream was not ended"
    reader.join()
    assert gnomon.broker_pid is None


def test_a_second_start_goes_on_with_what_was_stored(own_gnomon: Callable[[], Gnomon]):
    gnomon = own_gnomon()
    gateway, lamp = gnomon.new("gateway"), gnomon.new(has_certificate=False)
    gnomon.attach(gateway, lamp)
    gnomon.desire(lamp, {"on": True})
    token, ports = gnomon.token, (gnomon.api_port, gnomon.device_port)
    gnomon.stop()
    gnomon.start()
    assert (gnomon.token, (gnomon.api_port, gnomon.device_port)) == (token, ports)
    assert gnomon.shadow(lamp)["version"] == 1
    with connected(gnomon, gateway) as relay:
        relay.subscribe(f"gnomon/gateways/{gateway}/down/#")
        answer = relay.ask("update", {"state": {"reported": {"on": True}}}, tree=gateway, thing=lamp)
        assert answer.json["version"] == 2
    history = gnomon.http.get(f"/v1/things/{lamp}/shadows/@classic/history").json()["items"]
    assert [row["version"] for row in history] == [2, 1]


def test_a_token_that_was_shown_once_is_not_shown_again(own_gnomon: Callable[[], Gnomon]):
    gnomon = own_gnomon()
    shown = gnomon.token
    gnomon.stop()
    (gnomon.directory / "operator").unlink()
    gnomon.start()
    assert not (gnomon.directory / "operator").exists(), "the welcome showed a secret once more"
    (gnomon.directory / "operator").write_text(shown)
    assert gnomon.http.get("/v1/health").status_code == 200
    stranger = httpx.get(f"{gnomon.api_url}/v1/health")
    assert stranger.status_code == 401


def test_its_broker_ends_with_it_when_it_is_killed(own_gnomon: Callable[[], Gnomon]):
    gnomon = own_gnomon()
    broker = gnomon.broker_pid
    assert broker is not None
    assert gnomon.process is not None
    gnomon.process.kill()
    gnomon.process.wait()
    until(lambda: gnomon.broker_pid is None, "the broker ends with its parent")
