"""A campaign in one file, for a crew without a network: manifest, order, proofs, leaves, image, keys. Pure.

A CBOR array of six byte strings, in that order, so that it is written and read as a stream; nothing in it
is packed. The last is the list of signing keys of the moment, for devices that have no network to ask by:
empty while there is none, and missing from files of five strings, which were written before. Its signatures
are what protects it: a device checks all of it as it would without the crew, and what is checked here only
spares a journey with a file that no device would take. (spec: ota, 10)
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import cbor2

from ota import key_list
from ota import manifest as manifests
from ota import order as orders
from ota.envelope import ENVELOPE_BYTES_MAX, Typ, open_envelope
from ota.errors import EncodingError, OtaError
from ota.key_list import KeyList
from ota.manifest import IMAGE_BYTES_MAX, Manifest
from ota.models import job_id
from ota.order import Order
from ota.streams import BLOCK_BYTES_MAX
from ota.trees import leaf_list, list_tree, name_leaf, root_from_proof

MEDIA: Final = "application/gnomon-bundle+cbor"
PARTS: Final = 6
PARTS_BEFORE: Final = 5
"""Without the keys: such files are still read."""
CHUNK_BYTES: Final = 131_072
PROOFS_BYTES_MAX: Final = 16_777_216
"""20,000 targets, each with the longest proof that so many have."""
LEAVES_BYTES_MAX: Final = 2_097_152
KEYS_BYTES_MAX: Final = BLOCK_BYTES_MAX
"""Where there is a network devices load it as one block."""
_BOUNDS: Final = (
    ("manifest", ENVELOPE_BYTES_MAX),
    ("order", ENVELOPE_BYTES_MAX),
    ("proofs", PROOFS_BYTES_MAX),
    ("leaves", LEAVES_BYTES_MAX),
    ("image", IMAGE_BYTES_MAX),
    ("keys", KEYS_BYTES_MAX),
)
BUNDLE_BYTES_MAX: Final = sum(most for _, most in _BOUNDS) + 64
_ARRAY, _BYTES = 0x80, 0x40
_SHORT_MAX: Final = 23
_WIDTHS: Final = {24: 1, 25: 2, 26: 4, 27: 8}


class BundleError(OtaError):
    """A file is no bundle, or its parts do not belong together."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The parts as they are in the file. ``proofs`` are by thing name, as a job document carries each."""

    manifest: bytes
    order: bytes
    proofs: Mapping[str, bytes]
    leaves: bytes
    image: memoryview
    keys: bytes
    """The signed list of who may sign; empty: there is none."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A bundle whose parts belong together, and what they say."""

    bundle: Bundle
    manifest: Manifest
    order: Order
    keys: KeyList | None
    """None: devices judge by the list that they hold."""

    @property
    def job(self) -> str:
        """Return what devices call its campaign."""
        return job_id(self.order.campaign)

    @property
    def manifest_sha256(self) -> str:
        """Return the hash by which the order names the manifest."""
        return hashlib.sha256(self.bundle.manifest).hexdigest()

    @property
    def order_sha256(self) -> str:
        """Return the hash by which we know the order."""
        return hashlib.sha256(self.bundle.order).hexdigest()


def size(bundle: Bundle) -> int:
    """Return how many bytes a bundle has as a file."""
    return 1 + sum(len(_head(_BYTES, len(part))) + len(part) for part in _parts(bundle))


def write(bundle: Bundle) -> Iterator[bytes | memoryview]:
    """Yield the bytes of the file, in pieces of at most :data:`CHUNK_BYTES`."""
    yield _head(_ARRAY, PARTS)
    for part in _parts(bundle):
        yield _head(_BYTES, len(part))
        view = memoryview(part)
        for first in range(0, len(view), CHUNK_BYTES):
            yield view[first : first + CHUNK_BYTES]


