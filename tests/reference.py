"""A second opinion on merge and delta, written from the specification alone (spec: shadow, 3 and 6).

It is slow and plain on purpose and shares no code with ``shadow``: checkers and models compare with it.
"""

from typing import Any

Tree = dict[str, Any]
_ABSENT: Any = object()


def merge(old: Tree, patch: Tree) -> Tree:
    """Return ``old`` after ``patch``; neither is changed, nor shared with what is returned."""
    merged: Tree = copied(old)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif not isinstance(value, dict):
            merged[name] = copied(value)
        elif isinstance(old.get(name), dict):
            merged[name] = merge(old[name], value)
        else:
            fresh = pruned(value)
            if fresh or value == {} or name in old:
                merged[name] = fresh
    return merged


def pruned(tree: Tree) -> Tree:
    """Return a copy without nulls, and without objects that held nothing but nulls."""
    kept: Tree = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            inner = pruned(value)
            if inner or value == {}:
                kept[name] = inner
        elif value is not None:
            kept[name] = copied(value)
    return kept


def delta(desired: Tree, reported: Tree) -> Tree:
    """Return what of ``desired`` is not in ``reported``."""
    found: Tree = {}
    for name, want in desired.items():
        have = reported.get(name, _ABSENT)
        if isinstance(want, dict) and isinstance(have, dict):
            inner = delta(want, have)
            if inner:
                found[name] = inner
        elif not equal(want, have):
            found[name] = want
    return found


def equal(one: object, other: object) -> bool:
    """Tell whether two values are one on the wire: 1 is 1.0, true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return isinstance(one, bool) is isinstance(other, bool) and one == other


def copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: copied(one) for name, one in value.items()}
    if isinstance(value, list):
        return [copied(one) for one in value]
    return value
