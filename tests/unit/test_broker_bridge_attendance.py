"""Who is connected, from what the broker's log says."""

from broker_bridge.attendance import Attendance
from broker_bridge.presence import Presence as Heard
from broker_bridge.presence import Sign
from infra.presence import Presence


class Warden:
    """Notes that it hears all that the attendance does."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []

    def read(self, presence: Heard) -> None:
        self.heard.append(presence)

    def begin(self, presences: list[Heard]) -> None:
        self.heard += presences


def bench() -> tuple[Attendance, Presence, Warden, list[str]]:
    presence, warden, told = Presence(), Warden(), list[str]()
    presence.listeners.append(told.append)
    return Attendance(presence, warden), presence, warden, told


def test_who_connects_is_here_until_they_are_not_and_each_change_is_told_once():
    attendance, presence, warden, told = bench()
    for sign in (Sign.CONNECTED, Sign.SUBSCRIBED, Sign.TAKEN_OVER, Sign.CONNECTED):
        attendance.read(Heard(sign, "gw"))
        assert presence.is_here("gw")
    attendance.read(Heard(Sign.DISCONNECTED, "gw"))
    attendance.read(Heard(Sign.DISCONNECTED, "gw"))
    assert not presence.is_here("gw")
    assert told == ["gw", "gw"]
    assert len(warden.heard) == 6


def test_after_the_broker_was_lost_only_who_has_given_a_sign_is_here():
    attendance, presence, warden, told = bench()
    attendance.read(Heard(Sign.CONNECTED, "old"))
    attendance.begin(
        [
            Heard(Sign.CONNECTED, "new"),
            Heard(Sign.CONNECTED, "gone"),
            Heard(Sign.DISCONNECTED, "gone"),
            Heard(Sign.TAKEN_OVER, "other"),
        ]
    )
    assert [name for name in ("old", "new", "gone", "other") if presence.is_here(name)] == ["new"]
    assert told == ["old", "old", "new"]
    assert len(warden.heard) == 5
