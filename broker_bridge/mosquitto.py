"""Mosquitto as a child process: started, proved to be ours, kept running, stopped.

What its configuration says is not known here. Production may name another broker; then this file is not
used, and the session is given that one's address.
"""

import asyncio
import fcntl
import os
import pwd
import random
import re
import resource
import shutil
import signal
import socket
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final

import mqtt5
import msgspec
import structlog

from broker_bridge.mosquitto_config import (
    BRIDGE_USER,
    JANITOR_USER,
    PROBE_USER,
    BrokerConfig,
    Files,
    configuration,
    device_acl,
    memory_bytes_max,
    password_file,
    plugin_state,
    service_acl,
)
from infra.ids import Ids
from security import private_files
from security.trust.certificates import Credentials

EXECUTABLE: Final = "mosquitto"
SYSTEM_PATH: Final = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"
"""Where packages put it; not everybody's PATH holds these."""
PLUGIN: Final = "mosquitto_dynamic_security.so"
PLUGIN_FOLDERS: Final = ("lib", "lib64", "lib/*", "lib/mosquitto/plugins")
"""Below the folder that holds ``bin`` or ``sbin``; Debian's has the machine's kind in its name."""
PREFIXES: Final = ("/usr", "/usr/local", "/opt/homebrew")
PASSWORD_BITS: Final = 128

LOOPBACK: Final = "127.0.0.1"
CONNACK_BYTES_MAX: Final = 1_024

READY_S_MAX: Final = 10.0
READY_POLL_S: Final = 0.002
STOP_S_MAX: Final = 5.0
"""For saving its sessions; then it is killed."""
PORT_TRIES_MAX: Final = 5
RESTART_S_MIN: Final = 0.1
RESTART_S_MAX: Final = 5.0
RESTART_DOUBLINGS_MAX: Final = 16
STABLE_S: Final = 30.0
LOG_BYTES_MAX: Final = 16_777_216
LOG_CHECK_S: Final = 60.0
LOG_TAIL_BYTES: Final = 2_000
LOG_READ_BYTES: Final = 1_048_576
"""Enough for some thousand things that came while nobody listened."""

_LOG_FILE: Final = "mosquitto.log"
_OLD_LOG_FILE: Final = "mosquitto.log.1"
_PID_FILE: Final = "mosquitto.pid"
_PORTS_FILE: Final = "ports.json"
_LOCK_FILE: Final = "lock"
_SESSIONS_FILE: Final = "mosquitto.db"
_LISTENS: Final = re.compile(r"listen socket on port (\d+)\.")
_SAVING: Final = "Saving in-memory database"
"""The last it says, after that it is terminating."""

_log = structlog.get_logger(__name__)


class BrokerError(Exception):
    """The broker cannot be started; the text says what to do."""


class BrokerMissingError(BrokerError):
    """There is no Mosquitto on this machine."""

    def __init__(self, executable: str) -> None:
        super().__init__(
            f"{executable} was not found: install it (on Debian `apt-get install mosquitto`, then"
            " `systemctl disable --now mosquitto`, as we start our own), or set broker.executable to its path"
        )


class PluginMissingError(BrokerError):
    """Mosquitto is there, its dynamic-security plugin is not: no session could be ended."""

    def __init__(self, plugin: str) -> None:
        super().__init__(
            f"{plugin} was not found: install Mosquitto as your system packages it (on Debian the plugin is"
            " part of `apt-get install mosquitto`), or set broker.plugin to its path"
        )


class DirectoryInUseError(BrokerError):
    """Another process of ours has a broker in this directory."""

    def __init__(self, directory: Path) -> None:
        super().__init__(
            f"another process uses {directory}: stop it, or give this one a `directory` of its own"
        )


class PortInUseError(BrokerError):
    """Somebody else listens there."""

    def __init__(self, port: str, setting: str) -> None:
        super().__init__(
            f"the broker cannot listen on {port}, which is in use: stop who uses it, or set {setting}"
            " (0 = any free one)"
        )


