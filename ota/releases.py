"""Releases: an image, what its vendor says of it, and that the utility lets devices have it.

What is made here was checked against the stored bytes, the vendor's key and the model (U1 to U9); a second
person releases it (U10); either may withdraw it, for good. A version of a model is one image for ever. What a
release says is in the vendor's envelope and read from there. (spec: ota, 2.5)
"""

import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import structlog

from infra.blobs import Blob, DamagedBlobError
from infra.clock import MS_PER_S, Clock
from infra.documents.port import PAGE_MAX, Collection, DocumentStore, IndexValue
from infra.documents.records import RecordPage, Records
from infra.machines import Transition, remember
from ota import manifest as manifests
from ota.envelope import Typ, open_envelope
from ota.errors import (
    CounterError,
    ForeignVendorError,
    ImageNotFoundError,
    OtherRequestError,
    ReleaseNotFoundError,
    ReleaseRefusedError,
    SamePersonError,
    VersionUsedError,
)
from ota.images import ImageService
from ota.keys import SigningKeys
from ota.library import Published
from ota.manifest import Manifest, version_text
from ota.states import RELEASE, ReleaseState, ReleaseTrigger
from ota.trees import list_tree
from ota.verification import Refused, signed_manifest
from registry.catalogue import DeviceModel, ModelCatalogue, ModelFirmware, Signatures
from security.audit import INSIDE, Via
from security.audited import Audited, RecordBusyError
from security.policy import Action, Principal, Role, Scope, scope_of

RELEASES: Final = Collection("ota_releases", ("state", "model", "vendor", "image", "stream", "listed"))
VERSIONS: Final = Collection("ota_versions")
AHEAD_S_MAX: Final = 600
"""How far a vendor's clock may be ahead of ours."""
LIFE_LEFT_S_MIN: Final = 86_400
_Check = tuple[str, str, str]
READ_MAX: Final = 256
"""Manifests that are kept read: those of running campaigns are looked at all the time."""
STREAM_PREFIX: Final = "fw-"
STREAM_HASH_CHARS: Final = 20
OURS: Final = Principal("system", Role.SYSTEM)
_LISTED: Final = 1

_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRelease:
    """What somebody wants to release. ``afr_signature`` is over the image, for FreeRTOS agents."""

    image: str
    envelope: bytes
    afr_signature: bytes = b""
    notes: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release as it is kept."""

    id: str
    vendor: str
    model: str
    image: str
    """SHA-256, hex."""
    envelope: bytes
    """The vendor's manifest, COSE."""
    afr_signature: bytes = b""
    notes: str = ""
    state: ReleaseState
    author: str
    created_at_ms: int
    transitions: tuple[Transition, ...]
    request: str
    """Hash of what was asked for, so that the same key with something else is noticed."""

    @property
    def manifest(self) -> Manifest:
        """What its vendor says of the image."""
        return _read(self.envelope)

    @property
    def manifest_sha256(self) -> str:
        """By which an order names it."""
        return hashlib.sha256(self.envelope).hexdigest()

    @property
    def stream(self) -> str:
        """The name under which devices get its files."""
        return stream_of(self.envelope)

    @property
    def is_released(self) -> bool:
        """Whether devices may have it now."""
        return self.state is ReleaseState.RELEASED


@dataclass(frozen=True, slots=True)
class Use:
    """For which release a version of a model was used."""

    release: str
    image: str


@lru_cache(maxsize=READ_MAX)
def _read(envelope: bytes) -> Manifest:
    return manifests.read(open_envelope(envelope, Typ.MANIFEST).payload)


def stream_of(envelope: bytes) -> str:
    """Return the stream of the files that a manifest is about."""
    return STREAM_PREFIX + hashlib.sha256(envelope).hexdigest()[:STREAM_HASH_CHARS]


def release_id(by: str, key: str) -> str:
    """Return the id of what somebody asked for under a key: the same one for the same."""
    digits = hashlib.sha256(f"release\0{by}\0{key}".encode()).hexdigest()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:32]))


