"""The ``program`` shadow of a device: what enrolments want in it, and what the device answers there. Pure.

What a device says is looked at with care: anything may stand in ``reported``. Removing is a value: a device
hears of an end by ``state: off``, never by a field that is gone; once it has said so, the entry is nulled on
both sides in one update. Events and whatever else stands in the shadow is left alone. (spec: han, 8.3)
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from programs.models import MS_PER_S, Tariff
from programs.records import Enrolment
from programs.states import TOLD, EnrolmentState
from shadow.document import Tree, merge_patch_between

SHADOW: Final = "program"
ON, OFF = "on", "off"
ENROLMENTS, TARIFFS, ACK = "enrolments", "tariffs", "ack"
EVENTS_BYTES: Final = 4_096
"""Kept free for events, which come to those that take part."""
ACK_BYTES: Final = 240
"""The three answers to one enrolment at their longest, beside its id."""
SHADOW_BUDGET: Final = "SHADOW_BUDGET"
"""Why an enrolment failed that could not even be written."""
FAILURES: Final = frozenset({"UNSUPPORTED", "STORAGE", "CLOCK", "NO_LOAD", "REFUSED", "INTERNAL"})
UNKNOWN_FAILURE: Final = "INTERNAL"
"""Stands for a code that no device may answer."""

_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Answer:
    """What a device has said about one rev of an enrolment."""

    activated: bool = False
    ready: bool = False
    failed: str = ""
    """The code; empty: it did not fail."""

    @property
    def well(self) -> bool:
        """Whether it has answered, and nothing was wrong."""
        return not self.failed and (self.activated or self.ready)


def answer(reported: Tree, program: str, rev: int) -> Answer:
    """Return what a device has said about this rev; what it said about others counts for nothing."""
    said = _tree(_tree(reported.get(ACK)).get(program))
    of_rev = {kind: _tree(said.get(kind)) for kind in ("activated", "ready", "failed")}
    of_rev = {kind: one for kind, one in of_rev.items() if _is_number(one.get("rev"), rev)}
    failed = ""
    if "failed" in of_rev:
        code = of_rev["failed"].get("code")
        failed = code if isinstance(code, str) and code in FAILURES else UNKNOWN_FAILURE
    return Answer("activated" in of_rev, "ready" in of_rev, failed)


def is_off(reported: Tree, program: str, rev: int) -> bool:
    """Tell whether a device says of this very enrolment that it is over."""
    entry = _tree(_tree(reported.get(ENROLMENTS)).get(program))
    return entry.get("state") == OFF and _is_number(entry.get("rev", rev), rev)


def wanted(enrolments: Iterable[Enrolment], tariffs: Mapping[str, Tariff]) -> Tree:
    """Return what shall stand in ``desired``: an entry for each enrolment, and its tariff."""
    ours = sorted((one for one in enrolments if _is_shown(one)), key=lambda one: one.program)
    entries = {one.program: _entry(one) for one in ours}
    named = sorted({one.tariff for one in ours if one.tariff in tariffs})
    sections = {ENROLMENTS: entries, TARIFFS: {id: tariff_entry(tariffs[id]) for id in named}}
    # An empty object is a field too: a device that never had one would be asked for it for ever.
    return {name: section for name, section in sections.items() if section}


def patch(
    enrolments: Sequence[Enrolment], tariffs: Mapping[str, Tariff], desired: Tree, reported: Tree
) -> Tree:
    """Return the state to send so that the shadow is as it shall be; empty: it is."""
    want = wanted(enrolments, tariffs)
    have = {name: desired[name] for name in (ENROLMENTS, TARIFFS) if name in desired}
    changes = {
        "desired": merge_patch_between(have, want),
        "reported": finished_patch(enrolments, want, have, reported),
    }
    return {section: change for section, change in changes.items() if change}


def finished_patch(enrolments: Iterable[Enrolment], want: Tree, have: Tree, reported: Tree) -> Tree:
    """Return the nulls for what a device still reports of what is over: role system may write no other."""
    over = [one for one in enrolments if one.state is EnrolmentState.ENDED]
    programs = ({one.program for one in over} | _tree(have.get(ENROLMENTS)).keys()) - _tree(
        want.get(ENROLMENTS)
    ).keys()
    tariffs = ({one.tariff for one in over} | _tree(have.get(TARIFFS)).keys()) - _tree(
        want.get(TARIFFS)
    ).keys()
    return _nulls(reported, {ENROLMENTS: programs, ACK: programs, TARIFFS: tariffs})


def fits(
    enrolments: Sequence[Enrolment],
    tariffs: Mapping[str, Tariff],
    desired: Tree,
    reported: Tree,
    bytes_max: int,
) -> bool:
    """Tell whether a shadow has room for these enrolments once the device has answered them all."""
    want = wanted(enrolments, tariffs)
    answers = sum(ACK_BYTES + len(program) for program in want.get(ENROLMENTS, {}))
    others = sum(
        len(
            _encode(
                {name: one for name, one in tree.items() if name not in (ENROLMENTS, TARIFFS, ACK, "events")}
            )
        )
        for tree in (desired, reported)
    )
    return 2 * len(_encode(want)) + answers + others + EVENTS_BYTES <= bytes_max


def tariff_entry(tariff: Tariff) -> Tree:
    """Return a tariff as devices get it."""
    return {"schema": tariff.shape, "rev": tariff.rev, **tariff.body}


def _entry(one: Enrolment) -> Tree:
    state = ON if one.state in TOLD else OFF
    entry: Tree = {"rev": one.rev, "state": state, "from": one.since_ms // MS_PER_S}
    if one.tariff:
        entry["tariff"] = one.tariff
    if one.params:
        entry["params"] = dict(one.params)
    return entry


def _is_shown(one: Enrolment) -> bool:
    return (one.state in TOLD or one.state is EnrolmentState.ENDING) and one.failure != SHADOW_BUDGET


def _nulls(tree: Tree, gone: Mapping[str, Iterable[str]]) -> Tree:
    nulls: Tree = {}
    for section, names in gone.items():
        held = _tree(tree.get(section))
        there = {name: None for name in sorted(names) if name in held}
        if there:
            nulls[section] = None if len(there) == len(held) else there
    return nulls


def _tree(value: Any) -> Tree:  # noqa: ANN401 - a device may report anything
    return value if isinstance(value, dict) else {}


def _is_number(value: Any, number: int) -> bool:  # noqa: ANN401 - a device may report anything
    return isinstance(value, int | float) and not isinstance(value, bool) and value == number
