"""What is behind the names of streams: the files of a release, and lists of signing keys.

A stream ``fw-…`` holds the image (0), its leaf list (1) and the manifest (2); one ``keys-…`` the list with
that number (0). An image that is too large for blocks is missing from its stream and loaded over HTTPS; its
leaves and manifest are there. (spec: ota, 1 and 5)
"""

import re
from dataclasses import dataclass
from typing import Final, Protocol

from ota.manifest import Manifest, version_text
from ota.stream_service import IMAGE_FILE, KEY_LIST_PREFIX, LEAVES_FILE, MANIFEST_FILE, Stream
from ota.streams import FILE_BYTES_MAX

_KEY_LIST: Final = re.compile(f"{KEY_LIST_PREFIX}(0|[1-9][0-9]{{0,9}})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Published:
    """What is said of an image: the manifest, and the bytes that its vendor signed."""

    manifest: Manifest
    envelope: bytes


class Releases(Protocol):
    """Knows releases by their streams."""

    async def published(self, stream: str) -> Published | None:
        """Return what the stream is about, unless it is not, or no longer, to be given to anybody."""
        ...


class Mapped(Protocol):
    """A file in memory."""

    @property
    def view(self) -> memoryview:
        """Return its bytes, without copying them."""
        ...


class Images(Protocol):
    """Has the bytes."""

    async def blob(self, sha256: str) -> Mapped:
        """Return an image, mapped."""
        ...

    async def leaves(self, sha256: str, block: int) -> bytes:
        """Return the leaf list of an image."""
        ...


class KeyLists(Protocol):
    """Has the lists of signing keys."""

    async def key_list(self, number: int) -> bytes | None:
        """Return the signed list with this number; None: there is none, or it is of no use any more."""
        ...


class Library:
    """Finds streams."""

    def __init__(self, releases: Releases, images: Images, key_lists: KeyLists) -> None:
        self._releases = releases
        self._images = images
        self._key_lists = key_lists

    async def stream(self, id: str) -> Stream | None:
        """Return the files of a stream; None: there is no such stream."""
        if (named := _KEY_LIST.fullmatch(id)) is not None:
            content = await self._key_lists.key_list(int(named[1]))
            return None if content is None else Stream("signing keys", {0: memoryview(content)})
        published = await self._releases.published(id)
        return None if published is None else await self._files(published)

    async def _files(self, published: Published) -> Stream:
        manifest = published.manifest
        leaves = await self._images.leaves(manifest.sha256, manifest.block)
        files = {LEAVES_FILE: memoryview(leaves), MANIFEST_FILE: memoryview(published.envelope)}
        if manifest.size <= FILE_BYTES_MAX:
            files[IMAGE_FILE] = (await self._images.blob(manifest.sha256)).view
        text = f"{manifest.vendor} {manifest.model} {version_text(manifest.version)}"
        return Stream(text, files)