def unfit(manifest: Manifest, new: NewRelease, model: DeviceModel | None, now_s: int) -> Iterator[_Check]:
    """Yield what of a manifest does not fit the image's name, the model and the time (U6, U7, U8)."""
    if manifest.sha256 != new.image:
        yield "U6", "sha256", "the manifest is about another image"
    if new.notes and manifest.notes != hashlib.sha256(new.notes.encode()).hexdigest():
        yield "U6", "notes", "the manifest does not have the hash of these notes"
    if model is None or model.firmware is None:
        yield "U7", "model", "the catalogue does not say of such a model what firmware it takes"
    else:
        yield from _unfit_for(model.firmware, manifest, new)
    if manifest.issued > now_s + AHEAD_S_MAX:
        yield "U8", "issued", "it was issued in the future"
    if manifest.expires < now_s + LIFE_LEFT_S_MIN:
        yield "U8", "expires", "it ends within a day"


def _unfit_for(firmware: ModelFirmware, manifest: Manifest, new: NewRelease) -> Iterator[_Check]:
    """Yield what of it is not as the catalogue says of the model."""
    if firmware.vendor != manifest.vendor:
        yield "U7", "vendor", f"firmware of this model is made by {firmware.vendor}"
    if strange := sorted(set(manifest.hw) - set(firmware.classes.values())):
        yield "U7", "classes", f"unknown hardware classes: {', '.join(strange)}"
    if str(manifest.config_schema) not in firmware.schemas:
        yield "U7", "config_schema", f"the catalogue has no config schema {manifest.config_schema}"
    if manifest.size > firmware.slot_bytes:
        yield "U2", "too_large", f"the slot of this model has {firmware.slot_bytes} bytes"
    if firmware.trust is Signatures.AFR and not new.afr_signature:
        yield "U7", "afr_signature", "devices of this model check a signature of the image itself"


