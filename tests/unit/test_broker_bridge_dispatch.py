"""What each request deserves: a command, a refusal or silence; and its acknowledgement in any case."""

from functools import partial

import pytest
import structlog

from broker_bridge.dispatch import SilenceError, admit
from broker_bridge.inbox import Message
from broker_bridge.poison import Suspects
from broker_bridge.topics import JobRequest, Operation, Request, StreamOperation, StreamRequest
from infra.documents.port import StoreBrokenError
from infra.settings import BridgeSettings
from ota.job_requests import JobOperation
from registry.models import Standing, Thing, ThingKind
from security import audit
from security.policy import Role
from shadow.commands import Channel, Origin, parse_update
from shadow.document import ShadowId
from shadow.errors import ForbiddenError, ThingNotFoundError
from shadow.service import ShadowService
from tests.bridge_rig import ANNA, LIMITS, Acked, make_rig, running, settled
from tests.faulty_store import EVERYTHING

HALL = ShadowId("hall")
OWN = "$aws/things/hall/shadow"
METER = "gnomon/gateways/meter/down/things/hall/shadow"


@pytest.fixture
def rig(tmp_path):
    return make_rig(tmp_path)


# ---------------------------------------------------------------------- who may


def standing(
    name, kind=ThingKind.DEVICE, *, gateways=(), revoked=False, suspended=False, has_certificate=True
):
    revoked_at_ms, suspended_at_ms = (2 if barred else None for barred in (revoked, suspended))
    thing = Thing(
        name, kind, "acme", "home-1", has_certificate, 1, revoked_at_ms, suspended_at_ms=suspended_at_ms
    )
    return Standing(thing, frozenset(gateways))


METER_ITSELF = standing("meter", ThingKind.GATEWAY)
BY_ITSELF = Request(Operation.UPDATE, HALL)
BY_METER = Request(Operation.UPDATE, HALL, "meter")


@pytest.mark.parametrize(
    ("request_", "thing", "gateway", "origin"),
    [
        (BY_ITSELF, standing("hall"), None, Origin("hall", Role.DEVICE, Channel.MQTT)),
        (
            Request(Operation.UPDATE, ShadowId("meter")), METER_ITSELF, None,
            Origin("meter", Role.GATEWAY, Channel.MQTT),
        ),
        (
            BY_METER, standing("hall", gateways=["meter"]), METER_ITSELF,
            Origin("meter", Role.RELAY, Channel.MQTT, "meter"),
        ),
    ],
    ids=["a device for itself", "a gateway for itself", "a gateway for what is attached to it"],
)  # fmt: skip
def test_who_may_speak_speaks_in_its_own_name(request_, thing, gateway, origin):
    assert admit(request_, thing, gateway) == origin


@pytest.mark.parametrize(
    ("request_", "thing", "gateway", "error"),
    [
        (BY_ITSELF, None, None, ThingNotFoundError),
        (BY_ITSELF, standing("hall", revoked=True), None, SilenceError),
        (BY_ITSELF, standing("hall", suspended=True), None, SilenceError),
        (BY_ITSELF, standing("hall", has_certificate=False), None, SilenceError),
        (BY_METER, standing("hall"), METER_ITSELF, ForbiddenError),
        (BY_METER, None, METER_ITSELF, ForbiddenError),
        (BY_METER, standing("hall", gateways=["hub"]), METER_ITSELF, ForbiddenError),
        (BY_METER, standing("hall", gateways=["meter"], revoked=True), METER_ITSELF, ForbiddenError),
        (BY_METER, standing("hall", gateways=["meter"]), None, ForbiddenError),
        (BY_METER, standing("hall", gateways=["meter"]), standing("meter"), ForbiddenError),
        (
            BY_METER, standing("hall", gateways=["meter"]),
            standing("meter", ThingKind.GATEWAY, revoked=True), SilenceError,
        ),
        (BY_METER, standing("hall", gateways=["meter"], suspended=True), METER_ITSELF, ForbiddenError),
        (
            BY_METER, standing("hall", gateways=["meter"]),
            standing("meter", ThingKind.GATEWAY, suspended=True), SilenceError,
        ),
    ],
    ids=[
        "not registered", "revoked", "suspended", "without certificate", "not attached",
        "not attached and not registered",
        "attached to another gateway", "attached but revoked", "by an unregistered gateway",
        "by what is no gateway", "by a revoked gateway", "attached but suspended", "by a suspended gateway",
    ],
)  # fmt: skip
def test_who_may_not_speak_does_not(request_, thing, gateway, error):
    with pytest.raises(error):
        admit(request_, thing, gateway)


