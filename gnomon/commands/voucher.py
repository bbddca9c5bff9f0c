"""``gnomon voucher``: a code with which one device joins, for whoever may let it in."""

from pathlib import Path

import click

from gnomon.commands.login import as_option, opened
from security.policy import Action


@click.command()
@click.argument("thing")
@as_option
def voucher(credentials: Path, thing: str) -> None:
    """Make a voucher for THING, which is registered, and print it as `gnomon enrol --code-file` takes it.

    It is good for a day and one key, and it is shown now only.
    """
    with opened(credentials) as access:
        # Its name alone: a security officer may let a thing in that they may not read.
        made = access.request("POST", "/v1/vouchers", {"thing": thing}, confirms=Action.VOUCHER_CREATE)
    click.echo(f"{made['id']}:{made['code']}")
