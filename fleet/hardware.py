"""What carries a device's firmware through all its starts: the flash stays, the machine is made anew.

Whoever holds one of these sees a device that is on or dark. It goes dark by itself: to try a new image,
to fall back, or because the power went in the middle of a write. Then it has no connection and says nothing
until ``switch_on``.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from fleet.boot import factory
from fleet.firmware import Board, Download, Firmware, Setting
from fleet.flash import Flash, Fuse, PowerCutError
from fleet.jobs import JobAnswer, StreamAnswer
from fleet.makes import Make
from fleet.topics import Answer, Route

RESTART_S = 3.0
"""From going dark to running again."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """One device's make, its flash, and what it shares with others."""

    make: Make
    flash: Flash
    setting: Setting
    restart_s: float = RESTART_S


def new_hardware(
    make: Make,
    setting: Setting,
    chance: random.Random,
    *,
    restart_s: float = RESTART_S,
    cut_at: int | None = None,
    flip_at: int | None = None,
) -> Hardware:
    """Return hardware as it leaves the factory; with a seeded fault of its flash, if wanted."""
    image, data = make.factory_image()
    fuse = Fuse(chance, cut_at=cut_at, flip_at=flip_at)
    flash = factory(fuse, image, data, make.factory_defaults(image.schema))
    return Hardware(make, flash, setting, restart_s)


class Computer:
    """A device's firmware from the first start to the last."""

    __slots__ = ("_board", "_chance", "_dark_until", "_firmware", "_hardware", "_name", "power_cuts")

    def __init__(self, name: str, hardware: Hardware, board: Board, chance: random.Random) -> None:
        self._name, self._hardware, self._board, self._chance = name, hardware, board, chance
        self._firmware: Firmware | None = None
        self._dark_until = -math.inf
        self.power_cuts = 0

    @property
    def firmware(self) -> Firmware:
        """Return what runs; only while it is not dark."""
        assert self._firmware is not None, "a dark device runs nothing"
        return self._firmware

    @property
    def is_dark(self) -> bool:
        """Whether it is down: no connection, no memory."""
        return self._firmware is None

    def switch_on(self, now: float) -> bool:
        """Start, if it is time to; False if it is still, or again, dark."""
        if self._firmware is None and now >= self._dark_until:
            self._guard(now, lambda: self._start(now))
        return not self.is_dark

    def connected(self, now: float, route: Route) -> None:
        """Pass on that it is connected; one that went dark meanwhile will not speak by this connection."""
        if self._firmware is not None:
            self._guard(now, lambda: self.firmware.connected(now, route))

    def disconnected(self) -> None:
        """Pass on that it is not."""
        if self._firmware is not None:
            self._firmware.disconnected()

    def take(self, now: float, answer: Answer | JobAnswer | StreamAnswer, payload: bytes) -> None:
        """Pass on a message; what comes to a dark device is lost."""
        if self._firmware is not None:
            self._guard(now, lambda: self.firmware.take(now, answer, payload))

    def tick(self, now: float) -> None:
        """Pass on that time has passed."""
        if self._firmware is not None:
            self._guard(now, lambda: self.firmware.tick(now))

    def feed(self, now: float, fetched: Download, data: bytes) -> None:
        """Pass on an image that was fetched over HTTP."""
        if self._firmware is not None:
            self._guard(now, lambda: self.firmware.feed(now, fetched, data))

    def keep_config(self, now: float) -> None:
        """Have the configuration written down as it is now."""
        if self._firmware is not None:
            self._guard(now, self._firmware.keep_config)

    def lose_power(self, now: float) -> None:
        """Have the power go between two writes: what was in memory is gone, the flash is as it is."""
        if self._firmware is not None:
            self._guard(now, _cut)

    def due(self, now: float) -> list[tuple[str, bytes]]:
        """Return topics and payloads to send now."""
        return [] if self._firmware is None else list(self._firmware.due(now))

    def wake_at(self) -> float:
        """Return when to call ``tick``, or ``switch_on``, if nothing happens before."""
        return self._dark_until if self._firmware is None else self._firmware.wake_at()

    def _start(self, now: float) -> None:
        hardware = self._hardware
        self._firmware = Firmware(
            self._name,
            hardware.make,
            hardware.flash,
            self._board,
            now,
            chance=self._chance,
            setting=hardware.setting,
        )

    def _guard(self, now: float, step: Callable[[], None]) -> None:
        """Do a step; go dark if the power goes, or if the device wants to start again."""
        try:
            step()
        except PowerCutError:
            self.power_cuts += 1
            self._firmware = None
        if self._firmware is None or self._firmware.restart:
            self._firmware = None
            self._dark_until = now + self._hardware.restart_s


def _cut() -> None:
    raise PowerCutError
