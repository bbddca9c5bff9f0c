"""The command line against a service that runs: tokens kept fresh, second factors shown for one act."""

import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gnomon import access as gnomon_access
from gnomon.access import Access, AccessError, read_credentials
from gnomon.cli import main
from gnomon.commands import person as commands
from security.people import totp
from security.people.sessions import STAFF_S
from security.policy import Action, Role
from tests.api.served import Served, served

Open = Callable[[Role], Access]


@pytest.fixture
def where(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path, demo=True) as where:
        yield where


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tmp_path / "demo" / "credentials"


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


# The command line


@pytest.fixture
def run(where: Served, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setattr(commands, "SystemClock", lambda: where.clock)
    monkeypatch.setattr(gnomon_access, "_sleep", where.clock.advance)

    def run(*arguments: str, typed: str = "", ok: bool = True) -> Result:
        result = CliRunner().invoke(main, list(arguments), input=typed)
        assert (result.exit_code == 0) is ok, result.output
        return result

    return run


def test_a_token_is_printed(run: Callable[..., Result], files: Path):
    printed = run("token", str(files / "auditor.toml")).stdout.strip()
    assert printed.count(".") == 2
    assert run("token", str(files / "auditor.toml")).stdout.strip() == printed
    assert run("token", str(files / "ccs.toml")).stdout.strip().count(".") == 2
    assert "is not there" in run("token", str(files / "nobody.toml"), ok=False).output


def test_an_officer_makes_another_who_accepts_and_approves(
    run: Callable[..., Result], where: Served, files: Path, tmp_path: Path
):
    me = ("--as", str(files / "security.toml"))
    made = run("person", "add", "bob", "security", *me).stdout
    assert "waits" not in made, "the second officer is made alone"
    invitation = made.split("invitation")[1].split()[0]
    password, into = "heather over granite wind", tmp_path / "bob.toml"
    typed = f"{invitation}\n{password}\n{password}\n000000\n"
    wrong = run("person", "accept", "bob", "--url", where.url, typed=typed, ok=False)
    assert "refused" in wrong.output
    typed = f"{invitation}\n{password}\n{password}\n"
    shown = run("person", "accept", "bob", "--url", where.url, typed=typed, ok=False).output
    seed = shown.split("secret=")[1].split("&")[0]
    into.write_text(f'url = "{where.url}"\nlogin = "bob"\npassword = "{password}"\ntotp_seed = "{seed}"\n')
    into.chmod(0o600)
    him = ("--as", str(into))
    asked = run("person", "add", "eve", "operator", *me).stdout
    approval = asked.split("gnomon person approve ")[1].split()[0]
    assert approval in run("person", "approvals", *him).stdout
    assert "forbidden" in run("person", "approve", approval, *me, ok=False).output.lower()
    assert "done" in run("person", "approve", approval, *him).stdout
    listed = run("person", "list", *me).stdout
    eve = next(line.split()[0] for line in listed.splitlines() if line.endswith(" eve"))
    assert "invited" in listed
    assert "waits" in run("person", "role", eve, "auditor", *me).stdout
    assert "invitation" in run("person", "reset", eve, *him).stdout
    assert "ended" in run("person", "revoke", eve, *me).stdout
    assert "disabled" in run("person", "disable", eve, *me).stdout
    assert "waits" in run("person", "revoke", "--everybody", *me).stdout
    run("person", "revoke", *me, ok=False)


def test_what_is_typed_is_not_shown_and_no_password_is_an_argument(run: Callable[..., Result], where: Served):
    password = "heather over granite wind"
    typed = f"gnomon_first_x\n{password}\n{password}\n"
    told = run("person", "first", "ann", "--url", where.url, typed=typed, ok=False).output
    assert password not in told
    assert "gnomon_first_x" not in told
    for name in ("first", "accept", "add"):
        assert "--password" not in run("person", name, "--help").output


def test_the_seed_that_is_shown_makes_the_codes_that_are_taken():
    assert totp.seed_text(totp.seed_bytes("JBSWY3DPEHPK3PXP")) == "JBSWY3DPEHPK3PXP"
