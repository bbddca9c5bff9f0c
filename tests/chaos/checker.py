"""Judges what a kill test left in a directory: ``python -m tests.chaos.checker DIRECTORY``.

It runs after everything else has ended, in a process of its own, and opens a copy of the store. Prints the
verdict as one line of JSON, then each finding; exits with 1 when there is one.
"""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.chaos.evidence import Evidence, copy_store, read_finals, read_lines, read_store
from tests.chaos.judge import SHOWN_MAX, Verdict, judge, proves
from tests.chaos.manifest import MANIFEST, Manifest, body_of


def check(directory: Path) -> tuple[Manifest, Verdict]:
    """Read everything and judge it."""
    manifest = msgspec.json.decode((directory / MANIFEST).read_bytes(), type=Manifest)
    with tempfile.TemporaryDirectory(prefix="gnomon-evidence-") as scratch:
        stored = asyncio.run(read_store(copy_store(directory / "var" / "gnomon.db", Path(scratch))))
    evidence = Evidence(
        read_lines(sorted(directory.glob("history-*.jsonl"))),
        stored.rows,
        stored.documents,
        read_finals(directory / "finals.jsonl"),
        stored.dead_letters,
    )
    return manifest, judge(evidence, body_of, manifest.converges)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.checker", description=__doc__)
    parser.add_argument("directory", type=Path)
    manifest, verdict = check(parser.parse_args(arguments).directory)
    good = not verdict.findings and verdict.accepted > 0
    figures = {
        "verdict": "passed" if good else "FAILED",
        **verdict.summary(),
        "cycles": manifest.cycles,
        "proves_per_kill": proves(manifest.cycles, "kill"),
        "seed": manifest.seed,
    }
    print(json.dumps(figures))
    for finding in verdict.findings[:SHOWN_MAX]:
        print(f"  {finding}")
    if len(verdict.findings) > SHOWN_MAX:
        print(f"  and {len(verdict.findings) - SHOWN_MAX} more")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
