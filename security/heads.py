"""Heads of the audit chain, signed and published: what nobody who writes the store can take back.

A head is one line of JSON in a file outside the store, better on another mount, appended and fsynced::

    {"number":7,"hash":"…","entries":4212,"at":"2026-…Z","key":"<id>","signature":"<base64>"}

The signature (Ed25519) is over the other members as they stand. The key lies sealed in a file of its own;
its public half is published beside the heads, and an auditor keeps a copy elsewhere.
"""

import base64
import errno
import hashlib
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from infra.clock import Clock
from security import private_files
from security.chain import Head
from security.secretbox import SecretBox

ENTRIES_EVERY: Final = 1_000
SECONDS_EVERY: Final = 60.0
HEADS_BYTES_MAX: Final = 2**30
"""Of a file of heads that is read: more than ten years of a head a minute."""
LINE_BYTES_MAX: Final = 4_096
DISORDER_BYTES: Final = 65_536
"""How far apart heads may lie that several processes published in another order."""
KEY_PLACE: Final = "audit/key/private"
PUBLIC_SUFFIX: Final = ".pub.pem"
_DOMAIN: Final = b"gnomon audit head 1\n"
_KEY_ID_CHARS: Final = 16


class PublishedHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of the file."""

    number: int
    hash: str
    entries: int
    at: str
    key: str
    signature: str = ""

    @property
    def head(self) -> Head:
        return Head(self.number, bytes.fromhex(self.hash), self.entries, 0)


class BadHeadsError(Exception):
    """A published head is not one; the message says which."""


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(PublishedHead).decode


class Heads:
    """Publishes heads; knows the last one."""

    def __init__(self, path: Path, key: Ed25519PrivateKey, clock: Clock, last: PublishedHead | None) -> None:
        self._path = path
        self._key = key
        self._key_id = key_id(key.public_key())
        self._clock = clock
        self._last = last
        self._published_s: float | None = None

    @classmethod
    def open(cls, path: Path, key_path: Path, box: SecretBox, clock: Clock) -> "Heads":
        """Open the file of heads; make the key on first run, and publish its public half.

        Raises:
            BadHeadsError: the last line is not a head of ours.
        """
        key = _open_key(key_path, box)
        path.parent.mkdir(parents=True, exist_ok=True)
        _publish_key(public_path(path), key.public_key())
        return cls(path, key, clock, _last_of(path))

    @property
    def last(self) -> PublishedHead | None:
        """The head that was published last."""
        return self._last

    @property
    def public_pem(self) -> str:
        """The public keys as they are published beside the heads; blocks on the disk."""
        return public_path(self._path).read_text()

    def between(self, first: int, last: int) -> dict[int, Head]:
        """Return the published heads of these blocks, and the last of all; blocks on the disk."""
        if not self._path.exists():
            return {}
        keys = read_public_keys(public_path(self._path))
        return read_heads(self._path, keys, first, last)

    def due(self, head: Head) -> bool:
        """Tell whether this head is to be published now."""
        number, known = (0, 0) if self._last is None else (self._last.number, self._last.entries)
        if head.number <= number:
            return False
        waited = None if self._published_s is None else self._clock.elapsed_s() - self._published_s
        return waited is None or waited >= SECONDS_EVERY or head.entries - known >= ENTRIES_EVERY

    def publish(self, head: Head) -> PublishedHead:
        """Sign a head and append it, durably; blocks on the disk, raises OSError."""
        at = datetime.fromtimestamp(self._clock.now_ms() / 1_000, UTC).isoformat(timespec="milliseconds")
        line = PublishedHead(head.number, head.hash, head.entries, at.replace("+00:00", "Z"), self._key_id)
        signed = msgspec.structs.replace(
            line, signature=base64.b64encode(self._key.sign(_signed_bytes(line))).decode()
        )
        _append(self._path, _encode(signed) + b"\n")
        self._last, self._published_s = signed, self._clock.elapsed_s()
        return signed


def public_path(path: Path) -> Path:
    """Return where the public keys lie: beside the heads."""
    return path.with_name(path.stem + PUBLIC_SUFFIX)


def key_id(key: Ed25519PublicKey) -> str:
    """Return what a head names its key by."""
    return hashlib.sha256(_spki(key)).hexdigest()[:_KEY_ID_CHARS]


def read_public_keys(path: Path) -> dict[str, Ed25519PublicKey]:
    """Return the keys of a PEM file by their ids."""
    return _keys_of(path.read_bytes(), path)


def read_heads(
    path: Path, keys: Mapping[str, Ed25519PublicKey], first: int = 0, last: int | None = None
) -> dict[int, Head]:
    """Return the heads of a file by block number, each with a signature by one of the keys.

    All of them, or those of blocks ``first`` to ``last`` and the one that was published last: the file is
    almost in order, as several processes may publish, so what is far from them is not even read.

    Raises:
        BadHeadsError: a line is no head, is not signed, or contradicts another.
    """
    if path.stat().st_size > HEADS_BYTES_MAX:
        raise BadHeadsError(f"{path} is larger than {HEADS_BYTES_MAX:,} bytes")
    heads: dict[int, Head] = {}
    with path.open("rb") as file:
        for place, line in (*_lines_from(file, first, last), *_last_line(file)):
            head = _verified(line, keys, f"{path}, {place}")
            if heads.setdefault(head.number, head) != head:
                raise BadHeadsError(f"{path}, {place}: a second head of block {head.number}")
    return heads


def _lines_from(file: BinaryIO, first: int, last: int | None) -> Iterator[tuple[str, bytes]]:
    """Yield lines with their places, from some way before block ``first`` to some way behind ``last``."""
    file.seek(start := _seek(file, first))
    beyond = 0
    for number, line in enumerate(file, 1):
        if not line.endswith(b"\n"):
            return  # what a crash left of an append: it was never published
        yield (f"line {number}" if not start else f"line {number} after byte {start}"), line[:-1]
        if last is not None and _number_of(line) > last:
            beyond += len(line)
            if beyond > DISORDER_BYTES:
                return


def _last_line(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 2 * LINE_BYTES_MAX))
    whole = [line for line in file if line.endswith(b"\n")]
    if whole:
        yield "last line", whole[-1][:-1]


def _seek(file: BinaryIO, number: int) -> int:
    """Bisect for a byte at which lines of lower blocks end; far enough before for what is out of order."""
    low, high = 0, file.seek(0, os.SEEK_END)
    while high - low > LINE_BYTES_MAX:
        middle = (low + high) // 2
        file.seek(middle)
        file.readline()
        if _number_of(file.readline()) < number:
            low = middle
        else:
            high = middle
    file.seek(max(0, low - DISORDER_BYTES))
    if file.tell():
        file.readline()
    return file.tell()


def _number_of(line: bytes) -> int:
    """Return the block of a line; one that cannot be read counts as a low one, so that it is looked at."""
    try:
        return _decode(line).number
    except (msgspec.DecodeError, ValueError):
        return 0


def _verified(line: bytes, keys: Mapping[str, Ed25519PublicKey], place: str) -> Head:
    try:
        said = _decode(line)
        head = said.head
        keys[said.key].verify(base64.b64decode(said.signature, validate=True), _signed_bytes(said))
    except (msgspec.DecodeError, ValueError) as error:
        raise BadHeadsError(f"{place}: cannot be read") from error
    except KeyError as error:
        raise BadHeadsError(f"{place}: is signed by a key that is not known, {error}") from error
    except InvalidSignature as error:
        raise BadHeadsError(f"{place}: its signature is wrong") from error
    return head


def _signed_bytes(head: PublishedHead) -> bytes:
    return _DOMAIN + _encode(msgspec.structs.replace(head, signature=""))


def _open_key(path: Path, box: SecretBox) -> Ed25519PrivateKey:
    private_files.make_directory(path.parent)
    kept = box.read(path, KEY_PLACE)
    if kept is None:
        fresh = Ed25519PrivateKey.generate()
        box.write(path, fresh.private_bytes_raw(), KEY_PLACE)
        # Another process may have been first, and then its key is the key.
        kept = box.read(path, KEY_PLACE)
        assert kept is not None, "made a moment ago"
    return Ed25519PrivateKey.from_private_bytes(kept)


def _publish_key(path: Path, key: Ed25519PublicKey) -> None:
    """Add the key to those that are there: older heads were signed by older keys."""
    there = path.read_bytes() if path.exists() else b""
    if key_id(key) not in _keys_of(there, path):
        pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        private_files.replace(path, there + pem, private_files.PUBLIC_MODE)


def _keys_of(pem: bytes, path: Path) -> dict[str, Ed25519PublicKey]:
    end = b"-----END PUBLIC KEY-----\n"
    keys: dict[str, Ed25519PublicKey] = {}
    for part in pem.replace(b"\r\n", b"\n").split(end)[:-1]:
        try:
            key = serialization.load_pem_public_key(part + end)
        except ValueError as error:
            raise BadHeadsError(f"{path} does not hold public keys") from error
        if not isinstance(key, Ed25519PublicKey):
            raise BadHeadsError(f"{path} holds a key that is not Ed25519")
        keys[key_id(key)] = key
    return keys


def _spki(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _last_of(path: Path) -> PublishedHead | None:
    """Return the last head of a file, and take away what a crash left of another one."""
    if not path.exists():
        return None
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        data = os.pread(file.fileno(), LINE_BYTES_MAX, max(0, size - LINE_BYTES_MAX))
        whole = data.rfind(b"\n") + 1
        if whole < len(data) < LINE_BYTES_MAX or 0 < whole < len(data):
            file.truncate(size - (len(data) - whole))
            os.fsync(file.fileno())
    if not data[:whole]:
        if size >= LINE_BYTES_MAX:
            raise BadHeadsError(f"{path} holds no heads: put it elsewhere")
        return None
    try:
        return _decode(data[:whole].splitlines()[-1])
    except msgspec.DecodeError as error:
        raise BadHeadsError(
            f"{path}: its last line is no head; keep the file, and put it elsewhere"
        ) from error


def _append(path: Path, line: bytes) -> None:
    made = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, private_files.PUBLIC_MODE)
    try:
        before = os.fstat(descriptor).st_size
        if os.write(descriptor, line) != len(line):
            os.ftruncate(descriptor, before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if made:
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
