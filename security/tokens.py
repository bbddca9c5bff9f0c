"""The operator token: one secret with full rights on things, until people have accounts of their own.

Made on first run and shown once. Only its SHA-256 is kept, so neither the file nor a backup of it lets
anybody in; a lost token is replaced by deleting the file.
"""

import hashlib
import hmac
import re
from pathlib import Path
from typing import Final

from infra.ids import Ids
from security import private_files
from security.policy import Principal, Role

PREFIX: Final = "gnomon_op_"
"""Lets a secret scanner, and a person, see what it is."""
SECRET_BITS: Final = 256
SECRET_CHARS_MAX: Final = 128
"""What is longer is no token of ours and is not hashed."""
OPERATOR: Final = Principal("operator", Role.INTERIM)
_DIGEST: Final = re.compile(r"[0-9a-f]{64}\n?")


class OperatorToken:
    """Knows the operator's token when it sees it; cannot tell what it is."""

    __slots__ = ("_digest",)

    def __init__(self, digest: bytes) -> None:
        self._digest = digest

    @classmethod
    def open(cls, path: Path, ids: Ids) -> "tuple[OperatorToken, str | None]":
        """Return the token kept at ``path``; with its secret if it had to be made, and never again."""
        kept = private_files.read(path)
        if kept is not None:
            return cls(_parse(path, kept)), None
        secret = PREFIX + ids.token(SECRET_BITS)
        digest = _digest_of(secret)
        private_files.make_directory(path.parent)
        if not private_files.create(path, digest.hex().encode() + b"\n"):
            return cls.open(path, ids)
        return cls(digest), secret

    def principal(self, secret: str) -> Principal | None:
        """Return who holds this secret, None for a wrong one; the time tells nothing about how wrong."""
        if len(secret) > SECRET_CHARS_MAX:
            return None
        return OPERATOR if hmac.compare_digest(_digest_of(secret), self._digest) else None


class OperatorBearer:
    """The operator token where the API asks for whoever holds a bearer token."""

    def __init__(self, token: OperatorToken) -> None:
        self._token = token

    async def principal(self, bearer: str) -> Principal | None:
        """Return who holds this token, None for a wrong one."""
        return self._token.principal(bearer)


def _digest_of(secret: str) -> bytes:
    # Headers may hold anything; what cannot be encoded cannot be ours and only has to fail quietly.
    return hashlib.sha256(secret.encode(errors="replace")).digest()


def _parse(path: Path, kept: bytes) -> bytes:
    text = kept.decode("ascii", errors="replace")
    if not _DIGEST.fullmatch(text):
        raise private_files.DamagedFileError(
            path, "does not hold a SHA-256", "delete it, and the next start makes a new token"
        )
    return bytes.fromhex(text)
