"""What a run plants: lies that the service tells the devices of ``trap``, and bugs that it must notice.

In the service they are planted by ``tests.system.up --fault=tests.chaos_ota.plants:NAME``; the directory of
the child holds who plays which part. No code of the service or of a device knows that there are any.
"""

import base64
import hashlib
import itertools
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from unittest import mock

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleet.flash import Pages, PowerCutError
from infra.documents.sqlite import SqliteStore
from ota import manifest as manifests
from ota import order as orders
from ota import plan
from ota.envelope import Typ, open_envelope, seal
from ota.job_documents import JobDocuments
from ota.manifest import Manifest
from ota.order import Order, Proof
from ota.rolls import Roll
from ota.states import ExecutionState
from ota.verification import Verified
from tests import ota_base
from tests.chaos_ota.cast import Lie, read_cast

STRANGERS_KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_CLASS: Final = "00000000-0000-5000-8000-000000000000"
DAY_S: Final = 86_400
SIGNATURE_BYTES: Final = 64
HERE: Final = "tests.chaos_ota.plants"
HURRIED_JITTER_S: Final = 1
HURRIED_RETRY_MS: Final = 3_000
HURRIED_CODE_S: Final = 3

Sign = Callable[[Order], Awaitable[bytes]]
Sealed = tuple[bytes, bytes, bytes]
SEALED: Final = ("manifest", "order", "proof")


# ---------------------------------------------------------------------------- lies


def lies() -> None:
    """Have the service offer some devices what none of them may take."""
    honest, parts = JobDocuments.document, {part.thing: part for part in read_cast(Path()).parts}
    told: dict[tuple[str, Lie], Sealed] = {}

    async def document(documents: JobDocuments, execution: Any) -> bytes:
        truth = await honest(documents, execution)
        part = parts.get(execution.thing)
        if part is None or part.lie is None:
            return truth
        whole = msgspec.json.decode(truth)
        advice = whole["gnomon"]
        honest_manifest, honest_order, honest_proof = (base64.b64decode(advice[name]) for name in SEALED)
        key = execution.campaign, part.lie
        if key not in told:
            sign = documents._signer.sign
            told[key] = await lie_about(part.lie, honest_manifest, honest_order, honest_proof, sign)
        lie = told[key] if part.lie is Lie.OTHER_TARGET else (*told[key][:2], honest_proof)
        advice |= {name: base64.b64encode(data).decode() for name, data in zip(SEALED, lie, strict=True)}
        return msgspec.json.encode(whole)

    _replace("ota.job_documents.JobDocuments.document", document)


async def lie_about(lie: Lie, manifest: bytes, order: bytes, proof: bytes, sign: Sign) -> Sealed:
    """Return an offer with one thing wrong: what is signed is signed anew, by whoever should sign it."""
    said = manifests.read(open_envelope(manifest, Typ.MANIFEST).payload)
    meant = orders.read(open_envelope(order, Typ.ORDER).payload)
    if lie in _OF_MANIFESTS:
        manifest = seal(manifests.write(_OF_MANIFESTS[lie](said)), Typ.MANIFEST, ota_base.VENDOR_KEY)
        return manifest, await sign(_about(meant, manifest)), proof
    match lie:
        case Lie.EXPIRED_ORDER:
            past = replace(meant, not_before=said.issued - 9 * DAY_S, not_after=said.issued - DAY_S)
            return manifest, await sign(past), proof
        case Lie.ONLY_THE_VENDOR:
            return manifest, _signed_by(STRANGERS_KEY, order, Typ.ORDER), proof
        case Lie.ONLY_THE_UTILITY:
            forged = _signed_by(STRANGERS_KEY, manifest, Typ.MANIFEST)
            return forged, await sign(_about(meant, forged)), proof
        case Lie.VENDOR_SIGNS_BOTH:
            return manifest, seal(orders.write(meant), Typ.ORDER, ota_base.VENDOR_KEY), proof
        case Lie.STRANGER:
            return manifest, seal(orders.write(meant), Typ.ORDER, STRANGERS_KEY), proof
        case Lie.OTHER_TARGET:
            right = orders.decode_proof(proof)
            return manifest, order, orders.encode_proof(Proof(_other(right.index, meant.count), right.path))
        case Lie.OTHER_MANIFEST:
            return manifest, await sign(replace(meant, manifest="5a" * 32)), proof
        case _:
            raise AssertionError(lie)


_OF_MANIFESTS: Final[dict[Lie, Callable[[Manifest], Manifest]]] = {
    Lie.OLD_COUNTER: lambda said: replace(said, counter=0, version=said.version + 1),
    Lie.OLD_VERSION: lambda said: replace(said, counter=said.counter - 1, version=1),
    Lie.EXPIRED_MANIFEST: lambda said: replace(
        said, issued=said.issued - 9 * DAY_S, expires=said.issued - DAY_S
    ),
    Lie.WRONG_CLASS: lambda said: replace(said, hw=(OTHER_CLASS,)),
    Lie.WRONG_MODEL: lambda said: replace(said, model="norland-t1"),
}


