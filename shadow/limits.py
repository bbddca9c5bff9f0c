"""The bounds of a shadow, each with its name (spec: shadow, section 10)."""

from dataclasses import dataclass, field
from typing import Final

CLASSIC: Final = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a deployment allows; the defaults are the protocol's."""

    document_bytes_max: int = 8_192
    document_bytes_max_of: dict[str, int] = field(default_factory=lambda: {"han": 32_768, "program": 16_384})
    depth_max: int = 6
    token_bytes_max: int = 64
    request_bytes_max: int = 32_768
    named_shadows_max: int = 20
    dedup_records_max: int = 32
    dedup_age_s: int = 86_400
    dedup_tokens_ignored: frozenset[str] = frozenset({"empty"})
    outbox_entries_max: int = 32
    outbox_sweep_s: float = 5
    history_versions_max: int = 1_000
    history_age_d: int = 400
    history_age_d_of: dict[str, int] = field(default_factory=lambda: {"han": 1})
    history_full_every: int = 64
    save_attempts_max: int = 5

    def document_bytes(self, name: str) -> int:
        """Return how many bytes ``desired`` and ``reported`` of a shadow called so may have together."""
        return self.document_bytes_max_of.get(name, self.document_bytes_max)

    def history_days(self, name: str) -> int:
        """Return how many days the history of a shadow called so is kept."""
        return self.history_age_d_of.get(name, self.history_age_d)


TOMBSTONES_MAX = 200
"""Deleted named shadows of one thing that are remembered; above it no new name may be made."""
