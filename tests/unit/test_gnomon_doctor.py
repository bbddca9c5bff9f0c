"""Each check of the doctor with its good and its bad findings; a remedy is there if and only if it is bad."""

import errno
import os
import resource
import shutil
import socket
import stat
from typing import NamedTuple

import pytest

from gnomon import doctor
from infra.clock import SystemClock
from infra.documents.opening import open_store
from infra.documents.port import StoreUnavailableError
from infra.settings import Settings
from infra.settings.model import ApiSettings, BrokerSettings, StoreSettings
from tests.certificates import open_authority
from tests.fakes import FakeClock

YEAR_MS = 365 * 86_400_000


class Usage(NamedTuple):
    """What the system says about a disk."""

    total: int
    used: int
    free: int


@pytest.fixture
def settings(tmp_path):
    return Settings(directory=tmp_path / "var")


def with_broker(settings, **changed):
    return Settings(directory=settings.directory, broker=BrokerSettings(**changed))


def program(path, says, code=0):
    """Make a program that says something."""
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {code}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def files_below(directory):
    return sorted(path for path in directory.rglob("*"))


def good(finding):
    assert finding.good, finding
    assert finding.line().startswith("ok ")


def fault(finding, *words):
    """See that the finding is a fault whose text, found and remedy, names all these words."""
    assert not finding.good, finding
    line = finding.line()
    assert line.startswith("FAULT ")
    assert "→ " in line
    for word in words:
        assert word in line, (word, line)


# ---------------------------------------------------------------------- directory, disk, clock


async def test_a_directory_that_is_there_or_can_be_made_is_good(settings):
    good(await doctor.check_directory(settings))
    settings.directory.mkdir()
    good(await doctor.check_directory(settings))


async def test_a_directory_of_somebody_else_is_a_fault_with_the_command_that_mends_it(settings, monkeypatch):
    settings.directory.mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    fault(await doctor.check_directory(settings), f"chown root {settings.directory}", "--set directory=")


async def test_a_file_where_the_directory_should_be_is_a_fault(settings):
    settings.directory.write_text("mine")
    fault(await doctor.check_directory(settings), f"{settings.directory} is a file", "move it away")


async def test_a_disk_with_room_and_speed_is_good_and_nothing_stays_on_it(settings, tmp_path):
    good(await doctor.check_disk(settings))
    assert files_below(tmp_path) == []


async def test_a_full_disk_is_a_fault(settings, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 5, 5))
    fault(await doctor.check_disk(settings), "0 MB free", "make room")


async def test_a_slow_disk_is_a_fault(settings, monkeypatch):
    monkeypatch.setattr(doctor, "_fsync_ms", lambda _: 80.0)
    fault(await doctor.check_disk(settings), "80.0 ms", "faster disk")


async def test_a_disk_that_takes_nothing_is_a_fault_and_no_traceback(settings, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(doctor, "_fsync_ms", full)
    fault(await doctor.check_disk(settings), "No space left on device")


async def test_a_clock_before_its_time_is_a_fault(settings):
    good(await doctor.check_clock(settings, SystemClock()))
    fault(await doctor.check_clock(settings, FakeClock(1_000)), "1970", "timedatectl")


async def test_too_few_descriptors_are_a_fault_that_names_what_would_do(settings, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 1_000))
    finding = await doctor.check_descriptors(with_broker(settings, connections_max=1_000))
    fault(finding, "ulimit -Hn 1256", "LimitNOFILE=1256", "broker.connections_max=744")
    good(await doctor.check_descriptors(with_broker(settings, connections_max=744)))


async def test_no_limit_of_descriptors_is_good(settings, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, resource.RLIM_INFINITY))
    good(await doctor.check_descriptors(settings))


# ---------------------------------------------------------------------- broker, ports


async def test_no_mosquitto_is_a_fault_that_says_how_to_get_it(settings):
    finding = await doctor.check_broker(with_broker(settings, executable="no-such-broker"))
    fault(finding, "no-such-broker is not installed", "apt-get install mosquitto", "broker.executable")


