"""The reference merge agrees with the golden files, or nothing that is compared with it means anything."""

from typing import Any

import msgspec
import pytest

from tests.reference import delta, merge
from tests.vectors.cases import Case, canonical, cases


def _sections(document: Any) -> dict[str, Any]:
    state = (document or {}).get("state", {})
    return {name: state.get(name, {}) for name in ("desired", "reported")}


def _merged(before: Any, state: Any) -> dict[str, Any]:
    sections = _sections(before)
    patches = {"desired": None, "reported": None} if state is None else state
    for name, patch in patches.items():
        sections[name] = {} if patch is None else merge(sections[name], patch)
    return sections


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.name)
def test_merge_and_delta_are_those_of_the_golden_files(case: Case):
    before = case.given
    for step in case.steps:
        changed = (step.document or {}).get("version") != (before or {}).get("version")
        if step.operation == "update" and step.accepted is not None and changed:
            after = _merged(before, msgspec.json.decode(step.payload)["state"])
            assert canonical(after) == canonical(_sections(step.document))
            told = step.delta["state"] if step.delta else {}
            assert canonical(delta(after["desired"], after["reported"])) == canonical(told)
        before = step.document


def test_neither_argument_is_changed_or_shared():
    old, patch = {"a": {"b": [1]}}, {"a": {"c": [2]}, "d": {"e": {}}}
    merged = merge(old, patch)
    merged["a"]["b"].append(9)
    merged["a"]["c"].append(9)
    merged["d"]["e"]["f"] = 9
    assert old == {"a": {"b": [1]}}
    assert patch == {"a": {"c": [2]}, "d": {"e": {}}}
