"""Access tokens (RFC 9068): who somebody is for the next minutes, and nothing of what they may do.

Everything that a library would let pass is looked at here: members that are missing, strange or too many,
keys that come with the token, numbers that are no numbers, spellings that decode to the same. Whatever goes
wrong while a token is read means no.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt

from infra.clock import MS_PER_S, Clock
from infra.ids import Ids
from security.people.keys import ALGORITHM, LIFE_S_MAX, TokenKeys
from security.policy import Role
from security.secret import Secret

ISSUER: Final = "gnomon"
AUDIENCE: Final = "gnomon-api"
TYPE: Final = "at+jwt"
CLAIMS: Final = ("iss", "aud", "sub", "iat", "nbf", "exp", "jti", "epo")
HEADER: Final = frozenset({"alg", "typ", "kid"})
"""A header with anything else (jku, x5u, jwk, x5c, crit …) is refused."""
LIFE_S_LOAD: Final = 300
"""For roles that can move load."""
MOVES_LOAD: Final = frozenset({Role.OPERATOR, Role.BL})
SKEW_S: Final = 5
"""How far another process's clock may be ahead."""
TOKEN_CHARS_MAX: Final = 2_048
CACHED_MAX: Final = 10_000
"""Verified tokens that are remembered; the oldest is forgotten first, and verified again when it comes."""
_SPELLING: Final = re.compile(r"[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]{2,}")
_SUBJECT: Final = re.compile(r"[pc]-[a-z2-7]{16,64}")
_JTI_CHARS_MAX: Final = 64
_EPOCH_MAX: Final = 2**53 - 1


@dataclass(frozen=True, slots=True)
class Epochs:
    """The generations a token was made in: of the whole system, and of its subject."""

    system: int
    own: int


@dataclass(frozen=True, slots=True)
class Claims:
    """What a good token says."""

    subject: str
    epochs: Epochs
    not_before_s: int
    expires_s: int
    kid: str


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token just made."""

    token: Secret
    life_s: int


def life_s_of(role: Role) -> int:
    """Return how long an access token of this role lives."""
    return LIFE_S_LOAD if role in MOVES_LOAD else LIFE_S_MAX


class AccessTokens:
    """Makes tokens and reads them. Reading one again costs a hash."""

    def __init__(self, keys: TokenKeys, clock: Clock, ids: Ids, *, cached_max: int = CACHED_MAX) -> None:
        self._keys = keys
        self._clock = clock
        self._ids = ids
        self._cached_max = cached_max
        self._cached: dict[bytes, Claims] = {}

    def issue(self, subject: str, role: Role, epochs: Epochs) -> AccessToken:
        """Return a token for somebody who has proved who they are."""
        now_s, life_s = self._now_s(), life_s_of(role)
        kid, key = self._keys.sign_with()
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": subject,
            "iat": now_s,
            "nbf": now_s,
            "exp": now_s + life_s,
            "jti": self._ids.token(),
            "epo": [epochs.system, epochs.own],
        }
        token = jwt.encode(claims, key, algorithm=ALGORITHM, headers={"typ": TYPE, "kid": kid})
        return AccessToken(Secret(token), life_s)

    def verify(self, token: str) -> Claims | None:
        """Return what a good token says, None for every other text; never raises."""
        if len(token) > TOKEN_CHARS_MAX or not _SPELLING.fullmatch(token):
            return None
        digest = hashlib.sha256(token.encode()).digest()
        claims = self._cached.get(digest)
        if claims is None:
            claims = self._read(token)
            if claims is None:
                return None
            self._remember(digest, claims)
        return claims if self._counts(claims) else None

    def _counts(self, claims: Claims) -> bool:
        """Tell whether the token counts now; asked each time, so that no memory outlives it."""
        now_s = self._now_s()
        return (
            claims.not_before_s <= now_s + SKEW_S
            and now_s < claims.expires_s
            and self._keys.verify_with(claims.kid) is not None
        )

    def _read(self, token: str) -> Claims | None:
        try:
            if not _is_canonical(token):
                return None
            kid = _kid(jwt.get_unverified_header(token))
            key = None if kid is None else self._keys.verify_with(kid)
            if kid is None or key is None:
                return None
            # Times are ours to judge: the library takes any number for one, and asks another clock.
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                options={
                    "require": list(CLAIMS),
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
            return _claims(kid, claims, self._now_s())
        except Exception:  # noqa: BLE001 - the library raises more than it names, and each of them is a no
            return None

    def _remember(self, digest: bytes, claims: Claims) -> None:
        if len(self._cached) >= self._cached_max:
            del self._cached[next(iter(self._cached))]
        self._cached[digest] = claims

    def _now_s(self) -> int:
        return self._clock.now_ms() // MS_PER_S


def _is_canonical(token: str) -> bool:
    """Tell whether each part is the one spelling of its bytes: else one token had many."""
    return all(_spelled(_bytes(part)) == part for part in token.split("."))


def _bytes(part: str) -> bytes:
    return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)


def _spelled(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _kid(header: Mapping[str, Any]) -> str | None:
    kid = header.get("kid")
    fits = header.keys() == HEADER and header["typ"] == TYPE and header["alg"] == ALGORITHM
    return kid if fits and type(kid) is str else None


def _claims(kid: str, claims: Mapping[str, Any], now_s: int) -> Claims | None:
    subject, jti = claims["sub"], claims["jti"]
    if claims.keys() != set(CLAIMS) or claims["aud"] != AUDIENCE or claims["iss"] != ISSUER:
        return None
    if not (_is_text(jti) and 1 <= len(jti) <= _JTI_CHARS_MAX and _is_text(subject)):
        return None
    issued_s, begins_s, ends_s = claims["iat"], claims["nbf"], claims["exp"]
    if not all(type(one) is int for one in (issued_s, begins_s, ends_s)) or not _SUBJECT.fullmatch(subject):
        return None
    if not (0 < ends_s - issued_s <= LIFE_S_MAX and issued_s <= now_s + SKEW_S and begins_s < ends_s):
        return None
    epochs = _epochs(claims["epo"])
    return None if epochs is None else Claims(subject, epochs, begins_s, ends_s, kid)


def _is_text(value: object) -> bool:
    return type(value) is str


def _epochs(value: object) -> Epochs | None:
    match value:
        case [int() as system, int() as own] if all(
            type(one) is int and 0 <= one <= _EPOCH_MAX for one in (system, own)
        ):
            return Epochs(system, own)
        case _:
            return None
