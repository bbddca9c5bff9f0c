"""Writes the shadow vectors: what a request does to a document, case by case, as the specification says.

`python tests/vectors/make_shadow.py` writes one file a case into ``shadow/`` beside this file. Every
expectation was derived from the specification by hand and stands here as it is read there; none was
recorded from our code, which is not even imported.

A file is one *step*, its ``given`` document before it, and the steps that follow in ``then``:

    {"shadow": name if not classic, "role": if not "device", "given": document or null,
     "now": s, "operation": if not update,
     "request": value, or "request_text": "…", or "request_hex": "…", or "request_runs": [[text, times], …],
     "expect": {"accepted" or "rejected": body, "delta": body or null, "document": document or null},
     "then": [{"now", "operation", "request…", "expect"}, …]}

A document is ``{"state", "metadata", "version", "timestamp"}``; null: never made, or deleted. A rejected
body may also hold ``detail``, which is for people and in no vector. What ``update/documents`` says follows
from the documents: the one before and the one after.
"""

import json
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).with_name("shadow")

S = 1_790_000_000
OLD = {"timestamp": S + 50}
OLDER = {"timestamp": S + 10}
NEW = {"timestamp": S + 200}
LATER = {"timestamp": S + 300}
AT = 200

CASES: dict[str, dict[str, Any]] = {}

Json = Any


def document(state: Json, metadata: Json, version: int, at: int = AT) -> Json:
    return {"state": state, "metadata": metadata, "version": version, "timestamp": S + at}


def before(state: Json, metadata: Json, version: int = 41, at: int = 50) -> Json:
    return document(state, metadata, version, at)


def says(state: Json, metadata: Json, version: int, token: str | None = None, at: int = AT) -> Json:
    """Return the body of ``update/accepted``, ``get/accepted`` or ``update/delta``."""
    body = {"state": state, "metadata": metadata, "version": version, "timestamp": S + at}
    return body if token is None else body | {"clientToken": token}


def refuses(code: int, message: str, token: str | None = None, at: int = AT, **help: Json) -> Json:
    body = {"code": code, "message": message, "timestamp": S + at}
    return body | ({} if token is None else {"clientToken": token}) | help


def step(
    request: Json = ...,
    *,
    text: str | None = None,
    hex: str | None = None,
    runs: Json = None,
    operation: str = "update",
    at: int = AT,
    accepted: Json = None,
    rejected: Json = None,
    delta: Json = None,
    document: Json = None,
) -> Json:
    payloads = {"request_text": text, "request_hex": hex, "request_runs": runs}
    answer = {"rejected": rejected} if accepted is None else {"accepted": accepted}
    return {
        "now": S + at,
        **({} if operation == "update" else {"operation": operation}),
        **({} if request is ... else {"request": request}),
        **{name: payload for name, payload in payloads.items() if payload is not None},
        "expect": {**answer, "delta": delta, "document": document},
    }


def case(
    name: str,
    request: Json = ...,
    *,
    given: Json = None,
    shadow: str = "",
    role: str = "",
    then: Json = (),
    **more: Json,
) -> None:
    assert name not in CASES, name
    CASES[name] = {
        **({"shadow": shadow} if shadow else {}),
        **({"role": role} if role else {}),
        "given": given,
        **step(request, **more),
        **({"then": list(then)} if then else {}),
    }


def bad(name: str, request: Json = ..., *, rejected: Json, given: Json = ..., **more: Json) -> None:
    """Add a case that is refused, and after which the document is what it was."""
    kept = HALL if given is ... else given
    case(name, request, given=kept, rejected=rejected, document=kept, **more)


HALL = before({"reported": {"set": 20}}, {"reported": {"set": OLD}})
"""What most refusals must leave alone."""

# --------------------------------------------------------------------------------- create, merge

