"""What is said after a commit: in which order, on which trees, and what if it cannot be said now."""

import asyncio

import pytest

from broker_bridge import speaker
from broker_bridge.speaker import Speaker
from registry.models import ThingKind
from shadow.commands import parse_delete
from shadow.decisions import Accepted
from shadow.document import ShadowId
from tests.bridge_rig import ANNA, BY_HTTP, LIMITS, Acked, Said, make_rig, running, settled, turns
from tests.faulty_store import EVERYTHING

OWN = "$aws/things/hall/shadow"
METER = "gnomon/gateways/meter/down/things/hall/shadow"


@pytest.fixture
def rig(tmp_path):
    return _silent(make_rig(tmp_path))


def _silent(rig):
    """Without catch-up at a thing's first word, which has a suite of its own."""
    rig.bridge.catch_up.heard = lambda _thing: None
    return rig


def short(log):
    """The log with topics cut to what follows the tree, and versions instead of bodies."""
    return [
        f"PUBACK {one.packet_id}"
        if isinstance(one, Acked)
        else f"{one.topic.partition('/shadow/')[2]} {_version(one.body)}"
        for one in log
    ]


def _version(body):
    return body["version"] if "version" in body else body["current"]["version"]


# ---------------------------------------------------------------------- order


async def test_of_each_version_first_the_delta_then_the_documents_then_the_answer_and_last_the_puback(rig):
    async with running(rig):
        await rig.register("hall")
        await rig.wish("hall", {"heat_c": 21})
        rig.session.log.clear()
        first, second = rig.report("hall", {"heat_c": 20}), rig.report("hall", {"heat_c": 19})
        await rig.quiet()
        assert short(rig.session.log) == [
            "update/delta 2", "update/documents 2", "update/accepted 2",
            "update/delta 3", "update/documents 3", "update/accepted 3",
            f"PUBACK {first}", f"PUBACK {second}",
        ]  # fmt: skip


async def test_a_batch_is_written_in_one_piece_after_its_commit(rig):
    async with running(rig):
        await rig.register("hall")
        await rig.quiet()
        commits, flushes = len(rig.store.commits), rig.session.flushes
        for number in range(5):
            rig.report("hall", {"n": number})
        await rig.quiet()
        assert len(rig.store.commits) == commits + 1
        assert rig.session.flushes == flushes + 1


async def test_nothing_is_said_before_the_commit(rig):
    async with running(rig):
        await rig.register("hall")
        seen: list[int] = []

        async def look():
            seen.append(len(rig.session.log))

        rig.store.before_commit.append(look)
        rig.report("hall", {"n": 1})
        await rig.quiet()
        assert seen == [0]
        assert len(rig.session.log) == 3


async def test_a_wish_by_http_is_told_as_delta_and_documents_but_never_answered(rig):
    async with running(rig):
        await rig.register("hall")
        await rig.wish("hall", {"heat_c": 21})
        assert rig.session.topics == [f"{OWN}/update/delta", f"{OWN}/update/documents"]


async def test_a_refusal_of_http_is_never_said_on_mqtt(rig):
    async with running(rig):
        await rig.register("hall")
        await rig.wish("hall", {"too": {"deep": "x" * 9_000}})
        assert rig.session.log == []


async def test_a_deletion_says_only_that_it_was_accepted(rig):
    async with running(rig):
        await rig.register("hall")
        rig.report("hall", {"n": 1})
        await rig.quiet()
        rig.session.log.clear()
        rig.send("hall", operation="delete")
        await rig.quiet()
        assert rig.session.topics == [f"{OWN}/delete/accepted"]


async def test_the_last_message_of_a_version_carries_its_mark_and_no_other(rig):
    async with running(rig):
        await rig.register("hall")
        await rig.wish("hall", {"heat_c": 21})
        assert [one.mark for one in rig.session.said] == [None, (ShadowId("hall"), 1)]


async def test_a_documents_message_above_the_limit_is_left_out_and_counted(tmp_path):
    rig = _silent(make_rig(tmp_path, limits=_limits(packet_bytes_max=1_024)))
    async with running(rig):
        await rig.register("hall")
        rig.report("hall", {"text": "x" * 2_000})
        await rig.quiet()
        assert rig.session.topics == [f"{OWN}/update/accepted"]
        assert rig.dropped("documents_too_large") == 1


def _limits(**changed):
    return type(LIMITS)(catchup_rate_max=100_000, **changed)


# ---------------------------------------------------------------------- trees


