"""Preserve and reset: the vectors of the specification, and what they leave open."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ota.data import (
    Side,
    digest,
    is_applied,
    is_mode,
    leaves,
    not_preserved,
    not_reset,
    planted,
    written_since,
)
from shadow.document import merge, stamped
from tests.covers import covers

BEFORE: Any = {"set": {"day": 21.5, "night": 18}, "lang": "en"}
NIGHT = ("set", "night")
scalars = st.none().flatmap(
    lambda _: st.one_of(st.booleans(), st.integers(-9, 9), st.sampled_from(["a", "b"]))
)
trees = st.recursive(
    scalars,
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3),
    max_leaves=6,
).filter(lambda one: isinstance(one, dict))


def after(**changes: Any) -> dict[str, Any]:
    """Return the configuration of the vectors with some of it changed; None takes a field out."""
    changed = {"set": {"day": 21.5, "night": 18}, "lang": "en"} | {
        name: value for name, value in changes.items() if name not in {"day", "night"}
    }
    changed["set"] = {"day": changes.get("day", 21.5), "night": changes.get("night", 18)}
    return {name: value for name, value in changed.items() if value is not None}


@covers("I3FR3.1")
@pytest.mark.parametrize(
    ("reported", "schema", "written", "wrong"),
    [
        pytest.param(after(), 5, {}, (), id="the same"),
        pytest.param(
            msgspec.json.decode(b'{"set":{"day":21.50,"night":18},"lang":"en"}'), 5, {}, (), id="21.50"
        ),
        pytest.param(after(fan="auto"), 6, {}, (), id="a new field of a newer schema"),
        pytest.param(after(fan="auto"), 5, {}, (("fan",),), id="a new field of the same schema"),
        pytest.param(after(lang=None), 5, {}, (("lang",),), id="a field is gone"),
        pytest.param(after(night=True), 5, {}, (NIGHT,), id="true is no number"),
        pytest.param(after(night=17), 5, {}, (NIGHT,), id="another value"),
        pytest.param(after(night=17), 5, {NIGHT: 17}, (), id="another value that was desired meanwhile"),
        pytest.param(after(night=17), 5, {NIGHT: 16}, (NIGHT,), id="not the one that was desired"),
        pytest.param(after(night=17), 6, {}, (NIGHT,), id="a newer schema excuses no change"),
        pytest.param(after(fan="auto"), 5, {("fan",): "auto"}, (), id="a new field that was desired"),
    ],
)
def test_preserve_is_what_the_vectors_say(reported: Any, schema: int, written: Any, wrong: Any):
    assert not_preserved(Side(BEFORE, 5), Side(reported, schema), written) == wrong


def test_a_value_that_was_desired_before_the_snapshot_excuses_nothing():
    desired = {"set": {"night": 17}, "lang": "de"}
    stamps = merge(stamped(desired, {"timestamp": 99}), {}, {}, {})[0]
    stamps["lang"] = {"timestamp": 100}
    assert written_since(desired, stamps, 100) == {("lang",): "de"}
    assert written_since(desired, stamps, 99) == {NIGHT: 17, ("lang",): "de"}
    assert written_since(desired, stamps, 101) == {}


def test_a_field_called_timestamp_and_an_array_have_the_second_of_their_own():
    desired: Any = {"timestamp": 7, "list": [{"timestamp": 1}, 2], "deep": {"timestamp": {"x": 1}}}
    stamps = stamped(desired, {"timestamp": 50})
    assert written_since(desired, stamps, 50).keys() == dict(leaves(desired)).keys()
    assert written_since(desired, stamps, 51) == {}


@covers("I3FR3.1")
@pytest.mark.parametrize(
    ("desired", "reported", "wrong"),
    [
        ({}, {"set": {"day": 20, "night": 16}, "lang": "en"}, ()),
        ({"set": {"night": 17}}, {"set": {"day": 20, "night": 17}, "lang": "en"}, ()),
        ({"set": {"night": 17}}, {"set": {"day": 20, "night": 16}, "lang": "en"}, (NIGHT,)),
        ({}, {"set": {"day": 20, "night": 16}, "lang": "en", "mine": 1}, (("mine",),)),
        ({}, {"set": {"day": 20, "night": 16}}, (("lang",),)),
        ({"fan": "auto"}, {"set": {"day": 20, "night": 16}, "lang": "en", "fan": "auto"}, ()),
    ],
)
def test_a_reset_leaves_the_factorys_values_and_over_them_what_is_desired(
    desired: Any, reported: Any, wrong: Any
):
    defaults: Any = {"set": {"day": 20, "night": 16}, "lang": "en"}
    assert not_reset(defaults, desired, reported) == wrong
    assert defaults == {"set": {"day": 20, "night": 16}, "lang": "en"}


def test_programs_are_applied_again_once_nothing_differs():
    assert is_applied({"e": {"rev": 3}}, {"e": {"rev": 3.0}, "more": 1})
    assert not is_applied({"e": {"rev": 3}}, {"e": {"rev": 2}})


def test_a_digest_knows_no_order_of_names_and_no_spelling_of_whole_numbers():
    one = msgspec.json.decode(b'{"b":18.0,"a":{"d":[1.0,2.5],"c":true}}')
    other = msgspec.json.decode(b'{"a":{"c":true,"d":[1,2.5]},"b":18}')
    assert digest(one) == digest(other)
    assert digest(one) != digest(other | {"b": 19})
    assert digest({"a": True}) != digest({"a": 1})
    assert digest({"b": 1, "a": 2}) == "d3626ac30a87e6f7a6428233b3c68299976865fa5508e4267c5415c76af7a772"


@pytest.mark.parametrize(
    ("said", "ordered", "yes"),
    [
        ("", "preserve", True),
        ("preserve", "preserve", True),
        ("0", "preserve", True),
        ("reset", "preserve", False),
        ("1", "preserve", False),
        ("reset", "reset", True),
        ("1", "reset", True),
        ("0", "reset", False),
        ("nonsense", "reset", False),
    ],
)
def test_another_mode_than_the_one_that_was_ordered_is_told_apart(said: str, ordered: str, yes: bool):
    assert is_mode(said, ordered) is yes


@given(trees, trees)
def test_what_is_preserved_is_exactly_what_is_equal(before: Any, now: Any):
    same_leaves = not not_preserved(Side(before, 1), Side(now, 1), {})
    assert same_leaves == (digest(before) == digest(now))
    everything = dict(leaves(now))
    kept = before.keys() <= now.keys()
    if dict(leaves(before)).keys() <= everything.keys() and kept:
        assert not_preserved(Side(before, 1), Side(now, 1), everything) == ()


@given(trees)
def test_leaves_planted_again_make_the_tree(tree: Any):
    assert planted(dict(leaves(tree))) == tree
