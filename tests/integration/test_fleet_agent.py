"""The reference agent on a real broker over mutual TLS, with a stand-in for the service."""

import argparse
import ast
import asyncio
import contextlib
import json
import signal
import sys
import threading
from pathlib import Path

import pytest
from paho.mqtt.client import DisconnectFlags
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from fleet import agent as agent_module
from fleet.agent import Agent, Thermostat
from tests.covers import covers
from tests.fleet_broker import Broker, served, until
from tests.shadow_stand_in import StandIn, say

pytestmark = pytest.mark.integration

HALL = "th-1-hall"
P = f"$aws/things/{HALL}/shadow"
VERSIONS = ("5", "3.1.1")


@pytest.fixture
def broker(tmp_path):
    broker = Broker(tmp_path)
    broker.issue(HALL)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(agent_module, "ANSWER_S", 0.3)
    monkeypatch.setattr(agent_module, "RETRY_CAP_S", 0.5)


def options(broker, mqtt="5", state=None):
    directory = broker.certificates
    return argparse.Namespace(
        thing=HALL,
        host="localhost",
        port=broker.port,
        ca=str(directory / "ca.crt"),
        cert=str(directory / f"{HALL}.crt"),
        key=str(directory / f"{HALL}.key"),
        plain=False,
        mqtt=mqtt,
        state=state,
    )


@contextlib.asynccontextmanager
async def running(broker, mqtt="5", state=None):
    """Run an agent in a thread of its own, as its main program would."""
    agent = Agent(options(broker, mqtt, state), Thermostat())
    thread = threading.Thread(target=agent.run, name="agent")
    thread.start()
    try:
        yield agent
    finally:
        agent.stop()
        async with asyncio.timeout(10):
            await asyncio.to_thread(thread.join)


def reported(service):
    documents = service.stand_in.documents
    return documents[HALL, ""].reported if (HALL, "") in documents else {}


@pytest.mark.parametrize("mqtt", VERSIONS)
async def test_it_reports_itself_obeys_a_wish_and_says_goodbye(broker, mqtt):
    async with served(broker, StandIn()) as service:
        async with running(broker, mqtt):
            await until(lambda: reported(service).get("online") is True)
            assert reported(service)["heat_c"] == 20.5
            service.send(service.stand_in.wish(HALL, {"heat_c": 22, "mode": "off"}))
            await until(lambda: reported(service)["heat_c"] == 22 and reported(service)["mode"] == "off")
            assert service.stand_in.applied[-1]["sequence"]["number"] >= 2
        assert reported(service)["online"] is False


@pytest.mark.parametrize("mqtt", VERSIONS)
async def test_it_catches_up_on_what_was_wished_while_it_was_away(broker, mqtt):
    async with served(broker, StandIn()) as service:
        service.stand_in.wish(HALL, {"heat_c": 17})
        async with running(broker, mqtt) as agent:
            await until(lambda: reported(service).get("heat_c") == 17)
            assert agent.device.heat_c == 17


async def test_a_request_without_answer_is_repeated_with_the_same_bytes(broker):
    async with served(broker, StandIn()) as service:
        async with running(broker):
            await until(lambda: reported(service).get("online") is True)
            service.silence = 2
            service.send(service.stand_in.wish(HALL, {"heat_c": 24}))
            await until(lambda: reported(service)["heat_c"] == 24)
        closing = [payload for _, payload in service.requests if b'"heat_c":24' in payload]
        assert len(closing) >= 3
        assert len(set(closing)) == 1


async def test_after_the_broker_restarts_it_returns_and_catches_up(broker):
    async with served(broker, StandIn()) as service, running(broker) as agent:
        await until(lambda: reported(service).get("online") is True)
        broker.stop()
        await until(lambda: not agent.is_connected)
        service.stand_in.wish(HALL, {"heat_c": 18})
        broker.start()
        await until(lambda: reported(service)["heat_c"] == 18, seconds=20)


async def test_an_older_delta_and_an_impossible_wish_change_nothing(broker):
    async with served(broker, StandIn()) as service, running(broker) as agent:
        await until(lambda: reported(service).get("online") is True)
        service.send(service.stand_in.wish(HALL, {"heat_c": True, "mode": "warp"}))
        service.send([(f"{P}/update/delta", say(state={"heat_c": 11}, version=1))])
        service.send([(f"{P}/update/delta", b"[]"), (f"{P}/update/delta", b"\xff")])
        service.send(service.stand_in.wish(HALL, {"heat_c": 19}))
        await until(lambda: reported(service)["heat_c"] == 19)
        assert agent.device.mode == "heat"
        assert all(b'"heat_c":11' not in payload for _, payload in service.requests)


