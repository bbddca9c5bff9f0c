"""The Trust Center put together: what enrols, renews and proves, over one store."""

from dataclasses import dataclass

from infra.clock import Clock
from infra.documents.port import DocumentStore
from infra.ids import Ids
from infra.telemetry import Metrics
from security.audit import Refusals
from security.hashing import Hashing
from security.secretbox import SecretBox
from security.trust.authority import Authority
from security.trust.claim_store import ClaimStore
from security.trust.enrolment import Enrolment
from security.trust.issued import IssuedStore
from security.trust.known_keys import KnownKeys
from security.trust.pins import Pins
from security.trust.proofs import Proofs
from security.trust.tries import Tries
from security.trust.vouchers import Vouchers


@dataclass(frozen=True, slots=True)
class TrustCenter:
    """All that is asked of it, but revocation."""

    authority: Authority
    issued: IssuedStore
    keys: KnownKeys
    enrolment: Enrolment
    vouchers: Vouchers
    pins: Pins


def open_center(
    store: DocumentStore,
    *,
    authority: Authority,
    issued: IssuedStore,
    box: SecretBox,
    hashing: Hashing,
    proofs: Proofs,
    refusals: Refusals,
    clock: Clock,
    ids: Ids,
    metrics: Metrics,
) -> TrustCenter:
    """Return the Trust Center over an open store; its parts share limits, claims and keys."""
    claims, keys = ClaimStore(store, clock), KnownKeys(store, clock)
    enrolment = Enrolment(
        claims=claims,
        issued=issued,
        keys=keys,
        tries=Tries(clock),
        hashing=hashing,
        authority=authority,
        proofs=proofs,
        refusals=refusals,
        clock=clock,
    )
    enrolment.show(metrics)
    vouchers = Vouchers(
        claims=claims, proofs=proofs, authority=authority, hashing=hashing, box=box, clock=clock, ids=ids
    )
    pins = Pins(store, issued=issued, proofs=proofs, box=box, refusals=refusals, clock=clock)
    return TrustCenter(authority, issued, keys, enrolment, vouchers, pins)
