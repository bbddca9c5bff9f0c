"""A shadow service of eighty lines, for tests of the fleet: in memory, no limits, no durability.

It does what a device can notice: merge, versions, delta before accepted, replays, sequences, 404.
Not the reference for the protocol (that is `tests/vectors`), and no code of `shadow/` is in it.
"""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

SendList = list[tuple[str, bytes]]


@dataclass
class Document:
    desired: dict[str, Any] = field(default_factory=dict)
    reported: dict[str, Any] = field(default_factory=dict)
    version: int = 0
    sequence: tuple[int, int] = (-1, -1)
    answers: dict[tuple[str, str], bytes] = field(default_factory=dict)  # (token, hash) → answer


class StandIn:
    """Answers requests by topic; ``attachments`` says which gateways carry a thing's messages."""

    def __init__(self, attachments: dict[str, tuple[str, ...]] | None = None) -> None:
        self.documents: dict[tuple[str, str], Document] = {}
        self.attachments = attachments or {}
        self.applied: list[dict[str, Any]] = []  # update requests in the order they took effect

    def document(self, thing: str, shadow: str = "") -> Document:
        return self.documents[thing, shadow]

    def wish(self, thing: str, desired: dict[str, Any], shadow: str = "") -> SendList:
        """Write ``desired`` as an app would, over HTTP: a delta, no accepted."""
        document = self.documents.setdefault((thing, shadow), Document())
        merge(document.desired, desired)
        document.version += 1
        return self._delta(thing, shadow, document)

    def handle(self, topic: str, payload: bytes) -> SendList:
        """Answer one request, in the order a device sees: delta, then accepted."""
        base, thing, shadow, operation = split(topic)
        request = json.loads(payload or b"{}")
        if operation == "get":
            return [self._get(base, thing, shadow, request)]
        return self._update(base, thing, shadow, request, hashlib.sha256(payload).hexdigest())

    def _get(self, base: str, thing: str, shadow: str, request: dict[str, Any]) -> tuple[str, bytes]:
        document = self.documents.get((thing, shadow))
        if document is None:
            return f"{base}/get/rejected", say(code=404, clientToken=request["clientToken"])
        state = {"desired": document.desired, "reported": document.reported}
        if left := delta(document.desired, document.reported):
            state["delta"] = left
        body = say(state=state, version=document.version, clientToken=request["clientToken"])
        return f"{base}/get/accepted", body

    def _update(self, base: str, thing: str, shadow: str, request: dict[str, Any], digest: str) -> SendList:
        document = self.documents.setdefault((thing, shadow), Document())
        token = request.get("clientToken", "")
        if token and (token, digest) in document.answers:
            return [(f"{base}/update/accepted", document.answers[token, digest])]
        pair = (
            (request["sequence"]["epoch"], request["sequence"]["number"]) if "sequence" in request else None
        )
        if pair is not None and pair <= document.sequence:
            current = {"epoch": document.sequence[0], "number": document.sequence[1]}
            return [(f"{base}/update/rejected", say(code=409, clientToken=token, currentSequence=current))]
        document.sequence = pair or document.sequence
        for section in ("desired", "reported"):
            merge(getattr(document, section), request["state"].get(section) or {})
        document.version += 1
        self.applied.append(request)
        answer = say(state=request["state"], version=document.version, clientToken=token)
        document.answers[token, digest] = answer
        return [*self._delta(thing, shadow, document), (f"{base}/update/accepted", answer)]

    def _delta(self, thing: str, shadow: str, document: Document) -> SendList:
        left = delta(document.desired, document.reported)
        tail = f"/name/{shadow}/update/delta" if shadow else "/update/delta"
        bases = [f"$aws/things/{thing}/shadow"]
        bases += [
            f"gnomon/gateways/{one}/down/things/{thing}/shadow" for one in self.attachments.get(thing, ())
        ]
        body = say(state=left, version=document.version)
        return [(base + tail, body) for base in bases] if left else []


def split(topic: str) -> tuple[str, str, str, str]:
    """Return (base of the answers, thing, shadow, operation)."""
    parts = topic.split("/")
    thing_at = 2 if parts[0] == "$aws" else 5
    base, tail = "/".join(parts[:-1]).replace("/up/", "/down/", 1), parts[thing_at + 2 :]
    return base, parts[thing_at], tail[1] if len(tail) == 3 else "", parts[-1]


def say(**members: Any) -> bytes:
    return json.dumps(members).encode()


def merge(old: dict[str, Any], patch: dict[str, Any]) -> None:
    for name, value in patch.items():
        if value is None:
            old.pop(name, None)
        elif isinstance(value, dict):
            below = old[name] if isinstance(old.get(name), dict) else {}
            merge(below, value)
            old[name] = below
        else:
            old[name] = value


def delta(desired: dict[str, Any], reported: dict[str, Any]) -> dict[str, Any]:
    left: dict[str, Any] = {}
    for name, value in desired.items():
        theirs = reported.get(name)
        if isinstance(value, dict) and isinstance(theirs, dict):
            if below := delta(value, theirs):
                left[name] = below
        elif name not in reported or value != theirs or isinstance(value, bool) != isinstance(theirs, bool):
            left[name] = value
    return left
