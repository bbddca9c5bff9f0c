"""Who asks for something, how it came in, and under which conditions it is to count."""

import hashlib
from dataclasses import dataclass
from typing import Final

from infra.ids import encode
from security.audit import INSIDE, Via
from security.policy import Principal

_KEY_BYTES: Final = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One act of a principal.

    ``key`` is its ``Idempotency-Key``, ``digest`` tells what was asked under it and holds no secret: a repeat
    with the same digest has its effect once, one with another is refused. ``if_match`` is the revision the
    caller has seen; None: whatever it is now.
    """

    by: Principal
    via: Via = INSIDE
    if_match: int | None = None
    key: str
    digest: str = ""

    def id(self, prefix: str) -> str:
        """Return the id of what is made by this act: the same each time."""
        return prefix + encode(_hash(f"{prefix}\0{self.by.name}\0{self.key}")[:_KEY_BYTES])

    @property
    def key_hash(self) -> str:
        """What of the key is kept: it may be a text of the caller's."""
        return encode(_hash(f"{self.by.name}\0{self.key}")[:_KEY_BYTES])


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
