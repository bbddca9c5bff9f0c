"""The smallest patch: merged by somebody else's code, it makes the one state into the other."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.trees import changes, leaves, patch, same, told_after
from tests.shadow_stand_in import merge

names = st.sampled_from(("a", "b", "c"))
values = st.one_of(
    st.booleans(),
    st.integers(0, 2),
    st.sampled_from((0.0, 1.0, "x")),
    st.lists(st.integers(0, 1), max_size=2),
)
trees = st.recursive(
    st.dictionaries(names, values, max_size=3),
    lambda below: st.dictionaries(names, below | values, min_size=1, max_size=3),
    max_leaves=8,
)


@given(trees, trees)
def test_the_patch_between_two_states_makes_the_one_into_the_other(told, now):
    changed = changes(leaves(told), leaves(now))
    merged = copy.deepcopy(told)
    merge(merged, patch(changed))
    assert not changes(leaves(merged), leaves(now))
    assert not changes(told_after(leaves(told), changed), leaves(now))


def test_an_object_that_lost_all_its_fields_is_told_field_by_field():
    told = leaves({"a": {"b": 1, "c": {"d": 2}}})
    assert patch(changes(told, leaves({"a": {}}))) == {"a": {"b": None, "c": None}}


@given(trees)
def test_between_a_state_and_itself_there_is_nothing(tree):
    assert patch(changes(leaves(tree), leaves(tree))) == {}


def test_what_went_is_removed_at_the_highest_name_under_which_nothing_is_left():
    told, now = leaves({"a": {"b": {"c": 1, "d": 2}}, "e": 1}), leaves({"e": 1})
    assert patch(changes(told, now)) == {"a": None}
    assert patch(changes(told, leaves({"a": {"x": 1}, "e": 1}))) == {"a": {"b": None, "x": 1}}


def test_what_was_denied_since_is_not_taken_for_told():
    assert told_after({("a",): 1}, {("a",): 2, ("b",): 3}, denied=[("a",)]) == {("b",): 3}


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [(1, 1.0, True), (True, 1, False), ([1], [True], False), ([1, 2], [1.0, 2], True), ([1], [1, 2], False)],
)
def test_numbers_are_equal_by_value_and_a_boolean_is_never_a_number(left, right, equal):
    assert same(left, right) is equal
