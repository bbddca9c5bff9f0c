"""Mosquitto as our child: started, proved to be ours, restarted, stopped."""

import asyncio
import errno
import os
import random
import resource
import signal
import socket
import time
from contextlib import asynccontextmanager, suppress

import mqtt5
import pytest

from broker_bridge import mosquitto
from broker_bridge.mosquitto import (
    BrokerMissingError,
    BrokerStartError,
    DirectoryInUseError,
    Mosquitto,
    PluginMissingError,
    PortInUseError,
    find_executable,
    find_plugin,
)
from broker_bridge.mosquitto_config import BRIDGE_USER, CONNECTION_BYTES, MEMORY_BYTES_MAX, BrokerConfig
from infra.ids import RandomIds
from tests.certificates import open_authority

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("broker_program")]

STARTS_S_MAX = 1.0
WAIT_S_MAX = 10.0


def broker_in(directory, **config):
    authority = open_authority(directory)
    executable = config.pop("executable", "mosquitto")
    return Mosquitto(
        BrokerConfig(
            directory=directory / "broker",
            authority_file=authority.authorities_path,
            **{"device_port": 0, **config},
        ),
        authority.server_credentials(["localhost"]),
        ids=RandomIds(),
        rng=random.Random(0),
        executable=executable,
    )


@asynccontextmanager
async def started(directory, **config):
    broker = broker_in(directory, **config)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


def alive(pid):
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def listens(port):
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


async def until(condition):
    async with asyncio.timeout(WAIT_S_MAX):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


def log_in(broker, *, subscribe=False):
    """Connect as the bridge and leave without a word; return whether the broker knew the session."""
    connect = mqtt5.ConnectPacket(
        BRIDGE_USER,
        username=BRIDGE_USER,
        password=broker.password.encode(),
        session_expiry_interval=3_600,
    )
    with socket.create_connection(("127.0.0.1", broker.service_port), WAIT_S_MAX) as connection:
        connection.sendall(connect.write())
        connack, _ = mqtt5.read(memoryview(connection.recv(1_024)))
        assert isinstance(connack, mqtt5.ConnAckPacket)
        assert connack.reason_code is mqtt5.ConnAckReasonCode.SUCCESS
        if subscribe:
            filters = [mqtt5.TopicFilter("$aws/things/+/shadow/get")]
            connection.sendall(mqtt5.SubscribePacket(1, filters).write())
            connection.recv(1_024)
        return connack.session_present


# ---------------------------------------------------------------------- start


async def test_it_serves_within_a_second_on_ports_of_its_own(tmp_path):
    began = time.monotonic()
    async with started(tmp_path, plain_port=0, testing=True) as broker:
        assert time.monotonic() - began < STARTS_S_MAX
        ports = {broker.device_port, broker.service_port, broker.plain_port}
        assert len(ports) == 3
        assert 0 not in ports
        for port in ports:
            socket.create_connection(("127.0.0.1", port), 1).close()


async def test_a_directory_with_blanks_in_its_name_will_do(tmp_path):
    async with started(tmp_path / "my home") as broker:
        assert not log_in(broker)


async def test_what_it_writes_can_be_read_by_nobody_else(tmp_path):
    async with started(tmp_path) as broker:
        folder = tmp_path / "broker"
        assert broker.password not in "".join(one.read_text(errors="replace") for one in folder.iterdir())
        exposed = [one.name for one in folder.iterdir() if one.stat().st_mode & 0o077]
        assert folder.stat().st_mode & 0o077 == 0
        assert set(exposed) <= {"mosquitto.log", "mosquitto.pid", "lock"}


async def test_the_kernel_bounds_its_memory(tmp_path):
    async with started(tmp_path, connections_max=100) as broker:
        assert broker.pid is not None
        bounds = resource.prlimit(broker.pid, resource.RLIMIT_DATA)
        assert bounds == (MEMORY_BYTES_MAX + 100 * CONNECTION_BYTES,) * 2


async def test_passwords_are_made_anew_for_each_run(tmp_path):
    async with started(tmp_path) as first:
        pass
    async with started(tmp_path) as second:
        assert second.password != first.password
        with pytest.raises(AssertionError):
            log_in(first)


