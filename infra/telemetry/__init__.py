"""What can be seen of a running process: ``metrics`` counts, ``journeys`` traces single updates.

Telemetry fails soft: whatever goes wrong here, nothing else notices.
"""

from infra.telemetry.journeys import Journeys, open_journeys
from infra.telemetry.metrics import Metrics

__all__ = ["Journeys", "Metrics", "open_journeys"]
