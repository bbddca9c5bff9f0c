"""A claim: the right to one certificate for one thing, proved by a code. Its life is a table. Pure.

``USED`` names the key it was used for, and that is decided before anything is signed: of a hundred uses at
once one wins. The same code with the same key hears the same certificate again for as long as the claim
lives, because an answer can be lost; with any other key it is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from security.trust.codes import ClaimKind

VOUCHER_LIFE_MS: Final = 24 * 3_600_000


class State(StrEnum):
    """Where a claim is in its life."""

    ISSUED = "issued"
    USED = "used"
    EXPIRED = "expired"
    REVOKED = "revoked"


class Trigger(StrEnum):
    """What moves a claim on."""

    USE = "use"
    REPEAT = "repeat"
    """A use by the key that has used it already."""
    EXPIRE = "expire"
    REVOKE = "revoke"


NEXT: Final[Mapping[tuple[State, Trigger], State]] = MappingProxyType(
    {
        (State.ISSUED, Trigger.USE): State.USED,
        (State.ISSUED, Trigger.EXPIRE): State.EXPIRED,
        (State.ISSUED, Trigger.REVOKE): State.REVOKED,
        (State.USED, Trigger.REPEAT): State.USED,
        (State.USED, Trigger.EXPIRE): State.EXPIRED,
        (State.USED, Trigger.REVOKE): State.REVOKED,
    }
)
FINAL: Final = frozenset(State) - {state for state, _ in NEXT}


class ClaimError(Exception):
    """The claim does not do what was asked of it."""


class SpentError(ClaimError):
    """It was used already, by another key or through another gateway."""

    def __init__(self) -> None:
        super().__init__("this code has been used: ask for a new one")


class OverError(ClaimError):
    """It has expired or was taken back."""

    def __init__(self) -> None:
        super().__init__("this code is no longer good: ask for a new one")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What is kept of a claim. The code itself is not."""

    id: str
    kind: ClaimKind
    thing: str
    hash: str
    """Argon2id of the code, with salt and cost in it."""
    maker: str
    made_at_ms: int
    premises: str = ""
    """Where the thing has to be; "" for a label, which knows nothing of premises."""
    model: str = ""
    registration: int = 0
    """Of the thing, since the voucher was made or the label used; 0 for a label that nobody has used."""
    expires_at_ms: int | None = None
    """None: it ends with its first use."""
    state: State = State.ISSUED
    spki: str = ""
    """SHA-256 of the key that used it."""
    gateway: str = ""
    """The first gateway that used it: the thing itself, or the one whose connection brought the request."""
    used_at_ms: int | None = None
    certificate: str = ""
    """What was issued (leaf and issuing certificate, PEM), for an answer that was lost."""
    serial: str = ""
    link_key: str = ""
    """Of a label: sealed, base64."""


def state_at(claim: Claim, now_ms: int) -> State:
    """Return the state, with the time that has passed."""
    if claim.expires_at_ms is None or now_ms < claim.expires_at_ms:
        return claim.state
    return NEXT.get((claim.state, Trigger.EXPIRE), claim.state)


def is_of(claim: Claim, premises: str, since_ms: int) -> bool:
    """Tell whether it was made for these premises by those who have them, which is since then."""
    return claim.premises == premises and claim.made_at_ms >= since_ms


def is_live(claim: Claim, now_ms: int) -> bool:
    """Tell whether somebody could still use it for the first time."""
    return state_at(claim, now_ms) is State.ISSUED


def use(claim: Claim, spki: str, gateway: str, now_ms: int) -> Claim:
    """Return the claim as used by this key; as it is, if this key has used it.

    Raises:
        SpentError: another key has, or it came through another gateway.
        OverError: it has expired or was taken back.
    """
    state = state_at(claim, now_ms)
    if (state, Trigger.USE) in NEXT:
        return replace(claim, state=State.USED, spki=spki, gateway=gateway, used_at_ms=now_ms)
    if (state, Trigger.REPEAT) not in NEXT:
        raise OverError
    if (claim.spki, claim.gateway) != (spki, gateway):
        raise SpentError
    return claim


def answered(claim: Claim, serial: str, certificate: str) -> Claim:
    """Return the claim with what is answered from now on; the first certificate stays the one."""
    if claim.certificate:
        return claim
    return replace(claim, serial=serial, certificate=certificate)


def revoke(claim: Claim, now_ms: int) -> Claim:
    """Return the claim taken back; one that is over stays as it is."""
    after = NEXT.get((state_at(claim, now_ms), Trigger.REVOKE))
    return claim if after is None else replace(claim, state=after)
