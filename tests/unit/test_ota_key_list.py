"""A list of keys is believed as a whole or not at all, and never an older one than is held."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ota.envelope import Typ, kid_of, open_envelope, seal
from ota.errors import FieldError, KeyListError
from ota.key_list import KEYS_MAX, verify, write
from ota.verification import KeyRole, TrustedKey
from tests import ota_base as base
from tests.key_lists import CHAIN, LIST, LIST_KEY, OTHER, ROOT, SEALED, certify, forged


def verified(data, roots=(ROOT.certificate,), now_s=base.NOW_S, held=0):
    return verify(data, list(roots), now_s, held)


def test_a_list_arrives_as_it_was_written_and_its_keys_are_found_by_kid():
    assert verified(SEALED) == LIST
    assert verified(SEALED, held=7) == LIST
    assert verified(SEALED, roots=(OTHER.certificate, ROOT.certificate)).by_kid() == base.KEYS


def test_a_list_key_certified_by_the_root_itself_does_as_well():
    assert verified(write(LIST, LIST_KEY, [certify(ROOT)])) == LIST


def test_a_revoked_key_arrives_as_revoked():
    keys = tuple(replace(key, revoked=True) for key in LIST.keys)
    assert verified(write(replace(LIST, keys=keys), LIST_KEY, CHAIN)).keys == keys


def test_the_number_never_falls():
    with pytest.raises(KeyListError, match="comes before"):
        verified(SEALED, held=8)


@pytest.mark.parametrize("now_s", [LIST.issued - 1, LIST.expires])
def test_a_list_is_good_from_its_first_second_to_its_last(now_s):
    with pytest.raises(KeyListError, match="no longer"):
        verified(SEALED, now_s=now_s)
    assert verified(SEALED, now_s=LIST.issued) == verified(SEALED, now_s=LIST.expires - 1)


FORGED = forged(LIST)


@pytest.mark.parametrize("name", FORGED)
def test_a_list_of_somebody_else_is_not_believed(name):
    with pytest.raises(KeyListError):
        verified(FORGED[name])


@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # a flipped bit makes one negative
def test_no_single_bit_of_a_list_can_be_changed():
    for place in range(0, len(SEALED) * 8, 7):
        changed = bytearray(SEALED)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(KeyListError):
            verified(bytes(changed))


ENTRY = {1: kid_of(LIST.keys[0].public), 2: LIST.keys[0].public, 3: "image", 4: "acme", 5: "active"}
BAD = {
    "kid of another key": [{**ENTRY, 1: bytes(8)}],
    "a role that is none": [{**ENTRY, 3: "root"}],
    "a state that is none": [{**ENTRY, 5: ""}],
    "unknown state": [{**ENTRY, 5: "expired"}],
    "a member too many": [{**ENTRY, 6: 1}],
    "twice": [ENTRY, {**ENTRY, 3: "campaign"}],
    "none": [],
    "no map": [1],
    "too many": [ENTRY] * (KEYS_MAX + 1),
}


@pytest.mark.parametrize("name", BAD)
def test_a_signed_list_with_one_bad_key_is_refused_as_a_whole(name):
    payload = {1: 1, 2: 7, 3: LIST.issued, 4: LIST.expires, 5: BAD[name]}
    with pytest.raises(KeyListError):
        verified(seal(payload, Typ.KEYS, LIST_KEY, CHAIN))


def test_a_list_that_would_be_refused_is_not_written():
    key = TrustedKey(bytes(32), KeyRole.IMAGE, "")
    with pytest.raises(FieldError):
        write(replace(LIST, keys=(key,)), LIST_KEY, CHAIN)


def test_a_list_is_not_taken_for_a_manifest_nor_a_manifest_for_a_list():
    for data, typ in ((SEALED, Typ.MANIFEST), (base.MANIFEST_COSE, Typ.KEYS)):
        with pytest.raises(Exception, match="member"):
            open_envelope(data, typ)


@given(st.binary(max_size=600))
def test_any_certificate_is_read_or_refused_and_raises_nothing_else(junk):
    with pytest.raises(KeyListError):
        verified(write(LIST, LIST_KEY, [junk]))
