"""The demo utility's field crew: installs the meters and bridges that customers have accepted.

It looks at sessions that wait for a remedy, and after a while the equipment is there: what takes weeks in
life is a few seconds here, and everything after it is as in life.
"""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Final

from fleet.plan import GatewayPlan, Plan
from fleet.provisioning import BRIDGE, NO_METER, SCENES, with_bridge, with_new_meter
from fleet.simulation import Simulation
from gnomon import demo_devices
from gnomon.demo_city import install
from gnomon.services import Services
from provisioning.states import SessionState
from registry.errors import PremisesNotFoundError

LOOK_S: Final = 2.0
BRINGS: Final = {NO_METER: with_new_meter, BRIDGE: with_bridge}


async def work(services: Services, simulation: Simulation, certificates: Path) -> None:
    """Install what is waited for, until cancelled."""
    while True:
        await asyncio.sleep(LOOK_S)
        for number, brings in BRINGS.items():
            if await _is_awaited(services, SCENES[number].home.premises):
                await _install(services, simulation, number, brings(number), certificates)


async def _is_awaited(services: Services, premises: str) -> bool:
    try:
        session = (await services.registry.premises(premises)).open_session
    except PremisesNotFoundError:  # a small city
        return False
    if not session:
        return False
    return (await services.provisioning.sessions.session(session)).state is SessionState.AWAITING_REMEDY


async def _install(
    services: Services, simulation: Simulation, number: int, gateway: GatewayPlan, certificates: Path
) -> None:
    home = SCENES[number].home
    await install(services, home, gateway, certificates)
    await demo_devices.know(services, Plan((replace(home, gateways=(gateway,), devices=()),)))
    simulation.install(home, gateway)
