"""Says which rows of the requirements a test shows."""

import re
from typing import Final

import pytest

_ROW: Final = re.compile(r"[A-Z]?[0-9A-Z][0-9A-Za-z.]*(?:[/-][0-9A-Za-z.]+)*")


def covers(*rows: str) -> pytest.MarkDecorator:
    """Mark a test with the rows it covers: ``@covers("3.2/7", "O11")``."""
    assert rows, "name a row"
    for row in rows:
        assert _ROW.fullmatch(row), f"{row!r} is no row of the requirements"
    return pytest.mark.covers(*rows)
