"""A Gnomon for benchmarks, as a child: things registered, shadows seeded, certificates made.

    python -m bench.served --directory D --things 500 [--upgrading 400] [--plain]

Prints one line of JSON when it serves, and runs until SIGTERM. ``--plain`` opens a listener without TLS
beside the other, so that the broker's cost is that of MQTT alone: the harder comparison for the bridge. The
first ``--upgrading`` of the things are devices of the utility's, and there is a release for their model.
"""

import argparse
import asyncio
import json
import os
import random
from dataclasses import replace
from pathlib import Path

import uvloop

from bench.names import NAME, home
from broker_bridge.mosquitto import Mosquitto
from fleet.keys import write_keys
from gnomon import roles
from gnomon.demo_people import ACCOUNT
from gnomon.services import Services
from infra import logs
from infra.settings import load
from registry.models import NewThing, ThingKind
from registry.rules import THINGS_PER_PREMISES_MAX
from security.policy import Principal, Role
from shadow.commands import Channel, Origin, update
from shadow.document import ShadowId
from tests import upgradable
from tests.certificates import certificate_files

BENCH = Principal("bench", Role.OPERATOR)
WISH = {"desired": {"mode": "heat", "heat_c": 30, "cool_c": 25.5, "fan": "auto"}}
"""One field of it (heat_c) is never reported, so that every update has a delta to send."""
CHUNK = 250
SPARE_CONNECTIONS = 100
"""For what is cut off and not noticed yet."""
IMAGE_BYTES = 512 * 1_024
KEYS_FILE = "firmware-keys.json"


class PlainMosquitto(Mosquitto):
    """The same broker with a listener more."""

    def __init__(self, config, *arguments, **named) -> None:
        super().__init__(replace(config, testing=True, plain_port=0), *arguments, **named)


async def serve(directory: Path, things: int, upgrading: int, plain: bool) -> None:
    settings = load(
        environ={},
        overrides={
            "directory": str(directory),
            "api.port": "0",
            "api.device_port": "0",
            "broker.device_port": "0",
            "broker.connections_max": str(max(10_000, things + SPARE_CONNECTIONS)),
            "logs.level": "warning",
            "people.demo": "true",
        },
    )
    logs.configure(settings.logs)
    async with roles.running(settings) as system:
        await seed(system.services, things, upgrading)
        release = await let_out(system.services, directory) if upgrading else None
        certificates = directory / "certificates"
        await asyncio.to_thread(issue, system.services, things, certificates)  # the service goes on meanwhile
        line = {
            "bridge": os.getpid(),
            "broker": system.broker.pid,
            "port": system.broker.device_port,
            "plain_port": system.broker.plain_port if plain else None,
            "certificates": str(certificates),
            "api": system.api_url,
            "directory": str(directory),
            "release": release,
        }
        print(json.dumps(line), flush=True)
        await roles.stop_signal()


async def seed(services: Services, things: int, upgrading: int = 0) -> None:
    """Register the things at homes of the demo customer's, and give each shadow something to want."""
    for number in range(0, things, THINGS_PER_PREMISES_MAX):
        await services.registry.hand_over(home(number), ACCOUNT, BENCH)
    await upgradable.register(services, [(NAME % number, home(number)) for number in range(upgrading)])
    origin = Origin(BENCH.name, BENCH.role, Channel.HTTP)
    for first in range(0, things, CHUNK):
        numbers = range(first, min(things, first + CHUNK))
        new = [NewThing(NAME % n, ThingKind.DEVICE, "bench", home(n)) for n in numbers if n >= upgrading]
        await asyncio.gather(*(services.registry.register(one, BENCH) for one in new))
        await services.shadows.submit(
            [update(ShadowId(NAME % n), origin, WISH, services.settings.limits, None, b"") for n in numbers]
        )


async def let_out(services: Services, directory: Path) -> str:
    """Have a release for the devices, and a file of whom they believe; return the release's id."""
    write_keys(directory / KEYS_FILE, await upgradable.trust(services))
    return (await upgradable.release(services, random.Random(0).randbytes(IMAGE_BYTES))).id


def issue(services: Services, things: int, directory: Path) -> None:
    """Make the certificates that `fleet.load` looks for."""
    directory.mkdir()
    (directory / "ca.crt").write_bytes(services.authority.root_pem)
    for number in range(things):
        certificate_files(services.authority, directory, NAME % number)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--things", type=int, required=True)
    parser.add_argument("--upgrading", type=int, default=0)
    parser.add_argument("--plain", action="store_true")
    options = parser.parse_args()
    if options.plain:
        vars(roles)["Mosquitto"] = PlainMosquitto  # a listener that no product has
    uvloop.run(serve(options.directory, options.things, options.upgrading, options.plain))


if __name__ == "__main__":
    main()
