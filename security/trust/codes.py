"""What a person reads off a screen or a label to let a device in, and how it is read again. Pure.

A voucher's code is 128 random bits as 26 base32 characters and a check character, in groups of four. The
check finds every mistyped character and every two that changed places, so a typing error is said at once and
costs no try. A label's code is the install code that the maker printed (``identifiers``).

The claim a code belongs to is named beside it: a voucher's by 80 random bits, a label's by its EUI-64.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from infra.ids import TOKEN_BITS, Ids
from security.hashing import FULL, LIGHT, Cost
from security.secret import Secret
from security.trust import identifiers
from security.trust.identifiers import InvalidInstallCodeError, MistypedInstallCodeError

CLAIM_BITS: Final = 80
CODE_CHARS: Final = 26
GROUP_CHARS: Final = 4
CODE_TEXT_MAX: Final = 64
"""Characters that are looked at; no code of ours is longer with all its blanks."""

_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_VALUES: Final = {character: value for value, character in enumerate(_ALPHABET)}
_LOOK_ALIKES: Final = str.maketrans("018", "OIB")
_BLANKS: Final = re.compile(r"[\s-]+")
_VOUCHER: Final = "v"
"""Begins a voucher's id, so that none can be taken for an EUI-64."""
_VOUCHER_ID: Final = re.compile(r"v[a-z2-7]{16}")
_LABEL_ID: Final = re.compile(r"[0-9a-f]{16}")
_FIELD: Final = 0x25
"""x⁵ + x² + 1: the field of 32 elements, in which the check character is computed."""


class ClaimKind(StrEnum):
    """What proves itself by a code."""

    VOUCHER = "voucher"
    """Somebody we know holds this device now."""
    INSTALL_CODE = "install_code"
    """This is the device of that label."""


class InvalidCodeError(Exception):
    """This can be no code; the message says what is wrong and may be said to whoever typed it."""


class MistypedCodeError(InvalidCodeError):
    """The check does not fit: a typing error, which costs no try."""


class InvalidClaimIdError(Exception):
    """This can be the id of no claim."""

    def __init__(self) -> None:
        super().__init__(
            "a claim's id is that of a voucher (v and 16 of a-z 2-7) or an EUI-64 (16 of 0-9 a-f)"
        )


@dataclass(frozen=True, slots=True)
class Entered:
    """A code as somebody entered it, spelled the one way it is hashed."""

    kind: ClaimKind
    code: Secret

    @property
    def cost(self) -> Cost:
        """What it costs to hash it."""
        return cost_of(self.kind)


def cost_of(kind: ClaimKind) -> Cost:
    """Return what hashing a code of this kind costs: a label's may have 48 bits only."""
    return LIGHT if kind is ClaimKind.VOUCHER else FULL


def new_claim_id(ids: Ids) -> str:
    """Return the id of a new voucher's claim."""
    return _VOUCHER + ids.token(CLAIM_BITS)


def new_code(ids: Ids) -> Secret:
    """Return a new voucher's code, spelled as it is hashed."""
    return Secret(ids.token(TOKEN_BITS).upper()[:CODE_CHARS])


def shown(code: Secret) -> Secret:
    """Return a voucher's code as a person reads it: in groups, with its check character."""
    text = code.reveal() + _check(code.reveal())
    return Secret("-".join(text[start : start + GROUP_CHARS] for start in range(0, len(text), GROUP_CHARS)))


def parse(claim_id: str, text: str) -> Entered:
    """Return the code that was entered for a claim.

    Raises:
        InvalidClaimIdError: no claim has such an id.
        MistypedCodeError: the check does not fit.
        InvalidCodeError: no code looks so.
    """
    kind = kind_of(claim_id)
    if len(text) > CODE_TEXT_MAX:
        raise InvalidCodeError(f"a code has at most {CODE_TEXT_MAX} characters")
    parsed = _parse_voucher(text) if kind is ClaimKind.VOUCHER else _spell(parse_install_code(text))
    return Entered(kind, parsed)


def kind_of(claim_id: str) -> ClaimKind:
    """Return which kind of claim has such an id, or raise :class:`InvalidClaimIdError`."""
    if _LABEL_ID.fullmatch(claim_id):
        return ClaimKind.INSTALL_CODE
    if _VOUCHER_ID.fullmatch(claim_id):
        return ClaimKind.VOUCHER
    raise InvalidClaimIdError


def claim_id_of_label(eui64: str) -> str:
    """Return the claim's id for an EUI-64, however it is punctuated."""
    id = re.sub(r"[\s:.-]", "", eui64).lower()
    if not _LABEL_ID.fullmatch(id):
        raise InvalidClaimIdError
    return id


def parse_install_code(text: str) -> bytes:
    """Return a label's code with its CRC."""
    try:
        return identifiers.parse_install_code(text)
    except MistypedInstallCodeError as error:
        raise MistypedCodeError(str(error)) from error
    except InvalidInstallCodeError as error:
        raise InvalidCodeError(str(error)) from error


def label_code(code: bytes) -> Secret:
    """Return a label's code as it is hashed."""
    return _spell(code)


def _spell(code: bytes) -> Secret:
    return Secret(code.hex())


def _parse_voucher(text: str) -> Secret:
    typed = _BLANKS.sub("", text).upper().translate(_LOOK_ALIKES)
    if not set(typed) <= _VALUES.keys():
        raise InvalidCodeError("a code has the letters A to Z and the digits 2 to 7 only")
    if len(typed) != CODE_CHARS + 1:
        raise InvalidCodeError(f"a code has {CODE_CHARS + 1} letters and digits, not {len(typed)}")
    code, check = typed[:-1], typed[-1]
    if _check(code) != check:
        raise MistypedCodeError("the code is mistyped: its last character does not fit the others")
    return Secret(code)


def _check(code: str) -> str:
    remainder = 0
    for character in code:
        remainder = _times_x(remainder) ^ _VALUES[character]
    return _ALPHABET[_times_x(remainder)]


def _times_x(value: int) -> int:
    doubled = value << 1
    return doubled ^ _FIELD if doubled & 0x20 else doubled


# ---------------------------------------------------------------------------- as HTTP Basic carries it


def parse_basic(field: str | None) -> tuple[str, str] | None:
    """Return (claim id, code text) of an ``Authorization`` field, None when there is none that is Basic."""
    scheme, _, credentials = (field or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        pair = base64.b64decode(credentials.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    claim_id, colon, code = pair.partition(":")
    # Labels print their EUI-64 in capitals; a voucher's id is given out in small letters.
    return (claim_id.lower(), code) if colon else None
