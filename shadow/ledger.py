"""The last client tokens of a shadow, so that a repeated request has its effect exactly once.

A ledger is immutable bytes inside the document: records of 41 bytes, oldest first, so that keeping
one costs a copy of about a kilobyte and no decoding. A token is kept as 64 bits of its SHA-256: a
collision among some dozen tokens could only make a repeat be judged anew, never replay a wrong answer,
because a replay also needs 128 bits of the body's hash to agree. (spec: shadow, section 11, E1)
"""

import hashlib
import struct
from typing import Final

import msgspec

from infra.settings.model import ShadowLimits

DIGEST_BYTES: Final = 16
UPDATE: Final = 1
DELETE: Final = 2

_NOT_UNIQUE: Final = 0x80
_RECORD = struct.Struct(">8s16sBQQ")
_AT = struct.Struct(">Q")
_AT_OFFSET = _RECORD.size - _AT.size
NO_TOKENS: Final = b""


class Answered(msgspec.Struct, frozen=True, gc=False):
    """What was answered to a token: enough to build the same answer from the same request."""

    digest: bytes
    operation: int
    unique: bool
    version: int
    timestamp: int

    def answers(self, digest: bytes, operation: int) -> bool:
        """Tell whether it was this very request that was answered."""
        return self.digest == digest[:DIGEST_BYTES] and self.operation == operation


def digest_of(payload: bytes) -> bytes:
    """Return the SHA-256 of a body; its first 128 bits tell two bodies apart."""
    return hashlib.sha256(payload).digest()


def token_hash(token: str) -> bytes:
    """Return the 64 bits that stand for a token."""
    return hashlib.sha256(token.encode()).digest()[:8]


def key_hash(key: str) -> bytes:
    """Return the 64 bits that stand for an Idempotency-Key; no token is hashed with that first byte."""
    return hashlib.sha256(b"\xff" + key.encode()).digest()[:8]


def find(ledger: bytes, token: bytes, now_s: int, limits: ShadowLimits) -> Answered | None:
    """Return what was answered to the token with this hash, if it is still known."""
    at = _offset(ledger, token)
    if at < 0:
        return None
    _, digest, flags, version, timestamp = _RECORD.unpack_from(ledger, at)
    if timestamp < now_s - limits.dedup_age_s:
        return None
    return Answered(digest, flags & ~_NOT_UNIQUE, not flags & _NOT_UNIQUE, version, timestamp)


def remember(ledger: bytes, token: bytes, answered: Answered, limits: ShadowLimits) -> bytes:
    """Return the ledger with this answer as its newest, and without what is too old or too many.

    A unique token has no record yet, but perhaps one that is too old.
    """
    known = -1 if answered.unique else _offset(ledger, token)
    if known >= 0:
        ledger = ledger[:known] + ledger[known + _RECORD.size :]
    end = len(ledger)
    first = max(0, end - (limits.dedup_records_max - 1) * _RECORD.size)
    oldest_kept = answered.timestamp - limits.dedup_age_s
    while first < end and _AT.unpack_from(ledger, first + _AT_OFFSET)[0] < oldest_kept:
        first += _RECORD.size
    flags = answered.operation | (0 if answered.unique else _NOT_UNIQUE)
    return ledger[first:] + _RECORD.pack(token, answered.digest, flags, answered.version, answered.timestamp)


def _offset(ledger: bytes, token: bytes) -> int:
    at = ledger.find(token)
    while at >= 0 and at % _RECORD.size:
        at = ledger.find(token, at + 1)
    return at
