"""How often something may be tried: by one, by each of many, by an address; every table is bounded."""

import pytest

from security.tries import (
    MINUTE_S,
    TRIES_PER_ADDRESS_MAX,
    AddressTries,
    TooManyTriesError,
    Window,
    Windows,
)
from tests.fakes import FakeClock

ADDRESS = "192.0.2.7"


@pytest.fixture
def two(monkeypatch):
    """An address has two tries."""
    monkeypatch.setattr("security.tries.TRIES_PER_ADDRESS_MAX", 2)
    return AddressTries(FakeClock())


def test_as_many_as_may_be_are_within_the_bound_and_one_more_waits_until_the_first_is_over():
    window = Window(2, 10)
    assert window.wait_s(0) <= 0
    window.add(0)
    window.add(4)
    assert window.wait_s(4) == 6
    assert window.wait_s(10) <= 0
    window.add(10)
    assert window.wait_s(10) == 4
    window.give_back()
    assert window.wait_s(10) <= 0


def test_what_was_never_taken_cannot_be_given_back():
    window = Window(1, 10)
    window.give_back()
    window.add(0)
    assert window.wait_s(0) == 10


def test_an_address_has_so_many_tries_a_minute_and_a_right_one_is_given_back():
    clock = FakeClock()
    tries = AddressTries(clock)
    for _ in range(TRIES_PER_ADDRESS_MAX):
        tries.take(ADDRESS)
    with pytest.raises(TooManyTriesError) as error:
        tries.take(ADDRESS)
    assert error.value.retry_s == MINUTE_S
    tries.take("192.0.2.8")
    tries.give_back(ADDRESS)
    tries.take(ADDRESS)
    clock.advance(MINUTE_S)
    tries.take(ADDRESS)


def test_who_has_one_address_of_ipv6_has_the_whole_network_and_a_mapped_one_is_ipv4(two):
    two.take("2001:db8::1")
    two.take("2001:db8::2")
    with pytest.raises(TooManyTriesError):
        two.take("2001:db8::3")
    two.take("2001:db8:0:1::1")
    two.take("192.0.2.1")
    two.take("::ffff:192.0.2.1")
    with pytest.raises(TooManyTriesError):
        two.take("192.0.2.1")


def test_the_one_longest_quiet_makes_room_and_many_others_keep_nobody_out(two, monkeypatch):
    monkeypatch.setattr("security.tries.KEYS_MAX", 3)
    two.take("192.0.2.0")
    for last in (1, 2, 0, 3):
        two.take(f"192.0.2.{last}")
    assert len(two) == 3
    with pytest.raises(TooManyTriesError):
        two.take("192.0.2.0")
    two.take("192.0.2.1")


def test_one_keys_tries_are_not_anothers():
    windows = Windows(1, 10)
    windows.add("a", 0)
    assert windows.wait_s("a", 0) == 10
    assert windows.wait_s("b", 0) == 0
    windows.give_back("b")
    windows.give_back("a")
    assert windows.wait_s("a", 0) <= 0