case(
    "good_create_desired",
    {"state": {"desired": {"set": 21.5, "mode": "eco"}}, "clientToken": "app-1"},
    accepted=says(
        {"desired": {"set": 21.5, "mode": "eco"}}, {"desired": {"set": NEW, "mode": NEW}}, 1, "app-1"
    ),
    delta=says({"set": 21.5, "mode": "eco"}, {"set": NEW, "mode": NEW}, 1, "app-1"),
    document=document({"desired": {"set": 21.5, "mode": "eco"}}, {"desired": {"set": NEW, "mode": NEW}}, 1),
)
case(
    "good_create_version_zero",
    {"state": {"reported": {"on": True}}, "version": 0},
    accepted=says({"reported": {"on": True}}, {"reported": {"on": NEW}}, 1),
    document=document({"reported": {"on": True}}, {"reported": {"on": NEW}}, 1),
)
case(
    "good_null_leaf",
    {"state": {"reported": {"set": 21.5, "old": None}}, "clientToken": "u-7"},
    given=before({"reported": {"set": 20, "old": 3}}, {"reported": {"set": OLD, "old": OLD}}),
    accepted=says(
        {"reported": {"set": 21.5, "old": None}}, {"reported": {"set": NEW, "old": NEW}}, 42, "u-7"
    ),
    document=document({"reported": {"set": 21.5}}, {"reported": {"set": NEW}}, 42),
)
case(
    "good_null_missing_leaf",
    {"state": {"reported": {"gone": None, "deep": {"gone": None}}}},
    given=HALL,
    accepted=says(
        {"reported": {"gone": None, "deep": {"gone": None}}},
        {"reported": {"gone": NEW, "deep": {"gone": NEW}}},
        42,
    ),
    document=document({"reported": {"set": 20}}, {"reported": {"set": OLD}}, 42),
)
case(
    "good_null_section",
    {"state": {"desired": None}},
    given=before(
        {"desired": {"set": 21, "fan": {"on": True}}, "reported": {"set": 20}},
        {"desired": {"set": OLD, "fan": {"on": OLD}}, "reported": {"set": OLD}},
    ),
    accepted=says({"desired": None}, {"desired": NEW}, 42),
    document=document({"reported": {"set": 20}}, {"reported": {"set": OLD}}, 42),
)
case(
    "good_null_state",
    {"state": None, "clientToken": "wipe"},
    given=before(
        {"desired": {"set": 21}, "reported": {"set": 20}}, {"desired": {"set": OLD}, "reported": {"set": OLD}}
    ),
    accepted=says(None, NEW, 42, "wipe"),
    document=document({}, {}, 42),
    then=[
        step({}, operation="get", at=300, accepted=says({}, {}, 42, at=300), document=document({}, {}, 42))
    ],
)
case(
    "good_null_only_subtree",
    {"state": {"reported": {"a": {"b": None, "c": {"d": None}}, "e": {"f": {"g": None}, "h": 1}}}},
    accepted=says(
        {"reported": {"a": {"b": None, "c": {"d": None}}, "e": {"f": {"g": None}, "h": 1}}},
        {"reported": {"a": {"b": NEW, "c": {"d": NEW}}, "e": {"f": {"g": NEW}, "h": NEW}}},
        1,
    ),
    document=document({"reported": {"e": {"h": 1}}}, {"reported": {"e": {"h": NEW}}}, 1),
)
case(
    "good_null_only_section",
    {"state": {"desired": {"a": {"b": None}}}},
    accepted=says({"desired": {"a": {"b": None}}}, {"desired": {"a": {"b": NEW}}}, 1),
    document=document({}, {}, 1),
)
case(
    "good_null_subtree_over_scalar",
    {"state": {"desired": {"a": {"x": None}}}},
    given=before({"desired": {"a": 3}}, {"desired": {"a": OLD}}),
    accepted=says({"desired": {"a": {"x": None}}}, {"desired": {"a": {"x": NEW}}}, 42),
    delta=says({"a": {}}, {"a": {}}, 42),
    document=document({"desired": {"a": {}}}, {"desired": {"a": {}}}, 42),
)
case(
    "good_null_subtree_over_array",
    {"state": {"reported": {"a": {"x": {"y": None}}}}},
    given=before({"reported": {"a": [3]}}, {"reported": {"a": [OLD]}}),
    accepted=says({"reported": {"a": {"x": {"y": None}}}}, {"reported": {"a": {"x": {"y": NEW}}}}, 42),
    document=document({"reported": {"a": {}}}, {"reported": {"a": {}}}, 42),
)
case("good_empty_state", {"state": {}}, accepted=says({}, {}, 1), document=document({}, {}, 1))
case(
    "good_empty_section",
    {"state": {"desired": {}}},
    accepted=says({"desired": {}}, {"desired": {}}, 1),
    document=document({}, {}, 1),
)
case(
    "good_empty_object_value",
    {"state": {"desired": {"a": {}, "b": {"c": {}}}}},
    accepted=says({"desired": {"a": {}, "b": {"c": {}}}}, {"desired": {"a": {}, "b": {"c": {}}}}, 1),
    delta=says({"a": {}, "b": {"c": {}}}, {"a": {}, "b": {"c": {}}}, 1),
    document=document({"desired": {"a": {}, "b": {"c": {}}}}, {"desired": {"a": {}, "b": {"c": {}}}}, 1),
)
case(
    "good_empty_object_over_scalar",
    {"state": {"desired": {"a": {}}}},
    given=before(
        {"desired": {"a": 3, "b": 1}, "reported": {"a": 3, "b": 1}},
        {"desired": {"a": OLD, "b": OLD}, "reported": {"a": OLD, "b": OLD}},
    ),
    accepted=says({"desired": {"a": {}}}, {"desired": {"a": {}}}, 42),
    delta=says({"a": {}}, {"a": {}}, 42),
    document=document(
        {"desired": {"a": {}, "b": 1}, "reported": {"a": 3, "b": 1}},
        {"desired": {"a": {}, "b": OLD}, "reported": {"a": OLD, "b": OLD}},
        42,
    ),
)
case(
    "good_empty_object_into_object",
    {"state": {"desired": {"a": {}}}},
    given=before(
        {"desired": {"a": {"x": 1}}, "reported": {"a": {"x": 1}}},
        {"desired": {"a": {"x": OLD}}, "reported": {"a": {"x": OLD}}},
    ),
    accepted=says({"desired": {"a": {}}}, {"desired": {"a": {}}}, 42),
    document=document(
        {"desired": {"a": {"x": 1}}, "reported": {"a": {"x": 1}}},
        {"desired": {"a": {"x": OLD}}, "reported": {"a": {"x": OLD}}},
        42,
    ),
)
case(
    "good_last_field_hides_section",
    {"state": {"desired": {"a": None}}},
    given=before(
        {"desired": {"a": 1}, "reported": {"a": 2}}, {"desired": {"a": OLD}, "reported": {"a": OLD}}
    ),
    accepted=says({"desired": {"a": None}}, {"desired": {"a": NEW}}, 42),
    document=document({"reported": {"a": 2}}, {"reported": {"a": OLD}}, 42),
)
case(
    "good_last_nested_field_deleted",
    {"state": {"desired": {"a": {"x": None}}}},
    given=before(
        {"desired": {"a": {"x": 1}, "b": 2}, "reported": {"b": 2}},
        {"desired": {"a": {"x": OLD}, "b": OLD}, "reported": {"b": OLD}},
    ),
    accepted=says({"desired": {"a": {"x": None}}}, {"desired": {"a": {"x": NEW}}}, 42),
    delta=says({"a": {}}, {"a": {}}, 42),
    document=document(
        {"desired": {"a": {}, "b": 2}, "reported": {"b": 2}},
        {"desired": {"a": {}, "b": OLD}, "reported": {"b": OLD}},
        42,
    ),
)
case(
    "good_kind_changes",
    {
        "state": {
            "reported": {"a": {"x": 1}, "b": 2, "c": "s", "d": [1, {"y": 2}], "e": False, "f": {"z": []}}
        }
    },
    given=before(
        {
            "reported": {
                "a": 1,
                "b": {"x": 1},
                "c": [1, 2],
                "d": {"y": {}},
                "e": {},
                "f": [{"z": 1}],
                "g": "kept",
            }
        },
        {
            "reported": {
                "a": OLD,
                "b": {"x": OLD},
                "c": [OLD, OLD],
                "d": {"y": {}},
                "e": {},
                "f": [{"z": OLD}],
                "g": OLD,
            }
        },
    ),
    accepted=says(
        {"reported": {"a": {"x": 1}, "b": 2, "c": "s", "d": [1, {"y": 2}], "e": False, "f": {"z": []}}},
        {"reported": {"a": {"x": NEW}, "b": NEW, "c": NEW, "d": [NEW, {"y": NEW}], "e": NEW, "f": {"z": []}}},
        42,
    ),
    document=document(
        {
            "reported": {
                "a": {"x": 1},
                "b": 2,
                "c": "s",
                "d": [1, {"y": 2}],
                "e": False,
                "f": {"z": []},
                "g": "kept",
            }
        },
        {
            "reported": {
                "a": {"x": NEW},
                "b": NEW,
                "c": NEW,
                "d": [NEW, {"y": NEW}],
                "e": NEW,
                "f": {"z": []},
                "g": OLD,
            }
        },
        42,
    ),
)
case(
    "good_array_replaced",
    {"state": {"desired": {"hours": [7]}}},
    given=before({"desired": {"hours": [6, 18, 22]}}, {"desired": {"hours": [OLD, OLD, OLD]}}),
    accepted=says({"desired": {"hours": [7]}}, {"desired": {"hours": [NEW]}}, 42),
    delta=says({"hours": [7]}, {"hours": [NEW]}, 42),
    document=document({"desired": {"hours": [7]}}, {"desired": {"hours": [NEW]}}, 42),
)
case(
    "good_array_nested",
    {"state": {"reported": {"grid": [[1, [2]], {"x": [], "y": {"z": True}}, {}, "s"]}}},
    accepted=says(
        {"reported": {"grid": [[1, [2]], {"x": [], "y": {"z": True}}, {}, "s"]}},
        {"reported": {"grid": [[NEW, [NEW]], {"x": [], "y": {"z": NEW}}, {}, NEW]}},
        1,
    ),
    document=document(
        {"reported": {"grid": [[1, [2]], {"x": [], "y": {"z": True}}, {}, "s"]}},
        {"reported": {"grid": [[NEW, [NEW]], {"x": [], "y": {"z": NEW}}, {}, NEW]}},
        1,
    ),
)
case(
    "good_no_change_bumps",
    {"state": {"reported": {"a": 1}}},
    given=before({"reported": {"a": 1, "b": 2}}, {"reported": {"a": OLD, "b": OLD}}),
    accepted=says({"reported": {"a": 1}}, {"reported": {"a": NEW}}, 42),
    document=document({"reported": {"a": 1, "b": 2}}, {"reported": {"a": NEW, "b": OLD}}, 42),
)
case(
    "good_unknown_member_ignored",
    {
        "state": {"reported": {"a": 1}},
        "timestamp": 5,
        "metadata": {"reported": {"a": {"timestamp": 5}}},
        "extra": [None, {"deep": [None]}],
    },
    accepted=says({"reported": {"a": 1}}, {"reported": {"a": NEW}}, 1),
    document=document({"reported": {"a": 1}}, {"reported": {"a": NEW}}, 1),
)
ODD = {"a.b": 1, "$set": {"": 2}, " ": 3, "ü€😀": {"$ref": 4}, "__proto__": 5, '"\\/\n\u007f': 6, "~0/~1": 7}
ODD_STAMPS = {
    "a.b": NEW,
    "$set": {"": NEW},
    " ": NEW,
    "ü€😀": {"$ref": NEW},
    "__proto__": NEW,
    '"\\/\n\u007f': NEW,
    "~0/~1": NEW,
}
case(
    "good_odd_names",
    {"state": {"desired": ODD}, "clientToken": "ü€😀"},
    accepted=says({"desired": ODD}, {"desired": ODD_STAMPS}, 1, "ü€😀"),
    delta=says(ODD, ODD_STAMPS, 1, "ü€😀"),
    document=document({"desired": ODD}, {"desired": ODD_STAMPS}, 1),
)
case(
    "good_name_twice",
    text='{"state": {"desired": {"a": 1}}, '
    '"state": {"reported": {"b": {"x": 1}, "b": {"y": 2}, "c": 1, "c": 3}}}',
    accepted=says({"reported": {"b": {"y": 2}, "c": 3}}, {"reported": {"b": {"y": NEW}, "c": NEW}}, 1),
    document=document({"reported": {"b": {"y": 2}, "c": 3}}, {"reported": {"b": {"y": NEW}, "c": NEW}}, 1),
)

