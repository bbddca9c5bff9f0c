"""Attacks by names, and by what lies inside of bytes: on all that takes images or bodies. (B28, B29)"""

import gzip
import hashlib
import http.client
import re
import ssl
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Final
from urllib.parse import quote

import httpx

from security.policy import Role
from tests.attack import firmware_house, joining
from tests.attack.attacks import Score, Size, attack
from tests.attack.field import SETTLED_S, Field
from tests.attack.routes import places
from tests.system.child import Gnomon
from tests.system.mqtt import Thing, connected

IMAGES: Final = "/v1/ota/images/"
CANARY: Final = b"canary in a file that nobody may read"
REFUSED: Final = frozenset({400, 404, 405, 414})
"""What a name that is none may hear."""
BYTES: Final = "application/octet-stream"
MIB: Final = 1_048_576
GREW_MIB_MAX: Final = 20.0
IMAGE_BYTES_MAX: Final = 64 * MIB
GOOD: Final = hashlib.sha256(b"good").hexdigest()

NAMES: Final = (
    "..", "../..", "../../../../../../../../etc/passwd", "..%2f..%2fetc%2fpasswd", "..%2F",
    "%2e%2e%2f%2e%2e%2f",
    "%2e%2e/%2e%2e/", "%252e%252e%252f", "..%252fmaster.key", "..%5c..%5cetc", "....//....//etc/passwd",
    "..;/..;/", "%c0%ae%c0%ae%c0%af", "%e0%80%ae%e0%80%ae/", "%uff0e%uff0e%u2215", "..%00/", f"{GOOD}%00",
    f"{GOOD}%00.bin", f"{GOOD}/..", f"{GOOD}/../../gnomon.db", f"{GOOD}%2f..%2f..%2fgnomon.db",
    f"./{GOOD}",
    f"coming/{GOOD}", f"coming%2f{GOOD}", f"{GOOD}.part", f"{GOOD}~", f"{GOOD}%20", f"%20{GOOD}",
    f"{GOOD}%0a",
    f"{GOOD}%0d%0aX-Own: 1", GOOD.upper(), GOOD[:-1], f"{GOOD}0", f"{GOOD[:-1]}g", f"sha256:{GOOD}", "-rf",
    "*",
    "?", ".", "%2e", "~", "~root", "$HOME", "%24(id)", "`id`", "|id", "file:%2f%2f%2fetc%2fpasswd",
    "http:%2f%2f127.0.0.1%2f", "CON", "NUL", "a" * 300, "%f0%9f%92%a3" * 16, "0" * 63 + "%d9%a0", "%ff" * 64,
    "%2fetc%2fpasswd", "%2fproc%2fself%2fenviron", "gnomon.db", "secrets%2fmaster.key", "%00",
)  # fmt: skip
"""Names that would lead elsewhere if somebody believed them."""


@attack("B28", "path tricks in names", at_least=Size(500, 500))
def path_tricks(field: Field, score: Score) -> None:
    """Name images, streams, jobs and releases so that it leads elsewhere: no file appears or is read"""
    gnomon = field.gnomon
    for place in (gnomon.directory, gnomon.var):
        (place / "canary").write_bytes(CANARY)
    gateway, files = joining.enrolled(field, "gateway")
    before = _files(gnomon.directory)
    for name in NAMES:
        for method in ("PUT", "GET", "HEAD"):
            _by_http(field, score, method, name)
        _by_certificate(field, score, files, name)
        _in_bodies(field, score, name)
    with connected(gnomon, gateway) as thing:
        _in_topics(score, gateway, thing)
    time.sleep(SETTLED_S)
    _nothing_appeared(gnomon, score, before)
    with firmware_house.operator(field) as http:
        kept = http.put(f"{IMAGES}{GOOD}", content=b"good", headers={"Content-Type": BYTES})
        works = kept.is_success and (gnomon.var / "images" / GOOD).read_bytes() == b"good"
        score.honest("a good name is where it belongs", works=works)
    score.measure(names=len(NAMES))


def _by_http(field: Field, score: Score, method: str, name: str) -> None:
    gnomon = field.gnomon
    connection = http.client.HTTPConnection("127.0.0.1", gnomon.api_port, timeout=10)
    fields = {**gnomon.accounts.bearer(Role.OPERATOR), "Content-Type": BYTES}
    body = b"written by the Bad Actor" if method == "PUT" else None
    _told(score, f"{method} {name}", connection, method, f"{IMAGES}{_sendable(name)}", body, fields)


