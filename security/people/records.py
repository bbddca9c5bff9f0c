"""The collections of this package, and how they are read and written. No decisions."""

from typing import Final

from infra.documents.port import Collection
from infra.documents.records import SAVE_ATTEMPTS_MAX, Kept, RecordPage, Records

__all__ = ["SAVE_ATTEMPTS_MAX", "Kept", "RecordPage", "Records"]

PEOPLE: Final = "people"
LOGINS: Final = "logins"
CLIENTS: Final = "clients"
SESSIONS: Final = "sessions"
STEP_UPS: Final = "step_ups"
APPROVALS: Final = "approvals"
SIGNING_KEYS: Final = "token_keys"
EPOCHS: Final = "epochs"
COLLECTIONS: Final = (
    Collection(PEOPLE, ("role",)),
    Collection(LOGINS),
    Collection(CLIENTS, ("role",)),
    Collection(SESSIONS, ("person", "until_ms")),
    Collection(STEP_UPS, ("until_ms",)),
    Collection(APPROVALS, ("waiting_ms", "until_ms")),
    Collection(SIGNING_KEYS),
    Collection(EPOCHS),
)
