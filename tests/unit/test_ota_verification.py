"""Offers with one fault each are refused by the check that is for it, and nothing else is."""

import contextlib
import hashlib
import inspect
import random
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ota.envelope import Typ, decode, encode, is_signed, open_envelope
from ota.errors import EncodingError
from ota.manifest import DataMode
from ota.verification import (
    AlreadyCurrent,
    Ends,
    FileStatus,
    LeafList,
    Refused,
    Verified,
    check_gate,
    check_image,
    signed_manifest,
    signed_order,
    verify,
)
from tests import ota_base as base
from tests import ota_faults as faults
from tests.covers import covers

CONSEQUENCES = {
    **dict.fromkeys(("V1", "V2", "V3", "V4", "V5", "V6"), (Ends.FAILED, FileStatus.SIGNATURE_FAILED)),
    **dict.fromkeys(("V7", "V8", "V9", "V10", "V11", "V12", "V13"), (Ends.REJECTED, FileStatus.NONE)),
}


def offered(offer, device=base.DEVICE, keys=base.KEYS, now_s=base.NOW_S, floor_s=0):
    return verify(offer, device, keys, now_s, floor_s)


@pytest.mark.parametrize("fault", faults.OFFERS, ids=lambda fault: fault.name)
def test_an_offer_with_one_fault_is_refused_by_the_check_that_is_for_it(fault):
    with pytest.raises(Refused) as refused:
        offered(fault.offer, fault.device, fault.keys, fault.now_s, fault.floor_s)
    assert (refused.value.step, refused.value.code) == (fault.step, fault.code)
    assert (refused.value.ends, refused.value.status) == CONSEQUENCES[fault.step]


@covers("I3FR3.1")
def test_no_single_bit_of_either_envelope_can_be_changed():
    tried = 0
    for offer, codes in faults.flips():
        with pytest.raises(Refused) as refused:
            offered(offer)
        assert refused.value.step in {"V1", "V2", "V3", "V4"}
        assert refused.value.code in codes
        tried += 1
    assert tried == 8 * (268 + 235)
    assert tried + len(faults.OFFERS) >= 1_020


def test_with_one_key_stolen_nothing_is_installed():
    assert {fault.name[:2] for fault in faults.STOLEN} == {"F4", "F5", "F7"}
    for fault in faults.STOLEN:
        with pytest.raises(Refused):
            offered(fault.offer, fault.device, fault.keys)


def test_all_kinds_of_faults_are_there():
    numbers = {fault.name.split()[0] for fault in faults.OFFERS}
    assert numbers == {f"F{number}" for number in range(1, 23)} - {"F6"}


@pytest.mark.parametrize("fault", faults.MANIFESTS, ids=lambda fault: fault.name)
def test_a_server_refuses_a_manifest_for_the_same_reason(fault):
    with pytest.raises(Refused) as refused:
        signed_manifest(fault.offer.manifest, fault.keys)
    assert (refused.value.step, refused.value.code) == (fault.step, fault.code)


@pytest.mark.parametrize("fault", faults.ORDERS, ids=lambda fault: fault.name)
def test_a_server_refuses_an_order_for_the_same_reason(fault):
    with pytest.raises(Refused) as refused:
        signed_order(fault.offer.order, fault.offer.manifest, fault.keys)
    assert (refused.value.step, refused.value.code) == (fault.step, fault.code)


def test_a_server_takes_the_base_pair_and_no_manifest_of_a_vendor_who_does_not_own_the_key():
    assert signed_manifest(base.MANIFEST_COSE, base.KEYS) == base.MANIFEST
    assert signed_order(base.ORDER_COSE, base.MANIFEST_COSE, base.KEYS) == base.ORDER
    with pytest.raises(Refused, match="not this vendor's"):
        signed_manifest(faults.manifest_with({2: "zenith"}).manifest, base.KEYS)


def test_the_checks_stand_in_the_order_of_the_specification():
    source = inspect.getsource(verify)
    steps = [int(number) for number in re.findall(r'(?:# |")V(\d+)', source)]
    assert steps == sorted(steps)
    assert set(steps) == set(range(1, 14))


def test_of_several_faults_the_first_in_order_is_named():
    # Not for it, not in time, no target, an older one: it is the class that it fails by.
    offer = faults.manifest_with({3: "T2", 7: 0})
    with pytest.raises(Refused, match="V7"):
        offered(offer, replace(base.DEVICE, thing="han-0009"), now_s=base.NOW_S * 2)


# ---------------------------------------------------------------------------- what is allowed


def test_what_a_device_runs_already_is_not_written_again_even_by_a_replayed_reset():
    offer = base.offer_of(order=replace(base.ORDER, data=DataMode.RESET))
    device = replace(base.DEVICE, sha256=base.MANIFEST.sha256, version=base.MANIFEST.version)
    assert isinstance(offered(offer, device), AlreadyCurrent)
    with pytest.raises(Refused, match="downgrade"):  # it runs on trial: no second one over it
        offered(offer, replace(device, confirmed=False))
    with pytest.raises(Refused, match="not_target"):  # asked after V9
        offered(replace(offer, proof=b""), device)


@pytest.mark.parametrize("now_s", [1_790_000_000, 1_790_604_799])
def test_the_first_and_the_last_second_of_an_order_are_in_time(now_s):
    assert isinstance(offered(base.OFFER, now_s=now_s), Verified)


