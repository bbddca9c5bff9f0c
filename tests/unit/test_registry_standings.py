"""The cache of standings: bounded, never too old, never wrong after a write of our own."""

import pytest

from registry.models import Standing, Thing, ThingKind
from registry.standings import UNKNOWN, Standings
from tests.fakes import FakeClock


def standing(name: str = "hall", model: str = "m") -> Standing:
    return Standing(Thing(name, ThingKind.DEVICE, model, "home-1", True, 0), frozenset())


def load(cache: Standings, *found: Standing, absent: tuple[str, ...] = ()) -> None:
    began = cache.begin_load()
    by_name = {one.thing.name: one for one in found}
    cache.end_load(began, [*by_name, *absent], by_name)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_what_nobody_asked_for_is_unknown(clock):
    assert Standings(clock, None).get("hall") is UNKNOWN


def test_what_was_found_is_known_and_what_was_not_is_known_to_be_absent(clock):
    cache = Standings(clock, None)
    load(cache, standing(), absent=("attic",))
    assert cache.get("hall") == standing()
    assert cache.get("attic") is None


def test_a_dropped_name_is_unknown_also_if_it_was_absent(clock):
    cache = Standings(clock, None)
    load(cache, standing(), absent=("attic",))
    cache.drop("hall")
    cache.drop("attic")
    cache.drop("never seen")
    assert cache.get("hall") is UNKNOWN
    assert cache.get("attic") is UNKNOWN


def test_alone_with_the_store_a_standing_does_not_age(clock):
    cache = Standings(clock, None)
    load(cache, standing())
    clock.advance(10**9)
    assert cache.get("hall") == standing()


@pytest.mark.parametrize(("seconds", "known"), [(4.99, True), (5.0, False), (60, False)])
def test_beside_others_a_standing_is_believed_for_its_time_only(clock, seconds, known):
    cache = Standings(clock, 5.0)
    load(cache, standing(), absent=("attic",))
    clock.advance(seconds)
    assert (cache.get("hall") is not UNKNOWN) is known
    assert (cache.get("attic") is not UNKNOWN) is known


def test_the_age_counts_from_when_the_store_was_asked(clock):
    cache = Standings(clock, 5.0)
    began = cache.begin_load()
    clock.advance(4)
    cache.end_load(began, ["hall"], {"hall": standing()})
    clock.advance(1)
    assert cache.get("hall") is UNKNOWN


def test_asking_does_not_make_a_standing_younger(clock):
    cache = Standings(clock, 5.0)
    load(cache, standing())
    for _ in range(10):
        clock.advance(0.5)
        cache.get("hall")
    assert cache.get("hall") is UNKNOWN


def test_a_clock_that_is_set_does_not_prolong_a_standing(clock):
    cache = Standings(clock, 5.0)
    load(cache, standing())
    clock.advance(5)
    clock.jump(-3_600)
    assert cache.get("hall") is UNKNOWN


def test_a_look_up_that_was_overtaken_by_a_write_is_not_kept(clock):
    cache = Standings(clock, None)
    began = cache.begin_load()
    cache.drop("hall")
    cache.end_load(began, ["hall", "attic"], {"hall": standing(), "attic": standing("attic")})
    assert cache.get("hall") is UNKNOWN
    assert cache.get("attic") == standing("attic")


def test_of_two_look_ups_under_way_neither_keeps_what_was_overtaken(clock):
    cache = Standings(clock, None)
    first, second = cache.begin_load(), cache.begin_load()
    cache.drop("hall")
    cache.end_load(first, ["hall"], {"hall": standing()})
    cache.end_load(second, ["hall"], {"hall": standing()})
    assert cache.get("hall") is UNKNOWN
    load(cache, standing())
    assert cache.get("hall") == standing()


def test_the_cache_is_bounded_and_keeps_what_is_asked_for(clock):
    cache = Standings(clock, None, cached_max=10)
    load(cache, standing("busy"))
    for number in range(1_000):
        load(cache, absent=(f"thing-{number}",))
        assert cache.get("busy") == standing("busy")
        assert len(cache) <= 10
    assert cache.get("thing-0") is UNKNOWN


def test_a_new_standing_takes_the_place_of_the_old_one_in_either_generation(clock):
    cache = Standings(clock, None, cached_max=4)
    load(cache, standing(), absent=("a", "b"))
    load(cache, standing(model="new"))
    assert cache.get("hall") == standing(model="new")
    cache.drop("hall")
    assert cache.get("hall") is UNKNOWN


def test_a_failed_look_up_leaves_nothing_behind(clock):
    cache = Standings(clock, None)
    began = cache.begin_load()
    cache.drop("hall")
    cache.end_load(began, (), {})
    assert cache.get("hall") is UNKNOWN
    load(cache, standing())
    assert cache.get("hall") == standing()
