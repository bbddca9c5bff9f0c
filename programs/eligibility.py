"""Whether a device fits a program, and if not, every reason why. Pure (spec: han, 8.2).

Nothing is refused for its brand: what does not fit is told per program, and all of it at once, so that
whoever is on the telephone knows what would help. A warning is shown and keeps nobody out.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import combinations, zip_longest
from typing import Final

from programs.models import MS_PER_S, PROGRAMS_PER_DEVICE_MAX, Program
from programs.ports import AccountFacts, DeviceFacts, ModelFacts, PremisesFacts
from programs.states import ProgramState

REGISTERED: Final = "REGISTERED"
SUSPENDED: Final = "SUSPENDED"


class Code(StrEnum):
    """Why a device does not fit; the spelling is the API's."""

    CAPABILITY = "CAPABILITY"
    CATEGORY = "CATEGORY"
    MODEL_NOT_VALIDATED = "MODEL_NOT_VALIDATED"
    FIRMWARE_BELOW = "FIRMWARE_BELOW"
    NOT_REGISTERED = "NOT_REGISTERED"
    SUSPENDED = "SUSPENDED"
    TARIFF = "TARIFF"
    ZONE = "ZONE"
    EXCLUSIVE_WITH = "EXCLUSIVE_WITH"
    ALREADY_ENROLLED = "ALREADY_ENROLLED"
    TOO_MANY_PROGRAMS = "TOO_MANY_PROGRAMS"
    PROGRAM_CLOSED = "PROGRAM_CLOSED"
    PROGRAM_FULL = "PROGRAM_FULL"
    FEEDER_FULL = "FEEDER_FULL"
    LOCKED_OUT_UNTIL = "LOCKED_OUT_UNTIL"
    SHADOW_BUDGET = "SHADOW_BUDGET"
    NO_CONSENT = "NO_CONSENT"


CURED_BY_SESSION: Final = frozenset({Code.NOT_REGISTERED, Code.NO_CONSENT})
"""What a provisioning session is about to change; the rest it cannot."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason; ``detail`` says which one of several, ``warning`` that it keeps nobody out."""

    code: Code
    detail: str = ""
    warning: bool = False

    def __str__(self) -> str:
        return f"{self.code}:{self.detail}" if self.detail else str(self.code)


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What of a device's enrolments decides here: those that live, and when it left the others."""

    live: Mapping[str, Program]
    """The programs it is in, or is about to be, by id."""
    left_ms: Mapping[str, int]
    """When it last left a program, by the program's id."""


NOT_ENROLLED: Final = Enrolled({}, {})


@dataclass(frozen=True, slots=True)
class Counters:
    """How many take part already, and whether the device's shadow has room for one program more."""

    devices: int = 0
    feeder_devices: int = 0
    shadow_fits: bool = True


def reasons(
    device: DeviceFacts,
    model: ModelFacts | None,
    account: AccountFacts | None,
    premises: PremisesFacts | None,
    program: Program,
    enrolments: Enrolled,
    counters: Counters,
    now_ms: int,
    *,
    consent: bool,
) -> tuple[Reason, ...]:
    """Return everything that keeps this device out of this program; nothing: it is eligible.

    A model, account or premises that is not known has nothing a program may ask for.
    """
    found = (
        *_of_model(model, program),
        *_of_device(device, model, program),
        *_of_place(account, premises, program),
        *_of_enrolments(program, enrolments, now_ms),
        *_of_room(premises, program, counters),
    )
    return found if consent else (*found, Reason(Code.NO_CONSENT))


def blocking(found: Sequence[Reason], cured: Collection[Code] = ()) -> tuple[Reason, ...]:
    """Return the reasons that keep a device out, but for warnings and what is about to be ``cured``."""
    return tuple(one for one in found if not one.warning and one.code not in cured)


def exclusive_pairs(programs: Sequence[Program]) -> tuple[tuple[str, str], ...]:
    """Return the pairs of these programs that no device may be in together, each by id in order."""
    ordered = sorted(programs, key=lambda program: program.id)
    return tuple((one.id, other.id) for one, other in combinations(ordered, 2) if one.excludes(other))


def is_below(version: str, least: str) -> bool:
    """Tell whether a version is older than another: 1.10 is not older than 1.9; one not known is."""
    pairs = zip_longest(_numbers(version), _numbers(least), fillvalue=0)
    return next((ours < theirs for ours, theirs in pairs if ours != theirs), False)


def _of_model(model: ModelFacts | None, program: Program) -> Iterator[Reason]:
    able = frozenset[str]() if model is None else model.capabilities
    yield from (Reason(Code.CAPABILITY, "|".join(one)) for one in program.requires if able.isdisjoint(one))
    kinds = frozenset[int]() if model is None else model.categories
    if program.categories and kinds.isdisjoint(program.categories):
        yield Reason(Code.CATEGORY)
    if model is None or not model.validated:
        yield Reason(Code.MODEL_NOT_VALIDATED, warning=not program.validated_only)


def _of_device(device: DeviceFacts, model: ModelFacts | None, program: Program) -> Iterator[Reason]:
    fw_min = program.fw_min if model is None or is_below(model.fw_min, program.fw_min) else model.fw_min
    if fw_min and is_below(device.fw, fw_min):
        yield Reason(Code.FIRMWARE_BELOW, fw_min)
    if device.lifecycle == SUSPENDED:
        yield Reason(Code.SUSPENDED)
    elif device.lifecycle != REGISTERED:
        yield Reason(Code.NOT_REGISTERED)


def _of_place(
    account: AccountFacts | None, premises: PremisesFacts | None, program: Program
) -> Iterator[Reason]:
    if program.account_tariffs and (account is None or account.tariff not in program.account_tariffs):
        yield Reason(Code.TARIFF)
    if program.zones and (premises is None or premises.zone not in program.zones):
        yield Reason(Code.ZONE)


def _of_enrolments(program: Program, enrolments: Enrolled, now_ms: int) -> Iterator[Reason]:
    others = [one for id, one in sorted(enrolments.live.items()) if id != program.id]
    yield from (Reason(Code.EXCLUSIVE_WITH, one.id) for one in others if program.excludes(one))
    if program.id in enrolments.live:
        yield Reason(Code.ALREADY_ENROLLED)
    elif len(others) >= PROGRAMS_PER_DEVICE_MAX:
        yield Reason(Code.TOO_MANY_PROGRAMS, str(PROGRAMS_PER_DEVICE_MAX))
    left_ms = enrolments.left_ms.get(program.id)
    if left_ms is not None and program.lockout_days:
        until = datetime.fromtimestamp(left_ms / MS_PER_S, UTC) + timedelta(days=program.lockout_days)
        if now_ms < until.timestamp() * MS_PER_S:
            yield Reason(Code.LOCKED_OUT_UNTIL, until.date().isoformat())


def _of_room(premises: PremisesFacts | None, program: Program, counters: Counters) -> Iterator[Reason]:
    if program.state is not ProgramState.PUBLISHED:
        yield Reason(Code.PROGRAM_CLOSED)
    most = program.capacity
    if most.devices is not None and counters.devices >= most.devices:
        yield Reason(Code.PROGRAM_FULL)
    on_feeder = premises is not None and premises.feeder != ""
    if most.per_feeder is not None and on_feeder and counters.feeder_devices >= most.per_feeder:
        yield Reason(Code.FEEDER_FULL)
    if not counters.shadow_fits:
        yield Reason(Code.SHADOW_BUDGET)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d{1,9}", version))
