"""Which route a device speaks by."""

from fleet.simulation import choose
from fleet.topics import own_route, relayed_route

OWN, METER, HOME = own_route("th"), relayed_route("gw-m", "th"), relayed_route("gw-h", "th")


def up(*routes):
    return lambda route: route in routes


def test_the_preferred_gateway_speaks_when_none_spoke_before():
    assert choose(None, (METER, HOME), up(METER, HOME)) == METER
    assert choose(None, (METER, HOME), up(HOME)) == HOME


def test_a_gateway_that_came_back_does_not_take_over_again():
    assert choose(HOME, (METER, HOME), up(METER, HOME)) == HOME


def test_ones_own_connection_is_taken_as_soon_as_it_is_there():
    assert choose(METER, (OWN, METER), up(OWN, METER)) == OWN
    assert choose(OWN, (OWN, METER), up(METER)) == METER


def test_a_device_that_nobody_reaches_has_no_route():
    assert choose(METER, (OWN, METER), up()) is None
    assert choose(METER, (), up(METER)) is None
