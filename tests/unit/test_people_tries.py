"""Bounds on guessing at logins that are kept in memory: who fails keeps only those out who fail as well."""

import pytest

from security.people.tries import LATELY_S, LOGINS_MAX, LOGINS_PER_NAME_MAX, LoginTries, Strangers
from security.tries import MINUTE_S, TooManyTriesError
from tests.fakes import FakeClock

ADDRESS = "192.0.2.7"
ELSEWHERE = "198.51.100.1"


def flood(tries: LoginTries, *, names: int, networks: int) -> int:
    """Fail as often as one may with so many names and networks; return how often that was."""
    for number in range(2 * LOGINS_MAX + 2):
        network = number % networks
        try:
            tries.count(f"n{number % names}", f"10.{network >> 8}.{network & 255}.1")
        except TooManyTriesError:
            return number
    raise AssertionError("there is no ceiling")


@pytest.mark.parametrize(
    ("names", "networks", "name", "address"),
    [(10_000, 200, "eve", "10.0.0.1"), (200, 10_000, "n0", ELSEWHERE)],
    ids=["names without end", "networks without end"],
)
def test_who_fails_from_many_networks_keeps_out_only_who_fails_too(
    names: int, networks: int, name: str, address: str
):
    clock = FakeClock()
    tries = LoginTries(clock)
    tries.count("ann", ADDRESS)
    tries.proved("ann", ADDRESS)
    assert flood(tries, names=names, networks=networks) == 200 + LOGINS_MAX
    tries.count("ann", ADDRESS)
    tries.count("bob", ELSEWHERE)
    with pytest.raises(TooManyTriesError) as error:
        tries.count(name, address)
    assert error.value.retry_s == MINUTE_S
    clock.advance(MINUTE_S)
    tries.count(name, address)


def test_who_has_names_and_networks_without_end_has_a_ceiling_that_keeps_out_no_one_who_came_before():
    tries = LoginTries(FakeClock())
    tries.count("ann", ADDRESS)
    tries.proved("ann", ADDRESS)
    assert flood(tries, names=10_000, networks=10_000) == LOGINS_MAX - 1
    with pytest.raises(TooManyTriesError):
        tries.count("bob", ELSEWHERE)
    tries.count("ann", ADDRESS)


def test_a_login_that_was_right_makes_no_other_of_its_network_suspicious():
    tries = LoginTries(FakeClock())
    for number in range(LOGINS_MAX // 2):
        tries.count(f"p{number}", ADDRESS)
        tries.proved(f"p{number}", ADDRESS)
    assert flood(tries, names=10_000, networks=1) == 1 + LOGINS_MAX
    tries.count("new", ADDRESS)


def test_right_logins_of_one_name_are_bounded_from_wherever_they_come():
    clock = FakeClock()
    tries = LoginTries(clock)
    for address in (ADDRESS, ELSEWHERE):
        tries.count("ann", address)
        tries.proved("ann", address)
    for number in range(LOGINS_PER_NAME_MAX):
        tries.count("ann", (ADDRESS, ELSEWHERE)[number % 2])
        tries.proved("ann", (ADDRESS, ELSEWHERE)[number % 2])
    for address in (ADDRESS, ELSEWHERE):
        with pytest.raises(TooManyTriesError) as error:
            tries.count("ann", address)
        assert error.value.retry_s == MINUTE_S
    tries.count("bob", ADDRESS)
    clock.advance(MINUTE_S)
    tries.count("ann", ADDRESS)


def test_right_logins_of_all_names_together_have_a_ceiling_that_keeps_no_newcomer_out():
    tries = LoginTries(FakeClock())
    for number in range(LOGINS_MAX // 10):
        for _ in range(11):
            tries.count(f"p{number}", ADDRESS)
            tries.proved(f"p{number}", ADDRESS)
    with pytest.raises(TooManyTriesError):
        tries.count("p0", ADDRESS)
    tries.count("new", ADDRESS)


def test_a_failure_is_forgotten_after_a_while():
    clock = FakeClock()
    tries = LoginTries(clock)
    tries.count("eve", ADDRESS)
    clock.advance(LATELY_S)
    flood(tries, names=10_000, networks=1)
    tries.count("eve", ELSEWHERE)


def test_names_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("security.tries.KEYS_MAX", 3)
    tries, strangers = LoginTries(FakeClock()), Strangers(FakeClock())
    for number in range(9):
        tries.count(str(number), ADDRESS)
        tries.proved(f"p{number}", ELSEWHERE)
        tries.count(f"p{number}", ELSEWHERE)
        strangers.count(str(number))
    tables = (tries._tries, tries._known, tries._failed_s, tries._names, strangers._failures)
    assert {len(table) for table in tables} == {3}
