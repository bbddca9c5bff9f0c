"""The timers of the protocol: how long an execution may take once it is begun. Pure.

The in-progress timer is fixed when it starts; the step timer is replaced by each update that names one, and
never outlasts the other. Our own deadlines run beside them; the earliest wins. (spec: ota, 4)
"""

from typing import Final

from ota.job_requests import CLEAR
from ota.models import NEVER, Execution

MS_PER_MIN: Final = 60_000


def in_progress_until(at_ms: int, minutes: int) -> int:
    """Return when the in-progress timer is up that starts now; 0 minutes = there is none."""
    return at_ms + minutes * MS_PER_MIN if minutes else NEVER


def step_until(at_ms: int, minutes: int, timeout_at_ms: int) -> int:
    """Return when the step timer is up that is set now, with the in-progress timer as it runs."""
    if minutes == CLEAR:
        return NEVER
    until_ms = at_ms + minutes * MS_PER_MIN
    return min(until_ms, timeout_at_ms) if timeout_at_ms else until_ms


def up_at_ms(execution: Execution) -> int | None:
    """Return when the first of its timers is up; None: it has none."""
    running = [at_ms for at_ms in (execution.timeout_at_ms, execution.step_at_ms) if at_ms]
    return min(running, default=None)
