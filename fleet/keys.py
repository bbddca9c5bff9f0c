"""Whose signatures a simulated device believes, as a file: what the Trust Center's key list says, unsigned.

    [{"public": "<64 hex digits>", "role": "image", "owner": "acme"}, …]

A real device takes them from the key list, which is signed; a fleet is told by whoever runs the test bench.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from ota.envelope import kid_of
from ota.verification import KeyRole, TrustedKey


class KeyLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key."""

    public: str
    role: KeyRole
    owner: str


def read_keys(file: Path) -> dict[bytes, TrustedKey]:
    """Return the keys of a file, by kid."""
    lines = msgspec.json.decode(file.read_bytes(), type=list[KeyLine])
    raw = [(bytes.fromhex(line.public), line) for line in lines]
    return {kid_of(public): TrustedKey(public, line.role, line.owner) for public, line in raw}


def write_keys(file: Path, keys: Mapping[bytes, TrustedKey]) -> None:
    """Write a file of the keys that are not revoked."""
    lines = [KeyLine(key.public.hex(), key.role, key.owner) for key in keys.values() if not key.revoked]
    file.write_bytes(msgspec.json.encode(lines))
