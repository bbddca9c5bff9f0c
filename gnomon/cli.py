"""The command line: ``gnomon --help`` explains itself."""

import asyncio
from pathlib import Path

import click

from fleet.plan import HOMES_MAX
from gnomon import demo as demo_role
from gnomon import doctor as checks
from gnomon import letters, roles
from gnomon.commands.audit import audit
from gnomon.commands.ca import ca
from gnomon.commands.campaign import campaign
from gnomon.commands.enrol import enrol
from gnomon.commands.field import field
from gnomon.commands.image import image
from gnomon.commands.keys import COMMANDS as KEY_COMMANDS
from gnomon.commands.levels import levels
from gnomon.commands.listing import Group
from gnomon.commands.options import run, settings_of, settings_options
from gnomon.commands.person import person, token
from gnomon.commands.provision import provision
from gnomon.commands.releases import COMMANDS as RELEASE_COMMANDS
from gnomon.commands.thing import thing
from gnomon.commands.voucher import voucher
from infra.settings import Settings, render_toml

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
HELP = """Gnomon: device shadows for a utility's home area networks.

Everything is kept below ./var, or where the setting `directory` says.
"""


@click.group(cls=Group, context_settings=CONTEXT, help=HELP)
@click.version_option(package_name="gnomon")
def main() -> None:
    """Begin; the words for people are in ``HELP``."""


@main.command()
@settings_options
def up(config: Path | None, pairs: tuple[str, ...]) -> None:
    """Run the service: broker, bridge and REST API, until Ctrl-C."""
    settings = settings_of(config, pairs)
    run(roles.up(settings, lambda running: click.echo(roles.welcome(running))))
    click.echo(_stopped(settings))


@main.command()
@click.option(
    "--homes",
    type=click.IntRange(1, HOMES_MAX),
    default=60,
    show_default=True,
    help="Homes of the demo utility.",
)
@click.option("--seed", default=1, show_default=True, help="The same seed makes the same city.")
@settings_options
def demo(config: Path | None, pairs: tuple[str, ...], homes: int, seed: int) -> None:
    """Run the service with a demo utility: homes, gateways and devices that live.

    A second run continues from what the first one stored.
    """
    settings = settings_of(config, pairs)
    run(demo_role.run(settings, homes=homes, seed=seed))
    click.echo(_stopped(settings))


def _stopped(settings: Settings) -> str:
    return f"stopped      all is kept in {settings.directory}; the same command goes on with it"


@main.command()
@settings_options
def doctor(config: Path | None, pairs: tuple[str, ...]) -> None:
    """Check broker, ports, certificates, disk and clock; say what to do about what is wrong."""
    findings = asyncio.run(checks.examine(settings_of(config, pairs)))
    for finding in findings:
        click.echo(finding.line())
    if any(not finding.good for finding in findings):
        raise SystemExit(1)


@main.command()
@settings_options
def settings(config: Path | None, pairs: tuple[str, ...]) -> None:
    """Print the settings in effect as a commented TOML file."""
    click.echo(render_toml(settings_of(config, pairs)))


@main.command()
@settings_options
def dead_letters(config: Path | None, pairs: tuple[str, ...]) -> None:
    """Print the requests that were kept aside because they failed, one JSON object a line.

    The payload is base64. An embedded store is read while the service is stopped.
    """
    settings = settings_of(config, pairs)
    run(letters.show(settings, click.echo))


for _command in (person, token, thing, provision, campaign, image, field, voucher, enrol, ca, audit):
    main.add_command(_command)
for _command in (*KEY_COMMANDS, *RELEASE_COMMANDS):
    image.add_command(_command)
campaign.add_command(levels)
