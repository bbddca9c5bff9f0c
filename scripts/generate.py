"""Rebuilds what is generated: golden files and pages. `make vectors` fails when one was not current."""

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Run every generator there is: files called ``make_*.py``, here or beside what they make."""
    # Golden files first: pages are made from them.
    golden, pages = (sorted(ROOT.glob(f"{place}/make_*.py")) for place in ("tests/vectors/**", "scripts"))
    for generator in (*golden, *pages):
        print(f"  {generator.relative_to(ROOT)}")  # noqa: T201 - a command line prints
        runpy.run_path(str(generator), run_name="__main__")


if __name__ == "__main__":
    main()
