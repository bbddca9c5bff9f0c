"""Random secrets that we know again and cannot tell: what is kept of one is its SHA-256.

Each begins with a word, so that a secret scanner and a person see what it is.
"""

import hashlib
import hmac
from typing import Final

from infra.ids import Ids
from security.secret import Secret

BITS: Final = 256
CHARS_MAX: Final = 256
"""What is longer is none of ours and is not hashed."""
INVITATION: Final = "gnomon_in_"
REFRESH: Final = "gnomon_rt_"
CLIENT: Final = "gnomon_cs_"
STEP_UP: Final = "gnomon_su_"
FIRST: Final = "gnomon_first_"


def new(kind: str, ids: Ids, owner: str = "") -> Secret:
    """Return a new secret; ``owner`` is the id under which it is looked up."""
    name = f"{owner}." if owner else ""
    return Secret(kind + name + ids.token(BITS))


def digest(secret: Secret) -> str:
    """Return what is kept."""
    # Anything may come in a request; what cannot be encoded is none of ours and only has to fail quietly.
    return hashlib.sha256(secret.reveal().encode(errors="replace")).hexdigest()


def is_same(kept: str, secret: Secret) -> bool:
    """Tell whether this is the secret of which that is kept; the time tells nothing."""
    return hmac.compare_digest(kept, digest(secret))


def owner_of(kind: str, secret: Secret) -> str | None:
    """Return the id in a secret of this kind, None when it cannot be one."""
    text = secret.reveal()
    if len(text) > CHARS_MAX or not text.isascii() or not text.isprintable() or not text.startswith(kind):
        return None
    owner, dot, rest = text.removeprefix(kind).partition(".")
    return owner if owner and dot and rest else None
