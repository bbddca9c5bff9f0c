"""What a command does to a shadow: rights, sequences, versions, sizes, outbox. Pure, one batch at a time."""

from itertools import product
from typing import Any

import pytest
from msgspec.structs import replace

from infra.settings.model import ShadowLimits
from security.policy import Role
from shadow.commands import Channel, Command, Origin, parse_update
from shadow.decisions import (
    NEVER_MADE,
    Accepted,
    Circumstances,
    OutboxEntry,
    Outcome,
    Shadow,
    decide,
    without_settled,
)
from shadow.document import EMPTY, ShadowId, stamped
from shadow.errors import (
    InternalError,
    ShadowError,
    StaleSequenceError,
    VersionConflictError,
)
from tests.fakes import NOW_MS
from tests.shadow_rig import (
    DEVICE,
    HALL,
    LIMITS,
    SYSTEM,
    accepted,
    delete,
    get,
    rejected,
    shadow_from,
    update,
)
from tests.vectors.cases import read

STAMP = {"timestamp": 1}


def document(reported: Any, desired: Any = None, **changes: Any) -> Shadow:
    state = {name: part for name, part in (("desired", desired), ("reported", reported)) if part}
    stamps = {name: stamped(part, STAMP) for name, part in state.items()}
    made = shadow_from({"state": state, "metadata": stamps, "version": 41, "timestamp": 1})
    return replace(made, **changes)


def failed(_: Command, error: Exception) -> ShadowError:
    raise AssertionError from error


def after(
    shadow: Shadow, *commands: Command, limits: ShadowLimits = LIMITS, **circumstances: Any
) -> tuple[Shadow, list[Outcome]]:
    """Return what some commands to one shadow leave, and their outcomes."""
    id = commands[0].id
    changed, outcomes = decide({id: shadow}, commands, Circumstances(NOW_MS, limits, **circumstances), failed)
    return changed.get(id, shadow), outcomes


def refusal(
    shadow: Shadow, command: Command, limits: ShadowLimits = LIMITS, **circumstances: Any
) -> ShadowError:
    """Return why a command is refused; it must leave everything as it was."""
    left, (outcome,) = after(shadow, command, limits=limits, **circumstances)
    assert left is shadow
    return rejected(outcome).error


# -------------------------------------------------------------------------------------- rights


def origin(role: Role) -> Origin:
    return Origin("x", role, Channel.SYSTEM)


SECTIONS: tuple[tuple[str, Any], ...] = (
    ("desired", {"desired": {"a": 1}}),
    ("reported", {"reported": {"a": 1}}),
    ("both", {"desired": {"a": 1}, "reported": {"a": 1}}),
    ("state null", None),
    ("clear desired", {"desired": {"a": None}}),
    ("clear reported", {"reported": {"a": {"b": None}}}),
    ("nothing", {}),
    ("empty desired", {"desired": {}}),
)
ALLOWED = {
    # who, in which shadow, may send which of the above
    (Role.DEVICE, ""): {name for name, _ in SECTIONS},
    (Role.DEVICE, "free"): {name for name, _ in SECTIONS},
    (Role.DEVICE, "program"): {"reported", "clear reported", "nothing"},
    (Role.DEVICE, "firmware"): {"reported", "clear reported", "nothing"},
    (Role.DEVICE, "config"): {"reported", "clear reported", "nothing"},
    (Role.DEVICE, "han"): set[str](),
    (Role.GATEWAY, "han"): {"reported", "clear reported", "nothing"},
    (Role.RELAY, "han"): set[str](),
    (Role.RELAY, "program"): {"reported", "clear reported", "nothing"},
    (Role.OPERATOR, ""): {"desired", "clear desired", "empty desired", "nothing"},
    (Role.OPERATOR, "program"): set[str](),
    (Role.OPERATOR, "firmware"): set[str](),
    (Role.OPERATOR, "config"): {"desired", "clear desired", "empty desired", "nothing"},
    (Role.STAND_IN, ""): {name for name, _ in SECTIONS},
    (Role.STAND_IN, "firmware"): set[str](),
    (Role.SYSTEM, "program"): {
        "desired",
        "clear desired",
        "empty desired",
        "clear reported",
        "state null",
        "nothing",
    },
    (Role.SYSTEM, "firmware"): {"clear reported"},
}


