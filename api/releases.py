"""Releases: what may be installed, brought by one and let out by another."""

import base64
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from api import problems
from api.logins import json_body, read
from api.operations import (
    CURSOR,
    IDEMPOTENCY_KEY,
    LIMIT,
    WITH_BODY,
    Answer,
    Content,
    Operation,
    Route,
    in_path,
    in_query,
)
from api.reading import HttpRequest, idempotency_key, one_of, page_limit, query, rfc3339, unpacked, via_of
from api.replies import Reply, json_reply
from api.schemas import Sha256, Time
from api.services import ApiServices
from infra.clock import MS_PER_S
from ota.manifest import Manifest, version_text
from ota.releases import NewRelease, Release
from ota.states import ReleaseState
from security.policy import Action

RELEASE: Final = "release"
KEY_BITS: Final = 120
NOTES_CHARS_MAX: Final = 2_000
REASON_CHARS_MAX: Final = 200


class ReleaseBody(Struct, forbid_unknown_fields=True):
    """An image, and what its vendor says of it."""

    image: Annotated[Sha256, Meta(description="SHA-256; send the image first")]
    manifest: Annotated[str, Meta(max_length=5_464, description="The vendor's COSE_Sign1, base64")]
    afr_sig: Annotated[
        str, Meta(max_length=96, description="The vendor's ECDSA signature of the image, DER, base64")
    ] = ""
    notes: Annotated[str, Meta(max_length=NOTES_CHARS_MAX, description="Release notes")] = ""

    def new(self) -> NewRelease:
        """Return what is asked for."""
        return NewRelease(
            image=self.image,
            envelope=unpacked(self.manifest, "manifest"),
            afr_signature=unpacked(self.afr_sig, "afr_sig"),
            notes=self.notes,
        )


class WithdrawBody(Struct, forbid_unknown_fields=True):
    """Why a release is taken back."""

    reason: Annotated[str, Meta(min_length=1, max_length=REASON_CHARS_MAX)]


class ManifestDocument(Struct):
    """What the vendor says of the image."""

    sha256: Annotated[str, Meta(description="Of the vendor's envelope: by this an order names it")]
    vendor: str
    model: str
    hw: Annotated[list[str], Meta(description="Hardware classes")]
    label: str
    version: str
    counter: int
    size: int
    block: int
    issued: Time
    expires: Time
    data: Annotated[str, Meta(description="`preserve`, `reset`, or `chosen` by the order")]
    config_schema: int
    min_from: Annotated[str, Meta(description="The smallest version it may be installed over")]
    requires: Annotated[dict[str, int], Meta(description="Other components and the least version of each")]

    @classmethod
    def of(cls, manifest: Manifest, sha256: str) -> "ManifestDocument":
        return cls(
            sha256,
            manifest.vendor,
            manifest.model,
            list(manifest.hw),
            manifest.label,
            version_text(manifest.version),
            manifest.counter,
            manifest.size,
            manifest.block,
            rfc3339(manifest.issued * MS_PER_S),
            rfc3339(manifest.expires * MS_PER_S),
            manifest.data.name.lower(),
            manifest.config_schema,
            version_text(manifest.min_from),
            dict(manifest.requires),
        )


class ReleaseDocument(Struct, omit_defaults=True):
    """A release."""

    id: str
    state: ReleaseState
    image: str
    stream: Annotated[str, Meta(description="Under which devices get its files by blocks")]
    manifest: ManifestDocument
    author: str
    created_at: Time
    notes: str = ""
    afr_sig: str = ""

    @classmethod
    def of(cls, release: Release) -> "ReleaseDocument":
        return cls(
            release.id,
            release.state,
            release.image,
            release.stream,
            ManifestDocument.of(release.manifest, release.manifest_sha256),
            release.author,
            rfc3339(release.created_at_ms),
            release.notes,
            base64.b64encode(release.afr_signature).decode(),
        )


class ReleaseList(Struct, omit_defaults=True):
    """A page of releases."""

    items: list[ReleaseDocument]
    next: str | None = None


