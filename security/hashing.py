"""Slow hashes (argon2id) of passwords and codes, made beside the event loop, one per core at a time.

A hash is the dearest thing that somebody without any right can ask for, so the work that may wait is bounded,
in milliseconds and not in requests: a code of 128 random bits costs a 25th of a password. What comes above
the bound is refused at once. Limits on tries are asked *before* this module.
"""

import asyncio
import base64
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from security.secret import Secret

WAITING_MS_MAX: Final = 1_000
"""Work that one core may have before it; above it :class:`HashingBusyError`."""
_SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32

T = TypeVar("T")


class HashingBusyError(Exception):
    """As much is waiting to be hashed as may wait: the caller may try again in a second."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one guess costs; ``about_ms`` is what it was measured at and only weighs it against others."""

    passes: int
    memory_kib: int
    lanes: int
    about_ms: int

    def hasher(self) -> PasswordHasher:
        """Return the library's hasher of this cost."""
        return PasswordHasher(self.passes, self.memory_kib, self.lanes, _HASH_BYTES, _SALT_BYTES)

    def nobody(self) -> str:
        """Return a hash that nothing has: verifying against it costs the same, and fails."""
        salt, hash = (
            base64.b64encode(bytes(size)).rstrip(b"=").decode() for size in (_SALT_BYTES, _HASH_BYTES)
        )
        return f"$argon2id$v=19$m={self.memory_kib},t={self.passes},p={self.lanes}${salt}${hash}"


LIGHT: Final = Cost(1, 8_192, 1, about_ms=4)
"""For codes of 128 random bits: no number of guesses finds one, the hash only hides it in a backup."""
FULL: Final = Cost(3, 65_536, 4, about_ms=102)
"""The library's default (RFC 9106, second choice): for passwords and codes that are shorter."""


class Hashing:
    """Hashes and verifies; shared by all who need it, so that the bound holds for the process."""

    def __init__(self, *, cores: int | None = None, waiting_ms_max: int = WAITING_MS_MAX) -> None:
        self._cores = cores or os.cpu_count() or 1
        self._waiting_ms_max = waiting_ms_max * self._cores
        self._waiting_ms = 0
        self._pool = ThreadPoolExecutor(self._cores, thread_name_prefix="hashing")

    async def hash(self, secret: Secret, cost: Cost) -> str:
        """Return the salted hash of a secret, with its cost in it, as one text.

        Raises:
            HashingBusyError: as much is waiting as may.
        """
        return await self._beside(cost, lambda: cost.hasher().hash(secret.reveal()))

    async def verify(self, hash: str | None, secret: Secret, cost: Cost) -> bool:
        """Tell whether this is the secret of that hash; ``None`` takes as long, and is never true.

        Raises:
            HashingBusyError: as much is waiting as may.
        """
        found = hash or cost.nobody()
        matches = await self._beside(cost, lambda: _verify(cost, found, secret))
        return matches and hash is not None

    def close(self) -> None:
        """Let go of the threads; what is waiting is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _beside(self, cost: Cost, work: Callable[[], T]) -> T:
        if self._waiting_ms + cost.about_ms > self._waiting_ms_max:
            raise HashingBusyError("too much is waiting to be hashed: try again in a second")
        self._waiting_ms += cost.about_ms
        done = asyncio.get_running_loop().run_in_executor(self._pool, work)
        done.add_done_callback(lambda _: self._less(cost))
        # A caller who goes away does not end the thread's work, so it must go on counting.
        return await asyncio.shield(done)

    def _less(self, cost: Cost) -> None:
        self._waiting_ms -= cost.about_ms


def _verify(cost: Cost, hash: str, secret: Secret) -> bool:
    try:
        return cost.hasher().verify(hash, secret.reveal())
    except (VerificationError, InvalidHashError):
        return False
