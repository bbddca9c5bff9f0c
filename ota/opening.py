"""Puts the services of this package together, for whoever starts a process or a test."""

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from infra.clock import Clock
from infra.documents.port import DocumentStore
from infra.telemetry import Metrics
from ota.lane import ExecutionLane


@dataclass(frozen=True, slots=True)
class Ota:
    """All that brings firmware to devices."""

    lane: ExecutionLane

    def runs(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """Return what goes on beside, until cancelled."""
        return (self.lane.run(),)


def open_ota(store: DocumentStore, clock: Clock, metrics: Metrics) -> Ota:
    """Build the services; nothing is read or written yet."""
    return Ota(lane=ExecutionLane(store, clock, metrics))
