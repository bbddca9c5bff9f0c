"""The part of the load that converges: devices that mirror what is desired, and people who desire it.

    wisher   over REST, as an application: sets, nests and deletes fields of ``desired``, at random
    mirror   over mutual TLS, as a device: reports each delta back, with the same values
    scratch  over REST, a named shadow that is made, changed and deleted again and again

Each request keeps its bytes and is repeated until it is answered. Every step goes into the history; no
assertion stands here. SIGTERM ends the wishes; the mirrors go on until everything is reported.
"""

import argparse
import asyncio
import hashlib
import itertools
import random
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import uvloop

from fleet import connection as links
from fleet.connection import OPENING_MAX, Certificates, Connection, Endpoint
from infra.clock import SystemClock
from tests.chaos.evidence import Line
from tests.system.child import STAND_IN

ANSWER_S = 2.0
LOOK_S = 0.25
RETRY_S = 0.2
WISH_EVERY_S = 0.03
SETTLE_S_MAX = 10.0
"""From the last fault to the last report (I5)."""
RECONNECT_S_MAX = 2.0
"""A mirror is back soon after each kill; one that jitter keeps away for a minute shows nothing."""
FLUSH_LINES = 50
FIELDS = "abcdefgh"
DELETE_SHARE = 0.25
NEST_SHARE = 0.3
NOT_YET = frozenset({429, 500, 503})
SCRATCH = "scratch"


