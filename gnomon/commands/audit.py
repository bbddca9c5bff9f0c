"""``gnomon audit``: the chain for those who do not ask the service about itself.

An embedded store is read while the service is stopped; a MongoDB at any time.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import click
import msgspec

from gnomon.commands.listing import Group
from gnomon.commands.options import run, settings_of, settings_options
from gnomon.services import heads_file, store_file, store_url
from infra.documents.opening import open_store
from infra.settings import Settings
from security.audit import LOG
from security.blocks import BLOCKS
from security.chain import BadPositionError, Head
from security.heads import BadHeadsError, public_path, read_heads, read_public_keys
from security.trail import Sealed, Trail

_BROKEN: Final = "the audit chain is not what it was"
_FILE: Final = click.Path(path_type=Path, exists=True, dir_okay=False)


class _ExportedEntry(msgspec.Struct, omit_defaults=True):
    """A line of an export. ``entry`` is what was stored, byte for byte."""

    entry: msgspec.Raw
    block: int = 0
    position: int = 0
    link: str = ""


@click.group(cls=Group)
def audit() -> None:
    """Verify or export the audit chain. The service must be stopped if its store is a file."""


@audit.command()
@click.option(
    "--heads",
    type=_FILE,
    help="File of published heads, better a copy that others could not write. Default: `audit.heads_file`.",
)
@click.option(
    "--public-key",
    type=_FILE,
    help="PEM file with the keys that sign heads. Default: the one beside the heads.",
)
@settings_options
def verify(config: Path | None, pairs: tuple[str, ...], heads: Path | None, public_key: Path | None) -> None:
    """Verify every entry of the chain, and the chain against its published heads.

    Names the first position that is not what it was, and ends with 1.
    """
    settings = settings_of(config, pairs)
    run(_verify(settings, heads, public_key))


@audit.command()
@settings_options
def export(config: Path | None, pairs: tuple[str, ...]) -> None:
    """Print every entry as a line of JSON: those of the chain in its order, then the unsealed ones."""
    run(_export(settings_of(config, pairs)))


async def _verify(settings: Settings, heads: Path | None, public_key: Path | None) -> None:
    published = await asyncio.to_thread(_published, settings, heads, public_key)
    async with _trail(settings) as trail:
        try:
            head = await trail.verify(published)
        except BadPositionError as error:
            raise click.ClickException(f"{_BROKEN}: {error}") from error
        unsealed = await trail.unsealed()
    click.echo(
        f"{head.entries:,} entries in {head.number:,} blocks hold; {unsealed:,} more are not sealed yet"
    )
    if published:
        click.echo(f"{len(published):,} published heads agree, the last one of block {max(published):,}")
    else:
        click.echo("no head was published: a chain cut at its end, or made anew, would look the same")
    click.echo(f"head  {head.hash}")


def _published(settings: Settings, heads: Path | None, public_key: Path | None) -> Mapping[int, Head]:
    """Return the heads to compare with; a file that was named must be there, the usual one may be missing."""
    path = heads or heads_file(settings)
    if not path.exists():
        return {}
    keys = public_key or public_path(path)
    if not keys.exists():
        raise click.ClickException(
            f"{path} has no public keys beside it ({keys.name}): is it a file of published heads?"
            " Then name the keys by --public-key"
        )
    try:
        return read_heads(path, read_public_keys(keys))
    except BadHeadsError as error:
        raise click.ClickException(f"the published heads: {error}") from error


async def _export(settings: Settings) -> None:
    async with _trail(settings) as trail:
        try:
            async for sealed in trail.export():
                click.echo(_line(sealed))
        except BadPositionError as error:
            raise click.ClickException(f"{_BROKEN}: {error}") from error


def _line(sealed: Sealed) -> str:
    line = _ExportedEntry(msgspec.Raw(sealed.body), sealed.block, sealed.position, sealed.link)
    return msgspec.json.encode(line).decode()


@asynccontextmanager
async def _trail(settings: Settings) -> AsyncIterator[Trail]:
    file = store_file(settings)
    if file is not None and not file.exists():
        raise click.ClickException(f"there is no store at {file}")
    store = await open_store(store_url(settings), [BLOCKS], [LOG])
    try:
        yield Trail(store)
    finally:
        await store.close()
