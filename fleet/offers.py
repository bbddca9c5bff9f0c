"""Is this job for us, and may we do it? From an execution to a checked job, or to a refusal. Pure.

The checks themselves, V1 to V17 in the order of the specification, are `ota.verification`; here a job
document is taken apart for them, the device says what it is, and what they find becomes what the job is told.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

from fleet.boot import FileStatus, Image, Record
from fleet.jobs import Advice, Execution, read_document
from fleet.makes import Make
from fleet.trees import UNREADABLE
from ota.manifest import DataMode
from ota.verification import (
    AlreadyCurrent,
    DeviceFacts,
    Ends,
    Keys,
    LeafList,
    Offer,
    Refused,
    Verified,
    check_gate,
    verify,
)

SUCCEEDED, FAILED, REJECTED = "SUCCEEDED", "FAILED", "REJECTED"
_ENDS: Final = {Ends.FAILED: FAILED, Ends.REJECTED: REJECTED}
MODES: Final = {DataMode.PRESERVE: "preserve", DataMode.RESET: "reset"}


@dataclass(frozen=True, slots=True)
class Checked:
    """A job that has passed V1 to V13."""

    job: str
    stream: str
    advice: Advice
    image: Image
    data: str
    """What is to become of the configuration: ``preserve`` or ``reset``."""
    facts: DeviceFacts
    verified: Verified

    def leaf_list(self, data: bytes) -> LeafList | None:
        """Return what judges the blocks; None for another list than the one that was signed (V14)."""
        try:
            return LeafList(data, self.verified.manifest)
        except Refused:
            return None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a job is not done, and how that is told: also a success that needs no doing."""

    code: str
    end: str
    state: FileStatus


def examine(
    execution: Execution, thing: str, make: Make, record: Record, keys: Keys, now_s: int
) -> Checked | Refusal:
    """Decide about a job that is offered."""
    try:
        document = read_document(execution.job_document)
    except UNREADABLE:
        return Refusal("manifest_encoding", FAILED, FileStatus.SIGNATURE_FAILED)
    advice = document.gnomon
    facts = _facts(thing, make, record)
    offer = Offer(advice.manifest, advice.order, advice.proof)
    try:
        found = verify(offer, facts, keys, now_s, record.floor)
    except Refused as refused:
        return _refusal(refused)
    if isinstance(found, AlreadyCurrent):
        return Refusal("already_current", SUCCEEDED, FileStatus.ACTIVATED)
    mode = MODES[found.order.data]
    stream = document.afr_ota.streamname
    return Checked(execution.job_id, stream, advice, _image(found, advice.manifest), mode, facts, found)


def keys_named(execution: Execution) -> int:
    """Return the number of the key list that a job names; 0: none."""
    try:
        return read_document(execution.job_document).gnomon.keys
    except UNREADABLE:
        return 0


def once_more(checked: Checked, record: Record, now_s: int) -> Refusal | None:
    """Ask at the gate what may have changed since (V17)."""
    try:
        check_gate(checked.verified, checked.facts, now_s, record.floor)
    except Refused as refused:
        return _refusal(refused)
    return None


def _refusal(refused: Refused) -> Refusal:
    return Refusal(refused.code, _ENDS[refused.ends], FileStatus(refused.status.value))


def _facts(thing: str, make: Make, record: Record) -> DeviceFacts:
    running = record.image
    return DeviceFacts(
        thing=thing,
        vendor=make.vendor,
        model=make.model,
        hw=make.hw,
        sha256=running.sha256,
        confirmed=True,  # jobs are looked at only while the confirmed image runs
        version=running.version,
        counter=running.counter,
        counter_confirmed=record.counter,
        config_schema=running.schema,
        slot_bytes=make.slot_bytes,
        components=make.components,
    )


def _image(found: Verified, sealed: bytes) -> Image:
    manifest = found.manifest
    return Image(
        sha256=manifest.sha256,
        size=manifest.size,
        block=manifest.block,
        version=manifest.version,
        label=manifest.label,
        counter=manifest.counter,
        schema=manifest.config_schema,
        manifest=hashlib.sha256(sealed).hexdigest(),
        issued=manifest.issued,
    )
