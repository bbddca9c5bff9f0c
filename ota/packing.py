"""Makes the file of a campaign that crews carry out on site."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from ota.bundle import Bundle
from ota.errors import OtaError
from ota.keys import Ring
from ota.library import Images
from ota.order import Proof, encode_proof
from ota.trees import name_tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a campaign says, as it was signed, and of whom."""

    manifest: bytes
    """The vendor's envelope."""
    order: bytes
    """The utility's."""
    names: Sequence[str]
    """Of the things that the order names, in its order."""
    targets: Collection[str]
    """Those of them on which it may still be installed: nobody else is named."""
    sha256: str
    block: int
    """Bytes of a hash block."""


class NoBundleError(OtaError):
    """There is no such campaign that crews may carry out."""

    def __init__(self, campaign: str) -> None:
        super().__init__(
            "there is no campaign of this id that is approved, carried out on site, neither paused nor over,"
            " and whose release is not withdrawn"
        )
        self.campaign = campaign


class Campaigns(Protocol):
    """Knows campaigns."""

    async def contents(self, campaign: str) -> Contents:
        """Return what a campaign says; raises :class:`NoBundleError`."""
        ...


class Rings(Protocol):
    """Knows who may sign."""

    async def ring(self) -> Ring:
        """Return all keys, with the list that devices get."""
        ...


class Packing:
    """Packs."""

    def __init__(self, campaigns: Campaigns, images: Images, keys: Rings) -> None:
        self._campaigns = campaigns
        self._images = images
        self._keys = keys

    async def bundle(self, campaign: str) -> Bundle:
        """Return a campaign as one file; raises :class:`NoBundleError`."""
        found = await self._campaigns.contents(campaign)
        proofs = await asyncio.to_thread(
            _proofs, found.names, found.targets
        )  # of 20,000 names it takes half a second
        leaves = await self._images.leaves(found.sha256, found.block)
        image = (await self._images.blob(found.sha256)).view
        # Last, so that it tells of whoever was revoked while the rest was read.
        keys = (await self._keys.ring()).list
        return Bundle(found.manifest, found.order, proofs, leaves, image, keys)


def _proofs(names: Sequence[str], targets: Collection[str]) -> dict[str, bytes]:
    tree = name_tree(names)
    places = [(index, name) for index, name in enumerate(names) if name in targets]
    return {name: encode_proof(Proof(index, tree.proof(index))) for index, name in places}
