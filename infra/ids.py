"""Chance and identity: the only source of random tokens and numbers.

Whoever needs an id that nobody may guess, or that must not be met twice, takes an :class:`Ids`.
Simulated chance (jitter of a fleet, physics) is a seeded ``random.Random`` and does not come from here.
"""

import base64
import secrets
from typing import Protocol

TOKEN_BITS = 128
NUMBER_BITS = 63


class Ids(Protocol):
    """Makes values that nobody made before; tests bring a seeded one."""

    def token(self, bits: int = TOKEN_BITS) -> str:
        """Return at least ``bits`` random bits in lower-case base32 without padding."""
        ...

    def number(self) -> int:
        """Return 63 random bits: fits a signed 64-bit field."""
        ...


class RandomIds:
    """Ids from the operating system's generator, fit for secrets."""

    __slots__ = ()

    def token(self, bits: int = TOKEN_BITS) -> str:
        return encode(secrets.token_bytes(-(-bits // 8)))

    def number(self) -> int:
        return secrets.randbits(NUMBER_BITS)


def encode(data: bytes) -> str:
    """Spell bytes in lower-case base32 without padding: fit for names, topics and URLs."""
    return base64.b32encode(data).rstrip(b"=").decode().lower()