class BrokerStartError(BrokerError):
    """It ended, or did not answer."""

    def __init__(self, problem: str, log: str) -> None:
        super().__init__(f"the broker {problem}; its last words: {log.strip() or 'none'}")


def find_executable(name: str = EXECUTABLE) -> str:
    """Return the path of the broker's program."""
    found = shutil.which(name) or shutil.which(name, path=SYSTEM_PATH)
    if found is None:
        raise BrokerMissingError(name)
    return found


def find_plugin(plugin: str = "", executable: str = EXECUTABLE) -> Path:
    """Return the path of the dynamic-security plugin: the one that is named, or where packages put it."""
    if plugin:
        named = Path(plugin).absolute()
        if named.is_file():
            return named
        raise PluginMissingError(plugin)
    program = Path(find_executable(executable)).resolve()
    for prefix in (program.parent.parent, *map(Path, PREFIXES)):
        for folder in PLUGIN_FOLDERS:
            for found in sorted(prefix.glob(f"{folder}/{PLUGIN}")):
                return found
    raise PluginMissingError(PLUGIN)


def running_device_port(directory: Path) -> int | None:
    """Return where the broker of this directory takes devices, None when it does not run."""
    files = Files(directory.absolute())
    try:
        pid = int((files.directory / _PID_FILE).read_text())
        ports = msgspec.json.decode((files.directory / _PORTS_FILE).read_bytes(), type=_Ports)
    except (OSError, ValueError):  # a DecodeError is one
        return None
    return ports.device if _runs(pid, files.configuration) else None


class _Ports(msgspec.Struct, frozen=True):
    """The ports of the last start."""

    device: int = 0
    service: int = 0
    plain: int = 0


