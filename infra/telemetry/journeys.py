"""Traces of an update's journey: received → taken from the queue → committed → published.

    request ├────────────────────────────────────────┤
    queue   ├────────┤
    commit           ├──────────────┤
    publish                         ├────────────────┤

A journey that is sampled is remembered under the key of its request; each station stamps those that it
sees, and the spans are made at the end, after the fact, from the stamps. When traces are off the hot path
tests one attribute (``on``, ``open``) and nothing is called, made or kept; the SDK is not even loaded.
Bounded: what finds no room, or overtakes the exporter, is not traced. Telemetry fails soft.
"""

import random
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import structlog

from infra.clock import Clock
from infra.settings import TelemetrySettings

OPEN_MAX: Final = 1_000
"""Journeys under way that are traced; one more is not."""
NS_PER_S: Final = 1_000_000_000
NS_PER_MS: Final = 1_000_000

_log = structlog.get_logger(__name__)


class Leg(NamedTuple):
    """A part of a journey, in nanoseconds since 1970."""

    name: str
    from_ns: int
    to_ns: int


class Recorder(Protocol):
    """Where finished journeys go."""

    def record(self, attributes: Mapping[str, str], legs: Sequence[Leg]) -> None:
        """Take a journey: first the whole of it, then its parts."""
        ...

    def close(self) -> None:
        """Hand over what waits."""
        ...


class _Journey:
    """The stamps of one request, in elapsed seconds."""

    __slots__ = ("act", "attributes", "committed_s", "received_s", "taken_s")

    def __init__(self, received_s: float, attributes: Mapping[str, str]) -> None:
        self.received_s = received_s
        self.attributes = attributes
        self.act: Hashable = None
        self.taken_s: float | None = None
        self.committed_s: float | None = None


class Journeys:
    """The journeys under way. Callers ask ``on`` before the first station and ``open`` before the others."""

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        recorder: Recorder | None = None,
        sample_ratio: float = 0.0,
    ) -> None:
        self.on = recorder is not None and sample_ratio > 0
        self.open: dict[Hashable, _Journey] = {}
        self._clock = clock
        self._rng = rng
        self._recorder = recorder
        self._sample_ratio = sample_ratio

    def received(self, key: Hashable, attributes: Mapping[str, str]) -> None:
        """Begin a journey, if this request is one of the sampled."""
        if self._rng.random() < self._sample_ratio and len(self.open) < OPEN_MAX:
            self.open[key] = _Journey(self._clock.elapsed_s(), attributes)

    def taken(self, keys: Iterable[Hashable]) -> None:
        """Stamp the requests that left the queue."""
        now_s = self._clock.elapsed_s()
        for key in keys:
            journey = self.open.get(key)
            if journey is not None:
                journey.taken_s = now_s

    def became(self, acts: Iterable[tuple[Hashable, Hashable]]) -> None:
        """Note under which key the act of a request will be heard of: pairs of request and act."""
        for key, act in acts:
            journey = self.open.get(key)
            if journey is not None:
                journey.act = act

    def committed(self, acts: Iterable[Hashable]) -> None:
        """Stamp the requests whose acts were made durable."""
        now_s = self._clock.elapsed_s()
        durable = set(acts)
        for journey in self.open.values():
            if journey.act is not None and journey.act in durable:
                journey.committed_s = now_s

    def ended(self, keys: Iterable[Hashable]) -> None:
        """Record the requests whose answers are written."""
        now_s = self._clock.elapsed_s()
        for key in keys:
            journey = self.open.pop(key, None)
            if journey is not None:
                self._record(journey, now_s)

    def forget(self, keys: Iterable[Hashable]) -> None:
        """Drop the requests that were let go and will begin anew."""
        for key in keys:
            self.open.pop(key, None)

    def close(self) -> None:
        """Take nothing more and hand over what waits."""
        self.on = False
        self.open.clear()
        if self._recorder is not None:
            self._recorder.close()

    def _record(self, journey: _Journey, ended_s: float) -> None:
        assert self._recorder is not None, "only what is on begins a journey"
        # Elapsed time does not jump, so wall time is asked once and the stamps count back from it.
        wall_ns = self._clock.now_ms() * NS_PER_MS

        def at_ns(stamp_s: float) -> int:
            return wall_ns - round((ended_s - stamp_s) * NS_PER_S)

        legs = [Leg(name, at_ns(from_s), at_ns(to_s)) for name, from_s, to_s in _legs(journey, ended_s)]
        try:
            self._recorder.record(journey.attributes, legs)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a trace, its request is not
            _log.warning("traces_lost", spans=len(legs), reason=str(error))


def _legs(journey: _Journey, ended_s: float) -> list[tuple[str, float, float]]:
    """Return a journey and its parts; what was refused or only read was never committed."""
    whole = ("request", journey.received_s, ended_s)
    if journey.taken_s is None:
        return [whole]
    queue = ("queue", journey.received_s, journey.taken_s)
    if journey.committed_s is None:
        return [whole, queue, ("answer", journey.taken_s, ended_s)]
    return [
        whole,
        queue,
        ("commit", journey.taken_s, journey.committed_s),
        ("publish", journey.committed_s, ended_s),
    ]


def open_journeys(settings: TelemetrySettings, directory: Path, clock: Clock, rng: random.Random) -> Journeys:
    """Return journeys that go where the settings say."""
    if settings.traces == "off":
        return Journeys(clock, rng)
    # Here, so that whoever does not trace does not load the SDK (tens of milliseconds, a few megabytes).
    from infra.telemetry.spans import open_spans  # noqa: PLC0415 - see above

    _log.info("traces_on", to=settings.traces, sample_ratio=settings.sample_ratio)
    return Journeys(clock, rng, open_spans(settings.traces, directory), settings.sample_ratio)
