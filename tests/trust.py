"""What the Trust Center's parts stand on, in a test: an authority in a directory and an empty store."""

from pathlib import Path

from infra.documents.memory import MemoryStore
from security import audit
from security.policy import Principal, Role
from security.secretbox import SecretBox
from security.trust import keys
from security.trust.authority import Authority, Issued
from security.trust.collections import COLLECTIONS
from tests.fakes import FakeClock, SeededIds

SECURITY = Principal("sam", Role.SECURITY)


def open_store() -> MemoryStore:
    return MemoryStore(COLLECTIONS, [audit.LOG])


def open_authority(directory: Path, clock: FakeClock) -> Authority:
    return Authority.open(directory / "ca", SecretBox.open(directory / "master.key", SeededIds()), clock)


def sign(authority: Authority, name: str) -> Issued:
    return authority.sign_thing(name, keys.make_key().public_key())


async def audited(store: MemoryStore) -> list[tuple[str, str, str]]:
    """Return (actor, action, target) of every row, in order."""
    page = await audit.read(store, 0, 2**62, 1_000)
    return [(row.actor, row.action, row.target) for row in page.entries]
