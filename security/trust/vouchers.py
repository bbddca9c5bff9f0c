"""The people's side of enrolment: vouchers for one device each, and the codes on labels that a vendor sends.

A code is shown once and kept as a hash. Whether somebody may make one for these premises is not asked here.
"""

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from infra.clock import Clock
from infra.documents.port import PAGE_MAX
from infra.ids import Ids
from security.audit import Via
from security.hashing import Hashing
from security.policy import Action, Principal
from security.secret import Secret
from security.secretbox import SecretBox
from security.trust import claims, codes
from security.trust.authority import Authority, UncertifiableNameError
from security.trust.claim_store import Act, ClaimPage, ClaimStore
from security.trust.claims import Claim
from security.trust.codes import ClaimKind, InvalidClaimIdError, InvalidCodeError
from security.trust.identifiers import link_key
from security.trust.proofs import Placing, Proofs

LIVE_VOUCHERS_MAX: Final = 3
"""Vouchers of one premises that may be used at a time."""
LABELS_MAX: Final = 16
"""Rows of one batch: each costs a tenth of a second of one core."""
REVOKE_ATTEMPTS_MAX: Final = 5


class VoucherError(Exception):
    """No voucher was made or changed."""


class UnfitThingError(VoucherError):
    """The thing is not as the voucher would say."""


class NoSuchThingError(VoucherError):
    """No thing of this name at these premises, wherever else one may be."""

    def __init__(self) -> None:
        super().__init__("no thing of this name is registered at these premises: register it there first")


class TooManyVouchersError(VoucherError):
    """The quota of the premises is reached."""

    def __init__(self) -> None:
        super().__init__(
            f"premises may have {LIVE_VOUCHERS_MAX} vouchers at a time: use one, take one back, or wait"
        )


class NoSuchVoucherError(VoucherError):
    """There is no voucher with this id."""

    def __init__(self) -> None:
        super().__init__("there is no such voucher")


class NoSuchLabelError(VoucherError):
    """No code is kept for a label with this EUI-64."""

    def __init__(self) -> None:
        super().__init__("no code is kept for a label with this EUI-64")


class VoucherBusyError(VoucherError):
    """Others changed it at the same time: the caller may try again."""


class InvalidLabelError(VoucherError):
    """A row of a delivery manifest cannot be a label's; nothing of the batch was kept."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(f"row {row}: {reason}")
        self.row = row


@dataclass(frozen=True, slots=True)
class NewVoucher:
    """For which device a voucher is wanted."""

    premises: str
    thing: str
    is_gateway: bool | None = None
    """None: as the thing is registered."""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    """A row of a vendor's delivery manifest. ``thing`` "" stands for the EUI-64 in small letters."""

    eui64: str
    code: Secret
    thing: str = ""
    model: str = ""


