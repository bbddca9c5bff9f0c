"""Images as the utility has them: who sent one, and the bytes. Nothing here looks into an image.

An image is named by the SHA-256 of its bytes and stored once, whoever sends it. That it is here says nothing
about it: what may be installed is a release. (spec: ota, 2.1)
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import structlog

from infra.blobs import Blob, BlobMissingError, Blobs, Upload
from infra.clock import Clock
from infra.documents.port import Collection, DocumentStore
from infra.documents.records import Records
from ota.errors import ImageNotFoundError
from ota.trees import leaf_list
from security.audit import INSIDE, Via
from security.audited import Audited
from security.policy import Action, Principal, Scope, scope_of

IMAGES: Final = Collection("ota_images")
LEAVES_KEPT_MAX: Final = 64
"""Leaf lists in memory; one is at most 1/32 of its image."""
SWEEP_S: Final = 600.0

_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image that is here, whole."""

    sha256: str
    size: int
    stored_at_ms: int
    senders: tuple[str, ...] = ()
    """Ids of the vendors who sent it; none for what the utility sent itself."""


class ImageService:
    """Takes images and gives them out."""

    def __init__(self, store: DocumentStore, clock: Clock, blobs: Blobs) -> None:
        records = Records(store, IMAGES.name, Image)
        self._records = records
        self._audited = Audited(records, clock, "image")
        self._clock = clock
        self._blobs = blobs
        self._leaves: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    # ------------------------------------------------------------------ taking

    @contextmanager
    def receive(self, sha256: str, offset: int, by: Principal | None = None) -> Iterator[Upload]:
        """Take an image, or go on with one that broke off (see :meth:`infra.blobs.Blobs.receive`)."""
        with self._blobs.receive(sha256, offset, _sender(by)) as upload:
            yield upload

    async def finish(self, upload: Upload, by: Principal, via: Via = INSIDE) -> tuple[Image, bool]:
        """Keep what has come whole, and say whether it is new."""
        is_new = await upload.finish()
        sender = (by.account,) if _is_vendor(by) else ()

        def decide(before: Image | None) -> Image:
            if before is None:
                now_ms = self._clock.now_ms()
                return Image(sha256=upload.sha256, size=upload.offset, stored_at_ms=now_ms, senders=sender)
            return replace(before, senders=tuple(sorted({*before.senders, *sender})))

        image = await self._audited.change(upload.sha256, decide, Action.IMAGE_UPLOAD, by, via)
        return image, is_new

    def arrived(self, sha256: str, by: Principal) -> int:
        """Return how much has come from somebody of an image that is not whole yet."""
        return self._blobs.arrived(sha256, _sender(by))

    # ------------------------------------------------------------------ giving out

    async def image(self, sha256: str, by: Principal) -> Image:
        """Return an image; to a vendor only one that it has sent itself."""
        self._blobs.stored(sha256)  # refuses what is no name
        kept = await self._records.load(sha256)
        if kept is None or (_is_vendor(by) and by.account not in kept.record.senders):
            raise ImageNotFoundError(sha256)
        return kept.record

    async def blob(self, sha256: str, *, anew: bool = False) -> Blob:
        """Return the bytes; ``anew`` computes their hash once more even if they are in memory.

        Raises :class:`ImageNotFoundError`, :class:`~infra.blobs.DamagedBlobError`.
        """
        try:
            return await (self._blobs.check(sha256) if anew else self._blobs.load(sha256))
        except BlobMissingError as error:
            raise ImageNotFoundError(sha256) from error

    async def leaves(self, sha256: str, block: int) -> bytes:
        """Return the hashes of its hash blocks, one after the other."""
        key = (sha256, block)
        if key not in self._leaves:
            blob = await self.blob(sha256)
            self._leaves[key] = await asyncio.to_thread(leaf_list, blob.view, block)
            if len(self._leaves) > LEAVES_KEPT_MAX:
                self._leaves.popitem(last=False)
        self._leaves.move_to_end(key)
        return self._leaves[key]

    # ------------------------------------------------------------------ beside

    async def run(self) -> None:
        """Forget now and then what nobody goes on sending, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await asyncio.to_thread(self._blobs.sweep)
            except OSError as error:
                _log.warning("images_not_swept", reason=str(error))


def _sender(by: Principal | None) -> str:
    """Return whose an image is that comes: a vendor's, or the utility's own."""
    return "" if by is None or not _is_vendor(by) else by.account


def _is_vendor(by: Principal) -> bool:
    return scope_of(by.role, Action.IMAGE_UPLOAD) is Scope.ACCOUNT
