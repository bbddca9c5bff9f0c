"""States and patches of the nasty kind: values that look equal and are not, names that mean something
elsewhere, objects and arrays that are empty.
"""

from typing import Any

from hypothesis import strategies as st

from shadow.commands import INTEGER_MAX, INTEGER_MIN
from shadow.document import Part, part, stamped

DEPTH_MAX = 6
NAMES = (
    "a",
    "b",
    "c",
    "timestamp",
    "desired",
    "delta",
    "",
    " ",
    "a.b",
    "$set",
    "~0/",
    "ü€😀",
    "__proto__",
    "\n",
)

names = st.sampled_from(NAMES) | st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=4)
numbers = st.sampled_from(
    [0, 1, -1, 0.0, -0.0, 1.0, 0.1, 2**53, 2.0**53, 1e300, 5e-324, INTEGER_MAX, INTEGER_MIN]
)
scalars = (
    st.booleans()
    | numbers
    | st.sampled_from(["", "0", "1", "true", "null", "ü€😀", "\0", '"\\/\u2028'])
    | st.integers(INTEGER_MIN, INTEGER_MAX)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=5)
)


def _values(levels: int, *, nulls: bool, in_array: bool = False) -> st.SearchStrategy[Any]:
    leaves: st.SearchStrategy[Any] = scalars | st.builds(dict) | st.builds(list)
    if nulls and not in_array:
        leaves |= st.none()
    if levels <= 0:
        return leaves
    objects = st.dictionaries(names, _values(levels - 1, nulls=nulls, in_array=in_array), max_size=3)
    arrays = st.lists(_values(levels - 1, nulls=nulls, in_array=True), max_size=3)
    return leaves | objects | arrays


def _trees(*, nulls: bool) -> st.SearchStrategy[Any]:
    return st.dictionaries(names, _values(DEPTH_MAX - 1, nulls=nulls), max_size=4)


_every_value = _values(DEPTH_MAX - 1, nulls=False)
_every_tree = _trees(nulls=False)
_every_patch = _trees(nulls=True)
_every_state = st.none() | st.fixed_dictionaries(
    {}, optional={"desired": st.none() | _every_patch, "reported": st.none() | _every_patch}
)


# Functions, so that Hypothesis can name them: spelled out they have 34 kB.
@st.composite
def some_values(draw: st.DrawFn) -> Any:
    """Any value that may be stored."""
    return draw(_every_value)


@st.composite
def some_trees(draw: st.DrawFn) -> Any:
    """A section as it may be stored."""
    return draw(_every_tree)


@st.composite
def some_patches(draw: st.DrawFn) -> Any:
    """What a request may hold for a section."""
    return draw(_every_patch)


@st.composite
def some_states(draw: st.DrawFn) -> Any:
    """What a request may hold as its ``state``."""
    return draw(_every_state)


values, trees, patches, states = some_values(), some_trees(), some_patches(), some_states()


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Any, Any]:
    """Two trees that have much in common."""
    one = draw(trees)
    if draw(st.booleans()):
        return one, draw(trees)
    return one, {name: nudged(draw, value) for name, value in one.items()}


def nudged(draw: st.DrawFn, value: Any) -> Any:
    """Return a copy in which here and there something is another value, gone, or of another kind."""
    match draw(st.integers(0, 9)):
        case 0:
            return draw(values)
        case 1 | 2 | 3 if isinstance(value, bool | int | float):
            return draw(st.sampled_from([int(value), float(value), bool(value), str(value)]))
    if isinstance(value, dict):
        return {name: nudged(draw, one) for name, one in value.items() if draw(st.integers(0, 9))}
    if isinstance(value, list):
        return [nudged(draw, one) for one in value]
    return value


def stored(tree: Any, at: int = 1) -> Part:
    """Return a tree as a section written at one time."""
    return part(tree, stamped(tree, {"timestamp": at}))