@pytest.mark.parametrize("gateway", [None, "meter"])
@pytest.mark.parametrize(
    "ask",
    [
        *(partial(JobRequest, one, "hall", "c-1") for one in JobOperation),
        *(partial(StreamRequest, one, "hall", "fw-1", "cbor") for one in StreamOperation),
    ],
    ids=str,
)
def test_who_asks_for_firmware_is_held_against_the_registry_in_the_same_way(ask, gateway):
    thing = standing("hall", gateways=["meter"])
    relay = METER_ITSELF if gateway else None
    assert admit(ask(gateway=gateway), thing, relay).gateway == gateway
    refused = ForbiddenError if gateway else ThingNotFoundError
    with pytest.raises(refused):
        admit(ask(gateway=gateway), None, relay)
    with pytest.raises(ForbiddenError if gateway else SilenceError):
        admit(ask(gateway=gateway), standing("hall", gateways=["meter"], revoked=True), relay)


def test_attached_or_not_is_answered_alike_whether_or_not_the_thing_exists():
    answers = []
    for thing in (standing("hall"), None):
        with pytest.raises(ForbiddenError) as refused:
            admit(BY_METER, thing, METER_ITSELF)
        answers.append((refused.value.message, refused.value.detail))
    assert answers[0] == answers[1]


# ---------------------------------------------------------------------- refusals change nothing


async def _nothing_changed(rig):
    assert await rig.shadows.shadows_of("hall") == []


async def test_an_unregistered_thing_is_told_404_with_its_token(rig):
    async with running(rig):
        packet = rig.report("hall", {"n": 1}, clientToken="t-1")
        await rig.quiet()
        (answer,) = rig.session.on(f"{OWN}/update/rejected")
        assert (answer["code"], answer["message"], answer["clientToken"]) == (404, "Thing not found", "t-1")
        assert rig.session.log[-1] == Acked(packet)
        await _nothing_changed(rig)


@pytest.mark.parametrize("act", ["revoke", "suspend"])
async def test_a_barred_thing_hears_nothing_is_counted_and_stands_in_the_audit(rig, act):
    async with running(rig):
        await rig.register("hall")
        await getattr(rig.registry, act)("hall", ANNA)
        packet = rig.report("hall", {"n": 1})
        await rig.quiet()
        assert rig.session.log == [Acked(packet)]
        reason = {"revoke": "revoked", "suspend": "suspended"}[act]
        assert rig.dropped(reason) == 1
        assert await _refused(rig) == [("hall", "device", "shadow.update", "shadow/hall/", reason, 1)]
        await _nothing_changed(rig)


async def test_a_suspended_thing_that_may_go_on_is_answered_again(rig):
    async with running(rig):
        await rig.register("hall")
        await rig.registry.suspend("hall", ANNA)
        rig.report("hall", {"n": 1})
        await rig.quiet()
        await rig.registry.resume("hall", ANNA)
        rig.report("hall", {"n": 2})
        await rig.quiet()
        assert len(rig.session.on(f"{OWN}/update/accepted")) == 1


@pytest.mark.parametrize("registered", [True, False])
async def test_a_gateway_hears_403_for_what_is_not_attached_to_it_registered_or_not(rig, registered):
    async with running(rig):
        await rig.register("meter", ThingKind.GATEWAY)
        if registered:
            await rig.register("hall")
        packet = rig.report("hall", {"n": 1}, gateway="meter", clientToken="t-1")
        await rig.quiet()
        (answer,) = rig.session.on(f"{METER}/update/rejected")
        assert (answer["code"], answer["message"], answer["clientToken"]) == (403, "Forbidden", "t-1")
        assert rig.session.topics == [f"{METER}/update/rejected"]
        assert rig.session.acked == [packet]
        assert await _refused(rig) == [("meter", "relay", "shadow.update", "shadow/hall/", "not attached", 1)]
        await _nothing_changed(rig)