def test_a_missing_program_says_how_to_install_it():
    with pytest.raises(BrokerMissingError, match="apt-get install mosquitto"):
        find_executable("no-such-broker")


def test_the_plugin_is_found_beside_the_program_or_where_it_is_said_to_be(tmp_path):
    assert find_plugin().name == "mosquitto_dynamic_security.so"
    for folder in ("sbin", "lib/x86_64-linux-gnu"):
        (tmp_path / folder).mkdir(parents=True)
    program, plugin = tmp_path / "sbin" / "mosquitto", tmp_path / "lib/x86_64-linux-gnu" / mosquitto.PLUGIN
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    plugin.touch()
    assert find_plugin(executable=str(program)) == plugin
    assert find_plugin(str(plugin)) == plugin


def test_a_missing_plugin_says_what_to_do(tmp_path):
    with pytest.raises(PluginMissingError, match=r"set broker\.plugin"):
        find_plugin(str(tmp_path / "none.so"))


async def test_without_the_program_nothing_is_started_and_nothing_is_left(tmp_path):
    broker = broker_in(tmp_path, executable="no-such-broker")
    with pytest.raises(BrokerMissingError):
        await broker.start()
    assert broker.pid is None
    async with started(tmp_path):
        pass


async def test_a_port_that_somebody_else_has_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortInUseError, match=str(port)):
            async with started(tmp_path, device_port=port):
                pass
    async with started(tmp_path, device_port=port) as broker:
        assert broker.device_port == port


async def test_a_free_port_that_is_taken_at_the_last_moment_is_replaced(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = iter([other.getsockname()[1]])
        free_port = mosquitto._free_port
        monkeypatch.setattr(
            mosquitto, "_free_port", lambda host, last: next(taken, 0) or free_port(host, last)
        )
        async with started(tmp_path) as broker:
            assert broker.device_port != other.getsockname()[1]


async def test_a_program_that_is_no_broker_is_shown_with_its_last_words(tmp_path):
    program = tmp_path / "broker.sh"
    program.write_text("#!/bin/sh\necho cannot do this\nexit 3\n")
    program.chmod(0o700)
    with pytest.raises(BrokerStartError, match=r"code 3.*cannot do this"):
        async with started(tmp_path, executable=str(program)):
            pass


async def test_a_program_that_never_serves_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(mosquitto, "READY_S_MAX", 0.2)
    program = tmp_path / "broker.sh"
    program.write_text("#!/bin/sh\necho $$ > $0.pid\nexec sleep 60\n")
    program.chmod(0o700)
    with pytest.raises(BrokerStartError, match="did not answer"):
        async with started(tmp_path, executable=str(program)):
            pass
    assert not alive(int((tmp_path / "broker.sh.pid").read_text()))


async def test_two_processes_cannot_have_one_directory(tmp_path):
    async with started(tmp_path) as broker:
        with pytest.raises(DirectoryInUseError, match="directory"):
            async with started(tmp_path):
                pass
        assert not log_in(broker)


async def test_ports_are_kept_for_the_next_start_because_sessions_are_tied_to_them(tmp_path):
    async with started(tmp_path) as first:
        before = (first.device_port, first.service_port)
    async with started(tmp_path) as second:
        assert (second.device_port, second.service_port) == before


async def test_a_broker_left_over_by_a_killed_process_is_ended(tmp_path):
    killed = broker_in(tmp_path)
    await killed.start()
    orphan = killed.pid
    assert orphan is not None
    assert killed._lock is not None
    killed._lock.close()  # as the end of the process would
    try:
        async with started(tmp_path) as broker:
            await until(lambda: not alive(orphan) or broker.pid != orphan)
            assert (broker.device_port, broker.service_port) == (killed.device_port, killed.service_port)
            assert not log_in(broker)
    finally:
        await killed.stop()
    assert not alive(orphan)


async def test_a_process_id_that_belongs_to_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "broker").mkdir(mode=0o700)
    (tmp_path / "broker" / "mosquitto.pid").write_text(str(os.getpid()))
    async with started(tmp_path) as broker:
        assert broker.pid != os.getpid()


