"""A text that must not be seen: it prints as ``***`` wherever it is printed by mistake."""

import hmac
from typing import Final

HIDDEN: Final = "***"


class Secret:
    """A password, token or passphrase. Only :meth:`reveal` gives it out, so that a search finds who asks."""

    __slots__ = ("_text",)
    __hash__ = None  # type: ignore[assignment] # a key of a dict would be found in a time that tells of it

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text."""
        return self._text

    def __eq__(self, other: object) -> bool:
        """Compare; the time tells nothing about where they differ."""
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __bool__(self) -> bool:
        return bool(self._text)

    def __str__(self) -> str:
        return HIDDEN

    def __repr__(self) -> str:
        return f"Secret({HIDDEN})"

    def __format__(self, spec: str) -> str:
        return HIDDEN

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")