async def test_attaching_and_detaching_hold_from_the_next_message_on(rig):
    async with running(rig):
        await rig.register("meter", ThingKind.GATEWAY)
        await rig.register("hall", gateways=("meter",))
        rig.report("hall", {"n": 1}, gateway="meter")
        await rig.quiet()
        await rig.registry.detach("meter", "hall", ANNA)
        rig.report("hall", {"n": 2}, gateway="meter")
        await rig.quiet()
        await rig.registry.attach("meter", "hall", ANNA)
        rig.report("hall", {"n": 3}, gateway="meter")
        await rig.quiet()
        assert [one.topic.rpartition("/")[2] for one in rig.session.said if "documents" not in one.topic] == [
            "accepted", "rejected", "accepted",
        ]  # fmt: skip
        assert await rig.version("hall") == 2


async def test_what_this_role_may_not_write_is_refused_and_stands_in_the_audit(rig):
    async with running(rig):
        await rig.register("hall")
        for _ in range(2):
            rig.send("hall", {"state": {"desired": {"events": {}}}}, shadow="program")
        await rig.quiet()
        answers = rig.session.on(f"{OWN}/name/program/update/rejected")
        assert [answer["code"] for answer in answers] == [403, 403]
        ((actor, _, action, target, _, count),) = await _refused(rig)
        assert (actor, action, target, count) == ("hall", "shadow.update", "shadow/hall/program", 2)
        await _nothing_changed(rig)


async def test_a_bad_request_stops_none_of_those_beside_it(rig):
    async with running(rig):
        await rig.register("hall")
        packets = [
            rig.report("hall", {"n": 1}),
            rig.send("hall", b"{nonsense"),
            rig.send("hall", b"x" * (LIMITS.request_bytes_max + 1)),
            rig.report("hall", {"n": 2}),
        ]
        await rig.quiet()
        assert sorted(one["code"] for one in rig.session.on(f"{OWN}/update/rejected")) == [400, 413]
        assert rig.session.acked == packets
        assert await rig.version("hall") == 2


async def test_get_and_delete_are_answered_on_their_own_topics(rig):
    async with running(rig):
        await rig.register("hall")
        rig.report("hall", {"n": 1})
        rig.send("hall", operation="get")
        rig.send("hall", operation="delete")
        rig.send("hall", b"not json at all", operation="get")
        await rig.quiet()
        ends = [topic.removeprefix(f"{OWN}/") for topic in rig.session.topics]
        assert ends == [
            "update/documents", "update/accepted", "get/accepted", "delete/accepted", "get/rejected",
        ]  # fmt: skip


async def _refused(rig):
    await rig.refusals.flush()
    page = await audit.read(rig.store, 0, 2**62, 100)
    return [
        (row.actor, row.role, row.action, row.target, row.reason, row.count)
        for row in page.entries
        if row.decision is audit.Decision.REFUSED
    ]


# ---------------------------------------------------------------------- acknowledgements


async def test_a_request_with_qos_0_is_answered_and_never_acknowledged(rig):
    """An acknowledgement of packet 0 would be a protocol error: any device could end our session."""
    async with running(rig):
        await rig.register("hall")
        rig.report("hall", {"n": 1}, qos=0)
        await rig.quiet()
        assert rig.session.topics == [f"{OWN}/update/documents", f"{OWN}/update/accepted"]
        assert rig.session.acked == []


@pytest.mark.parametrize(
    ("topic", "retain", "reason"),
    [
        (f"{OWN}/update", True, "retained"),
        (f"{OWN}/unheard-of", False, "unknown_topic"),
        ("gnomon/gateways/meter/up/anything", False, "unknown_topic"),
        ("$aws/things/bad$name/shadow/update", False, "unknown_topic"),
    ],
)
async def test_what_deserves_no_answer_is_acknowledged_and_counted_by_its_reason(rig, topic, retain, reason):
    async with running(rig):
        await rig.register("hall")
        flushes = rig.session.flushes
        packet = rig.deliver(topic, b'{"state": {"reported": {"n": 1}}}', retain=retain)
        rig.deliver(topic, b"{}", retain=retain, qos=0)
        assert rig.session.log == [Acked(packet)]
        assert rig.dropped(reason) == 2
        assert rig.session.flushes == flushes  # the session writes once for all it has read
        await rig.quiet()
        await _nothing_changed(rig)