@pytest.mark.parametrize(("role", "name"), ALLOWED, ids=lambda value: str(value) or "classic")
def test_each_role_writes_its_sections_and_no_other(role: Role, name: str):
    id = ShadowId("hall", name)
    for what, state in SECTIONS:
        left, (outcome,) = after(document({"a": {"b": 1}}), update(state, id, origin(role)))
        if what in ALLOWED[role, name]:
            assert accepted(outcome).version == 42, what
        else:
            assert rejected(outcome).error.code == 403, what
            assert left.version == 41


def test_finished_entries_leave_both_sections_in_one_update_of_the_system():
    shadow = document({"events": {"e": 1}}, {"events": {"e": 1}})
    command = update(
        {"desired": {"events": {"e": None}}, "reported": {"events": {"e": None}}},
        ShadowId("hall", "program"),
        SYSTEM,
    )
    left, (outcome,) = after(shadow, command)
    assert accepted(outcome).version == 42
    assert (left.desired.state, left.reported.state) == ({"events": {}}, {"events": {}})


def test_the_system_clears_a_report_but_writes_none():
    program = ShadowId("hall", "program")
    states: tuple[Any, ...] = ({"reported": {"a": 1}}, {"reported": {}}, {"reported": {"a": None, "b": {}}})
    for state in states:
        assert refusal(document({"a": 1}), update(state, program, SYSTEM)).code == 403


@pytest.mark.parametrize("name", ["program", "firmware", "config", "han"])
@pytest.mark.parametrize("role", Role)
def test_nobody_deletes_what_is_reserved(name: str, role: Role):
    assert refusal(document({"a": 1}), delete(ShadowId("hall", name), origin(role))).code == 403


@pytest.mark.parametrize(
    ("role", "name"),
    [
        *product((Role.DEVICE, Role.GATEWAY, Role.RELAY, Role.STAND_IN), ("", "free")),
        (Role.CUSTOMER, ""),
    ],
)
def test_who_may_delete_deletes(role: Role, name: str):
    left, (outcome,) = after(document({"a": 1}), delete(ShadowId("hall", name), origin(role)))
    assert accepted(outcome).version == 41
    assert (left.exists, left.version) == (False, 42)


def test_han_is_read_by_the_gateway_itself_its_customer_and_the_system_only():
    han = ShadowId("meter", "han")
    for role in Role:
        _, (outcome,) = after(document({"a": 1}), get(han, origin(role)))
        assert isinstance(outcome, Accepted) is (role in {Role.GATEWAY, Role.CUSTOMER, Role.SYSTEM}), role


def test_rights_come_before_existence():
    assert refusal(NEVER_MADE, delete(ShadowId("hall", "program"))).code == 403
    assert refusal(NEVER_MADE, get(ShadowId("hall", "han"))).code == 403


# ------------------------------------------------------------------------------------ sequence


def pair(epoch: int, number: int) -> dict[str, int]:
    return {"epoch": epoch, "number": number}


@pytest.mark.parametrize("newer", [(3, 8), (4, 0), (4, 7), (2**62, 0)])
def test_a_newer_report_is_taken_and_remembered(newer: tuple[int, int]):
    left, (outcome,) = after(
        document({"a": 1}, sequence=(3, 7)), update({"reported": {"a": 2}}, sequence=pair(*newer))
    )
    assert accepted(outcome).version == 42
    assert left.sequence == newer