def _about(order: Order, manifest: bytes) -> Order:
    return replace(order, manifest=hashlib.sha256(manifest).hexdigest())


def _signed_by(key: Ed25519PrivateKey, sealed: bytes, typ: Typ) -> bytes:
    """Return the same envelope, kid and all, with the signature of another key."""
    return sealed[:-SIGNATURE_BYTES] + key.sign(open_envelope(sealed, typ).signed)


def _other(index: int, count: int) -> int:
    return (index + 1) % count


def hurry() -> None:
    """Have devices wait less before they begin, or are tried again, and people for their next code."""
    mock.patch("ota.job_documents.JITTER_S", HURRIED_JITTER_S).start()
    mock.patch("ota.plan.RETRY_AFTER_MS", HURRIED_RETRY_MS).start()
    hurry_codes()


def hurry_codes() -> None:
    """Let a code last less long; whoever shows one and whoever checks it must do so."""
    mock.patch("security.people.totp.STEP_S", HURRIED_CODE_S).start()


# ---------------------------------------------------------------------------- bugs of the service


def abort_leaves_active() -> None:
    """Stop only what was not begun, as AWS does, and hold no gate."""
    honest = plan._aborted

    def lax(now_ms: int, campaign: Any, found: Any) -> Any:
        return honest(now_ms, campaign, replace(found, active=[]))

    _replace("ota.plan._aborted", lax)
    _replace("ota.gate.CampaignGate._refusal", lambda *_: None)


def miscount() -> None:
    """Forget now and then to take a target out of the state that it was in."""
    honest, numbers = Roll.note, itertools.count(1)

    def careless(roll: Roll, execution: Any) -> None:
        before = roll.get(execution.thing)
        honest(roll, execution)
        if before is not None and before.state is not execution.state and next(numbers) % 7 == 0:
            roll.counts[before.state] += 1

    _replace("ota.rolls.Roll.note", careless)


def forget_ends() -> None:
    """Say that a target's end is stored, and store it not."""
    honest, numbers = SqliteStore.commit, itertools.count(1)
    ended = f'"state":"{ExecutionState.SUCCEEDED}"'.encode()

    async def forgetful(store: SqliteStore, writes: Sequence[Any]) -> frozenset[int]:
        kept = [
            one
            for one in writes
            if one.collection != "ota_executions" or ended not in one.body or next(numbers) % 5
        ]
        lost = await honest(store, kept) if kept else frozenset()
        return frozenset(writes.index(kept[position]) for position in lost)

    _replace("infra.documents.sqlite.SqliteStore.commit", forgetful)


# ---------------------------------------------------------------------------- bugs of devices


def gullible() -> None:
    """Believe every offer."""

    def believe(offer: Any, *_: Any) -> Verified:
        said = manifests.read(open_envelope(offer.manifest, Typ.MANIFEST).payload)
        return Verified(said, orders.read(open_envelope(offer.order, Typ.ORDER).payload))

    _replace("fleet.offers.verify", believe)


def careless_blocks() -> None:
    """Look at no block, and read nothing back."""
    _replace("ota.verification.LeafList.judge", lambda *_: True)
    _replace("fleet.transfer.Transfer._length", lambda *_: _Any())
    _replace("fleet.firmware.sound", lambda *_: True)
    _replace("fleet.boot.sound", lambda *_: True)


class _Any:
    """Equal to everything."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return True


def one_page() -> None:
    """Write the record over itself, instead of into the other page."""

    def write(pages: Pages, data: bytes) -> None:
        number = int.from_bytes(pages.pages[0][:8]) + 1
        body = number.to_bytes(8) + data
        page = body + zlib.crc32(body).to_bytes(4)
        if pages._fuse.blows():
            pages.pages = [pages._fuse.torn(page, pages.pages[0]), b""]
            raise PowerCutError
        pages.pages = [page, b""]

    _replace("fleet.flash.Pages.write", write)


def no_way_back() -> None:
    """Try a new image for ever."""
    mock.patch("fleet.boot.TRIALS_MAX", 10**9).start()


SERVICE_BUGS: Final = {
    "abort-leaves-active": abort_leaves_active,
    "miscount": miscount,
    "forget-ends": forget_ends,
}
DEVICE_BUGS: Final = {
    "gullible": gullible,
    "careless-blocks": careless_blocks,
    "one-page": one_page,
    "no-way-back": no_way_back,
}


def fault(function: Callable[[], None]) -> str:
    """Return how a child is told to plant this."""
    return f"{HERE}:{function.__name__}"


def plant_in_devices(name: str) -> None:
    DEVICE_BUGS[name]()


def _replace(what: str, by: Any) -> None:
    mock.patch(what, by).start()  # never stopped: the process ends with it
