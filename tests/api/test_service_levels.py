"""Service levels: what is set stands beside what was measured, and an operator sees both."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec import structs

from infra.documents.port import StoreBrokenError, StoreUnavailableError
from ota import level_watch
from ota.service_levels import SINCE_MS
from ota.states import ExecutionTrigger as Do
from security.policy import Role
from tests import ota_base as base
from tests.api.campaigns import Fleet, fleet
from tests.api.rig import OPERATOR, api
from tests.api.served import Run
from tests.covers import covers
from tests.fakes import FakeClock

LEVELS = "/v1/ota/service-levels"
NAMES = ["han-a", "han-b", "han-c"]


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with api(tmp_path, clock=FakeClock(base.NOW_S * 1_000)) as rig:
        one = await fleet(rig)
        await one.add(NAMES)
        yield one


async def levels(made: Fleet) -> dict[str, object]:
    answer = await made.http.get(LEVELS)
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


@covers("S-cap")
async def test_limit_and_pace_are_shown_beside_what_was_measured(made: Fleet):
    quiet = await levels(made)
    assert quiet == {
        "device_limit_s": 300.0,
        "longest_s": None,
        "over": 0,
        "devices_per_hour": 10_000,
        "done_last_hour": 0,
        "in_flight": 0,
        "campaigns": 0,
    }
    id = await made.running(retries=0)
    await made.step(id, NAMES, Do.START)
    assert await levels(made) == quiet | {"campaigns": 1, "in_flight": 3}
    made.rig.clock.advance(92.5)
    await made.step(id, NAMES[:2], Do.LOADED, Do.STAGED, Do.GO, Do.CONFIRM, Do.SUCCEED)
    seen = await levels(made)
    assert (seen["longest_s"], seen["done_last_hour"], seen["in_flight"]) == (92.5, 2, 1)
    made.rig.clock.advance(207.6)
    await made.tick()
    over = await levels(made)
    assert (over["over"], over["in_flight"], over["campaigns"]) == (1, 0, 1)
    await made.rig.services.ota.campaigns.abort(id, "enough", OPERATOR)
    await made.tick()
    assert await levels(made) == over, "it has just ended"
    made.rig.clock.advance(SINCE_MS / 1_000 + 1)
    assert await levels(made) == quiet


@covers("S-cap")
async def test_prometheus_reads_them_as_they_were_a_minute_ago(made: Fleet):
    watch = made.rig.services.ota.level_watch
    await watch.look()
    id = await made.running(retries=0)
    await made.step(id, NAMES, Do.START)
    assert watch.levels.in_flight == 0
    await watch.look()
    metrics = made.rig.services.metrics.render().decode()
    for line in (
        "gnomon_upgrade_in_flight 3.0",
        "gnomon_upgrade_limit_seconds 300.0",
        "gnomon_upgrade_aim_per_hour 10000.0",
        "gnomon_upgrade_over_limit 0.0",
        "gnomon_upgrade_longest_seconds 0.0",
        "gnomon_upgrade_done_last_hour 0.0",
    ):
        assert line in metrics.splitlines(), metrics


async def test_a_store_that_is_away_costs_figures_alone(made: Fleet, monkeypatch: pytest.MonkeyPatch):
    watch, looks = made.rig.services.ota.level_watch, list[int]()
    monkeypatch.setattr(level_watch, "LOOK_S", 0.001)

    async def away() -> None:
        looks.append(1)
        raise StoreUnavailableError("away") if len(looks) < 3 else StoreBrokenError("gone")

    monkeypatch.setattr(watch, "look", away)
    with pytest.raises(StoreBrokenError):
        await watch.run()
    assert len(looks) == 3


@covers("S-cap")
async def test_both_are_settings(tmp_path: Path):
    async with api(tmp_path) as rig:
        campaigns = rig.services.ota.campaigns
        campaigns._settings = structs.replace(campaigns._settings, deadline_s=120, devices_per_hour=500)
        found = (await rig.by[Role.SECURITY].get(LEVELS)).json()
        assert (found["device_limit_s"], found["devices_per_hour"]) == (120.0, 500)
        assert (await rig.by[Role.CUSTOMER].get(LEVELS)).status_code == 403


@covers("S-cap")
def test_an_operator_reads_them_at_the_terminal(run: Run, files: Path):
    told = run("campaign", "levels", "--as", str(files / "operator.toml")).stdout.splitlines()
    assert told == [
        "a device   300 s: none done, 0 over",
        "an hour    10000 devices: 0 done in the last",
        "now        0 devices in flight, 0 campaigns",
    ]
