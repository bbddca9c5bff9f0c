"""The shadow vectors, read: for every suite that sends requests, whatever way they go.

A suite puts ``given`` into its store, sends each step's ``payload`` at its ``now`` and compares with
:func:`canonical`. Nothing here knows our code. (Format: ``make_shadow.py`` beside this file.)
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).with_name("shadow")
HALL = "hall"
"""The thing that the vectors speak of."""

Json = Any


@dataclass(frozen=True, slots=True)
class Step:
    """One request and what must come of it."""

    now: int
    operation: str
    payload: bytes
    accepted: Json
    rejected: Json
    delta: Json
    document: Json
    """Afterwards: ``{"state", "metadata", "version", "timestamp"}``; None when there is none."""

    def documents(self, before: Json) -> Json:
        """Return what ``update/documents`` says, given the document before; None when it says nothing."""
        if self.operation != "update" or self.accepted is None or self.document == before:
            return None
        message = {
            "previous": None if before is None else _version(before),
            "current": _version(self.document),
            "timestamp": self.document["timestamp"],
        }
        token = self.accepted.get("clientToken")
        return message if token is None else message | {"clientToken": token}


@dataclass(frozen=True, slots=True)
class Case:
    """One file."""

    name: str
    shadow: str
    role: str
    given: Json
    steps: tuple[Step, ...]


def cases() -> Iterator[Case]:
    """Yield all vectors in order of their names."""
    for path in sorted(DIRECTORY.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        steps = (content, *content.get("then", ()))
        yield Case(
            path.stem,
            content.get("shadow", ""),
            content.get("role", "device"),
            content["given"],
            tuple(_step(step) for step in steps),
        )


def canonical(value: Json) -> str:
    """Return a text by which two values are equal only if their kinds are: 1, 1.0 and true all differ."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def read(body: bytes | None) -> Json:
    """Return what a message says; refuse a name that stands twice in an object."""
    return None if body is None else json.loads(body, object_pairs_hook=_object)


def told(body: bytes) -> Json:
    """Return a rejected body without what is for people."""
    answer = read(body)
    assert isinstance(answer.pop("detail", ""), str)
    return answer


def _step(content: dict[str, Json]) -> Step:
    expect = content["expect"]
    return Step(
        content["now"],
        content.get("operation", "update"),
        _payload(content),
        expect.get("accepted"),
        expect.get("rejected"),
        expect["delta"],
        expect["document"],
    )


def _payload(content: dict[str, Json]) -> bytes:
    if "request_hex" in content:
        return bytes.fromhex(content["request_hex"])
    if "request_runs" in content:
        return "".join(text * times for text, times in content["request_runs"]).encode()
    if "request_text" in content:
        text: str = content["request_text"]
        return text.encode()
    return json.dumps(content["request"], ensure_ascii=False).encode()


def _version(document: Json) -> Json:
    return {name: document[name] for name in ("state", "metadata", "version")}


def _object(pairs: list[tuple[str, Json]]) -> Json:
    read = dict(pairs)
    assert len(read) == len(pairs), f"a name stands twice among {[name for name, _ in pairs]}"
    return read
