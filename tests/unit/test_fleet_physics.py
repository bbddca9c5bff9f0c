"""Physics: the same numbers every time, and no house that breaks the laws of heat."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import physics
from fleet.physics import Climate, House, Hvac, Meter, Tank

HOUSE = physics.some_house(random.Random(7))
HOUR = 3_600.0


def quiet(house: House) -> House:
    """The same house without people or sun."""
    envelope = replace(house.envelope, gains_w=0.0)
    return replace(house, envelope=envelope)


def run(house: House, hvac: Hvac, outside_c: float, hours: float, dt_s: float = 60.0) -> House:
    for _ in range(round(hours * HOUR / dt_s)):
        house = physics.step(house, hvac, outside_c, dt_s)
    return house


def test_one_seed_gives_one_house_and_one_future():
    again = physics.some_house(random.Random(7))
    assert again == HOUSE
    assert run(again, Hvac.HEATING, -5, 2) == run(HOUSE, Hvac.HEATING, -5, 2)
    assert physics.some_house(random.Random(8)) != HOUSE


temperatures = st.floats(-40, 50)


@given(temperatures, temperatures, temperatures, st.floats(0.1, 40 * HOUR))
def test_a_house_left_alone_stays_between_its_own_and_the_outdoor_temperatures(air, walls, outside, dt_s):
    house = replace(quiet(HOUSE), air_c=air, walls_c=walls)
    later = physics.step(house, Hvac.OFF, outside, dt_s)
    low, high = min(air, walls, outside) - 1e-9, max(air, walls, outside) + 1e-9
    assert low <= later.air_c <= high
    assert low <= later.walls_c <= high


@given(temperatures, st.floats(1, 6 * HOUR))
def test_heating_warms_and_cooling_cools_compared_with_doing_nothing(outside, dt_s):
    idle = physics.step(HOUSE, Hvac.OFF, outside, dt_s).air_c
    assert physics.step(HOUSE, Hvac.HEATING, outside, dt_s).air_c > idle
    assert physics.step(HOUSE, Hvac.COOLING, outside, dt_s).air_c < idle


def test_a_house_at_outdoor_temperature_with_nobody_home_stays_there():
    still = replace(quiet(HOUSE), air_c=9.0, walls_c=9.0)
    later = run(still, Hvac.OFF, 9.0, 24)
    assert later.air_c == pytest.approx(9.0)
    assert later.walls_c == pytest.approx(9.0)


def test_one_long_step_ends_near_many_short_ones():
    long = run(HOUSE, Hvac.OFF, 0, 6, dt_s=600)
    short = run(HOUSE, Hvac.OFF, 0, 6, dt_s=5)
    assert long.air_c == pytest.approx(short.air_c, abs=0.15)


def test_no_time_changes_nothing():
    assert physics.step(HOUSE, Hvac.HEATING, -20, 0) is HOUSE
    assert physics.step_tank(Tank(50), 1, 0, 0) == Tank(50)


def test_the_afternoon_is_warmer_than_the_night():
    climate = Climate(weather_c=0)
    assert physics.outdoor_c(climate, 15 * HOUR) == pytest.approx(21.0)
    assert physics.outdoor_c(climate, 3 * HOUR) == pytest.approx(7.0)


@given(st.floats(15, 60), st.floats(0, 1), st.floats(0, 60), st.floats(1, 3 * HOUR))
def test_water_is_never_hotter_than_its_thermostat_allows_nor_colder_than_the_main(water, supply, draw, dt_s):
    later = physics.step_tank(Tank(water), supply, draw, dt_s)
    assert 12.0 <= later.water_c <= max(water, Tank(water).target_c)


def test_a_cold_tank_takes_power_only_as_far_as_the_switch_lets_it_through():
    cold = physics.step_tank(Tank(30), 0.5, 0, 60)
    assert physics.tank_w(cold, 0.5) == pytest.approx(2_250)
    assert physics.tank_w(cold, 0.0) == 0
    hot = physics.step_tank(Tank(55), 1, 0, 60)
    assert physics.tank_w(hot, 1) == 0


def test_a_meter_counts_power_over_time():
    meter = physics.read_meter(Meter(energy_wh=10), 1_000, HOUR / 2)
    assert meter == Meter(1_000, 510)


@given(st.floats(-5_000, 5_000), st.floats(-10, 10_000))
def test_a_meter_never_runs_backwards(power, dt_s):
    assert physics.read_meter(Meter(energy_wh=10), power, dt_s).energy_wh >= 10
