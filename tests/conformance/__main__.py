"""``make conformance``: outside clients, unmodified, against a running Gnomon.

Prints a table, and as its last line ``N passed, N failed``. ``--only TEXT`` runs the cases whose line holds
the text.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import chain
from pathlib import Path

from tests.conformance import campaign_cases, device_cases, http_cases, job_cases
from tests.conformance.cases import Case, Verdict, run
from tests.conformance.job_host import JobHost
from tests.system.child import Gnomon

SETTINGS = {"api.compat_http": "true", "limits.named_shadows_max": 200}
"""More named shadows than by default, so that a list has more than one page of the largest size."""


def all_cases() -> list[Case]:
    """Return every case, grouped by the way it is run."""
    cases = [*device_cases.CATALOGUE.cases, *http_cases.CATALOGUE.cases]
    ways = list(dict.fromkeys(case.way for case in cases))
    return sorted(cases, key=lambda case: ways.index(case.way))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--only", default="", help="run only cases whose line holds this text")
    wanted = parser.parse_args(arguments).only
    cases = [case for case in all_cases() if wanted in case.line]
    print(f"awsiotsdk {version('awsiotsdk')}, awscrt {version('awscrt')}, boto3 {version('boto3')}")
    verdicts = []
    with tempfile.TemporaryDirectory(prefix="gnomon-conformance-") as directory:
        of_jobs = _of_jobs(Path(directory, "jobs"), wanted)
        of_campaigns = _of_campaigns(Path(directory, "campaigns"), wanted)
        for verdict in chain(_of_gnomon(Path(directory, "up"), cases), of_jobs, of_campaigns):
            verdicts.append(verdict)
            _print(verdict)
    failed = sum(1 for verdict in verdicts if verdict.problem)
    print(f"{len(verdicts) - failed} passed, {failed} failed")
    return 1 if failed or not verdicts else 0


def _of_gnomon(directory: Path, cases: list[Case]) -> Iterator[Verdict]:
    if cases:
        with Gnomon(directory, SETTINGS) as gnomon:
            yield from run(cases, gnomon)


def _of_jobs(directory: Path, wanted: str) -> Iterator[Verdict]:
    if any(wanted in line for line in job_cases.lines()):
        with JobHost(directory).running() as host:
            yield from job_cases.run(host, wanted)


def _of_campaigns(directory: Path, wanted: str) -> Iterator[Verdict]:
    if any(wanted in line for line in campaign_cases.lines()):
        with campaign_cases.running(directory) as bench:
            yield from campaign_cases.run(bench, wanted)


def _print(verdict: Verdict) -> None:
    mark = "FAILED" if verdict.problem else "passed"
    print(f"{mark}  {verdict.seconds:5.2f} s  {verdict.line}", flush=True)
    if verdict.problem:
        print(f"        {verdict.problem}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
