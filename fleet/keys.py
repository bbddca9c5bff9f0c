"""Whose signatures a simulated device believes, as a file: what the Trust Center's key list says, unsigned.

    [{"public": "<64 hex digits>", "role": "image", "owner": "acme"}, …]

A real device takes them from the key list, which is signed; a fleet is told by whoever runs the test bench.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from ota.envelope import kid_of
from ota.verification import KeyRole, TrustedKey


class KeyLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key."""

    public: str
    role: Literal["image", "campaign"]
    owner: str


def read_keys(file: Path) -> dict[bytes, TrustedKey]:
    """Return the keys of a file, by kid."""
    return keys_of(msgspec.json.decode(file.read_bytes(), type=list[KeyLine]))


def write_keys(file: Path, keys: Mapping[bytes, TrustedKey]) -> None:
    """Write a file of the keys that are not revoked."""
    lines = [
        KeyLine(key.public.hex(), "image" if key.role is KeyRole.IMAGE else "campaign", key.owner)
        for key in keys.values()
        if not key.revoked and key.role in {KeyRole.IMAGE, KeyRole.CAMPAIGN}
    ]
    file.write_bytes(msgspec.json.encode(lines))


def keys_of(lines: Iterable[KeyLine]) -> dict[bytes, TrustedKey]:
    """Return keys by kid."""
    raw = [(bytes.fromhex(line.public), line) for line in lines]
    return {kid_of(public): TrustedKey(public, KeyRole(line.role), line.owner) for public, line in raw}
