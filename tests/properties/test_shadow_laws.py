"""The ten laws of the shadow specification (section 14), and the reference as a second opinion."""

import copy
import itertools
import json
import random
from collections.abc import Iterator
from typing import Any

import msgspec
from hypothesis import assume, example, given, note
from hypothesis import strategies as st

from infra.settings.model import ShadowLimits
from shadow.commands import (
    Command,
    Get,
    RefusedError,
    Update,
    parse_delete,
    parse_get,
    parse_update,
)
from shadow.decisions import NEVER_MADE, Accepted, Circumstances, Outcome, Rejected, Shadow, decide, is_full
from shadow.document import delta, difference, merge, merge_patch_between, part, same, stamped, write
from shadow.errors import ShadowError
from shadow.history import conflicts, fold, row_of
from shadow.records import body_of, shadow_of
from tests import reference
from tests.fakes import NOW_MS
from tests.properties.strategies import pairs, patches, states, stored, trees, values
from tests.shadow_rig import DEVICE, HALL, LIMITS, delete, get, shown, update
from tests.vectors.cases import canonical, read, told

Json = Any
LARGE = ShadowLimits(request_bytes_max=2**20, document_bytes_max=2**20, depth_max=8)
NOW = {"timestamp": 2}
ANSWERS = {
    (400, "Invalid JSON"),
    (400, "Missing required node: state"),
    (400, "State node must be an object"),
    (400, "State contains an invalid node"),
    (400, "Desired node must be an object"),
    (400, "Reported node must be an object"),
    (400, "Invalid version"),
    (400, "Invalid clientToken"),
    (400, "Invalid sequence"),
    (400, "JSON contains too many levels of nesting; maximum is 6"),
    (403, "Forbidden"),
    (404, "No shadow exists with name: 'hall'"),
    (409, "Stale sequence"),
    (409, "Version conflict"),
    (413, "The payload exceeds the maximum size allowed"),
    (415, "Unsupported documented encoding; supported encoding is UTF-8"),
    (503, "Service unavailable"),
}
"""All that section 8 lets a command be answered with; never 500."""


def never(_: Command, error: Exception) -> ShadowError:
    raise AssertionError("an unforeseen failure") from error


def after(
    shadow: Shadow, *commands: Command, limits: ShadowLimits = LIMITS, now_ms: int = NOW_MS
) -> tuple[Shadow, list[Outcome]]:
    """Return what is left, with every message delivered at once."""
    outcomes: list[Outcome] = []
    for command in commands:
        circumstances = Circumstances(now_ms, limits, {HALL: shadow.version})
        changed, one = decide({HALL: shadow}, [command], circumstances, never)
        shadow = changed.get(HALL, shadow)
        outcomes += one
    return shadow, outcomes


def nulls(tree: Json) -> bool:
    inside = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return tree is None or any(map(nulls, inside))


def leaves(tree: Json, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Json]]:
    """Yield paths of everything that is no object with something in it."""
    if isinstance(tree, dict) and tree:
        for name, value in tree.items():
            yield from leaves(value, (*above, name))
    else:
        yield above, tree


def shape(tree: Json) -> Json:
    if isinstance(tree, dict):
        return {name: shape(one) for name, one in tree.items()}
    if isinstance(tree, list):
        return [shape(one) for one in tree]
    return "leaf"


def shape_of_stamps(stamps: Json, tree: Json) -> Json:
    """Walk side by side: a stamp cannot be told from a field called timestamp by its look."""
    if isinstance(tree, dict):
        assert stamps.keys() == tree.keys()
        return {name: shape_of_stamps(stamps[name], tree[name]) for name in tree}
    if isinstance(tree, list):
        return [shape_of_stamps(*pair) for pair in zip(stamps, tree, strict=True)]
    assert list(stamps) == ["timestamp"]
    return "leaf"


# ------------------------------------------------------------------------------------- 1 merge


@given(trees)
def test_law_1_merging_nothing_changes_nothing(tree: Json):
    before = stored(tree)
    again = write(before, {}, NOW)
    assert canonical(again.state) == canonical(tree)
    assert again == before