async def test_a_change_is_told_to_the_thing_and_to_each_gateway_of_it(rig):
    async with running(rig):
        await rig.register("meter", ThingKind.GATEWAY)
        await rig.register("hub", ThingKind.GATEWAY)
        await rig.register("hall", gateways=("meter", "hub"))
        rig.session.log.clear()
        await rig.wish("hall", {"heat_c": 21})
        hub = METER.replace("meter", "hub")
        assert rig.session.topics == [
            f"{tree}/update/{kind}" for kind in ("delta", "documents") for tree in (OWN, hub, METER)
        ]


async def test_a_thing_without_certificate_is_told_by_its_gateway_only(rig):
    async with running(rig):
        await rig.register("meter", ThingKind.GATEWAY)
        await rig.register("hall", has_certificate=False, gateways=("meter",))
        await rig.wish("hall", {"heat_c": 21})
        assert rig.session.topics == [f"{METER}/update/delta", f"{METER}/update/documents"]


async def test_an_answer_goes_only_to_the_tree_that_asked(rig):
    async with running(rig):
        await rig.register("meter", ThingKind.GATEWAY)
        await rig.register("hall", gateways=("meter",))
        rig.report("hall", {"n": 1}, gateway="meter")
        await rig.quiet()
        assert rig.session.topics == [
            f"{OWN}/update/documents", f"{METER}/update/documents", f"{METER}/update/accepted",
        ]  # fmt: skip


async def test_a_gateway_that_was_detached_hears_of_nothing_more(rig):
    async with running(rig):
        await rig.register("meter", ThingKind.GATEWAY)
        await rig.register("hall", gateways=("meter",))
        await rig.registry.detach("meter", "hall", ANNA)
        await rig.wish("hall", {"heat_c": 21})
        await turns()
        assert rig.session.topics == [f"{OWN}/update/delta", f"{OWN}/update/documents"]


async def test_a_revoked_thing_and_its_gateways_hear_of_nothing_more(rig):
    async with running(rig):
        await rig.register("meter", ThingKind.GATEWAY)
        await rig.register("hall", gateways=("meter",))
        await rig.registry.revoke("hall", ANNA)
        await rig.wish("hall", {"heat_c": 21})
        await turns()
        assert rig.session.log == []


async def test_a_revoked_gateway_hears_of_nothing_more_and_the_thing_does(rig):
    async with running(rig):
        await rig.register("meter", ThingKind.GATEWAY)
        await rig.register("hall", gateways=("meter",))
        await rig.registry.revoke("meter", ANNA)
        await rig.wish("hall", {"heat_c": 21})
        await settled(lambda: len(rig.session.log) == 2)
        assert rig.session.topics == [f"{OWN}/update/delta", f"{OWN}/update/documents"]


async def test_a_change_nobody_can_hear_leaves_nothing_unsent(rig):
    async with running(rig):
        await rig.register("hall", has_certificate=False)
        await rig.wish("hall", {"heat_c": 21})
        await turns()
        assert rig.session.log == []
        assert rig.bridge.shadows_left == 0
        assert await rig.shadows.unsent_of(ShadowId("hall")) == []


async def test_changes_nobody_can_hear_are_settled_at_once_however_fast_they_come(rig):
    """Else a busy application fills the outbox of a thing that is not attached yet, and hears 503."""
    async with running(rig):
        await rig.register("hall", has_certificate=False)
        looked: list[ShadowId] = []
        rig.shadows.unsent_of = looked.append
        for number in range(2 * LIMITS.outbox_entries_max):
            assert isinstance(await rig.wish("hall", {"n": number}), Accepted)
        assert await rig.version("hall") == 2 * LIMITS.outbox_entries_max
        assert looked == []
        assert rig.bridge.shadows_left == 0


async def test_several_changes_nobody_can_hear_in_one_batch_are_settled_too(rig):
    async with running(rig):
        await rig.register("hall", has_certificate=False)
        await rig.wish("hall", {"n": 0})
        await asyncio.gather(*(rig.wish("hall", {"n": number}) for number in range(5)))
        assert rig.bridge.shadows_left == 0
        assert await rig.shadows.unsent_of(ShadowId("hall")) == []


async def test_a_version_with_nothing_to_say_does_not_vouch_for_the_one_before_it(rig):
    """Its messages are on the way: if the broker dies now, they must be said again."""
    async with running(rig):
        await rig.register("hall")
        await rig.wish("hall", {"heat_c": 21})
        await _delete_by_http(rig, "hall")
        await turns()
        unsent = await rig.shadows.unsent_of(ShadowId("hall"))
        assert [one.change.version for one in unsent if one.change] == [1, 2]
        rig.session.settle()
        assert await rig.shadows.unsent_of(ShadowId("hall")) == []