# ---------------------------------------------------------------------- run


@asynccontextmanager
async def supervised(directory):
    async with started(directory) as broker, asyncio.TaskGroup() as tasks:
        task = tasks.create_task(broker.run(), name="broker")
        try:
            yield broker
        finally:
            task.cancel()


async def test_killed_it_is_started_again_on_the_same_ports_with_the_same_password(tmp_path):
    async with supervised(tmp_path) as broker:
        before = (broker.pid, broker.device_port, broker.service_port)
        for _ in range(2):
            pid = broker.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await until(lambda pid=pid: broker.pid not in {None, pid})
            await until(lambda: listens(broker.service_port))
            log_in(broker)
        assert broker.pid != before[0]
        assert (broker.device_port, broker.service_port) == before[1:]


async def test_as_long_as_it_cannot_be_started_it_is_tried_again(tmp_path):
    async with supervised(tmp_path) as broker:
        pid = broker.pid
        assert pid is not None
        key = tmp_path / "broker" / "server.key"
        sound, broker._credentials = broker._credentials, type(broker._credentials)(b"nothing", b"nothing")
        os.kill(pid, signal.SIGKILL)
        await until(lambda: key.read_bytes() == b"nothing" and broker.pid is None)
        broker._credentials = sound
        await until(lambda: broker.pid not in {None, pid})


async def test_a_full_disk_is_waited_for(tmp_path, monkeypatch):
    fulls = []

    def full(*_):
        fulls.append(True)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mosquitto, "LOG_BYTES_MAX", 1)
    monkeypatch.setattr(mosquitto, "LOG_CHECK_S", 0.02)
    monkeypatch.setattr("shutil.copyfile", full)
    async with supervised(tmp_path) as broker:
        await until(lambda: len(fulls) > 1)
        log_in(broker)
        pid = broker.pid
        assert pid is not None
        with monkeypatch.context() as no_room:
            no_room.setattr(broker, "_write_files", full)
            fulls.clear()
            os.kill(pid, signal.SIGKILL)
            await until(lambda: fulls and broker.pid is None)
        await until(lambda: broker.pid not in {None, pid})


async def test_its_log_stays_short(tmp_path, monkeypatch):
    monkeypatch.setattr(mosquitto, "LOG_BYTES_MAX", 2_000)
    monkeypatch.setattr(mosquitto, "LOG_CHECK_S", 0.02)
    async with supervised(tmp_path) as broker:
        log = tmp_path / "broker" / "mosquitto.log"
        for _ in range(40):
            log_in(broker)
        await until((tmp_path / "broker" / "mosquitto.log.1").exists)
        await asyncio.sleep(0.1)
        assert log.stat().st_size <= 2_500
        log_in(broker)
        await until(lambda: "svc.bridge" in log.read_text())
        assert "\0" not in log.read_text()


# ---------------------------------------------------------------------- sessions on disk, and the end


async def test_sessions_survive_an_orderly_stop(tmp_path):
    async with started(tmp_path) as broker:
        assert not log_in(broker, subscribe=True)
    async with started(tmp_path) as broker:
        assert log_in(broker)


@pytest.mark.parametrize("saved", [True, False])
async def test_a_session_survives_a_kill_only_if_it_was_saved(tmp_path, saved):
    async with started(tmp_path) as broker:
        assert not log_in(broker)
        if saved:
            database = tmp_path / "broker" / "mosquitto.db"
            assert not database.exists()
            broker.save()
            await until(database.exists)
            await asyncio.sleep(0.05)
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGKILL)
    async with started(tmp_path) as broker:
        assert log_in(broker) is saved


async def test_one_that_does_not_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(mosquitto, "STOP_S_MAX", 0.2)
    broker = broker_in(tmp_path)
    await broker.start()
    pid = broker.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    await broker.stop()
    assert broker.pid is None
    assert not alive(pid)


async def test_stopping_twice_or_saving_without_a_child_does_nothing(tmp_path):
    broker = broker_in(tmp_path)
    broker.save()
    await broker.stop()
    await broker.start()
    await broker.stop()
    await broker.stop()
    broker.save()
