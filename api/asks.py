"""Who asks for something, and under which key: from a request to an ``Ask``."""

import hashlib
from typing import Final

from api.reading import HttpRequest, idempotency_key, via_of
from infra.ids import Ids
from provisioning.asking import Ask

KEY_BITS: Final = 120


def ask(
    request: HttpRequest, ids: Ids, body: bytes = b"", *, quiet: bool = False, if_match: int | None = None
) -> Ask:
    """Return who asks for what. Without an ``Idempotency-Key`` each request stands for itself.

    ``body`` tells one request from another under the same key, so it must be without what is secret.
    ``quiet`` keeps its hash out of the audit: of few words a hash tells which they are.
    """
    scope = request.scope
    told = f"{request.method} {scope['path']}\0".encode() + body
    return Ask(
        by=scope["user"],
        via=via_of(scope, None if quiet else body),
        if_match=if_match,
        key=idempotency_key(scope) or ids.token(KEY_BITS),
        digest=hashlib.sha256(told).hexdigest(),
    )
