"""A shadow's state seen as leaves: what changed, and the smallest patch that says so. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

Tree = dict[str, Any]
Path = tuple[str, ...]
Leaves = dict[Path, Any]
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What comes of reading JSON that somebody else wrote: the last one if it is nested very deep."""


class _Gone:
    """Marks a leaf that is to be removed; equal to nothing that JSON can say."""


GONE: Final = _Gone()


def leaves(tree: Mapping[str, Any]) -> Leaves:
    """Return every scalar, array and empty object with its path."""
    found: Leaves = {}
    _collect(tree, (), found)
    return found


def same(left: object, right: object) -> bool:
    """Compare as the service does: numbers by value, but a boolean is never a number."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def changes(told: Leaves, now: Leaves) -> Leaves:
    """Return the leaves of ``now`` that ``told`` lacks or holds otherwise, and what went as ``GONE``."""
    return _gone(told, now) | {path: value for path, value in now.items() if not _holds(told, path, value)}


def patch(changed: Leaves) -> Tree:
    """Return the merge patch that makes ``changed`` true; ``GONE`` becomes null."""
    tree: Tree = {}
    # Removals first: a leaf may go so that an object can stand in its place.
    for path, value in sorted(changed.items(), key=lambda item: item[1] is not GONE):
        _put(tree, path, None if value is GONE else value)
    return tree


def told_after(told: Leaves, changed: Leaves, denied: Iterable[Path] = ()) -> Leaves:
    """Return what the service holds once it has accepted ``changed``, but for what it ``denied`` since."""
    gone = {path for path, value in changed.items() if value is GONE}
    after = {path: value for path, value in told.items() if gone.isdisjoint(_upwards(path))}
    after |= {path: value for path, value in changed.items() if value is not GONE}
    for path in denied:
        after.pop(path, None)
    return after


def _gone(told: Leaves, now: Leaves) -> Leaves:
    """Return what is to be removed, each time at the highest name under which nothing is left."""
    lost = [path for path in told if path not in now]
    if not lost:
        return {}
    standing = {above for path in now for above in _upwards(path)}
    return {next((p for p in _upwards(path) if p not in standing), path): GONE for path in lost}


def _upwards(path: Path) -> Iterator[Path]:
    """Yield the path's beginnings, the shortest first, itself last."""
    return (path[:length] for length in range(1, len(path) + 1))


def _holds(told: Leaves, path: Path, value: object) -> bool:
    return path in told and same(told[path], value)


def _collect(tree: Mapping[str, Any], path: Path, found: Leaves) -> None:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            _collect(value, (*path, name), found)
        else:
            found[(*path, name)] = value


def _put(tree: Tree, path: Path, value: object) -> None:
    *above, name = path
    for one in above:
        below = tree.get(one)
        if not isinstance(below, dict):
            below = tree[one] = {}
        tree = below
    # What went from an object that is empty now: the removals leave it empty, an empty patch would not.
    if value != {} or not isinstance(tree.get(name), dict):
        tree[name] = value
