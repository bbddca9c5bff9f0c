"""Bytes to commands: what is refused, with which words, and which of two faults is told."""

import itertools
from typing import Any, NamedTuple

import msgspec
import pytest

from infra.settings.model import ShadowLimits
from security.policy import Role
from shadow import ledger
from shadow.commands import (
    VERSION_MAX,
    Channel,
    Origin,
    RefusedError,
    check_tree,
    parse_delete,
    parse_get,
    parse_id,
    parse_update,
    peek_token,
)
from shadow.decisions import Accepted, Circumstances, OutboxEntry, Shadow, carry_out
from shadow.document import ShadowId, part
from shadow.errors import InvalidRequestError, ShadowError
from tests.fakes import NOW_MS
from tests.shadow_rig import DEVICE, HALL, LIMITS

TOO_LARGE = (413, "The payload exceeds the maximum size allowed")
ENCODING = (415, "Unsupported documented encoding; supported encoding is UTF-8")
JSON = (400, "Invalid JSON")
DEPTH = (400, "JSON contains too many levels of nesting; maximum is 6")


def refusal(payload: bytes, limits: ShadowLimits = LIMITS) -> tuple[tuple[int, str], str | None]:
    """Return code and message, and the token that is echoed."""
    with pytest.raises(RefusedError) as refused:
        parse_update(payload, HALL, DEVICE, limits)
    return (refused.value.error.code, refused.value.error.message), refused.value.token


def of(value: Any) -> bytes:
    return msgspec.json.encode(value)


def parsed(payload: bytes):
    return parse_update(payload, HALL, DEVICE, LIMITS)


# ------------------------------------------------------------------------- two faults at once


class Fault(NamedTuple):
    """A thing wrong with a request: where it shows, and what is answered when it is told."""

    row: float
    name: str
    members: dict[str, Any]
    answer: tuple[int, str]


NESTED: Any = {"a": {"b": {"c": {"d": {"e": {"f": 1}}}}}}
SEEN = "seen before"
LONG = "x" * 8_190
# Rows of the table of checks (spec: shadow, section 8); the document of `faulty_world` does the rest.
FAULTS = (
    Fault(5, "too many bytes", {"padding": "x" * LIMITS.request_bytes_max}, TOO_LARGE),
    Fault(6, "not UTF-8", {"encoding": "here: \ufffe"}, ENCODING),
    Fault(7, "null in an array", {"desired": {"list": [None]}}, JSON),
    Fault(7, "a number too large", {"desired": {"large": 2**63}}, JSON),
    Fault(8, "an unknown node", {"node": {}}, (400, "State contains an invalid node")),
    Fault(9.1, "a version of no kind", {"version": True}, (400, "Invalid version")),
    Fault(9.2, "a token of no kind", {"clientToken": 7}, (400, "Invalid clientToken")),
    Fault(9.3, "a sequence of no kind", {"sequence": 7}, (400, "Invalid sequence")),
    Fault(10, "too deep", {"desired": {"deep": NESTED}}, DEPTH),
    Fault(11, "not allowed", {"shadow": "firmware"}, (403, "Forbidden")),
    Fault(12, "answered before", {"clientToken": SEEN}, (200, "")),
    Fault(13, "stale sequence", {"sequence": {"epoch": 5, "number": 5}}, (409, "Stale sequence")),
    Fault(15, "stale version", {"version": 40}, (409, "Version conflict")),
    Fault(16, "too large a document", {"desired": {"long": LONG}}, TOO_LARGE),
    Fault(17, "a full outbox", {"outbox": "full"}, (503, "Service unavailable")),
)
PAIRS = [
    (one, other)
    for one, other in itertools.combinations(FAULTS, 2)
    if one.row < other.row and not ((one.members.keys() - {"desired"}) & other.members.keys())
]


