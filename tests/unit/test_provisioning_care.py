"""What customers are searched by, and what of them is shown before anybody has proved who is calling."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.care import (
    VALUE_CHARS_MAX,
    BadSearchError,
    CandidateAccount,
    CareAccount,
    CareCustomer,
    SearchBy,
    masked,
    phone_key,
    search_key,
)

ADA = CareCustomer(
    "cust-0001",
    "Ada María Example",
    "en",
    "+1 202 555 0101",
    "ada@example.com",
    (CareAccount("acc-1", "10 0042-7711", "tou", "active", "pr-0001", "42b Gnomon Way, 90001 Fixture Bay"),),
)


@pytest.mark.parametrize(
    ("by", "value", "key"),
    [
        (SearchBy.ACCOUNT, " 10 0042-77a ", "10004277A"),
        (SearchBy.ADDRESS, "  42B, Gnómon   Way. ", "42b gnomon way"),
        (SearchBy.ADDRESS, "Straße 12", "strasse 12"),
        (SearchBy.PHONE, "+1 (202) 555-0101", "025550101"),
        (SearchBy.PHONE, "001 202 555 0101", "025550101"),
        (SearchBy.PHONE, "٢٠٢٥٥٥٠١٠١", "025550101"),
        (SearchBy.PHONE, "5550101", "5550101"),
    ],
)
def test_spelling_does_not_count(by, value, key):
    assert search_key(by, value) == key


@pytest.mark.parametrize(
    ("by", "value"),
    [
        (SearchBy.ACCOUNT, "123"),
        (SearchBy.ACCOUNT, ""),
        (SearchBy.ADDRESS, "42 b."),
        (SearchBy.ADDRESS, "......"),
        (SearchBy.PHONE, "555 010"),
        (SearchBy.PHONE, "x" * 50),
        (SearchBy.ACCOUNT, "1" * (VALUE_CHARS_MAX + 1)),
        (SearchBy.ACCOUNT, "1234\0"),
        (SearchBy.ADDRESS, "Gnomon Way\n42"),
        (SearchBy.ADDRESS, "Gnomon Way \ud800"),
    ],
)
def test_what_would_be_a_look_around_is_refused(by, value):
    with pytest.raises(BadSearchError):
        search_key(by, value)


def test_a_telephone_number_of_too_few_digits_finds_nobody():
    assert phone_key("555") == ""
    assert phone_key("") == ""


def test_a_candidate_can_be_recognised_by_who_knows_them_and_tells_nobody_else_much():
    assert masked(ADA).name == "A••• M••• E•••"
    assert masked(ADA).accounts == (CandidateAccount("••••11", "•••• G••• W•••, •••• F••• B•••"),)


def test_a_short_number_is_not_shown_at_all():
    short = CareCustomer("c", "", "en", "", "", (CareAccount("a", "12", "t", "active", "p", ""),))
    assert masked(short).accounts == (CandidateAccount("••••", ""),)


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_digit_and_of_no_word_more_than_its_first_letter_is_shown(name, address):
    account = CareAccount("a", "", "t", "active", "p", address)
    candidate = masked(CareCustomer("c", name, "en", "", "", (account,)))
    for hidden, shown in ((name, candidate.name), (address, candidate.accounts[0].address)):
        assert not any(one.isdigit() for one in shown)
        assert len(shown.split()) == len(hidden.split())
        assert all(len(word.strip("•,")) <= 1 for word in shown.split())
