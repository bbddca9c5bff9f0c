"""The values of the catalogue: programs, shapes of what is sent, tariffs. What they must be like to be kept.

A program is data: a new one needs no code. A shape says how the body of a tariff, of a message or of the
parameters of an enrolment looks; its version is part of its name, and it never changes, so that whatever was
checked against it once fits for ever. (spec: han, 8.1)
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from programs.errors import InvalidEntryError
from programs.states import ProgramState

PROGRAMS_MAX: Final = 200
"""Programs that are kept, drafts and closed ones too."""
PROGRAMS_PER_DEVICE_MAX: Final = 4
"""Programs one device takes part in at a time."""
OTA: Final = "ota"
"""Firmware campaigns: a consent text, but neither an entry of the catalogue nor an enrolment."""
LIST_MAX: Final = 64
"""Items of each list of a program."""
TEXT_CHARS_MAX: Final = 1_000
NAME_CHARS_MAX: Final = 64
MS_PER_S: Final = 1_000
SECONDS_OF_A_DAY: Final = 86_400
DAYS_MAX: Final = 3_660
SECONDS_MAX: Final = 366 * SECONDS_OF_A_DAY
PRIMACIES: Final = range(256)
CATEGORIES: Final = range(21)
"""Bits of IEEE 2030.5."""
COUNT_MAX: Final = 1_000_000_000

_ID: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
_WORD: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_SHAPE: Final = re.compile(r"[a-z][a-z0-9-]{0,30}/[1-9][0-9]{0,3}")
_DAYS: Final = re.compile("[1-7](?:-[1-7])?(?:,[1-7](?:-[1-7])?){0,6}")
_VERSION: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z._+-]{0,31}")

Body = Mapping[str, Any]
"""A JSON object whose fields its shape describes."""


class ProgramType(StrEnum):
    """What kind of program it is, as utilities call them."""

    CPP = "CPP"
    TOU = "TOU"
    RTP = "RTP"
    DLC = "DLC"
    PCT = "PCT"
    CAPACITY = "CAPACITY"
    EMERGENCY = "EMERGENCY"
    INFO = "INFO"


class OverrideMode(StrEnum):
    """Whether a customer may override what an event asks for."""

    FREE = "free"
    LIMITED = "limited"
    NONE = "none"


class Permission(StrEnum):
    """Whether an emergency may be overridden; the sources of our requirements disagree."""

    FORBID = "forbid"
    ALLOW = "allow"


class Leaving(StrEnum):
    """What becomes of an event that runs while a device leaves."""

    FINISH = "finish"
    STOP = "stop"


class ShapeKind(StrEnum):
    """What has this shape."""

    TARIFF = "tariff"
    MESSAGE = "message"
    PARAMS = "params"


@dataclass(frozen=True, slots=True)
class Override:
    """How far a customer may go back behind an event."""

    mode: OverrideMode = OverrideMode.LIMITED
    per_season: int | None = None
    seconds: int | None = None
    """An override of up to this long still counts as having taken part."""
    emergency: Permission = Permission.ALLOW


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many devices may take part; None: as many as want to."""

    devices: int | None = None
    per_feeder: int | None = None


