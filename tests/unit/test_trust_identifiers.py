"""Identifiers and check values: the vectors of the standards, and what they refuse."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from security.trust import identifiers
from security.trust.identifiers import InvalidInstallCodeError

CODE = bytes.fromhex("83FED3407A939723A5C639B26916D505")
SHORT = bytes.fromhex("83FED3407A93")


def test_an_lfdi_is_the_first_160_bits_of_the_fingerprint():
    fingerprint = bytes.fromhex("3E4F45AB31EDFE5B67E343E5E4562E31984E23E5") + bytes(12)
    assert identifiers.lfdi_of_fingerprint(fingerprint) == "3E4F45AB31EDFE5B67E343E5E4562E31984E23E5"


def test_an_lfdi_comes_from_the_certificate_as_der():
    assert identifiers.lfdi(b"abc") == hashlib.sha256(b"abc").hexdigest()[:40].upper()


@pytest.mark.parametrize(
    ("first", "sfdi"),
    [
        ("3E4F45AB3", "167261211391"),
        ("BA7816BF8", "500549171125"),
        ("0000BA2BB", "000007625550"),
        ("FFFFFFFFF", "687194767357"),
    ],
)
def test_an_sfdi_is_36_bits_in_decimal_with_a_check_digit(first, sfdi):
    assert identifiers.sfdi(first + "0" * 31) == sfdi


def test_an_sfdi_is_shown_in_groups_of_three():
    assert identifiers.shown_sfdi("167261211391") == "167-261-211-391"


@given(st.binary(max_size=64))
def test_every_sfdi_has_twelve_digits_whose_sum_is_a_multiple_of_ten(der):
    sfdi = identifiers.sfdi(identifiers.lfdi(der))
    assert len(sfdi) == 12
    assert sum(map(int, sfdi)) % 10 == 0


@pytest.mark.parametrize("pin", ["111115", "123455", "000000"])
def test_pins_with_their_check_digit_are_valid(pin):
    assert identifiers.pin_is_valid(pin)


@pytest.mark.parametrize(
    "pin",
    ["123456", "", "11115", "1111150", "11111a", "\u0661\u0661\u0661\u0661\u0661\u0665", "-11115", " 11115"],
)
def test_other_pins_are_not(pin):
    assert not identifiers.pin_is_valid(pin)


def test_of_ten_pins_that_differ_in_the_last_digit_one_is_valid():
    assert sum(identifiers.pin_is_valid(f"12345{last}") for last in range(10)) == 1


def test_a_serial_is_always_as_long():
    assert identifiers.serial_text(0xAB) == "0" * 30 + "ab"
    assert identifiers.serial_text(2**128 - 1) == "f" * 32


# Install codes


def test_the_crc_is_that_of_x25():
    assert identifiers.crc_x25(b"123456789") == 0x906E


@pytest.mark.parametrize(("code", "crc"), [(CODE, "C3B5"), (SHORT, "2B70")])
def test_the_crc_stands_on_the_label_low_byte_first(code, crc):
    assert identifiers.install_code_crc(code).hex().upper() == crc
    assert identifiers.install_code_crc_is_valid(code + bytes.fromhex(crc))
    assert not identifiers.install_code_crc_is_valid(code + bytes.fromhex(crc)[::-1])


@pytest.mark.parametrize(
    ("code", "key"),
    [
        (CODE, "66B6900981E1EE3CA4206B6B861C02BB"),
        (SHORT, "CD4FA064773F46941EC986C09963D1A8"),
    ],
)
def test_the_link_key_is_the_hash_of_code_and_crc(code, key):
    assert identifiers.link_key(code + identifiers.install_code_crc(code)).hex().upper() == key


@pytest.mark.parametrize(
    "text",
    [
        "83FED3407A939723A5C639B26916D505C3B5",
        "83fe d340 7a93 9723 a5c6 39b2 6916 d505 c3b5",
        "83FE-D340-7A93-9723-A5C6-39B2-6916-D505-C3B5",
    ],
)
def test_a_label_is_read_however_it_is_grouped(text):
    assert identifiers.parse_install_code(text) == CODE + bytes.fromhex("C3B5")


@pytest.mark.parametrize("text", ["", "xyz", "83FED3407A93", "83FED3407A932B71", "83FED3407A932B70" * 4, "8"])
def test_what_is_no_code_or_mistyped_is_refused(text):
    with pytest.raises(InvalidInstallCodeError):
        identifiers.parse_install_code(text)


@given(st.binary(min_size=16, max_size=16), st.integers(0, 143))
def test_every_single_wrong_bit_is_noticed(code, bit):
    whole = bytearray(code + identifiers.install_code_crc(code))
    whole[bit // 8] ^= 1 << bit % 8
    assert not identifiers.install_code_crc_is_valid(bytes(whole))
