"""Judges what a run left in a directory: ``python -m tests.chaos_ota.checker DIRECTORY``.

It runs after everything else has ended, in a process of its own, and opens a copy of the store. Prints the
verdict as one line of JSON, then each finding; exits with 1 when there is one.
"""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.judge import SHOWN_MAX
from tests.chaos_ota.evidence import read_evidence
from tests.chaos_ota.judge import Verdict, judge


def check(directory: Path) -> Verdict:
    """Read everything and judge it."""
    with tempfile.TemporaryDirectory(prefix="gnomon-evidence-") as scratch:
        return judge(asyncio.run(read_evidence(directory, Path(scratch))))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos_ota.checker", description=__doc__)
    parser.add_argument("directory", type=Path)
    verdict = check(parser.parse_args(arguments).directory)
    word = "FAILED" if verdict.findings else "passed"
    print(json.dumps({"verdict": word, **verdict.summary()}))
    for finding in verdict.findings[:SHOWN_MAX]:
        print(f"  {finding}")
    if len(verdict.findings) > SHOWN_MAX:
        print(f"  and {len(verdict.findings) - SHOWN_MAX} more")
    return 1 if verdict.findings else 0


if __name__ == "__main__":
    raise SystemExit(main())
