"""A bundle of the pair of the specification (2.6), for whoever needs one that is right, or almost."""

import hashlib
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ota import manifest as manifests
from ota import order as orders
from ota.bundle import Bundle
from ota.envelope import Typ, seal
from ota.manifest import DataMode, Manifest
from ota.order import Order, Proof
from ota.trees import leaf_list, list_tree, name_tree

VENDOR = Ed25519PrivateKey.from_private_bytes(
    bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
)
UTILITY = Ed25519PrivateKey.from_private_bytes(
    bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
)
IMAGE = bytes((7 * number + 3) % 256 for number in range(10_000))
THINGS = tuple(f"han-000{number}" for number in range(1, 6))
CAMPAIGN = "6f1c7a52-0d5e-4c5b-9d1e-2f8f6a1b3c4d"
ISSUED_S = 1_790_000_000
NOW_S = 1_790_000_100
UNTIL_S = 1_790_604_800


@dataclass(frozen=True)
class Pair:
    manifest: bytes
    order: bytes


def pair(**changes: Any) -> Pair:
    """Return manifest and order of the specification; ``changes`` are fields of the order."""
    manifest = Manifest(
        vendor="acme",
        model="T1",
        hw=("d0ab0369-673c-5489-ad42-fb0f0fa83d2a",),
        label="2.4.0",
        version=0x0002000400000000,
        counter=3,
        size=len(IMAGE),
        sha256=hashlib.sha256(IMAGE).hexdigest(),
        block=4_096,
        root=list_tree(leaf_list(IMAGE, 4_096)).root,
        issued=ISSUED_S,
        expires=1_821_536_000,
        data=DataMode.CHOSEN,
        config_schema=5,
    )
    sealed = seal(manifests.write(manifest), Typ.MANIFEST, VENDOR)
    fields: dict[str, Any] = {
        "campaign": CAMPAIGN,
        "revision": 1,
        "manifest": hashlib.sha256(sealed).hexdigest(),
        "targets": name_tree(THINGS).root,
        "count": len(THINGS),
        "data": DataMode.PRESERVE,
        "not_before": ISSUED_S,
        "not_after": UNTIL_S,
        "per_hour": 10_000,
        "max_in_flight": 833,
    }
    return Pair(sealed, seal(orders.write(Order(**fields | changes)), Typ.ORDER, UTILITY))


def bundle(**changes: Any) -> Bundle:
    """Return the bundle of the pair; ``changes`` are fields of its order."""
    signed, tree = pair(**changes), name_tree(THINGS)
    proofs = {
        thing: orders.encode_proof(Proof(index, tree.proof(index))) for index, thing in enumerate(THINGS)
    }
    return Bundle(signed.manifest, signed.order, proofs, leaf_list(IMAGE, 4_096), memoryview(IMAGE))
