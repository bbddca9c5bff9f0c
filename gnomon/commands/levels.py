"""``gnomon campaign levels``: what the utility has set for firmware, and how the fleet stands to it."""

from pathlib import Path

import click

from gnomon.commands.login import as_option, opened

EXCEEDED = 1
"""Exit code where a device took longer than it may."""


@click.command()
@as_option
def levels(credentials: Path) -> None:
    """Show the service levels, over what is under way or ended within the last hour.

    A device that took longer than it may makes it end with an error.
    """
    with opened(credentials) as access:
        found = access.request("GET", "/v1/ota/service-levels")
    longest = "none done" if found["longest_s"] is None else f"longest {found['longest_s']:g} s"
    click.echo(f"a device   {found['device_limit_s']:g} s: {longest}, {found['over']} over")
    click.echo(f"an hour    {found['devices_per_hour']} devices: {found['done_last_hour']} done in the last")
    click.echo(f"now        {found['in_flight']} devices in flight, {found['campaigns']} campaigns")
    if found["over"]:
        raise SystemExit(EXCEEDED)
