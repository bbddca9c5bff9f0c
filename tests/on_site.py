"""A device that a crew has on its own link, and the tool of ``gnomon field``: no broker, no service."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import cbor2
import httpx
import msgspec
from cryptography import x509

from fleet.boot import Store
from fleet.firmware import Setting
from fleet.flash_file import Kept
from fleet.hardware import RESTART_S, Computer, Hardware
from fleet.jobs import JobAnswer, StreamAnswer
from fleet.keyring import STREAM
from fleet.loading import IMAGE, LEAVES
from fleet.makes import BLOCK, MAKES
from fleet.offers import FAILED, REJECTED
from fleet.topics import own_route
from fleet.trees import Tree
from gnomon.field import Field, FieldServer, load
from gnomon.journal import Journal
from infra.clock import MS_PER_S, Clock, SystemClock
from ota.key_list import PATH
from ota.trees import leaf_list

INSTALL_S_MAX: Final = 30.0


@contextmanager
def field_tool(bundle: Path, journal: Path, clock: Clock | None = None) -> Iterator[httpx.Client]:
    """Serve a bundle as `gnomon field serve` does."""
    field = Field(load(bundle), Journal(journal), "ines", clock or SystemClock(), lambda _: None)
    with FieldServer(field, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            with httpx.Client(base_url=server.url, trust_env=False, timeout=10) as client:
                yield client
        finally:
            server.shutdown()
            thread.join(5)


class Bench:
    """One device on that link. What its machine asks for by blocks it gets of image and keys of the tool."""

    def __init__(
        self,
        name: str,
        kept: Kept,
        roots: Sequence[x509.Certificate],
        tool: httpx.Client,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        store, chance = Store(kept.flash), random.Random(name)
        self._name, self._tool = name, tool
        self._config = store.config(store.record.running)
        hardware = Hardware(MAKES[kept.model], kept.flash, Setting(roots=roots))
        self._computer = Computer(name, hardware, self, chance)
        self._document: dict[str, Any] = {}
        self._image = b""
        self._status = ""

    def config(self) -> Tree:
        return self._config

    def load(self, config: Tree) -> None:
        self._config = config

    def may_restart(self) -> bool:
        return True

    def install(self) -> None:
        """Do as the device does until it starts again with its new image."""
        self._work(lambda: self._computer.is_dark)

    def refuse(self) -> None:
        """Do as the device does until it has told that it will not have it."""
        self._work(lambda: self._status in {FAILED, REJECTED})

    def _work(self, is_done: Callable[[], bool]) -> None:
        self._computer.switch_on(self._now())
        self._computer.connected(self._now(), own_route(self._name))
        ends = time.monotonic() + INSTALL_S_MAX
        while not is_done():
            assert not self._computer.is_dark, "it has taken it"
            assert time.monotonic() < ends, self._computer.firmware.state
            self._computer.tick(self._now())
            for topic, payload in self._computer.due(self._now()):
                self._carry(topic.split("/")[3:], payload)

    def _now(self) -> float:
        return self._clock.now_ms() / MS_PER_S

    def _carry(self, topic: list[str], payload: bytes) -> None:
        match topic:
            case ["jobs", "$next", "get"]:
                token = msgspec.json.decode(payload)["clientToken"]
                said = {"clientToken": token, "timestamp": int(self._now()), "execution": self._offer()}
                self._answer("$next", "get", httpx.codes.OK, said)
            case ["jobs", "start-next"]:
                self._answer("", "start-next", *self._started(msgspec.json.decode(payload)))
            case ["jobs", job, "update"]:
                self._answer(job, "update", *self._told(payload))
            case ["streams", stream, "get", "cbor"]:
                self._send_blocks(stream, cbor2.loads(payload))
            case _:
                pass  # shadows: there is nobody here who keeps them

    def waits(self, seconds: float) -> bool:
        """Start with the new image, without any network for so long; tell whether it is still on trial."""
        on = self._now() + RESTART_S
        assert self._computer.switch_on(on)
        self._computer.tick(on + seconds)
        return not self._computer.is_dark and self._computer.firmware.is_trial

    def tells(self) -> None:
        """Tell the tool, which is still there, that it has confirmed its new image."""
        body = {"status": "SUCCEEDED", "statusDetails": {"fs": "8"}}
        status, said = self._told(msgspec.json.encode(body))
        assert status == httpx.codes.OK, said

    def _offer(self) -> dict[str, Any]:
        if not self._document:
            self._document = self._tool.get(f"/v1/local/job/{self._name}").json()
            self._document["afr_ota"]["streamname"] = "bench"
            self._image = self._tool.get(self._document["gnomon"]["http"]).content
        return {
            "jobId": self._document["gnomon"]["job"],
            "status": "QUEUED",
            "versionNumber": 1,
            "executionNumber": 1,
            "jobDocument": self._document,
        }

    def _told(self, body: bytes) -> tuple[int, dict[str, Any]]:
        answer = self._tool.post(f"/v1/local/status?thing={self._name}", content=body)
        self._status = msgspec.json.decode(body)["status"]
        return answer.status_code, answer.json()

    def _started(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        body = asked | {"status": "IN_PROGRESS", "includeJobExecutionState": True}
        status, said = self._told(msgspec.json.encode(body))
        if status == httpx.codes.OK:
            now = {"status": "IN_PROGRESS", "versionNumber": said["executionState"]["versionNumber"]}
            said["execution"] = self._offer() | now
        return status, said

    def _answer(self, job: str, operation: str, status: int, body: dict[str, Any]) -> None:
        outcome = "accepted" if status == httpx.codes.OK else "rejected"
        answer = JobAnswer(self._name, job, operation, outcome)
        self._computer.take(self._now(), answer, msgspec.json.encode(body))

    def _send_blocks(self, stream: str, asked: dict[str, Any]) -> None:
        if stream.startswith(STREAM):
            data = self._tool.get(PATH).raise_for_status().content
        else:
            data = {IMAGE: self._image, LEAVES: leaf_list(self._image, BLOCK)}[asked["f"]]
        size, first, bits = asked["l"], asked.get("o", 0), int.from_bytes(asked.get("b", b"\xff"), "little")
        for index in range(first, -(-len(data) // size)):
            if bits >> (index - first) & 1:
                block = {"f": asked["f"], "l": size, "i": index, "p": data[index * size : (index + 1) * size]}
                answer = StreamAnswer(self._name, stream, "data")
                self._computer.take(self._now(), answer, cbor2.dumps(block))
