"""A device as a state machine: messages and time in, publishes and subscriptions out.

    connected(route) ─┐                    ┌─ Subscribe(filters)
    message(topic) ───┤  Device: keepers,  ├─ Publish(topic, payload)
    tick ─────────────┤  one appliance     │
    disconnected ─────┘                    └─ (nothing)

No socket, no clock, no global chance: `connection` and `simulation` bring those,
tests bring values. How a shadow is kept in step stands in `keeper`, what the
hardware does in `appliances`; here they are put together and time is dealt out.
"""

import math
import random
from dataclasses import dataclass
from functools import partial
from typing import Final

from fleet.appliances import NOTICEABLE, Appliance, Configuration
from fleet.firmware import FIRMWARE
from fleet.hardware import Computer, Hardware
from fleet.jobs import (
    JobAnswer,
    StreamAnswer,
    own_firmware_filters,
    parse_any,
    relayed_firmware_filters,
)
from fleet.keeper import Guided, Keeper
from fleet.network import Network
from fleet.program import Programs
from fleet.statistics import Statistics
from fleet.topics import Answer, Route, own_filters, own_route, relayed_filters, request_topic
from fleet.trees import Tree

STEP_S: Final = 10.0  # of physics; also how often readings are looked at
REPORT_EVERY_S: Final = 300  # default of `config`
WILL_PAYLOAD: Final = b'{"state":{"reported":{"online":false}}}'
CLASSIC, CONFIG, PROGRAM, HAN = "", "config", "program", "han"  # shadows


@dataclass(frozen=True, slots=True)
class Publish:
    """Send this, QoS 1, not retained."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Ask for these filters, QoS 1."""

    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GoDark:
    """It goes down: cut its connection, and call ``switch_on`` when it asked to be woken."""