async def _delete_by_http(rig, thing):
    await rig.shadows.submit([parse_delete(b"", ShadowId(thing), BY_HTTP, LIMITS)])


# ---------------------------------------------------------------------- no room


async def test_what_finds_no_room_is_said_later_and_newer_versions_wait_behind_it(rig):
    async with running(rig):
        await rig.register("hall")
        rig.session.fill()
        await rig.wish("hall", {"heat_c": 21})
        await rig.wish("hall", {"heat_c": 22})
        await turns()
        assert rig.session.log == []
        assert rig.bridge.shadows_left == 1
        rig.session.make_room()
        await settled(lambda: rig.bridge.shadows_left == 0)
        # The delta is there for the newest version only: deltas are cumulative.
        assert short(rig.session.log) == ["update/documents 1", "update/delta 2", "update/documents 2"]


async def test_other_shadows_do_not_wait_for_one_that_found_no_room(rig):
    async with running(rig):
        for name in ("hall", "attic"):
            await rig.register(name)
        rig.session.fill()
        await rig.wish("hall", {"heat_c": 21})
        rig.session.room = None  # there is room again, but nobody has been told
        await rig.wish("attic", {"heat_c": 18})
        await rig.wish("hall", {"heat_c": 22})
        assert {one.topic.split("/")[2] for one in rig.session.said} == {"attic"}
        rig.session.make_room()
        await settled(lambda: rig.bridge.shadows_left == 0)
        assert _versions_on(rig, f"{OWN}/update/documents") == [1, 2]


async def test_a_version_that_was_said_in_part_is_said_again_as_a_whole(rig):
    async with running(rig):
        await rig.register("hall")
        rig.session.room = 1
        await rig.wish("hall", {"heat_c": 21})
        rig.session.make_room()
        await settled(lambda: rig.bridge.shadows_left == 0)
        assert short(rig.session.log) == ["update/delta 1", "update/delta 1", "update/documents 1"]


async def test_a_queue_that_stays_full_costs_a_look_now_and_then_and_no_endless_loop(rig, monkeypatch):
    monkeypatch.setattr(speaker, "NO_ROOM_RETRY_S", 0.01)
    async with running(rig):
        await rig.register("hall")
        rig.session.room = 0  # it says that it is drained, and takes nothing all the same
        await rig.wish("hall", {"heat_c": 21})
        async with asyncio.timeout(2):  # the loop turns
            await asyncio.sleep(0.05)
        rig.session.make_room()
        await settled(lambda: rig.bridge.shadows_left == 0)
        assert short(rig.session.log) == ["update/delta 1", "update/documents 1"]


async def test_what_came_while_one_shadow_was_said_is_said_after_it_and_nothing_twice(rig):
    async with running(rig):
        await rig.register("hall")
        rig.session.fill()
        await rig.wish("hall", {"heat_c": 21})
        rig.session.make_room()

        async def meanwhile():
            await rig.wish("hall", {"heat_c": 22})

        asked = rig.shadows.unsent_of

        async def slow(id):
            found = await asked(id)
            rig.shadows.unsent_of = asked
            await meanwhile()
            return found

        rig.shadows.unsent_of = slow
        await settled(lambda: rig.bridge.shadows_left == 0)
        assert short(rig.session.log) == [
            "update/delta 1", "update/documents 1", "update/delta 2", "update/documents 2",
        ]  # fmt: skip


async def test_an_answer_that_finds_no_room_is_counted(rig):
    async with running(rig):
        await rig.register("hall")
        rig.session.room = 0
        packet = rig.send("hall", operation="get")
        await rig.quiet()
        assert rig.session.log == [Acked(packet)]
        assert rig.dropped("no_room_for_answer") == 1


async def test_a_replay_does_not_answer_before_the_delta_of_its_version_is_said(rig, monkeypatch):
    monkeypatch.setattr(speaker, "NO_ROOM_RETRY_S", 0.3)
    async with running(rig):
        await rig.register("hall")
        await rig.wish("hall", {"heat_c": 21})
        rig.session.settle()
        rig.session.log.clear()
        rig.session.room = 0
        rig.report("hall", {"heat_c": 20}, clientToken="t")
        await rig.quiet()
        rig.session.room = None  # room, but the version is still left over
        again = rig.report("hall", {"heat_c": 20}, clientToken="t")
        await rig.quiet()
        assert rig.session.log == [Acked(again - 1), Acked(again)]
        assert rig.dropped("replay_before_its_delta") == 1
        rig.session.make_room()
        await settled(lambda: rig.bridge.shadows_left == 0)
        topics = [topic.removeprefix(OWN) for topic in rig.session.topics]
        assert topics.index("/update/delta") < topics.index("/update/accepted")


