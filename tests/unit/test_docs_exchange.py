"""The page of the information exchange is what the code's types say, and leaves no row out."""

import pytest

from broker_bridge.topics import parse, parse_firmware
from provisioning import records
from scripts import exchanges, make_exchange
from scripts.make_traceability import shown
from tests.covers import covers


@covers("S5")
def test_exchange_table_matches_topics_and_routes():
    assert make_exchange.PAGE.read_text(encoding="utf-8") == make_exchange.page(), (
        "run `make vectors`, and look at the difference"
    )


def test_no_row_is_left_out_and_each_carried_one_says_what_it_holds():
    rows = exchanges.exchanges()
    assert [row.id for row in rows] == [f"X{number}" for number in range(1, 44)]
    for way in (way for row in rows for way in row.ways):
        assert way.by
        assert way.holds or way.by.startswith("`DELETE "), way


def test_every_mark_of_an_exchange_names_one_that_is_carried():
    carried = {row.id for row in exchanges.exchanges() if row.ways}
    assert {id for id in shown() if id.startswith("X")} <= carried


def test_every_topic_of_it_is_one_that_is_served():
    topics = {
        word.strip("`").replace("<", "").replace(">", "")
        for row in exchanges.exchanges()
        for way in row.ways
        for word in way.by.split()
        if word.startswith("`$aws/")
    }
    assert topics
    for topic in topics:
        served = parse(f"{topic}/update") or parse_firmware(f"{topic}/update")
        assert served is not None, topic


def test_every_kind_of_record_is_in_it():
    page = make_exchange.page()
    kinds = [
        one for name, one in vars(records).items() if name.isupper() and isinstance(one, str) and "." in one
    ]
    assert kinds
    assert [kind for kind in kinds if f"`{kind}`" not in page] == []


@pytest.mark.parametrize("named", [exchanges.rest, exchanges.told_of_program, exchanges.told_by_han])
def test_what_does_not_exist_cannot_be_named(named):
    with pytest.raises(exchanges.UnknownError):
        named("noSuchThing")
