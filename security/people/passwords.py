"""Which passwords are refused: those that are guessed first."""

from typing import Final

from security.people.common_passwords import COMMON
from security.people.errors import WeakPasswordError

CHARS_MIN: Final = 12
CHARS_MAX: Final = 256
DIFFERENT_MIN: Final = 5
"""Different characters a password has at least."""
_LEET: Final = str.maketrans("013457@$!", "oieastasi")


def check(password: str, login: str) -> None:
    """Refuse a password that is short, common, or says who it belongs to."""
    if not CHARS_MIN <= len(password) <= CHARS_MAX:
        raise WeakPasswordError(f"a password has {CHARS_MIN} to {CHARS_MAX} characters")
    plain = password.lower()
    if len(set(plain)) < DIFFERENT_MIN:
        raise WeakPasswordError(f"a password has at least {DIFFERENT_MIN} different characters")
    if _core(plain) in COMMON or _is_repeated(plain):
        raise WeakPasswordError("this password is among the first that are guessed: take several words")
    name = login.partition("@")[0]
    if len(name) >= 3 and name in plain:  # noqa: PLR2004 - shorter ones are in half of all words
        raise WeakPasswordError("a password does not hold the login name")


def _core(password: str) -> str:
    """Return a password without what people put around a common one: digits and signs at its ends."""
    return password.strip("0123456789!?.,-_*#$ ").translate(_LEET)


def _is_repeated(password: str) -> bool:
    """Tell whether it is one short word several times, or a common one twice."""
    for size in range(1, len(password) // 2 + 1):
        word = password[:size]
        if (word * (len(password) // size + 1))[: len(password)] == password:
            return size < CHARS_MIN // 2 or _core(word) in COMMON
    return False