@dataclass(frozen=True, slots=True)
class EventsMax:
    """How often a device may be asked; None: as often as it comes."""

    day: int | None = None
    season: int | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """When events may begin: seconds of the day from midnight at the place, on these days of the week."""

    days: str = "1-7"
    from_s: int = 0
    to_s: int = SECONDS_OF_A_DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What the utility offers, as customers and operators read it."""

    id: str
    name: str
    type: ProgramType
    description: str = ""
    requires: tuple[tuple[str, ...], ...] = ()
    """Of each set a device must have one capability."""
    categories: tuple[int, ...] = ()
    """Of these a device must have one; empty: any device."""
    exclusive_with: tuple[str, ...] = ()
    """Programs no device is in beside this one; it is enough that one of the two says so."""
    tariff_ref: str = ""
    """The tariff that devices get; empty: none."""
    account_tariffs: tuple[str, ...] = ()
    """An account must have one of these; empty: any."""
    params_shape: str = ""
    """The shape of the parameters of an enrolment; empty: it has none."""
    window: Window | None = None
    capacity: Capacity = Capacity()
    zones: tuple[str, ...] = ()
    fw_min: str = ""
    validated_only: bool = False
    """Insists on models that the utility has tried out itself."""
    lockout_days: int = 0
    """So long a device that has left stays out."""
    notice_min_s: int = 0
    max_event_s: int | None = None
    max_events: EventsMax = EventsMax()
    min_rest_s: int = 0
    primacy: int = 100
    """Of two programs that want different things of a device, the lower one wins."""
    mandatory: bool = False
    override: Override = Override()
    unenrol_during_event: Leaving = Leaving.FINISH
    consent_text_version: str = "1"
    """Of the text that a customer says yes to; who has said yes to another one is asked again."""
    state: ProgramState = ProgramState.DRAFT
    version: int = 0
    """Rises with each change; given by the catalogue, like the state."""

    def excludes(self, other: "Program") -> bool:
        """Tell whether no device may be in both; the same asked from either side."""
        return other.id in self.exclusive_with or self.id in other.exclusive_with


@dataclass(frozen=True, slots=True)
class Shape:
    """A JSON Schema (2020-12) under a name with its version, like ``tou/1``."""

    id: str
    kind: ShapeKind
    schema: Body


@dataclass(frozen=True, slots=True)
class Tariff:
    """What energy costs, in a shape of the catalogue."""

    id: str
    shape: str
    body: Body
    rev: int = 0
    """Rises with each change; given by the catalogue."""


def check_program(program: Program) -> None:
    """Raise :class:`InvalidEntryError` with everything that no program can be like."""
    problems = [text for holds, text in _program_rules(program) if not holds]
    if problems:
        raise InvalidEntryError("program", problems)


def check_id(id: str) -> None:
    """Raise :class:`InvalidEntryError` unless a program or tariff can be called so."""
    if not _ID.fullmatch(id):
        raise InvalidEntryError("id", ("id: 1 to 32 of a-z 0-9 and - inside",))


def check_shape_id(id: str) -> None:
    """Raise :class:`InvalidEntryError` unless a shape can be called so."""
    if not _SHAPE.fullmatch(id):
        raise InvalidEntryError("shape", ("id: a name, a slash and a version, like tou/1",))


def _program_rules(one: Program) -> Iterator[tuple[bool, str]]:
    """Yield what must hold of a program, and how whoever wrote it is told."""
    yield _ID.fullmatch(one.id) is not None, "id: 1 to 32 of a-z 0-9 and - inside"
    yield one.id != OTA, "id: this one stands for firmware campaigns"
    yield one.name != "" and len(one.name) <= NAME_CHARS_MAX, f"name: 1 to {NAME_CHARS_MAX} characters"
    yield len(one.description) <= TEXT_CHARS_MAX, f"description: at most {TEXT_CHARS_MAX} characters"
    sets = len(one.requires) <= LIST_MAX and all(names and _are_words(names) for names in one.requires)
    yield sets, f"requires: at most {LIST_MAX} sets of capabilities"
    yield set(one.categories) <= set(CATEGORIES), "categories: bits 0 to 20"
    yield _are_ids(one.exclusive_with), "exclusive_with: ids of programs"
    yield one.id not in one.exclusive_with, "exclusive_with: a program does not exclude itself"
    yield _are_ids((one.tariff_ref,) if one.tariff_ref else ()), "tariff_ref: the id of a tariff"
    yield _are_words(one.account_tariffs), "account_tariffs: ids of tariffs"
    yield _are_words(one.zones), "zones: ids of zones"
    yield one.window is None or _is_window(one.window), "window: days like 1-5 or 6,7, and seconds of one day"
    counts = (*_counts(one.capacity.devices, one.capacity.per_feeder),
              *_counts(one.max_events.day, one.max_events.season),
              *_counts(one.override.per_season, one.override.seconds))  # fmt: skip
    yield all(counts), f"capacity, max_events, override: whole numbers from 0 to {COUNT_MAX:,}"
    yield not one.fw_min or _VERSION.fullmatch(one.fw_min) is not None, "fw_min: a version, like 1.4.0"
    yield 0 <= one.lockout_days <= DAYS_MAX, f"lockout_days: 0 to {DAYS_MAX}"
    seconds = (one.notice_min_s, one.min_rest_s, one.max_event_s or 0)
    yield (
        all(0 <= value <= SECONDS_MAX for value in seconds),
        "notice_min_s, min_rest_s, max_event_s: a year at most",
    )
    yield one.primacy in PRIMACIES, f"primacy: 0 to {PRIMACIES[-1]}"
    yield _are_words((one.consent_text_version,)), "consent_text_version: 1 to 64 characters"


def _are_ids(names: tuple[str, ...]) -> bool:
    return len(names) <= LIST_MAX and all(map(_ID.fullmatch, names))


def _are_words(names: tuple[str, ...]) -> bool:
    return len(names) <= LIST_MAX and all(map(_WORD.fullmatch, names))


def _is_window(window: Window) -> bool:
    in_a_day = 0 <= window.from_s < window.to_s <= SECONDS_OF_A_DAY
    return in_a_day and _DAYS.fullmatch(window.days) is not None


def _counts(*numbers: int | None) -> Iterator[bool]:
    return (number is None or 0 <= number <= COUNT_MAX for number in numbers)
