"""Devices on a virtual clock with the stand-in for jobs and streams; releases as a vendor would sign them."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleet.boot import FileStatus, Store
from fleet.firmware import SOUND, Faults, Setting
from fleet.hardware import Computer, new_hardware
from fleet.jobs import parse_any
from fleet.makes import Make
from fleet.topics import own_route
from ota import manifest as manifests
from ota import order as orders
from ota.envelope import Typ, kid_of, public_of, seal
from ota.manifest import DataMode, version_of
from ota.order import Proof, encode_proof
from ota.trees import leaf_list, list_tree, name_tree
from ota.verification import KeyRole, Keys, TrustedKey
from tests.ota_base import KEYS, MANIFEST, NOW_S, ORDER, UTILITY_KEY, VENDOR_KEY
from tests.ota_stand_in import Job, OtaStandIn, job_document

MAKE = Make(
    vendor="acme",
    model="T1",
    hw=MANIFEST.hw[0],
    schemas={5: {"lang": "en", "report_s": 300}, 6: {"lang": "en", "report_s": 300, "night": False}},
    slot_bytes=1_024 * 1_024,
)
THING = "han-0003"
OTHER_VENDOR_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
TRUSTED = {
    **KEYS,
    kid_of(public_of(OTHER_VENDOR_KEY)): TrustedKey(public_of(OTHER_VENDOR_KEY), KeyRole.IMAGE, "norland"),
}


@dataclass(frozen=True)
class Release:
    image: bytes
    leaves: bytes
    manifest: bytes

    @property
    def stream(self) -> str:
        return "fw-" + hashlib.sha256(self.manifest).hexdigest()[:20]


@cache
def release(
    version: str = "2.0.0.0",
    size: int = 150_000,
    block: int = 4_096,
    counter: int = 2,
    schema: int = 5,
    *,
    make: Make = MAKE,
    now_s: int = NOW_S,
) -> Release:
    image = random.Random(version).randbytes(size)
    leaves = leaf_list(image, block)
    manifest = replace(
        MANIFEST,
        vendor=make.vendor,
        model=make.model,
        hw=(make.hw,),
        version=version_of(version),
        label=version.removesuffix(".0"),
        counter=counter,
        size=size,
        sha256=hashlib.sha256(image).hexdigest(),
        block=block,
        root=list_tree(leaves).root,
        config_schema=schema,
        issued=now_s - 100,
        expires=now_s + 30_000_000,
    )
    key = VENDOR_KEY if make.vendor == "acme" else OTHER_VENDOR_KEY
    return Release(image, leaves, seal(manifests.write(manifest), Typ.MANIFEST, key))


def job(
    of: Release | None = None,
    data: int = 0,
    number: int = 1,
    *,
    thing: str = THING,
    now_s: int = NOW_S,
    **advice: Any,
) -> Job:
    of = of or release()
    campaign, names = str(UUID(int=number)), name_tree([thing])
    order = replace(
        ORDER,
        campaign=campaign,
        manifest=hashlib.sha256(of.manifest).hexdigest(),
        targets=names.root,
        count=names.count,
        data=DataMode(data),
        not_before=now_s - 100,
        not_after=now_s + 600_000,
    )
    sealed = seal(orders.write(order), Typ.ORDER, UTILITY_KEY)
    proof = encode_proof(Proof(0, names.proof(0)))
    document = job_document(of.stream, of.manifest, sealed, proof, **advice)
    files = {0: of.image, 1: of.leaves, 2: of.manifest}
    return Job("c-" + campaign.replace("-", ""), document, of.stream, files)


class Bench:
    """One device, the stand-in, and a clock that jumps to the next thing to do."""

    def __init__(
        self,
        seed: int = 0,
        *,
        faults: Faults = SOUND,
        make: Make = MAKE,
        cut_at: int | None = None,
        flip_at: int | None = None,
        service: OtaStandIn | None = None,
        by_http: bool = False,
        keys: Keys = TRUSTED,
        roots: Sequence[x509.Certificate] = (),
        thing: str = THING,
        now_s: int = NOW_S,
    ) -> None:
        self.now = float(now_s)
        self.chance = random.Random(seed)
        self.service = service or OtaStandIn()
        self.settings: dict[str, Any] = {}
        self.is_quiet = True
        self.is_online = True
        self.states: list[FileStatus] = []
        self.thing = thing
        setting = Setting(keys=keys, roots=roots, faults=faults, by_http=by_http)
        self.hardware = new_hardware(make, setting, self.chance, cut_at=cut_at, flip_at=flip_at)
        self.flash = self.hardware.flash
        self.computer = Computer(self.thing, self.hardware, self, self.chance)
        self.on_state = lambda _state: None
        self._queue: list[tuple[str, bytes]] = []
        self._is_connected = False

    # -- the board --------------------------------------------------------------

    def config(self):
        return self.settings

    def load(self, config):
        self.settings = dict(config)

    def may_restart(self):
        return self.is_quiet

    # -- time and messages ------------------------------------------------------

    def offer(self, job: Job) -> "Bench":
        self.deliver(self.service.offer(self.thing, job))
        return self

    def deliver(self, messages) -> None:
        if self._is_connected:
            self._queue += messages
            self._exchange()

    def change(self, **settings) -> None:
        self.settings = {**self.settings, **settings}
        self.computer.keep_config(self.now)

    def run(self, seconds: float = 3_000) -> "Bench":
        """Run until nothing is left to do, or for so long."""
        until = self.now + seconds
        while True:
            self._step()
            if self._is_still():
                return self
            self.now = min(until, self._next_at())
            if self.now == until:
                return self

    def _is_still(self) -> bool:
        return self._is_connected and not self.computer.is_dark and self.computer.firmware.settled

    def _next_at(self) -> float:
        return max(self.computer.wake_at(), self.now + 0.001)

    def _step(self) -> None:
        if self.computer.is_dark:
            self._is_connected = False
            self._queue.clear()
            if not self.computer.switch_on(self.now):
                return
        if self.is_online and not self._is_connected:
            self._is_connected = True
            self.computer.connected(self.now, own_route(self.thing))
        self.computer.tick(self.now)
        self._exchange()

    def repair(self) -> "Bench":
        """Switch it off and on, with nothing wrong any more; flash is as it was."""
        self.hardware = replace(self.hardware, setting=replace(self.hardware.setting, faults=SOUND))
        self.computer = Computer(self.thing, self.hardware, self, self.chance)
        return self

    def cut_connection(self) -> None:
        self._is_connected = False
        self._queue.clear()
        self.computer.disconnected()

    def _exchange(self) -> None:
        """Let messages go back and forth until nobody has anything to say."""
        while self._is_connected and not self.computer.is_dark:
            self._note()
            for topic, payload in self.computer.due(self.now):
                self._queue += self.service.handle(topic, payload)
            if not self._queue:
                return
            topic, payload = self._queue.pop(0)
            answer = parse_any(topic)
            assert answer is not None, topic
            self.computer.take(self.now, answer, payload)

    def _note(self) -> None:
        state = self.computer.firmware.state
        if not self.states or self.states[-1] is not state:
            self.states.append(state)
            self.on_state(state)

    # -- what is looked at ------------------------------------------------------

    @property
    def job(self) -> Job:
        return self.service.jobs[self.thing]

    @property
    def reported(self) -> dict[str, Any]:
        return self.service.document(self.thing, "firmware").reported

    def running(self) -> bytes:
        """Return the image that runs, read back from flash."""
        firmware = self.computer.firmware
        image = firmware.image
        return self.flash.slots[firmware.slot].read(image.blocks)

    def old(self) -> tuple[bytes, bytes | None]:
        """Return image and configuration of the confirmed slot, as they stand in flash."""
        slot = Store(self.flash).record.running
        return self.flash.slots[slot].read(1_000), self.flash.configs[slot].read()
