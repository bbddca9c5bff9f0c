"""`gnomon up` as a child of a test: started in a directory of its own, stopped or killed by its id.

What a test may rely on is what a stranger may: the command line, the printed lines, REST and MQTT. The
certificates of things are made by the authority that the child made on its first run.
"""

import itertools
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from registry.rules import THINGS_PER_PREMISES_MAX
from security.policy import Role
from tests.backends.spawning import free_port
from tests.certificates import certificate_files, open_authority
from tests.system.accounts import CUSTOMER, Accounts

ROOT = Path(__file__).resolve().parents[2]
READY_S_MAX = 20.0
STOP_S_MAX = 10.0
BROKER_ENDS_S_MAX = 3.0
POLL_S = 0.02
SLOW_VARIABLES = frozenset({"PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"})
"""Without compiled files a start takes twice as long, and a kill test starts often."""
STAND_IN = {"Authorization": "AWS4-HMAC-SHA256 Credential=tests, SignedHeaders=host, Signature=00"}
"""Speaks for any thing on the AWS-shaped routes, where ``api.compat_http`` is on."""

_numbers = itertools.count(1)


class NotReadyError(Exception):
    """The child ended or did not become ready; the message ends with its log."""


class Gnomon:
    """The whole service in one directory. It keeps its ports over restarts, as a deployment does."""

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, object] | None = None,
        faults: Sequence[str] = (),
        holes: Sequence[str] = (),
        command: Sequence[str] = ("up",),
    ) -> None:
        self.command = command
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.settings: dict[str, object] = {
            "directory": directory / "var",
            "api.port": free_port(),
            "api.device_port": free_port(),
            "broker.device_port": free_port(),
            "broker.service_port": free_port(),
            "people.demo": "true",
            **(settings or {}),
        }
        self.faults = (*(f"--fault={name}" for name in faults), *(f"--hole={name}" for name in holes))
        self.process: subprocess.Popen[bytes] | None = None
        self.log = directory / "log"
        self._has_prefix = False
        self._authority: Any = None
        self._http: httpx.Client | None = None
        self._handed_over: set[str] = set()
        self._homes, self._at_home = 1, 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------ life

    def start(self, prefix: Sequence[str] = ()) -> float:
        """Start it; return how many seconds it took until it said that it is ready."""
        began = time.monotonic()
        self.launch(prefix)
        self._read_welcome(began + READY_S_MAX)
        return time.monotonic() - began

    def launch(self, prefix: Sequence[str] = ()) -> None:
        """Start it and do not wait; ``prefix`` is a command that runs it, as strace does."""
        assert self.process is None or self.process.poll() is not None, "it runs already"
        self._close_output()
        self._has_prefix = bool(prefix)
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("GNOMON_") and name not in SLOW_VARIABLES
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "tests.system.up", *self.faults, *self._arguments()],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment | {"PYTHONPATH": str(ROOT)},
                start_new_session=True,
            )

    def start_if_it_lives(self) -> bool:
        """Start it; tell whether it became ready, or died of what it met on the way."""
        try:
            self.start()
        except NotReadyError:
            return False
        return True

    def wait_dead(self, timeout_s: float = READY_S_MAX) -> int:
        """Return its exit code once it has ended by itself."""
        return self._running().wait(timeout_s)

    def stop(self) -> float:
        """Ask it to end, as Ctrl-C does; return how many seconds that took."""
        process = self._running()
        began = time.monotonic()
        os.kill(self.pid, signal.SIGINT)
        process.wait(STOP_S_MAX)
        return time.monotonic() - began

    def kill(self) -> None:
        """End it as a power cut would, and its broker with it."""
        process, broker = self._running(), self.broker_pid
        process.kill()
        process.wait(STOP_S_MAX)
        if broker is not None:
            end_process(broker, self.broker_configuration)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it hang while its broker goes on."""
        pid = self.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def kill_broker(self) -> int:
        """Kill the broker only; return the id it had once it is gone."""
        pid = self.broker_pid
        assert pid is not None, "no broker runs"
        end_process(pid, self.broker_configuration)
        return pid

    def close(self) -> None:
        """Leave nothing behind, whatever happened."""
        if self._http is not None:
            self._http.close()
            self._http = None
        self.accounts.close()
        process = self.process
        if process is None:
            return
        broker = self.broker_pid
        if process.poll() is None:
            service = self.pid
            os.kill(service, signal.SIGCONT)
            os.kill(service, signal.SIGTERM)
            try:
                process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                os.kill(service, signal.SIGKILL)
                process.wait(STOP_S_MAX)
        if broker is not None:
            self._await_broker(broker)
        self._close_output()

    @property
    def pid(self) -> int:
        """The process id of the service itself, also where another command runs it."""
        pid = self._running().pid
        if not self._has_prefix:
            return pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    @property
    def broker_pid(self) -> int | None:
        """The process id of its Mosquitto, None while there is none."""
        try:
            pid = int((self.var / "broker" / "mosquitto.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if runs(pid, self.broker_configuration) else None

    def has_broker(self, *, other_than: int | None = None) -> bool:
        return self.broker_pid not in {None, other_than}

    # ------------------------------------------------------------------ where and who

    @property
    def var(self) -> Path:
        return Path(str(self.settings["directory"]))

    @property
    def broker_configuration(self) -> Path:
        return self.var.absolute() / "broker" / "mosquitto.conf"

    @property
    def device_port(self) -> int:
        return int(str(self.settings["broker.device_port"]))

    @property
    def api_port(self) -> int:
        return int(str(self.settings["api.port"]))

    @property
    def join_url(self) -> str:
        """Where devices join."""
        return f"https://localhost:{self.settings['api.device_port']}"

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @cached_property
    def accounts(self) -> Accounts:
        """Who can log in."""
        return Accounts(self.var)

    @property
    def auth(self) -> httpx.Auth:
        """What sends each request as somebody whose business it is."""
        return self.accounts.whoever()

    @property
    def http(self) -> httpx.Client:
        """REST, each request as somebody whose business it is."""
        if self._http is None:
            self._http = httpx.Client(base_url=self.api_url, auth=self.auth, timeout=10)
        return self._http

    @property
    def root_certificate(self) -> Path:
        return self.var / "ca" / "root.crt"

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    # ------------------------------------------------------------------ things

    def register(
        self,
        *names: str,
        kind: str = "device",
        premises: str | None = None,
        has_certificate: bool = True,
        certify: bool = True,
    ) -> None:
        """Register things over REST; with ``certify`` make a certificate for each that is to have one.

        Without ``premises`` they live together, as far as one home holds them; see :meth:`move`.
        """
        for name in names:
            home = premises or self._home()
            self.hand_over(home)
            thing = {
                "name": name,
                "kind": kind,
                "model": "test",
                "premises": home,
                "has_certificate": has_certificate,
            }
            answer = self.http.post("/v1/things", json=thing)
            assert answer.status_code == 201, answer.text
            if has_certificate and certify:
                self.certificate(name)

    def move(self) -> None:
        """From now on things live in a home of their own, where nobody says which."""
        self._homes, self._at_home = self._homes + 1, 0

    def _home(self) -> str:
        if self._at_home == THINGS_PER_PREMISES_MAX:
            self.move()
        self._at_home += 1
        return f"home-{self._homes}"

    def hand_over(self, premises: str) -> None:
        """See that premises are the customer's, who then finds there what comes from now on."""
        if premises in self._handed_over:
            return
        path = f"/v1/premises/{premises}"
        known = self.http.get(path)
        if known.status_code != 200 or known.json()["account"] != CUSTOMER:
            answer = self.http.put(path, json={"account": CUSTOMER})
            assert answer.is_success, answer.text
        self._handed_over.add(premises)
        # Now, because the next thing a test does may be to break something.
        self.accounts.token(Role.CUSTOMER)

    def new(self, kind: str = "device", **members: Any) -> str:
        """Register a thing that nobody else uses; return its name."""
        name = f"{kind}-{next(_numbers)}"
        self.register(name, kind=kind, **members)
        return name

    def attach(self, gateway: str, *things: str) -> None:
        for thing in things:
            answer = self.http.put(f"/v1/gateways/{gateway}/things/{thing}")
            assert answer.status_code == 200, answer.text

    def detach(self, gateway: str, thing: str) -> None:
        answer = self.http.delete(f"/v1/gateways/{gateway}/things/{thing}")
        assert answer.status_code == 204, answer.text

    def certificate(self, name: str) -> tuple[Path, Path]:
        """Return the files with a thing's certificate and key; make them at first."""
        folder = self.directory / "things"
        if self._authority is None:
            self._authority = open_authority(self.var)
            folder.mkdir(exist_ok=True)
            (folder / "ca.crt").write_bytes(self._authority.root_pem)
        return certificate_files(self._authority, folder, name)

    # ------------------------------------------------------------------ shadows over REST

    def desire(self, thing: str, state: Mapping[str, Any], shadow: str = "@classic") -> int:
        """Write ``desired`` as an application would; return the version this made.

        People write the classic shadow. Any other is a thing's own: that needs ``api.compat_http``.
        """
        if shadow != "@classic":
            answer = httpx.post(
                f"{self.api_url}/things/{thing}/shadow",
                params={"name": shadow},
                json={"state": {"desired": state}},
                headers=STAND_IN,
            )
            assert answer.status_code == 200, answer.text
            return int(answer.json()["version"])
        answer = self.http.patch(
            f"/v1/things/{thing}/shadows/{shadow}",
            json={"desired": state},
            headers={"Content-Type": "application/merge-patch+json"},
        )
        assert answer.status_code == 200, answer.text
        return int(answer.headers["ETag"].strip('"'))

    def shadow(self, thing: str, shadow: str = "@classic") -> Any:
        """Return a shadow as REST shows it."""
        answer = self.http.get(f"/v1/things/{thing}/shadows/{shadow}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def metric(self, sample: str) -> float:
        """Return one sample of the metrics page, 0 when it is not there."""
        for line in self.http.get("/v1/metrics").text.splitlines():
            if line.startswith(sample + " "):
                return float(line.rpartition(" ")[2])
        return 0.0

    # ------------------------------------------------------------------ details

    def _arguments(self) -> list[str]:
        pairs = [part for key, value in self.settings.items() for part in ("--set", f"{key}={value}")]
        return [*self.command, *pairs]

    def _running(self) -> "subprocess.Popen[bytes]":
        assert self.process is not None, "start() comes first"
        return self.process

    def _await_broker(self, pid: int) -> None:
        """See the broker end: the kernel asks it to when its parent dies; what does not heed is killed."""
        deadline = time.monotonic() + BROKER_ENDS_S_MAX
        while runs(pid, self.broker_configuration) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        end_process(pid, self.broker_configuration)

    def _close_output(self) -> None:
        if self.process is not None and self.process.stdout is not None:
            self.process.stdout.close()

    def _read_welcome(self, deadline: float) -> None:
        process = self._running()
        assert process.stdout is not None
        said = b""
        while b"\naccounts" not in said or not said.endswith(b"\n"):
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(process.stdout.fileno(), 65_536) if ready else b""
            if not chunk:
                self.close()
                raise NotReadyError(f"gnomon up did not become ready; its log:\n{self.log_text()[-4_000:]}")
            said += chunk


def runs(pid: int, configuration: Path) -> bool:
    """Tell whether a process is the broker with this configuration: an id may belong to anybody."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(configuration) in arguments


def end_process(pid: int, configuration: Path) -> None:
    """Kill a broker that outlived its parent, if it is that broker."""
    deadline = time.monotonic() + STOP_S_MAX
    while runs(pid, configuration):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        assert time.monotonic() < deadline, f"process {pid} does not end"
        time.sleep(POLL_S)
