"""What a device writes into flash about its firmware, and the boot loader that acts on it.

One record says everything; it is replaced as a whole, **before** the step it announces, so that a power
cut leaves the step not begun, or known. The boot loader knows nothing but this record and the slots:

    state 7 ──► trials left, V18 holds ──► trial + 1, run the other slot
       │                                        │ healthy: state 8, `running` is the other slot now
       └──► no trial left, V18 fails ──► state 6, run the slot that always ran

A rollback is that one write and never a copy: the old image and the old configuration were not touched.
"""

import hashlib
from enum import IntEnum
from typing import Any, Final

import msgspec

from fleet.flash import SLOTS, Flash, Fuse
from fleet.trees import Tree

TRIALS_MAX: Final = 3


class FileStatus(IntEnum):
    """Where an image is: the numbers of IEEE 2030.5, as they are reported."""

    NONE = 0
    LOADING = 1
    LOAD_FAILED = 2
    LOADED = 3
    SIGNATURE_FAILED = 4
    VERIFIED = 5
    ACTIVATION_FAILED = 6
    ACTIVATING = 7
    ACTIVATED = 8


class Image(msgspec.Struct, frozen=True, array_like=True):
    """What stands in a slot, by its manifest."""

    sha256: str
    """Hex, as that of the manifest."""
    size: int
    block: int
    version: int
    label: str
    counter: int
    schema: int
    """Number of the configuration schema that it speaks."""
    manifest: str
    """Hash of the manifest; empty for what came from the factory."""
    issued: int = 0

    @property
    def blocks(self) -> int:
        """Return how many blocks it has."""
        return -(-self.size // self.block)


class Record(msgspec.Struct, frozen=True, array_like=True):
    """The record ``ota``: everything that has to survive a power cut."""

    running: str
    """The slot whose image is confirmed."""
    images: dict[str, Image | None]
    counter: int
    """Security counter: nothing below it is ever installed."""
    floor: int = 0
    """The clock is never taken for less."""
    boots: int = 0
    state: FileStatus = FileStatus.NONE
    reason: str = ""
    job: str = ""
    attempt: int = 1
    end: str = ""
    """How the job ended, until the service has answered to it: a job status."""
    data: str = ""
    """What is to become of the configuration: ``preserve`` or ``reset``."""
    bits: bytes = b""
    """Which blocks are in the other slot."""
    trials: int = 0
    confirm_s: int = 0
    digest: str = ""
    """Of the configuration that the new image must have."""

    @property
    def other(self) -> str:
        """Return the slot that does not hold the confirmed image."""
        return SLOTS[1 - SLOTS.index(self.running)]

    @property
    def image(self) -> Image:
        """Return the confirmed image."""
        image = self.images[self.running]
        assert image is not None, "a confirmed slot holds an image"
        return image

    @property
    def candidate(self) -> Image | None:
        """Return what is, or is coming, into the other slot."""
        return self.images[self.other]

    @property
    def have(self) -> int:
        """Return the blocks of the other slot as the bits of a number."""
        return int.from_bytes(self.bits, "little")

    def where(self, **changes: object) -> "Record":
        """Return the record with these changes."""
        return msgspec.structs.replace(self, **changes)

    def with_candidate(self, image: Image | None) -> "Record":
        """Return the record with this image for the other slot."""
        return self.where(images={self.running: self.image, self.other: image})


_ENCODE: Final = msgspec.msgpack.Encoder().encode
_DECODE: Final = msgspec.msgpack.Decoder(Record).decode


class Store:
    """The record and the configurations of one flash, by value."""

    __slots__ = ("flash", "record")

    def __init__(self, flash: Flash) -> None:
        self.flash = flash
        data = flash.record.read()
        assert data is not None, "a device leaves the factory with a record"
        self.record = _DECODE(data)

    def write(self, record: Record) -> None:
        """Make a record true; on a power cut it is, or the one before still is."""
        self.flash.record.write(_ENCODE(record))
        self.record = record

    def config(self, slot: str) -> Tree:
        """Return the configuration that belongs to a slot."""
        data = self.flash.configs[slot].read()
        return {} if data is None else msgspec.json.decode(data, type=dict)

    def write_config(self, slot: str, config: Tree) -> None:
        """Replace the configuration of a slot."""
        self.flash.configs[slot].write(encode_config(config))


def encode_config(config: Tree) -> bytes:
    """Return the canonical JSON of a configuration: what is stored, and what is hashed."""
    return msgspec.json.encode(config, order="sorted")


def config_digest(config: Tree) -> str:
    """Return the SHA-256 of a configuration; how a whole number is written makes no difference."""
    return hashlib.sha256(encode_config(_whole_numbers(config))).hexdigest()


def factory(fuse: Fuse, image: Image, data: bytes, config: Tree) -> Flash:
    """Return the flash of a device as it leaves the factory: one image, confirmed."""
    cut_at, fuse.cut_at = fuse.cut_at, None
    flash = Flash(fuse)
    running = SLOTS[0]
    for index in range(image.blocks):
        flash.slots[running].write(index, data[index * image.block : (index + 1) * image.block])
    flash.configs[running].write(encode_config(config))
    flash.record.write(
        _ENCODE(Record(running, {running: image, SLOTS[1]: None}, image.counter, floor=image.issued))
    )
    fuse.cut_at, fuse.writes = cut_at, 0
    return flash


def boot(flash: Flash) -> tuple[Store, str]:
    """Start the device: return its record, and the slot whose image runs from now on."""
    store = Store(flash)
    record = store.record
    booted = record.where(boots=record.boots + 1)
    if record.state is not FileStatus.ACTIVATING:
        store.write(booted)
        return store, record.running
    if record.trials >= TRIALS_MAX:
        return _fall_back(store, booted, "boot_loop")
    if not sound(flash, record.other, record.candidate):  # V18
        return _fall_back(store, booted, "boot_verify")
    store.write(booted.where(trials=record.trials + 1))
    return store, record.other


def sound(flash: Flash, slot: str, image: Image | None) -> bool:
    """Whether a slot, read back, holds exactly this image (V16, V18)."""
    if image is None:
        return False
    data = flash.slots[slot].read(image.blocks)
    return len(data) == image.size and hashlib.sha256(data).hexdigest() == image.sha256


def _whole_numbers(value: Any) -> Any:  # noqa: ANN401 - a leaf may be anything that JSON can say
    if isinstance(value, dict):
        return {name: _whole_numbers(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(member) for member in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _fall_back(store: Store, booted: Record, reason: str) -> tuple[Store, str]:
    store.write(booted.where(state=FileStatus.ACTIVATION_FAILED, reason=reason, end="FAILED"))
    return store, booted.running
