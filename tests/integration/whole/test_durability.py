"""Durable before accepted (I1), by the order of system calls: write the commit, fsync it, then say yes.

The service listener is plain TCP on loopback, so what is written to the broker can be read in the trace.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from tests.system.child import Gnomon
from tests.system.faults import COMMIT_WITHOUT_FSYNC, SPEAK_BEFORE_COMMIT
from tests.system.mqtt import connected, shadow_topic

pytestmark = pytest.mark.integration

UPDATES, WINDOW = 200, 8
TRACED = "trace=fdatasync,fsync,pwrite64,write,writev,sendto,sendmsg,sendmmsg"
STRING_BYTES_MAX = 1_000_000
LINE = re.compile(r"^(?P<thread>\d+) +(?P<call>.*)$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Call:
    """A system call at the moment when it returned."""

    name: str
    text: str
    begun: int
    ended: int
    """Numbers of the lines on which it began and returned."""


def calls(trace: Path) -> Iterator[Call]:
    """Yield the calls of a trace in the order in which they returned; put together what strace tore apart."""
    unfinished: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(trace.read_text(errors="replace").splitlines()):
        match = LINE.match(line)
        if match is None:
            continue
        thread, text = match["thread"], match["call"]
        if text.endswith("<unfinished ...>"):
            unfinished[thread] = (text, number)
            continue
        begun = number
        if text.startswith("<... "):
            begin, begun = unfinished.pop(thread, ("", number))
            text = begin + text
        yield Call(text.partition("(")[0], text, begun, number)


@dataclass(frozen=True, slots=True)
class Traced:
    """A service whose system calls are written down."""

    gnomon: Gnomon
    trace: Path

    def update(self, updates: int) -> set[str]:
        """Have a device send updates, some of them in flight at a time; return the tokens accepted."""
        name = self.gnomon.new()
        topic = f"{shadow_topic(name)}/update"
        with connected(self.gnomon, name) as device:
            device.listen()
            for number in range(updates):
                if number >= WINDOW:
                    device.wait_answers(topic, number - WINDOW + 1)
                request = {"state": {"reported": {"n": number}}, "clientToken": f"tok-{number}-end"}
                device.send(topic, msgspec.json.encode(request))
            device.wait_answers(topic, updates)
            return {one.json["clientToken"] for one in device.received if one.topic.endswith("/accepted")}


Trace = Callable[..., Traced]


@pytest.fixture
def traced(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Trace]:
    """Start a service, with faults if it is to have some, under strace."""
    request.getfixturevalue("broker_program")
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("needs the Debian package strace")
    started: list[Gnomon] = []

    def start(*faults: str) -> Traced:
        trace = tmp_path / "trace"
        gnomon = Gnomon(tmp_path / "gnomon", faults=faults)
        started.append(gnomon)
        # Not the broker, which begins with execve: it has nothing that interests here.
        options = ["-f", "-b", "execve", "-qq", "-y", "-s", str(STRING_BYTES_MAX), "-e", TRACED]
        gnomon.start([strace, *options, "-o", str(trace)])
        return Traced(gnomon, trace)

    yield start
    for gnomon in started:
        gnomon.close()


def test_every_accepted_leaves_after_the_fsync_of_its_commit(traced: Trace):
    service = traced()
    accepted = service.update(UPDATES)
    service.gnomon.stop()
    assert len(accepted) == UPDATES
    said = said_durably(service.trace)
    assert set(said) == accepted, "what was accepted was not seen to leave"
    assert [token for token, durable in said.items() if not durable] == []


def test_every_2xx_leaves_after_the_fsync_of_its_commit(traced: Trace):
    service = traced()
    name = service.gnomon.new()
    tokens = [f"tok-{number}-end" for number in range(UPDATES // 4)]
    for token in tokens:
        wish = {"state": {"desired": {"n": 1}}, "clientToken": token}
        assert service.gnomon.http.post(f"/things/{name}/shadow", json=wish).status_code == 200
    service.gnomon.stop()
    said = said_durably(service.trace)
    assert list(said) == tokens
    assert [token for token, durable in said.items() if not durable] == []


@pytest.mark.parametrize("fault", [SPEAK_BEFORE_COMMIT, COMMIT_WITHOUT_FSYNC])
def test_a_service_that_speaks_too_early_is_found_out(traced: Trace, fault: str):
    service = traced(fault)
    accepted = service.update(UPDATES // 10)
    service.gnomon.stop()
    said = said_durably(service.trace)
    assert set(said) >= accepted
    assert not any(said.values())


def said_durably(trace: Path) -> dict[str, bool]:
    """Return for each token whether its commit was written and synced before it was first said to anybody."""
    token = re.compile(r"tok-\d+-end")
    written: dict[str, int] = {}
    synced_until = -1
    said: dict[str, bool] = {}
    for call in calls(trace):
        to, _, content = call.text.partition(",")
        if "gnomon.db" in to and call.name == "pwrite64":
            for found in token.findall(content):
                written.setdefault(found, call.ended)
        elif "gnomon.db" in to and call.name in {"fdatasync", "fsync"} and call.text.endswith("= 0"):
            # It holds what was written before it began.
            synced_until = call.begun
        elif "<socket:" in to:
            for found in token.findall(content):
                durable = found in written and written[found] < synced_until
                said.setdefault(found, durable)
    return said
