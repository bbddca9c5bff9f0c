"""Blocks as they are sent, encoded once for all who ask for them; bounded.

Kept by file, block size and format. What was wanted longest ago goes first, a file at a time: a thing that
asks for odd sizes drives out its own and not what a whole wave is loading. (spec: ota, 12)
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, NamedTuple

from ota.streams import Format, data_tail

CACHE_BYTES_MAX: Final = 67_108_864
BLOCK_OVERHEAD_BYTES: Final = 150
"""What a kept block takes beside its bytes: two objects, and its place in a table."""
FILE_OVERHEAD_BYTES: Final = 450
"""What the first block of a file takes beside that: its name, its table, its place among others."""


class FileKey(NamedTuple):
    """A file of a stream, cut and spelled in one way."""

    stream: str
    file: int
    length: int
    format: Format


class BlockCache:
    """Gives the tails of answers (see :func:`ota.streams.data_tail`)."""

    def __init__(self, bytes_max: int = CACHE_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._files: OrderedDict[FileKey, _File] = OrderedDict()

    @property
    def size_bytes(self) -> int:
        """How much memory is taken."""
        return self._bytes

    def tails(self, key: FileKey, content: memoryview, ids: Sequence[int]) -> list[bytes]:
        """Return the tails of these blocks of a file."""
        kept = self._files.get(key)
        if kept is None:
            kept = self._files[key] = _File()
        else:
            self._files.move_to_end(key)
        blocks = kept.blocks
        try:
            return [blocks[id] for id in ids]
        except KeyError:
            return [blocks.get(id) or self._encode(key, kept, content, id) for id in ids]

    def _encode(self, key: FileKey, kept: "_File", content: memoryview, id: int) -> bytes:
        block = content[id * key.length : (id + 1) * key.length]
        tail = data_tail(key.file, id, block, key.format)
        size = len(tail) + BLOCK_OVERHEAD_BYTES + (0 if kept.blocks else FILE_OVERHEAD_BYTES)
        while self._bytes + size > self._bytes_max and self._bytes:
            self._drop_oldest()
        # It may have been dropped just now itself, where there is room for little more than one file.
        self._files[key] = kept
        kept.blocks[id] = tail
        kept.size_bytes += size
        self._bytes += size
        return tail

    def _drop_oldest(self) -> None:
        _, oldest = self._files.popitem(last=False)
        self._bytes -= oldest.size_bytes
        oldest.blocks.clear()
        oldest.size_bytes = 0


class _File:
    __slots__ = ("blocks", "size_bytes")

    def __init__(self) -> None:
        self.blocks: dict[int, bytes] = {}
        self.size_bytes = 0
