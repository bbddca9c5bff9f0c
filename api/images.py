"""Images as bytes: people and vendors send them, devices that have a job about one get it, in parts too.

What is sent is never held in memory as a whole, and goes on after a cut where it broke off. What is given out
comes from the mapped file, in pieces, and writes nothing. (spec: ota, 2.1 and 7)
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Final

from litestar.types import Scope
from msgspec import Struct

from api import problems
from api.operations import WITH_BODY, Answer, Content, Operation, Route, in_header, in_path
from api.problems import IMAGE_NOT_FOUND, REQUEST_TIMEOUT, UNSUPPORTED_ENCODING, ApiError
from api.reading import HttpRequest, header, invalid, query, rfc3339, via_of
from api.replies import Field, PiecesReply, Reply, json_reply
from api.schemas import Time
from api.services import ApiServices
from infra.blobs import Blob, BlobTooLargeError, DamagedBlobError, Upload
from ota.errors import ImageNotFoundError
from ota.images import Image
from ota.manifest import IMAGE_BYTES_MAX
from ota.ranges import Outside, is_had, wanted
from registry.service import THINGS_PER_GATEWAY_MAX
from security.policy import Action, Principal, Role

SHA256: Final = "sha256"
PATH: Final = "/v1/ota/images/{sha256:str}"
CHUNK_BYTES_MAX: Final = 131_072
"""What is handed on at once, so that a slow reader holds no more than that."""
UPLOADS_MAX: Final = 8
"""Images that one process takes at once."""
UPLOADS_EACH_MAX: Final = 3
"""Those of one person or vendor, so that whoever sends slowly keeps nobody else away."""
OCTETS: Final = b"application/octet-stream"
_RANGE: Final = re.compile(r"bytes ([0-9]{1,12})-([0-9]{1,12})/([0-9]{1,12})", re.ASCII)


class ImageDocument(Struct):
    """An image that is here, whole."""

    sha256: str
    size: int
    stored_at: Time

    @classmethod
    def of(cls, image: Image) -> "ImageDocument":
        return cls(image.sha256, image.size, rfc3339(image.stored_at_ms))


class Images:
    """Handlers of ``/v1/ota/images`` for people and vendors."""

    def __init__(self, services: ApiServices) -> None:
        self._services = services
        self._images = services.ota.images
        self._places = asyncio.Semaphore(UPLOADS_MAX)
        self._sending = Counter[str]()

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("PUT", PATH, PUT_IMAGE, self.put),
            Route("GET", PATH, GET_IMAGE, self.read),
            Route("HEAD", PATH, HEAD_IMAGE, self.head),
        )

    async def put(self, request: HttpRequest) -> Reply:
        scope = request.scope
        query(scope, ())
        if header(scope, b"content-encoding") is not None:
            raise ApiError(UNSUPPORTED_ENCODING, "an image is sent as it is, without Content-Encoding")
        first, length = announced(scope)
        async with self._place(scope["user"].name):
            with self._images.receive(_name(request), first, scope["user"]) as upload:
                await self._take(request, upload, length)
                image, is_new = await self._images.finish(upload, scope["user"], via_of(scope))
        return json_reply(ImageDocument.of(image), status=201 if is_new else 200)

    @asynccontextmanager
    async def _place(self, sender: str) -> AsyncIterator[None]:
        """Take one of the places for images that are being sent, or raise."""
        if self._places.locked():
            raise ApiError(problems.OVERLOADED, f"{UPLOADS_MAX} images are being sent")
        if self._sending[sender] >= UPLOADS_EACH_MAX:
            raise ApiError(problems.OVERLOADED, f"you are sending {UPLOADS_EACH_MAX} images already")
        self._sending[sender] += 1
        try:
            async with self._places:
                yield
        finally:
            self._sending[sender] -= 1
            self._sending += Counter[str]()  # forgets who sends none

    async def _take(self, request: HttpRequest, upload: Upload, length: int | None) -> None:
        """Write the body as it comes; a sender who falls silent is not waited for."""
        idle_s = self._services.limits.body_timeout_s
        more = True
        while more:
            try:
                async with asyncio.timeout(idle_s):
                    message = await request.receive()
            except TimeoutError as error:
                raise ApiError(REQUEST_TIMEOUT, f"nothing came for {idle_s:g} s: go on later") from error
            if message["type"] != "http.request":
                raise invalid("the connection was closed before the whole image came: go on later")
            upload.write(message["body"])
            more = message["more_body"]
        if length is not None and upload.offset != length:
            raise invalid(f"{upload.offset} of {length} bytes have come: go on from there")

    async def read(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        image = await self._images.image(_name(request), request.scope["user"])
        return shown(request, await self._images.blob(image.sha256), self._services)

    async def head(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        sha256 = _name(request)
        try:
            await self._images.image(sha256, request.scope["user"])
            blob = await self._images.blob(sha256)
        except (ImageNotFoundError, DamagedBlobError):
            if came := self._images.arrived(sha256, request.scope["user"]):
                return Reply(204, [(b"upload-offset", b"%d" % came)])
            raise
        return Reply(200, [*_fields(sha256), (b"content-length", b"%d" % blob.size)])


class DeviceImages:
    """The same for devices and gateways, which get only what they have a job about."""

    def __init__(self, services: ApiServices) -> None:
        self._services = services
        self._jobs = services.ota.jobs
        self._registry = services.registry
        self._releases = services.ota.releases

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("GET", PATH, GET_OWN_IMAGE, self.read),
            Route("HEAD", PATH, HEAD_OWN_IMAGE, self.read),
        )

    async def read(self, request: HttpRequest) -> Reply:
        scope = request.scope
        query(scope, (), ignore_others=True)
        sha256 = str(scope["path_params"][SHA256])
        if (blob := await self._blob(sha256, scope["user"])) is None:
            raise ApiError(IMAGE_NOT_FOUND)
        return shown(request, blob, self._services)

    async def _blob(self, sha256: str, by: Principal) -> Blob | None:
        if not await self._jobs.uses(by.name, sha256) and not await self._attached_uses(by, sha256):
            return None
        return await self._releases.released_image(sha256)

    async def _attached_uses(self, by: Principal, sha256: str) -> bool:
        """Tell whether a thing that a gateway may speak for has a job about it."""
        if by.role is not Role.GATEWAY:
            return False
        page = await self._registry.attached_to(by.name, THINGS_PER_GATEWAY_MAX)
        for standing in (await self._registry.standings([one.thing for one in page.attachments])).values():
            # As by MQTT: nobody speaks for a thing that is revoked or suspended.
            if not standing.thing.barred and await self._jobs.uses(standing.thing.name, sha256):
                return True
        return False


def shown(request: HttpRequest, blob: Blob, services: ApiServices) -> Reply:
    """Answer with an image or the part of it that is wanted; of a HEAD request with the fields alone."""
    scope, tag, fields = request.scope, f'"{blob.sha256}"', _fields(blob.sha256)
    if is_had(header(scope, b"if-none-match"), tag):
        return Reply(304, fields)
    # Other methods know no ranges (RFC 9110, 14.2).
    asked = header(scope, b"range") if request.method == "GET" else None
    part = wanted(asked, header(scope, b"if-range"), tag, blob.size)
    if isinstance(part, Outside):
        return Reply(416, [(b"content-range", b"bytes */%d" % blob.size), (b"content-length", b"0")])
    view, status = blob.view, 200
    if part is not None:
        view, status = blob.view[part.first : part.last + 1], 206
        fields.append((b"content-range", b"bytes %d-%d/%d" % (part.first, part.last, blob.size)))
    fields += [(b"content-type", OCTETS), (b"content-length", b"%d" % len(view))]
    if request.method == "HEAD":
        return Reply(status, fields)
    return PiecesReply(status, fields, _pieces(view), services.limits.send_timeout_s)


def _pieces(view: memoryview) -> Iterator[memoryview]:
    return (view[first : first + CHUNK_BYTES_MAX] for first in range(0, len(view), CHUNK_BYTES_MAX))


def announced(scope: Scope) -> tuple[int, int | None]:
    """Return where what is sent begins, and how long the whole is if the sender says so."""
    length = _content_length(scope)
    text = header(scope, b"content-range")
    if text is None:
        if length is not None and length > IMAGE_BYTES_MAX:
            raise BlobTooLargeError(IMAGE_BYTES_MAX)
        return 0, length
    found = _RANGE.fullmatch(text)
    if found is None:
        raise invalid("Content-Range goes on with an image as in: bytes 1048576-9999999/10000000")
    first, last, whole = map(int, found.groups())
    if not first <= last == whole - 1 or (length is not None and length != whole - first):
        raise invalid("Content-Range names all that is left of the image, and the body is that")
    if whole > IMAGE_BYTES_MAX:
        raise BlobTooLargeError(IMAGE_BYTES_MAX)
    return first, whole


def _content_length(scope: Scope) -> int | None:
    text = header(scope, b"content-length")
    return int(text) if text is not None and text.isdecimal() else None


def _fields(sha256: str) -> list[Field]:
    return [
        (b"accept-ranges", b"bytes"),
        (b"etag", f'"{sha256}"'.encode()),
        (b"cache-control", b"private, immutable"),
    ]


def _name(request: HttpRequest) -> str:
    sha256: str = request.scope["path_params"][SHA256]
    return sha256


TAG: Final = "Firmware images"
_SHA256: Final = in_path(
    SHA256,
    "SHA-256 of the image",
    {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    "6e97d8601cb17906a4819e0fcc8d03150d3e4331353ecaa516c0084cadad54dd",
)
_EXAMPLE: Final = {
    "sha256": "6e97d8601cb17906a4819e0fcc8d03150d3e4331353ecaa516c0084cadad54dd",
    "size": 10_000,
    "stored_at": "2026-09-21T12:00:00.000Z",
}
_BYTES: Final = Content("application/octet-stream", {"type": "string", "format": "binary"})
_STORED: Final = Content("application/json", ImageDocument, _EXAMPLE)
_HEADERS: Final = ("ETag", "Accept-Ranges", "Cache-Control")
_PARTS: Final = (
    in_header(
        "Range",
        "One range; several, or none that is well formed: all of it",
        {"type": "string"},
        "bytes=0-99",
    ),
    in_header("If-Range", "The range only of this ETag", {"type": "string"}, '"6e97d8601cb17906"'),
    in_header("If-None-Match", "Not if you have it", {"type": "string"}, '"6e97d8601cb17906"'),
)
_READ: Final = {
    200: Answer("All of it", _BYTES, _HEADERS),
    206: Answer("The part", _BYTES, (*_HEADERS, "Content-Range")),
    304: Answer("You have it", headers=_HEADERS),
    416: Answer("It is not so long", headers=("Content-Range",)),
}

PUT_IMAGE: Final = Operation(
    id="putImage",
    tag=TAG,
    summary="Send an image to its own hash",
    description="As it is: never unpacked, never parsed. It is there when all of it is on the disk and hashes"
    " to its name. After a cut `HEAD` says by `Upload-Offset` how much came; go on with `Content-Range: bytes"
    " 1048576-9999999/10000000` and the rest. Without it the image begins anew.",
    action=Action.IMAGE_UPLOAD,
    parameters=(
        _SHA256,
        in_header(
            "Content-Range",
            "Go on with an image that broke off",
            {"type": "string", "pattern": "^bytes [0-9]{1,12}-[0-9]{1,12}/[0-9]{1,12}$"},
            "bytes 0-9999/10000",
        ),
    ),
    bodies=(_BYTES,),
    answers={200: Answer("It was there", _STORED), 201: Answer("It is there now", _STORED)},
    refusals=(*WITH_BODY, problems.UPLOAD_OFFSET, problems.DIGEST_MISMATCH),
    own_check=True,
)
GET_IMAGE: Final = Operation(
    id="getImage",
    tag=TAG,
    summary="Read an image back",
    description="A vendor reads only what it has sent itself. Devices have this on their own listener, by"
    " their certificate, for as long as a job of theirs is about the image.",
    action=Action.IMAGE_UPLOAD,
    parameters=(_SHA256, *_PARTS),
    answers=_READ,
    refusals=(problems.IMAGE_NOT_FOUND,),
    own_check=True,
)
HEAD_IMAGE: Final = Operation(
    id="headImage",
    tag=TAG,
    summary="See whether an image is there, or how much of it",
    action=Action.IMAGE_UPLOAD,
    parameters=(_SHA256,),
    answers={
        200: Answer("It is there", headers=("ETag", "Content-Length")),
        204: Answer("So much has come", headers=("Upload-Offset",)),
    },
    refusals=(problems.IMAGE_NOT_FOUND,),
    own_check=True,
)
GET_OWN_IMAGE: Final = Operation(
    id="getOwnImage",
    tag=TAG,
    summary="Load the image that one of your jobs is about",
    action=Action.IMAGE_READ,
    parameters=(_SHA256, *_PARTS),
    answers=_READ,
    refusals=(problems.IMAGE_NOT_FOUND,),
    own_check=True,
)
HEAD_OWN_IMAGE: Final = Operation(
    id="headOwnImage",
    tag=TAG,
    summary="See how long it is",
    action=Action.IMAGE_READ,
    parameters=(_SHA256,),
    answers={200: Answer("It is there", headers=_HEADERS), 304: Answer("You have it", headers=_HEADERS)},
    refusals=(problems.IMAGE_NOT_FOUND,),
    own_check=True,
)
