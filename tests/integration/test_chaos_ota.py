"""Firmware under chaos in its short form: every kind of fault, few devices (`make chaos-ota`)."""

import json
import subprocess
import sys

import pytest

from tests.covers import covers
from tests.system.child import ROOT

pytestmark = pytest.mark.integration


@covers("I3FR6.1", "I3FR8")
def test_nothing_is_bricked_wrongly_installed_or_miscounted_whatever_fails(tmp_path, broker_program):  # noqa: ARG001 - a skip without Mosquitto
    # In a process of its own: it makes codes of second factors short-lived, to wait less for them.
    command = [sys.executable, "-m", "tests.chaos_ota", "--short", "--seed", "2", "--keep", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    verdicts = [
        line for line in map(json.loads, filter(_is_json, done.stdout.splitlines())) if "verdict" in line
    ]
    assert [one["bricked"] + one["wrong_install"] + one["miscounted"] for one in verdicts] == [0]


def _is_json(line: str) -> bool:
    return line.startswith("{")