@pytest.mark.parametrize("older", [(3, 7), (3, 6), (2, 8), (0, 0)])
def test_an_older_report_is_refused_with_the_newest_pair(older: tuple[int, int]):
    error = refusal(
        document({"a": 1}, sequence=(3, 7)), update({"reported": {"a": 2}}, sequence=pair(*older))
    )
    assert isinstance(error, StaleSequenceError)
    assert (error.code, error.current_sequence) == (409, (3, 7))


def test_any_pair_is_newer_than_none():
    left, _ = after(NEVER_MADE, update({"reported": {"a": 2}}, sequence=pair(0, 0)))
    assert left.sequence == (0, 0)


def test_what_carries_no_sequence_leaves_the_pair_and_is_not_held_up_by_it():
    shadow = document({"a": 1}, sequence=(3, 7))
    for command in (update({"reported": {"a": 2}}), update({"desired": {"a": 2}}), delete()):
        left, (outcome,) = after(shadow, command)
        assert isinstance(outcome, Accepted)
        assert left.sequence == (3, 7)


def test_a_refused_report_does_not_move_the_pair():
    shadow = document({"a": 1}, sequence=(3, 7))
    error = refusal(shadow, update({"reported": {"a": 2}}, sequence=pair(3, 8), version=7))
    assert isinstance(error, VersionConflictError)


# ----------------------------------------------------------------------------- version and time


def test_versions_go_on_through_deletions():
    left, outcomes = after(
        NEVER_MADE,
        update({"reported": {"a": 1}}),
        delete(),
        update({"reported": {"a": 1}}),
        delete(),
        delete(),
    )
    assert [getattr(outcome, "version", None) for outcome in outcomes] == [1, 1, 3, 3, None]
    assert (left.version, left.exists) == (4, False)
    assert left.desired is left.reported is EMPTY
    assert left.json is None


def test_a_deletion_of_another_version_is_refused():
    error = refusal(document({"a": 1}), delete(version=40))
    assert isinstance(error, VersionConflictError)
    assert error.current_version == 41
    assert accepted(after(document({"a": 1}), delete(version=41))[1][0]).version == 41


def test_a_deletion_of_what_is_not_there_is_404_whatever_version_it_names():
    assert refusal(NEVER_MADE, delete(version=3)).code == 404


