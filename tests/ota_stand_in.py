"""Jobs and streams in memory, for tests of devices: written from the protocol's description.

It does what a device can notice of one campaign: offers, start-next, updates, the gate, retries of the same
bytes, blocks at once and in rising order. Bad luck comes from its ``wire``.
"""

import hashlib
import json
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any

import cbor2

from tests.ota_base import NOW_S
from tests.shadow_stand_in import SendList, StandIn, say

DATA_BYTES_MAX = 131_072
FINAL = {"SUCCEEDED", "FAILED", "REJECTED", "TIMED_OUT", "CANCELED", "REMOVED"}


@dataclass
class Job:
    id: str
    document: dict[str, Any]
    stream: str
    files: dict[int, bytes]
    status: str = "QUEUED"
    details: dict[str, str] = field(default_factory=dict)
    version: int = 1
    attempt: int = 1
    answers: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    history: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def execution(self) -> dict[str, Any]:
        return {
            "jobId": self.id,
            "status": self.status,
            "statusDetails": self.details,
            "versionNumber": self.version,
            "executionNumber": self.attempt,
            "jobDocument": self.document,
            "queuedAt": NOW_S,
            "lastUpdatedAt": NOW_S,
        }

    def state(self) -> dict[str, Any]:
        return {"status": self.status, "statusDetails": self.details, "versionNumber": self.version}