class Mosquitto:
    """One broker in one directory. Order: :meth:`start`, :meth:`run` as a task, :meth:`stop`."""

    def __init__(
        self,
        config: BrokerConfig,
        credentials: Credentials,
        *,
        ids: Ids,
        rng: random.Random,
        executable: str = EXECUTABLE,
    ) -> None:
        config = replace(
            config,
            directory=config.directory.absolute(),
            authority_file=config.authority_file.absolute(),
            revocation_file=config.revocation_file and config.revocation_file.absolute(),
        )
        self._wanted = config
        self._config = config
        self._credentials = credentials
        self._executable = executable
        self._rng = rng
        self._files = Files(config.directory)
        self._salt = ids.token()
        self._passwords = {user: ids.token(PASSWORD_BITS) for user in (BRIDGE_USER, JANITOR_USER, PROBE_USER)}
        self._process: asyncio.subprocess.Process | None = None
        self._lock: BinaryIO | None = None
        self._outdated = False
        self._log_start = 0

    # ------------------------------------------------------------------ where and who

    @property
    def device_port(self) -> int:
        """Where devices connect; chosen by :meth:`start` when 0 was wanted."""
        return self._config.device_port

    @property
    def service_port(self) -> int:
        """Where our own processes connect, on loopback."""
        return self._config.service_port

    @property
    def plain_port(self) -> int | None:
        """Where tests connect without TLS."""
        return self._config.plain_port

    @property
    def username(self) -> str:
        """The bridge's user on the service listener, which is its client id too."""
        return BRIDGE_USER

    @property
    def password(self) -> str:
        """The bridge's password: made anew with this object, kept over restarts of the child."""
        return self._passwords[BRIDGE_USER]

    @property
    def janitor_password(self) -> str:
        """The same of who may end sessions."""
        return self._passwords[JANITOR_USER]

    @property
    def probe_password(self) -> str:
        """The same of who speaks to the canaries."""
        return self._passwords[PROBE_USER]

    @property
    def pid(self) -> int | None:
        """The child's process id, None when there is none."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    @property
    def outdated(self) -> bool:
        """Whether what it remembers was saved long before it ended: until the next :meth:`save`.

        A broker that was killed comes back with the sessions of its last save, and with messages in them that
        were answered since. Who has a session there had better not resume it.
        """
        return self._outdated

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Start the broker; return when it serves.

        Raises:
            BrokerError: it cannot be started.
        """
        program = find_executable(self._executable)
        private_files.make_directory(self._files.directory)
        self._lock = _lock(self._files.directory)
        try:
            await self._end_leftover()
            await self._start_on_free_ports(program)
        except BaseException:
            await self.stop()
            raise

    async def run(self) -> None:
        """Keep the broker running: start it again when it ends. Until cancelled."""
        program = find_executable(self._executable)
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began_s = loop.time()
            code = await self._ended()
            failures = 0 if loop.time() - began_s >= STABLE_S else failures + 1
            ceiling_s = RESTART_S_MIN * 2 ** min(failures, RESTART_DOUBLINGS_MAX)
            delay_s = self._rng.uniform(0, min(RESTART_S_MAX, ceiling_s))
            _log.error("broker_ended", code=code, restart_in_s=round(delay_s, 3))
            await asyncio.sleep(delay_s)
            self._outdated = True
            try:
                # On the same ports: devices and the bridge come back to them.
                await self._launch(program)
            except (BrokerError, OSError) as error:  # a full disk too is to be waited for
                _log.error("broker_restart_failed", reason=str(error))

    async def stop(self) -> None:
        """Have the broker save its sessions and end; kill it when that takes too long."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            await _terminate(process)
        self._pid_file.unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def save(self) -> None:
        """Have the broker write its sessions to disk now; they are gone at a crash otherwise."""
        self._outdated = False
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGUSR1)

    def renew(self, credentials: Credentials) -> None:
        """Show new connections another server certificate; those that are there are not disturbed."""
        self._credentials = credentials
        self._write_files()
        self.reload()

    def reload(self) -> None:
        """Have the broker read its certificates and its revocation list again; no session is disturbed.

        It does so a little later: see :meth:`Janitor.barrier`. A broker that is not there reads them when it
        starts.
        """
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGHUP)

    def logged(self) -> list[str]:
        """Return the newest lines the broker has logged since it started, whoever listened to its topics."""
        # The first may be cut where it looks like somebody else's. Filters may hold what Python calls the end
        # of a line, but no line feed.
        return self._tail(self._log_start, LOG_READ_BYTES).split("\n")[1:]

    # ------------------------------------------------------------------ start

    async def _start_on_free_ports(self, program: str) -> None:
        for last_try in (False,) * (PORT_TRIES_MAX - 1) + (True,):
            self._config = self._with_ports()
            try:
                await self._launch(program)
            except PortInUseError:
                # Between choosing a free port and listening on it somebody else may take it.
                if last_try or self._config == self._wanted:
                    raise
            else:
                self._remember_ports()
                return

    async def _launch(self, program: str) -> None:
        """Start the child and see that it answers; no child is left behind when it does not."""
        self._write_files()
        # Only here: while the broker runs the file is the plugin's own.
        private_files.replace(self._files.plugin_state, plugin_state())
        log_start = self._log_start = self._log_path.stat().st_size if self._log_path.exists() else 0
        with self._log_path.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *_bound_to_us(),
                program,
                "-c",
                str(self._files.configuration),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # an interrupt at the terminal is for us to pass on, in our order
            )
        try:
            _bound_memory(self._process.pid, memory_bytes_max(self._config))
            self._pid_file.write_text(str(self._process.pid))
            async with asyncio.timeout(READY_S_MAX):
                await self._until_listening(self._process, log_start)
                await self._until_answering(log_start)
        except TimeoutError:
            await _terminate(self._process)
            raise BrokerStartError(f"did not answer in {READY_S_MAX:g} s", self._tail(log_start)) from None
        except BaseException:
            await _terminate(self._process)
            raise
        _log.info("broker_started", pid=self._process.pid, device_port=self.device_port)

    async def _until_listening(self, process: asyncio.subprocess.Process, log_start: int) -> None:
        """Return once the child's own log says that it listens on our ports."""
        ports = [self.device_port, self.service_port, *([self.plain_port] if self.plain_port else [])]
        while True:
            said = self._tail(log_start)
            if process.returncode is not None:
                if "Address already in use" in said:
                    # It names each port before it tries, so the last one is the one that is taken.
                    taken = _LISTENS.findall(said)[-1]
                    setting = "device" if taken == str(self.device_port) else "service"
                    raise PortInUseError(taken, f"broker.{setting}_port")
                raise BrokerStartError(f"ended at once (code {process.returncode})", said)
            if " running" in said and {str(port) for port in ports} <= set(_LISTENS.findall(said)):
                return
            await asyncio.sleep(READY_POLL_S)

    async def _until_answering(self, log_start: int) -> None:
        """Log in: only the child that we started knows a password made for it."""
        if not await _logs_in(self.service_port, PROBE_USER, self._passwords[PROBE_USER]):
            raise BrokerStartError("does not know the password we gave it", self._tail(log_start))

    async def _ended(self) -> int:
        """Return the exit code of the child once it ended; keep its log short meanwhile."""
        assert self._process is not None, "start() comes first"
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOG_CHECK_S):
                    return await self._process.wait()
            try:
                self._trim_log()
            except OSError as error:
                _log.warning("broker_log_not_trimmed", reason=error.strerror)

    async def _end_leftover(self) -> None:
        """End the broker of a process of ours that was killed: it holds our ports and our files."""
        pid = self._leftover_pid()
        if pid is None:
            self._outdated = self._pid_file.exists() and not self._saved_at_its_end()
            return
        _log.warning("broker_left_over", pid=pid)
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._outdated = number is signal.SIGKILL  # only at the other does it save
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_S_MAX):
                    await _until_gone(pid, self._files.configuration)
                return
        raise BrokerStartError(f"of an earlier run (process {pid}) does not end", "")

    def _saved_at_its_end(self) -> bool:
        """Tell by its log whether the broker that ran here last saved its sessions before it ended.

        It does when it is asked to end, as the kernel asks it to when we are killed.
        """
        try:
            terminating, saving = self._tail(0).splitlines()[-2:]
            at_s = int(saving.partition(":")[0])
            saved_s = (self._files.directory / _SESSIONS_FILE).stat().st_mtime
        except (OSError, ValueError):
            return False
        return terminating.endswith(" terminating") and _SAVING in saving and saved_s >= at_s

    # ------------------------------------------------------------------ files

    @property
    def _log_path(self) -> Path:
        return self._files.directory / _LOG_FILE

    @property
    def _pid_file(self) -> Path:
        return self._files.directory / _PID_FILE

    @property
    def _ports_file(self) -> Path:
        return self._files.directory / _PORTS_FILE

    def _write_files(self) -> None:
        files, save = self._files, private_files.replace
        save(files.configuration, configuration(self._config, pwd.getpwuid(os.geteuid()).pw_name).encode())
        save(files.device_acl, device_acl().encode())
        save(files.service_acl, service_acl().encode())
        save(files.service_passwords, password_file(self._passwords, self._salt).encode())
        save(files.server_certificate, self._credentials.certificate_pem)
        save(files.server_key, self._credentials.private_key_pem)

    def _with_ports(self) -> BrokerConfig:
        """Choose a port for each that was wanted as 0: if possible that of the last start.

        Mosquitto ties a saved session to the port of its listener. On another port the sessions of those
        who are away are not given what is published until they are back. [measured]
        """
        wanted, last = self._wanted, self._last_ports()
        plain = wanted.plain_port
        return replace(
            wanted,
            device_port=wanted.device_port or _free_port(wanted.listen, last.device),
            service_port=wanted.service_port or _free_port(LOOPBACK, last.service),
            plain_port=plain if plain is None else plain or _free_port(LOOPBACK, last.plain),
        )

    def _last_ports(self) -> _Ports:
        try:
            return msgspec.json.decode(self._ports_file.read_bytes(), type=_Ports)
        except (FileNotFoundError, msgspec.DecodeError):
            return _Ports()  # a convenience: without it any free port will do

    def _remember_ports(self) -> None:
        ports = _Ports(self.device_port, self.service_port, self.plain_port or 0)
        private_files.replace(self._ports_file, msgspec.json.encode(ports))

    def _leftover_pid(self) -> int | None:
        try:
            pid = int(self._pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if _runs(pid, self._files.configuration) else None

    def _tail(self, start: int, bytes_max: int = LOG_TAIL_BYTES) -> str:
        """Return the newest of what the child wrote since ``start``."""
        with self._log_path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start if start <= size else 0, size - bytes_max))
            return file.read(bytes_max).decode(errors="replace")

    def _trim_log(self) -> None:
        """Keep one old log beside the present one, each of bounded size."""
        if self._log_path.stat().st_size > LOG_BYTES_MAX:
            shutil.copyfile(self._log_path, self._files.directory / _OLD_LOG_FILE)
            os.truncate(self._log_path, 0)  # the child appends, so it goes on at the new end