@pytest.mark.parametrize(("says", "fine"), [("2.0.11", True), ("2.1.0", True), ("1.6.9", False)])
async def test_an_old_mosquitto_is_a_fault(settings, tmp_path, says, fine):
    path = program(tmp_path / "mosquitto", f"mosquitto version {says}", code=1)
    finding = await doctor.check_broker(with_broker(settings, executable=path))
    if fine:
        good(finding)
    else:
        fault(finding, says, "2.0 or newer")


async def test_another_program_in_its_place_is_a_fault(settings, tmp_path):
    path = program(tmp_path / "mosquitto", "hello")
    fault(await doctor.check_broker(with_broker(settings, executable=path)), "does not say which version")


async def test_a_program_that_never_answers_is_a_fault_and_is_ended(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "ANSWER_S_MAX", 0.1)
    path = tmp_path / "mosquitto"
    path.write_text("#!/bin/sh\nexec sleep 60\n")
    path.chmod(0o700)
    fault(
        await doctor.check_broker(with_broker(settings, executable=str(path))), "does not say which version"
    )


@pytest.mark.parametrize("check", [doctor.check_device_port, doctor.check_api_port, doctor.check_join_port])
async def test_a_port_in_use_is_a_fault_that_says_who_it_may_be(settings, check):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        changed = Settings(
            directory=settings.directory,
            broker=BrokerSettings(device_port=port),
            api=ApiSettings(port=port, device_port=port),
        )
        finding = await check(changed)
        fault(finding, f"127.0.0.1:{port}", f"sport = :{port}", "port=0")
        assert ("systemctl" in finding.remedy) == (check is doctor.check_device_port)
    good(await check(changed))


async def test_any_free_port_is_good(settings):
    good(await doctor.check_device_port(with_broker(settings, device_port=0)))


async def test_an_address_of_another_machine_is_a_fault(settings):
    fault(
        await doctor.check_device_port(with_broker(settings, listen="192.0.2.1")),
        "broker.listen",
        "of this machine",
    )


async def test_a_port_for_root_alone_is_a_fault_with_the_right_remedy(settings, monkeypatch):
    def refused(_self, _address):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(socket.socket, "bind", refused)
    finding = await doctor.check_device_port(with_broker(settings, device_port=883))
    fault(finding, "below 1024", "--set broker.device_port=")
    assert "stop what listens" not in finding.remedy


async def test_without_a_broker_its_plugin_is_no_fault_of_its_own(settings):
    good(await doctor.check_plugin(with_broker(settings, executable="no-such-broker")))


async def test_no_plugin_is_a_fault_that_names_the_setting(settings, tmp_path):
    executable = program(tmp_path / "mosquitto", "mosquitto version 2.0.11")
    missing = with_broker(settings, executable=executable, plugin=str(tmp_path / "none.so"))
    fault(await doctor.check_plugin(missing), "none.so", "set broker.plugin")
    (tmp_path / "here.so").touch()
    good(
        await doctor.check_plugin(
            with_broker(settings, executable=executable, plugin=str(tmp_path / "here.so"))
        )
    )


async def test_a_plugin_file_that_is_not_the_brokers_alone_is_a_fault(settings, monkeypatch):
    good(await doctor.check_plugin_state(settings))
    file = settings.directory / "broker" / "dynamic-security.json"
    file.parent.mkdir(parents=True)
    file.touch(mode=0o600)
    good(await doctor.check_plugin_state(settings))
    file.chmod(0o640)
    fault(await doctor.check_plugin_state(settings), "0640", f"delete {file}")
    file.chmod(0o600)
    monkeypatch.setattr(os, "geteuid", lambda: 4_711)
    fault(await doctor.check_plugin_state(settings), "belongs to user")


# ---------------------------------------------------------------------- certificates, store


async def test_before_the_first_run_there_is_nothing_to_find_and_the_doctor_makes_nothing(settings):
    settings.directory.mkdir()
    (settings.directory / "ca").mkdir(mode=0o700)  # even when the folder is there
    before = files_below(settings.directory)
    for check in (doctor.check_certificates, doctor.check_store):
        good(await check(settings))
    assert files_below(settings.directory) == before


