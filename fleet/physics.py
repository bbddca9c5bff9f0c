"""What happens in a house: heat, hot water, electricity. Pure values in, pure values out.

Two thermal masses in a row, air and walls, with the furnace on the air:

    outdoor ──loss── air ──exchange── walls
                      │
                    heat pump / furnace / people

Steps are implicit Euler: stable for a step of any length, and never a
temperature outside what the surroundings allow (a law of the tests).
What the fleet measures is made here; what it says about it, in `appliances`.
"""

import math
import random
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

HOUR_S: Final = 3_600.0
DAY_S: Final = 86_400.0
WARMEST_HOUR: Final = 15.0
WATER_WH_PER_LITRE_K: Final = 1.163


class Hvac(StrEnum):
    """What heating and cooling is doing right now."""

    OFF = "off"
    HEATING = "heating"
    COOLING = "cooling"
    FAN = "fan"


@dataclass(frozen=True, slots=True)
class Climate:
    """Weather that repeats with its numbers: a daily and a several-day wave."""

    mean_c: float = 14.0
    swing_c: float = 7.0  # day against night
    weather_c: float = 4.0  # warm and cold spells
    weather_phase: float = 0.0


@dataclass(frozen=True, slots=True)
class Envelope:
    """How a house is built and what its heating and cooling can do."""

    loss_w_per_k: float
    exchange_w_per_k: float
    air_wh_per_k: float
    walls_wh_per_k: float
    gains_w: float  # people, lamps, sun
    heating_w: float  # thermal, into the air
    cooling_w: float
    electric_heating_w: float  # what the meter sees of it
    electric_cooling_w: float
    fan_w: float = 180.0


@dataclass(frozen=True, slots=True)
class House:
    """An envelope and its temperatures now."""

    envelope: Envelope
    air_c: float
    walls_c: float


@dataclass(frozen=True, slots=True)
class Tank:
    """A water heater: how hot it is, and what its own thermostat thinks."""

    water_c: float
    volume_l: float = 190.0
    element_w: float = 4_500.0
    target_c: float = 55.0
    band_c: float = 4.0
    wants_heat: bool = False


@dataclass(frozen=True, slots=True)
class Meter:
    """An electricity meter: power now, energy ever."""

    power_w: float = 0.0
    energy_wh: float = 0.0


def outdoor_c(climate: Climate, at_s: float) -> float:
    """Return the outdoor temperature at ``at_s``, seconds since some midnight."""
    hour = (at_s % DAY_S) / HOUR_S
    daily = math.cos((hour - WARMEST_HOUR) * math.tau / 24.0)
    spell = math.sin(at_s * math.tau / (DAY_S * 3.7) + climate.weather_phase)
    return climate.mean_c + climate.swing_c * daily + climate.weather_c * spell


def some_house(chance: random.Random) -> House:
    """Draw a house: from small and well insulated to large and draughty."""
    size = chance.uniform(0.7, 1.6)
    draught = chance.uniform(0.7, 1.5)
    heating_w = 9_000.0 * size
    cooling_w = 8_000.0 * size
    air_c = chance.uniform(18.5, 23.5)
    envelope = Envelope(
        loss_w_per_k=170.0 * size * draught,
        exchange_w_per_k=900.0 * size,
        air_wh_per_k=450.0 * size,
        walls_wh_per_k=3_800.0 * size,
        gains_w=chance.uniform(250.0, 700.0),
        heating_w=heating_w,
        cooling_w=cooling_w,
        electric_heating_w=heating_w / 3.0,  # a heat pump
        electric_cooling_w=cooling_w / 3.2,
    )
    return House(envelope, air_c, air_c + chance.uniform(-0.7, 0.7))


def step(house: House, hvac: Hvac, outside_c: float, dt_s: float) -> House:
    """Return the house ``dt_s`` later, with heating or cooling at full power all the while."""
    if dt_s <= 0:
        return house
    e, dt_h = house.envelope, dt_s / HOUR_S
    # Both equations at the *end* of the step, the walls eliminated:
    #   air' - air     = loss (outside - air') + exchange (walls' - air') + heat
    #   walls' - walls = share (air' - walls')
    loss = e.loss_w_per_k * dt_h / e.air_wh_per_k
    exchange = e.exchange_w_per_k * dt_h / e.air_wh_per_k
    share = e.exchange_w_per_k * dt_h / e.walls_wh_per_k
    heat = (e.gains_w + thermal_w(e, hvac)) * dt_h / e.air_wh_per_k
    seen_walls_c = house.walls_c / (1 + share)
    air_c = (house.air_c + loss * outside_c + exchange * seen_walls_c + heat) / (
        1 + loss + exchange / (1 + share)
    )
    walls_c = (house.walls_c + share * air_c) / (1 + share)
    return replace(house, air_c=air_c, walls_c=walls_c)


def thermal_w(envelope: Envelope, hvac: Hvac) -> float:
    """Return the heat that goes into the air; negative when cooling."""
    match hvac:
        case Hvac.HEATING:
            return envelope.heating_w
        case Hvac.COOLING:
            return -envelope.cooling_w
        case Hvac.OFF | Hvac.FAN:
            return 0.0


def electric_w(envelope: Envelope, hvac: Hvac) -> float:
    """Return what the meter sees of heating and cooling."""
    match hvac:
        case Hvac.HEATING:
            return envelope.electric_heating_w + envelope.fan_w
        case Hvac.COOLING:
            return envelope.electric_cooling_w + envelope.fan_w
        case Hvac.FAN:
            return envelope.fan_w
        case Hvac.OFF:
            return 0.0


def draw_l_per_h(at_s: float) -> float:
    """Return how much hot water a home uses at this time of day: a morning and an evening hump."""
    hour = (at_s % DAY_S) / HOUR_S
    morning = math.exp(-(((hour - 7.0) / 1.2) ** 2))
    evening = math.exp(-(((hour - 19.5) / 1.8) ** 2))
    return 2.0 + 45.0 * morning + 32.0 * evening


def step_tank(tank: Tank, supply: float, draw_l_h: float, dt_s: float) -> Tank:
    """Return the tank ``dt_s`` later; ``supply`` is the share of time with power, 0 to 1.

    The tank decides by its own thermostat whether it takes what the load switch lets through.
    """
    if dt_s <= 0:
        return tank
    dt_h = dt_s / HOUR_S
    wants_heat = tank.water_c < tank.target_c - (0 if tank.wants_heat else tank.band_c)
    heat_wh = tank.element_w * supply * dt_h if wants_heat else 0.0
    store_wh_per_k = tank.volume_l * WATER_WH_PER_LITRE_K
    drawn = draw_l_h * dt_h / tank.volume_l  # replaced by water at 12 °C
    lost = 1.8 * dt_h / store_wh_per_k  # to a cellar at 18 °C
    water_c = (tank.water_c + drawn * 12.0 + lost * 18.0) / (1 + drawn + lost)
    # An element that is on for the whole step must not overshoot its thermostat.
    heated_c = min(water_c + heat_wh / store_wh_per_k, max(water_c, tank.target_c))
    return replace(tank, water_c=heated_c, wants_heat=wants_heat)


def tank_w(tank: Tank, supply: float) -> float:
    """Return the mean power of the element."""
    return tank.element_w * supply if tank.wants_heat else 0.0


def read_meter(meter: Meter, power_w: float, dt_s: float) -> Meter:
    """Return the meter after ``dt_s`` at ``power_w``; energy never falls."""
    return Meter(power_w, meter.energy_wh + max(0.0, power_w) * max(0.0, dt_s) / HOUR_S)
