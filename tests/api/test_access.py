"""Accounts against a service that runs: tokens kept fresh, second factors shown for one act."""

import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gnomon.access import Access
from gnomon.credentials import read_credentials
from gnomon.refusals import AccessError
from security.people.sessions import STAFF_S
from security.policy import Action, Role
from tests.api.served import Served

Open = Callable[[Role], Access]


@pytest.fixture
def opened(where: Served, files: Path) -> Iterator[Open]:
    """Return what opens an account; waiting lets the service's time pass."""
    made = list[Access]()

    def open(role: Role) -> Access:
        file = files / f"{role}.toml"
        one = Access(
            read_credentials(file),
            where.clock,
            _nobody_asks,
            session_file=file.with_suffix(".session"),
            wait=where.clock.advance,
        )
        made.append(one)
        return one

    yield open
    for one in made:
        one.close()


def _nobody_asks(what: str) -> str:
    raise AssertionError(f"asked for {what}")


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.CUSTOMER, Role.CCS])
def test_a_token_is_kept_and_renewed_before_it_ends(where: Served, opened: Open, role: Role):
    access = opened(role)
    first = access.token()
    assert access.token() == first
    where.clock.advance(600 if role is not Role.OPERATOR else 300)
    second = access.token()
    assert second != first
    where.clock.advance(STAFF_S * 100)
    assert access.token() not in {first, second}


def test_the_session_lies_in_a_private_file_and_another_program_goes_on_with_it(opened: Open, files: Path):
    token = opened(Role.OPERATOR).token()
    assert opened(Role.OPERATOR).token() == token
    assert stat.S_IMODE((files / "operator.session").stat().st_mode) == 0o600


def test_a_session_file_that_is_damaged_is_not_missed(opened: Open, files: Path):
    token = opened(Role.OPERATOR).token()
    (files / "operator.session").write_text("{}")
    assert opened(Role.OPERATOR).token() != token


def test_two_programs_that_show_the_same_code_both_get_in(where: Served, files: Path):
    credentials = read_credentials(files / "operator.toml")
    tokens = set[str]()
    for _ in range(2):
        one = Access(credentials, where.clock, _nobody_asks, wait=where.clock.advance)
        tokens.add(one.token())
        one.close()
    assert len(tokens) == 2


def test_who_waits_for_the_next_code_is_told_why_nothing_happens(where: Served, files: Path):
    told = list[str]()
    credentials = read_credentials(files / "security.toml")
    one = Access(credentials, where.clock, _nobody_asks, wait=where.clock.advance, tell=told.append)
    for login in ("ann", "bob"):
        body = {"login": login, "role": "rep"}
        one.request("POST", "/v1/people", body, confirms=Action.PRINCIPAL_WRITE)
    one.close()
    (line,) = told
    assert re.fullmatch(r"A code counts once: this waits \d+ s for the next one\.", line)


def test_an_act_is_confirmed_by_a_code_of_its_own(opened: Open):
    access = opened(Role.SECURITY)
    for login in ("ann", "bob", "eve"):
        body = {"login": login, "role": "rep"}
        made = access.request("POST", "/v1/people", body, confirms=Action.PRINCIPAL_WRITE)
        assert made["person"]["state"] == "held"
    body = {"login": "ann", "role": "rep"}
    with pytest.raises(AccessError, match="taken"):
        access.request("POST", "/v1/people", body, confirms=Action.PRINCIPAL_WRITE)
    with pytest.raises(AccessError, match="401"):
        access.request("POST", "/v1/people", body)


def test_a_session_that_was_ended_elsewhere_is_opened_anew(opened: Open):
    access = opened(Role.SECURITY)
    first = access.token()
    assert access.request("POST", "/v1/revoke-all", confirms=Action.REVOKE_ALL) == {"done": True}
    access.request("GET", "/v1/people")
    assert access.token() != first
    access.request("POST", "/v1/revoke-all", confirms=Action.REVOKE_ALL)
    access.request("POST", "/v1/revoke-all", confirms=Action.REVOKE_ALL)


def test_a_service_that_is_not_there_is_told(where: Served, files: Path):
    text = (files / "operator.toml").read_text().replace(where.url, "http://127.0.0.1:1")
    (files / "operator.toml").write_text(text)
    one = Access(read_credentials(files / "operator.toml"), where.clock, _nobody_asks)
    with pytest.raises(AccessError, match="does not answer"):
        one.token()
    one.close()


def test_a_file_is_fetched_whole_or_not_at_all(opened: Open, tmp_path: Path):
    access, to = opened(Role.OPERATOR), tmp_path / "openapi.json"
    access.download("/docs/openapi.json", to)
    assert b"openapi" in to.read_bytes()[:40]
    with pytest.raises(AccessError):
        access.download("/v1/ota/campaigns/none/bundle", to)
    assert b"openapi" in to.read_bytes()[:40]
    assert list(tmp_path.glob("*.part")) == []
