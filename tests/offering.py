"""Devices that are offered what may be wrong in one way, and a look into their flash at what came of it."""

import hashlib
from collections.abc import Callable
from copy import deepcopy

import msgspec

from fleet.boot import Store, boot
from fleet.makes import Make
from tests.firmware_bench import Bench
from tests.ota_base import IMAGE, LEAVES
from tests.ota_faults import Fault
from tests.ota_stand_in import Job, job_document

SOUND = Fault(name="", step="V1", code="")


def device(fault: Fault = SOUND) -> Bench:
    """Return the device of a fault, running what it says that it runs."""
    facts = fault.device
    make = Make(
        vendor=facts.vendor,
        model=facts.model,
        hw=facts.hw,
        schemas={facts.config_schema: {"lang": "en"}},
        slot_bytes=facts.slot_bytes,
        components=facts.components,
    )
    bench = Bench(make=make, keys=fault.keys, thing=facts.thing, now_s=fault.now_s)
    store = Store(bench.flash)
    running = msgspec.structs.replace(
        store.record.image,
        version=facts.version,
        counter=facts.counter,
        schema=facts.config_schema,
        sha256=facts.sha256,
    )
    record = store.record.where(
        images={"a": running, "b": None}, counter=facts.counter_confirmed, floor=fault.floor_s
    )
    store.write(record)
    return bench


def offered(offer, leaves: bytes = LEAVES, image: bytes = IMAGE, number: int = 0) -> Job:
    """Return a job that carries an offer; what it says of the image and its leaves may be untrue."""
    stream = "fw-" + hashlib.sha256(offer.manifest).hexdigest()[:20]
    document = job_document(stream, offer.manifest, offer.order, offer.proof)
    return Job(f"c-{number:032}", document, stream, {0: image, 1: leaves, 2: offer.manifest})


class once:  # noqa: N801 - reads as a word
    """Serves something else in the place of one block of the image, the first time."""

    def __init__(self, index: int, *instead: bytes) -> None:
        self.index, self.instead, self.asked = index, instead, 0

    def __call__(self, file: int, index: int, data: bytes) -> list[bytes]:
        if file or index != self.index:
            return [data]
        self.asked += 1
        return list(self.instead) if self.asked == 1 else [data]


def always(index: int, instead: bytes) -> Callable[[int, int, bytes], list[bytes]]:
    """Serve something else in the place of one block of the image whenever it is asked for."""
    return lambda file, at, data: [data if file or at != index else instead]


def starts(bench: Bench) -> bytes:
    """Return the image that would run if the power went now and came back, whatever the device says."""
    flash = deepcopy(bench.flash)
    flash.fuse.cut_at = None
    store, slot = boot(flash)
    image = store.record.images[slot]
    assert image is not None, "what starts is an image"
    return flash.slots[slot].read(image.blocks)
