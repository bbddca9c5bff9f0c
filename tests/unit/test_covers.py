"""A mark names rows that could be there."""

import pytest

from tests.covers import covers


@pytest.mark.parametrize("row", ["3.2/7", "3.3/6.1", "S1.4c", "S3.2-pre", "O11", "A3", "X22", "B39"])
def test_every_spelling_of_a_row_is_taken(row):
    assert covers(row).args == (row,)


@pytest.mark.parametrize("row", ["", "3.2 / 7", "o11", "O11,O12"])
def test_what_can_be_no_row_is_refused(row):
    with pytest.raises(AssertionError):
        covers(row)


def test_a_mark_without_a_row_is_refused():
    with pytest.raises(AssertionError):
        covers()