@given(trees, patches)
@example({"a": 1}, {"a": {"b": None}})
@example({}, {"a": {"b": {}}})
def test_law_1_merging_twice_is_merging_once(tree: Json, patch: Json):
    once = write(stored(tree), patch, NOW)
    twice = write(once, patch, NOW)
    assert canonical(twice.state) == canonical(once.state)
    assert canonical(twice.stamps) == canonical(once.stamps)


@given(trees, patches)
def test_law_1_a_merge_changes_no_argument_and_shares_nothing_with_the_patch(tree: Json, patch: Json):
    stamps = stamped(tree, {"timestamp": 1})
    arguments = (tree, stamps, patch)
    copies = copy.deepcopy(arguments)
    merged, _ = merge(tree, stamps, patch, NOW)
    assert canonical(arguments) == canonical(copies)
    result = canonical(merged)
    spoil(patch)
    assert canonical(merged) == result


def spoil(tree: Json) -> None:
    """Change everything that can be changed in place."""
    for one in list(tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()):
        spoil(one)
    if isinstance(tree, dict):
        tree["spoiled"] = True
    elif isinstance(tree, list):
        tree.append("spoiled")


# ------------------------------------------------------------------------------------- 2 nulls


@given(st.lists(states, max_size=4))
def test_law_2_no_null_is_ever_stored(requests: list[Json]):
    shadow, _ = after(NEVER_MADE, *(update(state) for state in requests))
    assert not nulls(shadow.desired.state)
    assert not nulls(shadow.reported.state)


# ------------------------------------------------------------------------------------- 3 delta


@given(trees)
def test_law_3_what_is_reported_as_desired_leaves_no_delta(tree: Json):
    assert delta(tree, tree) == {}
    assert delta(tree, copy.deepcopy(tree)) == {}
    assert difference(stored(tree), stored(json.loads(json.dumps(tree)))) == ({}, {})


@given(pairs())
@example(({"a": {}}, {"a": 1}))
@example(({"a": {"b": {}}}, {"a": []}))
@example(({"a": True}, {"a": 1}))
def test_law_3_reporting_the_delta_closes_the_gap(trees: tuple[Json, Json]):
    desired, reported = (stored(tree) for tree in trees)
    gap = delta(desired.state, reported.state)
    assert delta(desired.state, write(reported, gap, NOW).state) == {}


@given(pairs())
def test_law_3_there_is_no_delta_exactly_when_all_that_is_desired_is_reported(trees: tuple[Json, Json]):
    desired, reported = trees
    covered = reference.plain(merge_all(reported, desired)) == reference.plain(reported)
    assert (not delta(desired, reported)) is covered


def merge_all(tree: Json, patch: Json) -> Json:
    return write(stored(tree), patch, NOW).state


# ----------------------------------------------------------------------------- 4 paths of a delta


@given(pairs())
def test_law_4_each_path_of_a_delta_is_one_of_desired_with_its_value(trees: tuple[Json, Json]):
    desired, reported = trees
    wanted = {path: canonical(value) for path, value in leaves(desired)}
    gap, stamps = difference(stored(desired), stored(reported, 9))
    for path, value in leaves(gap):
        if path:
            assert wanted[path] == canonical(value)
    assert shape_of_stamps(stamps, gap) == shape(gap)
    assert '"timestamp": 9' not in json.dumps(stamps) or '"timestamp": 9' in json.dumps(gap)


# --------------------------------------------------------------------------------- 5 metadata


@given(st.lists(st.tuples(states, st.integers(-3, 3)), max_size=5))
def test_law_5_metadata_have_the_shape_of_the_state_and_no_stamp_is_later_than_the_document(
    steps: list[tuple[Json, int]],
):
    shadow, now_ms = NEVER_MADE, NOW_MS
    for state, seconds in steps:
        now_ms += seconds * 1_000
        shadow, _ = after(shadow, update(state), now_ms=now_ms)
        for section in (shadow.desired, shadow.reported):
            assert shape_of_stamps(section.stamps, section.state) == shape(section.state)
            assert all(time <= shadow.timestamp for time in times(section.stamps, section.state))


