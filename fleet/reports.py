"""What a device reports of its firmware, and what it reads of the answers. Pure values in, trees out.

The shadow ``firmware`` is report only: the device says what is so, and nobody wishes anything there.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from fleet.boot import FileStatus, Image, Record
from fleet.trees import GONE, UNREADABLE, Leaves, Tree, leaves, patch
from ota.manifest import version_text

FACTS: Final = frozenset({FileStatus.ACTIVATING, FileStatus.ACTIVATION_FAILED, FileStatus.ACTIVATED})
"""States in which something has been started, or was; of the others a job says as much."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the loading is."""

    loaded: int
    blocks: int
    fails: int
    """Requests without an answer in time."""
    unavailable: int
    """Requests that the service could not answer."""
    since: float
    """The present state was entered, seconds since 1970."""


def firmware_report(hw: str, record: Record, slot: str, image: Image, progress: Progress) -> Tree:
    """Return what runs, where the image of the job is, and how far."""
    percent = 100 if record.state in FACTS else 100 * progress.loaded // max(progress.blocks, 1)
    return {
        "fw": {
            "sha256": image.sha256,
            "version": version_text(image.version),
            "label": image.label,
            "counter": image.counter,
            "confirmed": slot == record.running,
        },
        "hw": hw,
        "schema": image.schema,
        "slot": slot,
        "boot": record.boots,
        "healthy": True,  # what is not well falls back before it says anything
        "job": record.job,
        "file": {
            "status": int(record.state),
            "loadPercent": percent,
            "request503Count": progress.unavailable,
            "requestFailCount": progress.fails,
            "nextRequestAttempt": 0,
            "statusTime": int(progress.since),
        },
    }


def config_report(before: Tree, now: Tree) -> Tree:
    """Return the whole configuration of a new image, with nulls for what the old one had besides."""
    there = leaves(now)
    told: Leaves = {path: GONE for path in leaves(before) if path not in there} | there
    return patch(told)


class Sequence(msgspec.Struct, frozen=True):
    """The pair that orders reports."""

    epoch: int
    number: int


class ReportAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """What is read of an answer about a shadow."""

    client_token: str = ""
    code: int = 0
    current_sequence: Sequence | None = None


_ANSWERS: Final = msgspec.json.Decoder(ReportAnswer)


def read_answer(payload: bytes) -> ReportAnswer:
    """Return what an answer says; one without sense answers nothing."""
    try:
        return _ANSWERS.decode(payload)
    except UNREADABLE:
        return ReportAnswer()