# ------------------------------------------------------------------------------- delta, metadata

case(
    "good_report_equal_no_delta",
    {"state": {"reported": {"set": 21.5}}, "clientToken": "r"},
    given=before(
        {"desired": {"set": 21.5}, "reported": {"set": 20}},
        {"desired": {"set": OLD}, "reported": {"set": OLD}},
    ),
    accepted=says({"reported": {"set": 21.5}}, {"reported": {"set": NEW}}, 42, "r"),
    document=document(
        {"desired": {"set": 21.5}, "reported": {"set": 21.5}},
        {"desired": {"set": OLD}, "reported": {"set": NEW}},
        42,
    ),
)
case(
    "good_delta_nested_path",
    {"state": {"desired": {"valve": {"open": False}}}},
    given=before(
        {
            "desired": {"valve": {"open": True, "mode": "auto"}, "z": 1},
            "reported": {"valve": {"open": True, "mode": "auto"}, "z": 1},
        },
        {
            "desired": {"valve": {"open": OLD, "mode": OLD}, "z": OLD},
            "reported": {"valve": {"open": OLD, "mode": OLD}, "z": OLD},
        },
    ),
    accepted=says({"desired": {"valve": {"open": False}}}, {"desired": {"valve": {"open": NEW}}}, 42),
    delta=says({"valve": {"open": False}}, {"valve": {"open": NEW}}, 42),
    document=document(
        {
            "desired": {"valve": {"open": False, "mode": "auto"}, "z": 1},
            "reported": {"valve": {"open": True, "mode": "auto"}, "z": 1},
        },
        {
            "desired": {"valve": {"open": NEW, "mode": OLD}, "z": OLD},
            "reported": {"valve": {"open": OLD, "mode": OLD}, "z": OLD},
        },
        42,
    ),
)
case(
    "good_delta_all_fields",
    {"state": {"reported": {"rssi": -61}}, "clientToken": "dev-1"},
    given=before(
        {"desired": {"set": 21.5, "mode": "eco", "on": True}, "reported": {"set": 20, "on": True}},
        {"desired": {"set": OLD, "mode": OLDER, "on": OLD}, "reported": {"set": OLD, "on": OLD}},
    ),
    accepted=says({"reported": {"rssi": -61}}, {"reported": {"rssi": NEW}}, 42, "dev-1"),
    delta=says({"set": 21.5, "mode": "eco"}, {"set": OLD, "mode": OLDER}, 42, "dev-1"),
    document=document(
        {
            "desired": {"set": 21.5, "mode": "eco", "on": True},
            "reported": {"set": 20, "on": True, "rssi": -61},
        },
        {"desired": {"set": OLD, "mode": OLDER, "on": OLD}, "reported": {"set": OLD, "on": OLD, "rssi": NEW}},
        42,
    ),
)
case(
    "good_delta_stamps_of_desired",
    {"state": {"reported": {"hours": [6], "fan": {"speed": 1}}}},
    given=before(
        {"desired": {"hours": [6, 18], "fan": {"speed": 2, "on": True}, "set": 20}, "reported": {"set": 20}},
        {
            "desired": {"hours": [OLDER, OLDER], "fan": {"speed": OLDER, "on": OLD}, "set": OLD},
            "reported": {"set": OLD},
        },
    ),
    accepted=says(
        {"reported": {"hours": [6], "fan": {"speed": 1}}},
        {"reported": {"hours": [NEW], "fan": {"speed": NEW}}},
        42,
    ),
    delta=says(
        {"hours": [6, 18], "fan": {"speed": 2, "on": True}},
        {"hours": [OLDER, OLDER], "fan": {"speed": OLDER, "on": OLD}},
        42,
    ),
    document=document(
        {
            "desired": {"hours": [6, 18], "fan": {"speed": 2, "on": True}, "set": 20},
            "reported": {"set": 20, "hours": [6], "fan": {"speed": 1}},
        },
        {
            "desired": {"hours": [OLDER, OLDER], "fan": {"speed": OLDER, "on": OLD}, "set": OLD},
            "reported": {"set": OLD, "hours": [NEW], "fan": {"speed": NEW}},
        },
        42,
    ),
)
case(
    "good_deleted_report_returns_to_delta",
    {"state": {"reported": {"set": None}}},
    given=before(
        {"desired": {"set": 20}, "reported": {"set": 20}}, {"desired": {"set": OLD}, "reported": {"set": OLD}}
    ),
    accepted=says({"reported": {"set": None}}, {"reported": {"set": NEW}}, 42),
    delta=says({"set": 20}, {"set": OLD}, 42),
    document=document({"desired": {"set": 20}}, {"desired": {"set": OLD}}, 42),
)
case(
    "good_only_in_reported_no_delta",
    {"state": {"reported": {"a": {"extra": 1}, "more": [1]}}},
    given=before({"desired": {"a": {}}}, {"desired": {"a": {}}}),
    accepted=says(
        {"reported": {"a": {"extra": 1}, "more": [1]}}, {"reported": {"a": {"extra": NEW}, "more": [NEW]}}, 42
    ),
    document=document(
        {"desired": {"a": {}}, "reported": {"a": {"extra": 1}, "more": [1]}},
        {"desired": {"a": {}}, "reported": {"a": {"extra": NEW}, "more": [NEW]}},
        42,
    ),
)
case(
    "good_one_equals_one_point_zero",
    text='{"state": {"reported": {"a": 1.0, "b": 1, "c": -0.0}}}',
    given=before({"desired": {"a": 1, "b": 1.0, "c": 0}}, {"desired": {"a": OLD, "b": OLD, "c": OLD}}),
    accepted=says(
        {"reported": {"a": 1.0, "b": 1, "c": -0.0}}, {"reported": {"a": NEW, "b": NEW, "c": NEW}}, 42
    ),
    document=document(
        {"desired": {"a": 1, "b": 1.0, "c": 0}, "reported": {"a": 1.0, "b": 1, "c": -0.0}},
        {"desired": {"a": OLD, "b": OLD, "c": OLD}, "reported": {"a": NEW, "b": NEW, "c": NEW}},
        42,
    ),
)
case(
    "good_one_in_array",
    text='{"state": {"reported": {"a": [1.0, [2, {"b": 3.0}]]}}}',
    given=before({"desired": {"a": [1, [2.0, {"b": 3}]]}}, {"desired": {"a": [OLD, [OLD, {"b": OLD}]]}}),
    accepted=says(
        {"reported": {"a": [1.0, [2, {"b": 3.0}]]}}, {"reported": {"a": [NEW, [NEW, {"b": NEW}]]}}, 42
    ),
    document=document(
        {"desired": {"a": [1, [2.0, {"b": 3}]]}, "reported": {"a": [1.0, [2, {"b": 3.0}]]}},
        {"desired": {"a": [OLD, [OLD, {"b": OLD}]]}, "reported": {"a": [NEW, [NEW, {"b": NEW}]]}},
        42,
    ),
)
case(
    "good_true_is_not_one",
    text='{"state": {"reported": {"a": 1, "b": true, "c": 0, "d": false, "e": true}}}',
    given=before(
        {"desired": {"a": True, "b": 1, "c": False, "d": 0.0, "e": True}},
        {"desired": {"a": OLD, "b": OLD, "c": OLD, "d": OLD, "e": OLD}},
    ),
    accepted=says(
        {"reported": {"a": 1, "b": True, "c": 0, "d": False, "e": True}},
        {"reported": {"a": NEW, "b": NEW, "c": NEW, "d": NEW, "e": NEW}},
        42,
    ),
    delta=says({"a": True, "b": 1, "c": False, "d": 0.0}, {"a": OLD, "b": OLD, "c": OLD, "d": OLD}, 42),
    document=document(
        {
            "desired": {"a": True, "b": 1, "c": False, "d": 0.0, "e": True},
            "reported": {"a": 1, "b": True, "c": 0, "d": False, "e": True},
        },
        {
            "desired": {"a": OLD, "b": OLD, "c": OLD, "d": OLD, "e": OLD},
            "reported": {"a": NEW, "b": NEW, "c": NEW, "d": NEW, "e": NEW},
        },
        42,
    ),
)
case(
    "good_true_is_not_one_in_array",
    {"state": {"reported": {"a": [1], "b": [{"x": 0}], "c": [True, 1]}}},
    given=before(
        {"desired": {"a": [True], "b": [{"x": False}], "c": [True, 1]}},
        {"desired": {"a": [OLD], "b": [{"x": OLD}], "c": [OLD, OLD]}},
    ),
    accepted=says(
        {"reported": {"a": [1], "b": [{"x": 0}], "c": [True, 1]}},
        {"reported": {"a": [NEW], "b": [{"x": NEW}], "c": [NEW, NEW]}},
        42,
    ),
    delta=says({"a": [True], "b": [{"x": False}]}, {"a": [OLD], "b": [{"x": OLD}]}, 42),
    document=document(
        {
            "desired": {"a": [True], "b": [{"x": False}], "c": [True, 1]},
            "reported": {"a": [1], "b": [{"x": 0}], "c": [True, 1]},
        },
        {
            "desired": {"a": [OLD], "b": [{"x": OLD}], "c": [OLD, OLD]},
            "reported": {"a": [NEW], "b": [{"x": NEW}], "c": [NEW, NEW]},
        },
        42,
    ),
)
case(
    "good_array_metadata",
    {"state": {"desired": {"a": [], "b": [1, "x", True, {}], "c": [[], [{"d": [2]}]]}}},
    accepted=says(
        {"desired": {"a": [], "b": [1, "x", True, {}], "c": [[], [{"d": [2]}]]}},
        {"desired": {"a": [], "b": [NEW, NEW, NEW, {}], "c": [[], [{"d": [NEW]}]]}},
        1,
    ),
    delta=says(
        {"a": [], "b": [1, "x", True, {}], "c": [[], [{"d": [2]}]]},
        {"a": [], "b": [NEW, NEW, NEW, {}], "c": [[], [{"d": [NEW]}]]},
        1,
    ),
    document=document(
        {"desired": {"a": [], "b": [1, "x", True, {}], "c": [[], [{"d": [2]}]]}},
        {"desired": {"a": [], "b": [NEW, NEW, NEW, {}], "c": [[], [{"d": [NEW]}]]}},
        1,
    ),
)
case(
    "good_field_named_timestamp",
    {"state": {"desired": {"a": {"timestamp": 8}, "b": {"timestamp": {"timestamp": 9}}}}},
    given=before(
        {
            "desired": {"timestamp": 5, "a": {"timestamp": 7, "x": 1}, "c": {"timestamp": 3}},
            "reported": {"timestamp": 5, "a": {"timestamp": 7}, "c": {"timestamp": 4}},
        },
        {
            "desired": {"timestamp": OLD, "a": {"timestamp": OLD, "x": OLD}, "c": {"timestamp": OLDER}},
            "reported": {"timestamp": OLD, "a": {"timestamp": OLD}, "c": {"timestamp": OLD}},
        },
    ),
    accepted=says(
        {"desired": {"a": {"timestamp": 8}, "b": {"timestamp": {"timestamp": 9}}}},
        {"desired": {"a": {"timestamp": NEW}, "b": {"timestamp": {"timestamp": NEW}}}},
        42,
    ),
    delta=says(
        {"a": {"timestamp": 8, "x": 1}, "b": {"timestamp": {"timestamp": 9}}, "c": {"timestamp": 3}},
        {
            "a": {"timestamp": NEW, "x": OLD},
            "b": {"timestamp": {"timestamp": NEW}},
            "c": {"timestamp": OLDER},
        },
        42,
    ),
    document=document(
        {
            "desired": {
                "timestamp": 5,
                "a": {"timestamp": 8, "x": 1},
                "b": {"timestamp": {"timestamp": 9}},
                "c": {"timestamp": 3},
            },
            "reported": {"timestamp": 5, "a": {"timestamp": 7}, "c": {"timestamp": 4}},
        },
        {
            "desired": {
                "timestamp": OLD,
                "a": {"timestamp": NEW, "x": OLD},
                "b": {"timestamp": {"timestamp": NEW}},
                "c": {"timestamp": OLDER},
            },
            "reported": {"timestamp": OLD, "a": {"timestamp": OLD}, "c": {"timestamp": OLD}},
        },
        42,
    ),
)
case(
    "good_clock_back",
    {"state": {"reported": {"a": 1}}, "clientToken": "late"},
    given=before({"desired": {"b": 1}}, {"desired": {"b": OLD}}, at=300),
    accepted=says({"reported": {"a": 1}}, {"reported": {"a": LATER}}, 42, "late", at=300),
    delta=says({"b": 1}, {"b": OLD}, 42, "late", at=300),
    document=document(
        {"desired": {"b": 1}, "reported": {"a": 1}},
        {"desired": {"b": OLD}, "reported": {"a": LATER}},
        42,
        at=300,
    ),
)
case(
    "good_get_with_delta",
    {"clientToken": "g-1"},
    operation="get",
    given=before(
        {"desired": {"set": 21.5, "mode": "eco"}, "reported": {"set": 20, "mode": "eco"}},
        {"desired": {"set": OLD, "mode": OLDER}, "reported": {"set": OLD, "mode": OLD}},
    ),
    accepted=says(
        {
            "desired": {"set": 21.5, "mode": "eco"},
            "reported": {"set": 20, "mode": "eco"},
            "delta": {"set": 21.5},
        },
        {
            "desired": {"set": OLD, "mode": OLDER},
            "reported": {"set": OLD, "mode": OLD},
            "delta": {"set": OLD},
        },
        41,
        "g-1",
    ),
    document=before(
        {"desired": {"set": 21.5, "mode": "eco"}, "reported": {"set": 20, "mode": "eco"}},
        {"desired": {"set": OLD, "mode": OLDER}, "reported": {"set": OLD, "mode": OLD}},
    ),
)