class Releases:
    """Handlers of ``/v1/ota/releases``."""

    def __init__(self, services: ApiServices) -> None:
        self._services = services
        self._releases = services.ota.releases

    def routes(self) -> tuple[Route, ...]:
        one = "/v1/ota/releases/{release:str}"
        return (
            Route("GET", "/v1/ota/releases", LIST_RELEASES, self.list),
            Route("POST", "/v1/ota/releases", CREATE_RELEASE, self.create),
            Route("GET", one, GET_RELEASE, self.read),
            Route("POST", f"{one}/release", LET_OUT_RELEASE, self.let_out),
            Route("POST", f"{one}/withdraw", WITHDRAW_RELEASE, self.withdraw),
        )

    async def list(self, request: HttpRequest) -> Reply:
        fields = query(request.scope, ("state", "limit", "cursor"))
        state = one_of(fields, "state", ReleaseState)
        page = await self._releases.page(
            request.scope["user"],
            None if state is None else ReleaseState(state),
            page_limit(fields),
            fields.get("cursor"),
        )
        return json_reply(ReleaseList([ReleaseDocument.of(one) for one in page.records], page.next))

    async def create(self, request: HttpRequest) -> Reply:
        body = await read(request, self._services, ReleaseBody)
        key = idempotency_key(request.scope) or self._services.ids.token(KEY_BITS)
        by, via = request.scope["user"], via_of(request.scope)
        release = await self._releases.create(body.new(), by, via, key=key)
        return json_reply(ReleaseDocument.of(release), status=201)

    async def read(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        return _shown(await self._releases.open_to(request.scope["user"], _id(request)))

    async def let_out(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        return _shown(
            await self._releases.let_out(_id(request), request.scope["user"], via_of(request.scope))
        )

    async def withdraw(self, request: HttpRequest) -> Reply:
        body = await read(request, self._services, WithdrawBody)
        by, via = request.scope["user"], via_of(request.scope)
        return _shown(await self._releases.withdraw(_id(request), by, via, reason=body.reason))


def _id(request: HttpRequest) -> str:
    id: str = request.scope["path_params"][RELEASE]
    return id


def _shown(release: Release) -> Reply:
    return json_reply(ReleaseDocument.of(release))


TAG: Final = "Firmware releases"
RELEASE_PART: Final = in_path(
    RELEASE,
    "Id of a release",
    {"type": "string", "pattern": "^[0-9a-f-]{36}$"},
    "6f1c7a52-0d5e-4c5b-9d1e-2f8f6a1b3c4d",
)
_EXAMPLE: Final[dict[str, Any]] = {
    "id": "6f1c7a52-0d5e-4c5b-9d1e-2f8f6a1b3c4d",
    "state": "released",
    "image": "6e97d8601cb17906a4819e0fcc8d03150d3e4331353ecaa516c0084cadad54dd",
    "stream": "fw-5a4cf26a6d0cc6a1c23f",
    "manifest": {
        "sha256": "5a4cf26a6d0cc6a1c23fde15563d431104e99c26a2682948a882313332a205ca",
        "vendor": "acme",
        "model": "acme-t1",
        "hw": ["d0ab0369-673c-5489-ad42-fb0f0fa83d2a"],
        "label": "2.4.0",
        "version": "2.4.0.0",
        "counter": 3,
        "size": 10_000,
        "block": 4_096,
        "issued": "2026-09-21T14:13:20.000Z",
        "expires": "2027-09-21T14:13:20.000Z",
        "data": "chosen",
        "config_schema": 5,
        "min_from": "2.0.0.0",
        "requires": {},
    },
    "author": "p-abcdefghij234567",
    "created_at": "2026-09-21T14:15:00.000Z",
}
_CONTENT: Final = Content("application/json", ReleaseDocument, _EXAMPLE)
_BODY: Final = {
    "image": "6e97d8601cb17906a4819e0fcc8d03150d3e4331353ecaa516c0084cadad54dd",
    "manifest": "0oRYNaMBJwRI",
}
_CHECKED: Final = (problems.RELEASE_REFUSED, problems.VERSION_USED, problems.COUNTER)

LIST_RELEASES: Final = Operation(
    id="listReleases",
    tag=TAG,
    summary="List releases; a vendor's are its own",
    description="A vendor's page may hold fewer than `limit` and still have a `next`.",
    action=Action.IMAGE_UPLOAD,
    parameters=(
        in_query("state", "Only these", {"enum": [str(one) for one in ReleaseState]}),
        LIMIT,
        CURSOR,
    ),
    answers={200: Answer("A page", Content("application/json", ReleaseList, {"items": [_EXAMPLE]}))},
    refusals=(problems.INVALID_CURSOR,),
)
CREATE_RELEASE: Final = Operation(
    id="createRelease",
    tag=TAG,
    summary="Bring a release: an image that is here, and its vendor's manifest",
    description="All is checked against the stored bytes, the vendor's key and the model; a 422 tells all"
    " that failed. No device gets it before a second person lets it out.",
    action=Action.IMAGE_UPLOAD,
    parameters=(IDEMPOTENCY_KEY,),
    bodies=json_body(ReleaseBody, _BODY),
    answers={201: Answer("It was checked", _CONTENT)},
    refusals=(
        *WITH_BODY,
        problems.UNSUPPORTED_MEDIA_TYPE,
        problems.IDEMPOTENCY_MISMATCH,
        *_CHECKED,
    ),
)
GET_RELEASE: Final = Operation(
    id="getRelease",
    tag=TAG,
    summary="Read a release",
    action=Action.IMAGE_UPLOAD,
    parameters=(RELEASE_PART,),
    answers={200: Answer("The release", _CONTENT)},
    refusals=(problems.RELEASE_NOT_FOUND,),
    own_check=True,
)
LET_OUT_RELEASE: Final = Operation(
    id="letOutRelease",
    tag=TAG,
    summary="Let devices have a release that somebody else has brought",
    description="All is checked once more, the bytes on the disk too. Campaigns can be made of it then.",
    action=Action.IMAGE_RELEASE,
    parameters=(RELEASE_PART,),
    answers={200: Answer("The release", _CONTENT)},
    refusals=(
        problems.RELEASE_NOT_FOUND,
        problems.SAME_PERSON,
        problems.ILLEGAL_TRANSITION,
        *_CHECKED,
    ),
    own_check=True,
    held=True,
)
WITHDRAW_RELEASE: Final = Operation(
    id="withdrawRelease",
    tag=TAG,
    summary="Take a release back, for good: its campaigns pause, and nobody gets it any more",
    action=Action.IMAGE_RELEASE,
    parameters=(RELEASE_PART,),
    bodies=json_body(WithdrawBody, {"reason": "the display stays dark"}),
    answers={200: Answer("The release", _CONTENT)},
    refusals=(
        *WITH_BODY,
        problems.UNSUPPORTED_MEDIA_TYPE,
        problems.RELEASE_NOT_FOUND,
        problems.ILLEGAL_TRANSITION,
    ),
    own_check=True,
    stops=True,
)
