"""``gnomon doctor``: what is wrong with this machine or these settings, and the remedy.

Each check returns a finding and changes nothing. A finding that is not good says what to do, in words
that can be typed.
"""

import asyncio
import os
import resource
import shutil
import socket
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from gnomon.services import authority_directory, store_url
from infra.clock import SystemClock
from infra.documents.opening import open_store
from infra.documents.port import StoreError
from infra.settings import Settings
from security.authority import Authority, AuthorityError

BROKER_VERSION_MIN: Final = (2, 0)
DISK_FREE_BYTES_MIN: Final = 1_000_000_000
FSYNC_MS_MAX: Final = 50.0
FSYNCS: Final = 20
EXPIRY_WARNING: Final = timedelta(days=30)
DESCRIPTORS_SPARE: Final = 256
YEAR_MIN: Final = 2025


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
        check_device_port,
        check_api_port,
        check_certificates,
        check_store,
    )
    return [await check(settings) for check in checks]


async def check_directory(settings: Settings) -> Finding:
    """The folder for everything we write must be ours to write."""
    directory = settings.directory
    existing = next(one for one in (directory, *directory.resolve().parents) if one.exists())
    if os.access(existing, os.W_OK | os.X_OK):
        return Finding("directory", f"{directory} can be written")
    return Finding(
        "directory",
        f"{existing} cannot be written by this user",
        "give this user the folder (chown), or name another with --set directory=PATH",
    )


async def check_disk(settings: Settings) -> Finding:
    """Enough room, and an fsync that does not take for ever: each commit waits for one."""
    place = next(one for one in (settings.directory, *settings.directory.resolve().parents) if one.exists())
    free = shutil.disk_usage(place).free
    if free < DISK_FREE_BYTES_MIN:
        return Finding(
            "disk", f"{free / 1e6:.0f} MB free at {place}", "make room: at least 1 GB; history grows with use"
        )
    slowest_ms = await asyncio.to_thread(_fsync_ms, place)
    found = f"{free / 1e9:.0f} GB free, median fsync {slowest_ms:.1f} ms"
    if slowest_ms > FSYNC_MS_MAX:
        return Finding("disk", found, "use a faster disk: every acknowledged update waits for an fsync")
    return Finding("disk", found)


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


async def check_clock(_: Settings) -> Finding:
    """Certificates, time stamps and expiry need a clock that is roughly right."""
    now = datetime.fromtimestamp(SystemClock().now_ms() / 1_000, UTC)
    found = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    if now.year < YEAR_MIN:
        return Finding("clock", found, "set it: timedatectl set-ntp true")
    return Finding("clock", found)


async def check_descriptors(settings: Settings) -> Finding:
    """The broker needs a file descriptor for each connection."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.broker.connections_max + DESCRIPTORS_SPARE
    found = f"{hard} allowed, {wanted} wanted for broker.connections_max"
    if hard < wanted:
        return Finding(
            "descriptors",
            found,
            f"raise the hard limit (ulimit -Hn {wanted}), or lower broker.connections_max",
        )
    return Finding("descriptors", found)


async def check_broker(settings: Settings) -> Finding:
    """Mosquitto must be there, and new enough."""
    executable = shutil.which(settings.broker.executable) or shutil.which(
        settings.broker.executable, path="/usr/sbin:/usr/local/sbin"
    )
    if executable is None:
        return Finding(
            "broker",
            f"{settings.broker.executable} is not installed",
            "apt-get install mosquitto, or set broker.executable to its path",
        )
    process = await asyncio.create_subprocess_exec(
        executable, "-h", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    text = output.decode(errors="replace").split("\n", 1)[0]
    version = tuple(int(part) for part in text.rsplit(" ", 1)[-1].split(".")[:2] if part.isdigit())
    if version < BROKER_VERSION_MIN:
        return Finding("broker", text or executable, "install mosquitto 2.0 or newer")
    return Finding("broker", text)


async def check_device_port(settings: Settings) -> Finding:
    """Devices connect here."""
    return _port("device port", settings.broker.listen, settings.broker.device_port, "broker.device_port")


async def check_api_port(settings: Settings) -> Finding:
    """Apps and people connect here."""
    return _port("api port", settings.api.host, settings.api.port, "api.port")


def _port(subject: str, host: str, port: int, key: str) -> Finding:
    if port == 0:
        return Finding(subject, "any free port")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return Finding(
                subject,
                f"{host}:{port} cannot be used ({error.strerror})",
                f"stop what listens there (ss -ltnp 'sport = :{port}'; perhaps a running gnomon), "
                f"or --set {key}=0",
            )
    return Finding(subject, f"{host}:{port} is free")


async def check_certificates(settings: Settings) -> Finding:
    """The root of all certificates must be readable by us alone, and last."""
    directory = authority_directory(settings)
    if not directory.exists():
        return Finding("certificates", "none yet; the first run makes them")
    try:
        authority = Authority.open(directory, SystemClock())
    except AuthorityError as error:
        return Finding("certificates", str(error), "see the message; nothing was changed")
    left = authority.expires - datetime.fromtimestamp(SystemClock().now_ms() / 1_000, UTC)
    found = f"root valid for {left.days} more days"
    if left < EXPIRY_WARNING:
        return Finding("certificates", found, "plan a new root: every thing will need a new certificate")
    return Finding("certificates", found)


async def check_store(settings: Settings) -> Finding:
    """The store must open with full durability."""
    url = store_url(settings)
    if url.startswith("sqlite:") and not _exists(url.removeprefix("sqlite:")):
        return Finding("store", f"none yet at {url}")
    try:
        store = await open_store(url, [], [])
    except StoreError as error:
        return Finding("store", str(error), "stop the process that holds it, or see the message")
    description = store.description
    await store.close()
    return Finding("store", description)


def _exists(path: str) -> bool:
    return Path(path).exists()