async def test_the_eleventh_unanswered_request_of_a_thing_hears_429_and_the_ten_are_carried_out(rig):
    async with running(rig):
        await rig.register("hall")
        flushes = rig.session.flushes
        packets = [rig.report("hall", {"n": number}, clientToken=f"t-{number}") for number in range(11)]
        (answer,) = rig.session.on(f"{OWN}/update/rejected")
        assert (answer["code"], answer["clientToken"]) == (429, "t-10")
        assert rig.session.acked == [packets[10]]
        assert rig.session.flushes == flushes
        await rig.quiet()
        assert await rig.version("hall") == 10
        assert rig.session.acked == [packets[10], *packets[:10]]


async def test_a_revoked_thing_hears_nothing_even_when_it_asks_too_much(rig):
    async with running(rig):
        await rig.register("hall")
        await rig.registry.revoke("hall", ANNA)
        await rig.registry.standings(["hall"])
        for number in range(12):
            rig.report("hall", {"n": number})
        await rig.quiet()
        assert rig.session.topics == []
        assert len(rig.session.acked) == 12
        await _nothing_changed(rig)


async def test_a_gateway_cannot_use_up_the_places_of_a_thing_that_is_not_attached_to_it(rig):
    async with running(rig):
        await rig.register("meter", ThingKind.GATEWAY)
        await rig.register("hall")
        for number in range(20):
            rig.report("hall", {"n": number}, gateway="meter")
        rig.report("hall", {"n": 1})
        await rig.quiet()
        assert f"{OWN}/update/accepted" in rig.session.topics
        assert f"{OWN}/update/rejected" not in rig.session.topics


async def test_a_full_inbox_answers_429_and_takes_requests_again_when_it_is_empty(tmp_path):
    rig = make_rig(tmp_path, settings=BridgeSettings(inbox_requests_max=3, batch_messages_max=2))
    async with running(rig):
        for number in range(5):
            await rig.register(f"thing-{number}")
        for number in range(5):
            rig.report(f"thing-{number}", {"n": 1})
        await rig.quiet()
        rejected = [topic for topic in rig.session.topics if topic.endswith("rejected")]
        assert [topic.split("/")[2] for topic in rejected] == ["thing-3", "thing-4"]
        rig.report("thing-4", {"n": 1})
        await rig.quiet()
        assert await rig.version("thing-4") == 1


# ---------------------------------------------------------------------- failures


async def test_a_registry_that_cannot_be_asked_is_a_503_and_a_puback(rig):
    async with running(rig):
        rig.store.refuses = EVERYTHING
        packet = rig.report("hall", {"n": 1}, clientToken="t-1")
        await rig.quiet()
        (answer,) = rig.session.on(f"{OWN}/update/rejected")
        assert (answer["code"], answer["clientToken"]) == (503, "t-1")
        assert rig.session.acked == [packet]
        rig.store.refuses = ()
        await _nothing_changed(rig)


async def test_a_store_that_takes_no_commit_is_a_503_and_a_puback(rig):
    async with running(rig):
        await rig.register("hall")
        await rig.registry.standings(["hall"])
        rig.store.refuses = ("commit",)
        packet = rig.report("hall", {"n": 1})
        await rig.quiet()
        assert [one["code"] for one in rig.session.on(f"{OWN}/update/rejected")] == [503]
        assert rig.session.acked == [packet]
        await _nothing_changed(rig)


async def test_a_bug_in_the_parser_is_a_500_with_the_token_a_dead_letter_and_a_puback(rig, monkeypatch):
    def failing(payload, *rest):
        if b"apple" in payload:
            raise ZeroDivisionError("planted")
        return parse_update(payload, *rest)

    monkeypatch.setattr("broker_bridge.dispatch.parse_update", failing)
    async with running(rig):
        await rig.register("hall")
        with structlog.testing.capture_logs() as logs:
            packets = [
                rig.report("hall", {"n": 1}),
                rig.report("hall", {"apple": 1}, clientToken="t-1"),
                rig.report("hall", {"n": 2}),
            ]
            await rig.quiet()
        (answer,) = rig.session.on(f"{OWN}/update/rejected")
        assert (answer["code"], answer["message"]) == (500, "Internal service failure")
        assert answer["clientToken"] == "t-1"
        assert rig.session.acked == packets
        assert await rig.version("hall") == 2
        (event,) = [event for event in logs if event["event"] == "request_failed"]
        (letter,) = await rig.dead_letters()
        assert event["trace"] in letter["reason"]
        assert event["trace"] in answer["detail"]


