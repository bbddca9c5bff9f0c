"""``make attack``: the Bad Actor against a running Gnomon. Exits with 1 when an attack was not repelled.

Prints a line for each attack: its row of the table in the specification, what it is, how often it was tried,
how often it succeeded, and what was measured. ``--only B5`` runs one row. ``--quick`` does less of each.
``--planted`` takes one defence away at a time and fails unless an attack notices each: attacks that miss that
prove nothing.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

import msgspec

from tests.attack import planted
from tests.attack.attacks import Attack, Outcome, run
from tests.attack.catalogue import ATTACKS, SETTINGS
from tests.attack.field import Field
from tests.system.child import Gnomon


def main(arguments: Sequence[str] | None = None, out: TextIO = sys.stdout) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__)
    parser.add_argument("--only", action="append", default=[], help="a row (B5), or a hole with --planted")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="less of each: under 90 s")
    parser.add_argument("--json", type=Path, help="write everything here, too")
    parser.add_argument("--planted", action="store_true", help="prove that missing defences are noticed")
    options = parser.parse_args(arguments)
    if options.planted:
        return planted.prove(options.only, options.seed, out)
    outcomes = []
    for outcome in carry_out(wanted(options.only, quick=options.quick), options.seed, quick=options.quick):
        outcomes.append(outcome)
        _print(outcome, out)
    if options.json is not None:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(document(outcomes, options.seed))))
    return _verdict(outcomes, out)


def wanted(rows: Sequence[str], *, quick: bool) -> list[Attack]:
    """Return the attacks of these rows, of all if none is named."""
    return [
        one for one in ATTACKS if (not rows or one.row in rows or one.id in rows) and (one.quick or not quick)
    ]


def carry_out(attacks: Sequence[Attack], seed: int, *, quick: bool) -> Iterable[Outcome]:
    """Yield how each attack on a service of their own went."""
    with (
        tempfile.TemporaryDirectory(prefix="gnomon-attack-") as name,
        Gnomon(Path(name) / "gnomon", SETTINGS) as gnomon,
    ):
        yield from run(attacks, Field(gnomon, Path(name) / "scratch", quick, seed))


def document(outcomes: Iterable[Outcome], seed: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "attacks": [
            {
                "id": one.attack.id,
                "name": one.attack.name,
                "status": one.status,
                "tried": one.score.tried,
                "succeeded": one.score.succeeded,
                "honest_acts": one.score.honest_acts,
                "seconds": round(one.seconds, 2),
                "measured": one.score.measured,
                "problems": list(one.told()),
            }
            for one in outcomes
        ],
    }


def _print(outcome: Outcome, out: TextIO) -> None:
    one, score = outcome.attack, outcome.score
    figures = ", ".join(f"{name} {value}" for name, value in score.measured.items())
    print(
        f"{one.id:<4} {one.name:<52} tried {score.tried:>6,}  succeeded {score.succeeded}"
        f"  {outcome.status}  {outcome.seconds:.1f} s  {figures}",
        file=out,
        flush=True,
    )
    for line in outcome.told():
        print(f"     {line}", file=out, flush=True)


def _verdict(outcomes: Sequence[Outcome], out: TextIO) -> int:
    tried, succeeded = (sum(getattr(one.score, name) for one in outcomes) for name in ("tried", "succeeded"))
    bad = [one.attack.id for one in outcomes if not one.repelled]
    print(f"{len(outcomes)} attacks, {tried:,} attempts, {succeeded} succeeded", file=out)
    if bad or not outcomes:
        print(f"NOT REPELLED: {', '.join(bad) or 'nothing was tried'}", file=out)
        return 1
    print("REPELLED", file=out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
