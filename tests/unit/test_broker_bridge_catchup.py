"""Catch-up: who gives a sign is told what it still has to do; once per interval, paced, never forgotten."""

import asyncio
from contextlib import asynccontextmanager

import pytest
import structlog

from broker_bridge import catchup
from broker_bridge.catchup import CatchUp
from broker_bridge.presence import parse_line
from registry.models import NewThing, ThingKind
from tests.bridge_rig import ANNA, LIMITS, make_rig, settled, turns
from tests.faulty_store import EVERYTHING
from tests.shadow_rig import update

INTERVAL_S = LIMITS.catchup_interval_s
DELTA = "$aws/things/{}/shadow/update/delta"
BY_METER = "gnomon/gateways/meter/down/things/{}/shadow/update/delta"


def connects(thing, clean=1):
    return (
        f"1795558655: New client connected from 127.0.0.1:40668 as {thing} (p5, c{clean}, k60, u'{thing}')."
    )


def subscribes(thing, filter=None):
    return f"1795558655: {thing} 1 {filter or DELTA.format(thing)}"


def leaves(thing):
    return f"1795558655: Client {thing} disconnected."


class Pacer:
    """Stands for sleeping: notes how long, and lets the clock go on by that."""

    def __init__(self, clock):
        self.clock = clock
        self.slept_s = []

    async def __call__(self, seconds):
        self.slept_s.append(seconds)
        self.clock.advance(seconds)
        await asyncio.sleep(0)


class Stage:
    """The rig with a catch-up that a test drives step by step."""

    def __init__(self, directory, limits=LIMITS):
        self.rig = make_rig(directory, limits=limits)
        self.pacer = Pacer(self.rig.clock)
        speaker = self.rig.bridge._speaker
        self.catch_up = CatchUp(
            speaker, self.rig.shadows, self.rig.registry, self.rig.clock, limits, self.rig.metrics, self.pacer
        )
        self.rig.registry.listeners = [self.catch_up.changed]

    @asynccontextmanager
    async def running(self):
        """Run the lane and the speaker, with a broker at the other end; nothing of the bridge but these."""
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(work) for work in (self.rig.shadows.run(), self.rig.bridge._speaker.run())
            ]
            self.rig.session.begin()
            await self.rig.bridge._speaker.greet()
            yield self
            for task in running:
                task.cancel()

    async def wish(self, *things, shadow=""):
        """Register things and let each have a delta; what was said on the way is forgotten."""
        for thing in things:
            await self.rig.registry.register(_new(thing), ANNA)
            await self.rig.wish(thing, {"heat_c": 21}, shadow)
        self.hush()

    def hush(self):
        self.rig.session.settle()
        self.rig.session.log.clear()

    def see(self, *lines):
        for line in lines:
            self.catch_up.read(parse_line(line))

    async def serve(self):
        """Serve who is due; return the topics of what was said."""
        self.rig.session.log.clear()
        await self.catch_up.serve_due()
        return self.rig.session.topics


def _new(thing, kind=ThingKind.DEVICE, *, has_certificate=True):
    return NewThing(thing, kind, "acme", "home-1", has_certificate)


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path)


# ---------------------------------------------------------------------- signs


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([connects("hall")], False),
        ([connects("hall", clean=0)], True),
        ([connects("hall"), subscribes("hall")], True),
        ([subscribes("hall", "$aws/things/hall/shadow/#")], True),
        ([subscribes("hall", "$aws/things/hall/shadow/get/+")], False),
        ([subscribes("hall", "$aws/things/attic/shadow/update/delta")], False),
        ([leaves("hall")], False),
        (["1795558655: nothing about anybody"], False),
    ],
    ids=[
        "with a clean session it has no subscription yet", "with its session", "a subscription", "a wide one",
        "to answers only", "to another thing's", "its end", "something else",
    ],
)  # fmt: skip
async def test_what_is_a_sign_of_coming_back(stage, lines, told):
    async with stage.running():
        await stage.wish("hall")
        stage.see(*lines)
        assert (await stage.serve() == [DELTA.format("hall")]) is told


async def test_the_delta_is_the_current_one_without_token_and_of_now(stage):
    async with stage.running():
        await stage.wish("hall")
        stage.rig.clock.advance(100)
        stage.see(subscribes("hall"))
        await stage.serve()
        (delta,) = stage.rig.session.on(DELTA.format("hall"))
        assert delta == {
            "state": {"heat_c": 21},
            "metadata": {"heat_c": {"timestamp": 1_790_000_000}},
            "version": 1,
            "timestamp": 1_790_000_100,
        }


