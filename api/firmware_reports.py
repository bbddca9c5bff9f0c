"""Who needs which firmware: of a release device by device, of all equipment in lines. For operators."""

from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from api import problems
from api.operations import CURSOR, LIMIT, Answer, Content, Operation, Route, in_query
from api.reading import HttpRequest, a_name, one_of, page_limit, query, rfc3339
from api.releases import RELEASE, RELEASE_PART
from api.replies import Reply, json_reply
from api.schemas import Time
from api.services import ApiServices
from ota.equipment import Kind
from ota.needs import Reason
from ota.needs_report import NEEDED, Line, Row
from security.policy import Action

REASONS: Final = (NEEDED, *(str(one) for one in Reason if one is not Reason.NOT_ENROLLED))


class NeedDocument(Struct, omit_defaults=True):
    """A device, and whether it needs the release."""

    thing: str
    kind: Kind
    reason: Annotated[str, Meta(description=f"`{NEEDED}`, or why it does not need it")]
    counter: int
    hw: Annotated[str, Meta(description="Its hardware class")]
    version: Annotated[str, Meta(description="What it runs; absent where nobody knows")] = ""
    by_way_of: Annotated[
        str, Meta(description="Of one that runs too old a version: the release that it has to get first")
    ] = ""

    @classmethod
    def of(cls, row: Row) -> "NeedDocument":
        return cls(row.thing, row.kind, row.reason or NEEDED, row.counter, row.hw, row.version, row.by_way_of)


class NeedsDocument(Struct, omit_defaults=True):
    """Who needs a release: ``needed``, ``reasons`` and ``not_enrolled`` together are all of its model."""

    release: str
    at: Time
    needed: int
    not_enrolled: Annotated[int, Meta(description="They take no part: nothing but their number is known")]
    reasons: Annotated[dict[str, int], Meta(description="Why others do not need it, each under one")]
    versions: Annotated[dict[str, int], Meta(description="Those that need it, by what they run")]
    classes: Annotated[dict[str, int], Meta(description="Those that need it, by hardware class")]
    items: list[NeedDocument]
    next: str | None = None


class LineDocument(Struct, omit_defaults=True):
    """Equipment of one kind and model that runs the same."""

    model: str
    kind: Kind
    counter: int
    devices: int
    version: Annotated[str, Meta(description="Absent where nobody knows")] = ""
    needs: Annotated[str, Meta(description="The newest release that it needs")] = ""
    reason: Annotated[str, Meta(description="Why it does not get what is newer than what it runs")] = ""

    @classmethod
    def of(cls, line: Line) -> "LineDocument":
        return cls(line.model, line.kind, line.counter, line.devices, line.version, line.needs, line.reason)


class ReportDocument(Struct, omit_defaults=True):
    """What all equipment runs, and what of it needs an upgrade."""

    at: Time
    needed: Annotated[int, Meta(description="Pieces of equipment that need a release")]
    not_enrolled: Annotated[int, Meta(description="They take no part: nothing but their number is known")]
    items: list[LineDocument]
    next: str | None = None


class FirmwareReports:
    """Handlers of the two reports."""

    def __init__(self, services: ApiServices) -> None:
        self._needs = services.ota.needs

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("GET", f"/v1/ota/releases/{{{RELEASE}:str}}/needs", GET_NEEDS, self.needs),
            Route("GET", "/v1/ota/firmware-report", GET_REPORT, self.report),
        )

    async def needs(self, request: HttpRequest) -> Reply:
        fields = query(request.scope, ("reason", "limit", "cursor"))
        only = one_of(fields, "reason", REASONS) or ""
        release: str = request.scope["path_params"][RELEASE]
        found, rows, next = await self._needs.page_of_release(
            release, only, page_limit(fields), fields.get("cursor")
        )
        return json_reply(
            NeedsDocument(
                release,
                rfc3339(found.at_ms),
                found.needed,
                found.not_enrolled,
                dict(found.reasons),
                dict(found.versions),
                dict(found.classes),
                [NeedDocument.of(row) for row in rows],
                next,
            )
        )

    async def report(self, request: HttpRequest) -> Reply:
        fields = query(request.scope, ("model", "limit", "cursor"))
        model = a_name(fields, "model") or ""
        found, lines, next = await self._needs.page_of_report(model, page_limit(fields), fields.get("cursor"))
        return json_reply(
            ReportDocument(
                rfc3339(found.at_ms),
                found.needed,
                found.not_enrolled,
                [LineDocument.of(line) for line in lines],
                next,
            )
        )


TAG: Final = "Firmware reports"
_ID: Final = "6f1c7a52-0d5e-4c5b-9d1e-2f8f6a1b3c4d"
_HW: Final = "e3cdf8c1-f6f9-5073-8321-858203ade722"
_AT: Final = "2026-09-21T12:00:00.000Z"
_NEEDS: Final[dict[str, Any]] = {
    "release": _ID,
    "at": _AT,
    "needed": 41,
    "not_enrolled": 9,
    "reasons": {"ALREADY_CURRENT": 12, "FROM_TOO_OLD": 1},
    "versions": {"2.3.0.0": 41},
    "classes": {_HW: 41},
    "items": [
        {
            "thing": "hall-thermostat",
            "kind": "device",
            "reason": "NEEDED",
            "version": "2.3.0.0",
            "counter": 2,
            "hw": _HW,
        }
    ],
}
_REPORT: Final[dict[str, Any]] = {
    "at": _AT,
    "needed": 41,
    "not_enrolled": 9,
    "items": [
        {
            "model": "acme-amg-4",
            "kind": "meter",
            "version": "1.0.0.0",
            "counter": 1,
            "needs": _ID,
            "devices": 41,
        },
        {"model": "acme-pct-2", "kind": "device", "version": "2.4.0.0", "counter": 3, "devices": 12},
    ],
}

GET_NEEDS: Final = Operation(
    id="getNeeds",
    tag=TAG,
    summary="See who needs a release, and why everybody else does not",
    description="Whoever does not need it has exactly one reason, the first that holds. Pages are of one"
    " moment, `at`, if each is asked for within a minute.",
    action=Action.FLEET_READ,
    parameters=(RELEASE_PART, in_query("reason", "Only these", {"enum": list(REASONS)}), LIMIT, CURSOR),
    answers={200: Answer("A page", Content("application/json", NeedsDocument, _NEEDS))},
    refusals=(problems.RELEASE_NOT_FOUND, problems.INVALID_CURSOR),
    own_check=True,
)
GET_REPORT: Final = Operation(
    id="getFirmwareReport",
    tag=TAG,
    summary="See what meters, gateways and devices run, and what of it needs an upgrade",
    description="By model, kind, version and counter. What is gone for good is left out, and so is what is of"
    " no model of the catalogue. Pages as of the needs of a release.",
    action=Action.FLEET_READ,
    parameters=(in_query("model", "Only of this model", {"type": "string"}), LIMIT, CURSOR),
    answers={200: Answer("A page", Content("application/json", ReportDocument, _REPORT))},
    refusals=(problems.MODEL_NOT_FOUND, problems.INVALID_CURSOR),
)
