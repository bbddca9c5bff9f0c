"""The devices of a run, in a process of its own that outlives every kill of service and broker.

    python -m tests.chaos_ota.devices --directory D --port 8883 --seed 1

They are `fleet.upgrades`, each with its part: links that lose and mangle, power that goes, images that are
sick. Prints a line of JSON each second. At the end (SIGTERM) it writes what stands in every flash.
"""

import argparse
import asyncio
import random
import time
from pathlib import Path
from typing import Any, Final
from unittest import mock

import msgspec
import uvloop
from cryptography import x509

from fleet.boot import Store
from fleet.connection import Certificates, Endpoint, Identity
from fleet.figures import run_and_print
from fleet.firmware import SOUND, Faults, Setting
from fleet.flash import Flash
from fleet.hardware import RESTART_S, Hardware, new_hardware
from fleet.makes import MAKES
from fleet.upgrades import Station, Upgrades, _allow_many_files
from infra.clock import SystemClock
from tests.chaos_ota import plants
from tests.chaos_ota.cast import Ailment, Countdown, How, Part, State, read_cast
from tests.chaos_ota.link import BadLink
from tests.chaos_ota.watched import ChaosFuse, Log, watch
from tests.chaos_ota.written import FLASHES, LOG, THINGS, Dump, Written
from tests.upgradable import MODEL

FAULTS: Final = {
    Ailment.BOOT_LOOP: Faults(boot_loop=True),
    Ailment.SELF_TEST: Faults(self_test=True),
    Ailment.DEAF: Faults(deaf=True),
    Ailment.CONFIG_DAMAGE: Faults(config_damage=True),
    Ailment.CLAIMS_NOTHING: Faults(claims_nothing=True),
}
WORN_AT: Final = 9
"""The write after which a bit of a worn flash flips: one of the blocks."""
FLUSH_S: Final = 0.5
WAITS: Final = (
    *("requests.ANSWER_S", "requests.RETRY_CAP_S", "transfer.ANSWER_S", "transfer.ANSWER_S_MAX"),
    *("keyring.ANSWER_S", "keyring.ANSWER_S_MAX", "firmware.REFUSED_PAUSE_S"),
)
"""What a hurried device waits less for."""
HURRIED_ANSWER_S: Final = 1.5
HURRIED_RESTART_S: Final = 0.3
RUN_S_MAX: Final = 86_400.0


class ChaosStation(Station):
    """One device with its part."""

    def __init__(self, name: str, number: int, fleet: "ChaosFleet", identity: Identity) -> None:
        self.part = fleet.parts[number]
        self._log = fleet.log
        self._link = BadLink(self.part, random.Random(f"{fleet.seed}/{name}/link"), fleet.log.struck)
        self._countdown = Countdown(self.part.cuts, How.BETWEEN)
        self.is_dead = False
        self.is_sparing = is_sparing(number)
        super().__init__(name, number, fleet, identity)

    def message(self, topic: str, payload: bytes) -> None:
        for one in self._link.down(topic, payload):
            super().message(*one)

    def send(self, topic: str, payload: bytes) -> None:
        if self._link.up():
            super().send(topic, payload)

    def connected(self) -> None:
        super().connected()
        if not self.is_sparing and not self.computer.is_dark:
            # Of what it has reported before, the service can say afterwards that it is there.
            now = self._fleet.now()
            self.computer.firmware._report_config(now)
            self._look(now)

    def disconnected(self) -> None:
        self._link.broken()
        super().disconnected()

    def wake(self, now: float) -> None:
        try:
            super().wake(now)
        except AssertionError:
            # A boot loader that finds nothing to start: this one never comes back.
            self.is_dead = True
            self._log.write(self.identity.name, "dead")

    @property
    def is_busy(self) -> bool:
        """Whether it is not at rest yet; one that never claims anything is as far as it gets."""
        mute = self.part.ailment is Ailment.CLAIMS_NOTHING
        return not self.is_dead and (self.computer.is_dark or not (self.computer.firmware.settled or mute))

    def _note(self, now: float) -> None:
        super()._note(now)
        cut = self._countdown.came(State(int(self._state)))
        if cut is not None:
            self._log.cut(self.identity.name, cut)
            self.computer.lose_power(now)
            self._fleet.disconnect(self)


