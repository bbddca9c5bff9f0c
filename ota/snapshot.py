"""A device as it was, in one piece. Pure; who takes and keeps these is in ``snapshots``."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from ota.models import Execution
from shadow.document import Tree

MS_PER_S: Final = 1_000
_HEX_CHARS: Final = 20


class Why(StrEnum):
    """What a snapshot was taken for."""

    GATE = "gate"
    """The device was about to go on to its new firmware."""
    LOADING = "loading"
    """The same, of a model that does not ask before it goes on."""
    PERSON = "person"
    REPLACED = "replaced"
    """Another device takes its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A shadow as it was."""

    version: int
    at_ms: int
    desired: Tree = field(default_factory=dict)
    reported: Tree = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A device as it was. ``schema`` and ``boot`` are what it had reported of its firmware, 0: nothing."""

    id: str
    thing: str
    at_ms: int
    why: Why
    by: str
    job: str = ""
    model: str = ""
    schema: int = 0
    boot: int = 0
    shadows: Mapping[str, Copy] = field(default_factory=dict)

    def reported(self, shadow: str) -> Tree:
        """Return what the device said in a shadow; nothing where there was none."""
        copy = self.shadows.get(shadow)
        return {} if copy is None else copy.reported


def id_for(execution: Execution) -> str:
    """Return the id of the snapshot that belongs to one attempt of an execution."""
    return derived_id(execution.campaign, execution.thing, str(execution.attempt))


def since_s(snapshot: Snapshot) -> int:
    """Return the second from which on something was written after a snapshot."""
    return snapshot.at_ms // MS_PER_S


def derived_id(*parts: str) -> str:
    """Return the id of the one snapshot that there is of something."""
    return "s-" + hashlib.sha256("\n".join(parts).encode()).hexdigest()[:_HEX_CHARS]
