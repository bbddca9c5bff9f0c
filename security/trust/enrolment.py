"""A device becomes known: a code or a current certificate, and a key of its own, for a certificate.

The order of checks is the point (spec: security, 4.4): limits, the claim and its code, the request and its
signature, that the thing is there, that the key was never seen, who has to approve; then the claim is used up
*before* anything is signed, the certificate is kept *before* it is answered. Each step may be the last one
before a crash: the same code with the same key goes on where it ended, and gets the same certificate.

Once it is kept, the registry is asked again: a thing may have been removed meanwhile. Who removes bars it
first and then revokes what is kept, so that one of the two sees the other.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import structlog
from cryptography import x509

from infra.clock import MS_PER_S, Clock
from infra.documents.port import StoreBrokenError
from infra.telemetry import Metrics
from infra.telemetry.metrics import Count
from security.audit import NOBODY, Actor, Refusals, Via
from security.hashing import Hashing, HashingBusyError
from security.policy import Action, Principal, Role
from security.tries import TooManyTriesError
from security.trust import certificates, claims, codes
from security.trust.authority import Authority, Issued
from security.trust.certificates import AuthorityError
from security.trust.claim_store import Act, ClaimStore, Kept
from security.trust.claims import Claim, ClaimError, OverError, SpentError
from security.trust.codes import Entered, InvalidClaimIdError, InvalidCodeError
from security.trust.issued import IssuedRecord, IssuedState, IssuedStore
from security.trust.known_keys import Bringer, KeyKnownError, KnownKeys
from security.trust.proofs import IN_PERSON, Placing, Proofs
from security.trust.requests import InvalidRequestError, Request, parse_request
from security.trust.tries import Tries

__all__ = ["REFUSALS", "Enrolment", "Source"]

CHANGE_ATTEMPTS_MAX: Final = 5
GRACE_MS: Final = 24 * 3_600 * MS_PER_S
"""How long an old certificate lives beside its successor, and the shortest time between two renewals."""
RENEWAL_NUMERATOR, RENEWAL_DENOMINATOR = 2, 3
"""The share of a certificate's life after which it may be renewed."""
GOOD_MAX: Final = 16
"""Good certificates of one thing; codes bring no more. A renewal ends the one before, so it adds none."""
APPROVAL_RETRY_S: Final = 300
TIDY_S: Final = 300.0
KEEP_ENDED_MS: Final = 7 * 24 * 3_600 * MS_PER_S
"""How long an ended voucher can still be listed."""
TIDY_PAGE: Final = 500
SYSTEM: Final = Principal("trust-center", Role.SYSTEM)
OVERTAKEN: Final = "overtaken"
"""The reason of what was signed while its thing went, or went to others."""
UNKNOWN_CLAIM: Final = "claim"
UNKNOWN_CERTIFICATE: Final = "certificate"
"""Targets of refusals that name nothing of ours: what a stranger sends is not written down."""

_log: Final = structlog.get_logger(__name__)


class EnrolmentError(Exception):
    """No certificate was given out."""


class WrongCodeError(EnrolmentError):
    """No such claim, or not its code: the two are not told apart."""

    def __init__(self, target: str) -> None:
        super().__init__("this claim and this code do not belong together")
        self.target = target
        """The claim, if there is one; only we may know."""


class NotPlacedError(EnrolmentError):
    """The thing is not registered where the claim says, or is barred, or has no use for a certificate."""

    def __init__(self) -> None:
        super().__init__("the thing of this claim may not have a certificate now: ask who gave you the code")


class TooManyCertificatesError(EnrolmentError):
    """The thing has as many good certificates as one may have."""

    def __init__(self) -> None:
        super().__init__(
            f"this thing has {GOOD_MAX} good certificates: older ones end a day after newer ones"
        )


class AwaitingApprovalError(EnrolmentError):
    """A person must approve; the same request may come again later."""

    def __init__(self) -> None:
        super().__init__("a person must approve this first: send the same request again later")
        self.retry_s = APPROVAL_RETRY_S


class UnknownCertificateError(EnrolmentError):
    """The certificate that was shown is none of ours, or worth nothing any more."""

    def __init__(self) -> None:
        super().__init__("this certificate is not, or no longer, good")


class RenewalTooEarlyError(EnrolmentError):
    """A certificate is renewed in the last third of its life, and once a day."""

    def __init__(self, wait_s: int) -> None:
        super().__init__("a certificate is renewed in the last third of its life, and at most once a day")
        self.retry_s = wait_s


class EnrolmentBusyError(EnrolmentError):
    """Others kept changing the same record: the caller may try again."""

    def __init__(self) -> None:
        super().__init__("others use this code at the same time: try again")


