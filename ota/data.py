"""What an upgrade may do to a device's configuration: preserve it, or reset it. Values in, values out.

``config`` is compared as a shadow is: ``21.5`` equals ``21.50``, ``1`` is not ``true``, an array is one
value. What a device says of its whole configuration is a digest, because a report that leaves a field out
leaves the shadow as it was. (spec: ota, 3.5)
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from shadow.document import Tree, delta, merge, same

Path = tuple[str, ...]
"""Names from the root of a tree to one of its leaves."""
PRESERVE: Final = "preserve"
RESET: Final = "reset"
"""What an order says of the configuration, as devices spell it in ``data`` of their statusDetails."""
PRESERVE_FAILED: Final = "preserve_failed"
RESET_FAILED: Final = "reset_failed"
DIGEST_CHARS: Final = 64
_WHOLE_MAX: Final = 2**53
_encode: Final = msgspec.json.Encoder(order="sorted").encode


@dataclass(frozen=True, slots=True)
class Side:
    """A device's configuration at one moment, and the number of the schema it is written in."""

    reported: Tree
    schema: int = 0


def leaves(tree: Mapping[str, Any], above: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield each leaf with its path; an array is one leaf, and so is an object with nothing in it."""
    for name, value in tree.items():
        path = (*above, name)
        if type(value) is dict and value:
            yield from leaves(value, path)
        else:
            yield path, value


def planted(found: Mapping[Path, Any]) -> Tree:
    """Return the tree that has these leaves."""
    tree: Tree = {}
    for path, value in found.items():
        at = tree
        for name in path[:-1]:
            at = at.setdefault(name, {})
        at[path[-1]] = value
    return tree


def written_since(desired: Tree, stamps: Tree, since_s: int) -> dict[Path, Any]:
    """Return the leaves of ``desired`` that were written at or after a second.

    Within that one second nobody can tell what was first, and the device gets the benefit of it.
    """
    return {path: value for path, value in leaves(desired) if _stamp(stamps, path) >= since_s}


def not_preserved(before: Side, after: Side, written: Mapping[Path, Any]) -> tuple[Path, ...]:
    """Return the leaves that are not as an upgrade must leave them; none when all is well.

    ``written`` are the desired values that came after the snapshot: a device that took one over did right.
    """
    was, now = dict(leaves(before.reported)), dict(leaves(after.reported))
    wrong = [
        path
        for path, value in was.items()
        if path not in now or not (same(value, now[path]) or _is_asked(written, path, now[path]))
    ]
    if after.schema <= before.schema:
        wrong += [path for path in now if path not in was and not _is_asked(written, path, now[path])]
    return tuple(sorted(wrong))


def not_reset(defaults: Tree, desired: Tree, reported: Tree) -> tuple[Path, ...]:
    """Return the leaves that are not as after a reset: the factory's values, over them what is desired."""
    wanted = dict(leaves(merge(defaults, _unstamped(defaults), desired, {})[0]))
    now = dict(leaves(reported))
    return tuple(
        sorted(
            path
            for path in wanted.keys() | now.keys()
            if path not in wanted or path not in now or not same(wanted[path], now[path])
        )
    )


def is_applied(desired: Tree, reported: Tree) -> bool:
    """Tell whether a device has done all that is desired of it."""
    return not delta(desired, reported)


def known_of(was: Tree, vocabulary: Mapping[Path, Any] | None) -> tuple[dict[Path, Any], tuple[Path, ...]]:
    """Return the leaves that a device knows, and the paths of those that it does not; None knows them all.

    A leaf of another kind than the one that is known by its path is another setting: nothing is guessed.
    """
    known: dict[Path, Any] = {}
    unknown: list[Path] = []
    for path, value in leaves(was):
        if vocabulary is None or (path in vocabulary and _kind(vocabulary[path]) is _kind(value)):
            known[path] = value
        else:
            unknown.append(path)
    return known, tuple(sorted(unknown))


def digest(config: Tree) -> str:
    """Return the SHA-256 of a configuration's canonical JSON: names sorted, no spaces, 18.0 written 18."""
    return hashlib.sha256(_encode(_whole(config))).hexdigest()


def is_mode(said: str, ordered: str) -> bool:
    """Tell whether what a device says it did with its data is what was ordered; silence is no other mode."""
    return said in ("", ordered, "1" if ordered == RESET else "0")


def _whole(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a value with each whole number written as one, as RFC 8785 does."""
    if type(value) is dict:
        return {name: _whole(one) for name, one in value.items()}
    if type(value) is list:
        return [_whole(one) for one in value]
    if type(value) is float and value.is_integer() and abs(value) < _WHOLE_MAX:
        return int(value)
    return value


def _kind(value: object) -> type:
    """Return what sort of JSON value this is; a number is a number."""
    return float if type(value) is int else type(value)


def _stamp(stamps: Tree, path: Path) -> int:
    """Return the second in which a leaf was written; of an array the newest of its elements."""
    at: Any = stamps
    for name in path:
        at = at.get(name, {}) if type(at) is dict else {}
    return _newest(at)


def _newest(stamps: Any) -> int:  # noqa: ANN401 - the stamps of any JSON value
    if type(stamps) is list:
        return max((_newest(one) for one in stamps), default=0)
    if type(stamps) is not dict:
        return 0
    second = stamps.get("timestamp")
    if type(second) is int:
        return second
    return max((_newest(one) for one in stamps.values()), default=0)


def _is_asked(written: Mapping[Path, Any], path: Path, value: object) -> bool:
    return path in written and same(written[path], value)


def _unstamped(tree: Tree) -> Tree:
    return {name: _unstamped(value) if type(value) is dict else {} for name, value in tree.items()}
