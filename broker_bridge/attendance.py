"""Tells the services who is connected, from what the broker's log says."""

from broker_bridge.presence import Presence as Heard
from broker_bridge.presence import Sign
from broker_bridge.role import Warden
from infra.presence import Presence


class Attendance:
    """Hears the broker's log in front of the warden."""

    def __init__(self, presence: Presence, warden: Warden) -> None:
        self._presence = presence
        self._warden = warden

    def read(self, presence: Heard) -> None:
        """Note who came or went."""
        if presence.sign is Sign.DISCONNECTED:
            self._presence.went(presence.thing)
        elif presence.sign is not Sign.TAKEN_OVER:  # the new connection speaks for itself
            self._presence.came(presence.thing)
        self._warden.read(presence)

    def begin(self, presences: list[Heard]) -> None:
        """The broker was lost and is there again: whoever was connected gives a sign when they are back."""
        here: dict[str, None] = {}
        for one in presences:
            if one.sign is Sign.DISCONNECTED:
                here.pop(one.thing, None)
            elif one.sign is not Sign.TAKEN_OVER:
                here[one.thing] = None
        self._presence.begin(here)
        self._warden.begin(presences)