class ChaosFleet(Upgrades):
    """All devices. They run until they are told to stop, however many are done."""

    def __init__(
        self, parts: tuple[Part, ...], roots: list[x509.Certificate], log: Log, seed: int, **options: Any
    ) -> None:
        self.parts, self.log, self.seed = parts, log, seed
        self._roots = roots
        self.flashes: dict[str, Flash] = {}
        super().__init__([part.thing for part in parts], MAKES[MODEL], seed=seed, keys={}, **options)

    def station(self, name: str, number: int, identity: Identity) -> Station:
        return ChaosStation(name, number, self, identity)

    def hardware(self, number: int) -> Hardware:
        part, chance = self.parts[number], random.Random(f"{self.seed}/{number}/flash")
        setting = Setting(
            roots=self._roots,
            epoch=int(self.now()),
            faults=FAULTS.get(part.ailment, SOUND) if part.ailment else SOUND,
            sparing=is_sparing(number),
        )
        made = new_hardware(self._make, setting, chance, restart_s=self._restart_s)
        flash = made.flash
        store = Store(flash)
        store.write_config("a", own_config(store.config("a"), part))
        fuse = ChaosFuse(
            chance,
            part.cuts,
            lambda cut: self.log.cut(part.thing, cut),
            flip_at=WORN_AT if part.ailment is Ailment.WORN_FLASH else None,
        )
        _replace_fuse(flash, fuse)
        watch(flash, part.thing, self.log)
        self.flashes[part.thing] = flash
        return made

    def ended(self, state: Any, reason: str, seconds: float) -> None:
        """Count; there may be more to come."""
        self.seconds.add(seconds)
        self.reasons[reason or state.name.lower()] += 1

    def disconnect(self, station: Station) -> None:
        """End a connection as it is when something goes dark: nobody says goodbye."""
        if station.connection is not None:
            station.connection.break_off()
        super().disconnect(station)

    def summary(self) -> dict[str, Any]:
        unsettled = sum(1 for one in self.stations if isinstance(one, ChaosStation) and one.is_busy)
        struck = dict(sorted(self.log.struck.items()))
        return super().summary() | {"unsettled": unsettled, "struck": struck}

    async def flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            self.log.flush()


def is_sparing(number: int) -> bool:
    """Tell who reports facts only, and no progress."""
    return number % 2 == 0


def own_config(factory: dict[str, Any], part: Part) -> dict[str, Any]:
    """Return a configuration that this device alone has."""
    return factory | {"set": factory["set"] | {"night": part.night}}


def _replace_fuse(flash: Flash, fuse: ChaosFuse) -> None:
    """Give a flash another fuse."""
    flash.fuse = fuse
    for pages in (flash.record, flash.keys, *flash.configs.values()):
        pages._fuse = fuse
    for slot in flash.slots.values():
        slot._fuse = fuse


def dump(fleet: ChaosFleet, file: Path) -> None:
    """Write what stands in every flash; equal blocks are written once."""
    written = Written()
    for thing, flash in fleet.flashes.items():
        written.add(thing, flash)
    file.write_bytes(msgspec.msgpack.encode(Dump(written.blocks, written.flashes)))


def hurry() -> None:
    """Have devices wait less for answers: everything is on one machine."""
    for name in WAITS:
        mock.patch(f"fleet.{name}", HURRIED_ANSWER_S).start()


async def run(options: argparse.Namespace) -> None:
    directory, log = options.directory, Log(options.directory / LOG)
    cast = read_cast(directory)
    identities: dict[str, Identity] = {}
    certificates = Certificates(directory / THINGS)
    fleet = ChaosFleet(
        cast.parts,
        x509.load_pem_x509_certificates((directory / THINGS / "ca.crt").read_bytes()),
        log,
        cast.seed,
        endpoint=Endpoint("127.0.0.1", options.port),
        identities=lambda thing: identities.setdefault(thing, certificates.identity(thing)),
        clock=SystemClock(),
        restart_s=HURRIED_RESTART_S if options.hurry else RESTART_S,
    )
    flushing = asyncio.create_task(fleet.flush(), name="flush")
    await run_and_print(fleet.run(RUN_S_MAX), fleet.stop, fleet.summary, 1.0)
    flushing.cancel()
    dump(fleet, directory / FLASHES)
    log.close()
    print(msgspec.json.encode(fleet.summary() | {"final": True, "at": time.time()}).decode(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos_ota.devices", description=__doc__)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--hurry", action="store_true", help="wait less for answers")
    parser.add_argument("--plant", default="", help="a bug to plant")
    options = parser.parse_args()
    if options.hurry:
        hurry()
    if options.plant:
        plants.plant_in_devices(options.plant)
    _allow_many_files()
    uvloop.run(run(options))


if __name__ == "__main__":
    main()
