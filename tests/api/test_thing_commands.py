"""``gnomon thing`` against a service that runs: whoever may, with one command, and its second factor."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gnomon.access import Access
from gnomon.credentials import read_credentials
from security.policy import Role
from tests.api.rig import HALL, HOME
from tests.api.served import Run, Served
from tests.api.typist import Sit

As = Callable[[Role], tuple[str, str]]
GATEWAY, LOAD = "gw:1", "load:1"


@pytest.fixture
def as_(files: Path) -> As:
    return lambda role: ("--as", str(files / f"{role}.toml"))


@pytest.fixture
def pair(run: Run, as_: As) -> None:
    """A gateway of the utility's, and a thing of the utility's beside it."""
    for name, kind in ((GATEWAY, "gateway"), (LOAD, "device")):
        told = run(
            *("thing", "register", name, "--kind", kind, "--owner", "utility"),
            *("--premises", HOME, "--model", "acme-lcs-1", *as_(Role.SECURITY)),
        )
        assert told.stdout == f"{name}  registered at {HOME}\n"


def test_an_officer_revokes_a_stolen_device_with_one_command_and_one_code(
    run: Run, where: Served, files: Path, as_: As, sit: Sit
):
    file = files / "security.toml"
    kept = read_credentials(file)
    assert kept.totp_seed is not None
    run("token", str(file))
    file.write_text(f'url = "{where.url}"\nlogin = "{kept.login}"\n')
    where.clock.advance(60)
    typist = sit(seed=kept.totp_seed.reveal())
    assert run("thing", "revoke", HALL, *as_(Role.SECURITY)).stdout == f"{HALL}  revoked\n"
    assert typist.questions == ["code of the second factor"]
    run("thing", "revoke", HALL, *as_(Role.SECURITY))  # again is no error


def test_who_must_show_a_second_factor_is_not_refused_first(
    run: Run, as_: As, monkeypatch: pytest.MonkeyPatch
):
    """A refusal for want of one would stand in the audit as somebody's try."""
    answers, ask = list[int](), Access._ask_service

    def recorded(self: Access, method: str, path: str, **options: Any) -> httpx.Response:
        answer = ask(self, method, path, **options)
        answers.append(answer.status_code)
        return answer

    monkeypatch.setattr(Access, "_ask_service", recorded)
    run("thing", "suspend", HALL, *as_(Role.SECURITY))
    run("thing", "resume", HALL, *as_(Role.SECURITY))
    assert answers
    assert max(answers) < 400


def test_a_name_that_nothing_has_is_told_with_what_to_do(run: Run, as_: As):
    refused = run("thing", "revoke", "no-such-thing", *as_(Role.SECURITY), ok=False)
    assert "Register the thing, or correct its name." in refused.output


@pytest.mark.usefixtures("pair")
def test_things_are_listed_and_shown_to_who_may_read_them(run: Run, as_: As):
    run("thing", "suspend", LOAD, *as_(Role.OPERATOR))
    listed = run("thing", "list", "--premises", HOME, *as_(Role.OPERATOR)).stdout
    assert {line.split()[0]: line.split()[3] for line in listed.splitlines()} == {
        GATEWAY: "active",
        LOAD: "suspended",
    }
    assert GATEWAY not in run("thing", "list", "--kind", "device", *as_(Role.OPERATOR)).stdout
    shown = run("thing", "show", LOAD, *as_(Role.OPERATOR)).stdout
    assert ["model", "acme-lcs-1"] in [line.split() for line in shown.splitlines()]
    run("thing", "resume", LOAD, *as_(Role.OPERATOR))
    assert "suspended_at" not in run("thing", "show", LOAD, *as_(Role.OPERATOR)).stdout
    run("thing", "revoke", LOAD, *as_(Role.SECURITY))
    assert "revoked" in run("thing", "list", "--kind", "device", *as_(Role.OPERATOR)).stdout


@pytest.mark.usefixtures("pair")
def test_a_thing_is_attached_to_a_gateway_and_detached(run: Run, as_: As):
    done = run("thing", "attach", GATEWAY, LOAD, *as_(Role.SECURITY)).stdout
    assert done == f"{LOAD}  attached to {GATEWAY}\n"
    run("thing", "detach", GATEWAY, LOAD, *as_(Role.SECURITY))
    again = run("thing", "detach", GATEWAY, LOAD, *as_(Role.SECURITY), ok=False).output
    assert "Attach it first." in again
    assert (
        "Only a gateway has attached things."
        in run("thing", "attach", LOAD, GATEWAY, *as_(Role.SECURITY), ok=False).output
    )


@pytest.mark.parametrize(
    "command", [("list",), ("show", HALL), ("suspend", HALL), ("resume", HALL), ("revoke", HALL)]
)
def test_who_may_not_is_told_so(run: Run, as_: As, command: tuple[str, ...]):
    refused = run("thing", *command, *as_(Role.AUDITOR), ok=False).output
    assert "Your role may not do this; ask for one that may." in refused
