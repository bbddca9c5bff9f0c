"""The field tool: gives devices on its own link what a bundle holds, and writes down what they say.

It needs no connection and holds no key. It speaks plain HTTP, because nothing it serves is believed by its
carrier: the device checks manifest, order, proof and every block by their signatures and hashes, as it does
elsewhere. One lock guards the little that it remembers; an image goes out of the mapped file in pieces.
"""

import mmap
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from gnomon.journal import Journal, Line
from infra.clock import Clock
from ota import bundle as bundles
from ota import key_list, local_jobs, ranges
from ota.bundle import CHUNK_BYTES, BundleError, Opened
from ota.envelope import Typ
from ota.job_requests import REQUEST_BYTES_MAX
from ota.local_jobs import NotMeantError
from ota.models import Execution

IMAGES: Final = "/v1/ota/images/"
JOB: Final = "/v1/local/job/"
STATUS: Final = "/v1/local/status"
SILENT_S: Final = 30.0
"""After which a connection that says nothing is closed."""
CONNECTIONS_MAX: Final = 64
OK, NOTHING, PARTIAL, NOT_MODIFIED = 200, 204, 206, 304
BAD_REQUEST, NOT_FOUND, TOO_LARGE, OUTSIDE, BUSY = 400, 404, 413, 416, 503
_NO_FIELDS: Final[Mapping[str, str]] = MappingProxyType({})

Say = Callable[[str], None]


def load(file: Path) -> Opened:
    """Return a bundle whose parts belong together; its image stays in the file. Raises BundleError."""
    with file.open("rb") as opened:
        if not file.stat().st_size:
            raise BundleError("the file is empty; fetch the bundle again")
        view = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
    return bundles.opened(bundles.read(view))


class Field:
    """What a tool offers of one bundle, and what it remembers of each device."""

    def __init__(self, bundle: Opened, journal: Journal, operator: str, clock: Clock, say: Say) -> None:
        self.bundle = bundle
        self._journal = journal
        self._operator = operator
        self._clock = clock
        self._say = say
        self._lock = threading.Lock()
        order = bundle.order_sha256
        self._targets: dict[str, Execution] = {
            thing: line.execution for (of, thing), line in journal.last().items() if of == order
        }

    def job(self, thing: str, base_url: str) -> dict[str, Any]:
        """Return the job document of a thing. Raises :class:`NotMeantError`."""
        document = local_jobs.document(self.bundle, thing, base_url)
        with self._lock:
            if thing not in self._targets:
                self._keep(local_jobs.offered(self.bundle, thing, self._clock.now_ms()))
        return document

    def update(self, thing: str, payload: bytes) -> local_jobs.Answered:
        """Carry out what a device says of its job; what is answered is on the disk. Raises as :meth:`job`."""
        with self._lock:
            now_ms = self._clock.now_ms()
            execution = self._targets.get(thing) or local_jobs.offered(self.bundle, thing, now_ms)
            answered = local_jobs.updated(self.bundle, execution, payload, now_ms)
            if answered.after is not None:
                self._keep(answered.after)
            return answered

    def _keep(self, execution: Execution) -> None:
        self._journal.add(
            Line(
                at_ms=self._clock.now_ms(),
                order=self.bundle.order_sha256,
                manifest=self.bundle.manifest_sha256,
                sha256=self.bundle.manifest.sha256,
                operator=self._operator,
                execution=execution,
            )
        )
        self._targets[execution.thing] = execution
        self._say(f"{execution.thing}  {execution.status}  {execution.reason or _step(execution)}")


def _step(execution: Execution) -> str:
    return f"file status {execution.details['fs']}" if "fs" in execution.details else ""