async def test_a_thing_that_has_done_its_work_is_told_nothing(stage):
    async with stage.running():
        await stage.wish("hall")
        await stage.rig.shadows.submit([update({"reported": {"heat_c": 21}})])
        stage.see(subscribes("hall"))
        assert await stage.serve() == []


async def test_each_shadow_with_a_delta_is_told_and_no_other(stage):
    async with stage.running():
        await stage.wish("hall")
        await stage.rig.wish("hall", {"rev": 1}, "cfg")
        await stage.rig.wish("hall", {}, "empty")
        stage.hush()
        stage.see(subscribes("hall"))
        assert await stage.serve() == [
            DELTA.format("hall"), "$aws/things/hall/shadow/name/cfg/update/delta",
        ]  # fmt: skip


async def test_an_unregistered_and_a_revoked_thing_are_told_nothing(stage):
    async with stage.running():
        await stage.wish("hall")
        await stage.rig.registry.revoke("hall", ANNA)
        stage.see(subscribes("hall"), subscribes("stranger"))
        assert await stage.serve() == []


async def test_the_first_word_of_a_thing_unheard_of_is_a_sign_and_its_second_is_none(stage):
    """It came while we were not listening."""
    async with stage.running():
        await stage.wish("hall")
        stage.see(connects("attic"))  # the log works
        stage.catch_up.heard("hall")
        assert await stage.serve() == [DELTA.format("hall")]
        stage.rig.clock.advance(10 * INTERVAL_S)
        stage.catch_up.heard("hall")
        assert await stage.serve() == []


async def test_a_word_of_a_thing_whose_sign_was_seen_is_none(stage):
    async with stage.running():
        await stage.wish("hall")
        stage.see(connects("hall"))
        stage.catch_up.heard("hall")
        assert await stage.serve() == []


async def test_after_each_connect_of_ours_first_words_count_again(stage):
    async with stage.running():
        await stage.wish("hall")
        stage.see(connects("hall"))
        stage.catch_up.listen(session_present=True)
        stage.catch_up.heard("hall")
        assert await stage.serve() == [DELTA.format("hall")]


async def test_where_the_log_tells_nothing_the_first_word_after_a_silence_is_a_sign(stage):
    async with stage.running():
        await stage.wish("hall")
        told = []
        for silence_s in (0, INTERVAL_S - 0.1, INTERVAL_S - 0.1, INTERVAL_S):
            stage.rig.clock.advance(silence_s)
            stage.catch_up.heard("hall")
            told.append(await stage.serve() != [])
        assert told == [True, False, False, True]


# ---------------------------------------------------------------------- gateways


async def _attached(stage, *things, has_certificate=False):
    await stage.rig.registry.register(_new("meter", ThingKind.GATEWAY), ANNA)
    for thing in things:
        await stage.rig.registry.register(_new(thing, has_certificate=has_certificate), ANNA)
        await stage.rig.registry.attach("meter", thing, ANNA)
        await stage.rig.wish(thing, {"on": True})
    await settled(lambda: not stage.rig.bridge.shadows_left)
    await stage.serve()
    stage.rig.clock.advance(2 * INTERVAL_S)
    stage.hush()


async def test_a_gateway_that_comes_back_is_told_of_itself_and_of_all_that_is_attached_to_it(stage):
    async with stage.running():
        await _attached(stage, "lamp", "plug")
        await stage.rig.wish("meter", {"n": 1})
        stage.hush()
        stage.see(subscribes("meter", "gnomon/gateways/meter/down/#"))
        assert await stage.serve() == [
            DELTA.format("meter"),
            BY_METER.format("lamp"),
            BY_METER.format("plug"),
        ]


async def test_more_attached_things_than_a_page_holds_are_all_told(stage, monkeypatch):
    monkeypatch.setattr(catchup, "ATTACHED_PAGE", 2)
    async with stage.running():
        names = [f"lamp-{number}" for number in range(5)]
        await _attached(stage, *names)
        stage.see(connects("meter", clean=0))
        assert await stage.serve() == [BY_METER.format(name) for name in names]


async def test_what_was_revoked_is_not_told_to_its_gateway(stage):
    async with stage.running():
        await _attached(stage, "lamp", "plug")
        await stage.rig.registry.revoke("lamp", ANNA)
        stage.see(connects("meter", clean=0))
        assert await stage.serve() == [BY_METER.format("plug")]