def times(stamps: Json, tree: Json) -> Iterator[int]:
    if isinstance(tree, dict):
        for name in tree:
            yield from times(stamps[name], tree[name])
    elif isinstance(tree, list):
        for one, other in zip(stamps, tree, strict=True):
            yield from times(one, other)
    else:
        yield stamps["timestamp"]


# ---------------------------------------------------------------------------------- 6 history

commands = st.one_of(
    st.builds(update, states),
    st.builds(update, states, clientToken=st.sampled_from(["t", "u"])),
    st.builds(delete),
    st.builds(get),
)


@given(st.lists(commands, max_size=12), st.integers(1, 4))
def test_law_6_the_fold_of_history_is_the_document_at_every_version(commands: list[Command], every: int):
    limits = ShadowLimits(history_full_every=every)
    shadow, rows, documents = NEVER_MADE, [], {}
    for command in commands:
        shadow, (outcome,) = after(shadow, command, limits=limits)
        if isinstance(outcome, Accepted) and outcome.change is not None:
            rows.append(row_of(outcome.change.row))
            documents[outcome.change.version] = shadow
    assert [row.version for row in rows] == list(range(1, len(rows) + 1))
    for start in (0, *(n for n in range(1, len(rows)) if is_full(n, limits))):
        kept = rows[max(0, start - 1) :]
        for snapshot in fold(kept):
            was = documents[snapshot.version]
            assert (snapshot.desired, snapshot.reported) == (was.desired, was.reported)
            assert (snapshot.exists, snapshot.at_ms) == (was.exists, was.at_ms)
            assert snapshot.desired.state_json == was.desired.state_json
    for row in rows:
        assert (row.full is not None) is is_full(row.version, limits)


# ------------------------------------------------------------------------------- 7 exactly once


@given(st.data(), st.lists(st.tuples(states, st.booleans()), min_size=1, max_size=6))
def test_law_7_duplicates_of_requests_with_tokens_change_nothing(
    data: st.DataObject, requests: list[tuple[Json, bool]]
):
    once: list[Command] = [
        delete(clientToken=str(number)) if gone else update(state, clientToken=str(number))
        for number, (state, gone) in enumerate(requests)
    ]
    alone, outcomes = after(NEVER_MADE, *once)
    first = {outcome.command.token: outcome for outcome in outcomes if isinstance(outcome, Accepted)}
    mixed: list[Command] = []
    for command in once:
        mixed.append(command)
        again = data.draw(st.lists(st.sampled_from(mixed), max_size=3))
        mixed += [one for one in again if one.token in first]  # a refusal is judged anew
    doubled, repeated = after(NEVER_MADE, *mixed)
    assert shown(doubled) == shown(alone)
    assert doubled.version == alone.version
    for outcome in repeated:
        if isinstance(outcome, Accepted):
            original = first[outcome.command.token]
            assert (outcome.body, outcome.version) == (original.body, original.version)
    assert sum(isinstance(one, Accepted) and not one.replayed for one in repeated) == len(first)


# ------------------------------------------------------------------------------------ 8 sequence


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), values), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
)
def test_law_8_sequenced_reports_shuffled_and_doubled_end_as_the_newest(
    reports: list[tuple[int, int, Json]], chance: random.Random
):
    by_pair = {(epoch, number): value for epoch, number, value in reports}
    sent = [
        update({"reported": {"all": [value]}}, limits=LARGE, sequence={"epoch": epoch, "number": number})
        for (epoch, number), value in by_pair.items()
    ] * 2
    chance.shuffle(sent)
    shadow, outcomes = after(NEVER_MADE, *sent)
    assert canonical(shadow.reported.state) == canonical({"all": [by_pair[max(by_pair)]]})
    assert shadow.sequence == max(by_pair)
    applied = [
        outcome.command.sequence
        for outcome in outcomes
        if isinstance(outcome, Accepted) and isinstance(outcome.command, Update)
    ]
    assert applied == sorted(set(applied), key=applied.index) == sorted(applied)  # type: ignore[type-var] # none is None


