"""Starting what `choice` chose. Each function yields the URL of a running server."""

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from tests.backends import choice
from tests.backends.choice import Choice, Step
from tests.backends.spawning import Server, spawn

ANSWER_S_MAX = 1.0
MONGODB_IMAGE = "mongo:8.0"
BROKER_IMAGE = "eclipse-mosquitto:2.0"
PRIMARY_S_MAX = 20.0
CONNECT = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x0a\x00\x00"
"""MQTT 3.1.1 CONNECT, clean session, no client id."""


@contextmanager
def broker(chosen: Choice, directory: Path) -> Iterator[str]:
    """Yield ``mqtt://host:port`` of an open broker."""
    if chosen.step is Step.EXPLICIT:
        yield os.environ[choice.BROKER_VARIABLE]
    elif chosen.step is Step.CONTAINER:
        from testcontainers.community.mqtt import MosquittoContainer  # noqa: PLC0415 - see docker_answers

        with MosquittoContainer(BROKER_IMAGE) as container:
            yield f"mqtt://{container.get_container_host_ip()}:{container.get_exposed_port(1883)}"
    else:
        server = spawn_mosquitto(directory)
        try:
            yield f"mqtt://127.0.0.1:{server.port}"
        finally:
            server.stop()


@contextmanager
def mongodb(chosen: Choice, directory: Path) -> Iterator[str]:
    """Yield ``mongodb://host:port`` without a database."""
    if chosen.step is Step.EXPLICIT:
        yield os.environ[choice.MONGODB_VARIABLE].rstrip("/")
    elif chosen.step is Step.CONTAINER:
        with _replica_set() as url:
            yield url
    else:
        server = spawn_emulator(directory)
        try:
            yield f"mongodb://127.0.0.1:{server.port}"
        finally:
            server.stop()


def spawn_mosquitto(directory: Path) -> Server:
    """Start an open broker that keeps nothing."""
    program = choice.mosquitto()
    assert program is not None

    def command(port: int) -> list[str | Path]:
        config = directory / "mosquitto.conf"
        config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nlog_dest stderr\n")
        return [program, "-c", config]

    return spawn(command, directory, says=lambda port: f"listen socket on port {port}", answers=_speaks_mqtt)


def spawn_emulator(directory: Path) -> Server:
    """Start the MongoDB-wire emulator on an empty directory."""
    data = directory / "data"
    data.mkdir(parents=True, exist_ok=True)
    return spawn(
        lambda port: [
            *(sys.executable, "-m", "nx_27017.nx_27017", "--data-dir", data, "--host", "127.0.0.1"),
            *("--port", str(port), "--log-file", directory / "own.log", "--pid-file", directory / "pid"),
        ],
        directory,
        says=lambda port: f"Listening on 127.0.0.1:{port}",
        answers=_speaks_mongodb,
    )


@contextmanager
def _replica_set() -> Iterator[str]:
    from testcontainers.community.mongodb import MongoDbContainer  # noqa: PLC0415 - see docker_answers

    container = MongoDbContainer(MONGODB_IMAGE).with_command("--replSet rs0")
    with container:
        host = f"{container.get_container_host_ip()}:{container.get_exposed_port(27017)}"
        url = f"mongodb://{host}/?directConnection=true"
        client: MongoClient[dict[str, Any]] = MongoClient(url)
        with closing(client):
            members = [{"_id": 0, "host": "127.0.0.1:27017"}]
            client.admin.command("replSetInitiate", {"_id": "rs0", "members": members})
            end = time.monotonic() + PRIMARY_S_MAX
            while not client.admin.command("hello").get("isWritablePrimary"):
                assert time.monotonic() < end, "the replica set elected no primary"
                time.sleep(0.1)
        yield url


def _speaks_mqtt(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), ANSWER_S_MAX) as connection:
            connection.sendall(CONNECT)
            return connection.recv(4) == b"\x20\x02\x00\x00"  # CONNACK, accepted
    except OSError:
        return False


def _speaks_mongodb(port: int) -> bool:
    timeout_ms = int(ANSWER_S_MAX * 1_000)
    try:
        client: MongoClient[dict[str, Any]]
        client = MongoClient("127.0.0.1", port, serverSelectionTimeoutMS=timeout_ms)
        with closing(client):
            return bool(client.admin.command("ping")["ok"])
    except PyMongoError:
        return False