Output = Publish | Subscribe | GoDark


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a device shares with its fleet."""

    statistics: Statistics
    epoch: int  # of the reports' sequence: rises with each start of the fleet
    started_at: float = 0.0  # by the elapsed-time clock
    day_s: float = 0.0  # seconds since the simulated midnight, at that moment
    speed: float = 1.0  # how much faster than time houses warm and tanks cool
    since_s: float = 0.0  # seconds since 1970, at that moment

    def wall_s(self, now: float) -> float:
        """Return the seconds since 1970 at this elapsed time."""
        return self.since_s + now - self.started_at


class Device:
    """One thing: its appliance, its shadows, and the way by which it is reached now."""

    __slots__ = (
        "_computer",
        "_guided",
        "_keepers",
        "_route",
        "_stepped_at",
        "_surroundings",
        "appliance",
        "configuration",
        "is_gateway",
        "name",
        "network",
        "programs",
    )

    def __init__(
        self,
        name: str,
        appliance: Appliance,
        surroundings: Surroundings,
        chance: random.Random,
        network: Network | None = None,
        programs: Programs | None = None,
        hardware: Hardware | None = None,
    ) -> None:
        self.name = name
        self.appliance = appliance
        self.configuration = Configuration(REPORT_EVERY_S)
        self.network = network
        self.programs = None if network is not None else programs or Programs()
        self.is_gateway = network is not None
        self._surroundings = surroundings
        self._route: Route | None = None
        self._stepped_at: float | None = None
        keep = partial(Keeper, epoch=surroundings.epoch, chance=chance, statistics=surroundings.statistics)
        self._keepers = {
            CLASSIC: keep(
                CLASSIC,
                appliance,
                noticeable=NOTICEABLE,
                report_every_s=lambda: self.configuration.report_every_s,
            ),
            CONFIG: keep(CONFIG, self.configuration),
        }
        self._guided: list[Guided] = []
        if network is not None:
            self._guided.append(network)
            self._keepers[HAN] = keep(HAN, network)
        if self.programs is not None:
            self._guided.append(self.programs)
            self._keepers[PROGRAM] = keep(PROGRAM, self.programs)
        self._computer: Computer | None = None
        if hardware is not None:
            self._computer = Computer(name, hardware, self, chance)
            self._computer.switch_on(surroundings.since_s)

    @property
    def route(self) -> Route | None:
        """Return the way by which it reports now; None while it is out of reach."""
        return self._route

    @property
    def in_step(self) -> bool:
        """Whether nothing is left to say in any of its shadows."""
        return all(keeper.in_step for keeper in self._keepers.values())

    @property
    def computer(self) -> Computer:
        """Return what runs its firmware."""
        assert self._computer is not None, "a device without firmware of its own"
        return self._computer

    @property
    def is_dark(self) -> bool:
        """Whether it is down, as after a power cut or while it starts anew."""
        return self._computer is not None and self._computer.is_dark

    def will(self) -> Publish:
        """Return what the broker shall say for it when its connection breaks."""
        return Publish(request_topic(own_route(self.name), CLASSIC, "update"), WILL_PAYLOAD)

    def connected(self, now: float, route: Route) -> list[Output]:
        """Speak by this route from now on: subscribe, then ask what the service holds."""
        self._route = route
        facts = self._keepers[CLASSIC].facts
        if route.gateway is None:
            facts["online"] = True  # the will says the contrary
        else:
            facts.pop("online", None)  # nobody would say the contrary
        for keeper in self._keepers.values():
            keeper.connected(now)
        if self._computer is not None:
            self._computer.connected(self._surroundings.wall_s(now), route)
        return [*self._subscriptions(route), *self._due(now)]

    def disconnected(self) -> None:
        """Keep what waits for an answer; it is asked again after ``connected``."""
        self._route = None
        if self._computer is not None:
            self._computer.disconnected()

    def switch_on(self, now: float) -> bool:
        """Start again, if it is time to; False if it is still dark."""
        return self._computer is None or self._computer.switch_on(self._surroundings.wall_s(now))

    def message(self, now: float, topic: str, payload: bytes) -> list[Output]:
        """Take a message for this thing, by whichever route it came."""
        answer = parse_any(topic)
        if answer is None or answer.thing != self.name:
            self._surroundings.statistics.errors["message for nobody"] += 1
            return []
        return self.take(now, answer, payload)

    def take(self, now: float, answer: Answer | JobAnswer | StreamAnswer, payload: bytes) -> list[Output]:
        """Take a message whose topic has been read, by a gateway that sorts for many."""
        self._surroundings.statistics.received += 1
        self._pass_time(now)
        match answer:
            case Answer() if answer.shadow in self._keepers:
                self._keepers[answer.shadow].answer(answer.event, payload, now)
                if answer.shadow == CONFIG:
                    self._on_config(now, answer, payload)
            case Answer() if answer.shadow != FIRMWARE:
                return []  # a gateway hears of all shadows of its devices
            case _ if self._computer is not None:
                self._computer.take(self._surroundings.wall_s(now), answer, payload)
            case _:
                return []
        return self._due(now)

    def tick(self, now: float) -> list[Output]:
        """Let time pass in the house, then say what is worth saying."""
        if self._stepped_at is None:
            self._stepped_at = now
        elif now - self._stepped_at >= STEP_S:
            self._step(now)
        self._pass_time(now)
        if self._computer is not None:
            self._computer.tick(self._surroundings.wall_s(now))
        return self._due(now)

    def wake_at(self) -> float:
        """Return when to call ``tick`` again if nothing happens before."""
        step_at = -math.inf if self._stepped_at is None else self._stepped_at + STEP_S
        elapsed = self._surroundings.wall_s(0.0)
        step_at = min([step_at, *(one.wake_at() - elapsed for one in self._guided)])
        if self._computer is not None:
            computer_at = self._computer.wake_at() - elapsed
            if self._computer.is_dark:
                return computer_at  # a dark house stands still
            step_at = min(step_at, computer_at)
        if self._route is None:
            return step_at
        return min(step_at, *(keeper.wake_at() for keeper in self._keepers.values()))

    # -- for its firmware -------------------------------------------------------

    def config(self) -> Tree:
        """Return the operating configuration as it is now."""
        return self.configuration.settings

    def load(self, config: Tree) -> None:
        """Work by this configuration from now on."""
        self.configuration.load(config)

    def may_restart(self) -> bool:
        """Whether no event runs, and none starts within two minutes: there are no events yet."""
        return True

    # -- inside -----------------------------------------------------------------

    def _on_config(self, now: float, answer: Answer, payload: bytes) -> None:
        """Write down what was wished; a new image learns that its configuration was heard of."""
        if self._computer is not None:
            self._computer.keep_config(self._surroundings.wall_s(now))
            self._computer.take(self._surroundings.wall_s(now), answer, payload)

    def _pass_time(self, now: float) -> None:
        for one in self._guided:
            one.pass_time(self._surroundings.wall_s(now))

    def _step(self, now: float) -> None:
        assert self._stepped_at is not None
        around = self._surroundings
        at_s = around.day_s + (now - around.started_at) * around.speed
        self.appliance.step(at_s, dt_s=(now - self._stepped_at) * around.speed)
        self._stepped_at = now

    def _subscriptions(self, route: Route) -> list[Subscribe]:
        if route.gateway is not None:
            return []  # its gateway has subscribed for all that are attached to it
        filters = own_filters(self.name, tuple(self._keepers))
        if self._computer is not None:
            filters += own_filters(self.name, (FIRMWARE,)) + own_firmware_filters(self.name)
        if self.is_gateway:
            filters += relayed_filters(self.name) + relayed_firmware_filters(self.name)
        return [Subscribe(filters)]

    def _due(self, now: float) -> list[Output]:
        route = self._route
        if route is None:
            return []
        if self.is_dark:
            return [GoDark()]
        outputs: list[Output] = [
            Publish(request_topic(route, keeper.shadow, request.operation), request.body)
            for keeper in self._keepers.values()
            for request in keeper.due(now)
        ]
        if self._computer is not None:
            sent = self._computer.due(self._surroundings.wall_s(now))
            outputs += [Publish(topic, payload) for topic, payload in sent]
        return outputs
