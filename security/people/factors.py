"""What a person shows beside the password. Pure."""

import hmac
from dataclasses import replace

from security.people import totp
from security.people.persons import MAY_TRY, Notice, Person, needs_factor, told


def with_factor(person: Person, seed: str | None, code: str, now_ms: int) -> Person | None:
    """Return the person after the second factor was shown; None when it was not, or not rightly."""
    if person.state not in MAY_TRY:
        return None
    if not needs_factor(person):
        return person
    if seed is None:
        return None
    return with_code(person, seed, code, now_ms) or with_recovery_code(person, code, now_ms)


def with_code(person: Person, seed: str, code: str, now_ms: int) -> Person | None:
    """Return the person after a time-based code was taken; it is not taken again."""
    step = totp.matching_step(seed, code, now_ms, person.totp_step)
    return None if step is None else replace(person, totp_step=step)


def with_recovery_code(person: Person, code: str, now_ms: int) -> Person | None:
    """Return the person with one recovery code less, and a notice about it."""
    if len(code) > totp.CODE_CHARS_MAX:
        return None
    shown = totp.recovery_hash(code)
    left = tuple(one for one in person.recovery if not hmac.compare_digest(one, shown))
    if len(left) == len(person.recovery):
        return None
    return told(replace(person, recovery=left), Notice.RECOVERY_CODE_USED, now_ms)
