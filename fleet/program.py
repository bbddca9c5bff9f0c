"""A device's side of utility programs, the named shadow ``program``: what it takes part in, at which price.

A change of an enrolment (a new ``rev``) is stored, then acknowledged twice: *activated* once it is applied,
*ready* once the device has tried itself. An acknowledgement is only ever reported. How long both take, and
what goes wrong, is a :class:`Behaviour`: times are seconds since 1970 and come in as arguments.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fleet.trees import Tree

ON, OFF = "on", "off"
SHAPES: Final = frozenset({"tou/1", "rtp/1", "flat/1", "cpp/1"})
ACTIVATE_S, READY_S = 0.2, 0.5


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a device answers when it is provisioned."""

    activate_s: float = ACTIVATE_S
    """From hearing of it to having applied it; infinite: never."""
    ready_s: float = READY_S
    """From there to having passed its own check; infinite: never."""
    fails: str = ""
    """The code it answers instead of being ready, such as ``STORAGE``."""
    fails_times: int = 0
    """So often, then it works: someone has repaired it."""


WELL: Final = Behaviour()


@dataclass(slots=True)
class _Part:
    """One enrolment on its way to being ready."""

    rev: int
    activated_at: float
    ready_at: float
    ack: Tree = field(default_factory=dict)


class Programs:
    """The subject of the shadow ``program``."""

    def __init__(self, behaviour: Behaviour = WELL) -> None:
        self.settings: Tree = {}
        self._behaviour = behaviour
        self._failures = behaviour.fails_times
        self._parts: dict[str, _Part] = {}
        self._now = 0.0

    @property
    def taking_part(self) -> frozenset[str]:
        """Return the programs it is ready for."""
        return frozenset(name for name, part in self._parts.items() if "ready" in part.ack)

    def obey(self, wish: Tree) -> Tree:
        """Store what is wished; answer nothing for what is no object."""
        refused: Tree = {}
        for section in ("tariffs", "enrolments"):
            entries = wish.get(section, {})
            if not isinstance(entries, dict):
                refused[section] = "range"
                continue
            for name, entry in entries.items():
                if not isinstance(entry, dict):
                    refused.setdefault(section, {})[name] = "range"
                    continue
                _merge(self.settings.setdefault(section, {}).setdefault(name, {}), entry)
        for program in self.settings.get("enrolments", {}):
            self._begin(program)
        return refused

    def readings(self) -> Tree:
        acks = {program: dict(part.ack) for program, part in self._parts.items() if part.ack}
        return {"ack": acks} if acks else {}

    def document(self, desired: Tree, reported: Tree) -> None:
        """Learn what the service holds: what nobody wishes any more is over, what was answered stays so."""
        for section in ("enrolments", "tariffs"):
            wished, held = desired.get(section, {}), self.settings.get(section, {})
            for name in [name for name in held if name not in wished]:
                del held[name]
                if section == "enrolments":
                    self._parts.pop(name, None)
        for program, ack in reported.get("ack", {}).items():
            rev = desired.get("enrolments", {}).get(program, {}).get("rev")
            answers = {kind: answer for kind, answer in ack.items() if answer.get("rev") == rev}
            if answers and program not in self._parts:
                self._parts[program] = _Part(rev, -math.inf, self._ready_at(answers), answers)

    def pass_time(self, now: float) -> None:
        """Apply and check what is due."""
        self._now = now
        for program, part in self._parts.items():
            if part.activated_at <= now and "activated" not in part.ack:
                part.ack["activated"] = self._answer(part)
                part.ready_at = now + self._behaviour.ready_s
            if part.ready_at <= now and "activated" in part.ack and not part.ack.keys() & {"ready", "failed"}:
                self._check(program, part)

    def wake_at(self) -> float:
        """Return when :meth:`pass_time` has something to do."""
        return min(map(self._due_at, self._parts.values()), default=math.inf)

    def _begin(self, program: str) -> None:
        entry = self.settings["enrolments"][program]
        known = self._parts.get(program)
        if entry.get("state") != ON:
            self._parts.pop(program, None)
        elif known is None or known.rev != entry.get("rev"):
            self._parts[program] = _Part(
                entry.get("rev", 0), self._now + self._behaviour.activate_s, math.inf
            )

    def _check(self, program: str, part: _Part) -> None:
        """Try oneself: is the tariff one that can be shown, does the load answer."""
        code = ""
        tariff = self.settings["enrolments"].get(program, {}).get("tariff")
        if self._behaviour.fails and self._failures > 0:
            self._failures -= 1
            code = self._behaviour.fails
        elif tariff and self.settings.get("tariffs", {}).get(tariff, {}).get("schema") not in SHAPES:
            code = "UNSUPPORTED"
        if code:
            part.ack["failed"] = self._answer(part) | {"code": code}
        else:
            part.ack["ready"] = self._answer(part)

    def _answer(self, part: _Part) -> Tree:
        return {"rev": part.rev, "at": int(self._now)}

    def _ready_at(self, answers: Mapping[str, Any]) -> float:
        return self._now if "activated" in answers else math.inf

    @staticmethod
    def _due_at(part: _Part) -> float:
        if part.ack.keys() & {"ready", "failed"}:
            return math.inf
        return part.ready_at if "activated" in part.ack else part.activated_at


def _merge(held: Tree, entry: Tree) -> None:
    """Take over an entry as a delta tells it: only what differs."""
    for name, value in entry.items():
        if isinstance(value, dict) and isinstance(held.get(name), dict):
            _merge(held[name], value)
        else:
            held[name] = value