class OtaStandIn(StandIn):
    """The shadow stand-in with jobs and streams beside it."""

    def __init__(self, attachments: dict[str, tuple[str, ...]] | None = None) -> None:
        super().__init__(attachments)
        self.jobs: dict[str, Job] = {}
        self.gate = lambda _job: ("go", 0)
        self.wire = lambda _file, _index, data: [data]
        self.key_lists: dict[str, bytes] = {}
        """By stream: they need no job."""
        self.requests: list[tuple[str, str]] = []
        self.is_recalled = False
        """The offer was taken back: it is as if it were not there."""

    def offer(self, thing: str, job: Job) -> SendList:
        self.jobs[thing] = job
        return self._push(thing)

    def cancel(self, thing: str) -> SendList:
        self._set(self.jobs[thing], "CANCELED")
        return self._push(thing)

    def retry(self, thing: str) -> SendList:
        job = self.jobs[thing]
        job.status, job.details, job.version, job.attempt = "QUEUED", {}, 1, job.attempt + 1
        return self._push(thing)

    def handle(self, topic: str, payload: bytes) -> SendList:
        head, kind, tail = split(topic)
        if kind == "jobs":
            return self._on_job(head, tail, payload)
        if kind == "streams":
            return self._on_stream(head, tail, payload)
        return super().handle(topic, payload)

    # -- jobs -------------------------------------------------------------------

    def _on_job(self, head: str, tail: str, payload: bytes) -> SendList:
        thing = head.rsplit("/", 1)[1]
        job, body = self.jobs.get(thing), json.loads(payload)
        self.requests.append((thing, tail))
        base = f"{head.replace('/up/', '/down/', 1)}/jobs/{tail}"
        seen = (body["clientToken"], hashlib.sha256(payload).hexdigest())
        if job is not None and seen in job.answers:
            topic, answer = job.answers[seen]
            return [(topic, answer)]
        outcome, members = self._answer(job, tail, body)
        answer = say(**members, clientToken=body["clientToken"], timestamp=NOW_S)
        if job is not None:
            job.answers[seen] = (f"{base}/{outcome}", answer)
        pushes = self._push(thing) if job is not None and members.pop("push", False) else []
        return [(f"{base}/{outcome}", answer), *pushes]

    def _answer(self, job: Job | None, tail: str, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        pending = job is not None and job.status not in FINAL and not self.is_recalled
        if tail in ("$next/get", "start-next"):
            if job is None or not pending:
                return "accepted", {}
            if tail == "start-next" and job.status == "QUEUED":
                self._set(job, "IN_PROGRESS", body.get("statusDetails"))
            return "accepted", {"execution": job.execution()}
        id, operation = tail.split("/")
        assert operation == "update"
        if job is None or id != job.id or (self.is_recalled and body["status"] in FINAL):
            return "rejected", {"code": "ResourceNotFound", "message": ""}
        if job.status in FINAL or body.get("executionNumber", job.attempt) != job.attempt:
            return "rejected", {
                "code": "InvalidStateTransition",
                "message": "",
                "executionState": job.state(),
            }
        if "expectedVersion" in body and int(body["expectedVersion"]) != job.version:
            return "rejected", {"code": "VersionMismatch", "message": "", "executionState": job.state()}
        details = body.get("statusDetails", {})
        if details.get("gate") == "ask":
            return self._at_gate(job, details)
        self._set(job, body["status"], details)
        return "accepted", {"executionState": job.state(), "push": job.status in FINAL}

    def _at_gate(self, job: Job, details: dict[str, str]) -> tuple[str, dict[str, Any]]:
        word, wait_s = self.gate(job)
        if word == "go":
            self._set(job, "IN_PROGRESS", {**details, "gate": "go"})
            return "accepted", {"executionState": job.state()}
        if word == "hold":
            refusal = {"code": "RequestThrottled", "message": "hold: window", "retryAfter": wait_s}
            return "rejected", refusal
        return "rejected", {"code": "InvalidStateTransition", "message": "", "executionState": job.state()}

    def _set(self, job: Job, status: str, details: dict[str, str] | None = None) -> None:
        job.status, job.version = status, job.version + 1
        job.details = dict(details) if details is not None else job.details
        assert all(isinstance(value, str) and value for value in job.details.values())
        job.history.append((status, job.details))

    def _push(self, thing: str) -> SendList:
        job = self.jobs[thing]
        body: dict[str, Any] = {"timestamp": NOW_S}
        if job.status not in FINAL:
            body["execution"] = job.execution()
        heads = [f"$aws/things/{thing}"]
        heads += [f"gnomon/gateways/{one}/down/things/{thing}" for one in self.attachments.get(thing, ())]
        return [(f"{head}/jobs/notify-next", json.dumps(body).encode()) for head in heads]

    # -- streams ----------------------------------------------------------------

    def _on_stream(self, head: str, tail: str, payload: bytes) -> SendList:
        thing, (stream, operation, fmt) = head.rsplit("/", 1)[1], tail.split("/")
        assert (operation, fmt) == ("get", "cbor")
        job, body = self.jobs.get(thing), cbor2.loads(payload)
        base = f"{head.replace('/up/', '/down/', 1)}/streams/{stream}"
        if stream.startswith("keys-"):
            self.requests.append((thing, stream))
            return self._on_key_list(base, self.key_lists.get(stream))
        if job is None or job.stream != stream or job.status != "IN_PROGRESS" or body["f"] not in job.files:
            return [(f"{base}/rejected/cbor", cbor2.dumps({"o": "ResourceNotFound", "m": ""}))]
        data, size = job.files[body["f"]], body["l"]
        wanted = [index for index in wanted_blocks(body) if index * size < len(data)]
        messages = []
        for index in wanted[: max(1, DATA_BYTES_MAX // size)]:
            block = data[index * size : (index + 1) * size]
            for copy in self.wire(body["f"], index, block):
                answer = {"f": body["f"], "l": len(copy), "i": index, "p": copy}
                messages.append((f"{base}/data/cbor", cbor2.dumps(answer)))
        return messages

    def _on_key_list(self, base: str, content: bytes | None) -> SendList:
        if content is None:
            return [(f"{base}/rejected/cbor", cbor2.dumps({"o": "ResourceNotFound", "m": ""}))]
        copies = self.wire(-1, 0, content)
        return [
            (f"{base}/data/cbor", cbor2.dumps({"f": 0, "l": len(one), "i": 0, "p": one})) for one in copies
        ]


def wanted_blocks(body: dict[str, Any]) -> list[int]:
    first = body.get("o", 0)
    if "b" not in body or body["b"] == b"MQ==":
        return list(range(first, first + body["n"]))
    bits = int.from_bytes(body["b"], "little")
    return [first + k for k in range(len(body["b"]) * 8) if bits >> k & 1][: body["n"]]


def split(topic: str) -> tuple[str, str, str]:
    """Return (everything up to the thing, jobs or streams or shadow, the rest)."""
    parts = topic.split("/")
    at = 2 if parts[0] == "$aws" else 5
    return "/".join(parts[: at + 1]), parts[at + 1], "/".join(parts[at + 2 :])


def job_document(stream: str, manifest: bytes, order: bytes, proof: bytes, **advice: Any) -> dict[str, Any]:
    signed = {"manifest": manifest, "order": order, "proof": proof}
    return {
        "afr_ota": {"protocols": ["MQTT"], "streamname": stream, "files": [{"filepath": "/fw", "fileid": 0}]},
        "gnomon": {
            "v": 1,
            **{name: b64encode(value).decode() for name, value in signed.items()},
            "deadline_s": 300,
            "confirm_s": 60,
            "block": 4096,
            "window": 8,
            "jitter_s": 0,
            "somethingNew": True,
            **advice,
        },
    }