# ------------------------------------------------------------------------------------ 9 encoding


@given(trees, trees)
def test_law_9_what_is_stored_comes_back_with_value_and_kind(desired: Json, reported: Json):
    shadow, _ = after(
        NEVER_MADE, update({"desired": desired, "reported": reported}, limits=LARGE), limits=LARGE
    )
    back = shadow_of(HALL.key, body_of(shadow))
    assert back == shadow
    for section, tree in ((back.desired, desired), (back.reported, reported)):
        assert canonical(section.state) == canonical(tree)
        assert canonical(json.loads(section.state_json)) == canonical(tree)
        assert canonical(json.loads(section.stamps_json)) == canonical(section.stamps)


@given(trees)
def test_law_9_a_request_is_read_as_it_was_meant_however_it_is_spelled(tree: Json):
    meant = canonical({"desired": tree})
    for text in (
        json.dumps({"state": {"desired": tree}}),
        json.dumps({"state": {"desired": tree}}, ensure_ascii=False, indent=1),
        msgspec.json.encode({"state": {"desired": tree}}).decode(),
    ):
        assert canonical(parse_update(text.encode(), HALL, DEVICE, LARGE).state) == meant


# ----------------------------------------------------------------------------------- 10 any bytes


@st.composite
def odd_payloads(draw: st.DrawFn) -> bytes:
    """A request with something wrong in it, most often."""
    anything = st.none() | values | st.integers() | st.floats() | st.text(max_size=70)
    members = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "state": states
                | anything
                | st.dictionaries(st.sampled_from(["desired", "delta", "x"]), anything),
                "version": st.integers(-1, 3) | anything,
                "clientToken": st.text(max_size=70) | anything,
                "sequence": st.fixed_dictionaries({"epoch": st.integers(-1, 2), "number": st.integers(-1, 2)})
                | anything,
                "more": anything,
            },
        )
    )
    payload = json.dumps(members, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")
    match draw(st.integers(0, 5)):
        case 0:  # cut
            return payload[: draw(st.integers(0, len(payload)))]
        case 1:  # one byte is another
            at = draw(st.integers(0, len(payload) - 1))
            return payload[:at] + draw(st.binary(min_size=1, max_size=1)) + payload[at + 1 :]
        case 2:  # something in between
            at = draw(st.integers(0, len(payload)))
            return payload[:at] + draw(st.binary(max_size=4)) + payload[at:]
        case _:
            return payload


@given(st.binary(max_size=60) | odd_payloads())
@example(b'{"state":{"desired":{"a":' + b"9" * 20_000 + b"}}}")
@example(b'{"state":{"desired":{"a":-' + b"9" * 5_000 + b"}}}")
@example(b'{"state":' + b"[" * 30_000)
@example(b'{"more":' + b"[" * 10_000 + b"]" * 10_000 + b"}")
@example(b'{"state":{"desired":{"a":"\\ud800\\udc00"}}}')
@example(b"\x00")
def test_law_10_any_bytes_get_an_answer_of_the_table(payload: bytes):
    shadow, _ = after(NEVER_MADE, update({"reported": {"a": 1}}, sequence={"epoch": 1, "number": 1}))
    asked = update_or_refusal(payload)
    if isinstance(asked, ShadowError):
        assert (asked.code, asked.message) in ANSWERS
    updates: list[Command] = [asked] if isinstance(asked, Update) else []
    others = (parse(payload, HALL, DEVICE, LIMITS) for parse in (parse_get, parse_delete))
    for command in (*updates, *others):
        left, (outcome,) = after(shadow, command)
        if isinstance(outcome, Rejected):
            assert left is shadow
            body = told(outcome.body)
            assert (body["code"], body["message"]) in ANSWERS
        else:
            body = read(outcome.body)
        assert body.get("clientToken") == command.token
        assert isinstance(command, Get) or type(body["timestamp"]) is int


def update_or_refusal(payload: bytes) -> Update | ShadowError:
    try:
        return parse_update(payload, HALL, DEVICE, LIMITS)
    except RefusedError as refused:
        return refused.error


# ------------------------------------------------------------------------------ a second opinion


@given(st.lists(st.tuples(st.one_of(states, st.just("delete")), st.integers(-2, 5)), max_size=8))
def test_everything_that_is_said_is_what_the_reference_says(steps: list[tuple[Json, int]]):
    shadow, expected, now_ms = NEVER_MADE, reference.Shadow(), NOW_MS
    for number, (state, seconds) in enumerate(steps):
        now_ms += seconds * 1_000
        gone = state == "delete"
        assume(not gone or expected.exists)
        before = expected.show()
        command = (
            delete(clientToken=f"{number}") if gone else update(state, clientToken=f"{number}", limits=LARGE)
        )
        shadow, (outcome,) = after(shadow, command, limits=LARGE, now_ms=now_ms)
        assert isinstance(outcome, Accepted)
        assert outcome.change is not None
        if gone:
            expected.delete(now_ms // 1_000)
            body = {"version": expected.version - 1, "timestamp": expected.at}
        else:
            expected.update(state, now_ms // 1_000)
            note(f"{state} makes {expected.show()}")
            metadata = reference.taken(reference.leaf(state, expected.at), 1)
            body = {
                "state": state,
                "metadata": metadata,
                "version": expected.version,
                "timestamp": expected.at,
            }
        token = {"clientToken": f"{number}"}
        assert canonical(read(outcome.body)) == canonical(body | token)
        assert canonical(shown(shadow)) == canonical(expected.show())
        gap = None if gone else expected.delta()
        told_delta = (
            None if gap is None else gap | {"version": expected.version, "timestamp": expected.at} | token
        )
        assert canonical(read(outcome.change.delta)) == canonical(told_delta)
        documents = None if gone else documents_of(before, expected.show()) | token
        assert canonical(read(outcome.change.documents)) == canonical(documents)


def documents_of(before: Json, now: Json) -> Json:
    named = [{n: one[n] for n in ("state", "metadata", "version")} if one else None for one in (before, now)]
    return {"previous": named[0], "current": named[1], "timestamp": now["timestamp"]}


@given(pairs())
def test_a_patch_between_two_documents_turns_one_into_the_other(trees: tuple[Json, Json]):
    old, new = trees
    assert canonical(write(stored(old), merge_patch_between(old, new), NOW).state) == canonical(new)


@given(pairs())
def test_two_values_are_the_same_to_both(trees: tuple[Json, Json]):
    one, other = trees
    assert same(one, other) is same(other, one) is (reference.plain(one) == reference.plain(other))


@given(states, st.lists(states, max_size=3))
def test_a_conflict_names_exactly_what_both_wrote(wanted: Json, since: list[Json]):
    shadow, outcomes = after(NEVER_MADE, *(update(state) for state in since))
    assert shadow.version == len(since)
    rows = [row_of(one.change.row) for one in outcomes if isinstance(one, Accepted) and one.change]
    written = [path for state in since for path in touched(state)]
    expected = {
        pointer(path)
        for path, other in itertools.product(touched(wanted), written)
        if path[: len(other)] == other[: len(path)]
    }
    assert conflicts(wanted, rows) == tuple(sorted(expected))


def touched(state: Json) -> list[tuple[str, ...]]:
    if state is None:
        return [("desired",), ("reported",)]
    return [
        path
        for name, section in state.items()
        for path, _ in (leaves(section, (name,)) if section != {} else ())
    ]


def pointer(path: tuple[str, ...]) -> str:
    return "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in path)


@given(trees, trees)
def test_the_size_of_a_document_is_that_of_its_compact_text(desired: Json, reported: Json):
    text = sum(len(msgspec.json.encode(tree)) for tree in (desired, reported) if tree)
    assert stored(desired).size_bytes + stored(reported).size_bytes == text
    assert part({}, {}).size_bytes == 0