async def test_when_a_thing_is_attached_its_gateway_is_told_what_it_has_to_do(stage):
    async with stage.running():
        await stage.rig.registry.register(_new("meter", ThingKind.GATEWAY), ANNA)
        await stage.rig.registry.register(_new("lamp", has_certificate=False), ANNA)
        await stage.rig.wish("lamp", {"on": True})  # nobody could hear that
        await turns()
        assert await stage.serve() == []
        stage.rig.clock.advance(INTERVAL_S)
        await stage.rig.registry.attach("meter", "lamp", ANNA)
        assert await stage.serve() == [BY_METER.format("lamp")]


async def test_a_thing_that_connects_itself_is_told_on_its_own_topics_only(stage):
    async with stage.running():
        await _attached(stage, "hall", has_certificate=True)
        stage.see(connects("hall", clean=0))
        assert await stage.serve() == [DELTA.format("hall")]


async def test_a_change_in_the_registry_that_gives_nobody_a_voice_reads_nothing(stage):
    async with stage.running():
        await stage.wish("hall")
        await stage.serve()
        looked: list[str] = []
        stage.rig.shadows.shadows_of = looked.append
        await stage.rig.registry.register(_new("attic"), ANNA)
        assert await stage.serve() == []
        assert looked == []


# ---------------------------------------------------------------------- pace


async def test_a_thing_is_served_once_per_interval_and_its_last_sign_is_only_delayed(stage):
    async with stage.running():
        await stage.wish("hall")
        stage.see(subscribes("hall"))
        assert len(await stage.serve()) == 1
        for _ in range(3):
            stage.see(subscribes("hall"))
        assert await stage.serve() == []
        stage.rig.clock.advance(INTERVAL_S - 0.1)
        assert await stage.serve() == []
        stage.rig.clock.advance(0.2)
        assert len(await stage.serve()) == 1
        stage.rig.clock.advance(INTERVAL_S)
        assert await stage.serve() == []


async def test_whoever_is_due_later_does_not_make_another_wait(stage):
    async with stage.running():
        await stage.wish("hall", "attic")
        stage.see(subscribes("hall"))
        await stage.serve()
        stage.see(subscribes("hall"))
        pause_s = await stage.catch_up.serve_due()
        assert pause_s == pytest.approx(INTERVAL_S, abs=0.1)
        stage.see(subscribes("attic"))
        assert await stage.serve() == [DELTA.format("attic")]


async def test_a_sign_wakes_the_role_though_it_sleeps_for_somebody_else(stage):
    async with stage.running():
        await stage.wish("hall", "attic")
        role = asyncio.create_task(stage.catch_up.run())
        stage.see(subscribes("hall"))
        await settled(lambda: len(stage.rig.session.log) == 1)
        stage.see(subscribes("hall"))  # due in an interval
        await turns()
        stage.see(subscribes("attic"))
        await settled(lambda: len(stage.rig.session.log) == 2)
        assert stage.rig.session.topics[-1] == DELTA.format("attic")
        role.cancel()


async def test_a_herd_is_paced(tmp_path):
    stage = Stage(tmp_path, limits=type(LIMITS)(catchup_rate_max=500))
    async with stage.running():
        things = [f"thing-{number}" for number in range(30)]
        await stage.wish(*things)
        stage.see(*(subscribes(thing) for thing in things))
        began_s = stage.rig.clock.elapsed_s()
        assert len(await stage.serve()) == 30
        assert stage.rig.clock.elapsed_s() - began_s == pytest.approx(30 / 500)
        assert stage.rig.metrics.catch_ups.value == 30


async def test_a_sign_while_a_thing_is_being_served_is_served_again(stage):
    async with stage.running():
        await stage.wish("hall", "porch")
        stage.see(subscribes("hall"), subscribes("porch"))
        honest = stage.pacer

        async def reconnects(seconds):
            stage.catch_up._sleep = honest
            stage.see(subscribes("hall"))
            await honest(seconds)

        stage.catch_up._sleep = reconnects
        assert len(await stage.serve()) == 2
        stage.rig.clock.advance(INTERVAL_S)
        assert await stage.serve() == [DELTA.format("hall")]