class Notes:
    """Writes steps, bodies included, to a file of its own."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._lines: list[bytes] = []
        self._clock = SystemClock()

    def add(self, phase: str, request: "Request", version: int | None = None, answer: bytes = b"") -> None:
        line = Line(
            t=self._clock.now_ms(),
            worker=request.worker,
            op=request.operation,
            phase=phase,
            thing=request.thing,
            shadow=request.shadow,
            token=request.token,
            body_sha256=hashlib.sha256(request.body).hexdigest(),
            version=version,
            answer_sha256=hashlib.sha256(answer).hexdigest() if answer else None,
            body=request.body.decode(),
        )
        self._lines.append(msgspec.json.encode(line))
        if len(self._lines) >= FLUSH_LINES:
            self.flush()

    def flush(self) -> None:
        if self._lines:
            self._file.write(b"\n".join(self._lines) + b"\n")
            self._lines.clear()


@dataclass(frozen=True, slots=True)
class Request:
    """One request; its bytes never change."""

    worker: str
    thing: str
    shadow: str
    operation: str
    token: str
    body: bytes


def update(worker: str, thing: str, token: str, state: Any, shadow: str = "") -> Request:
    body = msgspec.json.encode({"state": state, "clientToken": token})
    return Request(worker, thing, shadow, "update", token, body)


class Mirror:
    """A device without a mind of its own: what it is told to be, it reports to be."""

    def __init__(self, thing: str, notes: Notes) -> None:
        self.thing = thing
        self._notes = notes
        self._topic = f"$aws/things/{thing}/shadow"
        self._numbers = itertools.count(1)
        self._pending: dict[str, tuple[Request, float]] = {}
        self._newest = 0
        self.connection: Connection | None = None

    @property
    def is_idle(self) -> bool:
        return not self._pending

    def connected(self) -> None:
        assert self.connection is not None
        update = f"{self._topic}/update"
        self.connection.subscribe((f"{update}/accepted", f"{update}/rejected", f"{update}/delta"))
        for request, _ in list(self._pending.values()):
            self._send(request)

    def disconnected(self) -> None:
        """Wait for the next connection; what is pending is sent again then."""

    def message(self, topic: str, payload: bytes) -> None:
        content = msgspec.json.decode(payload)
        if topic.endswith("/delta"):
            self._obey(content)
            return
        request, _ = self._pending.get(content.get("clientToken"), (None, 0.0))
        if request is None:
            return  # somebody else's, or answered already: an answer may come twice
        if topic.endswith("/accepted"):
            self._notes.add("ok", request, content["version"], payload)
        elif content["code"] in NOT_YET:
            return  # the next look repeats it
        else:
            self._notes.add("fail", request)
        del self._pending[request.token]

    def look(self, now_s: float) -> None:
        """Repeat what has waited too long."""
        for request, due_s in list(self._pending.values()):
            if due_s <= now_s:
                self._send(request)

    def give_up(self) -> None:
        for request, _ in self._pending.values():
            self._notes.add("maybe", request)

    def _obey(self, delta: Any) -> None:
        if delta["version"] < self._newest:
            return
        self._newest = delta["version"]
        token = f"{self.thing}-{next(self._numbers)}"
        request = update(self.thing, self.thing, token, {"reported": delta["state"]})
        self._notes.add("invoke", request)
        self._send(request)

    def _send(self, request: Request) -> None:
        assert self.connection is not None
        self._pending[request.token] = (request, asyncio.get_running_loop().time() + ANSWER_S)
        self.connection.publish(f"{self._topic}/update", request.body)


class Wisher:
    """A writer over REST, one request after another."""

    def __init__(self, name: str, http: httpx.AsyncClient, notes: Notes, stop: asyncio.Event) -> None:
        self._name = name
        self._http = http
        self._notes = notes
        self._stop = stop

    async def run(self, requests: Iterator[Request]) -> None:
        for request in requests:
            self._notes.add("invoke", request)
            await self._until_answered(request)
            if self._stop.is_set():
                return
            await asyncio.sleep(WISH_EVERY_S)

    async def _until_answered(self, request: Request) -> None:
        deadline = asyncio.get_running_loop().time() + 3 * SETTLE_S_MAX
        while asyncio.get_running_loop().time() < deadline:
            answer = await self._once(request)
            if answer is not None and answer.status_code not in NOT_YET:
                ok = answer.status_code == httpx.codes.OK
                version = msgspec.json.decode(answer.content)["version"] if ok else None
                self._notes.add("ok" if ok else "fail", request, version, answer.content)
                return
            await asyncio.sleep(RETRY_S)
        self._notes.add("maybe", request)

    async def _once(self, request: Request) -> httpx.Response | None:
        """Ask; None when nobody answered, so that it is unknown whether it was heard."""
        try:
            return await self._http.request(
                "DELETE" if request.operation == "delete" else "POST",
                f"/things/{request.thing}/shadow",
                params={"name": request.shadow} if request.shadow else None,
                content=request.body,
            )
        except httpx.HTTPError:
            return None


def wishes(name: str, things: list[str], chance: random.Random) -> Iterator[Request]:
    """Yield endless wishes: fields are set, nested, replaced by another kind, and deleted."""
    for number in itertools.count(1):
        desired = {field: _value(chance, number) for field in chance.sample(FIELDS, 2)}
        yield update(name, chance.choice(things), f"{name}-{number}", {"desired": desired})


def scratches(name: str, things: list[str], chance: random.Random) -> Iterator[Request]:
    """Yield endless requests that make, change and delete a shadow of another name."""
    for number in itertools.count(1):
        thing, token = chance.choice(things), f"{name}-{number}"
        if chance.random() < DELETE_SHARE:
            body = msgspec.json.encode({"clientToken": token})
            yield Request(name, thing, SCRATCH, "delete", token, body)
        else:
            field = chance.choice(FIELDS)
            state = None if chance.random() < 0.05 else {"reported": {field: _value(chance, number)}}
            yield update(name, thing, token, state, SCRATCH)


def _value(chance: random.Random, number: int) -> Any:
    if chance.random() < DELETE_SHARE:
        return None
    if chance.random() < NEST_SHARE:
        return {"x": number, chance.choice("yz"): None if chance.random() < DELETE_SHARE else [number]}
    return chance.choice([number, number / 2, True, False, f"text {number}", [], {}])


async def load(options: argparse.Namespace) -> None:
    """Run until SIGTERM, then until all is quiet."""
    links.RETRY_CAP_S = RECONNECT_S_MAX
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    notes = Notes(options.history)
    mirrors = [Mirror(options.things % number, notes) for number in range(options.mirrors)]
    names = [mirror.thing for mirror in mirrors]
    door, chance = asyncio.Semaphore(OPENING_MAX), random.Random(options.seed)
    certificates = Certificates(options.certificates)
    async with (
        httpx.AsyncClient(base_url=options.api, headers=STAND_IN, timeout=ANSWER_S) as http,
        asyncio.TaskGroup() as tasks,
    ):
        for mirror in mirrors:
            mirror.connection = Connection(
                Endpoint("127.0.0.1", options.port),
                certificates.identity(mirror.thing),
                mirror,
                door=door,
                chance=chance,
                errors=Counter(),
            )
            tasks.create_task(mirror.connection.run(), name=mirror.thing)
        looking = tasks.create_task(_look(mirrors, notes), name="look")
        async with asyncio.TaskGroup() as people:
            for source in (wishes("wisher-1", names, chance), wishes("wisher-2", names, chance)):
                people.create_task(Wisher("wisher", http, notes, stop).run(source), name="wisher")
            scratch = scratches("scratcher", names, chance)
            people.create_task(Wisher("scratcher", http, notes, stop).run(scratch), name="scratcher")
        await _settle(mirrors, http)
        looking.cancel()
        for mirror in mirrors:
            mirror.give_up()
            assert mirror.connection is not None
            mirror.connection.stop()
    notes.flush()


async def _look(mirrors: list[Mirror], notes: Notes) -> None:
    while True:
        await asyncio.sleep(LOOK_S)
        now_s = asyncio.get_running_loop().time()
        for mirror in mirrors:
            mirror.look(now_s)
        notes.flush()


async def _settle(mirrors: list[Mirror], http: httpx.AsyncClient) -> None:
    """Wait until all is reported, or the time for that is up; whether it is, others judge."""
    deadline = asyncio.get_running_loop().time() + SETTLE_S_MAX
    left = mirrors
    while left and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(LOOK_S)
        left = [mirror for mirror in left if not mirror.is_idle or await _is_apart(mirror.thing, http)]


async def _is_apart(thing: str, http: httpx.AsyncClient) -> bool:
    answer = await http.get(f"/things/{thing}/shadow")
    return answer.status_code == httpx.codes.OK and "delta" in answer.json()["state"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.load")
    add = parser.add_argument
    add("--port", type=int, required=True)
    add("--api", required=True)
    add("--certificates", type=Path, required=True)
    add("--history", type=Path, required=True)
    add("--things", default="mirror-%03d")
    add("--mirrors", type=int, default=8)
    add("--seed", type=int, default=0)
    uvloop.run(load(parser.parse_args()))


if __name__ == "__main__":
    main()
