"""Servers as children of the test run: started on a free port, proven to be ours, stopped by their id.

An open port proves nothing: a run that found somebody else's server on its port once measured and
disturbed the wrong one. So a child counts as ready when it is alive, its own log names the port and it
answers its protocol.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SPAWN_TRIES_MAX = 3
READY_S_MAX = 20.0
STOP_S_MAX = 5.0
POLL_S = 0.02


class NotStartedError(Exception):
    """A server did not come up; the message ends with its log."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running child."""

    process: "subprocess.Popen[bytes]"
    port: int
    log: Path

    def stop(self) -> None:
        """Ask it to end, then make it end."""
        self._signal(signal.SIGCONT)  # it may have been frozen
        self._signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self.process.wait(STOP_S_MAX)

    def freeze(self) -> None:
        """Let it hang with its connections open: the nasty way to fail."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)


def free_port() -> int:
    """Return a port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def spawn(
    command: Callable[[int], Sequence[str | Path]],
    directory: Path,
    *,
    says: Callable[[int], str],
    answers: Callable[[int], bool],
    env: Mapping[str, str] | None = None,
) -> Server:
    """Start ``command(port)`` in ``directory`` and return it once it is ready.

    ``says(port)`` is what its log must hold; ``answers(port)`` asks it something in its own protocol.
    Standard output and error go to ``<directory>/log``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    reason = ""
    for _ in range(SPAWN_TRIES_MAX):  # somebody may take the port between our look and its bind
        port = free_port()
        log = directory / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [os.fspath(part) for part in command(port)],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        server = Server(process, port, log)
        if _ready(server, says(port), answers):
            return server
        server.stop()
        reason = log.read_text(errors="replace")[-2_000:]
    raise NotStartedError(f"{command(0)[0]} did not come up in {SPAWN_TRIES_MAX} tries:\n{reason}")


def _ready(server: Server, line: str, answers: Callable[[int], bool]) -> bool:
    end = time.monotonic() + READY_S_MAX
    while time.monotonic() < end and server.process.poll() is None:
        if line in server.log.read_text(errors="replace") and answers(server.port):
            return server.process.poll() is None
        time.sleep(POLL_S)
    return False
