"""``make chaos``: kill cycles under load, then the verdict. Exits with 1 when anything promised was broken.

Prints a line of JSON for each cycle. ``--keep DIRECTORY`` leaves everything there to be looked at, and a
failed run is kept in any case.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.supervisor import Supervisor
from tests.system.child import ROOT


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="an empty or new directory")
    options = parser.parse_args(arguments)
    directory = options.keep or Path(tempfile.mkdtemp(prefix="gnomon-chaos-"))
    directory.mkdir(parents=True, exist_ok=True)
    try:
        Supervisor(directory, options.cycles, options.seed).run()
        code = _check(directory)
    except BaseException:
        print(f"everything is kept in {directory}", file=sys.stderr)
        raise
    if code:
        print(f"everything is kept in {directory}", file=sys.stderr)
    elif options.keep is None:
        shutil.rmtree(directory)
    return code


def _check(directory: Path) -> int:
    """Let another process judge: it shares nothing with this one but files."""
    command = [sys.executable, "-m", "tests.chaos.checker", str(directory)]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
