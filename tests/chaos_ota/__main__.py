"""``make chaos-ota``: a fleet is upgraded while everything fails, then the verdict; 1 unless all holds.

Prints a line of JSON for each thing that is done. ``--keep DIRECTORY`` leaves everything there to be looked
at, and a failed run is kept in any case. ``--planted`` plants known bugs, one after another, and fails unless
the verdict names each by its kind.
"""

import argparse
import io
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.chaos.keeping import run_and_judge
from tests.chaos_ota import judge
from tests.chaos_ota.checker import check
from tests.chaos_ota.supervisor import Plan, Supervisor

PLANTED: Final = {
    "gullible": judge.WRONG_INSTALL,
    "careless-blocks": judge.BRICKED,
    "one-page": judge.BRICKED,
    "no-way-back": judge.BRICKED,
    "abort-leaves-active": judge.ABORT_IGNORED,
    "miscount": judge.MISCOUNTED,
    "forget-ends": judge.MISCOUNTED,
}
SHORT: Final = Plan(
    devices=60,
    kills=2,
    image_bytes=48 * 1_024,
    loss=0.06,
    mangled=0.15,
    hurry=True,
    run_s_max=150,
    settle_s_max=40,
)
"""All kinds of faults, and little time."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos_ota", description=__doc__)
    parser.add_argument("--devices", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--short", action="store_true", help="as the tests run it: few devices that hurry")
    parser.add_argument("--keep", type=Path, help="an empty or new directory")
    parser.add_argument("--planted", nargs="?", const="all", help="prove that known bugs are caught")
    options = parser.parse_args(arguments)
    if options.planted:
        return _prove(options.seed, options.planted)
    plan = Plan(devices=options.devices, seed=options.seed, kills=options.kills)
    if options.short:
        plan = replace(SHORT, seed=options.seed)
    return run_and_judge(
        lambda directory: Supervisor(directory, plan).run(),
        "tests.chaos_ota.checker",
        options.keep,
        "gnomon-chaos-ota-",
    )


def _prove(seed: int, which: str) -> int:
    missed = 0
    chosen = PLANTED if which == "all" else {which: PLANTED[which]}
    for bug, kind in chosen.items():
        with tempfile.TemporaryDirectory(prefix="gnomon-chaos-ota-") as name:
            Supervisor(Path(name), replace(SHORT, seed=seed, planted=bug), io.StringIO()).run()
            verdict = check(Path(name))
        found = verdict.count(kind)
        missed += not found
        print(json.dumps({"planted": bug, "must_find": kind, "found": found}), flush=True)
    print("PROVEN" if not missed else f"NOT PROVEN: {missed} of {len(chosen)} bugs were missed")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