class ReleaseService:
    """Makes releases, lets devices have them, takes them back."""

    def __init__(
        self,
        store: DocumentStore,
        clock: Clock,
        *,
        images: ImageService,
        keys: SigningKeys,
        models: ModelCatalogue,
    ) -> None:
        self._records = Records(store, RELEASES.name, Release, _found_by)
        self._audited = Audited(self._records, clock, "release")
        self._versions = Records(store, VERSIONS.name, Use)
        self._clock = clock
        self._images = images
        self._keys = keys
        self._models = models

    # ------------------------------------------------------------------ reading

    async def release(self, id: str) -> Release:
        """Return a release."""
        kept = await self._records.load(id)
        if kept is None:
            raise ReleaseNotFoundError
        return kept.record

    async def open_to(self, by: Principal, id: str) -> Release:
        """Return a release; to a vendor only one of its own."""
        found = await self.release(id)
        if _is_vendor(by) and found.vendor != by.account:
            raise ReleaseNotFoundError
        return found

    async def page(
        self, by: Principal, state: ReleaseState | None, limit: int, cursor: str | None = None
    ) -> RecordPage[Release]:
        """Return a page of releases in a state, or of all; a vendor's are its own, and may be fewer."""
        if _is_vendor(by):
            page = await self._records.page("vendor", by.account, by.account, limit, cursor)
            found = zip(page.ids, page.records, strict=True)
            wanted = [(id, one) for id, one in found if state in {None, one.state}]
            return RecordPage(tuple(id for id, _ in wanted), tuple(one for _, one in wanted), page.next)
        if state is not None:
            return await self._records.page("state", state.value, state.value, limit, cursor)
        return await self._records.page("listed", _LISTED, _LISTED, limit, cursor)

    async def released(self, model: str) -> tuple[Release, ...]:
        """Return what devices of a model may have now."""
        return tuple([one async for one in self._of_model(model) if one.is_released])

    async def by_stream(self, stream: str) -> Release | None:
        """Return the release whose files a stream has."""
        found = await self._records.load_by("stream", [stream], 1)
        return found[0] if found else None

    async def published(self, stream: str) -> Published | None:
        """Return what a stream is about, if devices may have it now."""
        found = await self.by_stream(stream)
        if found is None or not found.is_released or await self._sound(found.image) is None:
            return None
        return Published(found.manifest, found.envelope)

    async def released_image(self, sha256: str) -> Blob | None:
        """Return the bytes of an image, if devices may have it now."""
        if not any([one.is_released async for one in self._pages("image", sha256)]):
            return None
        return await self._sound(sha256)

    async def _sound(self, sha256: str) -> Blob | None:
        """Return the bytes of an image, if they are what they were; else whatever has it is withdrawn."""
        try:
            return await self._images.blob(sha256)
        except (DamagedBlobError, ImageNotFoundError):
            await self._withdraw_damaged(sha256)
            return None

    # ------------------------------------------------------------------ making

    async def create(self, new: NewRelease, by: Principal, via: Via = INSIDE, *, key: str) -> Release:
        """Make a release; the same again under the same ``key`` is the one that there is.

        Raises:
            ForeignVendorError: a vendor asks for another one's (U1).
            ReleaseRefusedError: with all that is wrong with it.
            VersionUsedError: the model's version is another image.
            CounterError: the counter is below what was released for the same hardware.
            OtherRequestError: something else came under this key.
        """
        id, request = release_id(by.name, key), _request(new)
        kept = await self._records.load(id)
        if kept is not None:
            if kept.record.request != request:
                raise OtherRequestError
            return kept.record
        manifest = await self._checked(new, by)
        await self._require_counter(manifest)
        await self._take_version(manifest, new, id)
        now_ms = self._clock.now_ms()

        def decide(before: Release | None) -> Release:
            if before is not None:
                return before
            state = RELEASE.after(None, ReleaseTrigger.VERIFY)
            return Release(
                id=id,
                vendor=manifest.vendor,
                model=manifest.model,
                image=new.image,
                envelope=new.envelope,
                afr_signature=new.afr_signature,
                notes=new.notes,
                state=state,
                author=by.name,
                created_at_ms=now_ms,
                transitions=(Transition(now_ms, by.name, "", "", ReleaseTrigger.VERIFY, state),),
                request=request,
            )

        return await self._audited.change(id, decide, "release.create", by, via)

    async def let_out(self, id: str, by: Principal, via: Via = INSIDE) -> Release:
        """Let devices have it. All is checked once more, the bytes on the disk too.

        Raises :class:`~ota.errors.SamePersonError` for who made it, and what :meth:`create` does.
        """
        found = await self.release(id)
        _require_other(found, by)
        RELEASE.after(found.state, ReleaseTrigger.RELEASE)
        manifest = await self._checked(_asked(found), OURS, anew=True)
        await self._require_counter(manifest)
        return await self._step(id, ReleaseTrigger.RELEASE, by, via)

    async def withdraw(self, id: str, by: Principal, via: Via = INSIDE, *, reason: str = "") -> Release:
        """Take it back for good: nobody gets it any more, and its campaigns stop."""
        return await self._step(id, ReleaseTrigger.WITHDRAW, by, via, reason)

    async def _withdraw_damaged(self, sha256: str) -> None:
        _log.error("image_damaged", image=sha256)
        for one in [one async for one in self._pages("image", sha256)]:
            if one.state is not ReleaseState.WITHDRAWN:
                await self.withdraw(one.id, OURS, reason="the stored image is damaged")

    async def _step(
        self, id: str, trigger: ReleaseTrigger, by: Principal, via: Via, reason: str = ""
    ) -> Release:
        now_ms = self._clock.now_ms()

        def decide(before: Release | None) -> Release:
            if before is None:
                raise ReleaseNotFoundError
            if trigger is ReleaseTrigger.RELEASE:
                _require_other(before, by)
            state = RELEASE.after(before.state, trigger)
            step = Transition(now_ms, by.name, reason, before.state, trigger, state)
            return replace(before, state=state, transitions=remember(before.transitions, step))

        return await self._audited.change(id, decide, f"release.{trigger}", by, via, reason=reason)

    # ------------------------------------------------------------------ checking

    async def _checked(self, new: NewRelease, by: Principal, *, anew: bool = False) -> Manifest:
        """Return what the vendor says, if all of it is true."""
        try:
            manifest = signed_manifest(new.envelope, await self._keys.keys())
        except Refused as error:
            # Nothing that stands in it can be believed, so nothing else of it is looked at.
            raise ReleaseRefusedError((("U5", error.code, str(error)),)) from error
        if _is_vendor(by) and manifest.vendor != by.account:
            raise ForeignVendorError
        model = (await self._models.models([manifest.model])).get(manifest.model)
        now_s = self._clock.now_ms() // MS_PER_S
        checks = [
            *unfit(manifest, new, model, now_s),
            *[one async for one in self._image_checks(manifest, new, by, anew=anew)],
        ]
        if checks:
            raise ReleaseRefusedError(tuple(sorted(checks)))
        return manifest

    async def _image_checks(
        self, manifest: Manifest, new: NewRelease, by: Principal, *, anew: bool
    ) -> AsyncIterator[_Check]:
        """Yield what is wrong with the stored bytes (U4, U6, and the signature for FreeRTOS agents)."""
        try:
            await self._images.image(new.image, by)
            blob = await self._images.blob(new.image, anew=anew)
        except ImageNotFoundError:
            yield "U4", "image", "there is no such image: send it first"
            return
        except DamagedBlobError:
            yield "U4", "image", "the stored image is damaged: send it again"
            return
        if manifest.size != blob.size:
            yield "U6", "size", f"the image has {blob.size} bytes"
        elif list_tree(await self._images.leaves(new.image, manifest.block)).root != manifest.root:
            yield "U6", "root", "the blocks of the image have another root"
        if new.afr_signature and not await self._keys.signs_image(
            manifest.vendor, blob.view, new.afr_signature
        ):
            yield "U7", "afr_signature", "no key of the vendor has signed the image so"

    async def _require_counter(self, manifest: Manifest) -> None:
        least = max(
            [
                one.manifest.counter
                async for one in self._of_model(manifest.model)
                if one.is_released and set(one.manifest.hw) & set(manifest.hw)
            ],
            default=0,
        )
        if manifest.counter < least:
            raise CounterError(least)

    async def _take_version(self, manifest: Manifest, new: NewRelease, id: str) -> None:
        """Let the version of the model be this image for ever (U9)."""
        version = version_text(manifest.version)
        name, use = f"{manifest.model}:{version}", Use(id, new.image)
        kept = await self._versions.load(name)
        if kept is not None and kept.record != use:
            former = await self._records.load(kept.record.release)
            # A withdrawn one of the same image makes place: a vendor may say something else of it.
            over = former is None or former.record.state is ReleaseState.WITHDRAWN
            if kept.record.image != new.image or not over:
                raise VersionUsedError(version)
            if former is not None and former.record.envelope == new.envelope:
                raise VersionUsedError(version)
        if not await self._versions.put(name, use, 0 if kept is None else kept.revision):
            raise RecordBusyError("version")

    def _of_model(self, model: str) -> AsyncIterator[Release]:
        return self._pages("model", model)

    async def _pages(self, field: str, value: str) -> AsyncIterator[Release]:
        cursor: str | None = None
        while True:
            page = await self._records.page(field, value, value, PAGE_MAX, cursor)
            for one in page.records:
                yield one
            if (cursor := page.next) is None:
                return


def _require_other(release: Release, by: Principal) -> None:
    if by.name == release.author:
        raise SamePersonError


def _asked(release: Release) -> NewRelease:
    return NewRelease(
        image=release.image,
        envelope=release.envelope,
        afr_signature=release.afr_signature,
        notes=release.notes,
    )


def _request(new: NewRelease) -> str:
    parts = (new.image.encode(), new.envelope, new.afr_signature, new.notes.encode())
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _is_vendor(by: Principal) -> bool:
    return scope_of(by.role, Action.IMAGE_UPLOAD) is Scope.ACCOUNT


def _found_by(release: Release) -> Mapping[str, IndexValue]:
    return {
        "state": release.state.value,
        "model": release.model,
        "vendor": release.vendor,
        "image": release.image,
        "stream": release.stream,
        "listed": _LISTED,
    }
