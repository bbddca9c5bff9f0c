"""Writes docs/traceability.md: rows of the requirements, the modules that do it, the tests that show it.

A test says which rows it shows by ``@covers("3.2/7")``. The modules are those that such a test imports, of
the packages that the row names.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
ROWS, PAGE = ROOT / "docs" / "requirements.md", ROOT / "docs" / "traceability.md"
NOT_AVAILABLE: Final = "-"
"""Stands for the packages of a row whose text we do not have."""
STILL_PLANNED: Final = {
    "A4": "messages of events, and the answers to them",
    "A5": "text and price on displays",
    "A9": "an oversized event",
    "A10": "the page",
    "A11": "connectivity check and self-test on site",
    "A12": "the page for the telephone call",
    "O6": "events that address categories",
}
"""Of rows that are shown: what of them is not built yet."""
_ROW: Final = re.compile(r"\| ([A-Z0-9][\w./-]*) \| (.*) \| ([^|]*) \|")


@dataclass(frozen=True)
class Row:
    """A row of the requirements."""

    id: str
    must: str
    packages: tuple[str, ...]


@dataclass
class Shown:
    """What shows a row."""

    tests: list[str] = field(default_factory=list)
    modules: set[str] = field(default_factory=set)


def rows() -> list[Row]:
    """Return all rows in the order of the page."""
    found = [_ROW.fullmatch(line) for line in ROWS.read_text().splitlines()]
    return [
        Row(row[1], row[2], tuple(part.strip() for part in row[3].split(",")))
        for row in found
        if row is not None and row[1] != "ID"
    ]


def shown(tests: Path = ROOT / "tests") -> dict[str, Shown]:
    """Return by row what its marks say."""
    found = defaultdict[str, Shown](Shown)
    for file in sorted(tests.rglob("test_*.py")):
        tree = ast.parse(file.read_text())
        modules = set(_imported(tree))
        for test, ids in _marks(tree):
            for id in ids:
                found[id].tests.append(f"{file.relative_to(tests).as_posix()}::{test}")
                found[id].modules |= modules
    return found


def _marks(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    """Yield the tests of a file with the rows they are marked with; a mark on the module is for all."""
    of_module = [
        id
        for node in tree.body
        if isinstance(node, ast.Assign)
        and any(getattr(one, "id", "") == "pytestmark" for one in node.targets)
        for id in _ids(node.value)
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            own = [id for decorator in node.decorator_list for id in _ids(decorator)]
            if own or of_module:
                yield node.name, own + of_module


def _ids(node: ast.AST) -> Iterator[str]:
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "covers":
            yield from (str(one.value) for one in call.args if isinstance(one, ast.Constant))


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{one.name}" for one in node.names)
        elif isinstance(node, ast.Import):
            yield from (one.name for one in node.names)


def _is_module(name: str) -> bool:
    place = ROOT.joinpath(*name.split("."))
    return place.with_suffix(".py").is_file()


def page() -> str:
    """Return the page."""
    found = shown()
    lines = [
        "# Traceability",
        "",
        "Made by `make vectors` from [the requirements](requirements.md) and the marks on the tests.",
        "*Planned*: no test shows it, or that part of it, yet.",
        "*Not available*: a text that the use case only refers to.",
        "",
        "| row | modules | tests |",
        "|---|---|---|",
    ]
    return "\n".join([*lines, *(_line(row, found.get(row.id, Shown())) for row in rows())]) + "\n"


def _line(row: Row, shown: Shown) -> str:
    if not shown.tests:
        return f"| {row.id} | | {'not available' if row.packages == (NOT_AVAILABLE,) else '*planned*'} |"
    modules = sorted(
        name for name in shown.modules if name.split(".")[0] in row.packages and _is_module(name)
    )
    cells = ["<br>".join(f"`{one}`" for one in several) for several in (modules, shown.tests)]
    planned = f"<br>*planned*: {STILL_PLANNED[row.id]}" if row.id in STILL_PLANNED else ""
    return f"| {row.id} | {' | '.join(cells)}{planned} |"


if __name__ == "__main__":
    PAGE.write_text(page())
