"""What fails inside: the answer is the specified one, nobody else notices, and nothing false is accepted."""

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from tests.backends.servers import spawn_emulator
from tests.backends.spawning import Server
from tests.system.child import Gnomon
from tests.system.faults import FAILING_PARSER, FAILING_RULE
from tests.system.mqtt import Thing, connected, shadow_topic

pytestmark = pytest.mark.integration

IN_FLIGHT_MAX = 10
FILE_BYTES_MAX = 16_384
"""Smaller than what the store has to write, larger than the log."""
ANSWER_S_MAX = 2.5
"""The store has 2 s; then its caller is told."""


@pytest.mark.parametrize("fault", [FAILING_RULE, FAILING_PARSER])
def test_a_failure_nobody_foresaw_is_500_a_dead_letter_and_the_lane_goes_on(
    own_gnomon: Callable[..., Gnomon], fault: str
):
    gnomon = own_gnomon(faults=[fault])
    name = gnomon.new()
    topic = f"{shadow_topic(name)}/update"
    with connected(gnomon, name) as device:
        device.listen()
        with gnomon.frozen():  # so that they are one batch
            for token, fields in (("a", {"n": 1}), ("b", {fault: True}), ("c", {"m": 2})):
                state = {"reported": fields}
                device.publish(topic, msgspec.json.encode({"state": state, "clientToken": token}))
        accepted = device.wait_count(f"{topic}/accepted", 2)
        refused = device.wait_on(f"{topic}/rejected").json
        assert [(one.json["clientToken"], one.json["version"]) for one in accepted] == [("a", 1), ("c", 2)]
        assert (refused["code"], refused["message"]) == (500, "Internal service failure")
        assert refused["clientToken"] == "b"
        assert refused["detail"].removeprefix("trace ") in gnomon.log_text()
        for number in range(2 * IN_FLIGHT_MAX):
            assert device.ask("get").topic.endswith("/accepted"), f"place {number} is not free"
    assert gnomon.shadow(name)["state"] == {"reported": {"n": 1, "m": 2}}
    assert gnomon.metric("gnomon_dead_letters_total") == 1
    gnomon.stop()
    gnomon.start()
    assert gnomon.metric("gnomon_dead_letters_total") == 0, "it was not acknowledged, so it came again"


@contextmanager
def full_disk(gnomon: Gnomon) -> Iterator[None]:
    """Let every file of the service be as long as it may be."""
    soft, hard = resource.prlimit(gnomon.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(gnomon.pid, resource.RLIMIT_FSIZE, (FILE_BYTES_MAX, hard))
    try:
        yield
    finally:
        resource.prlimit(gnomon.pid, resource.RLIMIT_FSIZE, (soft, hard))


def refusals(gnomon: Gnomon, device: Thing) -> None:
    """See that neither way gets anything accepted, and that both hear 503 in time."""
    began = time.monotonic()
    answer = device.ask("update", {"state": {"reported": {"n": "during"}}})
    assert answer.topic.endswith("/update/rejected"), answer.payload
    assert (answer.json["code"], answer.json["message"]) == (503, "Service unavailable")
    assert time.monotonic() - began < ANSWER_S_MAX
    began = time.monotonic()
    answered = gnomon.http.post(f"/things/{device.name}/shadow", json={"state": {"desired": {"n": 1}}})
    assert answered.status_code == 503
    assert answered.headers["x-amzn-errortype"] == "ServiceUnavailableException"
    assert time.monotonic() - began < ANSWER_S_MAX


def test_a_full_disk_is_503_nothing_is_accepted_and_it_heals(gnomon: Gnomon):
    name = gnomon.new()
    with connected(gnomon, name) as device:
        device.listen()
        device.report({"n": "before"})
        with full_disk(gnomon):
            for _ in range(IN_FLIGHT_MAX + 1):  # so many that none of them can have kept its place
                refusals(gnomon, device)
            assert gnomon.http.get(f"/things/{name}/shadow").status_code in {200, 503}
        assert device.report({"n": "after"})["version"] == 2
    assert gnomon.shadow(name)["state"] == {"reported": {"n": "after"}}
    gnomon.stop()
    gnomon.start()
    assert gnomon.shadow(name)["version"] == 2


@pytest.fixture
def frozen_store(tmp_path: Path) -> Iterator[Server]:
    """A store of another process, which can be made to hang with its connections open."""
    pytest.importorskip("nx_27017")
    server = spawn_emulator(tmp_path / "mongodb")
    yield server
    server.stop()


def test_a_store_that_hangs_is_503_within_two_seconds_and_is_used_again_when_it_is_back(
    own_gnomon: Callable[..., Gnomon], frozen_store: Server
):
    gnomon = own_gnomon({"store.url": f"mongodb://127.0.0.1:{frozen_store.port}/gnomon"})
    name = gnomon.new()
    with connected(gnomon, name) as device:
        device.listen()
        device.report({"n": "before"})
        frozen_store.freeze()
        refusals(gnomon, device)
        frozen_store.thaw()
        deadline = time.monotonic() + 5
        while (answer := device.ask("update", {"state": {"reported": {"n": "after"}}})).json.get("code"):
            assert time.monotonic() < deadline, answer.payload
        assert answer.topic.endswith("/accepted")
    shadow = gnomon.shadow(name)
    assert shadow["state"]["reported"] == {"n": "after"}
    rows = gnomon.http.get(f"/v1/things/{name}/shadows/@classic/history").json()["items"]
    assert [row["version"] for row in rows] == list(range(shadow["version"], 0, -1))
