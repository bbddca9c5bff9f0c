"""What the routes of ``api.shadows`` and ``api.live`` declare (see ``api.operations``)."""

from typing import Final

from api import problems
from api.operations import (
    CURSOR,
    FROM,
    IDEMPOTENCY_KEY,
    LIMIT,
    THING,
    TIME,
    TO,
    VERSION,
    Answer,
    Content,
    Operation,
    in_header,
    in_path,
    in_query,
)
from api.patching import Patch
from api.schemas import (
    PastShadow,
    RestoreBody,
    ShadowDocument,
    ShadowNames,
    UpdateAccepted,
    VersionList,
    WrittenSections,
)
from security.policy import Action

TAG: Final = "Shadows"

SHADOW: Final = in_path(
    "shadow",
    "Name of a shadow; `@classic` is the one without a name",
    {"type": "string", "pattern": "^(@classic|[a-zA-Z0-9:_-]{1,64})$"},
    "@classic",
)
NUMBER: Final = in_path("version", "Number of a version", {**VERSION, "minimum": 1}, "38")
IF_MATCH: Final = in_header(
    "If-Match", "Change only this version", {"type": "string", "pattern": '^(\\*|"[0-9]{1,16}")$'}, '"41"'
)
IF_MATCH_REQUIRED: Final = in_header(
    "If-Match",
    "Change only this version; without it 428",
    {"type": "string", "pattern": '^(\\*|"[0-9]{1,16}")$'},
    '"41"',
)
IF_NONE_MATCH: Final = in_header(
    "If-None-Match", "Versions you have; 304 when one is current", {"type": "string"}, '"41"'
)
LAST_EVENT_ID: Final = in_header(
    "Last-Event-ID",
    "The last version you were told; the stream goes on right after it",
    {"type": "string", "pattern": "^[0-9]{1,16}$"},
    "41",
)

_DOCUMENT: Final = {
    "state": {
        "desired": {"set": 21.5, "mode": "eco"},
        "reported": {"set": 20, "mode": "eco"},
        "delta": {"set": 21.5},
    },
    "metadata": {
        "desired": {"set": {"timestamp": 1790000100}, "mode": {"timestamp": 1789999000}},
        "reported": {"set": {"timestamp": 1790000050}, "mode": {"timestamp": 1790000050}},
        "delta": {"set": {"timestamp": 1790000100}},
    },
    "version": 41,
    "timestamp": 1790000107,
}
_WRITTEN: Final = {
    "state": {"desired": {"set": 21.5}},
    "metadata": {"desired": {"set": {"timestamp": 1790000200}}},
    "version": 42,
    "timestamp": 1790000200,
}
_PAST: Final = {
    "state": {"desired": {"set": 19}},
    "metadata": {"desired": {"set": {"timestamp": 1789990000}}},
    "version": 38,
    "timestamp": 1789990000,
    "at": "2026-09-21T09:26:40.000Z",
}
_VERSION_ROW: Final = {
    "version": 42,
    "at": "2026-09-21T12:16:40.125Z",
    "operation": "update",
    "actor": "operator",
    "role": "operator",
    "origin": "http",
    "patch": {"desired": {"set": 21.5}},
}

READ: Final = (problems.THING_NOT_FOUND, problems.SHADOW_NOT_FOUND, problems.TOO_MANY_REQUESTS)
PAST: Final = (*READ, problems.VERSION_NOT_FOUND, problems.VERSION_PRUNED)
WRITE: Final = (
    problems.THING_NOT_FOUND,
    problems.TOO_MANY_REQUESTS,
    problems.REQUEST_TIMEOUT,
    problems.PAYLOAD_TOO_LARGE,
    problems.UNSUPPORTED_ENCODING,
    problems.UNSUPPORTED_MEDIA_TYPE,
    problems.PRECONDITION_FAILED,
    problems.IDEMPOTENCY_MISMATCH,
)