# ---------------------------------------------------------------------- the broker goes and comes


async def test_while_the_broker_is_away_outboxes_remember_and_are_said_in_version_order_when_it_is_back(rig):
    async with running(rig):
        await rig.register("hall")
        rig.session.disconnect()
        for celsius in (20, 21, 22):
            await rig.wish("hall", {"heat_c": celsius})
        await turns()
        assert rig.session.log == []
        await rig.session.connect()
        assert short(rig.session.log) == [
            "update/documents 1", "update/documents 2", "update/delta 3", "update/documents 3",
        ]  # fmt: skip


async def test_mqtt_answers_are_among_what_is_said_again(rig):
    async with running(rig):
        await rig.register("hall")
        rig.report("hall", {"n": 1}, clientToken="t-1")
        await rig.quiet()
        before = list(rig.session.said)
        rig.session.disconnect()  # the broker had acknowledged none of it
        rig.session.log.clear()
        await rig.session.connect()
        assert [one[:2] for one in rig.session.said] == [one[:2] for one in before]


async def test_what_the_broker_acknowledged_is_not_said_again(rig):
    async with running(rig):
        await rig.register("hall")
        await rig.wish("hall", {"heat_c": 21})
        rig.session.settle()
        await rig.wish("hall", {"heat_c": 22})
        rig.session.disconnect()
        rig.session.log.clear()
        await rig.session.connect()
        assert short(rig.session.log) == ["update/delta 2", "update/documents 2"]


async def test_what_is_committed_while_outboxes_are_read_waits_and_keeps_its_place(rig):
    async with running(rig, connect=False):
        await rig.register("hall")
        await rig.register("attic")
        await rig.wish("hall", {"heat_c": 20})
        await rig.wish("attic", {"heat_c": 18})
        read = rig.shadows.unsent

        async def slow(cursor):
            page = await read(cursor)
            rig.shadows.unsent = read
            await rig.wish("hall", {"heat_c": 21})  # after the page was read, before it is said
            return page

        rig.shadows.unsent = slow
        await rig.session.connect()
        await settled(lambda: rig.bridge.shadows_left == 0)
        assert _versions_on(rig, f"{OWN}/update/documents") == [1, 2]
        assert _versions_on(rig, f"{OWN}/update/delta") == [2]
        assert _versions_on(rig, "$aws/things/attic/shadow/update/documents") == [1]


async def test_a_reading_that_a_lost_connection_overtook_says_nothing(rig):
    """What was read before is older than what the next connection says first."""
    async with running(rig, connect=False):
        await rig.register("hall")
        await rig.wish("hall", {"heat_c": 20})
        read, gate, reading = rig.shadows.unsent, asyncio.Event(), asyncio.Event()

        async def slow(cursor):
            page = await read(cursor)
            rig.shadows.unsent = read
            reading.set()
            await gate.wait()
            return page

        rig.shadows.unsent = slow
        rig.session.begin()
        welcome = asyncio.create_task(rig.bridge.connected(session_present=True))
        await reading.wait()
        rig.session.disconnect()
        welcome.cancel()
        await rig.wish("hall", {"heat_c": 21})
        rig.session.begin()
        second = asyncio.create_task(rig.bridge.connected(session_present=True))
        await turns()
        gate.set()
        await second
        assert short(rig.session.log) == ["update/documents 1", "update/delta 2", "update/documents 2"]


async def test_what_was_fetched_for_one_shadow_before_a_reconnect_is_not_said_after_newer_versions(rig):
    async with running(rig):
        await rig.register("hall")
        rig.session.fill()
        await rig.wish("hall", {"heat_c": 20})
        asked, gate, asking = rig.shadows.unsent_of, asyncio.Event(), asyncio.Event()

        async def slow(id):
            found = await asked(id)
            rig.shadows.unsent_of = asked
            asking.set()
            await gate.wait()
            return found

        rig.shadows.unsent_of = slow
        rig.session.make_room()
        await asking.wait()
        rig.session.disconnect()
        rig.session.begin()
        back = asyncio.create_task(rig.bridge.connected(session_present=True))
        await rig.wish("hall", {"heat_c": 21})
        gate.set()
        await back
        await settled(lambda: rig.bridge.shadows_left == 0)
        assert _versions_on(rig, f"{OWN}/update/documents") == [1, 2]


