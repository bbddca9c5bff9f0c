"""Stopping is quick and clean, whoever holds on; a second start goes on where the first one ended."""

import threading
from collections.abc import Callable

import httpx
import pytest

from security.policy import Role
from tests.system.child import Gnomon
from tests.system.mqtt import connected

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
            httpx.Client(base_url=gnomon.api_url, auth=gnomon.auth, timeout=60) as http,
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
    token, ports = gnomon.accounts.token(Role.CUSTOMER), (gnomon.api_port, gnomon.device_port)
    gnomon.stop()
    gnomon.start()
    assert (gnomon.api_port, gnomon.device_port) == ports
    assert httpx.get(f"{gnomon.api_url}/v1/me", headers={"Authorization": f"Bearer {token}"}).is_success
    assert gnomon.shadow(lamp)["version"] == 1
    with connected(gnomon, gateway) as relay:
        relay.subscribe(f"gnomon/gateways/{gateway}/down/#")
        answer = relay.ask("update", {"state": {"reported": {"on": True}}}, tree=gateway, thing=lamp)
        assert answer.json["version"] == 2
    history = gnomon.http.get(f"/v1/things/{lamp}/shadows/@classic/history").json()["items"]
    assert [row["version"] for row in history] == [2, 1]


def test_accounts_stay_over_a_restart_and_who_has_none_stays_out(own_gnomon: Callable[[], Gnomon]):
    gnomon = own_gnomon()
    files = {path: path.read_bytes() for path in (gnomon.var / "demo" / "credentials").iterdir()}
    assert gnomon.http.get("/v1/health").status_code == 200
    gnomon.stop()
    gnomon.start()
    assert {path: path.read_bytes() for path in files} == files
    assert gnomon.http.get("/v1/health").status_code == 200
    stranger = httpx.get(f"{gnomon.api_url}/v1/health")
    assert stranger.status_code == 401
