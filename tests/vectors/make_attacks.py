"""Writes docs/attacks.md: what the Bad Actor tries, and which missing defences that would show."""

from pathlib import Path

from tests.attack.attacks import Attack
from tests.attack.catalogue import ATTACKS, LATER
from tests.attack.holes import HOLES, Hole

PAGE = Path(__file__).resolve().parents[2] / "docs" / "attacks.md"

BEGINNING = """# Attacks

What a Bad Actor tries against a running Gnomon (real broker, TLS, SQLite), and what shows that the attacks
would notice. This page is made from `tests/attack/`; `make vectors` writes it.

```sh
make attack                          # everything; exits with 1 unless all is repelled
make attack ARGS="--only B5"         # one row
make attack ARGS="--quick"           # less of each: the part that `make test` runs
make attack ARGS="--json report.json --seed 7"
make attack-planted                  # takes one defence away at a time: each must be noticed
```

Each line of the report says how often something was tried and how often it succeeded, which must be 0. That
alone means nothing, so each attack also does the honest thing in the same way with the right identity; if
that does not work, or if too little was tried, the line says PROVES NOTHING. UNNOTICED: all was refused,
but what the defence promises beside that (a row in the audit, an alarm, a kick) did not come. The last line
is the verdict.

## What is tried

Numbers are rows of the Bad Actor table. *At least* is how many attempts there must be, in the whole run and
in its quick part.

| | attack | how | at least |
|---|---|---|---|
"""

HOLES_TITLE = """
## Planted holes

A hole is one function in `tests/attack/holes.py` that patches one place in a child process before the
service starts; the service's code knows nothing of it.

| hole | what is taken away | noticed by |
|---|---|---|
"""

LATER_TITLE = """
## Not tried yet

| | attack | waits for |
|---|---|---|
"""


def main() -> None:
    """Write the page."""
    rows = [_attack(one) for one in ATTACKS]
    holes = [_hole(one) for one in HOLES.values()]
    later = [f"| {id} | {name} | {why} |" for id, name, why in LATER]
    page = BEGINNING + "\n".join(rows) + "\n" + HOLES_TITLE + "\n".join(holes) + "\n"
    if later:
        page += LATER_TITLE + "\n".join(later) + "\n"
    PAGE.write_text(page, encoding="utf-8")


def _attack(one: Attack) -> str:
    quick = f"{one.at_least.quick:,}" if one.quick else "-"
    return f"| {one.id} | {one.name} | {_first_line(one.carry_out)} | {one.at_least.full:,} / {quick} |"


def _hole(one: Hole) -> str:
    return f"| `{one.name}` | {_first_line(one.plant)} | {', '.join(one.noticed_by) or 'the start'} |"


def _first_line(function: object) -> str:
    return (function.__doc__ or "").strip().partition("\n")[0].rstrip(".").replace("|", "\\|")


if __name__ == "__main__":
    main()
