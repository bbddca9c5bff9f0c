"""The use case's scenarios, and the tool at a terminal, against a running demo utility."""

import io
import os
import signal
import subprocess
import sys

import pytest

from fleet.provisioning import BRIDGE, BROADBAND, METER, SCENES
from tests.covers import covers
from tests.scenarios.stage import Stage, staged
from tests.scenarios.upgrades import customers
from tests.scenarios.walks import not_recognised, recognised
from tests.system.child import ROOT

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def stage(broker_program):  # noqa: ARG001 - a skip without Mosquitto
    with staged(METER) as stage:
        yield stage


def at(stage: Stage, number: int) -> Stage:
    return Stage(stage.gnomon, number, out=io.StringIO())


@pytest.mark.long
@covers("S3.1", "S3.1-s", "I3FR3.1", "I3FR6.1", "I3FR8")
def test_scenario_3_1_for_the_customers_thermostats_while_one_is_used_and_then_on_site(stage):
    customers(at(stage, METER))


@covers("A10", "A7", "S1.4c", "S1.4f", "S3.2-post", "3.2/7", "3.2/12", "3.2/13", "3.2/14", "3.2/15", "A3")
def test_scenario_3_2_over_a_meter(stage):
    recognised(at(stage, METER))


@covers("A6", "S1.4c", "S1.4d")
def test_scenario_3_2_at_a_terminal_over_the_customer_s_gateway(stage):
    scene, here = SCENES[BROADBAND], at(stage, BROADBAND)
    labels = [
        line
        for name in ("thermostat", "heater")
        for line in (scene.eui64s[name], scene.labels[scene.eui64s[name]])
    ]
    typed = ["account", here.account_number(), "", "y", *labels, ""]  # the search, the labels
    typed += ["y", "Hall", "hall", "y", "Tank", "cellar"]  # which take part
    typed += ["", ""]  # the first program on offer for each
    typed += ["y", "", "", "y"]  # consent, and that the customer was told
    said = run_tool(here, typed, interrupt_after="AUTH_OK")
    assert "is CONFIRMED" in said, said
    assert said.count("READY") >= 2
    assert scene.eui64s["door"] not in said


@covers("3.3/1-15", "3.3/6.1", "3.3/6.2", "3.3/6.3")
def test_scenario_3_3_by_a_bridge(stage):
    not_recognised(at(stage, BRIDGE))


def run_tool(stage: Stage, typed: list[str], interrupt_after: str) -> str:
    """Type into `gnomon provision`; what has been seen is enough once this was said twice."""
    command = [sys.executable, "-m", "tests.system.up", "provision", "--case", "c-77", "--as"]
    command.append(str(stage.gnomon.var / "demo" / "credentials" / "rep.toml"))
    said = ""
    with subprocess.Popen(
        command,
        cwd=stage.gnomon.directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n".join(typed) + "\n")
        process.stdin.close()  # a question more than expected ends it, and nobody waits for ever
        for line in process.stdout:
            said += line
            if interrupt_after in line and said.count(interrupt_after) == 2:
                process.send_signal(signal.SIGINT)  # that is all
    return said
