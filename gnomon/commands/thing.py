"""``gnomon thing``: things of the registry, over the API, with a credential file.

What needs a fresh second factor asks for its code by itself, so that a stolen device is one command away from
being out.
"""

from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click

from gnomon.commands.listing import Group
from gnomon.commands.login import as_option, opened
from gnomon.pages import pages
from registry.models import Owner, ThingKind
from security.policy import Action

KINDS: Final = [kind.value for kind in ThingKind]
OWNERS: Final = [owner.value for owner in Owner]


@click.group(cls=Group)
def thing() -> None:
    """Things: register them, suspend or revoke them, and attach them to gateways."""


@thing.command(name="list")
@click.option("--premises", default="", help="Only those there.")
@click.option("--kind", type=click.Choice(KINDS), default=None, help="Only those of this kind.")
@as_option
def list_(credentials: Path, premises: str, kind: str | None) -> None:
    """List the things that you may read."""
    with opened(credentials) as access:
        for one in pages(access, "/v1/things", premises=premises, kind=kind or ""):
            click.echo(
                f"{one['name']:<24} {one['kind']:<8} {one['premises']:<16} {_state(one):<9} {one['model']}"
            )


@thing.command()
@click.argument("name")
@as_option
def show(credentials: Path, name: str) -> None:
    """Show the thing NAME."""
    with opened(credentials) as access:
        for key, value in access.request("GET", _path(name)).items():
            click.echo(f"{key:<16} {value}")


@thing.command()
@click.argument("name")
@click.option("--premises", required=True, help="Where it is.")
@click.option("--model", required=True, help="Make and model.")
@click.option("--kind", type=click.Choice(KINDS), default=ThingKind.DEVICE.value, show_default=True)
@click.option(
    "--owner", type=click.Choice(OWNERS), default=None, help="Whose property it is. Default: the customer's."
)
@click.option("--no-certificate", is_flag=True, help="It has no IP: a gateway speaks for it.")
@as_option
def register(
    credentials: Path,
    name: str,
    premises: str,
    model: str,
    kind: str,
    owner: str | None,
    no_certificate: bool,
) -> None:
    """Register the thing NAME. With `gnomon voucher NAME` it can then join."""
    body: dict[str, Any] = {"name": name, "kind": kind, "model": model, "premises": premises}
    body |= {"has_certificate": not no_certificate} | ({} if owner is None else {"owner": owner})
    with opened(credentials) as access:
        made = access.request("POST", "/v1/things", body, confirms=Action.THING_REGISTER)
        click.echo(f"{made['name']}  registered at {made['premises']}")


@thing.command()
@click.argument("name")
@as_option
def suspend(credentials: Path, name: str) -> None:
    """Take nothing from the thing NAME and tell it nothing, until it is resumed."""
    with opened(credentials) as access:
        access.request("POST", f"{_path(name)}/suspend", confirms=Action.THING_SUSPEND)
    click.echo(f"{name}  suspended")


@thing.command()
@click.argument("name")
@as_option
def resume(credentials: Path, name: str) -> None:
    """Let the suspended thing NAME go on."""
    with opened(credentials) as access:
        access.request("POST", f"{_path(name)}/resume", confirms=Action.THING_RESUME)
    click.echo(f"{name}  goes on")


@thing.command()
@click.argument("name")
@as_option
def revoke(credentials: Path, name: str) -> None:
    """Shut the thing NAME out for ever, with all its certificates, within a second.

    For one that was stolen or sold. There is no way back: the name is free again once the thing is removed.
    """
    with opened(credentials) as access:
        access.request("POST", f"{_path(name)}/revoke", confirms=Action.CERTIFICATE_REVOKE)
    click.echo(f"{name}  revoked")


@thing.command()
@click.argument("gateway")
@click.argument("name")
@as_option
def attach(credentials: Path, gateway: str, name: str) -> None:
    """Let GATEWAY speak for the thing NAME of the same premises."""
    with opened(credentials) as access:
        access.request("PUT", _pair(gateway, name), confirms=Action.ATTACHMENT_WRITE)
    click.echo(f"{name}  attached to {gateway}")


@thing.command()
@click.argument("gateway")
@click.argument("name")
@as_option
def detach(credentials: Path, gateway: str, name: str) -> None:
    """Let GATEWAY speak for the thing NAME no more."""
    with opened(credentials) as access:
        access.request("DELETE", _pair(gateway, name), confirms=Action.ATTACHMENT_WRITE)
    click.echo(f"{name}  detached from {gateway}")


def _path(name: str) -> str:
    return f"/v1/things/{quote(name, safe='')}"


def _pair(gateway: str, name: str) -> str:
    return f"/v1/gateways/{quote(gateway, safe='')}/things/{quote(name, safe='')}"


def _state(one: dict[str, Any]) -> str:
    if "revoked_at" in one:
        return "revoked"
    return "suspended" if "suspended_at" in one else "active"
