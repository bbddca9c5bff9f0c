"""The vectors of the specification, byte by byte. (spec: ota, 2.6)"""

import hashlib
import json
from dataclasses import replace

import pytest

from ota import manifest as manifests
from ota import order as orders
from ota.envelope import encode
from ota.order import decode_proof
from ota.trees import Tree, leaf_hash
from ota.verification import DeviceFacts, KeyRole, Offer, Refused, TrustedKey, Verified, verify
from tests import ota_base as base
from tests.vectors import make_ota


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def test_the_keys_and_the_image_are_those_of_the_specification():
    assert (base.VENDOR_KID.hex(), base.UTILITY_KID.hex()) == ("21fe31dfa154a261", "39f713d0a644253f")
    assert sha256(base.IMAGE) == "6e97d8601cb17906a4819e0fcc8d03150d3e4331353ecaa516c0084cadad54dd"
    assert base.MANIFEST.hw == ("d0ab0369-673c-5489-ad42-fb0f0fa83d2a",)


def test_the_leaves_of_the_image_lead_to_its_root():
    assert len(base.LEAVES) == 3 * 32
    assert base.MANIFEST.root.hex() == "5cbf1591e4223362a720b827772968c3832f4c7c9fcbf63b8e368dbd388068de"


def test_the_manifest_is_that_of_the_specification_to_the_byte():
    assert len(encode(manifests.write(base.MANIFEST))) == 147
    assert len(base.MANIFEST_COSE) == 268
    assert sha256(base.MANIFEST_COSE) == "5a4cf26a6d0cc6a1c23fde15563d431104e99c26a2682948a882313332a205ca"


def test_the_order_is_that_of_the_specification_to_the_byte():
    assert base.NAMES.root.hex() == "006b6d0d7304a5ca6431ebfafba58aaa375e564dc31ee0b79711822d190fe998"
    assert len(encode(orders.write(base.ORDER))) == 117
    assert len(base.ORDER_COSE) == 235
    assert sha256(base.ORDER_COSE) == "6391ef19445f1c5b78c0f74378642666e71c5eed67cf319f8bddade548b0eb88"


def test_the_proofs_are_those_of_the_specification():
    last = decode_proof(base.proof_of("han-0005"))
    assert last.index == 4
    assert [one.hex() for one in last.path] == [
        "31581af96af8b7443f9eb0c335e380e491e8690805c7169fbfb7d47dc3f8ed49"
    ]
    assert len(decode_proof(base.proof_of("han-0003")).path) == 3


def test_the_tree_is_that_of_rfc_6962():
    texts = (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
    root = Tree([leaf_hash(bytes.fromhex(text)) for text in texts]).root
    assert root.hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


def test_the_base_pair_may_be_installed():
    for thing in base.THINGS:
        device = replace(base.DEVICE, thing=thing)
        offer = replace(base.OFFER, proof=base.proof_of(thing))
        assert verify(offer, device, base.KEYS, base.NOW_S, 0) == Verified(base.MANIFEST, base.ORDER)


def from_file(row, usual):
    """Return what `verify` is given, by the files alone."""
    offer, device = usual["offer"] | row.get("offer", {}), usual["device"] | row.get("device", {})
    keys = row.get("keys", usual["keys"])
    return (
        Offer(**{name: bytes.fromhex(text) for name, text in offer.items()}),
        DeviceFacts(**device),
        {bytes.fromhex(key["kid"]): trusted(key) for key in keys},
        row.get("now_s", usual["now_s"]),
        row.get("floor_s", usual["floor_s"]),
    )


def trusted(key):
    return TrustedKey(bytes.fromhex(key["public"]), KeyRole(key["role"]), key["owner"], key["revoked"])


def test_the_written_vectors_are_current():
    for name, text in make_ota.files().items():
        assert (make_ota.DIRECTORY / name).read_text(encoding="utf-8") == text, "make vectors"


def test_from_the_files_alone_the_base_pair_is_taken_and_each_fault_refused():
    usual = json.loads((make_ota.DIRECTORY / "base.json").read_text(encoding="utf-8"))
    assert verify(*from_file({}, usual)) == Verified(base.MANIFEST, base.ORDER)
    for row in json.loads((make_ota.DIRECTORY / "faults.json").read_text(encoding="utf-8")):
        with pytest.raises(Refused) as refused:
            verify(*from_file(row, usual))
        assert (refused.value.step, refused.value.code) == (row["step"], row["code"]), row["name"]
