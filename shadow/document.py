"""The rules of a shadow document: merge, stamps, difference, sizes. Values in, values out.

Nothing here does I/O, asks the time or changes an argument. A tree that was put into a
:class:`Part` is never written to again: a merge copies the levels it touches and shares the rest.

Two trees walk side by side everywhere: the state, and its *stamps* (the wire's ``metadata``), which
have the same shape with ``{"timestamp": s}`` in place of every scalar. A stamp cannot be told from a
field by its look, because a field may itself be called ``timestamp``. (spec: shadow, sections 3-6)
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

Tree = dict[str, Any]
"""A JSON object: the state of a section, or its stamps."""

Stamp = dict[str, int]
"""``{"timestamp": seconds}``; one object is shared by all leaves that one update wrote."""

_encode = msgspec.json.Encoder().encode
_MISSING: Any = object()


class ShadowId(NamedTuple):
    """Names one shadow; ``name`` is empty for the classic one. A tuple, since it keys hot caches."""

    thing: str
    name: str = ""

    @property
    def key(self) -> str:
        """The id under which stores keep it; ``/`` is in neither alphabet, so it is reversible."""
        return f"{self.thing}/{self.name}"

    @classmethod
    def of_key(cls, key: str) -> "ShadowId":
        """Return the id whose :attr:`key` this is."""
        thing, _, name = key.partition("/")
        return cls(thing, name)


class Part(msgspec.Struct, frozen=True, gc=False):
    """A section (desired or reported) with its encodings, which are sent and measured each time.

    A msgspec Struct rather than a dataclass: one is made per update, and it is made five times as fast.
    """

    state: Tree
    stamps: Tree
    state_json: bytes
    stamps_json: bytes

    @property
    def size_bytes(self) -> int:
        """What counts against the limit: the compact UTF-8 JSON of the state; nothing when empty."""
        return len(self.state_json) if self.state else 0


EMPTY = Part({}, {}, b"{}", b"{}")


def part(state: Tree, stamps: Tree) -> Part:
    """Return the section that holds these two trees; an empty one is always :data:`EMPTY`."""
    if not state:
        return EMPTY
    return Part(state, stamps, _encode(state), _encode(stamps))


def write(before: Part, patch: Tree | None, stamp: Stamp) -> Part:
    """Return ``before`` with ``patch`` merged in; None removes the section (spec 3, rules 1-8)."""
    if patch is None:
        return EMPTY
    return part(*merge(before.state, before.stamps, patch, stamp))


def merge(state: Tree, stamps: Tree, patch: Mapping[str, Any], stamp: Stamp) -> tuple[Tree, Tree]:
    """Merge ``patch`` into ``state`` and stamp what it writes; return the new pair of trees."""
    state, stamps = dict(state), dict(stamps)
    for name, value in patch.items():
        kind = type(value)
        if value is None:
            if name in state:
                del state[name], stamps[name]
        elif kind is list:
            state[name], stamps[name] = _copied(value), _stamped_list(value, stamp)
        elif kind is not dict:
            state[name], stamps[name] = value, stamp
        elif type(old := state.get(name)) is dict:
            state[name], stamps[name] = merge(old, stamps[name], value, stamp)
        else:
            fresh = without_nulls(value)
            # A subtree of nulls alone is not made, but it does replace a value of another kind.
            if fresh or not value or name in state:
                state[name], stamps[name] = fresh, stamped(fresh, stamp)
    return state, stamps


def nulls_only(patch: Tree | None) -> bool:
    """Tell whether a patch does nothing but delete fields."""
    return patch is None or (
        bool(patch) and all(one is None or (type(one) is dict and nulls_only(one)) for one in patch.values())
    )


def without_nulls(tree: Tree) -> Tree:
    """Return a copy without nulls, and without the objects that held nothing but nulls."""
    fresh: Tree = {}
    for name, value in tree.items():
        if value is None:
            continue
        if type(value) is dict:
            inner = without_nulls(value)
            if inner or not value:
                fresh[name] = inner
        else:
            fresh[name] = _copied(value) if type(value) is list else value
    return fresh


def _copied(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a copy that shares no list and no object; arrays hold no nulls (refused on the way in)."""
    if type(value) is list:
        return [_copied(one) for one in value]
    if type(value) is dict:
        return {name: _copied(one) for name, one in value.items()}
    return value


def stamped(tree: Tree, stamp: Stamp) -> Tree:
    """Return the stamps of a tree written just now; a null has one too (spec 4)."""
    return {
        name: stamped(value, stamp)
        if type(value) is dict
        else (_stamped_list(value, stamp) if type(value) is list else stamp)
        for name, value in tree.items()
    }


def _stamped_list(values: list[Any], stamp: Stamp) -> list[Any]:
    return [
        stamped(value, stamp)
        if type(value) is dict
        else (_stamped_list(value, stamp) if type(value) is list else stamp)
        for value in values
    ]


def difference(desired: Part, reported: Part) -> tuple[Tree, Tree]:
    """Return what of ``desired`` is not reported, and its stamps; two empty trees when converged."""
    return _difference(desired.state, desired.stamps, reported.state)


def _difference(desired: Tree, stamps: Tree, reported: Tree) -> tuple[Tree, Tree]:
    state: Tree = {}
    its_stamps: Tree = {}
    for name, want in desired.items():
        have = reported.get(name, _MISSING)
        if have is want:
            continue
        if type(want) is dict and type(have) is dict:
            inner, inner_stamps = _difference(want, stamps[name], have)
            if inner:
                state[name], its_stamps[name] = inner, inner_stamps
        elif not same(want, have):
            state[name], its_stamps[name] = want, stamps[name]
    return state, its_stamps


def delta(desired: Tree, reported: Tree) -> Tree:
    """Return the fields of ``desired`` that ``reported`` does not equal, with paths from the root."""
    return _difference(desired, stamped(desired, {}), reported)[0]


def same(one: object, other: object) -> bool:
    """Tell whether two values are equal on the wire: 1 is 1.0, but true is not 1 (spec 6)."""
    if type(one) is dict:
        return (
            type(other) is dict
            and one.keys() == other.keys()
            and all(same(value, other[name]) for name, value in one.items())
        )
    if type(one) is list:
        return type(other) is list and len(one) == len(other) and all(map(same, one, other))
    return one == other and (type(one) is bool) is (type(other) is bool)


def merge_patch_between(old: Tree, new: Tree) -> Tree:
    """Return the patch that :func:`merge` needs to turn ``old`` into ``new`` (neither holds a null)."""
    patch: Tree = {name: None for name in old if name not in new}
    for name, value in new.items():
        before = old.get(name, _MISSING)
        if type(value) is dict and type(before) is dict:
            inner = merge_patch_between(before, value)
            if inner:
                patch[name] = inner
        elif not _identical(value, before):
            patch[name] = value
    return patch


def _identical(one: object, other: object) -> bool:
    """Tell whether two values are equal and of one kind throughout: here 1 is not 1.0."""
    if type(one) is list and type(other) is list:
        return len(one) == len(other) and all(map(_identical, one, other))
    if type(one) is dict and type(other) is dict:
        return one.keys() == other.keys() and all(_identical(one[name], other[name]) for name in one)
    return type(one) is type(other) and one == other
