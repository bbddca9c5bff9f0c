"""Merkle trees as in RFC 9162: one hash stands for an ordered list, and a short proof for one of its members.

A leaf is the hash of a block or of a name; nodes and leaves cannot be taken for each other. Pure.
(spec: ota, 2.2, 2.3)
"""

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

HASH_BYTES: Final = 32
DEPTH_MAX: Final = 64
"""Hashes of a proof: a count has at most so many bits."""
_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"


class Tree:
    """The hashes of a tree, level by level: a proof is looked up, not computed."""

    __slots__ = ("_levels",)

    def __init__(self, leaves: Sequence[bytes]) -> None:
        """Build it over at least one leaf."""
        if not leaves:
            raise ValueError("a tree has at least one leaf")
        levels = [tuple(leaves)]
        while len(levels[-1]) > 1:
            levels.append(_above(levels[-1]))
        self._levels = tuple(levels)

    @property
    def root(self) -> bytes:
        """Return the hash that stands for all."""
        return self._levels[-1][0]

    @property
    def count(self) -> int:
        """Return how many leaves there are."""
        return len(self._levels[0])

    def proof(self, index: int) -> tuple[bytes, ...]:
        """Return the hashes that lead from a leaf to the root, the lowest first."""
        if not 0 <= index < self.count:
            raise IndexError(f"there is no leaf {index}")
        path = []
        for level in self._levels[:-1]:
            beside = index ^ 1
            if beside < len(level):  # the last of an odd number goes up alone
                path.append(level[beside])
            index //= 2
        return tuple(path)


def leaf_hash(data: bytes | memoryview) -> bytes:
    """Return the leaf of a block."""
    digest = hashlib.sha256(_LEAF)
    digest.update(data)
    return digest.digest()


def name_leaf(thing: str) -> bytes:
    """Return the leaf of the name of a thing."""
    return leaf_hash(thing.encode())


def name_tree(things: Sequence[str]) -> Tree:
    """Return the tree over names, which are sorted and each there once."""
    # By code points, as Python sorts texts, is by their UTF-8 bytes.
    if any(first >= second for first, second in pairwise(things)):
        raise ValueError("names are sorted, and none is there twice")
    return Tree([name_leaf(thing) for thing in things])


def leaf_list(data: bytes | memoryview, block: int) -> bytes:
    """Return the leaves of a file in blocks of this size, one after the other."""
    view = memoryview(data)
    return b"".join(leaf_hash(view[at : at + block]) for at in range(0, len(view), block))


def list_tree(leaves: bytes) -> Tree:
    """Return the tree over a list of leaves, as :func:`leaf_list` makes it."""
    if len(leaves) % HASH_BYTES:
        raise ValueError(f"a leaf has {HASH_BYTES} bytes")
    return Tree([leaves[at : at + HASH_BYTES] for at in range(0, len(leaves), HASH_BYTES)])


def root_from_proof(leaf: bytes, index: int, count: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root that a proof leads to; None if it cannot be one of that place in a list so long."""
    if not 0 <= index < count:
        return None
    last, given, found = count - 1, iter(path), leaf
    while last:
        if index ^ 1 <= last:
            beside = next(given, None)
            if beside is None:
                return None
            found = _node(beside, found) if index & 1 else _node(found, beside)
        index, last = index // 2, last // 2
    return found if next(given, None) is None else None


def _above(level: Sequence[bytes]) -> tuple[bytes, ...]:
    nodes = [_node(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
    return (*nodes, level[-1]) if len(level) % 2 else tuple(nodes)


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_NODE + left + right).digest()