def request_with(*faults: Fault) -> tuple[bytes, ShadowId]:
    """Return the bytes of a request that has these faults and no other, and where it is sent."""
    state: dict[str, Any] = {"desired": {"set": 1}, "reported": {"set": 1}}
    members: dict[str, Any] = {"state": state}
    name = ""
    for member, value in (pair for fault in faults for pair in fault.members.items()):
        if member == "desired":
            state["desired"] |= value
        elif member == "node":
            state["unknown"] = value
        elif member == "shadow":
            name = value
        elif member != "outbox":
            members[member] = value
    return of(members).replace("\ufffe".encode(), b"\xff"), ShadowId("hall", name)


def answer_of(*faults: Fault) -> tuple[int, str]:
    """Return what a request with these faults is answered; (200, "") when it is a replay."""
    payload, id = request_with(*faults)
    try:
        update = parse_update(payload, id, DEVICE, LIMITS)
    except RefusedError as refused:
        return refused.error.code, refused.error.message
    seen = ledger.Answered(update.digest, ledger.UPDATE, unique=True, version=7, timestamp=NOW_MS // 1_000)
    full = [OutboxEntry(41 - n, b"{}") for n in range(LIMITS.outbox_entries_max)]
    shadow = Shadow(
        reported=part({"set": 0}, {"set": {"timestamp": 1}}),
        version=41,
        at_ms=NOW_MS,
        exists=True,
        sequence=(5, 5),
        ledger=ledger.remember(b"", ledger.token_hash(SEEN), seen, LIMITS),
        outbox=tuple(full) if any("outbox" in fault.members for fault in faults) else (),
    )
    try:
        outcome, after = carry_out(shadow, update, Circumstances(NOW_MS, LIMITS))
    except ShadowError as error:
        return error.code, error.message
    assert isinstance(outcome, Accepted)
    assert outcome.replayed is (after is shadow)
    return (200, "") if outcome.replayed else (200, "accepted")


def test_a_request_without_a_fault_is_accepted():
    assert answer_of() == (200, "accepted")


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_fault_is_told(fault: Fault):
    assert answer_of(fault) == fault.answer


@pytest.mark.parametrize(
    ("first", "second"), PAIRS, ids=[f"{one.name}, {other.name}" for one, other in PAIRS]
)
def test_of_two_faults_the_first_in_the_table_is_told(first: Fault, second: Fault):
    assert answer_of(first, second) == first.answer


# ---------------------------------------------------------------------------------- the token


@pytest.mark.parametrize(
    ("payload", "answer"),
    [
        (b'{"clientToken":"t"}', (400, "Missing required node: state")),
        (b'{"state":7,"clientToken":"t"}', (400, "State node must be an object")),
        (b'{"state":{"desired":{"a":[null]}},"clientToken":"t"}', JSON),
        (b'{"state":{},"version":-1,"clientToken":"t"}', (400, "Invalid version")),
        (b'{"state":{"desired":{"a":[[[[[[1]]]]]]}},"clientToken":"t"}', DEPTH),
        (b'{"state":{},"sequence":{},"clientToken":"t"}', (400, "Invalid sequence")),
    ],
)
def test_a_refusal_says_which_token_asked(payload: bytes, answer: tuple[int, str]):
    assert refusal(payload) == (answer, "t")


@pytest.mark.parametrize(
    ("payload", "answer"),
    [
        (b'{"state":{},"clientToken":"t"', JSON),
        (b'["t"]', JSON),
        (b'{"state":{},"clientToken":"\xff"}', ENCODING),
        (b'{"state":{},"clientToken":"t"' + b" " * LIMITS.request_bytes_max + b"}", TOO_LARGE),
        (of({"state": {}, "clientToken": "t" * 65}), (400, "Invalid clientToken")),
        (of({"state": {}, "clientToken": ["t"]}), (400, "Invalid clientToken")),
    ],
)
def test_a_token_that_cannot_be_known_is_not_echoed(payload: bytes, answer: tuple[int, str]):
    assert refusal(payload) == (answer, None)


def test_a_token_is_measured_in_bytes():
    assert parsed(of({"state": {}, "clientToken": "😀" * 16})).token == "😀" * 16
    assert refusal(of({"state": {}, "clientToken": "😀" * 16 + "x"}))[0] == (400, "Invalid clientToken")


def test_a_request_may_have_exactly_as_many_bytes_as_the_bound_says():
    body = b'{"state":{}}'
    assert parsed(body + b" " * (LIMITS.request_bytes_max - len(body))).state == {}
    assert refusal(body + b" " * (LIMITS.request_bytes_max - len(body) + 1))[0] == TOO_LARGE


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[1]", b"{", b"\xff", b"x" * 40_000, b"[" * 9_000])
def test_a_get_or_delete_is_never_refused_for_its_body(body: bytes):
    assert parse_get(body, HALL, DEVICE, LIMITS).token is None
    gone = parse_delete(body, HALL, DEVICE, LIMITS)
    assert (gone.token, gone.token_hash, gone.version) == (None, None, None)


def test_a_get_or_delete_takes_its_token_and_ignores_the_rest():
    body = b'{"clientToken":"t","version":"odd","state":[null]}'
    tokens = {parse(body, HALL, DEVICE, LIMITS).token for parse in (parse_get, parse_delete)}
    assert tokens == {peek_token(body, LIMITS)} == {"t"}
    assert peek_token(b'{"clientToken":7}', LIMITS) is None


# --------------------------------------------------------------------------------- the values


@pytest.mark.parametrize(
    ("version", "read"),
    [(b"0", 0), (b"12", 12), (b"12.0", 12), (b"1.2e1", 12), (b"9007199254740991", VERSION_MAX)],
)
def test_a_version_is_a_whole_number(version: bytes, read: int):
    update = parsed(b'{"state":{},"version":%b}' % version)
    assert (update.version, type(update.version)) == (read, int)


@pytest.mark.parametrize(
    "version", ["-1", "12.5", "true", "null", '"12"', "[12]", "9007199254740992", "1e16", "-0.5", "{}"]
)
def test_anything_else_is_no_version(version: str):
    assert refusal(b'{"state":{},"version":%b}' % version.encode())[0] == (400, "Invalid version")


@pytest.mark.parametrize(
    "sequence",
    [
        *("null", "7", "[1,2]", "{}", '{"epoch":1}', '{"epoch":1,"number":-1}', '{"epoch":true,"number":1}'),
        *('{"epoch":1,"number":1.5}', '{"epoch":1,"number":9223372036854775808}', '{"epoch":"1","number":1}'),
    ],
)
def test_a_sequence_is_two_whole_numbers(sequence: str):
    payload = b'{"state":{"reported":{}},"sequence":%b}' % sequence.encode()
    assert refusal(payload)[0] == (400, "Invalid sequence")


@pytest.mark.parametrize("state", ["{}", "null", '{"desired":{"a":1}}'])
def test_a_sequence_stands_beside_a_report(state: str):
    payload = b'{"state":%b,"sequence":{"epoch":1,"number":1}}' % state.encode()
    assert refusal(payload)[0] == (400, "Invalid sequence")


def test_a_sequence_may_come_with_a_report_that_removes_all():
    update = parsed(b'{"state":{"reported":null},"sequence":{"epoch":1,"number":2,"more":3}}')
    assert update.sequence == (1, 2)


@pytest.mark.parametrize(
    "text",
    [
        '{"state":9223372036854775808}',
        '{"state":{"desired":-9223372036854775809}}',
        '{"state":{"desired":[null]}}',
        '{"state":[null]}',
        '{"state":{"a\\u0000b":{}}}',
        '{"state":{"desired":{"a":[{"b":{"c":null}}]}}}',
        '{"state":{"desired":{"a":{"b\\u0000":1}}}}',
    ],
)
def test_what_is_not_json_to_us_is_told_before_its_shape(text: str):
    assert refusal(text.encode())[0] == JSON


def test_one_name_twice_the_last_one_wins_also_when_it_is_spelled_differently():
    assert parsed(b'{"state":{"desired":{"a":1,"\\u0061":{"b":2}}}}').state == {"desired": {"a": {"b": 2}}}


@pytest.mark.parametrize("levels", [7, 100, 480, 700, 995, 2_000, 16_000])
@pytest.mark.parametrize(("opening", "inner", "closing"), [(b"[", b"1", b"]"), (b'{"":', b"1", b"}")])
def test_any_depth_beyond_the_bound_is_told_as_depth(
    levels: int, opening: bytes, inner: bytes, closing: bytes
):
    if len(opening + closing) * levels > LIMITS.request_bytes_max - 100:
        levels = (LIMITS.request_bytes_max - 100) // len(opening + closing)
    value = opening * levels + inner + closing * levels
    assert refusal(b'{"state":{"desired":{"a":%b}}}' % value)[0] == DEPTH


def test_a_deep_stack_changes_nothing():
    def down(levels: int) -> None:
        if levels:
            down(levels - 1)
        else:
            value = b"[" * 60 + b"]" * 60
            assert refusal(b'{"state":{"desired":{"a":%b}}}' % value)[0] == DEPTH

    down(500)


@pytest.mark.parametrize("depth_max", [1, 2, 6])
def test_depth_counts_containers_that_hold_something(depth_max: int):
    limits = ShadowLimits(depth_max=depth_max)
    for kind in ("object", "array"):
        value: Any = {"here": 1, "empty": {}, "none": []}
        for _ in range(depth_max - 1):
            value = {"in": value} if kind == "object" else {"in": [value]}
        if kind == "object":
            parse_update(of({"state": {"reported": value}}), HALL, DEVICE, limits)
        beyond = {"in": value} if kind == "object" or depth_max == 1 else value
        answer = (400, f"JSON contains too many levels of nesting; maximum is {depth_max}")
        assert refusal(of({"state": {"reported": beyond}}), limits)[0] == answer


def test_a_patch_made_by_us_is_checked_as_one_from_outside():
    check_tree({"a": {"b": [1, {"c": 2}]}}, LIMITS)
    for bad in ({"a": [None]}, {"a\0": 1}, {"a": 2**63}, {"a": NESTED}):
        with pytest.raises(InvalidRequestError):
            check_tree(bad, LIMITS)


# ---------------------------------------------------------------------------------- the names


@pytest.mark.parametrize("thing", ["a", "A-z:0_9", "x" * 128])
@pytest.mark.parametrize("name", ["", "a", "A-z:0_9", "x" * 64])
def test_a_name_of_letters_digits_colon_underscore_and_dash_is_taken(thing: str, name: str):
    assert parse_id(thing, name) == ShadowId(thing, name)
    assert ShadowId.of_key(ShadowId(thing, name).key) == ShadowId(thing, name)


@pytest.mark.parametrize("thing", ["", "x" * 129, "a/b", "a b", "a+", "#", "ü", "a\n", "a.b", "$a"])
def test_any_other_thing_name_is_refused(thing: str):
    with pytest.raises(InvalidRequestError, match="Invalid thing name"):
        parse_id(thing)


@pytest.mark.parametrize("name", ["x" * 65, "a/b", "a b", "a+", "#", "ü", "a\n", "a.b", "a$b"])
def test_any_other_shadow_name_is_refused(name: str):
    with pytest.raises(InvalidRequestError, match="Invalid shadow name"):
        parse_id("hall", name)


def test_a_refusal_never_tells_a_value_of_the_state():
    private = "hunter2"
    for state in (
        {"desired": {private: [None]}},
        {private: 1},
        {"desired": {private: 2**64}},
        {"desired": private},
    ):
        with pytest.raises(RefusedError) as refused:
            parsed(of({"state": state}))
        assert private not in f"{refused.value.error.message} {refused.value.error.detail}"


def test_an_origin_says_who_and_how():
    origin = Origin("meter", Role.RELAY, Channel.MQTT, gateway="meter")
    assert parse_update(b'{"state":{}}', HALL, origin, LIMITS).origin == origin