# ------------------------------------------------------------ version, token, limits, extensions

REPORT_SET = {"reported": {"set": 21}}
SET_NEW = {"reported": {"set": NEW}}

case(
    "good_version_equal",
    {"state": REPORT_SET, "version": 41},
    given=HALL,
    accepted=says(REPORT_SET, SET_NEW, 42),
    document=document(REPORT_SET, SET_NEW, 42),
)
case(
    "good_version_equal_with_delta",
    {"state": REPORT_SET, "version": 41},
    given=before(
        {"desired": {"set": 22}, "reported": {"set": 20}},
        {"desired": {"set": OLD}, "reported": {"set": OLD}},
    ),
    accepted=says(REPORT_SET, SET_NEW, 42),
    delta=says({"set": 22}, {"set": OLD}, 42),
    document=document(
        {"desired": {"set": 22}, "reported": {"set": 21}},
        {"desired": {"set": OLD}, "reported": {"set": NEW}},
        42,
    ),
)
case(
    "good_version_whole_float",
    text='{"state": {"reported": {"set": 21}}, "version": 41.0}',
    given=HALL,
    accepted=says(REPORT_SET, SET_NEW, 42),
    document=document(REPORT_SET, SET_NEW, 42),
)
case(
    "good_token_64_bytes",
    {"state": REPORT_SET, "clientToken": "x" * 60 + "ü" * 2},
    given=HALL,
    accepted=says(REPORT_SET, SET_NEW, 42, "x" * 60 + "ü" * 2),
    document=document(REPORT_SET, SET_NEW, 42),
)
case(
    "good_token_empty",
    {"state": REPORT_SET, "clientToken": ""},
    given=HALL,
    accepted=says(REPORT_SET, SET_NEW, 42, ""),
    document=document(REPORT_SET, SET_NEW, 42),
    then=[
        step(
            {"state": REPORT_SET, "clientToken": ""},
            at=300,
            accepted=says(REPORT_SET, {"reported": {"set": LATER}}, 43, "", at=300),
            document=document(REPORT_SET, {"reported": {"set": LATER}}, 43, at=300),
        )
    ],
)
DEEP_6 = {"a": {"b": {"c": {"d": {"e": {"f": 1, "g": {}, "h": []}}}}}, "i": [[[[[1, {}, []]]]]]}
DEEP_6_STAMPS = {"a": {"b": {"c": {"d": {"e": {"f": NEW, "g": {}, "h": []}}}}}, "i": [[[[[NEW, {}, []]]]]]}
case(
    "good_depth_6",
    {"state": {"reported": DEEP_6}},
    accepted=says({"reported": DEEP_6}, {"reported": DEEP_6_STAMPS}, 1),
    document=document({"reported": DEEP_6}, {"reported": DEEP_6_STAMPS}, 1),
)


