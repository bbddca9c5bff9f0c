"""Second factors: time-based codes (RFC 6238), each good once, and recovery codes for who lost the device."""

import base64
import hashlib
import hmac
import re
from typing import Final

import pyotp

from infra.clock import MS_PER_S
from infra.ids import Ids

STEP_S: Final = 30
STEPS_AROUND: Final = 1
"""A code of the step before or after is taken too: clocks differ, and people type slowly."""
SEED_BITS: Final = 160
RECOVERY_CODES: Final = 10
RECOVERY_BITS: Final = 80
CODE_CHARS_MAX: Final = 64
ISSUER: Final = "Gnomon"
_CODE: Final = re.compile(r"[0-9]{6}")
_SPACING: Final = re.compile(r"[\s-]")


def new_seed(ids: Ids) -> str:
    """Return a seed, spelled as authenticator apps want it."""
    return ids.token(SEED_BITS).upper()


def uri(seed: str, account: str) -> str:
    """Return what an authenticator app reads from a QR code."""
    return pyotp.TOTP(seed).provisioning_uri(name=account, issuer_name=ISSUER)


def step_of(now_ms: int) -> int:
    """Return the number of the 30 seconds we are in."""
    return now_ms // (STEP_S * MS_PER_S)


def code_at(seed: str, step: int) -> str:
    """Return the code of a step."""
    return pyotp.TOTP(seed).generate_otp(step)


def matching_step(seed: str, code: str, now_ms: int, last_step: int) -> int | None:
    """Return the step whose code this is; None if it is none of the current ones, or was used before."""
    if not _CODE.fullmatch(code):
        return None
    now = step_of(now_ms)
    found = None
    for step in range(now - STEPS_AROUND, now + STEPS_AROUND + 1):
        same = hmac.compare_digest(code_at(seed, step), code)
        if same and step > last_step:
            found = step
    return found


def new_recovery_codes(ids: Ids) -> tuple[str, ...]:
    """Return fresh codes; each of them works once."""
    return tuple(ids.token(RECOVERY_BITS) for _ in range(RECOVERY_CODES))


def recovery_hash(code: str) -> str:
    """Return what is kept of a recovery code: it is random enough to need no slow hash."""
    return hashlib.sha256(_SPACING.sub("", code).lower().encode(errors="replace")).hexdigest()


def seed_bytes(seed: str) -> bytes:
    """Return the seed as it is sealed."""
    return base64.b32decode(seed + "=" * (-len(seed) % 8))


def seed_text(data: bytes) -> str:
    """Return a seed that :func:`seed_bytes` made bytes of."""
    return base64.b32encode(data).rstrip(b"=").decode()
