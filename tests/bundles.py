"""A bundle of the base pair, for whoever needs one that is right, or almost."""

from dataclasses import replace
from typing import Any

from ota import order as orders
from ota.bundle import Bundle
from ota.envelope import Typ, seal
from ota.order import Proof, encode_proof
from tests.key_lists import SEALED
from tests.ota_base import IMAGE, LEAVES, MANIFEST_COSE, NAMES, ORDER, THINGS, UTILITY_KEY


def bundle(**changes: Any) -> Bundle:
    """Return the bundle of the pair, with the list of its keys; ``changes`` are fields of its order."""
    order = seal(orders.write(replace(ORDER, **changes)), Typ.ORDER, UTILITY_KEY)
    proofs = {thing: encode_proof(Proof(index, NAMES.proof(index))) for index, thing in enumerate(THINGS)}
    return Bundle(MANIFEST_COSE, order, proofs, LEAVES, memoryview(IMAGE), SEALED)