async def test_a_bug_in_the_rules_is_a_dead_letter_too(rig, monkeypatch):
    def failing(_current, _command, _circumstances):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("shadow.decisions.carry_out", failing)
    async with running(rig):
        await rig.register("hall")
        packet = rig.report("hall", {"n": 1})
        await rig.quiet()
        assert [one["code"] for one in rig.session.on(f"{OWN}/update/rejected")] == [500]
        assert rig.session.acked == [packet]
        assert len(await rig.dead_letters()) == 1
        await _nothing_changed(rig)


async def test_a_record_of_the_registry_that_cannot_be_read_fails_alone(rig):
    honest = rig.registry.standings

    async def failing(names):
        if "attic" in names:
            raise ValueError("planted")
        return await honest(names)

    rig.registry.standings = failing
    async with running(rig):
        await rig.register("hall")
        packets = [rig.report("hall", {"n": 1}), rig.report("attic", {"n": 1}), rig.report("hall", {"n": 2})]
        await rig.quiet()
        assert [one["code"] for one in rig.session.on("$aws/things/attic/shadow/update/rejected")] == [500]
        assert await rig.version("hall") == 2
        assert rig.session.acked == packets


async def test_a_broken_disk_ends_the_bridge_and_nothing_is_acknowledged(rig, monkeypatch):
    async def broken(_self, _commands):
        raise StoreBrokenError("an fsync failed")

    monkeypatch.setattr(ShadowService, "submit", broken)

    async def live():
        async with running(rig):
            await rig.register("hall")
            rig.report("hall", {"n": 1})
            await settled(lambda: False)

    with pytest.raises(ExceptionGroup) as ended:
        await live()
    assert ended.group_contains(StoreBrokenError)
    assert rig.session.log == []


# ---------------------------------------------------------------------- after an unclean end


def _die(directory, *in_hand, times=1):
    """Leave what a process leaves that was killed with these messages in hand."""
    for _ in range(times):
        suspects = Suspects(directory, LIMITS.poison_tries_max)
        suspects.begin()
        suspects.take(in_hand)


async def test_after_an_unclean_end_all_that_is_redelivered_is_served_and_then_nothing_is_noted(tmp_path):
    _die(tmp_path)
    rig = make_rig(tmp_path)
    async with running(rig):
        await rig.register("hall")
        rig.report("hall", {"n": 1}, duplicate=True)
        await rig.quiet()
        assert (tmp_path / "in-hand.json").exists()
        rig.report("hall", {"n": 2})
        await rig.quiet()
        assert not (tmp_path / "in-hand.json").exists()
        assert await rig.version("hall") == 2


async def test_a_condemned_request_is_a_dead_letter_each_time_it_comes_and_the_others_are_served(tmp_path):
    poison = b'{"state": {"reported": {"poison": 1}}}'
    killer = Message(Request(Operation.UPDATE, HALL), poison, 1, 1, duplicate=True)
    _die(tmp_path, killer, times=LIMITS.poison_tries_max)
    rig = make_rig(tmp_path)
    async with running(rig):
        await rig.register("hall")
        packets = [
            rig.report("hall", {"n": 1}, duplicate=True),
            rig.send("hall", poison, duplicate=True),
            rig.send("hall", poison, duplicate=True),
            rig.report("hall", {"n": 2}, duplicate=True),
        ]
        await rig.quiet()
        rig.report("hall", {"n": 3})  # nothing redelivered any more
        await rig.quiet()
        packets.append(rig.send("hall", poison))  # its sender tries once more
        await rig.quiet()
        assert [one["code"] for one in rig.session.on(f"{OWN}/update/rejected")] == [500] * 3
        assert await rig.version("hall") == 3
        assert len(await rig.dead_letters()) == 1
        assert set(packets) <= set(rig.session.acked)
