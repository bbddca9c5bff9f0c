"""Runs something in a directory, has it judged, and keeps the directory where somebody may want to look."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.system.child import ROOT


def run_and_judge(run: Callable[[Path], None], checker: str, keep: Path | None, prefix: str) -> int:
    """Run in ``keep``, or in a directory of its own that is gone if all was well; return the checker's code.

    The checker is a module, run as another process: it shares nothing with this one but files.
    """
    directory = keep or Path(tempfile.mkdtemp(prefix=prefix))
    directory.mkdir(parents=True, exist_ok=True)
    code = 1
    try:
        run(directory)
        command = [sys.executable, "-m", checker, str(directory)]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
    finally:
        if code:
            print(f"everything is kept in {directory}", file=sys.stderr)
    if not code and keep is None:
        shutil.rmtree(directory)
    return code
