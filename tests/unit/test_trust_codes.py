"""Codes of vouchers and labels: read back however they were typed, typing errors told from wrong codes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from security.hashing import FULL, LIGHT
from security.secret import Secret
from security.trust import codes
from security.trust.codes import ClaimKind, InvalidClaimIdError, InvalidCodeError, MistypedCodeError
from tests.fakes import SeededIds

VOUCHER = "v" + "a2" * 8
LABEL = "00124b0001a2b3c4"
seeds = st.integers(0, 2**32)


@given(seeds)
def test_a_code_is_read_back_as_it_is_shown(seed):
    code = codes.new_code(SeededIds(seed))
    shown = codes.shown(code).reveal()
    assert len(code.reveal()) == 26
    assert [len(group) for group in shown.split("-")] == [4] * 6 + [3]
    for typed in (shown, shown.lower(), shown.replace("-", ""), shown.replace("-", " "), f" {shown}\n"):
        entered = codes.parse(VOUCHER, typed)
        assert (entered.kind, entered.code, entered.cost) == (ClaimKind.VOUCHER, code, LIGHT)


@given(seeds, st.integers(0, 26), st.integers(1, 31))
def test_each_wrong_character_is_noticed(seed, place, shift):
    shown = codes.shown(codes.new_code(SeededIds(seed))).reveal().replace("-", "")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    wrong = alphabet[(alphabet.index(shown[place]) + shift) % 32]
    with pytest.raises(MistypedCodeError):
        codes.parse(VOUCHER, shown[:place] + wrong + shown[place + 1 :])


@given(seeds, st.integers(0, 26), st.integers(0, 26))
def test_two_characters_that_changed_places_are_noticed(seed, one, other):
    typed = list(codes.shown(codes.new_code(SeededIds(seed))).reveal().replace("-", ""))
    typed[one], typed[other] = typed[other], typed[one]
    text = "".join(typed)
    if typed[one] == typed[other]:
        codes.parse(VOUCHER, text)
    else:
        with pytest.raises(MistypedCodeError):
            codes.parse(VOUCHER, text)


def test_digits_that_look_like_letters_are_taken_for_them():
    code = Secret("OIB" + "A" * 23)
    shown = codes.shown(code).reveal()
    assert codes.parse(VOUCHER, shown.replace("O", "0").replace("I", "1").replace("B", "8")).code == code


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not 0"),
        ("A" * 26, "not 26"),
        ("A" * 28, "not 28"),
        ("ABCD-9", "2 to 7 only"),
        ("ä" * 27, "2 to 7 only"),
        ("A" * 65, "at most 64"),
    ],
)
def test_what_is_no_code_says_what_is_wrong_with_it(text, said):
    with pytest.raises(InvalidCodeError, match=said) as refused:
        codes.parse(VOUCHER, text)
    assert not isinstance(refused.value, MistypedCodeError)


@pytest.mark.parametrize(
    "text", ["83FED3407A939723A5C639B26916D505C3B5", "83fe-d340-7a93-9723-a5c6-39b2-6916-d505-c3b5"]
)
def test_a_labels_code_is_read_with_its_crc(text):
    entered = codes.parse(LABEL, text)
    assert entered.kind is ClaimKind.INSTALL_CODE
    assert entered.code == Secret("83fed3407a939723a5c639b26916d505c3b5")
    assert entered.cost == FULL


def test_a_crc_that_does_not_fit_is_a_typing_error_and_another_length_is_none():
    with pytest.raises(MistypedCodeError, match="mistyped"):
        codes.parse(LABEL, "83FED3407A932B71")
    with pytest.raises(InvalidCodeError, match="16, 20, 28, 36 digits"):
        codes.parse(LABEL, "83FED3407A93")


@pytest.mark.parametrize("id", ["", "v", "g" * 16, LABEL.upper(), VOUCHER + "a", "v" + "1" * 16, "../x"])
def test_what_is_no_id_is_refused(id):
    with pytest.raises(InvalidClaimIdError):
        codes.parse(id, "x")


def test_ids_of_vouchers_and_labels_are_told_apart():
    assert codes.kind_of(codes.new_claim_id(SeededIds())) is ClaimKind.VOUCHER
    assert codes.kind_of("abcdef2345672345") is ClaimKind.INSTALL_CODE
    assert codes.claim_id_of_label("00:12:4B:00:01:A2:B3:C4") == LABEL
    with pytest.raises(InvalidClaimIdError):
        codes.claim_id_of_label("00124B")


@pytest.mark.parametrize(
    ("field", "pair"),
    [
        ("Basic QUI6eDp5", ("ab", "x:y")),
        ("basic  QUI6 ", ("ab", "")),
        (None, None),
        ("", None),
        ("Basic", None),
        ("Bearer QUI6eA==", None),
        ("Basic !!!!", None),
        ("Basic QUI=", None),
        ("Basic /////w==", None),
    ],
)
def test_http_basic_carries_both(field, pair):
    assert codes.parse_basic(field) == pair
