"""The runbook names what there is: every event of the log, every metric, every reason, every command."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from gnomon.cli import main
from infra.settings.keys import KEYS
from infra.telemetry import Metrics
from ota import campaigns, plan
from provisioning.session import _IDLE as IDLE
from provisioning.session import NEVER_IDLE, Cause
from provisioning.states import SESSION

ROOT = Path(__file__).resolve().parents[2]
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
SECURITY = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
PACKAGES = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
    "root_packages"
]
STOPS = {
    plan: (
        "CANARY_BAD",
        "ORDER_EXPIRED",
        "PAUSED_TOO_LONG",
        "SERVICE_HEALTH",
        "TOO_MANY_BAD",
        "TOO_MANY_REJECTED",
        "WAVE_NOT_GOOD",
    ),
    campaigns: ("KEY_REVOKED", "RELEASE_WITHDRAWN"),
}
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def calls():
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    yield path.relative_to(ROOT), node, node.func


def texts(owner, names):
    """The first arguments, if they are words, of calls of these methods of this owner."""
    return {
        call.args[0].value
        for path, call, function in calls()
        if function.attr in names
        and ast.unparse(function.value).endswith(owner)
        and call.args
        and isinstance(call.args[0], ast.Constant)
        and path.parts[0] != "fleet"
    }


def section(title):
    return RUNBOOK.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def named(text):
    return set(re.findall(r"`([a-z_]+)`", text))


def test_every_reason_for_which_a_campaign_stops_by_itself_is_explained():
    rows = [line.split("|")[1] for line in section("Campaigns").splitlines() if line.startswith("| `")]
    stops = {getattr(module, name) for module, names in STOPS.items() for name in names}
    assert named(" ".join(rows)) - {"stop"} == stops


def test_every_event_of_the_log_is_explained_and_none_that_there_is_not():
    rows = [
        line.split("|")[1] for line in section("What the log says").splitlines() if line.startswith("| `")
    ]
    assert named(" ".join(rows)) == texts("_log", LEVELS)


def test_every_reason_to_drop_a_message_is_explained():
    reasons = texts("metrics", {"dropped"})
    assert reasons
    assert reasons <= named(section("What to watch"))


def test_every_metric_it_names_is_there_and_all_of_ours_are_named():
    told = set(re.findall(r"gnomon_[a-z_]+", section("What to watch")))
    shown = set(re.findall(r"^# TYPE (gnomon_\w+)", Metrics().render().decode(), re.MULTILINE))
    assert shown
    counters = {f"gnomon_{name}_total" for name in texts("metrics", {"counter"})}
    gauges = {f"gnomon_{name}" for name in texts("metrics", {"gauge"})}
    assert told == shown | counters | gauges


def test_every_cause_of_not_recognising_and_every_state_with_a_time_of_its_own_is_explained():
    words = set(re.findall(r"`([A-Z_]+)`", section("Provisioning")))
    assert set(Cause) | IDLE.keys() | NEVER_IDLE - SESSION.final <= words


def test_every_setting_it_names_exists():
    words = set(
        re.findall(
            r"`((?:store|broker|api|audit|bridge|logs|telemetry|limits|care|provisioning)\.[a-z_]+)",
            RUNBOOK + SECURITY,
        )
    )
    assert words
    assert words <= KEYS.keys()


@pytest.mark.parametrize(
    ("group", "command"),
    sorted(set(re.findall(r"gnomon (person|thing|ca) ([a-z-]+)", RUNBOOK))),
)
def test_every_command_of_a_group_that_it_names_exists(group, command):
    assert CliRunner().invoke(main, [group, command, "--help"]).exit_code == 0


@pytest.mark.parametrize(
    "command",
    sorted(
        set(
            re.findall(
                r"gnomon (doctor|up|demo|settings|dead-letters|enrol|audit|person|token|voucher|thing"
                r"|provision)",
                RUNBOOK,
            )
        )
    ),
)
def test_every_command_it_names_exists(command):
    assert CliRunner().invoke(main, [command, "--help"]).exit_code == 0
