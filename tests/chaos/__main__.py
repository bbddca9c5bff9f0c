"""``make chaos``: kill cycles under load, then the verdict. Exits with 1 when anything promised was broken.

Prints a line of JSON for each cycle. ``--keep DIRECTORY`` leaves everything there to be looked at, and a
failed run is kept in any case. ``--planted`` plants known bugs, one after another, and fails unless the
verdict names each by its kind: a kill test that misses them proves nothing.
"""

import argparse
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.chaos import judge
from tests.chaos.checker import check
from tests.chaos.keeping import run_and_judge
from tests.chaos.supervisor import Supervisor
from tests.system import faults

PLANTED = {
    faults.SPEAK_BEFORE_COMMIT: judge.LOST,
    faults.FORGET_TOKENS: judge.DOUBLED,
}
PLANTED_CYCLES = 6


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="an empty or new directory")
    parser.add_argument("--planted", action="store_true", help="prove that known bugs are caught")
    options = parser.parse_args(arguments)
    if options.planted:
        return _prove(options.seed)
    return run_and_judge(
        lambda directory: Supervisor(directory, options.cycles, options.seed).run(),
        "tests.chaos.checker",
        options.keep,
        "gnomon-chaos-",
    )


def _prove(seed: int) -> int:
    missed = 0
    for fault, kind in PLANTED.items():
        with tempfile.TemporaryDirectory(prefix="gnomon-chaos-") as name:
            directory = Path(name)
            Supervisor(directory, PLANTED_CYCLES, seed, io.StringIO(), [fault]).run()
            _, verdict = check(directory)
        found = verdict.count(kind)
        missed += not found
        print(json.dumps({"planted": fault, "must_find": kind, "found": found}), flush=True)
    print("PROVEN" if not missed else f"NOT PROVEN: {missed} of {len(PLANTED)} bugs were missed")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