async def test_more_signs_than_can_be_remembered_are_counted_and_dropped(stage, monkeypatch):
    monkeypatch.setattr(catchup, "THINGS_REMEMBERED_MAX", 3)
    async with stage.running():
        things = [f"thing-{number}" for number in range(5)]
        await stage.wish(*things)
        await stage.catch_up.serve_due()
        dropped = stage.rig.dropped("catch_up_full")
        stage.see(*(subscribes(thing) for thing in things))
        assert len(await stage.serve()) == 3
        assert stage.rig.dropped("catch_up_full") == dropped + 2
        assert stage.catch_up.present == 3
        stage.see(subscribes("thing-4"))  # there is room again
        assert await stage.serve() == [DELTA.format("thing-4")]


async def test_times_that_no_longer_matter_are_forgotten(stage, monkeypatch):
    monkeypatch.setattr(catchup, "SERVED_REMEMBERED_MAX", 4)
    async with stage.running():
        for number in range(20):
            stage.see(subscribes(f"thing-{number}"))
            await stage.serve()
            stage.rig.clock.advance(INTERVAL_S / 2)
        assert len(stage.catch_up._served) <= 4


# ---------------------------------------------------------------------- order, failures, the broker


async def test_a_reminder_never_overtakes_what_is_left_over(stage):
    async with stage.running():
        await stage.wish("hall")
        stage.rig.session.room = 0
        await stage.rig.wish("hall", {"heat_c": 22})
        stage.see(subscribes("hall"))
        stage.rig.session.room = None
        assert await stage.serve() == []
        await settled(lambda: not stage.rig.bridge.shadows_left)
        versions = [
            one.body["version"] for one in stage.rig.session.said if one.topic == DELTA.format("hall")
        ]
        assert versions == [2]


async def test_a_reminder_that_found_no_room_is_tried_again(stage):
    async with stage.running():
        await stage.wish("hall")
        stage.see(subscribes("hall"))
        stage.rig.session.room = 0
        assert await stage.serve() == []
        stage.rig.session.room = None
        stage.rig.clock.advance(INTERVAL_S)
        assert await stage.serve() == [DELTA.format("hall")]


async def test_while_the_broker_is_away_signs_wait(stage):
    async with stage.running():
        await stage.wish("hall")
        stage.rig.bridge.disconnected()
        stage.see(subscribes("hall"))
        serving = asyncio.create_task(stage.catch_up.serve_due())
        await turns()
        assert not serving.done()
        stage.rig.session.begin()
        await stage.rig.bridge._speaker.greet()
        await serving
        assert stage.rig.session.topics == [DELTA.format("hall")]


async def test_a_store_that_is_down_is_asked_again_and_nobody_is_forgotten(stage):
    async with stage.running():
        await stage.wish("hall", "attic")
        stage.see(subscribes("hall"), subscribes("attic"))
        stage.rig.store.refuses = EVERYTHING
        stage.rig.registry._standings.drop("hall")
        stage.rig.registry._standings.drop("attic")
        with structlog.testing.capture_logs() as logs:
            assert await stage.catch_up.serve_due() == catchup.RETRY_S
        assert [event["event"] for event in logs] == ["catch_up_waits_for_the_store"]
        stage.rig.store.refuses = ()
        stage.rig.clock.advance(INTERVAL_S)
        assert set(await stage.serve()) == {DELTA.format("hall"), DELTA.format("attic")}


async def test_a_shadow_that_cannot_be_read_stops_nobody_else(stage):
    async with stage.running():
        await stage.wish("hall", "attic")
        honest = stage.rig.shadows.view

        async def failing(id):
            if id.thing == "attic":
                raise RuntimeError("planted")
            return await honest(id)

        stage.rig.shadows.view = failing
        stage.see(subscribes("attic"), subscribes("hall"))
        assert await stage.serve() == [DELTA.format("hall")]


async def test_when_the_broker_lost_its_sessions_all_who_were_there_are_served_after_an_interval(stage):
    """Those who lost their connection too give a sign before; the others may never give one."""
    async with stage.running():
        await stage.wish("hall", "attic", "porch")
        stage.see(connects("hall"), connects("attic"), connects("porch"), leaves("porch"))
        stage.catch_up.listen(session_present=False)
        assert stage.catch_up.present == 0
        assert await stage.serve() == []
        stage.see(connects("hall"), subscribes("hall"))
        assert await stage.serve() == [DELTA.format("hall")]
        stage.rig.clock.advance(INTERVAL_S)
        assert await stage.serve() == [DELTA.format("attic")]


async def test_present_are_those_who_came_and_did_not_leave(stage):
    stage.see(connects("hall"), connects("attic"), connects("hall"), leaves("attic"), leaves("stranger"))
    assert stage.catch_up.present == 1
