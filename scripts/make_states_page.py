"""Writes docs/states.md: a drawing of every life cycle, made from its table."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from infra.machines import Machine, drawing

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "states.md"
HEAD: Final = """\
# Life cycles

Drawn from the tables in `states.py` of each package (`make vectors`), so that they cannot differ from what
the code does. What has no arrow here is refused with 409 `illegal-transition`, and nothing changes.
"""


def machines() -> Iterator[tuple[str, Machine[Any, Any]]]:
    """Yield every life cycle that a package has, with the package."""
    for file in sorted(ROOT.glob("*/states.py")):
        package = file.parent.name
        for value in vars(importlib.import_module(f"{package}.states")).values():
            if isinstance(value, Machine):
                yield package, value


def page() -> str:
    """Return the page."""
    parts, before = [HEAD], ""
    for package, machine in machines():
        if package != before:
            parts.append(f"## `{package}`\n")
            before = package
        parts.append(f"### {machine.name[0].upper()}{machine.name[1:]}\n")
        parts.append(f"```mermaid\n{drawing(machine)}```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
