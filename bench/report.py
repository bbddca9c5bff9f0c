"""Figures as JSON lines: what was measured, on what, and at which commit."""

import json
import platform
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def emit(figure: str, value: float, unit: str, n: int, **more: object) -> None:
    """Print one figure; ``n`` is how many measurements or operations it stands on."""
    line = {"figure": figure, "value": round(value, 3), "unit": unit, "n": n, **more}
    print(json.dumps(line | {"machine": _machine(), "commit": _commit()}), flush=True)


def not_run(figure: str, reason: str) -> None:
    """Print that a figure could not be measured here: a result of its own, never a silent pass."""
    line = {"figure": figure, "value": None, "not_run": reason, "machine": _machine(), "commit": _commit()}
    print(json.dumps(line), flush=True)


def scratch() -> tempfile.TemporaryDirectory[str]:
    """Return a folder for a ``with``: on the disk of the checkout, since memory syncs for nothing."""
    place = ROOT / "var"
    place.mkdir(exist_ok=True)
    return tempfile.TemporaryDirectory(dir=place, prefix="bench-")


def say(text: str) -> None:
    """Tell a person what is being done, beside the figures."""
    print(text, file=sys.stderr, flush=True)


@cache
def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    cores = len(
        [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("processor")]
    )
    return f"{cores} x {model}, Python {platform.python_version()}"


@cache
def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"