def _by_certificate(field: Field, score: Score, files: tuple[Path, Path], name: str) -> None:
    """Ask as a gateway does, on the devices' own listener."""
    gnomon = field.gnomon
    context = ssl.create_default_context(cafile=gnomon.root_certificate)
    context.load_cert_chain(*files)
    port = int(gnomon.join_url.rpartition(":")[2])
    connection = http.client.HTTPSConnection("localhost", port, timeout=10, context=context)
    _told(score, f"gateway, {name}", connection, "GET", f"{IMAGES}{_sendable(name)}", None, {})


def _told(
    score: Score,
    what: str,
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None,
    fields: Mapping[str, str],
) -> None:
    """Send a path as it is; no library may mend it."""
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in fields.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        status, said = answer.status, answer.read()
    except http.client.HTTPException:
        status, said = 400, b""
    finally:
        connection.close()
    leaks = CANARY in said or b"root:" in said or b"SQLite format" in said
    score.attempt(f"{what}: {status} {said[:80]!r}", succeeded=leaks or status not in REFUSED)


def _sendable(name: str) -> str:
    """Return a name as it can stand in a request line."""
    return quote(name, safe="%/.~:;$()`|*?-=&+,!@#")


def _in_bodies(field: Field, score: Score, name: str) -> None:
    """Name a trick where a body or another path names something of firmware."""
    told = quote(name, safe="%")
    with firmware_house.operator(field) as http:
        answers = {
            "release": http.post("/v1/ota/releases", json={"image": name, "manifest": "0oRYNaMBJwRI"}),
            "bundle": http.get(f"/v1/ota/campaigns/{told}/bundle"),
            "campaign": http.get(f"/v1/ota/campaigns/{told}"),
        }
    for what, answer in answers.items():
        refused = 400 <= answer.status_code < 500 and CANARY not in answer.content
        listed = what == "campaign" and answer.url.path.rstrip("/").endswith("/campaigns")
        score.attempt(f"{what} {name}: {answer.status_code}", succeeded=not (refused or listed))


def _in_topics(score: Score, gateway: str, thing: Thing) -> None:
    """Ask for streams and jobs by such names: there is no answer with anything in it."""
    base = f"$aws/things/{gateway}"
    thing.subscribe(f"{base}/streams/+/data/+", f"{base}/jobs/+/get/accepted")
    for name in NAMES:
        level = re.sub(r"[/+#\x00]", "%", name)[:200]
        thing.publish(f"{base}/streams/{level}/get/json", b'{"f": 0, "l": 256}')
        thing.publish(f"{base}/jobs/{level}/get", b"{}")
        score.attempts("", 2, 0)
    time.sleep(SETTLED_S)
    score.attempts(f"answered: {thing.topics()[:3]}", 0, len(thing.received))


def _files(directory: Path) -> frozenset[str]:
    return frozenset(str(one) for one in directory.rglob("*") if one.is_file())


def _nothing_appeared(gnomon: Gnomon, score: Score, before: frozenset[str]) -> None:
    """See that there are no new files but those that a running service makes, wherever one could reach."""
    usual = re.compile(r"(gnomon\.db.*|log|.*/images/[0-9a-f]{64}|.*/traces.*|.*\.tmp|.*/heads.*)", re.ASCII)
    new = [one for one in _files(gnomon.directory) - before if not usual.search(one)]
    score.attempts(f"files appeared: {new[:3]}", 1, len(new))
    unfinished = [one.name for one in (gnomon.var / "images").rglob("*") if one.is_file()]
    odd = [one for one in unfinished if not re.fullmatch(r"[0-9a-f]{64}", one)]
    score.attempts(f"images have names: {odd[:3]}", 1, len(odd))


# ---------------------------------------------------------------------------- bombs

CODINGS: Final = (
    "gzip", "x-gzip", "GZIP", "deflate", "br", "zstd", "compress", "gzip, gzip", "identity, gzip",
    "gzip;q=1", "unknown", "aes128gcm",
)  # fmt: skip


