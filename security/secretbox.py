"""The secret box: what we must be able to read again, kept under a master key (AES-256-GCM).

Each value is sealed for a *place* (``collection/id/field``): moved to another place it does not open. The
key's id stands in front, so the newest key seals and all open. The file holds one key a line, the newest
last; it is the only secret that lies open, and a backup of it belongs elsewhere than what it opens.

What is sealed::

    1 byte format | 8 bytes key id | 12 bytes nonce | ciphertext | 16 bytes tag
"""

import base64
import secrets
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from infra.ids import Ids
from security import private_files
from security.private_files import DamagedFileError, ExposedFileError

KEY_BITS: Final = 256
KEYS_MAX: Final = 64
"""Keys in a file; a rotation beyond is refused, because what the oldest sealed would be lost."""
PLAIN_BYTES_MAX: Final = 65_536
OVERHEAD_BYTES: Final = 37
"""What sealing adds to a value."""
_FORMAT: Final = b"\x01"
_ID_BITS: Final = 40
_ID_CHARS: Final = 8
_NONCE_BYTES: Final = 12
_HEAD_BYTES: Final = 1 + _ID_CHARS


__all__ = ["DamagedFileError", "ExposedFileError", "KeysExhaustedError", "SealBrokenError", "SecretBox"]


class SealBrokenError(Exception):
    """This was not sealed by us, not for this place, or has been changed."""

    def __init__(self, place: str) -> None:
        super().__init__(
            f"what is kept at {place} does not open with the master key: put back copies of both that belong"
            " together"
        )
        self.place = place


class KeysExhaustedError(Exception):
    """The file of keys is full."""


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key of the file."""

    kid: str
    key: str


_EXPOSED: Final = (
    "never delete it, for without it nothing that was sealed opens again; replace what it has sealed"
)


class SecretBox:
    """Seals and opens; prints nothing of what it knows."""

    __slots__ = ("_ids", "_keys", "_path")

    def __init__(self, path: Path, ids: Ids, keys: dict[str, AESGCM]) -> None:
        self._path = path
        self._ids = ids
        self._keys = keys

    @classmethod
    def open(cls, path: Path, ids: Ids) -> "SecretBox":
        """Open the box whose keys are in this file; make the first key on first run.

        Raises :class:`DamagedFileError` or :class:`ExposedFileError`, never replaces a key.
        """
        kept = private_files.read(path, _EXPOSED)
        if kept is None:
            private_files.make_directory(path.parent)
            private_files.create(path, _line(ids))
            # Another process may have been first, and then its key is the key.
            kept = private_files.read(path, _EXPOSED)
            assert kept is not None, "made a moment ago"
        return cls(path, ids, _parse(path, kept))

    def seal(self, plain: bytes, place: str) -> bytes:
        """Return ``plain`` such that only this box opens it, and only for this place."""
        if len(plain) > PLAIN_BYTES_MAX:
            raise ValueError(f"a sealed value has at most {PLAIN_BYTES_MAX} bytes")
        kid, key = next(reversed(self._keys.items()))
        head, nonce = _FORMAT + kid.encode(), secrets.token_bytes(_NONCE_BYTES)
        return head + nonce + key.encrypt(nonce, plain, head + place.encode())

    def open_sealed(self, sealed: bytes, place: str) -> bytes:
        """Return what was sealed for this place, or raise :class:`SealBrokenError`."""
        head, rest = sealed[:_HEAD_BYTES], sealed[_HEAD_BYTES:]
        key = self._key(head)
        if key is None or not OVERHEAD_BYTES <= len(sealed) <= PLAIN_BYTES_MAX + OVERHEAD_BYTES:
            raise SealBrokenError(place)
        try:
            return key.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], head + place.encode())
        except InvalidTag:
            raise SealBrokenError(place) from None

    def rotate(self) -> None:
        """Make a new key that seals from now on; what older ones sealed still opens."""
        kept = private_files.read(self._path, _EXPOSED) or b""
        if len(_parse(self._path, kept)) >= KEYS_MAX:
            raise KeysExhaustedError(f"{self._path} holds {KEYS_MAX} keys already")
        private_files.replace(self._path, kept + _line(self._ids))
        self._load()

    # ------------------------------------------------------------------ one value in a file of its own

    def write(self, path: Path, plain: bytes, place: str) -> bool:
        """Seal a value into a new file; return False, and change nothing, when there is one already."""
        return private_files.create(path, self.seal(plain, place))

    def read(self, path: Path, place: str) -> bytes | None:
        """Return the value sealed in a file, None when there is no file."""
        kept = private_files.read(path)
        return None if kept is None else self.open_sealed(kept, place)

    # ------------------------------------------------------------------ keys

    def _key(self, head: bytes) -> AESGCM | None:
        if head[:1] != _FORMAT:
            return None
        kid = head[1:].decode("ascii", errors="replace")
        if kid not in self._keys:
            # Sealed by a process that has rotated the keys since we read them?
            self._load()
        return self._keys.get(kid)

    def _load(self) -> None:
        self._keys = _parse(self._path, private_files.read(self._path, _EXPOSED) or b"")

    def __repr__(self) -> str:
        return f"SecretBox({self._path})"


def _line(ids: Ids) -> bytes:
    return msgspec.json.encode(_Line(ids.token(_ID_BITS), ids.token(KEY_BITS))) + b"\n"


def _parse(path: Path, kept: bytes) -> dict[str, AESGCM]:
    try:
        lines = [msgspec.json.decode(line, type=_Line) for line in kept.splitlines()]
        keys = {line.kid: AESGCM(_decode(line.key)) for line in lines}
    except (msgspec.DecodeError, ValueError) as error:
        raise _damaged(path) from error
    if not 1 <= len(keys) <= KEYS_MAX or len(keys) != len(lines) or {len(kid) for kid in keys} != {_ID_CHARS}:
        raise _damaged(path)
    return keys


def _decode(key: str) -> bytes:
    data = base64.b32decode(key.upper() + "=" * (-len(key) % 8))
    if len(data) * 8 != KEY_BITS:
        raise ValueError("not a key")
    return data


def _damaged(path: Path) -> DamagedFileError:
    return DamagedFileError(
        path, "does not hold our keys", "put back a copy; without it nothing that was sealed opens again"
    )
