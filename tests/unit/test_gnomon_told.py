"""What others wrote is shown on a terminal and does nothing there."""

import pytest

from gnomon.told import INSTEAD, harmless


def test_what_can_be_printed_is_told_as_it_is():
    told = {"name": "Grüße, 東京, 21 °C", "count": 3, "list": [True, None, 1.5, "x"], "empty": ""}
    assert harmless(told) == told


@pytest.mark.parametrize(
    "text", ["\x1b[2J", "\x9b2J", "\x07", "\r", "\n", "\u202e", "\u200b", "\ue000", "\ud800"]
)
def test_what_cannot_be_printed_becomes_a_mark_wherever_it_stands(text):
    told = harmless({f"a{text}": [f"{text}b", {"c": f"c{text}c"}]})
    ((name, (first, inner)),) = told.items()
    assert INSTEAD in name
    assert INSTEAD in first
    assert INSTEAD in inner["c"]
    assert all(one.isprintable() for one in (name, first, inner["c"]))
