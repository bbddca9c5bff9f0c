"""What a utility says of one campaign: the payload of an order, and the proof that a thing is meant. Pure.

Whoever reads it has opened the envelope and checked whose it is. (spec: ota, 2.3)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ota.envelope import Plain, decode, encode
from ota.errors import EncodingError, FieldError
from ota.fields import SCHEMA, TIME_MAX, UINT32_MAX, UUID_BYTES, Fields, uuid_bytes, uuid_text
from ota.manifest import DataMode
from ota.trees import DEPTH_MAX, HASH_BYTES

SPAN_S_MAX: Final = 90 * 86_400
PROOF_BYTES_MAX: Final = 4_096
MANIFEST: Final = 4
"""Key of the hash of the manifest."""
PATCHES: Final = 12
"""Key of patches, which are to come: a device that knows none takes the whole image."""
PATCHES_MAX: Final = 16
_PROOF_PARTS: Final = 2
_PATCH_SOURCE, _PATCH_SIZE, _PATCH_SHA256, _PATCH_FORMAT = 1, 2, 3, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Which devices are to install what, when and how. Times are seconds."""

    campaign: str
    """A UUID."""
    revision: int
    manifest: str
    """SHA-256 of the vendor's envelope, hex."""
    targets: bytes
    """Root over the names of the things that are meant."""
    count: int
    data: DataMode
    """:attr:`~DataMode.PRESERVE` or :attr:`~DataMode.RESET`."""
    not_before: int
    not_after: int
    per_hour: int
    max_in_flight: int


@dataclass(frozen=True, slots=True)
class Proof:
    """The place of a thing's name in an order, and the hashes that lead from it to the root."""

    index: int
    path: tuple[bytes, ...]


def read(payload: Mapping[Plain, Plain]) -> Order:
    """Return what a payload says (V6); raises :class:`~ota.errors.FieldError` with the key that is wrong."""
    fields = Fields(payload, range(1, 13))
    fields.uint(1, SCHEMA, SCHEMA)
    found = Order(
        campaign=uuid_text(fields.octets(2, UUID_BYTES)),
        revision=fields.uint(3, 1, UINT32_MAX),
        manifest=fields.octets(4, HASH_BYTES).hex(),
        targets=fields.octets(5, HASH_BYTES),
        count=fields.uint(6, 1, UINT32_MAX),
        data=DataMode(fields.uint(7, most=DataMode.RESET)),
        not_before=fields.uint(8, most=TIME_MAX),
        not_after=fields.uint(9, most=TIME_MAX),
        per_hour=fields.uint(10, 1, UINT32_MAX),
        max_in_flight=fields.uint(11, 1, UINT32_MAX),
    )
    if not 0 < found.not_after - found.not_before <= SPAN_S_MAX:
        raise FieldError(9, "an order ends after it begins, and at most 90 days after")
    if PATCHES in fields:
        _check_patches(fields)
    return found


def write(order: Order) -> dict[int, Plain]:
    """Return the payload that says this; the opposite of :func:`read`, which also checks it."""
    payload: dict[int, Plain] = {
        1: SCHEMA,
        2: uuid_bytes(order.campaign),
        3: order.revision,
        4: bytes.fromhex(order.manifest),
        5: order.targets,
        6: order.count,
        7: int(order.data),
        8: order.not_before,
        9: order.not_after,
        10: order.per_hour,
        11: order.max_in_flight,
    }
    read(payload)
    return payload


def encode_proof(proof: Proof) -> bytes:
    """Return a proof as a job document carries it."""
    return encode([proof.index, list(proof.path)])


def decode_proof(data: bytes) -> Proof:
    """Return a proof; raises :class:`~ota.errors.EncodingError` for bytes that are none."""
    if len(data) > PROOF_BYTES_MAX:
        raise EncodingError(f"a proof has at most {PROOF_BYTES_MAX} bytes")
    value = decode(data)
    if type(value) is not list or len(value) != _PROOF_PARTS:
        raise EncodingError("a proof has an index and a path")
    index, path = value
    if type(index) is not int or index < 0 or type(path) is not list or len(path) > DEPTH_MAX:
        raise EncodingError("a proof has an index and a path")
    if any(type(one) is not bytes or len(one) != HASH_BYTES for one in path):
        raise EncodingError(f"a path has hashes of {HASH_BYTES} bytes")
    return Proof(index, tuple(path))


def _check_patches(fields: Fields) -> None:
    for one in fields.array(PATCHES, PATCHES_MAX):
        if type(one) is not dict:
            raise FieldError(PATCHES, "a patch is a map")
        try:
            patch = Fields(one, (_PATCH_SOURCE, _PATCH_SIZE, _PATCH_SHA256, _PATCH_FORMAT))
            patch.octets(_PATCH_SOURCE, HASH_BYTES)
            patch.uint(_PATCH_SIZE, 1, UINT32_MAX)
            patch.octets(_PATCH_SHA256, HASH_BYTES)
            patch.uint(_PATCH_FORMAT, 1, UINT32_MAX)
        except FieldError as error:
            raise FieldError(PATCHES, str(error)) from error