@pytest.mark.parametrize("now_ms", [0, NOW_MS - 1, NOW_MS, NOW_MS + 1])
def test_time_never_falls(now_ms: int):
    shadow = document({"a": 1}, at_ms=NOW_MS)
    circumstances = Circumstances(now_ms, LIMITS)
    changed, outcomes = decide(
        {HALL: shadow}, [update({"reported": {"b": 1}}), delete()], circumstances, failed
    )
    expected = max(now_ms, NOW_MS)
    assert changed[HALL].at_ms == expected
    made, gone = (read(accepted(outcome).body) for outcome in outcomes)
    assert made["timestamp"] == gone["timestamp"] == expected // 1_000
    assert made["metadata"] == {"reported": {"b": {"timestamp": expected // 1_000}}}


def test_a_read_tells_the_time_it_was_made():
    _, (outcome,) = after(document({"a": 1}), get())
    assert read(accepted(outcome).body)["timestamp"] == NOW_MS // 1_000


# ---------------------------------------------------------------------------------------- size


def sized(bytes: int) -> dict[str, str]:
    return {"a": "x" * (bytes - len('{"a":""}'))}


@pytest.mark.parametrize(
    ("name", "limit"), [("", 8_192), ("free", 8_192), ("program", 16_384), ("han", 32_768)]
)
def test_both_sections_together_may_have_as_many_bytes_as_the_bound_says(name: str, limit: int):
    id = ShadowId("hall", name)
    desired = document(None, sized(1_000))
    who = origin(Role.GATEWAY)
    limits = ShadowLimits(request_bytes_max=65_536)
    assert isinstance(
        after(desired, update({"reported": sized(limit - 1_000)}, id, who, limits), limits=limits)[1][0],
        Accepted,
    )
    error = refusal(desired, update({"reported": sized(limit - 999)}, id, who, limits), limits)
    assert (error.code, error.message) == (413, "The payload exceeds the maximum size allowed")


def test_size_is_counted_in_bytes_of_our_encoding_and_without_empty_sections():
    state = {"reported": sized(8_192)}
    spaced = b'{ "state" : { "desired" : {} , "reported" : { "a" : "%b" } } }' % (b"x" * (8_192 - 8))
    assert isinstance(after(NEVER_MADE, parse_update(spaced, HALL, DEVICE, LIMITS))[1][0], Accepted)
    assert isinstance(after(NEVER_MADE, update(state))[1][0], Accepted)
    escaped = b'{"state":{"reported":{"a":"%b"}}}' % (b"\\u00fc" * 4_092)
    assert isinstance(after(NEVER_MADE, parse_update(escaped, HALL, DEVICE, LIMITS))[1][0], Accepted)
    assert refusal(NEVER_MADE, update({"reported": {"a": "ü" * 4_093}})).code == 413


def test_above_the_bound_a_document_may_shrink_but_neither_grow_nor_stay():
    shadow = document(sized(5_000), sized(5_000))
    smaller, (outcome,) = after(shadow, update({"reported": sized(4_999)}))
    assert isinstance(outcome, Accepted)
    assert smaller.desired.size_bytes + smaller.reported.size_bytes == 9_999
    assert refusal(shadow, update({"reported": sized(5_000)})).code == 413
    assert refusal(shadow, update({"reported": {"b": 1}})).code == 413
    assert refusal(shadow, update({"desired": {}})).code == 413
    assert isinstance(after(shadow, update({"desired": None}))[1][0], Accepted)
    assert isinstance(after(shadow, delete())[1][0], Accepted)


def test_a_shadow_too_many_is_not_made_but_one_that_is_there_goes_on():
    free = ShadowId("hall", "free")
    error = refusal(NEVER_MADE, update({"reported": {"a": 1}}, free), crowded={free})
    assert error.code == 413
    assert isinstance(
        after(document({"a": 1}), update({"reported": {"a": 1}}, free), crowded={free})[1][0], Accepted
    )


# -------------------------------------------------------------------------------------- outbox


def entries(*versions: int, bytes: int = 2) -> tuple[OutboxEntry, ...]:
    return tuple(OutboxEntry(version, b"x" * bytes) for version in versions)


def test_each_version_waits_in_the_outbox_until_the_broker_has_it():
    shadow = document({"a": 1}, outbox=entries(38, 39, 40, 41))
    left, _ = after(shadow, update({"reported": {"a": 2}}), settled={HALL: 39})
    assert [entry.version for entry in left.outbox] == [40, 41, 42]
    left, _ = after(shadow, update({"reported": {"a": 2}}), settled={HALL: 41})
    assert [entry.version for entry in left.outbox] == [42]
    left, _ = after(shadow, update({"reported": {"a": 2}}), settled={ShadowId("other"): 41})
    assert [entry.version for entry in left.outbox] == [38, 39, 40, 41, 42]


@pytest.mark.parametrize("command", [update({"reported": {"a": 2}}), delete()], ids=["update", "delete"])
def test_a_full_outbox_is_503_until_something_is_delivered(command: Command):
    full = document({"a": 1}, outbox=entries(*range(42 - LIMITS.outbox_entries_max, 42)))
    error = refusal(full, command)
    assert (error.code, error.message) == (503, "Service unavailable")
    left, (outcome,) = after(full, command, settled={HALL: 42 - LIMITS.outbox_entries_max})
    assert isinstance(outcome, Accepted)
    assert len(left.outbox) == LIMITS.outbox_entries_max


def test_reads_replays_and_refusals_leave_a_full_outbox_alone():
    shadow, _ = after(NEVER_MADE, update({"reported": {"a": 2}}, clientToken="t"))
    limits = ShadowLimits(outbox_entries_max=1)
    left, outcomes = after(shadow, get(), update({"reported": {"a": 2}}, clientToken="t"), limits=limits)
    assert left is shadow
    assert all(isinstance(outcome, Accepted) for outcome in outcomes)


def test_what_is_settled_leaves_and_the_rest_keeps_its_order():
    outbox = entries(3, 4, 5)
    assert without_settled(outbox, 2) == outbox
    assert without_settled(outbox, 3) == outbox[1:]
    assert without_settled(outbox, 5) == without_settled(outbox, 99) == ()


# --------------------------------------------------------------------------------- convergence


def test_how_long_a_wish_took_to_come_true_is_told_once():
    wished, _ = after(NEVER_MADE, update({"desired": {"a": 1}}))
    assert wished.diverged_ms == NOW_MS
    circumstances = Circumstances(NOW_MS + 700, LIMITS)
    more, (second,) = decide({HALL: wished}, [update({"desired": {"b": 1}})], circumstances, failed)
    assert more[HALL].diverged_ms == NOW_MS
    assert accepted(second).change.converged_after_ms is None  # type: ignore[union-attr] # it did change
    circumstances = Circumstances(NOW_MS + 1_500, LIMITS)
    done, (third,) = decide(more, [update({"reported": {"a": 1, "b": 1}})], circumstances, failed)
    assert accepted(third).change.converged_after_ms == 1_500  # type: ignore[union-attr] # it did change
    assert done[HALL].diverged_ms is None
    _, (fourth,) = decide(done, [update({"reported": {"c": 1}})], circumstances, failed)
    assert accepted(fourth).change.converged_after_ms is None  # type: ignore[union-attr] # it did change


# --------------------------------------------------------------------------------------- batch


def test_each_command_of_a_batch_is_decided_on_what_the_last_one_left():
    attic = ShadowId("attic")
    batch: list[Command] = [
        update({"reported": {"a": 1}}, version=0),
        update({"reported": {"a": 1}}, attic, version=0),
        update({"reported": {"a": 2}}, version=1),
        update({"reported": {"a": 3}}, version=1),
        get(),
    ]
    changed, outcomes = decide(
        {HALL: NEVER_MADE, attic: NEVER_MADE}, batch, Circumstances(NOW_MS, LIMITS), failed
    )
    assert [getattr(outcome, "version", None) for outcome in outcomes] == [1, 1, 2, None, 2]
    assert [outcome.command for outcome in outcomes] == batch
    assert changed[HALL].reported.state == {"a": 2}
    assert changed[attic].reported.state == {"a": 1}


def test_a_command_that_fails_unforeseen_fails_alone():
    class Poisoned(dict[str, Any]):
        def items(self) -> Any:
            raise ZeroDivisionError

    bad: Command = replace(update({"reported": {}}), state=Poisoned(reported={}))
    seen: list[Exception] = []

    def answer(_: Command, error: Exception) -> ShadowError:
        seen.append(error)
        return InternalError("trace-1")

    good = update({"reported": {"a": 1}})
    changed, outcomes = decide({HALL: NEVER_MADE}, [good, bad, good], Circumstances(NOW_MS, LIMITS), answer)
    assert [getattr(outcome, "version", None) for outcome in outcomes] == [1, None, 2]
    assert rejected(outcomes[1]).error.code == 500
    assert read(rejected(outcomes[1]).body)["detail"] == "trace trace-1"
    assert len(seen) == 1
    assert changed[HALL].version == 2


def test_a_batch_changes_none_of_the_documents_it_was_given():
    shadow = document({"a": [1, {"b": 2}], "c": {"d": 1}}, {"a": [1]})
    before = (shadow.desired.state, shadow.reported.state, repr(shadow))
    after(shadow, update({"reported": {"a": [9], "c": {"d": None, "e": {}}}, "desired": None}), delete())
    assert (shadow.desired.state, shadow.reported.state, repr(shadow)) == before
    assert Shadow() == NEVER_MADE
