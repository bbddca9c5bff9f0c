"""What campaigns ask of the parts that know releases and keys."""

import base64
from dataclasses import dataclass
from typing import Protocol

from ota.manifest import Manifest
from ota.order import Order
from ota.releases import Release, ReleaseService
from ota.verification import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseView:
    """What a campaign must know of a release."""

    id: str
    model: str
    """Id in the catalogue."""
    is_released: bool
    manifest: Manifest
    envelope: bytes
    """The vendor's, COSE."""
    stream: str
    """Of its files."""
    afr_signature: str = ""
    """Of the image, for unmodified FreeRTOS agents: base64."""


class Releases(Protocol):
    """Knows what was released."""

    async def view(self, id: str) -> ReleaseView:
        """Return a release; raises an :class:`~ota.errors.OtaError` where there is none."""
        ...

    async def released(self, model: str) -> tuple[ReleaseView, ...]:
        """Return what is released for a model now."""
        ...


class ReleaseViews:
    """The releases of this service."""

    def __init__(self, releases: ReleaseService) -> None:
        self._releases = releases

    async def view(self, id: str) -> ReleaseView:
        return _view(await self._releases.release(id))

    async def released(self, model: str) -> tuple[ReleaseView, ...]:
        return tuple(_view(one) for one in await self._releases.released(model))


def _view(release: Release) -> ReleaseView:
    return ReleaseView(
        id=release.id,
        model=release.model,
        is_released=release.is_released,
        manifest=release.manifest,
        envelope=release.envelope,
        stream=release.stream,
        afr_signature=base64.b64encode(release.afr_signature).decode(),
    )


class Signer(Protocol):
    """Signs orders, and knows whose signatures count."""

    async def sign(self, order: Order) -> bytes:
        """Return the order in an envelope of our campaign key."""
        ...

    async def keys(self) -> Keys:
        """Return the keys that devices are told of."""
        ...

    async def number(self) -> int:
        """Return the number of the list that tells them."""
        ...