def read(file: memoryview) -> Bundle:
    """Return the parts of a file; the image is not copied. Raises :class:`BundleError`."""
    if len(file) > BUNDLE_BYTES_MAX or not file or file[0] - _ARRAY not in {PARTS, PARTS_BEFORE}:
        raise BundleError("this is no bundle: it does not begin as one, or is too large")
    at, parts = 1, list[memoryview]()
    for name, bytes_max in _BOUNDS[: file[0] - _ARRAY]:
        first, length = _string_at(file, at, name)
        if length > bytes_max:
            raise BundleError(f"{name}: at most {bytes_max} bytes")
        at = first + length
        if at > len(file):
            raise BundleError(f"{name}: the file ends within it; fetch the bundle again")
        parts.append(file[first:at])
    if at != len(file):
        raise BundleError("there is something after the end of the bundle")
    manifest, order, proofs, leaves, image, *keys = parts
    return Bundle(
        bytes(manifest), bytes(order), _proofs_of(bytes(proofs)), bytes(leaves), image, b"".join(keys)
    )


def opened(bundle: Bundle) -> Opened:
    """Return what a bundle says, if its parts belong together. Raises :class:`BundleError`.

    Whose signatures these are is for the devices to check, which have the keys.
    """
    try:
        sealed = open_envelope(bundle.manifest, Typ.MANIFEST), open_envelope(bundle.order, Typ.ORDER)
        manifest, order = manifests.read(sealed[0].payload), orders.read(sealed[1].payload)
    except OtaError as error:
        raise BundleError(f"manifest or order: {error}") from error
    if order.manifest != hashlib.sha256(bundle.manifest).hexdigest():
        raise BundleError("the order is for another manifest")
    if (len(bundle.image), hashlib.sha256(bundle.image).hexdigest()) != (manifest.size, manifest.sha256):
        raise BundleError("the image is not the one of the manifest")
    leaves = leaf_list(bundle.image, manifest.block)
    if leaves != bundle.leaves or list_tree(leaves).root != manifest.root:
        raise BundleError("the leaf list is not the image's")
    for thing, proof in bundle.proofs.items():
        if not _leads(order, thing, proof):
            raise BundleError(f"the proof of {thing} does not lead to the order")
    keys = _keys_of(bundle.keys) if bundle.keys else None
    if keys is not None and not all(_counts(keys, one.kid) for one in sealed):
        raise BundleError(
            "its key list does not name who has signed manifest and order; fetch the bundle again"
        )
    return Opened(bundle, manifest, order, keys)


def _keys_of(data: bytes) -> KeyList:
    try:
        return key_list.read(data)
    except OtaError as error:
        raise BundleError(f"keys: {error}") from error


def _counts(keys: KeyList, kid: bytes) -> bool:
    key = keys.by_kid().get(kid)
    return key is not None and not key.revoked


def _leads(order: Order, thing: str, proof: bytes) -> bool:
    try:
        place = orders.decode_proof(proof)
    except EncodingError:
        return False
    return root_from_proof(name_leaf(thing), place.index, order.count, place.path) == order.targets


def _parts(bundle: Bundle) -> tuple[bytes | memoryview, ...]:
    proofs = cbor2.dumps(dict(bundle.proofs), canonical=True)
    return bundle.manifest, bundle.order, proofs, bundle.leaves, bundle.image, bundle.keys


def _head(kind: int, number: int) -> bytes:
    """Return how CBOR begins something of ``number`` bytes or members, as short as it can be."""
    if number <= _SHORT_MAX:
        return bytes([kind | number])
    code, width = next((code, width) for code, width in _WIDTHS.items() if number < 1 << 8 * width)
    return bytes([kind | code]) + number.to_bytes(width, "big")


def _string_at(file: memoryview, at: int, name: str) -> tuple[int, int]:
    """Return where the bytes of a byte string begin, and how many they are."""
    if at >= len(file) or file[at] & 0xE0 != _BYTES:
        raise BundleError(f"{name}: there is no byte string")
    code = file[at] & 0x1F
    if code <= _SHORT_MAX:
        return at + 1, code
    width = _WIDTHS.get(code)
    if width is None or at + 1 + width > len(file):
        raise BundleError(f"{name}: its length cannot be read")
    return at + 1 + width, int.from_bytes(file[at + 1 : at + 1 + width], "big")


def _proofs_of(data: bytes) -> dict[str, bytes]:
    try:
        found: Any = cbor2.loads(data, max_depth=2, allow_indefinite=False, allow_duplicate_keys=False)
    except (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise BundleError("proofs: this is not CBOR as it should be") from error
    if type(found) is not dict or not all(
        type(thing) is str and type(proof) is bytes for thing, proof in found.items()
    ):
        raise BundleError("proofs: a map from thing names to proofs")
    return found
