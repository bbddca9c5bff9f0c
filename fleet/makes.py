"""What makers built into their models, as far as firmware is concerned. Pure values.

The registry's catalogue says the same of them, and a test compares the two. All devices of a simulation are
of hardware version 1.
"""

import hashlib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from fleet.boot import Image
from fleet.trees import Tree

BLOCK: Final = 4_096
FACTORY_VERSION: Final = 0x0001_0000_0000_0000
FACTORY_LABEL: Final = "1.0.0"
FACTORY_COUNTER: Final = 1
KIB: Final = 1_024

Schemas = Mapping[int, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Make:
    """One model in one hardware version: each is made once."""

    vendor: str
    model: str
    hw: str
    """Its hardware class, a UUID."""
    schemas: Schemas
    """Factory defaults by the number of the configuration schema; it is sold with the lowest."""
    slot_bytes: int
    gate: bool = True
    """It asks before it activates."""
    components: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({"bootloader": 3}))

    def factory_defaults(self, schema: int) -> Tree:
        """Return the configuration of a schema as it leaves the factory; else of the newest."""
        return deepcopy(dict(self.schemas.get(schema, self.schemas[max(self.schemas)])))

    def factory_image(self) -> tuple[Image, bytes]:
        """Return the firmware that it is sold with."""
        data = f"{self.vendor} {self.model} {FACTORY_LABEL}\n".encode() * 64
        image = Image(
            sha256=hashlib.sha256(data).hexdigest(),
            size=len(data),
            block=BLOCK,
            version=FACTORY_VERSION,
            label=FACTORY_LABEL,
            counter=FACTORY_COUNTER,
            schema=min(self.schemas),
            manifest="",
        )
        return image, data


_CLIMATE: Final[Schemas] = MappingProxyType(
    {
        5: {"set": {"day": 21.5, "night": 18}, "lang": "en"},
        6: {"set": {"day": 21.5, "night": 18}, "lang": "en", "fan": "auto"},
    }
)
_SWITCH: Final[Schemas] = MappingProxyType({1: {"restore": "last"}, 2: {"restore": "last", "delay_s": 0}})
_DISPLAY: Final[Schemas] = MappingProxyType({1: {"lang": "en", "bright": 80}})
_GATEWAY: Final[Schemas] = MappingProxyType({1: {"channel": 15}, 2: {"channel": 15, "report_s": 60}})

_ROWS: Final[tuple[tuple[str, str, str, Schemas, int], ...]] = (
    ("acme", "acme-pct-2", "af179d9c-8992-5ca4-ac1c-1d2eb7edae0b", _CLIMATE, 512),
    ("norland", "norland-t1", "eee704aa-7453-59da-bf1e-7d0c9f51418a", _CLIMATE, 512),
    ("norland", "norland-t1-wifi", "fe084c58-af91-5281-99db-9fb2fbbc06af", _CLIMATE, 1_024),
    ("acme", "acme-lcs-1", "ae6be59d-1b98-590b-9dba-9dd09f605628", _SWITCH, 256),
    ("voltaire", "voltaire-30a", "0bdb7209-a112-5f2a-9531-1756c98d92d3", _SWITCH, 256),
    ("acme", "acme-ihd-3", "485f345e-2d3d-5b89-9965-0be51850312f", _DISPLAY, 512),
    ("acme", "acme-amg-4", "e3b65486-55bf-5861-8e71-9c968df57db2", _GATEWAY, 4_096),
    ("hearth", "hearth-hub-2", "31a43f04-32f4-5cd6-8bcd-80958272096d", _GATEWAY, 16_384),
)
"""Vendor, model, hardware class, schemas, KiB of a slot."""
_WITHOUT_GATE: Final = frozenset({"acme-ihd-3"})
MAKES: Final[Mapping[str, Make]] = MappingProxyType(
    {
        model: Make(
            vendor=vendor,
            model=model,
            hw=hw,
            schemas=schemas,
            slot_bytes=slot_kib * KIB,
            gate=model not in _WITHOUT_GATE,
        )
        for vendor, model, hw, schemas, slot_kib in _ROWS
    }
)
"""By the id of the model."""
