"""Simulated devices take new firmware from the real bridge, its jobs and streams, through a real broker."""

import msgspec
import pytest

from fleet.connection import Endpoint, plain_identity
from fleet.makes import MAKES
from fleet.upgrades import Upgrades
from infra.clock import SystemClock
from ota.job_ports import Hold
from ota.models import campaign_of
from ota.states import ExecutionState
from tests.covers import covers
from tests.firmware_bench import TRUSTED, job, release
from tests.stream_rig import make_files
from tests.streams_live import a_broker, serving

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("broker_program")]

MODEL = "norland-t1-wifi"
THINGS = tuple(f"wifi-{number}" for number in range(8))


@pytest.fixture
async def broker(tmp_path):
    async with a_broker(tmp_path) as broker:
        yield broker


async def offered(served, of, now_s):
    """Give each thing the job in a campaign of its own."""
    campaigns = {}
    for number, thing in enumerate(THINGS, 1):
        one = job(of, number=number, thing=thing, now_s=now_s)
        served.jobs.documents.by_thing[thing] = msgspec.json.encode(one.document)
        campaigns[thing] = campaign_of(one.id)
        await served.jobs.offer(thing, campaigns[thing])
    return campaigns


def fleet(broker, **options):
    return Upgrades(
        THINGS,
        MAKES[MODEL],
        endpoint=Endpoint("127.0.0.1", broker.plain_port),
        identities=plain_identity,
        keys=TRUSTED,
        clock=SystemClock(),
        restart_s=0.2,
        **options,
    )


@covers("I3FR6.1")
@pytest.mark.parametrize("power_cuts", [0.0, 1.0], ids=["power stays", "power goes once"])
async def test_devices_go_from_the_queue_to_a_claimed_success(tmp_path, broker, power_cuts):
    now_s = SystemClock().now_ms() // 1_000
    of = release(size=512 * 1_024, schema=6, make=MAKES[MODEL], now_s=now_s)
    files = make_files()
    files.add(of.stream, f0=of.image, f1=of.leaves, f2=of.manifest)
    for thing in THINGS:
        files.allow(thing, of.stream)
    async with serving(tmp_path, broker, files, things=THINGS) as served:
        campaigns = await offered(served, of, now_s)
        upgrades = fleet(broker, power_cuts=power_cuts)
        await upgrades.run(30)
        summary = upgrades.summary()
        assert summary["succeeded"] == len(THINGS), summary
        assert not summary["errors"]
        for thing, campaign in campaigns.items():
            execution = await served.jobs.execution(thing, campaign)
            assert execution.state is ExecutionState.CONFIRMING  # its report is judged by others
            assert execution.claimed_at_ms
            assert execution.details["data"] == "preserve"
            assert execution.snapshot == "snap-1"


async def test_devices_that_are_held_at_the_gate_wait_and_activate_nothing(tmp_path, broker):
    now_s = SystemClock().now_ms() // 1_000
    of = release(size=50_000, schema=6, make=MAKES[MODEL], now_s=now_s)
    files = make_files()
    files.add(of.stream, f0=of.image, f1=of.leaves)
    for thing in THINGS:
        files.allow(thing, of.stream)
    async with serving(tmp_path, broker, files, things=THINGS) as served:
        served.jobs.gate.permit = Hold("window", 2)
        campaigns = await offered(served, of, now_s)
        upgrades = fleet(broker)
        await upgrades.run(5)
        assert upgrades.summary()["states"] == {"verified": len(THINGS)}
        assert len(served.jobs.gate.asked) >= 2 * len(THINGS)
        for thing, campaign in campaigns.items():
            assert (await served.jobs.execution(thing, campaign)).state is ExecutionState.STAGED
