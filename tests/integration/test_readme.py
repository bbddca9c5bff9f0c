"""What the README has a new user type is typed here, as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.covers import covers
from tests.system.child import ROOT, Gnomon

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("broker_program")]

HOMES = 8
WALK_S_MAX = 240


def of_the_readme(title: str) -> str:
    """Return the commands of a section of the README."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    section = page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    (commands,) = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return str(commands)


def typed(commands: str, directory: Path) -> str:
    """Type commands where `gnomon` is the one of this tree; return what is shown."""
    program = directory / ".venv" / "bin" / "gnomon"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.system.up "$@"\n')
    program.chmod(0o755)
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", commands],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=WALK_S_MAX,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@covers("S3.1-s")
def test_the_city_is_upgraded_by_what_the_readme_types(tmp_path):
    with Gnomon(tmp_path, command=("demo", "--homes", str(HOMES))):
        said = typed(of_the_readme("Upgrade the city"), tmp_path)
    assert "COMPLETED" in said
    assert re.search(r"SUCCEEDED\s+[1-9]", said), said
    assert not re.search(r"FAILED|REJECTED|TIMED_OUT|ROLLED_BACK", said), said
