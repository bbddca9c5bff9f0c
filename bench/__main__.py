"""Every figure: ``python -m bench`` runs them all, ``python -m bench merge bridge`` some.

One JSON object a line on standard output; what is being done goes to standard error. The machines are
shared and noisy: what a figure is worth stands in ratios within one run.
"""

import subprocess
import sys
from pathlib import Path

from bench.report import ROOT, say

FIGURES = (
    "merge",
    "store",
    "bridge",
    "blocks",
    "connect",
    "rest",
    "growth",
    "audit",
    "search",
    "provisioning",
    "campaigns",
)


def main() -> None:
    wanted = sys.argv[1:] or FIGURES
    known = {file.stem for file in Path(__file__).parent.glob("*.py")}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise SystemExit(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(FIGURES)}")
    failed = []
    for name in wanted:
        say(f"== {name}")
        if subprocess.run([sys.executable, "-m", f"bench.{name}"], cwd=ROOT, check=False).returncode:
            failed.append(name)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
