"""The rules of a document where a law or a vector does not say it plainly enough."""

import copy
from typing import Any

import pytest

from shadow.document import (
    EMPTY,
    delta,
    difference,
    merge,
    merge_patch_between,
    nulls_only,
    part,
    same,
    stamped,
    write,
)
from tests.vectors.cases import canonical

OLD, NEW = {"timestamp": 1}, {"timestamp": 2}


def written(state: Any, patch: Any) -> Any:
    before = part(state, stamped(state, OLD))
    return write(before, patch, NEW).state


def test_a_merge_changes_neither_argument():
    state, patch = {"a": {"b": [1], "c": 2}, "d": 3}, {"a": {"b": None, "e": [{"f": 1}]}, "d": {"g": None}}
    stamps = stamped(state, OLD)
    copies = copy.deepcopy((state, stamps, patch))
    merge(state, stamps, patch, NEW)
    assert (state, stamps, patch) == copies


def test_a_document_shares_no_mutable_part_with_the_patch():
    patch: Any = {"list": [[1], {"a": [2]}], "fresh": {"deep": {"list": [3]}}, "old": {"list": [4]}}
    result = written({"old": {"x": 1}}, patch)
    patch["list"][0].append("!")
    patch["list"][1]["a"].append("!")
    patch["fresh"]["deep"]["list"].append("!")
    patch["fresh"]["deep"]["new"] = "!"
    patch["old"]["list"].append("!")
    assert result == {
        "list": [[1], {"a": [2]}],
        "fresh": {"deep": {"list": [3]}},
        "old": {"x": 1, "list": [4]},
    }


def test_an_older_document_stays_what_it_was():
    before = part({"a": {"b": 1}, "c": {"d": 2}}, {"a": {"b": OLD}, "c": {"d": OLD}})
    write(before, {"a": {"b": 5, "e": 6}, "c": None}, NEW)
    assert before.state == {"a": {"b": 1}, "c": {"d": 2}}
    assert before.stamps == {"a": {"b": OLD}, "c": {"d": OLD}}


def test_an_empty_section_has_no_size_and_is_always_the_same():
    assert EMPTY.size_bytes == 0
    assert write(part({"a": 1}, {"a": OLD}), {"a": None}, NEW) is EMPTY
    assert write(part({"a": 1}, {"a": OLD}), None, NEW) is EMPTY
    assert part({"ü": "€"}, {"ü": OLD}).size_bytes == len('{"ü":"€"}'.encode())


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (1, 1.0, True),
        (0, -0.0, True),
        (True, 1, False),
        (False, 0.0, False),
        (True, True, True),
        ([1, [2.0]], [1.0, [2]], True),
        ([True], [1], False),
        ([1], [1, 1], False),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": True}, {"a": 1}, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"b": 1}, False),
        ({}, [], False),
        ({}, "", False),
        ([], False, False),
        ("1", 1, False),
        (2**53 + 1, float(2**53), False),
    ],
)
def test_two_values_are_equal_by_value_and_kind(one: Any, other: Any, equal: bool):
    assert same(one, other) is equal
    assert same(other, one) is equal
    assert delta({"f": one}, {"f": other}) == delta({}, {}) or not equal
    assert bool(delta({"f": [one]}, {"f": [other]})) is not equal


def test_an_empty_object_differs_from_what_is_missing_or_scalar_but_not_from_an_object():
    assert delta({"a": {}}, {}) == {"a": {}}
    assert delta({"a": {}}, {"a": 1}) == {"a": {}}
    assert delta({"a": {}}, {"a": {"b": 1}}) == {}


def test_a_difference_carries_the_stamps_of_what_is_desired():
    desired = part({"a": {"b": 1, "c": 2}}, {"a": {"b": OLD, "c": NEW}})
    assert difference(desired, part({"a": {"b": 1}}, {"a": {"b": NEW}})) == (
        {"a": {"c": 2}},
        {"a": {"c": NEW}},
    )


@pytest.mark.parametrize("patch", [None, {"a": None}, {"a": {"b": None, "c": {"d": None}}, "e": None}])
def test_a_patch_of_nulls_only_deletes(patch: Any):
    assert nulls_only(patch)


@pytest.mark.parametrize(
    "patch", [{}, {"a": {}}, {"a": 1}, {"a": None, "b": {"c": 1}}, {"a": []}, {"a": False}]
)
def test_any_other_patch_writes_something(patch: Any):
    assert not nulls_only(patch)


@pytest.mark.parametrize(
    ("old", "new", "patch"),
    [
        ({}, {}, {}),
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1}, {}, {"a": None}),
        ({"a": 1}, {"a": 1.0}, {"a": 1.0}),
        ({"a": [1]}, {"a": [1.0]}, {"a": [1.0]}),
        ({"a": [{"b": True}]}, {"a": [{"b": 1}]}, {"a": [{"b": 1}]}),
        ({"a": {"b": 1}}, {"a": {}}, {"a": {"b": None}}),
        ({"a": 1}, {"a": {}}, {"a": {}}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "d": 3}}, {"a": {"c": None, "d": 3}}),
        ({"a": {"b": 1}}, {"a": 2}, {"a": 2}),
    ],
)
def test_a_patch_between_two_documents_turns_one_into_the_other(old: Any, new: Any, patch: Any):
    assert canonical(merge_patch_between(old, new)) == canonical(patch)
    assert canonical(written(old, patch)) == canonical(new)
