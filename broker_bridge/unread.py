"""Finds things that do not read what they are sent, before the broker drowns in it.

Mosquitto keeps what a connected client has not read, with QoS 0 and without bound [measured: 740 MB in 8 s],
so one thing that asks and never reads could take the memory of all. The kernel knows: a connection whose
other end has no room is *probed* now and then. One that is found so at each of several looks is that of a
thing that reads nothing, or next to nothing; a slow link looks different. (spec: ota, 5; security, 5)
"""

import asyncio
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, Protocol

import structlog

from broker_bridge.presence import Presence, Sign
from broker_bridge.watch import Cause, Rate, Sentence, Verdict
from infra.clock import Clock

LOOK_S: Final = 5.0
LOOKS_MAX: Final = 4
"""A thing may be busy for so many looks, less one: writing to flash, for instance."""
KICKS_MAX: Final = 3
"""Within the window of the watch; then it is put into quarantine."""
SOCKETS: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
"""Linux only; elsewhere nobody is found."""

_PROBED: Final = " 04:"
_ESTABLISHED: Final = "01"
_LOCAL, _REMOTE, _STATE, _TIMER = 1, 2, 3, 5
_WORD_DIGITS: Final = 8

_log = structlog.get_logger(__name__)


class Judge(Protocol):
    """Who hears the broker's log as well, and acts on verdicts."""

    def read(self, presence: Presence) -> None: ...
    def begin(self, presences: list[Presence]) -> None: ...
    def judge(self, verdict: Verdict) -> None: ...


class Unread:
    """Hears the broker's log in front of the warden, to know whose connection is whose."""

    def __init__(self, port: int, warden: Judge, clock: Clock, sockets: Callable[[], str]) -> None:
        self._port = port
        self._warden = warden
        self._clock = clock
        self._sockets = sockets
        self._addresses: dict[str, str] = {}
        """By thing."""
        self._seen: dict[str, int] = {}
        """By address: at how many looks in a row nothing had been read."""
        self._kicks = Rate(KICKS_MAX)

    def read(self, presence: Presence) -> None:
        """Note where a thing connects from."""
        self._note(presence)
        self._warden.read(presence)

    def begin(self, presences: list[Presence]) -> None:
        """The broker was lost and is there again: this is what its log says of late."""
        self._addresses.clear()
        for presence in presences:
            self._note(presence)
        self._warden.begin(presences)

    def _note(self, presence: Presence) -> None:
        if presence.sign is Sign.CONNECTED:
            self._addresses[presence.thing] = presence.address
        elif presence.sign is Sign.DISCONNECTED:
            self._addresses.pop(presence.thing, None)

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look(await asyncio.to_thread(self._sockets))

    def look(self, sockets: str) -> None:
        """Judge who has not read anything for too long."""
        self._seen = {address: self._seen.get(address, 0) + 1 for address in probed(sockets, self._port)}
        # Once more after as many looks, should it still be there.
        found = {address for address, looks in self._seen.items() if looks % LOOKS_MAX == 0}
        if not found:
            return
        for thing in [thing for thing, address in self._addresses.items() if address in found]:
            again = self._kicks.exceeded(thing, self._clock.elapsed_s())
            _log.warning("thing_does_not_read", thing=thing)
            self._warden.judge(Verdict(Sentence.QUARANTINE if again else Sentence.KICK, thing, Cause.UNREAD))


def read_sockets(files: Iterable[Path] = SOCKETS) -> str:
    """Return what the kernel says of all connections of this machine; nothing where it does not say it so."""
    return "".join(map(_read, files))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except OSError:  # another system, or one that hides it
        return ""


def probed(sockets: str, port: int) -> Iterator[str]:
    """Yield the other ends of those connections of ``port`` that have no room for what was sent."""
    for line in sockets.splitlines():
        if _PROBED in line:
            fields = line.split()
            if (
                fields[_STATE] == _ESTABLISHED
                and fields[_TIMER].startswith("04")
                and int(fields[_LOCAL].rpartition(":")[2], 16) == port
            ):
                yield _address(fields[_REMOTE])


def _address(text: str) -> str:
    """Return an address as the broker writes it; the kernel has it in words of the machine's byte order."""
    host, _, port = text.partition(":")
    words = [bytes.fromhex(host[at : at + _WORD_DIGITS])[::-1] for at in range(0, len(host), _WORD_DIGITS)]
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return f"{socket.inet_ntop(family, b''.join(words))}:{int(port, 16)}"
