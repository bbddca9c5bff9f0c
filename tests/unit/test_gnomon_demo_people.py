"""The demo's accounts: one a role, made once, with files that open them."""

import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gnomon import demo_people
from gnomon.credentials import check_url, read_credentials, write_credentials
from gnomon.refusals import AccessError
from infra.settings import Settings, SettingsError, load
from security.people import totp
from security.policy import Role
from security.private_files import ExposedFileError
from tests.people_rig import ADDRESS, SYSTEM, VIA, PeopleRig, opened, process

URL = "http://127.0.0.1:8080"


@dataclass
class Demo:
    """What `provide` needs of the services."""

    rig: PeopleRig
    settings: Settings

    @property
    def ids(self) -> Any:
        return self.rig.ids

    @property
    def people(self) -> Any:
        return self.rig.people

    async def provide(self, url: str = URL) -> dict[str, bytes]:
        await demo_people.provide(self, url)
        directory = demo_people.credentials_directory(self.settings)
        return {path.name: path.read_bytes() for path in directory.iterdir()}

    def file(self, role: Role, number: int = 1) -> Path:
        return demo_people.credential_file(self.settings, role, number)

    async def log_in(self, role: Role, number: int = 1) -> Any:
        kept = read_credentials(self.file(role, number))
        assert kept.password is not None
        assert kept.totp_seed is not None
        self.rig.clock.advance(totp.STEP_S)
        code = totp.code_at(kept.totp_seed.reveal(), totp.step_of(self.rig.clock.now_ms()))
        granted, _ = await self.people.log_in(kept.login, kept.password, code, ADDRESS, VIA)
        return await self.rig.who(granted)


@pytest.fixture
async def demo(tmp_path: Path) -> AsyncIterator[Demo]:
    async with opened(tmp_path) as store:
        yield Demo(await process(store, tmp_path), Settings(directory=tmp_path))


async def test_every_role_has_a_private_file_that_opens_its_account(demo: Demo):
    files = await demo.provide()
    seconds = {f"{role}-2.toml" for role in demo_people.SECONDS}
    assert set(files) == {f"{role}.toml" for role in (*demo_people.ROLES, Role.CCS)} | seconds
    for role in demo_people.ROLES:
        assert stat.S_IMODE(demo.file(role).stat().st_mode) == 0o600
        principal = await demo.log_in(role)
        assert principal.role is role
        assert principal.account == (demo_people.ACCOUNT if role is Role.CUSTOMER else "")
    kept = read_credentials(demo.file(Role.CCS))
    assert kept.client_secret is not None
    await demo.people.clients.grant(kept.client_id, kept.client_secret, (), VIA)


async def test_where_an_act_needs_two_there_are_two_persons(demo: Demo):
    await demo.provide()
    for role in demo_people.SECONDS:
        first, second = [await demo.log_in(role, number) for number in (1, 2)]
        assert first.role is second.role is role
        assert first.name != second.name


@pytest.mark.parametrize("used", [False, True])
async def test_a_second_start_changes_nothing_but_the_address(demo: Demo, used: bool):
    before = await demo.provide()
    if used:
        await demo.log_in(Role.OPERATOR)
    after = await demo.provide("http://127.0.0.1:9000")
    assert {name: text.replace(b":9000", b":8080") for name, text in after.items()} == before
    await demo.log_in(Role.OPERATOR)


@pytest.mark.parametrize("used", [False, True])
async def test_a_lost_file_is_made_anew_and_the_old_one_opens_nothing(demo: Demo, used: bool):
    before = await demo.provide()
    if used:
        await demo.log_in(Role.SECURITY)
        await demo.log_in(Role.REP)
    for role in (Role.SECURITY, Role.REP, Role.CCS):
        demo.file(role).unlink()
    after = await demo.provide()
    assert {name for name in before if before[name] != after[name]} == {
        "security.toml",
        "rep.toml",
        "ccs.toml",
    }
    assert (await demo.log_in(Role.SECURITY)).role is Role.SECURITY
    people = await demo.people.accounts.people(None, 100, None)
    assert len(people.records) == len(demo_people.ROLES) + len(demo_people.SECONDS)


async def test_files_of_another_store_are_replaced(demo: Demo, tmp_path: Path):
    await demo.provide()
    async with opened(tmp_path) as other:
        again = Demo(await process(other, tmp_path, demo.rig.clock, seed=5), demo.settings)
        await again.provide()
        assert (await again.log_in(Role.OPERATOR)).role is Role.OPERATOR


async def test_a_disabled_account_of_the_demo_stays_so_no_longer_than_its_next_start(demo: Demo):
    await demo.provide()
    await demo.log_in(Role.REP)
    person = await demo.people.accounts.at("#demo-rep")
    await demo.people.accounts.disable(person.id, SYSTEM)
    await demo.provide()
    assert (await demo.log_in(Role.REP)).role is Role.REP


@pytest.mark.parametrize(
    "pairs",
    [{"api.host": "192.0.2.1"}, {"trust.production": "true"}],
    ids=["an outside address", "production"],
)
def test_the_demo_is_refused_on(pairs: dict[str, str]):
    with pytest.raises(SettingsError, match=r"people\.demo"):
        load(None, overrides={"people.demo": "true", **pairs})


# Credential files


@pytest.mark.parametrize(
    "text",
    [b"", b"not toml", b"\xff", b'login = "ann"', b'url = "http://127.0.0.1"', b'url = 7\nlogin = "ann"'],
)
def test_what_is_no_credential_file_is_refused(tmp_path: Path, text: bytes):
    file = tmp_path / "ann.toml"
    file.write_bytes(text)
    file.chmod(0o600)
    with pytest.raises(AccessError):
        read_credentials(file)


def test_a_file_that_others_may_read_is_refused(tmp_path: Path):
    file = tmp_path / "ann.toml"
    write_credentials(file, {"url": URL, "login": "ann"})
    file.chmod(0o644)
    with pytest.raises(ExposedFileError):
        read_credentials(file)
    with pytest.raises(AccessError):
        read_credentials(tmp_path / "nobody.toml")


@pytest.mark.parametrize("url", ["https://gnomon.example", "http://localhost:1", "http://[::1]:1"])
def test_a_password_goes_over_tls_or_stays_on_the_machine(url: str):
    check_url(url)


@pytest.mark.parametrize(
    "url", ["http://gnomon.example", "ftp://127.0.0.1", "127.0.0.1", "", "http://10.0.0.1"]
)
def test_a_password_goes_over_no_open_network(url: str):
    with pytest.raises(AccessError):
        check_url(url)