async def test_what_a_former_life_reported_is_removed(broker):
    async with served(broker, StandIn()) as service:
        service.stand_in.handle(f"{P}/update", say(state={"reported": {"old": 1}}))
        async with running(broker):
            await until(lambda: reported(service).get("online") is True)
        assert "old" not in reported(service)


async def test_with_a_lower_epoch_than_stored_it_goes_above_it(broker):
    async with served(broker, StandIn()) as service:
        stored = {"epoch": 10**10, "number": 4}
        service.stand_in.handle(f"{P}/update", say(state={"reported": {"heat_c": 1}}, sequence=stored))
        async with running(broker):
            await until(lambda: reported(service).get("heat_c") == 20.5)
        assert service.stand_in.document(HALL).sequence[0] == 10**10 + 1


async def test_each_start_counts_one_epoch(broker, tmp_path):
    state = tmp_path / "epoch"
    async with served(broker, StandIn()) as service:
        for start in (1, 2):
            async with running(broker, state=state):
                await until(lambda: reported(service).get("online") is True)
            assert service.stand_in.document(HALL).sequence[0] == start
    assert state.read_text() == "2"


async def test_as_a_program_it_stops_cleanly_on_a_signal_and_is_missed_when_killed(broker):
    command = ["-m", "fleet.agent", "--thing", HALL, "--port", str(broker.port)]
    for name, file in (("--ca", "ca.crt"), ("--cert", f"{HALL}.crt"), ("--key", f"{HALL}.key")):
        command += [name, str(broker.certificates / file)]

    async def start():
        quiet = asyncio.subprocess.DEVNULL
        return await asyncio.create_subprocess_exec(sys.executable, *command, stderr=quiet)

    async with served(broker, StandIn()) as service, asyncio.timeout(30):
        process = await start()
        await until(lambda: reported(service).get("online") is True)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
        assert reported(service)["online"] is False
        process = await start()
        await until(lambda: reported(service).get("online") is True)
        process.kill()
        await process.wait()
        await until(lambda: reported(service)["online"] is False)
        wills = [json.loads(payload) for _, payload in service.requests if b'"online":false' in payload]
        assert "sequence" in wills[0]  # its own goodbye
        assert "sequence" not in wills[1]  # the broker's word


async def until_said(caplog, words):
    await until(lambda: any(words in record.getMessage() for record in caplog.records))


async def test_a_broker_that_sends_it_away_is_explained(broker, tmp_path, caplog):
    stranger = Broker(tmp_path / "other")
    stranger.issue(HALL)
    for end in ("crt", "key"):
        (stranger.certificates / f"{HALL}.{end}").replace(broker.certificates / f"{HALL}.{end}")
    async with running(broker):
        await until_said(caplog, "the certificate is revoked, has ended, or is not from an authority")


def test_one_that_is_let_in_and_told_nothing_is_explained(broker, caplog):
    agent = Agent(options(broker), Thermostat())
    agent.is_connected = True
    reason = ReasonCode(PacketTypes.DISCONNECT, "Not authorized")
    agent.on_disconnect(
        agent.client, None, DisconnectFlags(is_disconnect_packet_from_server=True), reason, None
    )
    assert "--thing is not the name in its certificate" in caplog.text


@pytest.mark.parametrize("missing", ["ca", "cert", "key"])
def test_a_file_that_is_not_there_is_named(broker, monkeypatch, capsys, missing):
    files = {"ca": "ca.crt", "cert": f"{HALL}.crt", "key": f"{HALL}.key"} | {missing: "none"}
    paths = [part for name, file in files.items() for part in (f"--{name}", str(broker.certificates / file))]
    monkeypatch.setattr(sys, "argv", ["agent", "--thing", HALL, *paths])
    with pytest.raises(SystemExit):
        agent_module.main()
    said = capsys.readouterr().err
    assert f"--{missing} {broker.certificates / 'none'}: there is no such file" in said


def test_files_that_do_not_belong_together_are_told(broker, monkeypatch, capsys):
    broker.issue("another")
    folder = broker.certificates
    arguments = ["--ca", folder / "ca.crt", "--cert", folder / f"{HALL}.crt", "--key", folder / "another.key"]
    monkeypatch.setattr(sys, "argv", ["agent", "--thing", HALL, *map(str, arguments)])
    with pytest.raises(SystemExit):
        agent_module.main()
    assert "belong together" in capsys.readouterr().err


@covers("A11")
def test_it_uses_no_other_code_of_ours():
    tree = ast.parse(Path(agent_module.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    roots = {name for node in imports for name in _roots(node)}
    assert roots - sys.stdlib_module_names == {"paho"}


def _roots(node):
    modules = (
        [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
    )
    return [module.split(".")[0] for module in modules]