REFUSALS: Final = (
    EnrolmentError,
    ClaimError,
    KeyKnownError,
    InvalidClaimIdError,
    InvalidCodeError,
    InvalidRequestError,
    TooManyTriesError,
    HashingBusyError,
    AuthorityError,
)
"""Everything by which an enrolment is refused."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a request came from: the address, the way in, and the gateway whose connection brought it."""

    address: str
    via: Via
    gateway: str = ""


class Enrolment:
    """Gives out certificates."""

    def __init__(
        self,
        *,
        claims: ClaimStore,
        issued: IssuedStore,
        keys: KnownKeys,
        tries: Tries,
        hashing: Hashing,
        authority: Authority,
        proofs: Proofs,
        refusals: Refusals,
        clock: Clock,
    ) -> None:
        self._claims = claims
        self._issued = issued
        self._keys = keys
        self._tries = tries
        self._hashing = hashing
        self._authority = authority
        self._proofs = proofs
        self._refusals = refusals
        self._clock = clock
        self.certificates, self.renewals, self.reuses = Count(), Count(), Count()

    # ------------------------------------------------------------------ by a code

    async def enrol(self, claim_id: str, code: str, request: bytes, source: Source) -> bytes:
        """Return the certificate for the key of a request, with its issuer's (PEM).

        Raises one of :data:`REFUSALS`, and then nothing was given out.
        """
        target = UNKNOWN_CLAIM
        try:
            self._tries.arrive(source.address)
            claim = await self._prove(claim_id, codes.parse(claim_id, code))
            target = _target(claim)
            return await self._enrol(claim, request, source)
        except REFUSALS as error:
            known = error.target if isinstance(error, WrongCodeError) else target
            self._note(NOBODY, known, error, source)
            raise

    async def _enrol(self, claim: Claim, request: bytes, source: Source) -> bytes:
        parsed = parse_request(request)
        placing = await self._place(claim)
        gateway = claim.thing if placing.is_gateway else source.gateway
        self._check_unused(claim, parsed, gateway)
        await self._check_room(claim)
        by = Principal(claim.thing, Role.GATEWAY if placing.is_gateway else Role.DEVICE)
        bringer = Bringer(claim.thing, f"claim {claim.id}", placing.registration)
        await self._keys.introduce(parsed.spki_sha256, bringer, by, source.via)
        if placing.waiting:
            raise AwaitingApprovalError
        act = Act(by, source.via, Action.CERTIFICATE_ENROL, cause=claim.maker)
        used = await self._use_up(claim.id, parsed, gateway, placing.registration, act)
        used = used if used.certificate else await self._sign(used, parsed)
        return await self._hand_out(used, placing, by, source.via)

    async def _prove(self, claim_id: str, entered: Entered) -> Claim:
        """Return the claim to which this code belongs; an unknown one costs the same and hears the same."""
        async with self._tries.attempt(claim_id, entered.cost):
            kept = await self._claims.load(claim_id)
            hash = None if kept is None else kept.claim.hash
            right = await self._hashing.verify(hash, entered.code, entered.cost)
            if kept is None or not right:
                self._tries.wrong(claim_id)
                raise WrongCodeError(UNKNOWN_CLAIM if kept is None else _target(kept.claim))
            return kept.claim

    async def _place(self, claim: Claim) -> Placing:
        placing = await self._placed(claim.thing)
        if claim.premises and not claims.is_of(claim, placing.premises, placing.since_ms):
            raise NotPlacedError
        if claim.registration not in {0, placing.registration}:
            raise NotPlacedError
        return placing

    async def _placed(self, thing: str) -> Placing:
        placing = await self._proofs.placing(thing)
        if placing is None or not placing.may_have_certificate:
            raise NotPlacedError
        self._authority.check_name(thing)
        return placing

    def _check_unused(self, claim: Claim, parsed: Request, gateway: str) -> None:
        """Raise if this key comes too late, before the key is noted as brought."""
        try:
            claims.use(claim, parsed.spki_sha256, gateway, self._clock.now_ms())
        except SpentError:
            self._alarm(claim.id, claim.thing)
            raise

    async def _check_room(self, claim: Claim) -> None:
        """Raise if the thing has enough; who has used this claim is only told again."""
        if claim.spki:
            return
        now_ms = self._clock.now_ms()
        kept = await self._issued.not_revoked(claim.thing)
        if sum(record.is_good(now_ms) for record in kept) >= GOOD_MAX:
            raise TooManyCertificatesError

    async def _use_up(
        self, claim_id: str, parsed: Request, gateway: str, registration: int, act: Act
    ) -> Claim:
        """Mark the claim as used by this key; of many at once one gets through."""
        now_ms = self._clock.now_ms()

        def use(claim: Claim) -> Claim:
            used = claims.use(claim, parsed.spki_sha256, gateway, now_ms)
            return used if used is claim else replace(used, registration=registration)

        try:
            return await self._change(claim_id, use, act)
        except SpentError:
            self._alarm(claim_id, act.by.name)
            raise

    async def _sign(self, claim: Claim, parsed: Request) -> Claim:
        """Sign for the key that won. Of two at once for that same key the first certificate counts."""
        issued = self._authority.sign_thing(claim.thing, parsed.public_key)

        def answer(claim: Claim) -> Claim:
            return claims.answered(claim, issued.serial, issued.chain_pem.decode())

        return await self._change(claim.id, answer, None)

    async def _hand_out(self, claim: Claim, placing: Placing, by: Principal, via: Via) -> bytes:
        chain = claim.certificate.encode()
        reason = f"{claim.kind} {claim.id}"
        record = await self._record(claim.thing, placing, chain, by, via, claim.maker, reason)
        await self._proofs.proof_accepted(claim.thing, claim.kind, record.serial)
        self.certificates.inc()
        return chain

    async def _change(self, claim_id: str, decide: Callable[[Claim], Claim], act: Act | None) -> Claim:
        for _ in range(CHANGE_ATTEMPTS_MAX):
            kept: Kept | None = await self._claims.load(claim_id)
            if kept is None:
                raise OverError
            after = decide(kept.claim)
            if after is kept.claim or not await self._claims.put([(after, kept.revision, act)]):
                return after
        raise EnrolmentBusyError

    # ------------------------------------------------------------------ by the current certificate

    async def renew(self, serial: str, request: bytes, source: Source) -> bytes:
        """Return a certificate for a new key of whoever shows the one with this serial; see :meth:`enrol`."""
        record = await self._issued.by_serial(serial, fresh=True)
        by: Actor = NOBODY if record is None else Principal(record.thing, Role.DEVICE)
        try:
            return await self._renew(record, request, source)
        except REFUSALS as error:
            self._note(by, UNKNOWN_CERTIFICATE if record is None else f"certificate/{serial}", error, source)
            raise

    async def _renew(self, record: IssuedRecord | None, request: bytes, source: Source) -> bytes:
        if record is None or not record.is_good(self._clock.now_ms()):
            raise UnknownCertificateError
        placing = await self._placed(record.thing)
        if record.registration != placing.registration:
            raise NotPlacedError
        parsed = parse_request(request)
        by = Principal(record.thing, Role.GATEWAY if placing.is_gateway else Role.DEVICE)
        self._renewing(record, parsed.spki_sha256)
        bringer = Bringer(record.thing, f"renewal {record.serial}", placing.registration)
        await self._keys.introduce(parsed.spki_sha256, bringer, by, source.via)
        begun = await self._begin_renewal(record.serial, parsed, by, source.via)
        begun = begun if begun.renewal else await self._sign_renewal(begun, parsed)
        chain = begun.renewal.encode()
        reason = f"renewal {record.serial}"
        successor = await self._record(record.thing, placing, chain, by, source.via, "", reason)
        await self._proofs.proof_accepted(record.thing, "certificate", successor.serial)
        self.renewals.inc()
        return chain

    def _renewing(self, record: IssuedRecord, spki: str) -> IssuedRecord:
        """Return the record as renewed by this key, or raise when it is too early."""
        now_ms = self._clock.now_ms()
        if record.renewal_spki == spki:
            return record
        life_ms = record.not_after_ms - record.not_before_ms
        from_ms = record.not_before_ms + life_ms * RENEWAL_NUMERATOR // RENEWAL_DENOMINATOR
        if record.renewed_at_ms is not None:
            from_ms = max(from_ms, record.renewed_at_ms + GRACE_MS)
        if now_ms < from_ms:
            raise RenewalTooEarlyError(-((now_ms - from_ms) // MS_PER_S))
        return replace(record, renewal_spki=spki, renewed_at_ms=now_ms, renewal="")

    async def _begin_renewal(self, serial: str, parsed: Request, by: Principal, via: Via) -> IssuedRecord:
        def begin(record: IssuedRecord) -> IssuedRecord:
            if not record.is_good(self._clock.now_ms()):
                raise UnknownCertificateError
            return self._renewing(record, parsed.spki_sha256)

        begun = await self._issued.change(serial, begin, by, via, Action.CERTIFICATE_ENROL, "renewal")
        assert begun is not None, "records are not deleted"
        return begun

    async def _sign_renewal(self, record: IssuedRecord, parsed: Request) -> IssuedRecord:
        chain = self._authority.sign_thing(record.thing, parsed.public_key).chain_pem.decode()

        def answer(kept: IssuedRecord) -> IssuedRecord:
            mine = kept.renewal_spki == parsed.spki_sha256 and not kept.renewal
            return replace(kept, renewal=chain) if mine else kept

        answered = await self._issued.change(record.serial, answer)
        assert answered is not None, "records are not deleted"
        if answered.renewal_spki != parsed.spki_sha256:
            raise EnrolmentBusyError
        return answered

    # ------------------------------------------------------------------ ours: the demo

    async def certify(self, thing: str, request: bytes, by: Principal, via: Via) -> Issued:
        """Return a certificate for a thing that somebody of ours answers for in person, without a code."""
        placing = await self._placed(thing)
        parsed = parse_request(request)
        bringer = Bringer(thing, f"by {by.name}", placing.registration)
        await self._keys.introduce(parsed.spki_sha256, bringer, by, via)
        issued = self._authority.sign_thing(thing, parsed.public_key)
        await self._issued.record(
            issued, thing, by, via, reason="in person", registration=placing.registration
        )
        await self._check_still(thing, placing, issued.serial, via)
        await self._proofs.proof_accepted(thing, IN_PERSON, issued.serial)
        self.certificates.inc()
        return issued

    # ------------------------------------------------------------------ keeping

    async def _record(
        self, thing: str, placing: Placing, chain: bytes, by: Principal, via: Via, cause: str, reason: str
    ) -> IssuedRecord:
        """Keep a certificate before it is answered; what the thing had before lives a day longer."""
        issued = _issued(chain)
        others = await self._issued.not_revoked(thing)
        before = tuple(
            one.serial for one in others if one.state is IssuedState.ACTIVE and one.serial != issued.serial
        )
        record = await self._issued.record(
            issued,
            thing,
            by,
            via,
            cause,
            reason=reason,
            registration=placing.registration,
            supersedes=before,
            supersedes_at_ms=self._clock.now_ms() + GRACE_MS,
        )
        if record.state is not IssuedState.ACTIVE:
            # Answered before, and taken back since.
            raise OverError
        await self._check_still(thing, placing, record.serial, via)
        return record

    async def _check_still(self, thing: str, before: Placing, serial: str, via: Via) -> None:
        """Revoke a certificate that is kept by now, and raise, unless its thing is what it was."""
        now = await self._proofs.placing(thing, fresh=True)
        if now is None or not now.may_have_certificate or not now.is_same(before):
            await self._issued.revoke([serial], OVERTAKEN, SYSTEM, via, thing)
            raise NotPlacedError

    def _note(self, by: Actor, target: str, error: Exception, source: Source) -> None:
        self._refusals.note(by, source.via, Action.CERTIFICATE_ENROL, target, type(error).__name__)

    def _alarm(self, claim_id: str, thing: str) -> None:
        self.reuses.inc()
        _log.error("enrolment_code_reused", claim=claim_id, thing=thing)

    # ------------------------------------------------------------------ beside

    async def run(self, superseded: Callable[[], None]) -> None:
        """End old certificates a day after their successors, and forget ended vouchers, until cancelled.

        ``superseded`` is called when some have ended. A broken store alone ends it.
        """
        while True:
            try:
                if await self.tidy():
                    superseded()
            except StoreBrokenError:
                raise
            except Exception as error:  # noqa: BLE001 - what is left is tidied next time, and the service goes on
                _log.warning("enrolment_not_tidied", reason=repr(error))
            await asyncio.sleep(TIDY_S)

    async def tidy(self) -> int:
        """Do that once; return how many successors made older certificates end."""
        successors = await self._issued.supersede_due(SYSTEM)
        await self._claims.drop_ended(self._clock.now_ms() - KEEP_ENDED_MS, TIDY_PAGE)
        return successors

    def show(self, metrics: Metrics) -> None:
        """Let the metrics be read."""
        metrics.counter(
            "certificates_issued", "Certificates given to things", lambda: self.certificates.value
        )
        metrics.counter(
            "certificates_renewed", "Certificates given for older ones", lambda: self.renewals.value
        )
        metrics.counter(
            "enrolment_codes_reused", "Right codes that were used already", lambda: self.reuses.value
        )
        metrics.counter(
            "enrolment_keys_known", "Keys that were brought twice", lambda: self._keys.duplicates.value
        )
        self._tries.show(metrics)


def _target(claim: Claim) -> str:
    return f"claim/{claim.id}"


def _issued(chain: bytes) -> Issued:
    leaf, issuer = x509.load_pem_x509_certificates(chain)
    return certificates.issued(leaf, issuer)
