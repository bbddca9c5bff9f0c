"""One look at a session, under way: the document as it becomes, and what is wanted done. Pure.

The parts of ``advance`` work on one of these, one after the other; it lives for one call.
"""

from dataclasses import dataclass, field, replace

from provisioning.effects import Effect
from provisioning.observed import Observed
from provisioning.session import Session, SessionDevice, move, step, with_device
from provisioning.states import SeenTrigger, SessionTrigger


@dataclass(slots=True)
class Look:
    """What has come of looking so far."""

    session: Session
    observed: Observed
    now_ms: int
    effects: list[Effect] = field(default_factory=list)
    deadlines: list[int] = field(default_factory=list)
    """When to look again; those of the past are no more deadlines."""

    def want(self, *effects: Effect) -> None:
        """Want something done."""
        self.effects += effects

    def by(self, when_ms: int) -> bool:
        """Tell whether a moment has come; if not, somebody looks again then."""
        if when_ms <= self.now_ms:
            return True
        self.deadlines.append(when_ms)
        return False

    def move(self, trigger: SessionTrigger, reason: str = "") -> None:
        """Take the session a step further, on what was observed."""
        self.session = move(self.session, trigger, self.now_ms, reason=reason)

    def change(self, **fields: object) -> None:
        """Put other values into the document."""
        self.session = replace(self.session, **fields)  # type: ignore[arg-type] # the names are a session's

    def put(self, device: SessionDevice) -> None:
        """Put a device into the document."""
        self.session = with_device(self.session, device)

    def step(self, device: SessionDevice, trigger: SeenTrigger, code: str = "") -> SessionDevice:
        """Take a device a step further."""
        after = step(device, trigger, self.now_ms, code)
        self.put(after)
        return after
