"""``gnomon doctor``: what is wrong with this machine or these settings, and the remedy.

Each check returns a finding and changes nothing. A finding that is not good says what to do, in words
that can be typed.
"""

import asyncio
import errno
import getpass
import http.client
import os
import re
import resource
import shutil
import socket
import ssl
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from broker_bridge.mosquitto import (
    BrokerError,
    BrokerMissingError,
    find_executable,
    find_plugin,
    running_device_port,
)
from broker_bridge.mosquitto_config import Files
from broker_bridge.selftest import HolesError, NotTriedError, try_out
from gnomon import canaries
from gnomon.roles import DESCRIPTORS_SPARE, descriptors_wanted
from gnomon.services import (
    authority_directory,
    broker_directory,
    look_at_authority,
    master_key_file,
    store_file,
    store_url,
)
from infra.clock import Clock, SystemClock
from infra.documents.opening import open_store
from infra.documents.port import StoreError
from infra.documents.sqlite_files import holder, is_exposed
from infra.ids import RandomIds
from infra.settings import Settings
from infra.settings.model import is_loopback
from security import private_files
from security.secretbox import SecretBox
from security.trust.authority import (
    ROOT_FILE,
    Authority,
    AuthorityError,
    DamagedFileError,
    ExposedFileError,
)

