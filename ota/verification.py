"""The checks that stand between an offer and an installation, numbered as in the specification. Pure.

A device asks :func:`verify` (V1 to V13) before it takes a job, :class:`LeafList` (V14, V15) while it loads,
:func:`check_image` (V16) before the slot may be used and :func:`check_gate` (V17) before it activates. The
first check that fails ends it. The server asks the same of what it is given: :func:`signed_manifest` (U5),
:func:`signed_order` (U11). Nothing here reads a clock, a file or a flash. (spec: ota, 2.4)

    V1  both envelopes, to the bit           V8   in time: now = max(clock, floor)
    V2  keys known, of the right role        V9   the thing is one of the targets
    V3  the vendor signed the manifest            runs it already: nothing is written
    V4  the utility signed the order         V10  no way back
    V5  the order is for this manifest       V11  may be installed over what runs
    V6  every field                          V12  what becomes of the configuration
    V7  for this device                      V13  it fits, and now is a good moment
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal

from ota import manifest as manifests
from ota import order as orders
from ota.envelope import Envelope, Typ, is_signed, open_envelope
from ota.errors import EncodingError, FieldError, OtaError
from ota.manifest import DataMode, Manifest
from ota.order import Order, decode_proof
from ota.trees import HASH_BYTES, leaf_hash, list_tree, name_leaf, root_from_proof

AHEAD_S_MAX: Final = 86_400
"""How far a vendor's clock may be ahead of a device's."""
BLOCK_FAILURES_MAX: Final = 3
"""Bad copies of one block until a device gives up."""

Step = Literal[
    "V1", "V2", "V3", "V4", "V5", "V6", "V7", "V8", "V9", "V10", "V11", "V12", "V13",
    "V14", "V15", "V16", "V17",
]  # fmt: skip


class Ends(Enum):
    """What a refusal makes of the job."""

    FAILED = "failed"
    REJECTED = "rejected"


class FileStatus(Enum):
    """What a refusal makes of the file (IEEE 2030.5)."""

    NONE = 0
    LOAD_FAILED = 2
    SIGNATURE_FAILED = 4


class KeyRole(Enum):
    """What a key may sign, as a key list spells it; each has exactly one."""

    IMAGE = "image"
    CAMPAIGN = "campaign"
    EVENT = "event"


class Refused(OtaError):  # noqa: N818 - it is no error of anybody here
    """A check failed. ``step`` and ``code`` say which, ``ends`` and ``status`` what becomes of the job."""

    def __init__(self, step: Step, code: str, problem: str = "") -> None:
        super().__init__(f"{step} {code}{problem and ': '}{problem}")
        self.step: Final = step
        self.code: Final = code
        self.ends, self.status = _CONSEQUENCES[step]


_FAILED: Final = (Ends.FAILED, FileStatus.SIGNATURE_FAILED)
_REJECTED: Final = (Ends.REJECTED, FileStatus.NONE)
_BROKEN: Final = (Ends.FAILED, FileStatus.LOAD_FAILED)
_CONSEQUENCES: Final[Mapping[Step, tuple[Ends, FileStatus]]] = {
    "V1": _FAILED, "V2": _FAILED, "V3": _FAILED, "V4": _FAILED, "V5": _FAILED, "V6": _FAILED,
    "V7": _REJECTED, "V8": _REJECTED, "V9": _REJECTED, "V10": _REJECTED, "V11": _REJECTED,
    "V12": _REJECTED, "V13": _REJECTED,
    "V14": _BROKEN, "V15": _BROKEN,
    "V16": _FAILED,
    "V17": (Ends.FAILED, FileStatus.NONE),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A key that a key list tells of."""

    public: bytes
    """Raw Ed25519."""
    role: KeyRole
    owner: str
    """The vendor's id, or the utility."""
    revoked: bool = False


