"""Thousands of devices at once: when they are done."""

from fleet.boot import FileStatus
from fleet.connection import Endpoint, plain_identity
from fleet.makes import MAKES
from fleet.upgrades import Upgrades
from tests.fakes import FakeClock


def test_a_device_that_failed_twice_does_not_stand_for_one_that_is_not_done():
    upgrades = Upgrades(
        ("one", "other"),
        MAKES["norland-t1-wifi"],
        endpoint=Endpoint("localhost", 1),
        identities=plain_identity,
        keys={},
        clock=FakeClock(),
    )
    one, other = upgrades.stations
    one.done = True
    for _ in range(2):
        upgrades.ended(FileStatus.ACTIVATION_FAILED, "self_test", 10.0)
    assert not upgrades._stopping.is_set()
    other.done = True
    upgrades.ended(FileStatus.ACTIVATED, "", 10.0)
    assert upgrades._stopping.is_set()