class Vouchers:
    """Makes, lists and takes back claims."""

    def __init__(
        self,
        *,
        claims: ClaimStore,
        proofs: Proofs,
        authority: Authority,
        hashing: Hashing,
        box: SecretBox,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._claims = claims
        self._proofs = proofs
        self._authority = authority
        self._hashing = hashing
        self._box = box
        self._clock = clock
        self._ids = ids
        self._quota = asyncio.Lock()

    async def make(self, new: NewVoucher, by: Principal, via: Via) -> tuple[Claim, Secret]:
        """Make a voucher; return it with its code, which is shown now and never again."""
        placing = await self._proofs.placing(new.thing)
        if placing is None or placing.premises != new.premises:
            raise NoSuchThingError
        _check_fit(new, placing)
        self._authority.check_name(new.thing)
        code = codes.new_code(self._ids)
        hash = await self._hashing.hash(code, codes.cost_of(ClaimKind.VOUCHER))
        now_ms = self._clock.now_ms()
        claim = Claim(
            id=codes.new_claim_id(self._ids),
            kind=ClaimKind.VOUCHER,
            thing=new.thing,
            hash=hash,
            maker=by.name,
            made_at_ms=now_ms,
            premises=new.premises,
            model=placing.model,
            registration=placing.registration,
            expires_at_ms=now_ms + claims.VOUCHER_LIFE_MS,
        )
        # One after the other: two at once would both find the last place free.
        async with self._quota:
            await self._put_in_quota(claim, placing.since_ms, by, via)
        return claim, codes.shown(code)

    async def of_premises(self, premises: str, limit: int, cursor: str | None = None) -> ClaimPage:
        """Return a page of the vouchers of these premises, ended ones of the last days too."""
        return await self._claims.by("premises", premises, limit, cursor)

    async def voucher(self, id: str) -> Claim:
        """Return one voucher."""
        kept = await self._claims.load(id) if _is_voucher(id) else None
        if kept is None:
            raise NoSuchVoucherError
        return kept.claim

    async def revoke(self, id: str, by: Principal, via: Via) -> None:
        """Take a voucher back; a certificate it has brought stays. One that is over stays as it is."""
        if not _is_voucher(id) or not await self._take_back(id, Act(by, via, Action.VOUCHER_CREATE)):
            raise NoSuchVoucherError

    async def load_labels(self, labels: Sequence[Label], by: Principal, via: Via) -> tuple[str, ...]:
        """Keep the codes of a delivery; return the EUI-64 of those that were there already, unchanged.

        What was used or taken back was there, too: a label's code counts once.

        Raises:
            InvalidLabelError: nothing was kept.
        """
        if len(labels) > LABELS_MAX:
            raise InvalidLabelError(LABELS_MAX + 1, f"a batch has at most {LABELS_MAX} rows")
        parsed = [self._parse(row, label) for row, label in enumerate(labels, 1)]
        if len({id for id, _ in parsed}) < len(parsed):
            raise InvalidLabelError(len(parsed), "an EUI-64 stands in the batch twice")
        made = [
            await self._label(id, code, label, by) for (id, code), label in zip(parsed, labels, strict=True)
        ]
        act = Act(by, via, Action.INSTALL_CODE_WRITE)
        known = await self._claims.put([(claim, 0, act) for claim in made]) if made else frozenset[int]()
        return tuple(made[position].id for position in sorted(known))

    def _parse(self, row: int, label: Label) -> tuple[str, bytes]:
        try:
            id, code = codes.claim_id_of_label(label.eui64), codes.parse_install_code(label.code.reveal())
            self._authority.check_name(label.thing or id)
        except InvalidClaimIdError as error:
            raise InvalidLabelError(row, "an EUI-64 is 16 hexadecimal digits") from error
        except (InvalidCodeError, UncertifiableNameError) as error:
            raise InvalidLabelError(row, str(error)) from error
        return id, code

    async def take_back_label(self, eui64: str, by: Principal, via: Via) -> None:
        """Take the code of a label back, as :meth:`revoke` does. It stays so: its device joins by voucher."""
        try:
            id = codes.claim_id_of_label(eui64)
        except InvalidClaimIdError as error:
            raise NoSuchLabelError from error
        if not await self._take_back(id, Act(by, via, Action.INSTALL_CODE_WRITE)):
            raise NoSuchLabelError

    async def _take_back(self, id: str, act: Act) -> bool:
        """Take a claim back; False when there is none."""
        for _ in range(REVOKE_ATTEMPTS_MAX):
            kept = await self._claims.load(id)
            if kept is None:
                return False
            after = claims.revoke(kept.claim, self._clock.now_ms())
            if after is kept.claim:
                return True
            if not await self._claims.put([(after, kept.revision, replace(act, reason="taken back"))]):
                return True
        raise VoucherBusyError("others use this code at the same time: try again")

    async def _label(self, id: str, code: bytes, label: Label, by: Principal) -> Claim:
        kind = ClaimKind.INSTALL_CODE
        sealed = self._box.seal(link_key(code), f"claims/{id}/link_key")
        return Claim(
            id=id,
            kind=kind,
            thing=label.thing or id,
            hash=await self._hashing.hash(codes.label_code(code), codes.cost_of(kind)),
            maker=by.name,
            made_at_ms=self._clock.now_ms(),
            model=label.model,
            link_key=base64.b64encode(sealed).decode(),
        )

    async def _put_in_quota(self, claim: Claim, since_ms: int, by: Principal, via: Via) -> None:
        if await self._live_at(claim.premises, since_ms) >= LIVE_VOUCHERS_MAX:
            raise TooManyVouchersError
        await self._claims.put([(claim, 0, Act(by, via, Action.VOUCHER_CREATE))])
        # Another process may have made one meanwhile. Whoever is written last sees all of them; nobody has
        # been told this code.
        if await self._live_at(claim.premises, since_ms) > LIVE_VOUCHERS_MAX:
            await self.revoke(claim.id, by, via)
            raise TooManyVouchersError

    async def _live_at(self, premises: str, since_ms: int) -> int:
        """Count the vouchers there that could still be used for the first time, as far as a page goes."""
        now_ms = self._clock.now_ms()
        page = await self._claims.by("open", premises, PAGE_MAX)
        live = sum(
            claims.is_live(one, now_ms) and claims.is_of(one, premises, since_ms) for one in page.claims
        )
        return PAGE_MAX if page.next else live


def _check_fit(new: NewVoucher, placing: Placing) -> None:
    if not placing.has_certificate:
        raise UnfitThingError("this thing has no certificate of its own: its gateway vouches for it")
    if placing.barred:
        raise UnfitThingError("this thing is revoked or suspended: it gets no certificate now")
    if new.is_gateway is not None and placing.is_gateway != new.is_gateway:
        raise UnfitThingError(f"this thing is a {'gateway' if placing.is_gateway else 'device'}")
    if new.model and new.model != placing.model:
        raise UnfitThingError("this thing is of another model")


def _is_voucher(id: str) -> bool:
    try:
        return codes.kind_of(id) is ClaimKind.VOUCHER
    except InvalidClaimIdError:
        return False
