"""Programs over every kind of store: one device's whole way, with another process going on half-way."""

from collections.abc import Sequence

import pytest

from infra.documents.port import Collection
from registry.models import Location
from tests.covers import covers
from tests.programs_rig import ALL_LOGS, ANNA, COLLECTIONS, HALL, HOME, TOOL, open_rig
from tests.shadow_rig import running


@pytest.fixture
def store_collections() -> Sequence[Collection]:
    return COLLECTIONS


@pytest.fixture
def store_logs() -> Sequence[str]:
    return ALL_LOGS


@covers("3.2/12", "3.2/13", "O3")
async def test_a_device_takes_part_and_leaves(store):
    here = open_rig(store)
    async with running(here.shadows):
        await here.settle_in()
        await here.registry.describe_premises(HOME, Location("N3", "F12", ""), TOOL)
        made = await here.enrol("cpp-27", params={"maxOffset": 20})
        assert (await here.enrolments.options(HALL))["rtp"] != ()
    other = open_rig(store, here.clock)
    async with running(other.shadows):
        await other.obey()
        await other.ack(HALL, "cpp-27", activated=1, ready=1)
        await other.worker.round()
        (ready,) = (await other.enrolments.of_account("a-1", 10)).enrolments
        assert (ready.id, ready.state, ready.params) == (made.id, "READY", {"maxOffset": 20})
        assert (await other.enrolments.records.page("feeder", "cpp-27@F12", 10)).enrolments == (ready,)
        await other.enrolments.leave(made.id, ANNA)
        await other.obey()
        await other.worker.round()
        assert await other.states() == {"cpp-27": "ENDED"}
        assert await other.sections() == ({}, {})
        assert len(await other.consents.history(HALL)) == 2