async def test_the_broker_going_in_mid_batch_loses_nothing(rig):
    async with running(rig):
        for name in ("hall", "attic"):
            await rig.register(name)

        async def gone():
            rig.session.disconnect()

        rig.store.before_commit.append(gone)
        rig.report("hall", {"n": 1})
        rig.report("attic", {"n": 1})
        await rig.quiet()
        assert rig.session.log == []  # nothing said and nothing acknowledged: it comes again
        assert await rig.version("hall") == 1
        await rig.session.connect()
        assert sorted(topic.split("/")[2] for topic in rig.session.topics if "accepted" in topic) == [
            "attic", "hall",
        ]  # fmt: skip


async def test_requests_wait_until_the_broker_has_what_was_said_before(rig):
    async with running(rig, connect=False):
        await rig.register("hall")
        await rig.wish("hall", {"heat_c": 20})
        speaker_ready = asyncio.create_task(_ready(rig))
        await turns()
        assert not speaker_ready.done()
        await rig.session.connect()
        await speaker_ready
        assert rig.session.topics[-1] == f"{OWN}/update/documents"


async def _ready(rig):
    await rig.bridge._speaker.ready()


# ---------------------------------------------------------------------- the store, the registry, the bounds


async def test_a_store_that_is_down_at_the_connect_lets_requests_in_to_hear_503(rig, monkeypatch):
    monkeypatch.setattr(speaker, "RETRY_S", 0.02)
    async with running(rig, connect=False):
        await rig.register("hall")
        await rig.wish("hall", {"heat_c": 20})
        rig.store.refuses = EVERYTHING
        await rig.session.connect()
        packet = rig.send("hall", {"state": {"reported": {"heat_c": 20}}})
        await rig.quiet()
        assert rig.session.on(f"{OWN}/update/rejected")[0]["code"] == 503
        assert packet in rig.session.acked
        rig.store.refuses = ()
        await settled(lambda: f"{OWN}/update/documents" in rig.session.topics)
        assert _versions_on(rig, f"{OWN}/update/delta") == [1]


async def test_a_standing_nobody_knows_yet_is_asked_for_before_anything_is_said(rig):
    async with running(rig):
        await rig.register("meter", ThingKind.GATEWAY)
        await rig.register("hall", gateways=("meter",))
        rig.registry._standings.drop("hall")
        await rig.wish("hall", {"heat_c": 20})
        await settled(lambda: rig.bridge.shadows_left == 0 and bool(rig.session.log))
        assert f"{METER}/update/delta" in rig.session.topics


async def test_more_left_over_than_can_be_remembered_is_read_from_the_outboxes(rig, monkeypatch):
    monkeypatch.setattr(speaker, "LEFT_SHADOWS_MAX", 3)
    names = [f"thing-{number}" for number in range(9)]
    async with running(rig):
        for name in names:
            await rig.register(name)
        rig.session.fill()
        for name in names:
            await rig.wish(name, {"n": 1})
            assert rig.bridge.shadows_left <= 3
        rig.session.make_room()
        await settled(lambda: rig.bridge.shadows_left == 0 and len(rig.session.said) >= 18)
        told = {topic.split("/")[2] for topic in rig.session.topics if topic.endswith("documents")}
        assert told == set(names)
        # And it is in time again.
        rig.session.log.clear()
        await rig.wish("thing-0", {"n": 2})
        assert len(rig.session.said) == 2


async def test_a_shadow_whose_past_cannot_be_read_keeps_nobody_else_waiting(rig):
    async with running(rig, connect=False):
        for name in ("attic", "hall"):
            await rig.register(name)
            await rig.wish(name, {"heat_c": 20})
        honest = rig.shadows.archive.unsent

        async def failing(id, shadow, entries):
            if id.thing == "attic":
                raise KeyError("planted")
            return await honest(id, shadow, entries)

        rig.shadows.archive.unsent = failing
        await rig.session.connect()
        assert _versions_on(rig, f"{OWN}/update/documents") == [1]
        # The damaged one does not fill up: its next versions are said as usual.
        rig.shadows.archive.unsent = honest
        await rig.wish("attic", {"heat_c": 21})
        assert _versions_on(rig, "$aws/things/attic/shadow/update/delta") == [2]


async def test_a_listener_that_is_never_connected_says_and_keeps_nothing(rig):
    alone = Speaker(rig.session, rig.shadows, rig.registry, rig.clock, LIMITS, rig.metrics)
    async with running(rig, connect=False):
        await rig.register("hall")
        await rig.wish("hall", {"heat_c": 20})
        assert alone.left == 0
        assert not alone.remind(ShadowId("hall"), b"{}", None)
        assert rig.session.log == []


def _versions_on(rig, topic):
    return [_version(one.body) for one in rig.session.said if isinstance(one, Said) and one.topic == topic]