def filled(bytes: int) -> str:
    """Return a text with which ``{"a":"…"}`` has this many bytes."""
    return "x" * (bytes - len('{"a":""}'))


def size_cases(name: str, limit: int, **who: str) -> None:
    """Fill a document in two steps up to its limit, and another one byte beyond."""
    for bytes, verdict in ((limit, "good"), (limit + 1, "bad")):
        # `desired` is not everybody's to write; a second field of `reported` counts as much.
        half = filled(bytes // 2)
        rest = "y" * (bytes - bytes // 2 - len(',"b":""'))
        first = document({"reported": {"a": half}}, {"reported": {"a": NEW}}, 1)
        whole = document(
            {"reported": {"a": half, "b": rest}}, {"reported": {"a": NEW, "b": LATER}}, 2, at=300
        )
        answer = (
            {"accepted": says({"reported": {"b": rest}}, {"reported": {"b": LATER}}, 2, "t", at=300)}
            if verdict == "good"
            else {"rejected": refuses(413, TOO_LARGE, "t", at=300)}
        )
        case(
            f"{verdict}_size_{name}{bytes}",
            {"state": {"reported": {"a": half}}},
            accepted=says({"reported": {"a": half}}, {"reported": {"a": NEW}}, 1),
            document=first,
            then=[
                step(
                    {"state": {"reported": {"b": rest}}, "clientToken": "t"},
                    at=300,
                    document=whole if verdict == "good" else first,
                    **answer,
                )
            ],
            **who,
        )


TOO_LARGE = "The payload exceeds the maximum size allowed"
size_cases("", 8_192)
size_cases("program_", 16_384, shadow="program")
size_cases("han_", 32_768, shadow="han", role="gateway")

BIG = before(
    {"desired": {"a": filled(5_000)}, "reported": {"a": filled(5_000), "b": 1}},
    {"desired": {"a": OLD}, "reported": {"a": OLD, "b": OLD}},
)
"""Above the limit, as a document is after the limit was lowered."""
case(
    "good_over_limit_shrinks",
    {"state": {"reported": {"b": None}}},
    given=BIG,
    accepted=says({"reported": {"b": None}}, {"reported": {"b": NEW}}, 42),
    document=document(
        {"desired": {"a": filled(5_000)}, "reported": {"a": filled(5_000)}},
        {"desired": {"a": OLD}, "reported": {"a": OLD}},
        42,
    ),
)
bad(
    "bad_over_limit_same_size",
    {"state": {"reported": {"b": 2}}, "clientToken": "t-1"},
    given=BIG,
    rejected=refuses(413, TOO_LARGE, "t-1"),
)
case(
    "good_delete_recreate",
    {"clientToken": "d-1"},
    operation="delete",
    given=HALL,
    accepted={"version": 41, "timestamp": S + AT, "clientToken": "d-1"},
    then=[
        step(
            {"clientToken": "g-1"},
            operation="get",
            at=210,
            rejected=refuses(404, "No shadow exists with name: 'hall'", "g-1", at=210),
        ),
        step(
            {},
            operation="delete",
            at=220,
            rejected=refuses(404, "No shadow exists with name: 'hall'", at=220),
        ),
        step(
            {"state": REPORT_SET, "version": 42, "clientToken": "t"},
            at=230,
            rejected=refuses(409, "Version conflict", "t", at=230, currentVersion=0),
        ),
        step(
            {"state": REPORT_SET, "version": 0},
            at=300,
            accepted=says(REPORT_SET, {"reported": {"set": LATER}}, 43, at=300),
            document=document(REPORT_SET, {"reported": {"set": LATER}}, 43, at=300),
        ),
    ],
)
case(
    "good_get_body_not_json",
    text="not json",
    operation="get",
    given=HALL,
    accepted=says(HALL["state"], HALL["metadata"], 41),
    document=HALL,
)
case(
    "good_delete_body_not_json",
    text="[1, 2",
    operation="delete",
    given=HALL,
    accepted={"version": 41, "timestamp": S + AT},
)
case(
    "good_named_get_empty_body",
    text="",
    operation="get",
    shadow="diag",
    given=HALL,
    accepted=says(HALL["state"], HALL["metadata"], 41),
    document=HALL,
)
bad(
    "bad_named_get_absent",
    {"clientToken": "g-1"},
    operation="get",
    shadow="diag",
    given=None,
    rejected=refuses(404, "No shadow exists with name: 'diag'", "g-1"),
)
ONCE = {"state": {"reported": {"set": 21}}, "clientToken": "once"}
case(
    "good_replay",
    ONCE,
    given=before(
        {"desired": {"set": 22}, "reported": {"set": 20}}, {"desired": {"set": OLD}, "reported": {"set": OLD}}
    ),
    accepted=says(REPORT_SET, SET_NEW, 42, "once"),
    delta=says({"set": 22}, {"set": OLD}, 42, "once"),
    document=document(
        {"desired": {"set": 22}, "reported": {"set": 21}},
        {"desired": {"set": OLD}, "reported": {"set": NEW}},
        42,
    ),
    then=[
        step(
            ONCE,
            at=300,
            accepted=says(REPORT_SET, SET_NEW, 42, "once"),
            document=document(
                {"desired": {"set": 22}, "reported": {"set": 21}},
                {"desired": {"set": OLD}, "reported": {"set": NEW}},
                42,
            ),
        )
    ],
)
case(
    "good_replay_old_version",
    {"state": REPORT_SET, "version": 41, "clientToken": "once"},
    given=HALL,
    accepted=says(REPORT_SET, SET_NEW, 42, "once"),
    document=document(REPORT_SET, SET_NEW, 42),
    then=[
        step(
            {"state": {"reported": {"set": 30}}},
            at=300,
            accepted=says({"reported": {"set": 30}}, {"reported": {"set": LATER}}, 43, at=300),
            document=document({"reported": {"set": 30}}, {"reported": {"set": LATER}}, 43, at=300),
        ),
        step(
            {"state": REPORT_SET, "version": 41, "clientToken": "once"},
            at=310,
            accepted=says(REPORT_SET, SET_NEW, 42, "once"),
            document=document({"reported": {"set": 30}}, {"reported": {"set": LATER}}, 43, at=300),
        ),
    ],
)
case(
    "good_replay_delete",
    {"clientToken": "d-1"},
    operation="delete",
    given=HALL,
    accepted={"version": 41, "timestamp": S + AT, "clientToken": "d-1"},
    then=[
        step(
            {"clientToken": "d-1"},
            operation="delete",
            at=210,
            accepted={"version": 41, "timestamp": S + AT, "clientToken": "d-1"},
        ),
        step(
            {"state": REPORT_SET},
            at=300,
            accepted=says(REPORT_SET, {"reported": {"set": LATER}}, 43, at=300),
            document=document(REPORT_SET, {"reported": {"set": LATER}}, 43, at=300),
        ),
        step(
            {"clientToken": "d-1"},
            operation="delete",
            at=310,
            accepted={"version": 41, "timestamp": S + AT, "clientToken": "d-1"},
            document=document(REPORT_SET, {"reported": {"set": LATER}}, 43, at=300),
        ),
    ],
)
case(
    "good_replay_after_delete",
    ONCE,
    given=HALL,
    accepted=says(REPORT_SET, SET_NEW, 42, "once"),
    document=document(REPORT_SET, SET_NEW, 42),
    then=[
        step({}, operation="delete", at=210, accepted={"version": 42, "timestamp": S + 210}),
        step(ONCE, at=220, accepted=says(REPORT_SET, SET_NEW, 42, "once")),
    ],
)


def constant(value: int, version: int, at: int) -> Json:
    state = {"reported": {"set": value}}
    stamps = {"reported": {"set": {"timestamp": S + at}}}
    return step(
        {"state": state, "clientToken": "constant"},
        at=at,
        accepted=says(state, stamps, version, "constant", at=at),
        document=document(state, stamps, version, at=at),
    )


FIRST = constant(1, 42, AT)
case(
    "good_constant_token_alternating",
    FIRST["request"],
    given=HALL,
    **FIRST["expect"],
    then=[constant(*each) for each in ((2, 43, 210), (1, 44, 220), (2, 45, 230), (2, 46, 240), (2, 47, 250))],
)
case(
    "good_sequence_next",
    {"state": REPORT_SET, "sequence": {"epoch": 3, "number": 9}},
    given=HALL,
    accepted=says(REPORT_SET, SET_NEW, 42),
    document=document(REPORT_SET, SET_NEW, 42),
    then=[
        step(
            {"state": {"reported": {"set": 22}}, "sequence": {"epoch": 3, "number": 10}},
            at=300,
            accepted=says({"reported": {"set": 22}}, {"reported": {"set": LATER}}, 43, at=300),
            document=document({"reported": {"set": 22}}, {"reported": {"set": LATER}}, 43, at=300),
        )
    ],
)
case(
    "good_sequence_new_epoch",
    {"state": REPORT_SET, "sequence": {"epoch": 3, "number": 1017}},
    given=HALL,
    accepted=says(REPORT_SET, SET_NEW, 42),
    document=document(REPORT_SET, SET_NEW, 42),
    then=[
        step(
            {"state": {"reported": {"set": 22}}, "sequence": {"epoch": 4, "number": 0}},
            at=300,
            accepted=says({"reported": {"set": 22}}, {"reported": {"set": LATER}}, 43, at=300),
            document=document({"reported": {"set": 22}}, {"reported": {"set": LATER}}, 43, at=300),
        ),
        step(
            {"state": {"reported": {"set": 5}}, "sequence": {"epoch": 3, "number": 1018}, "clientToken": "t"},
            at=310,
            rejected=refuses(409, "Stale sequence", "t", at=310, currentSequence={"epoch": 4, "number": 0}),
            document=document({"reported": {"set": 22}}, {"reported": {"set": LATER}}, 43, at=300),
        ),
    ],
)
SEQUENCED = {"state": REPORT_SET, "sequence": {"epoch": 3, "number": 9}, "clientToken": "s-9"}
case(
    "good_sequence_repeated_is_replay",
    SEQUENCED,
    given=HALL,
    accepted=says(REPORT_SET, SET_NEW, 42, "s-9"),
    document=document(REPORT_SET, SET_NEW, 42),
    then=[
        step(
            SEQUENCED,
            at=300,
            accepted=says(REPORT_SET, SET_NEW, 42, "s-9"),
            document=document(REPORT_SET, SET_NEW, 42),
        )
    ],
)
case(
    "good_sequence_survives_delete",
    {"state": REPORT_SET, "sequence": {"epoch": 3, "number": 9}},
    given=HALL,
    accepted=says(REPORT_SET, SET_NEW, 42),
    document=document(REPORT_SET, SET_NEW, 42),
    then=[
        step({}, operation="delete", at=210, accepted={"version": 42, "timestamp": S + 210}),
        step(
            {"state": REPORT_SET, "sequence": {"epoch": 3, "number": 9}},
            at=220,
            rejected=refuses(409, "Stale sequence", at=220, currentSequence={"epoch": 3, "number": 9}),
        ),
    ],
)


def history(desired: Json, reported: Json, version: int, at: int) -> Json:
    """Return a document of `good_conflict_paths`; values are (value, time of its last write)."""
    sections = {name: section for name, section in (("desired", desired), ("reported", reported)) if section}
    return document(
        {name: {field: value for field, (value, _) in section.items()} for name, section in sections.items()},
        {
            name: {field: {"timestamp": S + when} for field, (_, when) in section.items()}
            for name, section in sections.items()
        },
        version,
        at,
    )


SET_1 = {"set": (20, 100)}
SET_2 = {"set": (20, 100), "mode": ("eco", 110)}
case(
    "good_conflict_paths",
    {"state": {"desired": {"set": 20}}},
    at=100,
    accepted=says({"desired": {"set": 20}}, {"desired": {"set": {"timestamp": S + 100}}}, 1, at=100),
    delta=says({"set": 20}, {"set": {"timestamp": S + 100}}, 1, at=100),
    document=history(SET_1, {}, 1, 100),
    then=[
        step(
            {"state": {"desired": {"mode": "eco"}}},
            at=110,
            accepted=says(
                {"desired": {"mode": "eco"}}, {"desired": {"mode": {"timestamp": S + 110}}}, 2, at=110
            ),
            delta=says(
                {"set": 20, "mode": "eco"},
                {"set": {"timestamp": S + 100}, "mode": {"timestamp": S + 110}},
                2,
                at=110,
            ),
            document=history(SET_2, {}, 2, 110),
        ),
        step(
            {"state": {"reported": {"a/b~": 1}}},
            at=120,
            accepted=says(
                {"reported": {"a/b~": 1}}, {"reported": {"a/b~": {"timestamp": S + 120}}}, 3, at=120
            ),
            delta=says(
                {"set": 20, "mode": "eco"},
                {"set": {"timestamp": S + 100}, "mode": {"timestamp": S + 110}},
                3,
                at=120,
            ),
            document=history(SET_2, {"a/b~": (1, 120)}, 3, 120),
        ),
        # Since version 1 somebody wrote desired.mode and reported.a/b~; desired.set was written before.
        step(
            {
                "state": {
                    "desired": {"set": 25, "mode": {"day": 1, "night": 2}},
                    "reported": {"a/b~": 2, "c": 3},
                },
                "version": 1,
                "clientToken": "u-8",
            },
            at=130,
            rejected=refuses(
                409,
                "Version conflict",
                "u-8",
                at=130,
                currentVersion=3,
                conflicts=["/desired/mode/day", "/desired/mode/night", "/reported/a~1b~0"],
            ),
            document=history(SET_2, {"a/b~": (1, 120)}, 3, 120),
        ),
        step(
            {"state": {"desired": {"set": 25}}, "version": 1, "clientToken": "u-9"},
            at=130,
            rejected=refuses(409, "Version conflict", "u-9", at=130, currentVersion=3, conflicts=[]),
            document=history(SET_2, {"a/b~": (1, 120)}, 3, 120),
        ),
        step(
            {"state": {"reported": None}, "version": 2},
            at=130,
            rejected=refuses(409, "Version conflict", at=130, currentVersion=3, conflicts=["/reported"]),
            document=history(SET_2, {"a/b~": (1, 120)}, 3, 120),
        ),
        step(
            {"state": {}, "version": 2},
            at=130,
            rejected=refuses(409, "Version conflict", at=130, currentVersion=3, conflicts=[]),
            document=history(SET_2, {"a/b~": (1, 120)}, 3, 120),
        ),
    ],
)

# --------------------------------------------------------------------------------------- refused

T = {"clientToken": "t-1"}
GOOD = {"state": {"reported": {"a": 1}}} | T

bad(
    "bad_absent_version_one",
    GOOD | {"version": 1},
    given=None,
    rejected=refuses(409, "Version conflict", "t-1", currentVersion=0),
)
bad(
    "bad_version_stale",
    GOOD | {"version": 40},
    rejected=refuses(409, "Version conflict", "t-1", currentVersion=41),
)
bad(
    "bad_version_ahead",
    GOOD | {"version": 42},
    rejected=refuses(409, "Version conflict", "t-1", currentVersion=41),
)
for name, version in (("true", True), ("string", "41"), ("fraction", 41.5), ("negative", -1), ("null", None)):
    bad(f"bad_version_{name}", GOOD | {"version": version}, rejected=refuses(400, "Invalid version", "t-1"))
bad("bad_version_2_53", GOOD | {"version": 2**53}, rejected=refuses(400, "Invalid version", "t-1"))
for name, token in (("65_bytes", "x" * 61 + "ü" * 2), ("number", 7), ("null", None)):
    bad(f"bad_token_{name}", GOOD | {"clientToken": token}, rejected=refuses(400, "Invalid clientToken"))
bad("bad_state_missing", T, rejected=refuses(400, "Missing required node: state", "t-1"))
bad("bad_state_array", {"state": []} | T, rejected=refuses(400, "State node must be an object", "t-1"))
bad("bad_state_scalar", {"state": True} | T, rejected=refuses(400, "State node must be an object", "t-1"))
bad(
    "bad_state_delta_node",
    {"state": {"reported": {"a": 1}, "delta": {"a": 1}}} | T,
    rejected=refuses(400, "State contains an invalid node", "t-1"),
)
bad(
    "bad_state_unknown_node",
    {"state": {"Reported": {"a": 1}}} | T,
    rejected=refuses(400, "State contains an invalid node", "t-1"),
)
bad(
    "bad_desired_array",
    {"state": {"desired": [1]}} | T,
    rejected=refuses(400, "Desired node must be an object", "t-1"),
)
bad(
    "bad_reported_string",
    {"state": {"reported": "on"}} | T,
    rejected=refuses(400, "Reported node must be an object", "t-1"),
)
bad(
    "bad_array_with_null",
    {"state": {"desired": {"a": [1, {"b": None}]}}} | T,
    rejected=refuses(400, "Invalid JSON", "t-1"),
)
DEPTH = "JSON contains too many levels of nesting; maximum is 6"
bad(
    "bad_depth_7",
    {"state": {"desired": {"a": {"b": {"c": {"d": {"e": {"f": {"g": 1}}}}}}}}} | T,
    rejected=refuses(400, DEPTH, "t-1"),
)
bad(
    "bad_depth_7_array", {"state": {"desired": {"a": [[[[[[1]]]]]]}}} | T, rejected=refuses(400, DEPTH, "t-1")
)
bad(
    "bad_depth_400",
    runs=[['{"clientToken":"t-1","state":{"desired":{"a":', 1], ["[", 400], ["]", 400], ["}}}", 1]],
    rejected=refuses(400, DEPTH, "t-1"),
)
bad(  # deeper than the parser goes, so it never sees a token either
    "bad_depth_5000",
    runs=[['{"state":{"desired":', 1], ['{"a":', 5_000], ["1", 1], ["}", 5_000], ["}}", 1]],
    rejected=refuses(400, DEPTH),
)
bad(  # so deep that it is too large first (8, row 5)
    "bad_depth_100000",
    runs=[['{"state":{"desired":{"a":', 1], ["[", 100_000], ["]", 100_000], ["}}}", 1]],
    rejected=refuses(413, TOO_LARGE),
)
bad("bad_not_json", text='{"state": {"reported": {"a": 1}}', rejected=refuses(400, "Invalid JSON"))
bad("bad_two_values", text='{"state": {}} {}', rejected=refuses(400, "Invalid JSON"))
bad("bad_top_level_array", text='[{"state": {}}]', rejected=refuses(400, "Invalid JSON"))
bad("bad_empty_payload", text="", rejected=refuses(400, "Invalid JSON"))
bad("bad_nan", text='{"state": {"reported": {"a": NaN}}}', rejected=refuses(400, "Invalid JSON"))
bad("bad_infinity", text='{"state": {"reported": {"a": -Infinity}}}', rejected=refuses(400, "Invalid JSON"))
bad(
    "bad_number_overflow", text='{"state": {"reported": {"a": 1e400}}}', rejected=refuses(400, "Invalid JSON")
)
bad(
    "bad_integer_2_63",
    {"state": {"reported": {"a": 2**63}}} | T,
    rejected=refuses(400, "Invalid JSON", "t-1"),
)
bad(
    "bad_integer_below_2_63",
    {"state": {"reported": {"a": [-(2**63) - 1]}}} | T,
    rejected=refuses(400, "Invalid JSON", "t-1"),
)
case(
    "good_integer_edges",
    {"state": {"reported": {"most": 2**63 - 1, "least": -(2**63)}}},
    accepted=says(
        {"reported": {"most": 2**63 - 1, "least": -(2**63)}}, {"reported": {"most": NEW, "least": NEW}}, 1
    ),
    document=document(
        {"reported": {"most": 2**63 - 1, "least": -(2**63)}}, {"reported": {"most": NEW, "least": NEW}}, 1
    ),
)
bad(
    "bad_lone_surrogate",
    text='{"state": {"reported": {"a": "\\ud800"}}}',
    rejected=refuses(400, "Invalid JSON"),
)
bad(
    "bad_nul_in_name",
    text='{"state": {"reported": {"a": [{"b\\u0000c": 1}]}}, "clientToken": "t-1"}',
    rejected=refuses(400, "Invalid JSON", "t-1"),
)
UTF8 = "Unsupported documented encoding; supported encoding is UTF-8"
bad("bad_utf8", hex=b'{"state": {"reported": {"a": "\xff"}}}'.hex(), rejected=refuses(415, UTF8))
bad("bad_utf16", hex=json.dumps(GOOD).encode("utf-16").hex(), rejected=refuses(415, UTF8))
bad("bad_bom", hex=b'\xef\xbb\xbf{"state": {}}'.hex(), rejected=refuses(400, "Invalid JSON"))
HEAD, TAIL = '{"clientToken":"t-1","state":{"reported":{"a":"', '"}}}'
bad(
    "bad_request_32769_bytes",
    runs=[[HEAD, 1], ["x", 32_769 - len(HEAD + TAIL)], [TAIL, 1]],
    rejected=refuses(413, TOO_LARGE),
)
case(  # no topic and no path names it, so there is nothing to echo and nothing to compare
    "bad_shadow_name_dollar",
    GOOD,
    shadow="a$b",
    rejected={"code": 400, "message": "Invalid shadow name"},
)
case(
    "bad_sequence_stale",
    {"state": REPORT_SET, "sequence": {"epoch": 3, "number": 1017}},
    given=HALL,
    accepted=says(REPORT_SET, SET_NEW, 42),
    document=document(REPORT_SET, SET_NEW, 42),
    then=[
        step(
            GOOD | {"sequence": {"epoch": epoch, "number": number}},
            at=300,
            rejected=refuses(
                409, "Stale sequence", "t-1", at=300, currentSequence={"epoch": 3, "number": 1017}
            ),
            document=document(REPORT_SET, SET_NEW, 42),
        )
        for epoch, number in ((3, 1017), (3, 1016), (2, 5000))
    ],
)
bad(
    "bad_sequence_without_reported",
    {"state": {"desired": {"a": 1}}, "sequence": {"epoch": 3, "number": 1}} | T,
    rejected=refuses(400, "Invalid sequence", "t-1"),
)
for name, sequence in (
    ("negative", {"epoch": 3, "number": -1}),
    ("true", {"epoch": True, "number": 1}),
    ("incomplete", {"epoch": 3}),
    ("null", None),
):
    bad(
        f"bad_sequence_{name}",
        GOOD | {"sequence": sequence},
        rejected=refuses(400, "Invalid sequence", "t-1"),
    )


def render(value: Json, levels: int) -> str:
    """Return JSON with ``levels`` of it spread over lines, one member a line."""
    if not levels or not value or not isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    inner = (
        [f"{json.dumps(name)}: {render(member, levels - 1)}" for name, member in value.items()]
        if isinstance(value, dict)
        else [render(member, levels) for member in value]
    )
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    lines = ",\n".join(inner).replace("\n", "\n  ")
    return f"{opening}\n  {lines}\n{closing}"


def write() -> None:
    DIRECTORY.mkdir(exist_ok=True)
    for path in DIRECTORY.glob("*.json"):
        if path.stem not in CASES:
            path.unlink()
    for name, content in CASES.items():
        (DIRECTORY / f"{name}.json").write_text(render(content, 2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