def test_keys_from_32_on_are_ignored_and_patches_may_come():
    patch = {1: bytes(32), 2: 5, 3: bytes(32), 4: 1}
    for offer in (
        faults.manifest_with({32: "x", 1_000: [1]}),
        faults.order_with({32: {}}),
        faults.order_with({12: [patch]}),
    ):
        assert isinstance(offered(offer), Verified)


def test_every_requirement_that_is_met_just_so_is_met():
    manifest = replace(
        base.MANIFEST,
        min_from=base.DEVICE.version,
        requires={"bootloader": 3},
        sources=("ab" * 32,),
        notes="cd" * 32,
    )
    device = replace(base.DEVICE, slot_bytes=manifest.size)
    assert offered(base.offer_of(manifest), device) == Verified(
        manifest, replace(base.ORDER, manifest=_order_of(base.offer_of(manifest)).manifest)
    )


def _order_of(offer):
    return signed_order(offer.order, offer.manifest, base.KEYS)


def test_a_higher_counter_goes_before_the_version():
    assert isinstance(offered(faults.manifest_with({7: 1, 8: 4})), Verified)


def test_a_reset_may_go_to_an_older_schema():
    sealed = faults.manifest_with({16: 4}).manifest
    order = hashlib.sha256(sealed).digest()
    assert isinstance(offered(faults.order_with({4: order, 7: 1}, manifest=sealed)), Verified)


# ---------------------------------------------------------------------------- after the offer


def test_at_the_gate_time_and_counter_are_asked_once_more():
    verified = offered(base.OFFER)
    assert isinstance(verified, Verified)
    check_gate(verified, base.DEVICE, base.NOW_S, 0)
    for device, now_s, floor_s, code in (
        (base.DEVICE, 1_790_604_800, 0, "expired"),
        (base.DEVICE, base.NOW_S, 1_790_604_800, "expired"),
        (base.DEVICE, 1_789_000_000, 0, "not_yet"),
        (replace(base.DEVICE, counter_confirmed=4), base.NOW_S, 0, "downgrade"),
    ):
        with pytest.raises(Refused) as refused:
            check_gate(verified, device, now_s, floor_s)
        assert (refused.value.step, refused.value.code) == ("V17", code)
        assert (refused.value.ends, refused.value.status) == (Ends.FAILED, FileStatus.NONE)


@pytest.mark.parametrize("name", faults.LEAF_LISTS)
def test_a_wrong_leaf_list_is_refused_as_a_whole(name):
    with pytest.raises(Refused) as refused:
        LeafList(faults.LEAF_LISTS[name], base.MANIFEST)
    assert (refused.value.step, refused.value.code) == ("V14", "leaves")
    assert (refused.value.ends, refused.value.status) == (Ends.FAILED, FileStatus.LOAD_FAILED)


def test_every_bad_block_is_seen_on_arrival_and_every_good_one_taken():
    leaves = LeafList(base.LEAVES, base.MANIFEST)
    assert all(leaves.judge(index, block) for index, block in enumerate(faults.blocks()))
    bad = list(faults.bad_blocks())
    assert len(bad) == 1_007
    assert [name for name, index, block in bad if leaves.judge(index, block)] == []


def test_what_was_read_back_from_flash_must_be_what_the_vendor_signed():
    check_image(base.MANIFEST, base.MANIFEST.size, base.MANIFEST.sha256)
    for size, sha256 in ((10_001, base.MANIFEST.sha256), (10_000, "00" * 32)):
        with pytest.raises(Refused) as refused:
            check_image(base.MANIFEST, size, sha256)
        assert (refused.value.step, refused.value.code) == ("V16", "image_hash")
        assert refused.value.status is FileStatus.SIGNATURE_FAILED


# ---------------------------------------------------------------------------- laws of the reader

keys = st.integers(0, 40) | st.text(max_size=5)
plain = st.recursive(
    st.integers(-(2**64), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(st.binary(max_size=300))
def test_any_bytes_are_an_envelope_or_an_encoding_error(data):
    for typ in Typ:
        with pytest.raises(EncodingError):
            open_envelope(data, typ)


@given(st.dictionaries(st.integers(0, 22), plain, max_size=22))
def test_any_signed_payload_is_verified_or_refused_and_raises_nothing_else(payload):
    for offer in (faults.manifest_with(payload), faults.order_with(payload)):
        with contextlib.suppress(Refused):
            offered(offer)


@given(st.binary(max_size=60))
def test_what_is_decoded_is_encoded_to_the_same_bytes(data):
    try:
        value = decode(data)
    except EncodingError:
        return
    assert encode(value) == data


def test_bytes_of_good_envelopes_mangled_at_random_are_refused():
    chance = random.Random(5)
    for _ in range(3_000):
        data = bytearray(base.MANIFEST_COSE)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if bytes(data) == base.MANIFEST_COSE:
            continue
        with pytest.raises(Refused):
            signed_manifest(bytes(data), base.KEYS)


def test_a_signature_is_never_good_under_a_key_that_is_none():
    sealed = open_envelope(base.MANIFEST_COSE, Typ.MANIFEST)
    assert not is_signed(sealed, b"")
    assert not is_signed(sealed, bytes(32))
