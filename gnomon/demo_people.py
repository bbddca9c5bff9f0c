"""Accounts of the demo: one a role, a second person where an act needs two, each with a credential file.

The passwords are random and lie in files that only their owner can read. Only on a loopback address and
never in production; a real installation begins with ``gnomon person first``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from gnomon.credentials import read_credentials, write_credentials
from gnomon.refusals import AccessError
from gnomon.services import authority_directory
from infra.ids import Ids
from infra.settings import Settings
from provisioning.care_demo import DEMO_ACCOUNT
from security.audit import INSIDE
from security.people.clients import ClientState
from security.people.people import People
from security.people.persons import State
from security.policy import Principal, Role
from security.private_files import DamagedFileError, ExposedFileError
from security.secret import Secret
from security.trust.authority import ROOT_FILE

ACCOUNT: Final = DEMO_ACCOUNT
"""The demo customer's own; the first home of the demo belongs to it."""
ROLES: Final = (Role.CUSTOMER, Role.REP, Role.INSTALLER, Role.OPERATOR, Role.SECURITY, Role.AUDITOR)
SECONDS: Final = (Role.OPERATOR,)
"""Roles with a second person: what goes to a fleet is not up to one."""
CLIENT: Final = Role.CCS
PASSWORD_BITS: Final = 160
DEMO: Final = Principal("demo", Role.SYSTEM)


def credentials_directory(settings: Settings) -> Path:
    """Return where the credential files of the demo are."""
    return settings.directory / "demo" / "credentials"


def credential_file(settings: Settings, role: Role, number: int = 1) -> Path:
    """Return the credential file of a role; ``number`` 2 is that of its second person."""
    return credentials_directory(settings) / f"{_called(role, number)}.toml"


def _called(role: Role, number: int) -> str:
    return role.value if number == 1 else f"{role}-{number}"


class Holder(Protocol):
    """What an account is made with."""

    @property
    def settings(self) -> Settings: ...

    @property
    def ids(self) -> Ids: ...

    @property
    def people(self) -> People: ...


async def provide(services: Holder, url: str) -> None:
    """See that every role of the demo has an account, and a file that opens it at this address."""
    place = {"url": url}
    if url.startswith("https:"):
        place["root"] = str((authority_directory(services.settings) / ROOT_FILE).absolute())
    for role in ROLES:
        await _person(services, role, 1, place)
    for role in SECONDS:
        await _person(services, role, 2, place)
    await _client(services, place)


async def _person(services: Holder, role: Role, number: int, address: Mapping[str, str]) -> None:
    accounts, file = services.people.accounts, credential_file(services.settings, role, number)
    login = f"demo-{_called(role, number)}"
    place = f"#{login}"
    known = await accounts.at(place)
    kept = _kept(file)
    if known is not None and known.state in {State.ACTIVE, State.INVITED} and "password" in kept:
        _readdress(file, kept, address)
        return
    password = Secret(services.ids.token(PASSWORD_BITS))
    if known is None or known.state is State.INVITED:
        account = ACCOUNT if role is Role.CUSTOMER else ""
        factor = await accounts.begin(place, login, role, password, account)
    else:
        # The file is lost, and the account has been used: it begins anew.
        secret, invitation = accounts.invitation(known.id)
        await accounts.reset(known.id, invitation, DEMO, INSIDE, "demo")
        again = await accounts.accept(secret, password, INSIDE, factor=True)
        assert again is not None, "asked for"
        factor = again
    fields = {**address, "login": login, "password": password.reveal(), "totp_seed": factor.seed.reveal()}
    write_credentials(file, fields)


async def _client(services: Holder, address: Mapping[str, str]) -> None:
    clients, file = services.people.clients, credential_file(services.settings, CLIENT)
    kept = _kept(file)
    known = await clients.find(kept.get("client_id", "c-"))
    if known is not None and known.state is ClientState.ACTIVE and "client_secret" in kept:
        _readdress(file, kept, address)
        return
    client, secret = await clients.add("demo customer care", CLIENT, DEMO, held=False)
    write_credentials(file, {**address, "client_id": client.id, "client_secret": secret.reveal()})


def _readdress(file: Path, kept: dict[str, str], address: Mapping[str, str]) -> None:
    if (kept["url"], kept.get("root")) != (address["url"], address.get("root")):
        write_credentials(
            file, {name: value for name, value in kept.items() if name != "root"} | dict(address)
        )


def _kept(file: Path) -> dict[str, str]:
    """Return what a file of an earlier run holds, as far as it can be used."""
    try:
        credentials = read_credentials(file)
    except (AccessError, DamagedFileError, ExposedFileError):
        return {}
    found = {"url": credentials.url, "login": credentials.login, "client_id": credentials.client_id}
    found["root"] = credentials.root
    for name in ("password", "totp_seed", "client_secret"):
        secret: Secret | None = getattr(credentials, name)
        if secret is not None:
            found[name] = secret.reveal()
    return {name: value for name, value in found.items() if value}
