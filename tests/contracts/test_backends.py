"""Where a server comes from: the chain, the proof that a child is ours, the list of skips."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.backends import choice, skips, spawning
from tests.backends.choice import Step
from tests.backends.spawning import NotStartedError, spawn

ROOT = Path(__file__).parent.parent.parent
ECHO = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening on", sys.argv[1], flush=True)
while True:
    server.accept()[0].sendall(b"hello")
"""


def echo(port):
    return [sys.executable, "-c", ECHO, str(port)]


def greets(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            return connection.recv(5) == b"hello"
    except OSError:
        return False


@pytest.fixture
def no_docker(monkeypatch):
    monkeypatch.setattr(choice, "docker_answers", lambda: False)
    monkeypatch.delenv(choice.BROKER_VARIABLE, raising=False)
    monkeypatch.delenv(choice.MONGODB_VARIABLE, raising=False)


@pytest.mark.parametrize("need", [choice.broker, choice.mongodb])
def test_the_first_step_that_applies_is_taken(need, monkeypatch, no_docker):
    del no_docker
    assert need("explicit").step is Step.NONE
    assert need("container").step is Step.NONE
    monkeypatch.setattr(choice, "docker_answers", lambda: True)
    assert need("auto").step is Step.CONTAINER
    monkeypatch.setenv(choice.BROKER_VARIABLE, "mqtt://x")
    monkeypatch.setenv(choice.MONGODB_VARIABLE, "mongodb://x")
    assert need("auto").step is Step.EXPLICIT
    assert need("container").step is Step.CONTAINER


def test_a_missing_server_names_what_to_install(monkeypatch, no_docker):
    del no_docker
    monkeypatch.setattr(choice, "mosquitto", lambda: None)
    assert "Debian package mosquitto" in choice.broker("auto").name


def test_the_emulator_is_called_one(no_docker):
    del no_docker
    assert choice.mongodb("process").name.startswith("EMULATOR nx-27017 ")
    assert choice.mongodb("process").is_emulator


def test_a_child_is_ready_when_it_answers_and_gone_when_it_is_stopped(tmp_path):
    server = spawn(echo, tmp_path, says=lambda port: f"listening on {port}", answers=greets)
    assert greets(server.port)
    server.stop()
    assert not greets(server.port)
    assert server.process.returncode is not None


def test_a_stranger_on_the_port_is_not_taken_for_our_child(tmp_path, monkeypatch):
    stranger = spawn(echo, tmp_path / "stranger", says=lambda port: f"listening on {port}", answers=greets)
    ports = iter([stranger.port, stranger.port, spawning.free_port()])
    monkeypatch.setattr(spawning, "free_port", lambda: next(ports))
    try:
        ours = spawn(echo, tmp_path / "ours", says=lambda port: f"listening on {port}", answers=greets)
        assert ours.port != stranger.port
        ours.stop()
    finally:
        stranger.stop()


def test_a_child_that_does_not_come_up_shows_its_log(tmp_path):
    with pytest.raises(NotStartedError, match="no such luck"):
        spawn(
            lambda _port: [sys.executable, "-c", "print('no such luck')"],
            tmp_path,
            says=str,
            answers=greets,
        )


def test_a_frozen_child_can_be_thawed_and_stopped(tmp_path):
    server = spawn(echo, tmp_path, says=lambda port: f"listening on {port}", answers=greets)
    server.freeze()
    assert not greets(server.port)
    server.thaw()
    assert greets(server.port)
    server.freeze()
    server.stop()
    assert server.process.returncode is not None


def test_each_entry_of_the_skip_list_names_a_test_and_a_reason():
    for test, reason in skips.known().items():
        path, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (ROOT / path).read_text()
        assert len(reason) > 20


@pytest.mark.parametrize(
    ("options", "outcome"),
    [
        (["--backends=process"], "1 failed"),
        (["--backends=explicit"], "1 skipped"),
        (["--backends=explicit", "--strict-backends"], "1 error"),
    ],
)
def test_a_skip_must_be_listed_and_a_missing_server_is_strictly_a_failure(
    options, outcome, tmp_path, no_docker
):
    del no_docker
    inner = tmp_path / "test_inner.py"
    inner.write_text("import pytest\ndef test_it(mongodb_url): pytest.skip('just so')\n")
    told = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.conftest"),
            *("--rootdir", ROOT, "-c", ROOT / "pyproject.toml", *options, inner),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in told.stdout, told.stdout + told.stderr
