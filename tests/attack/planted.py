"""Plants one hole at a time and tells which attacks notice it."""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, TextIO

from tests.attack.attacks import Outcome, run
from tests.attack.catalogue import ATTACKS, SETTINGS
from tests.attack.field import Field
from tests.attack.holes import HOLES, Hole
from tests.system.child import Gnomon, NotReadyError

SELF_TEST: Final = "lets things do what they may not"
"""What the self-test at the start says of what it found."""


def prove(names: Sequence[str], seed: int, out: TextIO) -> int:
    """Plant every hole, or those that are named; return 1 unless each is caught."""
    unknown = set(names) - HOLES.keys()
    if unknown:
        print(f"no such hole: {', '.join(sorted(unknown))}; there are: {', '.join(HOLES)}", file=out)
        return 1
    holes = [hole for name, hole in HOLES.items() if not names or name in names]
    missed = [hole.name for hole in holes if not _caught(hole, seed, out)]
    print(f"{len(holes) - len(missed)} of {len(holes)} planted holes caught", file=out)
    print("PROVEN" if not missed else f"NOT PROVEN: {', '.join(missed)}", file=out)
    return 1 if missed else 0


def _caught(hole: Hole, seed: int, out: TextIO) -> bool:
    try:
        outcomes = list(under_attack(hole, seed))
    except NotReadyError as error:
        # Unless that is what is wanted, service and hole no longer fit: to be seen as such.
        wanted = not hole.noticed_by and SELF_TEST in str(error)
        mark, why = ("caught", "it does not start with that") if wanted else ("missed", str(error)[-400:])
        print(f"{mark}  {hole.name:<28} {why}", file=out, flush=True)
        return wanted
    noticed = [one for one in outcomes if one.noticed]
    by = "; ".join(f"{one.attack.id}: {next(one.told(), '')[:100]}" for one in noticed)
    mark = "caught" if noticed else "missed"
    print(f"{mark}  {hole.name:<28} {by or _went(outcomes)}", file=out, flush=True)
    return bool(noticed)


def under_attack(hole: Hole, seed: int) -> Iterable[Outcome]:
    """Yield how the attacks went that should notice, on a service with this hole."""
    attacks = [one for one in ATTACKS if one.id in hole.noticed_by]
    assert len(attacks) == len(hole.noticed_by), f"{hole.name} names an attack that is not there"
    with (
        tempfile.TemporaryDirectory(prefix="gnomon-hole-") as name,
        Gnomon(Path(name) / "gnomon", SETTINGS, holes=[hole.name]) as gnomon,
    ):
        yield from run(
            attacks, Field(gnomon, Path(name) / "scratch", quick=True, seed=seed, holes=(hole.name,))
        )


def _went(outcomes: Iterable[Outcome]) -> str:
    return "; ".join(f"{one.attack.id} {one.status} {next(one.told(), '')}" for one in outcomes)
