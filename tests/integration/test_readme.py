"""What the README has a new user type is typed here, as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fleet.plan import city
from tests.covers import covers
from tests.system.child import ROOT, Gnomon
from tests.system.mqtt import until

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("broker_program")]

HOMES = 8
MODEL = "norland-t1-wifi"
RESTART_S_MAX = 20.0
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


@pytest.mark.long
@covers("S3.1-s")
def test_the_city_is_upgraded_by_what_the_readme_types(tmp_path):
    with Gnomon(tmp_path, command=("demo", "--homes", str(HOMES))) as gnomon:
        said = typed(of_the_readme("Upgrade the city"), tmp_path)
        last = said.splitlines()[-1]
        assert re.fullmatch(r"COMPLETED +wave 0 +([1-9]\d*)/\1 +\1 SUCCEEDED", last), said
        before = firmware_of(gnomon)
        assert any(one["version"] == "2.0.0.0" for one in before.values())
        gnomon.stop()
        gnomon.start()
        until(
            lambda: all(one["boot"] > before[name]["boot"] for name, one in firmware_of(gnomon).items()),
            "all have started again",
            RESTART_S_MAX,
        )
        after = firmware_of(gnomon)
        assert {name: one["version"] for name, one in after.items()} == {
            name: one["version"] for name, one in before.items()
        }


def firmware_of(gnomon: Gnomon) -> dict[str, dict[str, Any]]:
    """Return what thermostats with a certificate of their own say that they run."""
    plan = city(HOMES, seed=1)
    names = [one.name for home in plan.homes for one in home.devices if one.model == MODEL]
    pages = {name: gnomon.http.get(f"/v1/things/{name}/firmware") for name in names}
    return {name: page.json()["reported"] for name, page in pages.items() if page.is_success}
