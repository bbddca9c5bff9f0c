"""The base pair of the specification: a vendor's manifest, a utility's order, a device that would install.

Its keys are those of RFC 8032, 7.1. Vectors, faults and fleets for tests start from it. (spec: ota, 2.6)
"""

import hashlib
from dataclasses import replace
from uuid import NAMESPACE_DNS, uuid5

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ota import manifest as manifests
from ota import order as orders
from ota.envelope import Typ, kid_of, public_of, seal
from ota.manifest import DataMode, Manifest, version_of
from ota.order import Order, Proof, encode_proof
from ota.trees import leaf_list, list_tree, name_tree
from ota.verification import DeviceFacts, KeyRole, Offer, TrustedKey

NOW_S = 1_790_000_100
VENDOR_KEY = Ed25519PrivateKey.from_private_bytes(
    bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
)
UTILITY_KEY = Ed25519PrivateKey.from_private_bytes(
    bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
)
IMAGE = bytes((7 * place + 3) % 256 for place in range(10_000))
BLOCK = 4_096
LEAVES = leaf_list(IMAGE, BLOCK)
THINGS = tuple(f"han-{number:04}" for number in range(1, 6))
NAMES = name_tree(THINGS)

MANIFEST = Manifest(
    vendor="acme",
    model="T1",
    hw=(str(uuid5(uuid5(NAMESPACE_DNS, "acme.example"), "T1/2")),),
    label="2.4.0",
    version=version_of("2.4.0.0"),
    counter=3,
    size=len(IMAGE),
    sha256=hashlib.sha256(IMAGE).hexdigest(),
    block=BLOCK,
    root=list_tree(LEAVES).root,
    issued=1_790_000_000,
    expires=1_821_536_000,
    data=DataMode.CHOSEN,
    config_schema=5,
)
MANIFEST_COSE = seal(manifests.write(MANIFEST), Typ.MANIFEST, VENDOR_KEY)
ORDER = Order(
    campaign="6f1c7a52-0d5e-4c5b-9d1e-2f8f6a1b3c4d",
    revision=1,
    manifest=hashlib.sha256(MANIFEST_COSE).hexdigest(),
    targets=NAMES.root,
    count=len(THINGS),
    data=DataMode.PRESERVE,
    not_before=1_790_000_000,
    not_after=1_790_604_800,
    per_hour=10_000,
    max_in_flight=833,
)
ORDER_COSE = seal(orders.write(ORDER), Typ.ORDER, UTILITY_KEY)

VENDOR_KID, UTILITY_KID = kid_of(public_of(VENDOR_KEY)), kid_of(public_of(UTILITY_KEY))
KEYS = {
    VENDOR_KID: TrustedKey(public_of(VENDOR_KEY), KeyRole.IMAGE, "acme"),
    UTILITY_KID: TrustedKey(public_of(UTILITY_KEY), KeyRole.CAMPAIGN, "utility"),
}
DEVICE = DeviceFacts(
    thing="han-0003",
    vendor="acme",
    model="T1",
    hw=MANIFEST.hw[0],
    sha256="00" * 32,
    confirmed=True,
    version=version_of("2.3.9.0"),
    counter=3,
    counter_confirmed=3,
    config_schema=5,
    slot_bytes=16_384,
    components={"bootloader": 3},
)


def proof_of(thing: str) -> bytes:
    place = THINGS.index(thing)
    return encode_proof(Proof(place, NAMES.proof(place)))


def offer_of(manifest: Manifest = MANIFEST, order: Order = ORDER, thing: str = DEVICE.thing) -> Offer:
    """Return what a device would be offered, sealed by the right keys; the order is for that manifest."""
    sealed = seal(manifests.write(manifest), Typ.MANIFEST, VENDOR_KEY)
    order = replace(order, manifest=hashlib.sha256(sealed).hexdigest())
    return Offer(sealed, seal(orders.write(order), Typ.ORDER, UTILITY_KEY), proof_of(thing))


OFFER = Offer(MANIFEST_COSE, ORDER_COSE, proof_of(DEVICE.thing))