def gzip_bomb(inside_mib: int) -> bytes:
    """Return zeros, compressed: members one after the other unpack to all of them."""
    return gzip.compress(bytes(10 * MIB), 9) * (inside_mib // 10)


def deflate_bomb(inside_mib: int) -> bytes:
    packer = zlib.compressobj(9)
    begin = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    part = packer.compress(bytes(10 * MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return begin + part * (inside_mib // 10)


@attack("B29", "compression bombs", at_least=Size(90, 90))
def bombs(field: Field, score: Score) -> None:
    """Send 10 MB that unpack to 10 GB wherever bytes are taken: refused, or kept as it is, never unpacked"""
    gnomon = field.gnomon
    inside_mib = field.size(10_240, 1_020)
    bomb, other = gzip_bomb(inside_mib), deflate_bomb(inside_mib)
    with _memory(gnomon) as memory, firmware_house.operator(field) as http:
        _encoded_images(score, http, bomb, other)
        _encoded_bodies(field, score, gzip_bomb(200))
        _by_mqtt(field, score, bomb[:100_000])
        _opaque(field, score, http, bomb)
    score.must(f"memory is bounded (grew by {memory.grew_mib:.0f} MiB)", held=memory.grew_mib < GREW_MIB_MAX)
    if not field.quick:
        _without_end(field, score)
    score.measure(
        bomb_mib=round(len(bomb) / MIB, 1), inside_mib=inside_mib, grew_mib=round(memory.grew_mib, 1)
    )


def _encoded_images(score: Score, http: httpx.Client, bomb: bytes, other: bytes) -> None:
    for coding in CODINGS:
        data = other if coding == "deflate" else bomb
        name = hashlib.sha256(data).hexdigest()
        fields = {"Content-Type": BYTES, "Content-Encoding": coding}
        answer = http.put(f"{IMAGES}{name}", content=data, headers=fields)
        score.attempt(f"an image in {coding}: {answer.status_code}", succeeded=answer.status_code != 415)
        score.attempt("it is there", succeeded=http.get(f"{IMAGES}{name}").status_code != 404)


def _encoded_bodies(field: Field, score: Score, bomb: bytes) -> None:
    """Send one to every place that takes a body, as each of those who may call it."""
    gnomon = field.gnomon
    with httpx.Client(base_url=gnomon.api_url, timeout=20) as http:
        for place in places(field):
            if "requestBody" not in place.operation:
                continue
            role = Role.SECURITY if "/things" in place.path else Role.OPERATOR
            fields = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
            answer = http.request(
                place.method, place.url(), content=bomb, headers={**fields, **gnomon.accounts.bearer(role)}
            )
            score.attempt(
                f"{place.method} {place.path}: {answer.status_code}",
                succeeded=not 400 <= answer.status_code < 500,
            )


def _by_mqtt(field: Field, score: Score, bomb: bytes) -> None:
    name = field.gnomon.new()
    with connected(field.gnomon, name) as thing:
        thing.listen()
        thing.publish(f"$aws/things/{name}/shadow/update", bomb[:30_000])
        thing.publish(f"$aws/things/{name}/jobs/start-next", bomb[:30_000])
        thing.publish(f"$aws/things/{name}/streams/fw-1/get/cbor", bomb[:30_000])
        score.attempts("", 3, 0)
        score.honest("a report is taken after that", works=thing.report({"n": 1})["version"] == 1)


def _opaque(field: Field, score: Score, http: httpx.Client, bomb: bytes) -> None:
    """Keep one as an image: it comes back as it was, whatever the reader would take."""
    name = hashlib.sha256(bomb).hexdigest()
    kept = http.put(f"{IMAGES}{name}", content=bomb, headers={"Content-Type": BYTES})
    size = (field.gnomon.var / "images" / name).stat().st_size
    score.honest("as an image it is bytes as any other", works=kept.is_success and size == len(bomb))
    with http.stream("GET", f"{IMAGES}{name}", headers={"Accept-Encoding": "gzip, br"}) as answer:
        as_it_is = b"".join(answer.iter_raw()) == bomb and "content-encoding" not in answer.headers
    score.attempt("it is given out in another form", succeeded=not as_it_is)


def _without_end(field: Field, score: Score) -> None:
    """Send more than an image may have: announced, and in chunks whose end is not told."""
    piece, name = Random(1).randbytes(MIB), "0" * 64

    def pieces() -> Iterator[bytes]:
        for _ in range(IMAGE_BYTES_MAX // MIB + 8):
            yield piece

    with firmware_house.operator(field) as http:
        for what, content in (("announced", piece * (IMAGE_BYTES_MAX // MIB + 1)), ("in chunks", pieces())):
            try:
                status = http.put(
                    f"{IMAGES}{name}", content=content, headers={"Content-Type": BYTES}
                ).status_code
            except httpx.WriteError:  # it listens no longer
                status = 413
            score.attempt(f"too large, {what}: {status}", succeeded=status != 413)


class _Memory:
    """The most that a process held beyond what it held at first, of memory that is no file."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._before = self._now()
        self._most = self._before

    @property
    def grew_mib(self) -> float:
        return (self._most - self._before) / 1_024

    def look(self) -> None:
        self._most = max(self._most, self._now())

    def _now(self) -> int:
        found = re.search(r"RssAnon:\s+(\d+) kB", self._status.read_text())
        assert found is not None
        return int(found[1])


@contextmanager
def _memory(gnomon: Gnomon) -> Iterator[_Memory]:
    """Watch how much memory the service takes."""
    memory, over = _Memory(gnomon.pid), threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            memory.look()

    thread = threading.Thread(target=watch, name="memory", daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        over.set()
        thread.join(5)