Keys = Mapping[bytes, TrustedKey]
"""By kid."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a job document carries."""

    manifest: bytes
    order: bytes
    proof: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What a device knows of itself."""

    thing: str
    vendor: str
    model: str
    hw: str
    """Its hardware class, a UUID."""
    sha256: str
    """Of the image that runs, hex."""
    confirmed: bool
    """That image has been confirmed."""
    version: int
    counter: int
    """Of the image that runs."""
    counter_confirmed: int
    """It never installs one below."""
    config_schema: int
    slot_bytes: int
    components: Mapping[str, int] = field(default_factory=dict)
    """Versions of what ``requires`` may name."""
    ready: bool = True
    """Power, battery, user and service are as the model wants them for an upgrade."""


@dataclass(frozen=True, slots=True)
class Verified:
    """May be installed."""

    manifest: Manifest
    order: Order


@dataclass(frozen=True, slots=True)
class AlreadyCurrent:
    """Runs and is confirmed: the job has succeeded, and nothing may be written."""

    manifest: Manifest
    order: Order


@dataclass(frozen=True, slots=True)
class _Codes:
    """How the same check is called for a manifest and for an order."""

    typ: Typ
    role: KeyRole
    encoding: str
    signature: str
    signature_step: Step
    field: str


_MANIFEST: Final = _Codes(
    Typ.MANIFEST, KeyRole.IMAGE, "manifest_encoding", "manifest_signature", "V3", "manifest_field"
)
_ORDER: Final = _Codes(Typ.ORDER, KeyRole.CAMPAIGN, "order_encoding", "order_signature", "V4", "order_field")


# ---------------------------------------------------------------------------- the device


def verify(
    offer: Offer, device: DeviceFacts, keys: Keys, now_s: int, floor_s: int
) -> Verified | AlreadyCurrent:
    """Decide about an offer; raises :class:`Refused` with the first check that fails.

    ``floor_s`` is the latest time that the device has ever been told by somebody it trusts.
    """
    manifest_sealed = _opened(offer.manifest, _MANIFEST)  # V1
    order_sealed = _opened(offer.order, _ORDER)
    vendor_key = _known(manifest_sealed, _MANIFEST, keys)  # V2
    utility_key = _known(order_sealed, _ORDER, keys)
    _check_signature(manifest_sealed, vendor_key, _MANIFEST)  # V3
    _check_signature(order_sealed, utility_key, _ORDER)  # V4
    _check_match(order_sealed, offer.manifest)  # V5
    manifest, order = _manifest(manifest_sealed), _order(order_sealed)  # V6
    _check_class(manifest, vendor_key, device)  # V7
    _check_time(manifest, order, max(now_s, floor_s), "V8")
    _check_target(order, offer.proof, device.thing)  # V9
    if device.confirmed and device.sha256 == manifest.sha256:
        return AlreadyCurrent(manifest, order)
    _check_counter(manifest, device, "V10")
    _check_from(manifest, device)  # V11
    _check_data(manifest, order, device)  # V12
    _check_room(manifest, device)  # V13
    return Verified(manifest, order)


def check_gate(verified: Verified, device: DeviceFacts, now_s: int, floor_s: int) -> None:
    """Ask again, just before it would be activated, what may have changed since (V17)."""
    _check_time(verified.manifest, verified.order, max(now_s, floor_s), "V17")
    _check_counter(verified.manifest, device, "V17")


class LeafList:
    """The leaves of an image, which its manifest vouches for; they judge each block on arrival."""

    __slots__ = ("_leaves",)

    def __init__(self, leaves: bytes, manifest: Manifest) -> None:
        """Take the list as it came; raises :class:`Refused` if it is another one (V14)."""
        if len(leaves) != manifest.leaves_bytes or list_tree(leaves).root != manifest.root:
            raise Refused("V14", "leaves")
        self._leaves: Final = leaves

    def judge(self, index: int, block: bytes | memoryview) -> bool:
        """Tell whether this is that hash block (V15); one that is not is dropped and asked for again."""
        at = index * HASH_BYTES
        return index >= 0 and self._leaves[at : at + HASH_BYTES] == leaf_hash(block)


def check_image(manifest: Manifest, size: int, sha256: str) -> None:
    """Compare what was **read back** from the slot with what the vendor signed (V16)."""
    if (size, sha256) != (manifest.size, manifest.sha256):
        raise Refused("V16", "image_hash")


# ---------------------------------------------------------------------------- the server


def signed_manifest(data: bytes, keys: Keys) -> Manifest:
    """Return what a vendor says, if that vendor signed it (V1, V2, V3, V6, and the key is the vendor's)."""
    sealed = _opened(data, _MANIFEST)
    key = _known(sealed, _MANIFEST, keys)
    _check_signature(sealed, key, _MANIFEST)
    manifest = _manifest(sealed)
    _check_owner(manifest, key)
    return manifest


def signed_order(data: bytes, manifest: bytes, keys: Keys) -> Order:
    """Return what the utility says of this manifest, if the utility signed it (V1, V2, V4, V5, V6)."""
    sealed = _opened(data, _ORDER)
    _check_signature(sealed, _known(sealed, _ORDER, keys), _ORDER)
    _check_match(sealed, manifest)
    return _order(sealed)


# ---------------------------------------------------------------------------- the checks


def _opened(data: bytes, codes: _Codes) -> Envelope:
    try:
        return open_envelope(data, codes.typ)
    except EncodingError as error:
        raise Refused("V1", codes.encoding, str(error)) from error


def _known(sealed: Envelope, codes: _Codes, keys: Keys) -> TrustedKey:
    key = keys.get(sealed.kid)
    if key is None or key.revoked:
        raise Refused("V2", "key_unknown")
    if key.role is not codes.role:
        raise Refused("V2", "key_role")
    return key


def _check_signature(sealed: Envelope, key: TrustedKey, codes: _Codes) -> None:
    if not is_signed(sealed, key.public):
        raise Refused(codes.signature_step, codes.signature)


def _check_match(order_sealed: Envelope, manifest: bytes) -> None:
    # Before the fields are read: of an order for something else no field matters.
    if order_sealed.payload.get(orders.MANIFEST) != hashlib.sha256(manifest).digest():
        raise Refused("V5", "order_mismatch")


def _manifest(sealed: Envelope) -> Manifest:
    try:
        return manifests.read(sealed.payload)
    except FieldError as error:
        raise Refused("V6", _MANIFEST.field, str(error)) from error


def _order(sealed: Envelope) -> Order:
    try:
        return orders.read(sealed.payload)
    except FieldError as error:
        raise Refused("V6", _ORDER.field, str(error)) from error


def _check_class(manifest: Manifest, key: TrustedKey, device: DeviceFacts) -> None:
    _check_owner(manifest, key)
    if (manifest.vendor, manifest.model) != (device.vendor, device.model) or device.hw not in manifest.hw:
        raise Refused("V7", "class_mismatch")


def _check_owner(manifest: Manifest, key: TrustedKey) -> None:
    # A vendor's key is worth nothing for the devices of another vendor.
    if manifest.vendor != key.owner:
        raise Refused("V7", "class_mismatch", "the key that signed it is not this vendor's")


def _check_time(manifest: Manifest, order: Order, now_s: int, step: Step) -> None:
    if now_s >= min(manifest.expires, order.not_after):
        raise Refused(step, "expired")
    if now_s < max(manifest.issued - AHEAD_S_MAX, order.not_before):
        raise Refused(step, "not_yet")


def _check_target(order: Order, proof: bytes, thing: str) -> None:
    try:
        given = decode_proof(proof)
    except EncodingError as error:
        raise Refused("V9", "not_target", str(error)) from error
    if root_from_proof(name_leaf(thing), given.index, order.count, given.path) != order.targets:
        raise Refused("V9", "not_target")


def _check_counter(manifest: Manifest, device: DeviceFacts, step: Step) -> None:
    newer = (manifest.counter, manifest.version) > (device.counter, device.version)
    if manifest.counter < device.counter_confirmed or not newer:
        raise Refused(step, "downgrade")


def _check_from(manifest: Manifest, device: DeviceFacts) -> None:
    if device.version < manifest.min_from:
        raise Refused("V11", "from_too_old")
    # A component that a device does not have meets no requirement, not even version 0.
    if any(device.components.get(name, -1) < least for name, least in manifest.requires.items()):
        raise Refused("V11", "dependency")


def _check_data(manifest: Manifest, order: Order, device: DeviceFacts) -> None:
    if not manifest.allows(order.data):
        raise Refused("V12", "data_mode")
    if order.data is DataMode.PRESERVE and manifest.config_schema < device.config_schema:
        raise Refused("V12", "schema_downgrade")


def _check_room(manifest: Manifest, device: DeviceFacts) -> None:
    if manifest.size > device.slot_bytes:
        raise Refused("V13", "too_large")
    if not device.ready:
        raise Refused("V13", "precondition")
