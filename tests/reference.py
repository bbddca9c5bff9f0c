"""What a device shadow is, a second time and in another way: the reference that checkers compare with.

It shares no code with `shadow/` and does not look like it: state and stamps are one tree of
``(value, stamp)`` leaves, changed in a copy, taken apart only to be shown. No limits, no permissions, no
tokens: it is told the requests that were accepted. The vectors hold it to the specification.
"""

import copy
from typing import Any

Json = Any
Leaf = tuple[Json, int]


class Shadow:
    """One document; version 0 = never made."""

    def __init__(self) -> None:
        self.version = 0
        self.at = 0
        self.exists = False
        self.sections: dict[str, dict[str, Any]] = {"desired": {}, "reported": {}}

    def update(self, state: Json, now: int) -> None:
        """Apply an accepted request's ``state`` at ``now`` seconds."""
        self._step(now, exists=True)
        for name in ("desired", "reported"):
            patch = None if state is None else state.get(name, {})
            self.sections[name] = {} if patch is None else merged(self.sections[name], patch, self.at)

    def delete(self, now: int) -> None:
        self._step(now, exists=False)
        self.sections = {"desired": {}, "reported": {}}

    def show(self) -> Json:
        """Return ``{"state", "metadata", "version", "timestamp"}``; None when there is no shadow."""
        if not self.exists:
            return None
        shown = {name: section for name, section in self.sections.items() if section}
        return {
            "state": {name: taken(section, 0) for name, section in shown.items()},
            "metadata": {name: taken(section, 1) for name, section in shown.items()},
            "version": self.version,
            "timestamp": self.at,
        }

    def delta(self) -> Json:
        """Return ``{"state", "metadata"}`` of what is desired and not reported; None when all is."""
        left = missing(self.sections["desired"], self.sections["reported"])
        return {"state": taken(left, 0), "metadata": taken(left, 1)} if left else None

    def _step(self, now: int, *, exists: bool) -> None:
        self.version += 1
        self.at = max(now, self.at)
        self.exists = exists


def merged(old: dict[str, Any], patch: dict[str, Json], now: int) -> dict[str, Any]:
    """Return a section after a patch."""
    new = copy.copy(old)
    for name, value in patch.items():
        if value is None:
            new.pop(name, None)
        elif isinstance(value, dict):
            under = new.get(name)
            child = merged(under if isinstance(under, dict) else {}, value, now)
            # Nothing but nulls where nothing was makes nothing; `{}` is a value of its own.
            if child or not value or name in new:
                new[name] = child
        else:
            new[name] = leaf(value, now)
    return new


def leaf(value: Json, now: int) -> Any:
    if isinstance(value, list):
        return [leaf(one, now) for one in value]
    if isinstance(value, dict):
        return {name: leaf(one, now) for name, one in value.items()}
    return value, now


def taken(tree: Any, side: int) -> Json:
    """Return the values (0) or the stamps (1) of a tree."""
    if isinstance(tree, dict):
        return {name: taken(one, side) for name, one in tree.items()}
    if isinstance(tree, list):
        return [taken(one, side) for one in tree]
    return {"timestamp": tree[1]} if side else tree[0]


def missing(desired: dict[str, Any], reported: dict[str, Any]) -> dict[str, Any]:
    left: dict[str, Any] = {}
    for name, want in desired.items():
        have = reported.get(name)
        if isinstance(want, dict) and isinstance(have, dict):
            if below := missing(want, have):
                left[name] = below
        elif have is None or plain(taken(want, 0)) != plain(taken(have, 0)):
            left[name] = want
    return left


def plain(value: Json) -> Any:
    """Return something that is equal for what is equal on the wire: numbers by value, booleans apart."""
    if isinstance(value, bool) or value is None:
        return ("word", value)
    if isinstance(value, int | float):
        return ("number", value)
    if isinstance(value, str):
        return ("text", value)
    if isinstance(value, list):
        return ("array", [plain(one) for one in value])
    return ("object", {name: plain(one) for name, one in value.items()})
