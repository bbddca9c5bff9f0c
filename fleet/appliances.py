"""What each kind of device measures, obeys and refuses: physics on one side, fields on the other.

Nothing here knows of shadows, topics or time-outs: an appliance is given a wish
and says what it could not take over, it is given time to pass, and it tells its
state. `device` keeps the shadow in step with that.
"""

import random
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from fleet import physics
from fleet.physics import Climate, House, Hvac, Meter, Tank
from fleet.trees import Tree

Check = Callable[[Any], bool]
# A field takes what its check allows; an object is a mapping of such fields.
Fields = Mapping[str, Check | Mapping[str, Check]]

# Smallest change of a reading worth a message of its own. Readings that are not here: any change.
NOTICEABLE: Final[Mapping[str, float]] = {
    "temperature_c": 0.3,
    "humidity_pct": 5,
    "power_w": 150,
    "energy_wh": 1_000,
    "signal_dbm": 10,
}
UNKNOWN, REFUSED = "unknown", "range"  # why a wish was not taken over
SWITCHING_BAND_C: Final = 0.4
MESSAGE_LETTERS_MAX: Final = 160
TEXT_LETTERS_MAX, NUMBER_MAX = 64, 1e9  # of a setting that nobody describes further


class Appliance(Protocol):
    """One device's hardware, as its shadow sees it."""

    @property
    def settings(self) -> Tree:
        """What others may wish, as it is now: reported at the same paths."""
        ...

    def obey(self, wish: Tree) -> Tree:
        """Take over what makes sense of ``wish``; return the rest, each with a word why not."""
        ...

    def readings(self) -> Tree:
        """What only the device can know: rounded, so that equal means unchanged."""
        ...

    def power_w(self) -> float:
        """What the meter sees of it now."""
        ...

    def step(self, at_s: float, dt_s: float) -> None:
        """Let ``dt_s`` pass, up to ``at_s``: seconds since some midnight."""
        ...


def take_over(settings: Tree, wish: Tree, fields: Fields) -> Tree:
    """Write into ``settings`` what ``fields`` allow of ``wish``; return what they do not."""
    refused: Tree = {}
    for name, value in wish.items():
        field = fields.get(name)
        if isinstance(field, Mapping) and isinstance(value, dict):
            below = take_over(settings.setdefault(name, {}), value, field)
            if below:
                refused[name] = below
        elif field is None:
            refused[name] = UNKNOWN
        elif isinstance(field, Mapping) or not field(value):
            refused[name] = REFUSED
        else:
            settings[name] = value
    return refused


def one_of(*words: str) -> Check:
    """Allow these words."""
    return lambda value: isinstance(value, str) and value in words


def within(low: float, high: float) -> Check:
    """Allow numbers in a range; a boolean is no number."""
    return lambda value: (
        isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    )


def whole(low: int, high: int) -> Check:
    """Allow whole numbers in a range, however they are written."""
    in_range = within(low, high)
    return lambda value: in_range(value) and value == int(value)


def text(letters_max: int) -> Check:
    """Allow a text of bounded length."""
    return lambda value: isinstance(value, str) and len(value) <= letters_max


def yes_or_no(value: object) -> bool:
    """Allow a boolean, never 0 or 1."""
    return isinstance(value, bool)


class Thermostat:
    """Heats and cools one zone of a house by its set points."""

    FIELDS: Final[Fields] = {
        "mode": one_of("off", "heat", "cool", "auto"),
        "heat_c": within(5, 30),
        "cool_c": within(16, 40),
        "fan": one_of("auto", "on"),
    }

    def __init__(self, chance: random.Random, climate: Climate) -> None:
        self._climate = climate
        self._house: House = physics.some_house(chance)
        self._humidity_offset = chance.uniform(-8, 8)
        self._hvac = Hvac.OFF
        self.fault: str | None = None  # set by whoever plays a repair scene
        self.settings: Tree = {
            "mode": chance.choice(("auto", "auto", "heat", "cool")),
            "heat_c": chance.choice((19.5, 20, 20.5, 21)),
            "cool_c": chance.choice((24, 24.5, 25, 26)),
            "fan": "auto",
        }

    def obey(self, wish: Tree) -> Tree:
        refused = take_over(self.settings, wish, self.FIELDS)
        self._hvac = self._switch()  # people hear the relay at once, not at the next step
        return refused

    def readings(self) -> Tree:
        air_c = self._house.air_c
        humidity = 46 + self._humidity_offset - 1.4 * (air_c - 21)
        readings: Tree = {
            "temperature_c": round(air_c, 1),
            "humidity_pct": round(min(95, max(10, humidity))),
            "hvac": self._hvac.value,
            "power_w": round(self.power_w()),
        }
        if self.fault is not None:
            readings["fault"] = self.fault
        return readings

    def power_w(self) -> float:
        return physics.electric_w(self._house.envelope, self._hvac)

    def step(self, at_s: float, dt_s: float) -> None:
        outside_c = physics.outdoor_c(self._climate, at_s)
        self._house = physics.step(self._house, self._hvac, outside_c, dt_s)
        self._hvac = self._switch()

    def _switch(self) -> Hvac:
        """Decide heating and cooling, with a band so that nothing flutters."""
        mode, air_c = self.settings["mode"], self._house.air_c
        warm_enough = self.settings["heat_c"] + (
            SWITCHING_BAND_C if self._hvac is Hvac.HEATING else -SWITCHING_BAND_C
        )
        cool_enough = self.settings["cool_c"] - (
            SWITCHING_BAND_C if self._hvac is Hvac.COOLING else -SWITCHING_BAND_C
        )
        if mode in ("heat", "auto") and air_c < warm_enough:
            return Hvac.HEATING
        if mode in ("cool", "auto") and air_c > cool_enough:
            return Hvac.COOLING
        return Hvac.FAN if self.settings["fan"] == "on" else Hvac.OFF


