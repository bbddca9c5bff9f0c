"""A device's link that loses messages and mangles blocks: messages in, messages out. Pure."""

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import cbor2

from tests.chaos_ota.cast import Mangling, Part

BLOCKS: Final = "/data/cbor"
"""How topics of blocks end."""
KEY_LISTS: Final = "/streams/keys-"
IMAGE: Final = 0
"""The number of the file that is the image."""
Message = tuple[str, bytes]


class BadLink:
    """One device's link. What it does is counted in ``struck``; one that mangles does so once for certain."""

    def __init__(self, part: Part, chance: random.Random, struck: Counter[str]) -> None:
        self._part, self._chance, self._struck = part, chance, struck
        self._held: tuple[Mangling, Message] | None = None
        """A block that is to come later, or to be taken for another."""
        self._has_mangled = False

    def up(self) -> bool:
        """Tell whether a message of the device's arrives."""
        return not self._loses("up")

    def down(self, topic: str, payload: bytes) -> Iterator[Message]:
        """Yield what arrives at the device of a message to it."""
        if self._loses("down"):
            return
        if not topic.endswith(BLOCKS) or not self._part.mangling or self._spares(topic):
            yield topic, payload
            return
        if self._held is not None:
            yield from self._with_held(topic, payload)
        elif self._chance.random() < self._part.mangled or self._is_due(payload):
            yield from self._mangled(self._chance.choice(self._part.mangling), topic, payload)
        else:
            yield topic, payload

    def broken(self) -> None:
        """Forget what was under way."""
        self._held = None

    def _spares(self, topic: str) -> bool:
        """Tell whether it lets this pass: who never gets any keys never gets as far as an image."""
        return self._part.mangled >= 1 and KEY_LISTS in topic

    def _is_due(self, payload: bytes) -> bool:
        """Tell whether this is a block of an image, and none was mangled yet: so a small fleet shows all."""
        return not self._has_mangled and cbor2.loads(payload)["f"] == IMAGE

    def _loses(self, way: str) -> bool:
        lost = self._chance.random() < self._part.loss
        self._struck[f"lost.{way}"] += lost
        return lost

    def _mangled(self, mangling: Mangling, topic: str, payload: bytes) -> Iterator[Message]:
        match mangling:
            case Mangling.SWAPPED | Mangling.REORDERED:
                self._held = mangling, (topic, payload)
                return
            case Mangling.DUPLICATED:
                yield topic, payload
            case Mangling.TAMPERED:
                payload = _with_bytes(payload, self._flipped)
            case Mangling.TRUNCATED:
                payload = _with_bytes(payload, lambda data: data[: self._chance.randrange(len(data))])
        self._has_struck(mangling)
        yield topic, payload

    def _has_struck(self, mangling: Mangling) -> None:
        self._has_mangled = True
        self._struck[f"block.{mangling}"] += 1

    def _with_held(self, topic: str, payload: bytes) -> Iterator[Message]:
        assert self._held is not None, "asked before"
        (mangling, held), self._held = self._held, None
        if mangling is Mangling.SWAPPED and held[1] == payload:
            yield from ((topic, payload), held)  # the same block, asked for again
            return
        self._has_struck(mangling)
        if mangling is Mangling.REORDERED:
            yield topic, payload
            yield held
        else:
            first, second = cbor2.loads(held[1])["p"], cbor2.loads(payload)["p"]
            yield held[0], _with_bytes(held[1], lambda _: second)
            yield topic, _with_bytes(payload, lambda _: first)

    def _flipped(self, data: bytes) -> bytes:
        at = self._chance.randrange(len(data) * 8)
        flipped = bytearray(data)
        flipped[at // 8] ^= 1 << at % 8
        return bytes(flipped)


def _with_bytes(payload: bytes, change: Any) -> bytes:
    """Return the block with other bytes in it; its number and its length stay what they claim."""
    block = cbor2.loads(payload)
    return cbor2.dumps(block | {"p": change(block["p"])})