LIST_SHADOWS: Final = Operation(
    id="listShadows",
    tag=TAG,
    summary="List the shadows of a thing",
    description="All in one page: a thing has few. Deleted ones are not listed.",
    action=Action.SHADOW_READ,
    parameters=(THING,),
    answers={
        200: Answer(
            "The names",
            Content("application/json", ShadowNames, {"items": ["@classic", "config", "program"]}),
        )
    },
    refusals=(problems.THING_NOT_FOUND,),
)
GET_SHADOW: Final = Operation(
    id="getShadow",
    tag=TAG,
    summary="Read a shadow, as it is or as it was",
    description="With `version` or `at` the answer has `at` and no `delta`.",
    action=Action.SHADOW_READ,
    parameters=(
        THING,
        SHADOW,
        IF_NONE_MATCH,
        in_query("version", "As it was at this version", {**VERSION, "minimum": 1}, 38),
        in_query("at", "As it was at this time: the newest version that is not later", TIME),
    ),
    answers={
        200: Answer("The shadow", Content("application/json", ShadowDocument, _DOCUMENT), ("ETag",)),
        304: Answer("You have it already", headers=("ETag",)),
    },
    refusals=PAST,
)
PATCH_SHADOW: Final = Operation(
    id="patchShadow",
    tag=TAG,
    summary="Change what is desired",
    description=(
        "A merge patch (RFC 7396) is a `state` object: named fields change, null removes; it makes a shadow "
        "if there is none, and `If-None-Match: *` demands that there is none. A JSON Patch (RFC 6902) speaks "
        'of `{"desired": …}`, is applied whole or not at all, and needs If-Match.'
    ),
    action=Action.SHADOW_DESIRE,
    parameters=(THING, SHADOW, IF_MATCH, IDEMPOTENCY_KEY),
    bodies=(
        Content("application/merge-patch+json", WrittenSections, {"desired": {"set": 21.5}}),
        Content(
            "application/json-patch+json",
            Patch,
            [
                {"op": "test", "path": "/desired/mode", "value": "eco"},
                {"op": "replace", "path": "/desired/set", "value": 21.5},
            ],
        ),
    ),
    answers={
        200: Answer("What was written", Content("application/json", UpdateAccepted, _WRITTEN), ("ETag",))
    },
    refusals=(
        *WRITE,
        problems.SHADOW_NOT_FOUND,
        problems.INVALID_PATCH,
        problems.PATCH_NOT_APPLICABLE,
        problems.PRECONDITION_REQUIRED,
    ),
)
DELETE_SHADOW: Final = Operation(
    id="deleteShadow",
    tag=TAG,
    summary="Delete a shadow",
    description="Its history stays readable, and its versions go on if it is made again.",
    action=Action.SHADOW_DELETE,
    parameters=(THING, SHADOW, IF_MATCH, IDEMPOTENCY_KEY),
    answers={204: Answer("It is deleted")},
    refusals=(*READ, problems.PRECONDITION_FAILED, problems.IDEMPOTENCY_MISMATCH),
)
LIST_VERSIONS: Final = Operation(
    id="listShadowVersions",
    tag=TAG,
    summary="List who changed what when, newest first",
    action=Action.SHADOW_HISTORY,
    parameters=(THING, SHADOW, LIMIT, CURSOR, FROM, TO),
    answers={
        200: Answer("A page of versions", Content("application/json", VersionList, {"items": [_VERSION_ROW]}))
    },
    refusals=(*READ, problems.INVALID_CURSOR),
)
GET_VERSION: Final = Operation(
    id="getShadowVersion",
    tag=TAG,
    summary="Read one version, or how it differs from another",
    description="With `diff` the answer is the JSON Patch from that version to this one.",
    action=Action.SHADOW_HISTORY,
    parameters=(
        THING,
        SHADOW,
        NUMBER,
        IF_NONE_MATCH,
        in_query("diff", "Number of the version to compare with", {**VERSION, "minimum": 1}, 37),
    ),
    answers={
        200: Answer("The version", Content("application/json", PastShadow, _PAST), ("ETag",)),
        304: Answer("You have it already", headers=("ETag",)),
    },
    refusals=PAST,
)
RESTORE_SHADOW: Final = Operation(
    id="restoreShadow",
    tag=TAG,
    summary="Take up the desired state of an older version again",
    description=(
        "Makes a new version; what is reported stays. To bring a deleted shadow back, send "
        "`If-None-Match: *` instead of If-Match."
    ),
    action=Action.SHADOW_DESIRE,
    parameters=(THING, SHADOW, IF_MATCH_REQUIRED, IDEMPOTENCY_KEY),
    bodies=(Content("application/json", RestoreBody, {"version": 38}),),
    answers={
        200: Answer("What was written", Content("application/json", UpdateAccepted, _WRITTEN), ("ETag",))
    },
    refusals=(*WRITE, *PAST, problems.PRECONDITION_REQUIRED),
)
WATCH_SHADOW: Final = Operation(
    id="watchShadow",
    tag=TAG,
    summary="Follow a shadow live",
    description=(
        "Server-sent events. The first one, `shadow`, has the whole document, unless Last-Event-ID says what "
        "you have; then one `version` event per version, without gaps, each with its version as `id`. A "
        "`shadow` event in between means that history no longer reaches back to where you were."
    ),
    action=Action.SHADOW_READ,
    parameters=(THING, SHADOW, LAST_EVENT_ID),
    answers={
        200: Answer(
            "Events until you leave",
            Content(
                "text/event-stream", {"type": "string"}, 'id: 42\nevent: version\ndata: {"version":42}\n\n'
            ),
        )
    },
    refusals=(problems.THING_NOT_FOUND, problems.SHADOW_NOT_FOUND, problems.TOO_MANY_STREAMS),
    stream=True,
)