class LoadSwitch:
    """Lets a water heater have power, all or a share of the time."""

    FIELDS: Final[Fields] = {"on": yes_or_no, "duty_pct": whole(0, 100)}

    def __init__(self, chance: random.Random) -> None:
        self._tank = Tank(water_c=chance.uniform(46, 55))
        self.settings: Tree = {"on": True, "duty_pct": 100}

    def obey(self, wish: Tree) -> Tree:
        return take_over(self.settings, wish, self.FIELDS)

    def readings(self) -> Tree:
        return {"power_w": round(self.power_w())}

    def power_w(self) -> float:
        return physics.tank_w(self._tank, self._supply())

    def step(self, at_s: float, dt_s: float) -> None:
        self._tank = physics.step_tank(self._tank, self._supply(), physics.draw_l_per_h(at_s), dt_s)

    def _supply(self) -> float:
        return self.settings["duty_pct"] / 100 if self.settings["on"] else 0.0


class Display:
    """Shows a message in the kitchen."""

    FIELDS: Final[Fields] = {
        "message": {"text": text(MESSAGE_LETTERS_MAX), "priority": whole(0, 3)},
        "brightness_pct": whole(0, 100),
    }

    def __init__(self, chance: random.Random) -> None:
        self._signal_dbm = chance.randint(-85, -45)
        self.settings: Tree = {"message": {"text": "", "priority": 0}, "brightness_pct": 60}

    def obey(self, wish: Tree) -> Tree:
        return take_over(self.settings, wish, self.FIELDS)

    def readings(self) -> Tree:
        return {"signal_dbm": self._signal_dbm}

    def power_w(self) -> float:
        return 1.0 + 0.02 * float(self.settings["brightness_pct"])

    def step(self, at_s: float, dt_s: float) -> None:
        """Nothing happens in a display while nobody wishes anything."""


class MeterGateway:
    """An electricity meter with a radio: reads what all appliances of the home take."""

    FIELDS: Final[Fields] = {"led": one_of("on", "off")}

    def __init__(self, chance: random.Random, loads: Callable[[], float]) -> None:
        self._loads = loads
        self._base_w = chance.uniform(120, 450)  # refrigerator, standby, what the plan does not know
        self._meter = Meter(energy_wh=float(chance.randint(2_000_000, 30_000_000)))
        self.settings: Tree = {"led": "on"}

    def obey(self, wish: Tree) -> Tree:
        return take_over(self.settings, wish, self.FIELDS)

    def readings(self) -> Tree:
        return {"power_w": round(self._meter.power_w), "energy_wh": round(self._meter.energy_wh)}

    def power_w(self) -> float:
        return self._base_w

    def step(self, at_s: float, dt_s: float) -> None:  # noqa: ARG002 - a meter needs no time of day
        self._meter = physics.read_meter(self._meter, self._loads() + self._base_w, dt_s)


class BroadbandGateway:
    """The customer's own box: says that it is there, and how well it hears its devices."""

    FIELDS: Final[Fields] = {"led": one_of("on", "off")}

    def __init__(self, chance: random.Random) -> None:
        self._signal_dbm = chance.randint(-75, -40)
        self.settings: Tree = {"led": "on"}

    def obey(self, wish: Tree) -> Tree:
        return take_over(self.settings, wish, self.FIELDS)

    def readings(self) -> Tree:
        return {"wan": "up", "signal_dbm": self._signal_dbm}

    def power_w(self) -> float:
        return 7.0

    def step(self, at_s: float, dt_s: float) -> None:
        """A box in a cupboard: nothing to simulate."""


class Configuration:
    """Operating settings, the named shadow `config` of every device."""

    FIELDS: Final[Fields] = {
        "rev": whole(0, 2**53 - 1),
        "reportEvery": whole(5, 86_400),
        "lang": one_of("en", "es", "fr", "de"),
    }

    def __init__(self, report_every_s: int) -> None:
        self._report_every_s = report_every_s
        self.settings: Tree = {}
        self._fields: Fields = {}
        self.load({"reportEvery": report_every_s, "lang": "en"})

    @property
    def report_every_s(self) -> int:
        """Return the longest silence of this device."""
        return int(self.settings.get("reportEvery", self._report_every_s))

    def load(self, settings: Tree) -> None:
        """Work by these settings from now on: of each, others may wish another value of the same kind."""
        self.settings = settings
        self._fields = {**_like(settings), **self.FIELDS}

    def obey(self, wish: Tree) -> Tree:
        return take_over(self.settings, wish, self._fields)

    def readings(self) -> Tree:
        return {}


def _like(settings: Tree) -> dict[str, Any]:
    """Return fields that allow values of the same kind as these."""
    return {
        name: _like(value) if isinstance(value, dict) else _kind(value) for name, value in settings.items()
    }


def _kind(value: object) -> Check:
    if isinstance(value, bool):
        return yes_or_no
    return text(TEXT_LETTERS_MAX) if isinstance(value, str) else within(-NUMBER_MAX, NUMBER_MAX)
