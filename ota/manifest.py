"""What a vendor says of one image: the payload of a manifest, and how it is read and written. Pure.

Whoever reads it has opened the envelope and checked whose it is. (spec: ota, 2.2)
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from ota.envelope import UINT64_MAX, Plain
from ota.errors import FieldError
from ota.fields import (
    SCHEMA,
    TIME_MAX,
    UINT32_MAX,
    UUID_BYTES,
    Fields,
    checked_octets,
    checked_text,
    checked_uint,
    uuid_bytes,
    uuid_text,
)
from ota.trees import HASH_BYTES, leaf_list, list_tree

IMAGE_BYTES_MAX: Final = 67_108_864
"""What may be stored, signed and taken along; more than any slot has."""
NAME_CHARS_MAX: Final = 64
LABEL_CHARS_MAX: Final = 32
CLASSES_MAX: Final = 32
REQUIRES_MAX: Final = 16
COMPONENT_BYTES_MAX: Final = 23
SOURCES_MAX: Final = 16
BLOCK_BYTES_MIN: Final = 1_024
BLOCK_BYTES_MAX: Final = 131_072
LIFE_S_MAX: Final = 1_827 * 86_400
"""Five years, two of them leap years."""
SOFTWARE: Final = 0
"""File type of IEEE 2030.5; no other is of schema 1."""
MIN_FROM: Final = 17
REQUIRES: Final = 18
SOURCES: Final = 19
NOTES: Final = 20
"""Keys that may be absent."""
_VERSION: Final = re.compile(r"(?:0|[1-9][0-9]{0,4})(?:\.(?:0|[1-9][0-9]{0,4})){3}", re.ASCII)
_PART_BITS: Final = 16
_PARTS: Final = 4


class DataMode(IntEnum):
    """What becomes of a device's configuration: by the manifest, or :attr:`CHOSEN` by the order."""

    PRESERVE = 0
    RESET = 1
    CHOSEN = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a vendor says of one image. Times are seconds."""

    vendor: str
    model: str
    hw: tuple[str, ...]
    """Hardware classes (UUIDs) that it is for."""
    label: str
    """For people; never compared."""
    version: int
    counter: int
    """No device installs one below the counter that it has confirmed."""
    size: int
    sha256: str
    """Of the image, hex."""
    block: int
    """Bytes of a hash block."""
    root: bytes
    """Of the tree over its hash blocks."""
    issued: int
    expires: int
    data: DataMode
    config_schema: int
    min_from: int = 0
    """The smallest version that it may be installed over."""
    requires: Mapping[str, int] = field(default_factory=dict)
    """Other components, and the least version of each."""
    sources: tuple[str, ...] = ()
    """Images that a delta may start from, hex."""
    notes: str = ""
    """SHA-256 of the release notes, hex; empty if there are none."""

    @property
    def blocks(self) -> int:
        """Return how many hash blocks the image has."""
        return -(-self.size // self.block)

    @property
    def leaves_bytes(self) -> int:
        """Return how long its leaf list is."""
        return self.blocks * HASH_BYTES

    def allows(self, mode: DataMode) -> bool:
        """Tell whether an order may say this of the configuration."""
        return mode is not DataMode.CHOSEN and self.data in {mode, DataMode.CHOSEN}


def read(payload: Mapping[Plain, Plain]) -> Manifest:
    """Return what a payload says (V6); raises :class:`~ota.errors.FieldError` with the key that is wrong."""
    fields = Fields(payload, range(1, 21))
    fields.uint(1, SCHEMA, SCHEMA)
    vendor, model = fields.text(2, NAME_CHARS_MAX), fields.text(3, NAME_CHARS_MAX)
    hw = [uuid_text(checked_octets(4, one, UUID_BYTES)) for one in fields.array(4, CLASSES_MAX)]
    fields.uint(5, SOFTWARE, SOFTWARE)
    found = Manifest(
        vendor=vendor,
        model=model,
        hw=tuple(hw),
        label=fields.text(6, LABEL_CHARS_MAX),
        version=fields.uint(7),
        counter=fields.uint(8, most=UINT32_MAX),
        size=fields.uint(9, 1, UINT32_MAX),
        sha256=fields.octets(10, HASH_BYTES).hex(),
        block=_block(fields),
        root=fields.octets(12, HASH_BYTES),
        issued=fields.uint(13, most=TIME_MAX),
        expires=fields.uint(14, most=TIME_MAX),
        data=DataMode(fields.uint(15, most=max(DataMode))),
        config_schema=fields.uint(16, most=UINT32_MAX),
        min_from=fields.uint(MIN_FROM) if MIN_FROM in fields else 0,
        requires=_requires(fields) if REQUIRES in fields else {},
        sources=_sources(fields) if SOURCES in fields else (),
        notes=fields.octets(NOTES, HASH_BYTES).hex() if NOTES in fields else "",
    )
    if not 0 < found.expires - found.issued <= LIFE_S_MAX:
        raise FieldError(14, "a manifest ends after it was issued, and at most five years after")
    return found


def write(manifest: Manifest) -> dict[int, Plain]:
    """Return the payload that says this; the opposite of :func:`read`, which also checks it."""
    payload: dict[int, Plain] = {
        1: SCHEMA,
        2: manifest.vendor,
        3: manifest.model,
        4: [uuid_bytes(one) for one in manifest.hw],
        5: SOFTWARE,
        6: manifest.label,
        7: manifest.version,
        8: manifest.counter,
        9: manifest.size,
        10: bytes.fromhex(manifest.sha256),
        11: manifest.block,
        12: manifest.root,
        13: manifest.issued,
        14: manifest.expires,
        15: int(manifest.data),
        16: manifest.config_schema,
    }
    if manifest.min_from:
        payload[MIN_FROM] = manifest.min_from
    if manifest.requires:
        payload[REQUIRES] = dict(manifest.requires)
    if manifest.sources:
        payload[SOURCES] = [bytes.fromhex(one) for one in manifest.sources]
    if manifest.notes:
        payload[NOTES] = bytes.fromhex(manifest.notes)
    read(payload)
    return payload


def describes(manifest: Manifest, image: bytes | memoryview) -> bool:
    """Tell whether size, hash and root are those of this image."""
    if len(image) != manifest.size or hashlib.sha256(image).hexdigest() != manifest.sha256:
        return False
    return list_tree(leaf_list(image, manifest.block)).root == manifest.root


def version_text(version: int) -> str:
    """Spell a version in its four parts: ``2.4.0.0``."""
    shifts = range(_PART_BITS * (_PARTS - 1), -1, -_PART_BITS)
    return ".".join(str(version >> shift & 0xFFFF) for shift in shifts)


def version_of(text: str) -> int:
    """Return the version that is spelled so; raises :class:`ValueError` for another text."""
    parts = [int(part) for part in text.split(".")] if _VERSION.fullmatch(text) else []
    if not parts or max(parts) >= 1 << _PART_BITS:
        raise ValueError(f"{text!r} is no version: four numbers up to 65535, such as 2.4.0.0")
    version = 0
    for part in parts:
        version = version << _PART_BITS | part
    assert version <= UINT64_MAX
    return version


def _block(fields: Fields) -> int:
    block = fields.uint(11, BLOCK_BYTES_MIN, BLOCK_BYTES_MAX)
    if block & block - 1:
        raise FieldError(11, "not a power of two")
    return block


def _requires(fields: Fields) -> dict[str, int]:
    found = {}
    for name, least in fields.map(REQUIRES, REQUIRES_MAX).items():
        if len(checked_text(REQUIRES, name, COMPONENT_BYTES_MAX).encode()) > COMPONENT_BYTES_MAX:
            raise FieldError(REQUIRES, f"a component's name has at most {COMPONENT_BYTES_MAX} bytes")
        found[name] = checked_uint(REQUIRES, least)
    return found


def _sources(fields: Fields) -> tuple[str, ...]:
    return tuple(checked_octets(SOURCES, one, HASH_BYTES).hex() for one in fields.array(SOURCES, SOURCES_MAX))
