"""What follows from misbehaving on the broker: over the real registry and audit, and a broker that notes."""

import pytest
import structlog

from broker_bridge import warden as warden_module
from broker_bridge.janitor import BrokerSilentError
from broker_bridge.presence import Presence, Sign
from broker_bridge.warden import TRIES_MAX, WAITING_MAX, Warden
from broker_bridge.watch import CONNECTIONS_MAX, TAKEOVERS_MAX
from registry.models import NewThing, ThingKind
from security import audit
from tests.bridge_rig import ANNA, make_rig
from tests.faulty_store import EVERYTHING


def connects(thing, *, fresh=True):
    return Presence(Sign.CONNECTED, thing, fresh=fresh)


def subscribes(thing, filter):
    return Presence(Sign.SUBSCRIBED, thing, filter=filter)


def taken_over(thing):
    return Presence(Sign.TAKEN_OVER, thing)


class Stage:
    """The warden over the rig's registry."""

    def __init__(self, directory):
        self.rig = make_rig(directory)
        self.kicked = []
        self.deaf = False
        self.warden = Warden(self, self.rig.registry, self.rig.refusals, self.rig.clock, self.rig.metrics)

    async def kick(self, name):
        if self.deaf:
            raise BrokerSilentError(name)
        self.kicked.append(name)

    async def see(self, *presences):
        for presence in presences:
            self.warden.read(presence)
        return await self.warden.settle()

    async def register(self, name, **more):
        await self.rig.registry.register(NewThing(name, ThingKind.DEVICE, "acme", "home-1", **more), ANNA)
        await self.warden.settle()

    async def rows(self):
        await self.rig.refusals.flush()
        page = await audit.read(self.rig.store, 0, self.rig.clock.now_ms(), 100)
        return page.entries


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path)


async def test_a_foreign_subscription_ends_the_session_and_stands_in_the_audit(stage):
    await stage.register("spy")
    assert await stage.see(connects("spy"), subscribes("spy", "$aws/things/+/#"), subscribes("spy", "#"))
    assert stage.kicked == ["spy"]
    (row,) = [row for row in await stage.rows() if row.decision is audit.Decision.REFUSED]
    assert (row.actor, row.action, row.target) == ("spy", "topic.subscribe", "filter/$aws/things/+/#")
    assert not (await stage.rig.registry.thing("spy")).barred


async def test_an_honest_thing_is_left_in_peace(stage):
    await stage.register("hall")
    for fresh in (True, False):
        await stage.see(connects("hall", fresh=fresh), subscribes("hall", "$aws/things/hall/shadow/update/+"))
    assert stage.kicked == []


async def test_a_cloned_key_is_put_into_quarantine_by_system_with_one_row_and_an_alarm(stage):
    await stage.register("hall")
    with structlog.testing.capture_logs() as logs:
        await stage.see(*[taken_over("hall")] * (TAKEOVERS_MAX + 1))
    assert (await stage.rig.registry.thing("hall")).suspended_at_ms is not None
    assert "hall" in stage.kicked
    assert stage.warden.quarantines == 1
    assert [line["log_level"] for line in logs if line["event"] == "thing_quarantined"] == ["error"]
    (row,) = [row for row in await stage.rows() if row.action == "thing.suspend"]
    assert (row.actor, row.role, row.target) == ("gnomon.watch", "system", "thing/hall")
    assert "two hold its key" in row.reason


async def test_a_flapping_thing_is_put_into_quarantine(stage):
    await stage.register("hall")
    await stage.see(*[connects("hall")] * (CONNECTIONS_MAX + 1))
    assert (await stage.rig.registry.thing("hall")).barred


async def test_a_barred_thing_that_comes_is_sent_away_each_time(stage):
    await stage.register("hall")
    await stage.rig.registry.suspend("hall", ANNA)
    await stage.warden.settle()
    assert stage.kicked == ["hall"], "at once when it is suspended"
    await stage.see(connects("hall"))
    await stage.see(connects("hall"))
    assert stage.kicked == ["hall"] * 3
    await stage.rig.registry.resume("hall", ANNA)
    await stage.see(connects("hall"))
    assert stage.kicked == ["hall"] * 3


async def test_what_has_no_session_of_its_own_is_not_kicked(stage):
    await stage.register("lamp", has_certificate=False)
    await stage.rig.registry.suspend("lamp", ANNA)
    assert await stage.warden.settle()
    assert stage.kicked == []


async def test_a_stranger_is_sent_away_and_told_of(stage):
    with structlog.testing.capture_logs() as logs:
        await stage.see(*[taken_over("nobody")] * (TAKEOVERS_MAX + 1))
    assert stage.kicked == ["nobody"]
    assert "stranger_misbehaves" in [line["event"] for line in logs]


async def test_our_own_canaries_are_not_looked_up(stage):
    gets = stage.rig.store.gets
    await stage.see(connects("gnomon-canary-1"), subscribes("gnomon-canary-1", "#"))
    assert stage.kicked == []
    assert stage.rig.store.gets == gets


# ---------------------------------------------------------------------- what goes wrong


async def test_a_broker_that_is_deaf_is_asked_again_a_few_times(stage):
    await stage.register("spy")
    stage.deaf = True
    assert not await stage.see(subscribes("spy", "#"))
    stage.deaf = False
    assert await stage.warden.settle()
    assert stage.kicked == ["spy"]


async def test_who_was_suspended_while_the_broker_was_deaf_is_sent_away_later(stage):
    await stage.register("hall")
    stage.deaf = True
    await stage.rig.registry.suspend("hall", ANNA)
    assert not await stage.warden.settle()
    stage.deaf = False
    assert await stage.warden.settle()
    assert stage.kicked == ["hall"]


async def test_what_cannot_be_done_is_given_up_in_the_end(stage):
    stage.deaf = True
    await stage.see(subscribes("spy", "#"))
    for _ in range(TRIES_MAX):
        await stage.warden.settle()
    assert not stage.warden._cases


async def test_a_store_that_is_down_makes_it_wait(stage):
    await stage.register("hall")
    stage.rig.store.refuses = EVERYTHING
    assert not await stage.see(*[taken_over("hall")] * (TAKEOVERS_MAX + 1))
    stage.rig.store.refuses = ()
    assert await stage.warden.settle()
    assert (await stage.rig.registry.thing("hall")).barred


async def test_more_than_it_can_hold_is_counted_and_dropped(stage):
    for number in range(WAITING_MAX + 3):
        stage.warden.read(subscribes(f"spy-{number}", "#"))
    assert len(stage.warden._cases) == WAITING_MAX
    assert stage.rig.metrics.drops.values == {"watch_full": 3}


async def test_after_the_broker_was_lost_its_log_is_read_for_who_is_there(stage, monkeypatch):
    monkeypatch.setattr(warden_module, "ARRIVALS_AT_ONCE", 2)
    for name in ("spy", "bad", "good", "left"):
        await stage.register(name)
    for name in ("bad", "left"):
        await stage.rig.registry.suspend(name, ANNA)
    await stage.warden.settle()
    stage.kicked.clear()
    stage.warden.begin(
        [
            connects("spy"), subscribes("spy", "#"), connects("bad"), connects("good"), connects("left"),
            Presence(Sign.DISCONNECTED, "left"),
        ]
    )  # fmt: skip
    assert await stage.warden.settle()
    assert sorted(stage.kicked) == ["bad", "spy"]