# ---------------------------------------------------------------------- the machine


def _bound_to_us() -> tuple[str, ...]:
    """Return the command that has the kernel end the child when we are killed (Linux; elsewhere nothing).

    A broker without us would go on to take messages that nobody answers. The next start ends one all the
    same: the signal may be lost.
    """
    setpriv = shutil.which("setpriv")
    return () if setpriv is None else (setpriv, "--pdeathsig", "TERM")


def _bound_memory(pid: int, bytes_max: int) -> None:
    """Have the kernel refuse a child more memory than this (Linux; elsewhere nothing)."""
    if hasattr(resource, "prlimit"):
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_DATA, (bytes_max, bytes_max))


async def _terminate(process: asyncio.subprocess.Process) -> None:
    """End a child of ours: it may save what it has; then it is killed."""
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_S_MAX):
            await process.wait()
    except TimeoutError:
        _log.warning("broker_killed", pid=process.pid, after_s=STOP_S_MAX)
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _logs_in(port: int, user: str, password: str) -> bool:
    """Tell whether the broker on a loopback port knows this user."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        connect = mqtt5.ConnectPacket(user, username=user, password=password.encode(), clean_start=True)
        writer.write(connect.write())
        reply, _ = mqtt5.read(memoryview(await reader.read(CONNACK_BYTES_MAX)))
        writer.write(mqtt5.DisconnectPacket().write())
        await writer.drain()
    except (IndexError, ValueError, ConnectionError):
        return False
    finally:
        writer.close()
    return isinstance(reply, mqtt5.ConnAckPacket) and reply.reason_code is mqtt5.ConnAckReasonCode.SUCCESS


def _free_port(host: str, preferred: int) -> int:
    """Return ``preferred`` if it is free on ``host``, else any free port."""
    for port in (preferred, 0) if preferred else (0,):
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    raise BrokerStartError(f"has no free port on {host}", "")


def _lock(directory: Path) -> BinaryIO:
    """Take the directory for this process; the lock goes with the process, however that ends."""
    file = (directory / _LOCK_FILE).open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise DirectoryInUseError(directory) from None
    return file


async def _until_gone(pid: int, configuration: Path) -> None:
    while True:
        if not _runs(pid, configuration):
            return
        await asyncio.sleep(READY_POLL_S)


def _runs(pid: int, configuration: Path) -> bool:
    """Tell whether the process is a broker with this configuration: a process id may belong to anybody."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(configuration) in arguments