BROKER_VERSION_MIN: Final = (2, 0)
DISK_FREE_BYTES_MIN: Final = 1_000_000_000
FSYNC_MS_MAX: Final = 50.0
FSYNCS: Final = 20
YEAR_MIN: Final = 2025
ANSWER_S_MAX: Final = 5.0
"""How long a program may take to say which version it is."""
_CLOCK: Final = SystemClock()
_VERSION: Final = re.compile(r"mosquitto version (\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; ``remedy`` is empty when all is well."""

    subject: str
    found: str
    remedy: str = ""

    @property
    def good(self) -> bool:
        return not self.remedy

    def line(self) -> str:
        """Return it as a line, or two, for a terminal."""
        if self.good:
            return f"ok    {self.subject}: {self.found}"
        return f"FAULT {self.subject}: {self.found}\n      → {self.remedy}"


async def examine(settings: Settings) -> list[Finding]:
    """Run every check, in the order in which one would mend things."""
    checks = (
        check_directory,
        check_disk,
        check_clock,
        check_descriptors,
        check_broker,
        check_plugin,
        check_plugin_state,
        check_broker_rules,
        check_device_port,
        check_api_port,
        check_join_port,
        check_certificates,
        check_store,
    )
    return [await check(settings) for check in checks]


async def check_directory(settings: Settings) -> Finding:
    """The folder for everything we write must be ours to write."""
    place = _existing(settings.directory)
    if not place.is_dir():
        return Finding(
            "directory", f"{place} is a file", "move it away, or name a folder with --set directory=PATH"
        )
    if not os.access(place, os.W_OK | os.X_OK):
        return Finding(
            "directory",
            f"{place} cannot be written by this user",
            f"give it the folder (chown {getpass.getuser()} {place}), or name another: --set directory=PATH",
        )
    return Finding("directory", f"{settings.directory} can be written")


async def check_disk(settings: Settings) -> Finding:
    """Enough room, and an fsync that does not take for ever: each commit waits for one."""
    place = _existing(settings.directory)
    free = shutil.disk_usage(place).free
    if free < DISK_FREE_BYTES_MIN:
        return Finding(
            "disk", f"{free / 1e6:.0f} MB free at {place}", "make room: at least 1 GB; history grows with use"
        )
    try:
        median_ms = await asyncio.to_thread(_fsync_ms, place)
    except OSError as error:
        return Finding("disk", f"nothing can be written at {place} ({error.strerror})", "mend that first")
    found = f"{free / 1e9:.0f} GB free, median fsync {median_ms:.1f} ms"
    if median_ms > FSYNC_MS_MAX:
        return Finding("disk", found, "use a faster disk: every acknowledged update waits for an fsync")
    return Finding("disk", found)


def _existing(directory: Path) -> Path:
    """Return the folder itself or, before the first run, the one it will be made in."""
    return next(one for one in (directory, *directory.resolve().parents) if one.exists())


def _fsync_ms(place: Path) -> float:
    clock = SystemClock()
    probe = place / f".gnomon-doctor-{os.getpid()}"
    times: list[float] = []
    try:
        with probe.open("wb") as file:
            for _ in range(FSYNCS):
                file.write(b"x" * 4_096)
                file.flush()
                began_s = clock.elapsed_s()
                os.fsync(file.fileno())
                times.append((clock.elapsed_s() - began_s) * 1_000)
    finally:
        probe.unlink(missing_ok=True)
    return sorted(times)[len(times) // 2]


async def check_clock(_: Settings, clock: Clock = _CLOCK) -> Finding:
    """Certificates, time stamps and expiry need a clock that is roughly right."""
    now = datetime.fromtimestamp(clock.now_ms() / 1_000, UTC)
    found = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    if now.year < YEAR_MIN:
        return Finding("clock", found, "set it: timedatectl set-ntp true")
    return Finding("clock", found)


async def check_descriptors(settings: Settings) -> Finding:
    """The broker needs a file descriptor for each connection; we raise its limit as far as we may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = descriptors_wanted(settings)
    if hard == resource.RLIM_INFINITY:
        return Finding("descriptors", "any number allowed")
    found = f"{hard} allowed, {wanted} wanted for broker.connections_max"
    if hard < wanted:
        return Finding(
            "descriptors",
            found,
            f"raise the hard limit (as root: ulimit -Hn {wanted}; under systemd: LimitNOFILE={wanted}),"
            f" or --set broker.connections_max={max(1, hard - DESCRIPTORS_SPARE)}",
        )
    return Finding("descriptors", found)


async def check_broker(settings: Settings) -> Finding:
    """Mosquitto must be there, and new enough."""
    try:
        program = find_executable(settings.broker.executable)
    except BrokerError as error:
        return Finding(
            "broker",
            f"{settings.broker.executable} is not installed",
            str(error).partition(": ")[2],
        )
    said = await _first_line(program)
    found = _VERSION.search(said)
    if found is None:
        return Finding(
            "broker", f"{program} does not say which version it is", "set broker.executable to a Mosquitto"
        )
    if (int(found[1]), int(found[2])) < BROKER_VERSION_MIN:
        return Finding("broker", said, "install Mosquitto 2.0 or newer (Debian 12 has it)")
    return Finding("broker", said)


async def check_plugin(settings: Settings) -> Finding:
    """Without the dynamic-security plugin the sessions of revoked things could not be ended."""
    try:
        plugin = find_plugin(settings.broker.plugin, settings.broker.executable)
    except BrokerMissingError:
        return Finding("broker plugin", "not looked for: it comes with the broker")
    except BrokerError as error:
        return _told("broker plugin", error)
    return Finding("broker plugin", str(plugin))


async def check_plugin_state(settings: Settings) -> Finding:
    """The plugin's file must be the broker's own: one it cannot read fails every login; no log says why."""
    file = Files(broker_directory(settings)).plugin_state
    if not file.exists():
        return Finding("plugin state", "none yet; the next start makes it")
    status = file.stat()
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.geteuid() or mode != private_files.FILE_MODE:
        return Finding(
            "plugin state",
            f"{file} belongs to user {status.st_uid} and has mode {mode:04o}",
            f"stop the service and delete {file}: the next start makes it",
        )
    return Finding("plugin state", "readable by this user alone")


async def check_broker_rules(settings: Settings) -> Finding:
    """A broker that runs must keep things apart: two canaries try whether it does."""
    port = running_device_port(broker_directory(settings))
    if port is None:
        return Finding("broker rules", "not tried: the service does not run; each start tries them")
    place = canaries.place(settings, authority_directory(settings) / ROOT_FILE, port)
    try:
        await try_out(place)
    except HolesError as error:
        return Finding(
            "broker rules", str(error), "stop the service at once, and report it: we wrote these rules"
        )
    except NotTriedError as error:
        return Finding("broker rules", str(error), "see the service's log; then ask again")
    return Finding("broker rules", f"tried out on port {port}: no thing reaches what is not its own")


async def _first_line(program: str) -> str:
    process = await asyncio.create_subprocess_exec(
        program,
        "-h",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return ""
    return output.decode(errors="replace").partition("\n")[0]


async def check_device_port(settings: Settings) -> Finding:
    """Devices connect here."""
    broker = settings.broker
    served_by = service_of(settings)
    if served_by is not None and running_device_port(broker_directory(settings)) == broker.device_port:
        return _ours("device port", broker.listen, broker.device_port, served_by)
    return _port("device port", broker.listen, broker.device_port, "broker.device_port", "broker.listen")


async def check_api_port(settings: Settings) -> Finding:
    """Apps and people connect here."""
    api = settings.api
    free = _port("api port", api.host, api.port, "api.port", "api.host")
    served_by = None if free.good else service_of(settings)
    if served_by is None:
        return free
    if api.tls or not is_loopback(api.host):
        answers = await _shows_our_certificate(settings, api.host, api.port)
    else:
        answers = await asyncio.to_thread(_says_it_lives, api.host, api.port)
    return _ours("api port", api.host, api.port, served_by) if answers else free


async def check_join_port(settings: Settings) -> Finding:
    """Devices join here."""
    api = settings.api
    free = _port("join port", api.device_host, api.device_port, "api.device_port", "api.device_host")
    served_by = None if free.good else service_of(settings)
    if served_by is None or not await _shows_our_certificate(settings, api.device_host, api.device_port):
        return free
    return _ours("join port", api.device_host, api.device_port, served_by)


def service_of(settings: Settings) -> str | None:
    """Return which process serves from this directory, None when none does.

    It holds the store, as other commands do for a while; and it has a broker, which none of them has.
    """
    if running_device_port(broker_directory(settings)) is None:
        return None
    file = store_file(settings)
    return "the service" if file is None else holder(file)


def _ours(subject: str, host: str, port: int, served_by: str) -> Finding:
    return Finding(subject, f"{host}:{port} answers, running as {served_by}")


def _says_it_lives(host: str, port: int) -> bool:
    """Ask for a sign of life as anybody may."""
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_S_MAX)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


async def _shows_our_certificate(settings: Settings, host: str, port: int) -> bool:
    """See whether whoever listens there has a certificate of this installation's root."""
    place = canaries.address_of(host)
    try:
        trusted = ssl.create_default_context(cafile=authority_directory(settings) / ROOT_FILE)
        async with asyncio.timeout(ANSWER_S_MAX):
            _, writer = await asyncio.open_connection(
                place, port, ssl=trusted, server_hostname=settings.broker.hosts[0]
            )
    except (OSError, TimeoutError):  # an SSLError is one
        return False
    writer.close()
    return True


def _port(subject: str, host: str, port: int, key: str, host_key: str) -> Finding:
    if port == 0:
        return Finding(subject, "any free port")
    where = f"{host}:{port}"
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        found = f"{where} cannot be used ({error.strerror})"
        return Finding(subject, found, _port_remedy(error, port, key, host_key))
    return Finding(subject, f"{where} is free")


def _port_remedy(error: OSError, port: int, key: str, host_key: str) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            # Only devices come to the port that the system's own broker has, too.
            other = ", or the system's own mosquitto: systemctl disable --now mosquitto"
            return (
                f"stop what listens there (ss -ltnp 'sport = :{port}'; perhaps another gnomon"
                f"{other if key == 'broker.device_port' else ''}), or --set {key}=0 for any free one"
            )
        case errno.EACCES:
            return f"ports below 1024 are for root: --set {key}= to a higher one"
        case _:
            return f"set {host_key} to an address of this machine (ip address shows them)"


async def check_certificates(settings: Settings, clock: Clock = _CLOCK) -> Finding:
    """The authorities must be readable by us alone, and last; so must the revocation list."""
    directory, box_file = authority_directory(settings), master_key_file(settings)
    if not Authority.is_begun(directory):
        return Finding("certificates", "none yet; the first run makes them")
    if not box_file.exists():
        return Finding("certificates", f"{box_file} is missing, which opens their keys", "put back a copy")
    try:
        authority = look_at_authority(settings, SecretBox.open(box_file, RandomIds()), clock)
        alarms = authority.alarms()
    except (AuthorityError, DamagedFileError, ExposedFileError) as error:
        return _told("certificates", error)
    if alarms:
        found = "; ".join(f"{alarm.subject} {alarm.found}" for alarm in alarms)
        return Finding("certificates", found, "; ".join(alarm.remedy for alarm in alarms))
    left = authority.expires - datetime.fromtimestamp(clock.now_ms() / 1_000, UTC)
    found = f"issuing authority valid for {left.days} more days"
    if authority.root_in_reach:
        found += "; the root's key lies here too: gnomon ca move-root takes it away"
    return Finding("certificates", found)


async def check_store(settings: Settings) -> Finding:
    """The store must open with full durability."""
    file = store_file(settings)
    if file is not None and not file.exists():
        return Finding("store", f"none yet at {file}")
    if file is not None and is_exposed(file):
        return Finding("store", f"others than its owner may read {file}", f"chmod go= {file}")
    served_by = service_of(settings)
    if file is not None and served_by is not None:
        return Finding("store", f"{file}, running as {served_by}")
    try:
        store = await open_store(store_url(settings), [], [])
    except StoreError as error:
        return _told("store", error)
    description = store.description
    await store.close()
    return Finding("store", description)


def _told(subject: str, error: Exception) -> Finding:
    """Return what an error says: first what is wrong, then what to do."""
    found, _, remedy = str(error).partition(": ")
    return Finding(subject, found, remedy or "mend that, and ask again")