class FieldServer(ThreadingHTTPServer):
    """Listens on the tool's own link."""

    daemon_threads = True

    def __init__(self, field: Field, host: str, port: int, public_url: str = "") -> None:
        self.field = field
        self._free = threading.BoundedSemaphore(CONNECTIONS_MAX)
        super().__init__((host, port), _Handler)
        self.url = public_url.rstrip("/") or f"http://{host}:{self.server_address[1]}"

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the base's types
        """Serve a connection in a thread of its own, as long as there are not too many."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the base's types
        """Serve one connection to its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the base's
        """A device that goes away in the middle is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: FieldServer
    protocol_version = "HTTP/1.1"
    server_version = "gnomon-field"
    sys_version = ""
    timeout = SILENT_S

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path.startswith(JOB):
            self._job(unquote(path.removeprefix(JOB)))
        elif path == IMAGES + self.server.field.bundle.manifest.sha256:
            self._image()
        elif path == key_list.PATH:
            self._keys()
        else:
            self._problem(NOT_FOUND, "there is nothing at this address")

    do_HEAD = do_GET  # noqa: N815 - likewise; a HEAD sends no body

    def do_POST(self) -> None:
        where = urlsplit(self.path)
        if where.path != STATUS:
            self._problem(NOT_FOUND, "there is nothing at this address")
            return
        things = parse_qs(where.query).get("thing", [])
        payload = self._body()
        if payload is None:
            return
        if len(things) != 1:
            self._problem(BAD_REQUEST, "say who you are: ?thing=NAME")
            return
        try:
            answered = self.server.field.update(things[0], payload)
        except NotMeantError as error:
            self._problem(NOT_FOUND, str(error))
            return
        self._json(answered.status, answered.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: ANN401 - the base's signature
        """Say nothing: the journal has it."""

    def _job(self, thing: str) -> None:
        try:
            self._json(OK, self.server.field.job(thing, self.server.url))
        except NotMeantError as error:
            self._problem(NOT_FOUND, str(error))

    def _image(self) -> None:
        manifest, image = self.server.field.bundle.manifest, self.server.field.bundle.bundle.image
        etag = f'"{manifest.sha256}"'
        fields = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": "private, immutable"}
        if ranges.is_had(self.headers["If-None-Match"], etag):
            self._head(NOT_MODIFIED, fields)
            return
        part = ranges.wanted(self.headers["Range"], self.headers["If-Range"], etag, manifest.size)
        if isinstance(part, ranges.Outside):
            self._head(OUTSIDE, fields | {"Content-Range": f"bytes */{manifest.size}", "Content-Length": "0"})
            return
        if part is None:
            status, first, length = OK, 0, manifest.size
        else:
            status, first, length = PARTIAL, part.first, part.length
            fields["Content-Range"] = f"bytes {part.first}-{part.last}/{manifest.size}"
        self._head(
            status, fields | {"Content-Type": "application/octet-stream", "Content-Length": str(length)}
        )
        if self.command != "HEAD":
            for at in range(first, first + length, CHUNK_BYTES):
                self.wfile.write(image[at : min(at + CHUNK_BYTES, first + length)])

    def _keys(self) -> None:
        bundle = self.server.field.bundle
        if bundle.keys is None:
            self._head(NOTHING, {})
            return
        etag = f'"{bundle.keys.number}"'
        if ranges.is_had(self.headers["If-None-Match"], etag):
            self._head(NOT_MODIFIED, {"ETag": etag})
            return
        self._bytes(OK, str(Typ.KEYS), bundle.bundle.keys, {"ETag": etag})

    def _body(self) -> bytes | None:
        announced = self.headers["Content-Length"] or ""
        if not announced.isascii() or not announced.isdecimal() or int(announced) > REQUEST_BYTES_MAX:
            self.close_connection = True
            self._problem(TOO_LARGE, f"send Content-Length, at most {REQUEST_BYTES_MAX}")
            return None
        return self.rfile.read(int(announced))

    def _json(self, status: int, body: object) -> None:
        self._bytes(status, "application/json", msgspec.json.encode(body))

    def _problem(self, status: int, detail: str) -> None:
        problem = {"status": status, "title": HTTPStatus(status).phrase, "detail": detail}
        self._bytes(status, "application/problem+json", msgspec.json.encode(problem))

    def _bytes(self, status: int, media: str, body: bytes, fields: Mapping[str, str] = _NO_FIELDS) -> None:
        self._head(status, {"Content-Type": media, "Content-Length": str(len(body)), **fields})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, fields: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
