"""The page of requirements and the marks on tests say the same."""

from scripts.make_traceability import NOT_AVAILABLE, ROOT, STILL_PLANNED, rows, shown

EXCHANGES = "X"
"""Rows of the information exchange stand on a page of their own."""


def test_every_mark_names_a_row_that_there_is():
    known = {row.id for row in rows()}
    marks = {id for id in shown() if not id.startswith(EXCHANGES)}
    assert marks <= known


def test_a_part_is_planned_only_of_a_row_that_is_shown():
    assert STILL_PLANNED.keys() <= {row.id for row in rows()} & shown().keys()


def test_no_row_stands_twice():
    ids = [row.id for row in rows()]
    assert len(ids) == len(set(ids))


def test_every_package_that_a_row_names_is_one_or_will_be():
    planned = {"ota"}
    for row in rows():
        for package in row.packages:
            assert package == NOT_AVAILABLE or package in planned or (ROOT / package).is_dir(), row
