"""What the Trust Center's parts stand on, in a test: an authority in a directory and an empty store."""

from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from infra.documents.memory import MemoryStore
from infra.documents.port import DocumentStore
from security import audit
from security.audit import INSIDE, Decision, Refusals
from security.hashing import Hashing
from security.policy import Principal, Role
from security.secretbox import SecretBox
from security.trust import keys
from security.trust.authority import Authority, Issued
from security.trust.claim_store import ClaimStore
from security.trust.collections import COLLECTIONS
from security.trust.enrolment import Enrolment, Source
from security.trust.issued import IssuedStore
from security.trust.known_keys import KnownKeys
from security.trust.pins import Pins
from security.trust.proofs import Placing
from security.trust.tries import Tries
from security.trust.vouchers import NewVoucher, Vouchers
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


class KnownThings:
    """Things that are where a test says; notes what was reported of them."""

    def __init__(self) -> None:
        self.placed: dict[str, Placing] = {}
        self.accepted: list[tuple[str, str, str]] = []

    def place(self, thing: str, premises: str = "home-7", **facts: Any) -> None:
        facts = {"is_gateway": False, "model": "acme", **facts}
        self.placed[thing] = Placing(premises, **facts)

    async def placing(self, thing: str, *, fresh: bool = False) -> Placing | None:
        return self.placed.get(thing)

    async def proof_accepted(self, thing: str, kind: str, serial: str) -> None:
        self.accepted.append((thing, kind, serial))


class Center:
    """The whole Trust Center over one store; a second one over the same store is another process."""

    def __init__(self, directory: Path, clock: FakeClock, store: DocumentStore, seed: int = 0) -> None:
        self.clock, self.store, self.ids = clock, store, SeededIds(seed)
        self.box = SecretBox.open(directory / "master.key", SeededIds())
        self.authority = Authority.open(directory / "ca", self.box, clock)
        self.things = KnownThings()
        self.things.place("hall")
        self.hashing = Hashing(cores=2)
        self.refusals = Refusals(store, clock, self.ids)
        self.tries = Tries(clock)
        self.issued = IssuedStore(store, clock)
        self.keys = KnownKeys(store, clock)
        self.claims = ClaimStore(store, clock)
        self.enrolment = Enrolment(
            claims=self.claims,
            issued=self.issued,
            keys=self.keys,
            tries=self.tries,
            hashing=self.hashing,
            authority=self.authority,
            proofs=self.things,
            refusals=self.refusals,
            clock=clock,
        )
        self.vouchers = Vouchers(
            claims=self.claims,
            proofs=self.things,
            authority=self.authority,
            hashing=self.hashing,
            box=self.box,
            clock=clock,
            ids=self.ids,
        )
        self.pins = Pins(
            store,
            issued=self.issued,
            proofs=self.things,
            box=self.box,
            refusals=self.refusals,
            clock=clock,
        )

    async def voucher(self, thing: str = "hall", **facts: Any) -> tuple[str, str]:
        """Return (claim id, code) of a new voucher."""
        facts = {"premises": "home-7", "is_gateway": False, **facts}
        claim, code = await self.vouchers.make(NewVoucher(thing=thing, **facts), ADA, INSIDE)
        return claim.id, code.reveal()

    async def enrol(self, id: str, code: str, request: bytes, address: str = "a", gateway: str = "") -> bytes:
        return await self.enrolment.enrol(id, code, request, Source(address, INSIDE, gateway))

    async def refused(self) -> list[tuple[str, str, int]]:
        """Return (target, reason, count) of the refusals."""
        await self.refusals.flush()
        page = await audit.read(self.store, 0, 2**62, 1_000)
        return [
            (row.target, row.reason, row.count) for row in page.entries if row.decision is Decision.REFUSED
        ]


ADA = Principal("ada", Role.CUSTOMER)


def request(name: str = "hall") -> bytes:
    """Return a request with a new key."""
    return keys.request(keys.make_key(), name)


def names_of(chain: bytes) -> tuple[str, str]:
    """Return common name and serial of the first certificate."""
    leaf = x509.load_pem_x509_certificates(chain)[0]
    (name,) = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value), f"{leaf.serial_number:032x}"