async def test_a_sound_root_is_good_and_one_that_ends_soon_is_a_fault(settings):
    open_authority(settings.directory)
    good(await doctor.check_certificates(settings))
    late = FakeClock(SystemClock().now_ms() + round(4.5 * YEAR_MS))
    found = await doctor.check_certificates(settings, late)
    fault(found, "issuing authority ends on", "gnomon ca renew")
    assert "revocation list ends at" in found.found


async def test_a_damaged_root_is_a_fault_and_is_left_as_it_is(settings):
    open_authority(settings.directory)
    file = settings.directory / "ca" / "issuing-0001.pem"
    file.write_bytes(b"garbage")
    fault(await doctor.check_certificates(settings), str(file), "put back a copy")
    assert file.read_bytes() == b"garbage"


async def test_a_root_that_others_may_read_is_a_fault(settings):
    open_authority(settings.directory)
    file = settings.directory / "ca" / "issuing-0001.pem"
    file.chmod(0o644)
    fault(await doctor.check_certificates(settings), "mode 0644", f"chmod go= {file}")


async def test_a_store_that_a_running_process_holds_is_a_fault_that_names_it(settings):
    store = await open_store(f"sqlite:{settings.directory}/gnomon.db", [], [])
    try:
        fault(await doctor.check_store(settings), f"process {os.getpid()}", "stop that process")
    finally:
        await store.close()
    good(await doctor.check_store(settings))


async def test_a_store_that_others_may_read_is_a_fault_until_it_is_opened_again(settings):
    store = await open_store(f"sqlite:{settings.directory}/gnomon.db", [], [])
    await store.close()
    file = settings.directory / "gnomon.db"
    file.chmod(0o644)  # as a restored backup may have it
    fault(await doctor.check_store(settings), f"chmod go= {file}")
    store = await open_store(f"sqlite:{file}", [], [])
    await store.close()
    assert file.stat().st_mode & 0o777 == 0o600
    good(await doctor.check_store(settings))


async def test_a_damaged_store_is_a_fault(settings):
    settings.directory.mkdir()
    (settings.directory / "gnomon.db").write_bytes(b"SQLite format 3\0" + b"garbage" * 1_000)
    (settings.directory / "gnomon.db").chmod(0o600)
    fault(await doctor.check_store(settings), "damaged", "restore a backup")


async def test_the_memory_store_is_a_fault(settings):
    changed = Settings(directory=settings.directory, store=StoreSettings(url="memory:"))
    fault(await doctor.check_store(changed), "forgets everything", "sqlite:")


async def test_a_mongodb_that_does_not_answer_is_a_fault(settings, monkeypatch):
    async def away(url, _collections, _logs):
        raise StoreUnavailableError(f"MongoDB did not answer: {url}")

    monkeypatch.setattr(doctor, "open_store", away)
    changed = Settings(directory=settings.directory, store=StoreSettings(url="mongodb://db/gnomon"))
    fault(await doctor.check_store(changed), "MongoDB did not answer", "mongodb://db/gnomon")


async def test_a_mongodb_that_is_found_by_dns_is_asked_too(settings, monkeypatch):
    async def away(url, _collections, _logs):
        raise StoreUnavailableError(f"MongoDB did not answer: {url}")

    monkeypatch.setattr("infra.documents.mongo.MongoStore.open", away)
    url = "mongodb+srv://db.example/gnomon"
    fault(await doctor.check_store(Settings(directory=settings.directory, store=StoreSettings(url=url))), url)


async def test_all_checks_are_made_whatever_the_others_find(settings):
    changed = with_broker(settings, executable="no-such-broker", device_port=0)
    findings = await doctor.examine(changed)
    assert [one.subject for one in findings] == [
        "directory", "disk", "clock", "descriptors", "broker", "broker plugin", "plugin state",
        "broker rules", "device port",
        "api port", "join port", "certificates", "store",
    ]  # fmt: skip
    assert {one.subject for one in findings if not one.good} >= {"broker"}
