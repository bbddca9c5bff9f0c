"""The judge of the kill test, shown histories that are wrong in one way each: it must see every one."""

import hashlib
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from tests.chaos import judge as rules
from tests.chaos.evidence import Document, Evidence, Full, Key, Line, Row
from tests.chaos.judge import judge

HALL: Key = ("hall", "")
NOW_MS = 1_790_000_000_000


def body(token: str, reported: Any, **members: Any) -> str:
    return msgspec.json.encode({"state": {"reported": reported}, "clientToken": token} | members).decode()


def line(
    phase: str, token: str, reported: Any, version: int | None = None, answer: str = "same", **members: Any
) -> Line:
    text = body(token, reported, **members)
    return Line(
        t=0,
        worker="w",
        op="update",
        phase=phase,
        thing="hall",
        shadow="",
        token=token,
        body_sha256=hashlib.sha256(text.encode()).hexdigest(),
        version=version,
        answer_sha256=answer if phase == "ok" else None,
        body=text,
    )


def row(version: int, token: str, reported: Any, full: Full | None = None) -> Row:
    return Row(version, NOW_MS, "update", {"reported": reported}, token, full)


def stamps(state: Any) -> Any:
    """Return the metadata of a state that was written at once."""
    if isinstance(state, dict):
        return {name: stamps(value) for name, value in state.items()}
    return {"timestamp": NOW_MS // 1_000}


def document(version: int, reported: Any, desired: Any = None, **members: Any) -> Document:
    state = {"reported": reported} | ({"desired": desired} if desired else {})
    return Document(version, True, state, stamps(state), **members)


def evidence(
    lines: list[Line], rows: list[Row], found: Document, final: Document | None = None, dead: int = 0
) -> Evidence:
    return Evidence(lines, {HALL: rows} if rows else {}, {HALL: found}, {HALL: final} if final else {}, dead)


GOOD = evidence(
    [
        line("invoke", "a", {"n": 1}),
        line("ok", "a", {"n": 1}, 1),
        line("invoke", "b", {"m": {"x": 1}}),
        line("ok", "b", {"m": {"x": 1}}, 2),
        line("ok", "b", {"m": {"x": 1}}, 2),  # answered twice, the same
        line("invoke", "c", {"n": None}),
        line("maybe", "c", {"n": None}),
        line("invoke", "d", {"n": 9}),
        line("fail", "d", {"n": 9}),
    ],
    [row(1, "a", {"n": 1}), row(2, "b", {"m": {"x": 1}}), row(3, "c", {"n": None})],
    document(3, {"m": {"x": 1}}),
    document(3, {"m": {"x": 1}}),
)


def kinds(found: Evidence, *, converges: bool = True) -> list[str]:
    verdict = judge(found, lambda one: (one.body or "").encode(), lambda _key: converges)
    return [finding.kind for finding in verdict.findings]


def test_a_good_history_has_no_findings_and_its_figures_are_right():
    verdict = judge(GOOD, lambda one: (one.body or "").encode(), lambda _key: True)
    assert not verdict.findings
    assert (verdict.accepted, verdict.maybe, verdict.refused) == (2, 1, 1)
    assert verdict.summary()["proves"] == "nothing: 2 of accepted update"


def test_an_accepted_update_that_is_not_in_the_history_is_lost():
    gone = evidence(
        [line("ok", "a", {"n": 1}, 1), line("ok", "b", {"n": 2}, 2)],
        [row(1, "a", {"n": 1})],
        document(1, {"n": 1}),
    )
    assert kinds(gone) == [rules.LOST]


def test_an_accepted_update_whose_version_belongs_to_another_is_lost():
    stolen = evidence(
        [line("ok", "a", {"n": 1}, 1), line("ok", "b", {"n": 2}, 1), line("maybe", "c", {"n": 3})],
        [row(1, "a", {"n": 1})],
        document(1, {"n": 1}),
    )
    assert kinds(stolen) == [rules.LOST]


def test_a_version_that_holds_another_state_than_was_accepted_is_lost():
    changed = evidence([line("ok", "a", {"n": 1}, 1)], [row(1, "a", {"n": True})], document(1, {"n": True}))
    assert kinds(changed) == [rules.LOST]


def test_everything_is_lost_when_the_store_is_empty():
    empty = Evidence(GOOD.lines, {}, {}, {})
    assert kinds(empty) == [rules.LOST, rules.LOST]


def test_a_request_applied_at_two_versions_is_doubled():
    twice = evidence(
        [line("ok", "a", {"n": 1}, 1)],
        [row(1, "a", {"n": 1}), row(2, "a", {"n": 1})],
        document(2, {"n": 1}),
    )
    assert kinds(twice) == [rules.DOUBLED]


def test_a_request_of_unknown_fate_may_be_applied_once_but_not_twice():
    twice = evidence(
        [line("maybe", "a", {"n": 1})],
        [row(1, "a", {"n": 1}), row(2, "a", {"n": 1})],
        document(2, {"n": 1}),
    )
    assert kinds(twice) == [rules.DOUBLED]


def test_two_answers_with_two_versions_are_doubled():
    twice = evidence(
        [line("ok", "a", {"n": 1}, 1), line("ok", "a", {"n": 1}, 2)],
        [row(1, "a", {"n": 1}), row(2, "a", {"n": 1})],
        document(2, {"n": 1}),
    )
    assert set(kinds(twice)) == {rules.DOUBLED}


def test_two_answers_that_differ_in_their_bytes_are_found():
    different = replace(GOOD, lines=[*GOOD.lines, line("ok", "a", {"n": 1}, 1, answer="other")])
    assert kinds(different) == [rules.ANSWER]


@pytest.mark.parametrize(
    ("rows", "version"),
    [([1, 3], 3), ([2, 3], 3), ([1, 2], 3), ([1, 2, 3], 2), ([1, 2, 2], 2)],
    ids=["in the middle", "at the beginning", "at the end", "beyond the document", "one twice"],
)
def test_versions_with_a_gap_are_found(rows, version):
    lines = [line("maybe", f"t{n}", {"n": n}) for n in (1, 2, 3)]
    gaps = evidence(lines, [row(n, f"t{n}", {"n": n}) for n in rows], document(version, {"n": version}))
    assert rules.GAP in kinds(gaps)


def test_a_stored_document_that_is_not_the_fold_is_found():
    wrong = replace(GOOD, documents={HALL: document(3, {"m": {"x": 2}})}, finals={})
    assert kinds(wrong) == [rules.FOLD]


def test_metadata_that_are_not_those_of_the_fold_are_found():
    late = replace(GOOD.documents[HALL], metadata={"reported": {"m": {"x": {"timestamp": 1}}}})
    assert kinds(replace(GOOD, documents={HALL: late}, finals={})) == [rules.FOLD]


def test_a_field_that_came_back_after_its_deletion_is_found():
    wrong = replace(GOOD, documents={HALL: document(3, {"n": 1, "m": {"x": 1}})}, finals={})
    assert kinds(wrong) == [rules.FOLD]


def test_a_shown_document_that_is_not_the_stored_one_is_found():
    wrong = replace(GOOD, finals={HALL: document(2, {"m": {"x": 1}})})
    assert kinds(wrong) == [rules.FOLD]


def test_a_whole_document_within_the_history_that_is_not_the_fold_is_found():
    full = Full(True, reported={"n": 2}, reported_stamps=stamps({"n": 2}))
    wrong = evidence(
        [line("ok", "a", {"n": 1}, 1)],
        [row(1, "a", {"n": 1}, full=full)],
        document(1, {"n": 1}),
    )
    assert kinds(wrong) == [rules.FOLD]


def test_a_deletion_empties_the_document_and_is_a_version_of_its_own():
    def deletion(phase: str, version: int | None = None) -> Line:
        return msgspec.structs.replace(line(phase, "d", {}, version), op="delete", body=None)

    lines = [line("ok", "a", {"n": 1}, 1), deletion("ok", 1)]
    rows = [row(1, "a", {"n": 1}), Row(2, NOW_MS, "delete", None, "d")]
    assert kinds(evidence(lines, rows, Document(2, exists=False))) == []
    assert kinds(evidence(lines, rows, document(2, {"n": 1}))) == [rules.FOLD]
    assert kinds(evidence(lines, rows[:1], document(1, {"n": 1}))) == [rules.LOST]


def test_a_version_that_nobody_asked_for_is_found():
    unasked = evidence([], [row(1, "ghost", {"n": 1})], document(1, {"n": 1}))
    assert kinds(unasked) == [rules.UNASKED]


def test_a_refused_request_with_an_effect_is_found():
    applied = evidence([line("fail", "a", {"n": 1})], [row(1, "a", {"n": 1})], document(1, {"n": 1}))
    assert kinds(applied) == [rules.REFUSED]


def test_a_report_older_than_one_before_it_is_found():
    pairs = {"a": (1, 5), "b": (1, 4), "c": (2, 0)}
    lines = [
        line("ok", token, {"n": n}, n, sequence={"epoch": epoch, "number": number})
        for n, (token, (epoch, number)) in enumerate(pairs.items(), 1)
    ]
    rows = [row(n, token, {"n": n}) for n, token in enumerate(pairs, 1)]
    assert kinds(evidence(lines, rows, document(3, {"n": 3}))) == [rules.STALE]


def test_what_was_never_told_is_found():
    unsent = replace(GOOD, documents={HALL: replace(GOOD.documents[HALL], unsent=1)})
    assert kinds(unsent) == [rules.UNSENT]


def test_a_wish_that_is_not_reported_in_the_end_is_found_where_it_should_be():
    apart = evidence(
        [line("ok", "a", {"n": 1}, 1)],
        [Row(1, NOW_MS, "update", {"desired": {"n": 2}, "reported": {"n": 1}}, "a")],
        document(1, {"n": 1}, {"n": 2}),
    )
    wanted = msgspec.json.encode({"state": {"desired": {"n": 2}, "reported": {"n": 1}}, "clientToken": "a"})
    verdict = judge(apart, lambda _line: wanted, lambda _key: True)
    assert [finding.kind for finding in verdict.findings] == [rules.APART]
    assert not judge(apart, lambda _line: wanted, lambda _key: False).findings


def test_a_good_request_in_the_dead_letters_is_found():
    assert kinds(replace(GOOD, dead_letters=1)) == [rules.BURIED]


def test_what_n_proves_is_said():
    assert rules.proves(300, "kill") == "none in 300: at most 0.01 for each kill, at 95 %"
