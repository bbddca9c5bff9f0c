"""The command line: what it explains, and what it says when it was told something wrong."""

import asyncio
import re

import msgspec
import pytest
from click.testing import CliRunner

from broker_bridge.deadletters import DEAD_LETTERS, DeadLetters
from broker_bridge.inbox import Message
from broker_bridge.topics import Operation, Request
from fleet.plan import HOMES_MAX
from gnomon import cli, roles
from infra import logs
from infra.documents.opening import open_store
from infra.documents.port import StoreBrokenError, StoreUnavailableError
from infra.telemetry import Metrics
from security.trust.authority import ExposedFileError
from shadow.document import ShadowId
from tests.fakes import FakeClock

COMMANDS = ("dead-letters", "demo", "doctor", "settings", "up")


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.setattr(logs, "configure", lambda _settings: None)  # else later tests log into its output
    monkeypatch.chdir(tmp_path)
    for variable in ("GNOMON_CONFIG", "GNOMON_DIRECTORY"):
        monkeypatch.delenv(variable, raising=False)

    def run(*arguments):
        return CliRunner().invoke(cli.main, [str(one) for one in arguments])

    return run


def test_alone_it_lists_every_command_once(run):
    said = run("--help").output
    listed = [line.split()[0] for line in said.splitlines() if re.match(r"  [a-z]", line)]
    assert set(COMMANDS) < set(listed)
    assert len(set(listed)) == len(listed) == len(cli.main.commands)


@pytest.mark.parametrize("group", ["", "person", "thing", "ca", "audit", "image"])
def test_every_command_is_listed_with_a_whole_sentence(run, group):
    said = run(*group.split(), "--help").output
    sentences = re.split(r"\n  (?=\S)", said.partition("Commands:")[2])[1:]
    assert sentences
    assert all(sentence.rstrip().endswith(".") for sentence in sentences), sentences
    assert not any(sentence.rstrip().endswith("...") for sentence in sentences)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(run, command):
    answer = run(command, "-h")
    assert answer.exit_code == 0
    assert "--set KEY=VALUE" in answer.output
    assert "--config FILE" in answer.output


def test_it_knows_its_version(run):
    assert run("--version").exit_code == 0


@pytest.mark.parametrize("command", ["dead-letters", "doctor", "settings", "up"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "api.port"], "write KEY=VALUE"),
        (["--set", "api.prt=1"], "did you mean api.port?"),
        (["--set", "api.port=eighty"], "a whole number from 0 to 65,535"),
        (["--set", "api.port=70000"], "70000"),
        (["--config", "no-such-file.toml"], "cannot be read"),
        (["--config", "bad.toml"], "is not TOML"),
        (["--config", "odd.toml"], "bridge.batch"),
        (["--nonsense"], "No such option"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence_and_nothing_is_begun(run, tmp_path, command, arguments, said):
    (tmp_path / "bad.toml").write_text("[api\n")
    (tmp_path / "odd.toml").write_text("[bridge]\nbatch = 1\n")
    answer = run(*command.split(), *arguments)
    assert answer.exit_code in {1, 2}
    assert said in answer.output
    assert "Traceback" not in answer.output
    assert not (tmp_path / "var").exists()


@pytest.mark.parametrize("homes", [0, -3, HOMES_MAX + 1, "many"])
def test_a_city_has_homes_but_not_too_many(run, homes):
    answer = run("demo", "--homes", homes)
    assert answer.exit_code == 2
    assert "--homes" in answer.output


def test_settings_are_shown_as_they_are_in_effect(run):
    answer = run("settings", "--set", "api.port=9000")
    assert answer.exit_code == 0
    assert "port = 9000" in answer.output


def test_the_doctor_ends_with_one_if_there_is_a_fault_and_with_none_otherwise(run):
    good = run("doctor", "--set", "api.port=0", "--set", "api.device_port=0", "--set", "broker.device_port=0")
    assert (good.exit_code, "FAULT" in good.output) in {(0, False), (1, True)}
    bad = run("doctor", "--set", "broker.executable=no-such-broker")
    assert bad.exit_code == 1
    assert "FAULT broker: no-such-broker is not installed" in bad.output


# ---------------------------------------------------------------------- errors that are nobody's bug


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StoreUnavailableError("gnomon.db is in use"), "Error: the store: gnomon.db is in use"),
        (StoreBrokenError("an fsync failed"), "Error: the store: an fsync failed"),
        (roles.StartError("the broker cannot listen"), "Error: the broker cannot listen"),
        (PermissionError(13, "Permission denied", "/var/x"), "Error: /var/x: Permission denied"),
    ],
)
def test_what_stops_it_is_one_sentence(run, monkeypatch, error, said):
    async def fails(_settings, _on_ready):
        raise error

    monkeypatch.setattr(roles, "up", fails)
    answer = run("up")
    assert (answer.exit_code, answer.output.strip()) == (1, said)


def test_an_exposed_secret_is_one_sentence(run, monkeypatch, tmp_path):
    async def fails(_settings, _on_ready):
        raise ExposedFileError(tmp_path / "root.pem", 0o644)

    monkeypatch.setattr(roles, "up", fails)
    answer = run("up")
    assert answer.exit_code == 1
    assert "chmod go=" in answer.output


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), OSError("without a file")])
def test_a_bug_is_not_hidden(run, monkeypatch, error):
    async def fails(_settings, _on_ready):
        raise error

    monkeypatch.setattr(roles, "up", fails)
    assert run("up").exception is error


# ---------------------------------------------------------------------- dead letters


async def _keep(directory, payload):
    store = await open_store(f"sqlite:{directory}/gnomon.db", [], [DEAD_LETTERS])
    message = Message(Request(Operation.UPDATE, ShadowId("hall")), payload, 1, 1, duplicate=False)
    await DeadLetters(store, FakeClock(), Metrics()).add(message, "trace abc")
    await store.close()


def test_dead_letters_are_shown_a_line_each(run, tmp_path):
    asyncio.run(_keep(tmp_path, b"{"))
    answer = run("dead-letters", "--set", f"directory={tmp_path}")
    assert answer.exit_code == 0
    (line,) = answer.output.splitlines()
    letter = msgspec.json.decode(line)
    assert (letter["thing"], letter["payload"], letter["reason"]) == ("hall", "ew==", "trace abc")


def test_without_a_store_there_are_none_and_none_is_made(run, tmp_path):
    answer = run("dead-letters", "--set", f"directory={tmp_path}")
    assert (answer.exit_code, answer.output) == (0, "")
    assert not (tmp_path / "gnomon.db").exists()
